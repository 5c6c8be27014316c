"""`assert_subsumes` as its users meet it: small counterexamples that run, one line for what does not fit."""

import functools
import re

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from metalearn_benchmarks.theory import shipped_map, subsumptions
from metalearn_core import UpdateRule, UsageError
from metalearn_core.testing import (
    Architecture,
    ConvolutionalArchitecture,  # noqa: F401  (for the reprs)
    Example,
    Node,
    OddArchitecture,  # noqa: F401
    Probe,
    Problem,
    RuleMap,
    assert_separates,
    assert_subsumes,
)
from metalearn_core.testing.strategies import problems
from metalearn_core.testing.theory.rule_map import resolve
from metalearn_core.testing.theory.separation import path


class HeavyBall(UpdateRule):
    """Somebody else's rule, written for one task: v ← βv + ∇, θ ← θ − αv."""

    def __init__(self, layout, beta=0.9):
        super().__init__()
        self.inner_lr, self.beta = nn.Parameter(torch.tensor(0.1)), beta

    def init_state(self, theta):
        return {"velocity": torch.zeros_like(theta)}

    def update(self, theta, signal, state):
        velocity = self.beta * state["velocity"] + signal.grad
        return theta - self.inner_lr * velocity, {"velocity": velocity}


def as_descent(maml):
    return {"inner_lr": maml.alpha}


def as_descent_uphill(maml):
    return {"inner_lr": -maml.alpha}


OPTIONS = {
    "special_options": {"inner_lr": st.floats(0.01, 0.9)},
    "general_options": {"beta": 0.0},
}


def test_a_third_partys_rule():
    assert_subsumes(HeavyBall, "gradient-descent", as_descent, **OPTIONS)


def test_a_third_partys_rule_is_placed_by_one_call():
    found = RuleMap()
    found.add(Node("gradient-descent", "Gradient descent"))
    edge = found.place(
        "heavy-ball", contains="gradient-descent", special="gradient-descent", general=HeavyBall,
        parameterise=as_descent, **OPTIONS,
    )  # fmt: skip
    assert found.relation("gradient-descent", "heavy-ball").verdict == "exact"
    edge.claims[0].check(examples=20)
    with pytest.raises(UsageError, match="'gradient-decent'"):
        found.place(
            "x", contains="gradient-decent", special="x", general=HeavyBall, parameterise=as_descent
        )  # fmt: skip


def message_of(general, special, parameterise, **claim):
    with pytest.raises(AssertionError) as error:
        assert_subsumes(general, special, parameterise, **claim)
    return str(error.value)


def code_in(message):
    return message.split("to run it again:\n\n")[1]


def test_the_counterexample_is_small_and_runs():
    message = message_of(HeavyBall, "gradient-descent", as_descent_uphill, **OPTIONS)
    assert "HeavyBall does not follow gradient-descent: θ after 1 of 1 steps differs" in message
    assert "'inner_lr': -" in message
    # the smallest there is: one task, one step, one example, one layer
    assert re.search(r"Architecture\((widths=\(1, 1\)|shapes=\(\(\),\))", message), message
    assert "support=1, query=1" in message
    assert "tasks=" not in message
    with pytest.raises(AssertionError) as again:
        exec(code_in(message), {})
    assert str(again.value) == message


@pytest.mark.usefixtures("unshrunk")
def test_a_claim_of_the_map_is_named_in_its_counterexample(monkeypatch):
    address = f"{subsumptions.__name__}:FEED_FORWARD_IS_GRADIENT_DESCENT"
    wrong = resolve(address)
    monkeypatch.setattr(subsumptions.as_, "carried_gradient", None)
    object.__setattr__(wrong, "parameterise", lambda special, general: {})
    with pytest.raises(AssertionError) as error:
        wrong.check()
    code = code_in(str(error.value))
    assert f"from {subsumptions.__name__} import FEED_FORWARD_IS_GRADIENT_DESCENT" in code
    exec(code, {})  # the map's own claim is right


@pytest.mark.usefixtures("unshrunk")
def test_what_cannot_be_imported_is_named():
    message = message_of(
        functools.partial(HeavyBall, beta=0.0), "gradient-descent", lambda s: {"inner_lr": torch.tensor(5.0)}
    )
    code = code_in(message)
    assert "# parameterise is " in code
    assert "# general is " in code
    assert "define it here" in code
    compile(code, "snippet", "exec")


def test_one_example_alone():
    problem = Problem(Architecture((1, 2, 1)), tasks=2, steps=3, seed=4)
    assert_subsumes(
        HeavyBall, "gradient-descent", as_descent,
        example=Example(problem, special={"inner_lr": 0.3}, general={"beta": 0.0}),
    )  # fmt: skip
    with pytest.raises(AssertionError, match="θ after 2 of 3 steps"):
        assert_subsumes(
            HeavyBall, "gradient-descent", as_descent,
            example=Example(problem, special={"inner_lr": 0.3}, general={"beta": 0.5}),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("parameterise", "claim", "complaint"),
    [
        (lambda s: {"inner_rl": torch.tensor(1.0)}, {}, "unknown meta-parameter 'inner_rl'.*inner_lr"),
        (lambda s: {"inner_lr": torch.ones(3)}, {}, r"inner_lr of HeavyBall .* shape \(\), got \(3,\)"),
        (as_descent, {"optionen": {}}, "unknown argument 'optionen'"),
        (as_descent, {"general_options": {"gamma": 1.0}}, "gamma"),
    ],
)
def test_what_does_not_fit_is_said(parameterise, claim, complaint):
    with pytest.raises((UsageError, TypeError), match=complaint):
        assert_subsumes(HeavyBall, "gradient-descent", parameterise, **claim)


def test_a_rule_that_is_not_deterministic_is_not_taken_for_another(unshrunk):
    class Noisy(HeavyBall):
        def update(self, theta, signal, state):
            theta, state = super().update(theta, signal, state)
            return theta + 1e-6 * torch.randn_like(theta).detach(), state

        elementwise = True

    with pytest.raises((AssertionError, hypothesis.errors.FlakyFailure)):
        assert_subsumes(Noisy, "gradient-descent", as_descent, **OPTIONS)


@pytest.mark.usefixtures("unshrunk")
def test_a_nan_is_a_difference():
    class Broken(HeavyBall):
        def update(self, theta, signal, state):
            theta, state = super().update(theta, signal, state)
            return theta / (theta - theta), state

    assert "differs" in message_of(Broken, "gradient-descent", as_descent, **OPTIONS)


def moves_where_the_gradient_is_zero(rule, probe):
    nothing = probe.normal(probe.n) * 0
    start, *_, end = path(rule, probe.normal(probe.n), nothing, max(probe.steps, 1))
    return float((end - start).abs().max())


def test_a_third_party_separates_two_rules():
    assert_separates(HeavyBall, "lstm", moves_where_the_gradient_is_zero)
    with pytest.raises(AssertionError, match=r"lstm with .* breaks moves_where") as error:
        assert_separates("lstm", "lstm", moves_where_the_gradient_is_zero)
    with pytest.raises(AssertionError) as again:
        exec(code_in(str(error.value)), {})
    assert str(again.value) == str(error.value)
    with pytest.raises(AssertionError, match="keeps moves_where"):
        assert_separates(HeavyBall, "gradient-descent", moves_where_the_gradient_is_zero)


def test_probes_repeat():
    assert torch.equal(Probe(seed=3).normal(2, salt=1), Probe(seed=3).normal(2, salt=1))
    assert not torch.equal(Probe(seed=3).normal(2, salt=1), Probe(seed=3).normal(2, salt=2))


@hypothesis.given(problem=problems())
def test_a_problem_is_its_repr(problem):
    again = eval(repr(problem))
    assert again == problem
    assert torch.equal(again.theta, problem.theta)
    assert torch.equal(again.task.query.targets, problem.task.query.targets)


def nothing(special, *, closeness=0.0):
    return {}


def no_gap(special, closeness, theta, grads):
    return 0 * theta


@pytest.mark.parametrize(
    ("claim", "complaint"),
    [
        (
            {"gap": lambda s, c: c},
            r"gap: expected gap\(special, closeness, theta, grads\), got a function of 2",
        ),
        ({"parameterise": lambda a, b, c: {}}, "parameterise: expected .* got a function of 3"),
        ({"parameterise": lambda: {}}, "parameterise: expected .* got a function of 0"),
        (
            {"parameterise": lambda s: None},
            r"parameterise: expected \{name: tensor or number\}, got a NoneType",
        ),
        ({"parameterise": lambda s: {}, "gap": no_gap}, "must take the keyword closeness"),
        ({"special_options": st.floats()}, "special_options: expected a mapping of options"),
        (
            {"problems": Problem(Architecture((1, 1)))},
            "problems: expected a hypothesis strategy, got a Problem",
        ),
        ({"closeness": 0.1}, "closeness: expected a hypothesis strategy, got a float"),
        ({"example": st.none()}, "example: expected an Example"),
        ({"general": HeavyBall(Problem(Architecture((1, 1))).learner.layout)}, "general: expected a rule's"),
        ({"general": 3}, "general: expected a rule's registered name"),
    ],
)
def test_a_claim_that_is_no_claim_is_refused_in_one_line(claim, complaint):
    whole = {"general": HeavyBall, "special": "gradient-descent", "parameterise": nothing, **claim}
    with pytest.raises(UsageError, match=complaint) as error:
        assert_subsumes(**whole)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("found", [None, True, "0"])
def test_an_invariant_says_a_number(found):
    with pytest.raises(UsageError, match="invariant: expected a number"):
        assert_separates(HeavyBall, "lstm", lambda rule, probe: found)


def test_arguments_of_separations_are_looked_at_too():
    with pytest.raises(UsageError, match="unknown argument 'toleranz'"):
        assert_separates(HeavyBall, "lstm", moves_where_the_gradient_is_zero, toleranz=1.0)
    with pytest.raises(UsageError, match="invariant: expected invariant"):
        assert_separates(HeavyBall, "lstm", lambda rule: 0.0)


class NotANumber(HeavyBall):
    def update(self, theta, signal, state):
        return theta + torch.nan, state


@pytest.mark.usefixtures("unshrunk")
def test_what_is_not_a_number_proves_nothing():
    """Neither as the general rule, in the limit too, nor as the special one, nor as a witness."""
    with pytest.raises(AssertionError, match="strays by nan"):
        assert_subsumes(NotANumber, "gradient-descent", nothing, gap=no_gap)
    with pytest.raises(AssertionError, match="NotANumber leaves the numbers"):
        assert_subsumes(HeavyBall, NotANumber, nothing, examples=60)
    with pytest.raises(AssertionError, match="keeps not_a_number"):
        assert_separates(HeavyBall, NotANumber, not_a_number)


def not_a_number(rule, probe):
    return float(path(rule, probe.normal(probe.n), probe.normal(probe.n), 1)[-1].sum()) * 0


@pytest.mark.usefixtures("unshrunk")
def test_a_bound_with_a_huge_constant_proves_nothing():
    def loose(special, closeness, theta, grads):
        return 1e15 * closeness * torch.ones_like(theta)

    with pytest.raises(AssertionError, match="more than its bound"):
        assert_subsumes("feed-forward", "gradient-descent", nothing, gap=loose)


@pytest.mark.usefixtures("unshrunk")
def test_a_rule_that_raises_is_shown_with_its_example():
    class Raises(HeavyBall):
        def update(self, theta, signal, state):
            raise RuntimeError("out of luck")

    message = message_of(Raises, "gradient-descent", as_descent, **OPTIONS)
    assert "RuntimeError: out of luck" in message
    assert "to run it again" in message


@pytest.mark.parametrize(
    ("contains", "special_options", "message"),
    [
        ("adam", {}, "'adam' stands for optimizer = 'adam', special_options has 'sgd'"),
        ("per-tensor", {"learn_lr": "parameter"}, "stands for learn_lr = 'tensor', special_options has 'par"),
        ("momentum", {"inner_lr": 0.1}, "stands for any momentum: special_options must have it"),
        (
            "gradient-descent",
            {"inner_lr": 0.1, "momentum": 0.5},
            "for momentum = 0.0, special_options has 0.5",
        ),
    ],
)
def test_a_place_is_refused_where_the_options_are_not_the_nodes(contains, special_options, message):
    """Of one rule there are fifteen nodes: what holds of plain descent says nothing of Adam."""
    found = shipped_map()
    edges = len(found.edges)
    with pytest.raises(UsageError, match=re.escape(message)):
        found.place(
            "heavy-ball", contains=contains, special="gradient-descent", general=HeavyBall,
            parameterise=as_descent, special_options=special_options, general_options={"beta": 0.0},
        )  # fmt: skip
    assert (len(found.edges), "heavy-ball" in found.nodes) == (edges, False)


def test_a_place_is_refused_under_the_name_of_another_rule():
    given = {"contains": "gradient-descent", "special": "gradient-descent", "parameterise": as_descent}
    with pytest.raises(UsageError, match="stands for options of the rule 'feed-forward', general is Heavy"):
        shipped_map().place("feed-forward-history", general=HeavyBall, **given, **OPTIONS)
    assert shipped_map().place("heavy-ball", general=HeavyBall, **given, **OPTIONS).kind == "exact"


class WithAClass(HeavyBall):
    def __init__(self, layout, beta=0.0, activation=nn.ReLU):
        super().__init__(layout, beta)
        assert isinstance(activation, type)


def test_an_option_may_be_a_class():
    """A function of the special rule's options is called, a class is the option itself."""
    given = {**OPTIONS, "general_options": {"beta": 0.0, "activation": nn.Tanh}}
    assert_subsumes(WithAClass, "gradient-descent", as_descent, **given)


def test_a_place_is_refused_where_the_node_is_of_another_rule():
    found = RuleMap()
    found.add(Node("lstm", "LSTM", rule="lstm"))
    with pytest.raises(
        UsageError, match="'lstm' stands for options of the rule 'lstm', special is 'gradient"
    ):
        found.place(
            "x", contains="lstm", special="gradient-descent", general=HeavyBall, parameterise=as_descent
        )  # fmt: skip
    with pytest.raises(UsageError, match="unknown argument 'special_option'"):
        found.place(
            "x", contains="lstm", special="lstm", general=HeavyBall, parameterise=nothing, special_option={}
        )  # fmt: skip
