"""Rules that are wrong on purpose: every claim of the map must notice each."""

import functools

import attrs
import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from metalearn_benchmarks.theory import parameterisations, shipped_map
from metalearn_core import Signal, UpdateRule, make_rule
from metalearn_core.testing import Separation
from metalearn_core.testing.theory.rule_map import resolve

MAP = shipped_map()
CLAIMS = {name.split(":")[1]: resolve(name) for e in (*MAP.edges, *MAP.crossed) for name in e.claims}
EXACT = [name for name, claim in CLAIMS.items() if not isinstance(claim, Separation) and not claim.gap]
LIMIT = [name for name, claim in CLAIMS.items() if not isinstance(claim, Separation) and claim.gap]
CROSSED = [name for name, claim in CLAIMS.items() if isinstance(claim, Separation)]


BEYOND_M = ["FEED_FORWARD_NEARS_A_SCHEDULE", "FEED_FORWARD_NEARS_AVERAGED_SGD"]
"""There all depends on how far |∇|, or |∇ + λθ|, is from M."""
COARSE = ["GELU_AND_ELU_NEAR_RELU", "TANH_AND_SIGMOID_NEAR_RELU"]
"""Their knots are a 32nd apart or more: a leak of a hundredth of a gradient hides between two."""
AVERAGING = ["FEED_FORWARD_IS_AN_AVERAGE", "FEED_FORWARD_IS_MOMENTUM", "FEED_FORWARD_IS_NESTEROV"]
GATED = ["LSTM_IS_GRADIENT_DESCENT_IN_FLOATS", "LSTM_NEARS_GRADIENT_DESCENT", "LSTM_IS_WEIGHT_DECAY"]


class Wrong(UpdateRule):
    """Another rule with something wrong; its φ and its attributes are that rule's."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule
        for name in ("uses_loss", "uses_step", "elementwise", "coordinatewise", "check_first_update"):
            setattr(self, name, getattr(rule, name))

    def named_parameters(self, *args, **kwargs):
        return self.rule.named_parameters(*args, **kwargs)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("rule"), name)

    def init_state(self, theta):
        return self.rule.init_state(theta)

    def with_grad(self, theta, signal, state, grad):
        return self.rule.update(theta, Signal(grad, signal._loss, signal._step), state)


class AgainstTheGradient(Wrong):
    def update(self, theta, signal, state):
        return self.with_grad(theta, signal, state, -signal.grad)


class DividedByTheBatch(Wrong):
    """The gradient divided by the number of tasks that happen to be adapted together."""

    def update(self, theta, signal, state):
        return self.with_grad(theta, signal, state, signal.grad / len(theta))


class LeaksBetweenTasks(Wrong):
    """The state holds a mean over tasks of the gradient before, which every task is shown."""

    def init_state(self, theta):
        return self.rule.init_state(theta), torch.zeros_like(theta)

    def update(self, theta, signal, state):
        inner, leaked = state
        theta, inner = self.with_grad(theta, signal, inner, signal.grad + 0.01 * leaked)
        return theta, (inner, signal.grad.mean(0, keepdim=True).expand_as(theta))


class FirstOrder(Wrong):
    """First order where second is claimed."""

    def update(self, theta, signal, state):
        return self.with_grad(theta, signal, state, signal.grad.detach())


class OneStepLate(Wrong):
    """The rule is shown the gradient of the step before, at first zero."""

    def init_state(self, theta):
        return self.rule.init_state(theta), torch.zeros_like(theta)

    def update(self, theta, signal, state):
        inner, late = state
        theta, inner = self.with_grad(theta, signal, inner, late)
        return theta, (inner, signal.grad)


class LateHistory(Wrong):
    """h⁽ᵗ⁻¹⁾ where Equation 3.6 has h⁽ᵗ⁾."""

    def init_state(self, theta):
        history = self.rule.init_state(theta)
        return history, history

    def update(self, theta, signal, state):
        before, now = state
        theta, _ = self.rule.update(theta, signal, before)
        return theta, (now, self.rule._average(now, signal.grad))


def spoilt(claim, mutant):
    """The claim about a general rule that is wrong."""

    def general(layout, **options):
        made = claim.general
        rule = make_rule(made, layout, **options) if isinstance(made, str) else made(layout, **options)
        return mutant(rule)

    return attrs.evolve(claim, general=general, address="")


def caught(claim):
    with pytest.raises(AssertionError) as error:
        claim.check()
    return str(error.value)


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize(
    "mutant", [AgainstTheGradient, DividedByTheBatch, LeaksBetweenTasks, FirstOrder, OneStepLate]
)
@pytest.mark.parametrize("name", EXACT)
def test_every_exact_edge_notices(name, mutant):
    message = caught(spoilt(CLAIMS[name], mutant))
    assert ("second-order meta-gradient" in message) == (mutant is FirstOrder), message


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize("mutant", [AgainstTheGradient, DividedByTheBatch, LeaksBetweenTasks, OneStepLate])
@pytest.mark.parametrize("name", LIMIT)
def test_every_edge_in_the_limit_notices(name, mutant):
    if mutant is LeaksBetweenTasks and name in COARSE:
        return
    caught(spoilt(CLAIMS[name], mutant))


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize("name", LIMIT)
def test_no_bound_is_a_hundredth_of_what_it_is_and_each_goes_to_0(name):
    """Were it so, the bound would say little; and one that stays where it is says nothing of a limit."""
    claim = CLAIMS[name]
    if name not in BEYOND_M:
        tight = attrs.evolve(claim, gap=lambda *args: 0.01 * claim.gap(*args))
        assert "more than its bound" in caught(tight)
    constant = attrs.evolve(claim, gap=lambda s, c, theta, grads: 1e6 + theta.abs())
    assert "does not go to 0" in caught(constant)


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize("name", AVERAGING)
def test_a_history_that_is_one_step_late_is_noticed(name):
    caught(spoilt(CLAIMS[name], LateHistory))


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize("gate", ["forget_gate", "input_gate"])
@pytest.mark.parametrize("name", GATED)
def test_a_gate_bias_of_the_wrong_sign_is_noticed(name, gate):
    claim = CLAIMS[name]

    @functools.wraps(claim.parameterise)
    def wrong(special, general, **near):
        phi = claim.parameterise(special, general, **near)
        return phi | {f"{gate}.bias": -phi[f"{gate}.bias"]}

    caught(attrs.evolve(claim, parameterise=wrong))


@pytest.mark.usefixtures("unshrunk")
def test_the_proof_as_it_is_printed_is_noticed(monkeypatch):
    """It gives b_f the value that b_i must have."""
    claim = CLAIMS["LSTM_IS_GRADIENT_DESCENT_IN_FLOATS"]

    def printed(special, general):
        phi = parameterisations.saturated_gates(special, general)
        return phi | {"forget_gate.bias": phi["input_gate.bias"]}

    caught(attrs.evolve(claim, parameterise=printed))


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize("name", CROSSED)
def test_an_invariant_is_noticed_to_be_broken_and_a_witness_to_keep_it(name):
    """With the special rule in the general one's place, and the other way round."""
    claim = CLAIMS[name]
    options, phi = claim.special_options, claim.special_phi

    def broken(layout, **_):
        rule = (
            make_rule(claim.special, layout, **options)
            if isinstance(claim.special, str)
            else claim.special(layout, **options)
        )
        with torch.no_grad():
            for key, value in phi.items():
                dict(rule.named_parameters())[key].copy_(torch.as_tensor(value))
        return rule.requires_grad_(False)

    with pytest.raises(AssertionError, match="breaks"):
        attrs.evolve(claim, general=Frozen.of(broken)).check_invariant(claim.witness, {})
    plainest = hypothesis.find(st.fixed_dictionaries(as_strategies(claim.general_options)), lambda _: True)
    kept = attrs.evolve(claim, special=claim.general, special_options=plainest, special_phi={})
    with pytest.raises(AssertionError, match="keeps"):
        kept.check_witness()


def as_strategies(options):
    return {k: v if isinstance(v, st.SearchStrategy) else st.just(v) for k, v in options.items()}


class Frozen(Wrong):
    """A rule without φ, so that nothing is drawn for it."""

    @classmethod
    def of(cls, make):
        return lambda layout, **options: cls(make(layout, **options))

    def parameters(self, recurse=True):
        return iter(())

    def update(self, theta, signal, state):
        return self.rule.update(theta, signal, state)
