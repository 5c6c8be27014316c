"""Theorem 1 of the paper: the meta-learner LSTM subsumes MAML (Section 3.4.1).

With W_f = W_i = 0, a forget bias at which σ is 1 in floating point, and b_i = −ln((1 − α)/α), Equation
3.3 is Equation 3.1. (The proof prints b_f in the last place, where b_i is meant.)
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metalearn_core import Batch, Signal, make_rule, meta_gradient, trajectory
from metalearn_core.testing.strategies import Architecture, problems

SATURATED = 40.0
"""σ(40) is 1 in float64: the distance to 1 is below half a unit in the last place from about 36.7."""


def as_gradient_descent(layout, hidden, forget_bias, input_bias):
    """The LSTM at the parameters of the proof; a first layer, if there is one, has nothing to say."""
    rule = make_rule("lstm", layout, hidden=hidden).double()
    with torch.no_grad():
        for gate, bias in ((rule.forget_gate, forget_bias), (rule.input_gate, input_bias)):
            gate.weight.zero_()
            gate.bias.fill_(bias)
    return rule


def pair(problem, hidden, input_bias, forget_bias=SATURATED):
    alpha = torch.sigmoid(torch.tensor(input_bias, dtype=torch.float64)).item()
    layout = problem.learner.layout
    lstm = as_gradient_descent(layout, hidden, forget_bias, input_bias)
    return lstm, make_rule("gradient-descent", layout, inner_lr=alpha)


def equal_to_rounding(ours, theirs, nudged):
    """Equal as far as rounding goes that the steps have amplified.

    Not to the bit: a σ computed on a vector may differ from a single one in its last place. How far
    such a difference grows shows MAML itself, from a start that is `NUDGE` away.
    """
    ours, theirs, nudged = (x.detach() for x in (ours, theirs, nudged))
    amplified = (nudged - theirs).abs().max()
    bound = 10 * float(amplified) + 1e-11 * float(1 + theirs.abs().max())
    assert float((ours - theirs).abs().max()) <= bound


NUDGE = 1e-13
LOGITS = st.floats(-8, 4)  # α from 3e-4 to 0.98


@pytest.mark.parametrize("hidden", [0, 5])
@given(problem=problems(), input_bias=LOGITS)
def test_the_lstm_follows_every_step_of_maml(hidden, problem, input_bias):
    lstm, maml = pair(problem, hidden, input_bias)
    starts = ((lstm, problem.theta), (maml, problem.theta), (maml, problem.theta * (1 + NUDGE)))
    paths = [
        [
            now
            for now, _ in trajectory(rule, problem.learner, start, problem.task.support, steps=problem.steps)
        ]
        for rule, start in starts
    ]
    for ours, theirs, nudged in zip(*paths, strict=True):
        equal_to_rounding(ours, theirs, nudged)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("hidden", [0, 5])
@given(problem=problems(), input_bias=LOGITS)
def test_the_lstm_has_the_meta_gradient_of_maml_for_the_initialisation(hidden, order, problem, input_bias):
    lstm, maml = pair(problem, hidden, input_bias)
    starts = ((lstm, problem.theta), (maml, problem.theta), (maml, problem.theta * (1 + NUDGE)))
    losses, grads, _ = zip(
        *(
            meta_gradient(rule, problem.learner, start, problem.task, steps=problem.steps, order=order)
            for rule, start in starts
        ),
        strict=True,
    )
    equal_to_rounding(*losses)
    equal_to_rounding(*grads)


@given(problem=problems(), forget_bias=st.floats(0, 30))
def test_over_the_reals_it_is_so_only_in_the_limit(problem, forget_bias):
    """Where the gradient is zero MAML stands still, and the LSTM decays by σ(b_f) < 1 at every step."""
    lstm, maml = pair(problem, 0, -4.0, forget_bias)
    theta = problem.theta
    nothing = Signal(torch.zeros_like(theta), torch.zeros((), dtype=theta.dtype), 0)
    decayed, _ = lstm.update(theta, nothing, lstm.init_state(theta))
    stood, _ = maml.update(theta, nothing, ())
    assert torch.equal(stood, theta)
    decay = 1 / (1 + math.exp(-forget_bias))
    torch.testing.assert_close(decayed, decay * theta, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "wrong",
    [{"forget_bias": -SATURATED}, {"input_bias": 3.0}, {"forget_bias": 3.0}],
    ids=["forget bias of the wrong sign", "input bias of the wrong sign", "forget gate not saturated"],
)
def test_other_biases_are_not_maml(wrong):
    """What the properties above would not notice, they would not prove."""
    learner = Architecture((1, 4, 1)).learner()
    theta = learner.initial(torch.Generator().manual_seed(0))
    given_biases = {"forget_bias": SATURATED, "input_bias": -3.0} | wrong
    lstm = as_gradient_descent(learner.layout, 0, **given_biases)
    maml = make_rule("gradient-descent", learner.layout, inner_lr=1 / (1 + math.exp(3.0)))
    generator = torch.Generator().manual_seed(1)
    support = Batch(*(torch.randn(5, 1, generator=generator, dtype=torch.float64) for _ in range(2)))
    paths = [list(trajectory(rule, learner, theta, support, steps=2)) for rule in (lstm, maml)]
    assert torch.equal(paths[0][0][0], paths[1][0][0])
    assert not torch.allclose(paths[0][2][0], paths[1][2][0], rtol=1e-3)
