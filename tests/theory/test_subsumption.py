"""Theorem 1 of the paper: the meta-learner LSTM subsumes MAML (Section 3.4.1), and what floats make of it.

That it does in the limit, and to rounding in floating point, are claims of the map (test_claims.py). Here:
the bound of the whole path, where σ is 1, both ends of 0 < α < 1, and ReLU's derivative at 0.
"""

from __future__ import annotations

from itertools import pairwise

import attrs
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from metalearn_benchmarks.theory.parameterisations import carried, gates
from metalearn_benchmarks.theory.references import descent
from metalearn_core import BaseLearner, Batch, Signal, Task, make_rule, meta_gradient, trajectory
from metalearn_core.testing import Architecture, Problem
from metalearn_core.testing.strategies import inner_lrs, problems, seeds

SATURATED = 40.0
"""σ(40) is 1 in float64."""
EPSILONS = st.floats(1e-12, 0.5)
LSTMS = st.sampled_from([{"hidden": 0}, {"hidden": 3, "previous_gate": "logit"}])


def pair(problem, alpha, epsilon, **options):
    """Gradient descent, and the LSTM with 1 − σ(b_f) = ε and σ(b_i) = α."""
    maml = descent(problem.learner.layout, alpha)
    lstm = make_rule("lstm", problem.learner.layout, **options).double()
    with torch.no_grad():
        for name, value in gates(maml, lstm, 0.0, epsilon).items():
            dict(lstm.named_parameters())[name].copy_(value)
    return maml, lstm


def paths(problem, *rules):
    support = problem.task[0].support
    return [
        [
            theta.detach()
            for theta, _ in trajectory(rule, problem.learner, problem.theta, support, steps=problem.steps)
        ]
        for rule in rules
    ]


def hessian_of(learner, support):
    return torch.func.jacrev(torch.func.grad(lambda theta: learner.loss(theta, support)))


def curvature(problem, ours, theirs):
    """K: the largest ‖H‖ at nine points between two vectors; 5 % more for what lies between those."""
    points = ours + torch.linspace(0, 1, 9, dtype=ours.dtype).unsqueeze(-1) * (theirs - ours)
    hessians = torch.func.vmap(hessian_of(problem.learner, problem.task[0].support))(points)
    return 1.05 * float(torch.linalg.matrix_norm(hessians.detach(), 2).max())


@given(problem=problems(smooth=True, most_tasks=1), alpha=inner_lrs(), epsilon=EPSILONS, options=LSTMS)
def test_how_far_the_lstm_strays_is_bounded_on_smooth_networks(problem, alpha, epsilon, options):
    """e⁽ᵗ⁺¹⁾ <= (1 + αK) e⁽ᵗ⁾ + ε‖θ⁽ᵗ⁾‖: one step of fθ − α∇ against one of θ − α∇."""
    maml, lstm = paths(problem, *pair(problem, alpha, epsilon, **options))
    bound = 0.0
    for (theta, after), (near, then) in zip(pairwise(maml), pairwise(lstm), strict=True):
        steepness = curvature(problem, near, theta)
        bound = (1 + alpha * steepness) * bound + epsilon * float(theta.norm())
        rounding = 1e-13 * (1 + alpha * steepness) * (1 + float(theta.norm()) + float(after.norm()))
        bound += rounding
        assert float((then - after).norm()) <= bound


@given(epsilon=st.floats(1e-6, 0.5), steps=st.integers(1, 5), size=st.floats(1.0, 1e6), seed=seeds())
def test_no_bound_in_epsilon_and_t_alone_holds(epsilon, steps, size, seed):
    """Where the gradient is 0, the LSTM strays by (1 − (1 − ε)ᵀ)‖θ⁰‖, and θ⁰ may be as long as you like."""
    start = Problem(Architecture((2, 1), bias=False), steps=steps, seed=seed)
    theta = size * start.theta
    support = start.task[0].support
    solved = type(support)(support.inputs, start.learner.predict(theta, support.inputs).detach())
    ends = [
        list(trajectory(rule, start.learner, theta, solved, steps=steps))[-1][0].detach()
        for rule in pair(start, 1e-9, epsilon)
    ]
    strayed = float((ends[1] - ends[0]).norm() / theta.norm())
    # α is tiny, so that what the gradient does after the first decay does not hide it
    assert strayed == pytest.approx(1 - (1 - epsilon) ** steps, rel=1e-6)


class ReluOfOneWeight(torch.nn.Module):
    """f(x) = relu(wx)."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return torch.relu(x * self.weight)


def ends_of(w, inputs, alpha, epsilon, steps=2):
    """Where gradient descent ends from θ⁰ = w, the targets all −1, and where the LSTM with 1 − σ(b_f) = ε."""
    learner = BaseLearner(ReluOfOneWeight().double(), torch.nn.functional.mse_loss)
    x = torch.tensor(inputs, dtype=torch.float64).unsqueeze(-1)
    theta, support = torch.tensor([w], dtype=torch.float64), Batch(x, -torch.ones_like(x))
    rules = pair(Problem(Architecture((1, 1), bias=False)), alpha, epsilon)
    paths = [trajectory(rule, learner, theta, support, steps=steps) for rule in rules]
    return [float(list(path)[-1][0].detach()) for path in paths]


@given(exponent=st.integers(1, 40))
def test_on_relu_networks_the_limit_is_not_uniform_over_starts(exponent):
    """f = relu(wx), x = 1, y = −1, α = ¼, T = 2: for every ε the start 1 + ε/2 parts the two by about ½.

    Descent comes to ε/4, where the ReLU is active, and ends near −½. The LSTM comes to −¾ε or so, where the
    gradient is 0, and stays near 0.
    """
    epsilon = 2.0**-exponent
    descended, gated = ends_of(1 + epsilon / 2, [1.0], 0.25, epsilon)
    assert descended == pytest.approx(-0.5, abs=epsilon)
    assert gated == pytest.approx(0.0, abs=2 * epsilon)


@given(start=st.floats(1.0, 3.0, exclude_min=True), exponent=st.integers(1, 6))
def test_from_a_start_whose_path_meets_no_kink_the_lstm_tends_to_descent(start, exponent):
    """The same network: once ε is small next to the distance from the kink, the error is of order ε."""
    margin = abs(start - 1) / 2  # how far from the kink at 0 descent comes after one step
    epsilon = min(margin, 1.0) * 2.0**-exponent / 8
    descended, gated = ends_of(start, [1.0], 0.25, epsilon)
    assert abs(descended - gated) <= 3 * start * epsilon + 1e-15


@given(exponent=st.integers(1, 40))
def test_from_a_start_whose_path_meets_a_kink_it_need_not_tend_to_descent(exponent):
    """f = relu(wx), x = ±1, y = −1, α = ½, from w = 1: descent lands on the kink, where torch's gradient is
    0, and stays there. The LSTM lands beside it, where the other example's ReLU is active, and moves on by ½.
    """
    epsilon = 2.0**-exponent
    descended, gated = ends_of(1.0, [1.0, -1.0], 0.5, epsilon)
    assert descended == 0.0
    assert gated == pytest.approx(0.5, abs=2 * epsilon)


@given(problem=problems(smooth=True, most_tasks=1), alpha=st.floats(1e-3, 0.2))
def test_its_meta_gradient_nears_that_of_maml(problem, alpha):
    """Its error is of the order of ε: a hundredth of ε leaves a hundredth of it."""
    errors = []
    for epsilon in (1e-5, 1e-7):
        found = [
            meta_gradient(rule, problem.learner, problem.theta, problem.task, steps=problem.steps)[1]
            for rule in pair(problem, alpha, epsilon)
        ]
        assume(torch.isfinite(found[0]).all() and found[0].abs().max() < 1e3)
        errors.append(float((found[0] - found[1]).abs().max()) / (1 + float(found[0].abs().max())))
    assert errors[1] <= 0.02 * errors[0] + 1e-8


FIRST_SATURATED = {"float64": 36.7, "float32": 16.6, "bfloat16": 6.2, "float16": 8.3}


@pytest.mark.parametrize("dtype", FIRST_SATURATED)
def test_where_sigma_is_one(dtype):
    """From the logarithm of 2 / (unit below 1) on, 1 − σ(b) is less than half a unit in the last place."""
    biases = torch.arange(0, 45, 0.05, dtype=torch.float64)
    ones = torch.sigmoid(biases.to(getattr(torch, dtype))) == 1
    first = float(biases[ones][0])
    assert bool(ones[int(ones.nonzero()[0]) :].all())
    assert first == pytest.approx(FIRST_SATURATED[dtype], abs=0.15)


@pytest.mark.parametrize("dtype", FIRST_SATURATED)
@given(seed=seeds(), input_bias=st.floats(-12, 12), n=st.integers(1, 6))
def test_from_there_on_one_step_is_the_same_to_the_bit(dtype, seed, input_bias, n):
    """In every floating-point type, with the α that σ(b_i) is in it; at a b_f of 2 less it is not."""
    kind = getattr(torch, dtype)
    layout = Problem(Architecture((n, 1), bias=False)).learner.layout
    lstm = make_rule("lstm", layout).to(kind)
    generator = torch.Generator().manual_seed(seed)
    theta, grad = (torch.randn(n, generator=generator).to(kind) for _ in range(2))
    signal = Signal(grad, grad.abs().sum(), 0)
    with torch.no_grad():
        for gate, bias in ((lstm.forget_gate, FIRST_SATURATED[dtype] + 1), (lstm.input_gate, input_bias)):
            gate.weight.zero_()
            gate.bias.fill_(bias)
        alpha = torch.sigmoid(lstm.input_gate.bias)
        moved, _ = lstm.update(theta, signal, lstm.init_state(theta))
        assert torch.equal(moved, theta - alpha * grad)
        lstm.forget_gate.bias.fill_(FIRST_SATURATED[dtype] - 2)
        theta, signal = torch.ones(n, dtype=kind), Signal(torch.zeros(n, dtype=kind), grad.sum(), 0)
        decayed, _ = lstm.update(theta, signal, lstm.init_state(theta))
    assert bool((decayed < theta).all())


@given(problem=problems(most_tasks=2), alpha=inner_lrs(), options=LSTMS)
def test_where_the_theorem_is_exact_the_forget_gate_cannot_be_learned(problem, alpha, options):
    """σ′ is 0 there to the last bit: no meta-gradient leads away from MAML, and none leads to it."""
    _, lstm = pair(problem, alpha, 0.0, **options)
    with torch.no_grad():
        lstm.forget_gate.bias.fill_(SATURATED)
    *_, phi = meta_gradient(lstm, problem.learner, problem.theta, problem.task, steps=problem.steps)
    assert not phi["forget_gate.bias"].any()
    assert not phi["forget_gate.weight"].any()


@given(alpha=st.floats(1e-300, 1.0, exclude_max=True))
def test_the_bias_of_the_proof_gives_alpha_back(alpha):
    """To |b| units in the last place: at α = 1e−300, where b is −690, its rounding counts 690 times."""
    assert float(torch.sigmoid(torch.tensor(-709.0, dtype=torch.float64))) > 0  # at -710 it is 0, below
    a = torch.tensor(alpha, dtype=torch.float64)
    bias = -torch.log((1 - a) / a)
    error = abs(float(torch.sigmoid(bias)) - alpha)
    assert error <= (4 + abs(float(bias))) * 2.3e-16 * alpha


@pytest.mark.parametrize(
    ("bias", "alpha"), [(float("-inf"), 0.0), (-710.0, 0.0), (40.0, 1.0), (float("inf"), 1.0)]
)
@given(problem=problems(), options=LSTMS)
def test_floats_reach_both_ends(bias, alpha, problem, options):
    """Over the reals 0 < σ < 1; in floats α = 0 and the paper's α = 1 are had, at infinite biases too."""
    maml, lstm = pair(problem, 0.5, 0.0, **options)
    maml.fixed_lr = alpha
    with torch.no_grad():
        lstm.input_gate.bias.fill_(bias)
    ends = [
        meta_gradient(rule, problem.learner, problem.theta, problem.task, steps=min(problem.steps, 1))
        for rule in (maml, lstm)
    ]
    for ours, theirs in zip(ends[0][:2], ends[1][:2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    # the gate has no slope there: what it learns is nothing, and never a NaN
    assert not ends[1][2]["input_gate.bias"].any()


def regressions():
    """One step on one task of a smooth network, under the mean squared error."""
    drawn = problems(smooth=True, most_tasks=1, steps=st.just(1))
    return drawn.map(lambda p: attrs.evolve(p, architecture=attrs.evolve(p.architecture, loss="mse")))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@given(problem=regressions(), alpha=inner_lrs(), depth=st.integers(1, 3))
def test_relu_loses_the_curvature_of_gradients_that_are_zero(activation, problem, alpha, depth):
    """relu′(0) = 0: where every support gradient is 0, as in a solved task, the step is −α∇ to the bit, but
    its derivative is 0 and not −αI, and the second-order meta-gradient is ∇q and not (I − αH)∇q.
    GELU's difference has the derivative 1 everywhere.
    """
    solved = attrs.evolve(problem, solved=True).task.support
    task = Task(solved, problem.task.query, stacked=True)
    learner, theta = problem.learner, problem.theta
    still = trajectory(descent(learner.layout, 1e200), learner, theta, task.support, steps=1)
    assume(all(torch.equal(now[0], theta) for now, _ in still))  # a prediction may differ in its last bit
    support, query = task[0].support, task[0].query
    turtle = make_rule("feed-forward", learner.layout, hidden=[2] * depth, activation=activation).double()
    with torch.no_grad():
        for name, value in carried(turtle.network, [1.0], -alpha).items():
            dict(turtle.named_parameters())[name].copy_(value)
    at = torch.func.grad(learner.loss)(theta, query)
    hessian = hessian_of(learner, support)(theta)
    expected = at - alpha * hessian @ at if activation == "gelu" else at
    _, found, _ = meta_gradient(turtle, learner, theta, task, steps=1)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-11)


@given(alpha=inner_lrs(), shift=st.floats(0.01, 10.0), gradient=st.floats(-20.0, 20.0))
def test_another_relu_network_of_the_same_step_has_its_kink_elsewhere(alpha, shift, gradient):
    """relu(x + b) − relu(−x − b) − b is x, and its derivative is 1 at 0: the kink is at −b alone.

    A step that is linear still needs a kink somewhere; where it lies is for φ to choose.
    """
    problem = Problem(Architecture((1, 1), bias=False))
    turtle = make_rule("feed-forward", problem.learner.layout, hidden=[2]).double()
    with torch.no_grad():
        for name, value in carried(turtle.network, [1.0], -alpha, bias=alpha * shift).items():
            dict(turtle.named_parameters())[name].copy_(value)
        turtle.network[0].bias.copy_(torch.tensor([shift, -shift], dtype=torch.float64))

    def step(x):
        theta = torch.zeros_like(x)
        return turtle.update(theta, Signal(x, x.sum(), 0), turtle.init_state(theta))[0]

    for x, slope in ((0.0, -alpha), (gradient, -alpha), (-shift, 0.0)):
        if x == gradient and abs(gradient + shift) < 1e-6:
            continue
        at = torch.tensor([x], dtype=torch.float64)
        torch.testing.assert_close(step(at).detach(), -alpha * at, rtol=1e-12, atol=1e-12)
        assert float(torch.func.jacrev(step)(at).detach()) == pytest.approx(slope, rel=1e-12)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@given(width=st.integers(1, 5), seed=seeds(), alpha=inner_lrs())
def test_relu_loses_the_curvature_below_a_head_of_zeros(activation, width, seed, alpha):
    """There the support gradient is 0 and its rows of H are not; GELU has all of αH∇q."""
    problem = Problem(Architecture((2, width, 1)), seed=seed)
    learner, layout = problem.learner, problem.learner.layout
    lower = sum(layout.sizes[:2])
    theta = problem.theta.clone()
    theta[lower:] = 0
    support, query = problem.task[0].support, problem.task[0].query
    turtle = make_rule("feed-forward", layout, hidden=[2], activation=activation).double()
    with torch.no_grad():
        for name, value in carried(turtle.network, [1.0], -alpha).items():
            dict(turtle.named_parameters())[name].copy_(value)
    after = theta - alpha * torch.func.grad(learner.loss)(theta, support)
    at = torch.func.grad(learner.loss)(after, query)
    met = at.clone()
    if activation == "relu":
        met[:lower] = 0
    expected = at - alpha * hessian_of(learner, support)(theta) @ met
    _, found, _ = meta_gradient(turtle, learner, theta, problem.task, steps=1)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-11)
