"""Every edge of the shipped map, and every crossed-out one, checked on drawn examples."""

import inspect
from importlib import import_module

import attrs
import pytest
import torch
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from metalearn_benchmarks.theory import approximations, laws, optimisers, shipped_map, subsumptions
from metalearn_benchmarks.theory.members import MEMBERS, any_of
from metalearn_core import TwinOptimizer, UsageError, rules
from metalearn_core.optimizers.torch_twins import TWINS
from metalearn_core.testing import ConvolutionalArchitecture, Example, Problem, Separation, Subsumption
from metalearn_core.testing.theory.rule_map import resolve
from metalearn_core.testing.theory.statement import NothingToCompareError

MAP = shipped_map()
CLAIMS = sorted({claim for edge in (*MAP.edges, *MAP.crossed) for claim in edge.claims})


def name_of(claim):
    return claim.split(":")[1]


def property_of(claim):
    """What is checked on drawn examples: separations of one rule from many share an invariant."""
    found = resolve(claim)
    if isinstance(found, Subsumption):
        return claim
    return found.general, found.invariant, id(found.general_options)


PROPERTIES = {property_of(claim): claim for claim in CLAIMS}
WITNESSES = [claim for claim in CLAIMS if isinstance(resolve(claim), Separation)]


def sides():
    """Every rule that a claim names, with the node that it stands for."""
    for edge in (*MAP.edges, *MAP.crossed):
        for claim in edge.claims:
            found = resolve(claim)
            yield claim, MAP.nodes[edge.special], found.special, found.special_options
            yield claim, MAP.nodes[edge.general], found.general, found.general_options


@pytest.mark.parametrize(
    ("claim", "node", "rule", "options"),
    [side for side in sides() if isinstance(side[2], str) and side[1].rule],
    ids=lambda part: name_of(part) if isinstance(part, str) and ":" in part else "",
)
def test_a_claim_draws_the_rule_that_its_node_stands_for(claim, node, rule, options):
    assert rule == node.rule
    defaults = {name: option.default for name, option in rules()[rule].options().items()}
    for name, value in node.options.items():
        given = options.get(name, defaults.get(name, value))
        given = list(given) if isinstance(given, tuple) else given
        strategy = given if isinstance(given, st.SearchStrategy) else st.just(given)
        assert find(strategy, lambda drawn, value=value: drawn == value) == value


@pytest.mark.parametrize("node", MEMBERS)
def test_a_member_is_what_its_node_stands_for(node):
    """What the node fixes has that value, what it leaves free has each of the values that it lists."""
    stands_for, members = MAP.nodes[node], any_of((node,))
    if not stands_for.rule:
        return  # a reference, which has no options
    defaults = {name: option.default for name, option in rules()[stands_for.rule].options().items()}

    def value(member, name, otherwise=None):
        found = member[1].get(name, defaults.get(name, otherwise))
        return list(found) if isinstance(found, tuple) else found

    @settings(max_examples=50)
    @given(member=members)
    def is_one(member):
        assert member[0] == stands_for.rule
        assert {name: value(member, name, fixed) for name, fixed in stands_for.options.items()} == (
            stands_for.options
        )

    is_one()
    quick = settings(phases=[Phase.generate], max_examples=5_000, derandomize=True)
    for name, listed in stands_for.free.items():
        for one in listed if isinstance(listed, list) else ():
            find(members, lambda member, name=name, one=one: value(member, name) == one, settings=quick)


@pytest.mark.parametrize("node", [node for node in MAP.nodes.values() if node.rule], ids=lambda n: n.name)
def test_a_node_says_of_every_option_what_it_may_be(node):
    options = {name for name in rules()[node.rule].options() if not name.startswith("**")}
    if node.rule == "gradient-descent":
        twin = TWINS[node.options["optimizer"]]
        passed_on = set(inspect.signature(twin.__init__).parameters) - {"self", "params", "lr"}
        options |= {name for name in passed_on if _is_an_option(twin, name)}
    assert {*node.options, *node.varies, *node.free} == options
    assert not set(node.free) & {*node.options, *node.varies}


def _is_an_option(twin, name):
    try:
        TwinOptimizer(twin.__name__.lower(), {name: twin([torch.zeros(1)]).defaults[name]})
    except UsageError:  # it chooses an implementation, not a rule
        return False
    return True


@pytest.mark.parametrize("claim", PROPERTIES.values(), ids=name_of)
def test_the_claim_holds(claim):
    found = resolve(claim)
    (found.check if isinstance(found, Subsumption) else found.check_property)()


def test_a_bound_is_not_asked_for_what_has_exploded():
    """Gradients of 10⁶⁰ are within no M that a closeness of 10⁻³⁰ stands for."""
    problem = Problem(
        ConvolutionalArchitecture((1, 1), (3, 4), (1, 1), activation="softplus"), support=1, query=1, steps=5
    )
    options = {"hidden": [12, 10], "inputs": ["grad", "step"]}
    claim = subsumptions.FEED_FORWARD_NEARS_A_SCHEDULE
    with pytest.raises(NothingToCompareError, match="beyond 1e\\+30"):
        claim.check(example=Example(problem, general=options, closeness=0.5))
    shorter = attrs.evolve(problem, steps=2)
    claim.check(example=Example(shorter, general=options, closeness=0.5))


ANY_RATE = [
    claim
    for claim in PROPERTIES.values()
    if isinstance(resolve(claim), Subsumption)
    and "inner_lr" in resolve(claim).special_options
    and "LSTM" not in claim
]


@pytest.mark.parametrize("claim", ANY_RATE, ids=name_of)
def test_where_any_rate_is_meant_it_may_be_0_or_10(claim):
    found = resolve(claim)
    rates = st.one_of(st.just(0.0), st.floats(1.0, 10.0))
    attrs.evolve(found, special_options={**found.special_options, "inner_lr": rates}).check()


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize("name", ["LSTM_IS_GRADIENT_DESCENT_IN_FLOATS", "LSTM_IS_WEIGHT_DECAY"])
def test_a_rate_above_1_is_more_than_theorem_1_says(name):
    """The bias of the proof is then the logarithm of a negative number."""
    found = getattr(subsumptions, name)
    rates = {**found.special_options, "inner_lr": st.floats(1.01, 10.0)}
    plain = {**found.general_options, "candidate_scale": 1.0}
    with pytest.raises(AssertionError):
        attrs.evolve(found, special_options=rates, general_options=plain).check()


@pytest.mark.parametrize("claim", WITNESSES, ids=name_of)
def test_the_witness_breaks_the_invariant(claim):
    resolve(claim).check_witness()


def test_every_claim_is_on_the_map():
    made = {
        f"{module.__name__}:{name}"
        for module in (subsumptions, optimisers, approximations, laws)
        for name, value in vars(module).items()
        if isinstance(value, Subsumption | Separation) and name.isupper()
    }
    assert made == set(CLAIMS)


def test_every_edge_has_its_proof():
    """Unless it says that the special rule is the general one with a number in its place."""
    for edge in MAP.edges:
        assert bool(edge.claims) != edge.why.startswith("by definition"), edge
        for claim in map(resolve, edge.claims):
            assert isinstance(claim, Subsumption)
            floats = claim.address.endswith(("_IN_FLOATS", "_UNDER_CLIPPING"))
            assert floats or bool(claim.gap) == (edge.kind == "limit"), edge
    for crossed in MAP.crossed:
        assert crossed.claims, crossed
        assert all(isinstance(resolve(claim), Separation) for claim in crossed.claims)


def test_no_two_claims_contradict_each_other():
    assert list(MAP.contradictions()) == []


@pytest.mark.parametrize(
    ("special", "general", "verdict"),
    [
        ("gradient-descent-below-1", "lstm", "limit"),
        ("gradient-descent-below-1", "lstm-hidden", "limit"),
        ("gradient-descent", "lstm", "not"),
        ("gradient-descent", "meta-sgd", "exact"),
        ("meta-sgd", "feed-forward-alpha", "exact"),
        ("gradient-descent", "feed-forward", "exact"),
        ("gradient-descent", "feed-forward-tanh", "limit"),
        ("meta-sgd", "lstm", "not"),
        ("meta-sgd", "feed-forward", "not"),
        ("feed-forward", "meta-sgd", "not"),
        ("weight-decay-below-1", "lstm", "exact"),
        ("weight-decay-below-1", "feed-forward", "not"),
        ("weight-decay-below-1", "feed-forward-theta", "exact"),
        ("exponential-average", "feed-forward-history", "exact"),
        ("schedule", "feed-forward", "not"),
        ("schedule", "feed-forward-theta", "not"),
        ("schedule", "feed-forward-step", "limit"),
        *((lstm, "feed-forward", "not") for lstm in ("lstm", "lstm-hidden")),
        *(("feed-forward", lstm, "not") for lstm in ("lstm", "lstm-hidden")),
    ],
)
def test_the_relations_that_the_paper_is_about(special, general, verdict):
    found = MAP.relation(special, general)
    assert found.verdict == verdict
    # a limit is known not to be exact, where it is so
    assert found.closed == ((special, general) in KNOWN_NOT_EXACT or verdict == "not")


KNOWN_NOT_EXACT = {
    ("gradient-descent", "feed-forward-tanh"),
    ("gradient-descent-below-1", "lstm"),
    ("gradient-descent-below-1", "lstm-hidden"),
    ("schedule", "feed-forward-step"),
}


def test_every_option_of_the_shipped_rules_has_a_place():
    """By the names of the options: each is set by some claim's general or special rule."""
    from metalearn_core import rules

    said = {"inner_lr", "learn_lr", "optimizer"}
    for claim in map(resolve, CLAIMS):
        said |= {*claim.general_options, *claim.special_options}
    for _, options in MEMBERS.values():
        said |= set(options)
    absent = {
        (rule, option)
        for rule in ("gradient-descent", "lstm", "feed-forward")
        for option in rules()[rule].options()
        if option not in said and not option.startswith("**")
    }
    # where φ starts, and what every node keeps as it is by default
    starts = {
        (node.rule, name)
        for node in MAP.nodes.values()
        for name, words in node.free.items()
        if words == "where φ starts"
    }
    assert absent - starts == {("lstm", "memory")}


@pytest.mark.parametrize("claim", CLAIMS, ids=name_of)
def test_a_claim_knows_where_it_stands(claim):
    found = resolve(claim)
    assert found.address == claim
    module, name = claim.split(":")
    assert attrs.evolve(found, address="") == getattr(import_module(module), name)
