"""First and second order, told apart by what they must be and not by how they are computed.

Let u be a rule's update at step t, and g, L and H the support gradient, loss and Hessian at θ⁽ᵗ⁾. From
λ⁽ᵀ⁾ = ∇q(θ⁽ᵀ⁾), the query gradient, back to λ⁽⁰⁾, the second-order meta-gradient for θ⁰, it is

    λ⁽ᵗ⁾ = (∂u/∂θ)ᵀ λ⁽ᵗ⁺¹⁾ + H w⁽ᵗ⁾ + g (∂u/∂L)ᵀ λ⁽ᵗ⁺¹⁾,    w⁽ᵗ⁾ = (∂u/∂g)ᵀ λ⁽ᵗ⁺¹⁾

(a rule's memory passes derivatives on as θ does; clipping is a part of u). The first order leaves out
the last two terms, which say how g and L change with θ. Everything here follows from that.

Mᵀ is a transpose, M^T a power.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import cached_property
from importlib import import_module
from pathlib import Path

import attrs
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, grad_and_value, vmap

from metalearn_core import (
    BaseLearner,
    Batch,
    Clipping,
    Signal,
    UpdateRule,
    forked_rng,
    inner_loop,
    make_rule,
    meta_gradient,
)
from metalearn_core.testing.problems import Architecture, Problem
from metalearn_core.testing.strategies import dtypes, inner_steps, problems, seeds

Make = Callable[..., UpdateRule]

RULES: dict[str, Make] = {
    f"{rule}-{name}": functools.partial(make_rule, rule, **options)
    for rule, rows in tomllib.loads(
        (Path(__file__).parents[1] / "conformance" / "rules.toml").read_text()
    ).items()
    for name, options in rows.items()
}
SMALL = Architecture((2, 3, 2))
READS_LOSS = [name for name, make in RULES.items() if make(SMALL.learner().layout).uses_loss]
READS_NO_LOSS = [name for name in RULES if name not in READS_LOSS]
BY_COORDINATE = [name for name in READS_NO_LOSS if RULES[name](SMALL.learner().layout).elementwise]
"""They read no loss either."""

IGNORES_THE_GRADIENT = ["gradient-descent-rprop", "feed-forward-elu-step", "feed-forward-gelu-theta"]
"""∂u/∂g = 0: Rprop sees signs alone, and a network may be fed no gradient at all."""

BLIND_AT_FIRST = ["feed-forward-history-grad-alone"]
"""∂u/∂g = 0 at t = 0: it is fed the average of the past gradients alone, of which there is none."""

SIGNS_AT_FIRST = [f"gradient-descent-{name}" for name in ("adam", "adamax", "rmsprop", "adagrad-from-zero")]
"""From fresh state their first step is a multiple of g / (c|g| + ε), the sign of g but for ε."""

SMOOTH_RULES = [
    *(f"gradient-descent-{name}" for name in ("fixed", "scalar", "tensor", "parameter", "sgd-momentum")),
    *(f"gradient-descent-{name}" for name in ("sgd-nesterov", "adadelta", "asgd")),
    *(f"lstm-{name}" for name in ("equation", "grad", "loss", "logit", "scaled", "wide")),
    *(f"feed-forward-{name}" for name in ("linear", "linear-all", "tanh-all", "sigmoid", "gelu-theta")),
    "feed-forward-history-grad-alone",
]
"""Rules with derivatives of every order: no kink, no √v at v = 0, no log-magnitude."""

BY_VALUE, BY_NORM = Clipping("value", 0.1), Clipping("norm", 0.5)


def built(make, problem):
    """The rule for the problem's learner, what it draws seeded, in the problem's dtype."""
    with forked_rng(torch.Generator().manual_seed(problem.seed)):
        return make(problem.learner.layout).to(problem.theta.dtype)


def both_orders(rule, problem, clip=None):
    """The meta-gradients (for θ⁰, for φ) of the first order, and of the second."""
    (loss, *first), (same_loss, *second) = (
        meta_gradient(
            rule, problem.learner, problem.theta, problem.task, steps=problem.steps, order=order, clip=clip
        )
        for order in ("first", "second")
    )
    assert torch.equal(loss, same_loss), "an order changes derivatives, never values"
    return first, second


def at(problem, batch, theta):
    """∇L and L of every task on a batch, at θ `[tasks, n]`."""
    return vmap(grad_and_value(loss_of(problem)))(theta, batch.inputs, batch.targets)


def loss_of(problem):
    return lambda theta, inputs, targets: problem.learner.loss(theta, Batch(inputs, targets))


def hessian_times(problem, theta, vectors):
    """H v of every task's support loss, with `torch.func` alone."""

    def slope(theta, vector, inputs, targets):
        return grad(loss_of(problem))(theta, inputs, targets) @ vector

    support = problem.task.support
    return vmap(grad(slope))(theta, vectors, support.inputs, support.targets)


def close(ours, theirs, *scales):
    """Equal to rounding, in units of the largest number that either side was made of."""
    scale = 1 + max(float(x.detach().abs().max()) for x in (theirs, *scales))
    assert float((ours - theirs).detach().abs().max()) <= 1e-10 * scale


# The properties. Each takes a rule, or what makes one, and a problem, and raises AssertionError.


def check_orders_agree(make, problem, clip=None):
    """Both orders have the same meta-gradients, for θ⁰ and for every φ, to the bit."""
    first, second = both_orders(built(make, problem), problem, clip)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(first[1][name], second[1][name]) for name in second[1])


def check_phi_agrees(make, problem, clip=None):
    """φ has the same meta-gradient in both orders, to the bit."""
    (_, first), (_, second) = both_orders(built(make, problem), problem, clip)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in second)


def check_gap_of_one_step(make, problem):
    """T = 1: second − first order for θ⁰ is H w + g (∂u/∂L)ᵀ λ in the mean over tasks, and nothing else.

    ∂u is the rule's own derivative, of one call of `update`, so this is about the engine. A rule that
    lies about its derivatives is for the closed forms and the finite differences to catch.
    """
    rule = built(make, problem)
    (first, _), (second, _) = both_orders(rule, problem)
    theta = problem.theta.expand(problem.tasks, -1)
    g, loss = (x.detach().requires_grad_() for x in at(problem, problem.task.support, theta))
    tasks = zip(theta, g, loss, strict=True)
    # one task at a time: a rule may read the whole of its θ
    after = torch.stack([rule.update(x, Signal(y, z, 0), rule.init_state(x))[0] for x, y, z in tasks])
    query, _ = at(problem, problem.task.query, after.detach())
    w, by_loss = torch.autograd.grad((after * query).sum() + 0 * (g.sum() + loss.sum()), (g, loss))
    expected = hessian_times(problem, theta, w) + g.detach() * by_loss.unsqueeze(-1)
    close(second - first, expected.mean(0), first, second, w, expected)


def check_gap_of_one_descent_step(make, alpha, problem):
    """T = 1, θ¹ = θ⁰ − αg: second − first order for θ⁰ is −α H ∇q(θ¹) in the mean over tasks."""
    (first, _), (second, _) = both_orders(built(make, problem), problem)
    theta = problem.theta.expand(problem.tasks, -1)
    g, _ = at(problem, problem.task.support, theta)
    query, _ = at(problem, problem.task.query, theta - alpha * g)
    close(first, query.mean(0), query)
    close(second - first, -alpha * hessian_times(problem, theta, query).mean(0), first, second)


def check_descent_on_quadratics(make, alpha, problem):
    """L = ½‖Aθ − b‖², H = AᵀA, θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾ − αg, any T, in the mean over tasks:

                  second order                      first order
        for θ⁰    (I − αH)^T ∇q(θ⁽ᵀ⁾)               ∇q(θ⁽ᵀ⁾)
        for α     −T g⁰·(I − αH)^(T−1) ∇q(θ⁽ᵀ⁾)     −Σ g⁰·(I − αH)^t ∇q(θ⁽ᵀ⁾) over t < T

    with g⁰ = ∇L(θ⁰), and the differences are those of the columns.
    """
    steps, power, forms = problem.steps, torch.linalg.matrix_power, []
    for a, b, query_a, query_b in quadratics(problem):
        shrink, g = torch.eye(a.shape[1], dtype=a.dtype) - alpha * a.T @ a, a.T @ (a @ problem.theta - b)
        powers = [power(shrink, t) for t in range(steps + 1)]
        end = problem.theta - alpha * sum((p @ g for p in powers[:-1]), torch.zeros_like(g))
        query = query_a.T @ (query_a @ end - query_b)
        second_alpha = -steps * (g @ powers[steps - 1] @ query)
        first_alpha = -sum((g @ p @ query for p in powers[:-1]), torch.zeros_like(second_alpha))
        forms.append([powers[-1] @ query, query, second_alpha, first_alpha, query.norm() * (1 + g.norm())])
    *forms, scale = (torch.stack(form).mean(0) for form in zip(*forms, strict=True))
    (first, first_phi), (second, second_phi) = both_orders(built(make, problem), problem)
    close(second, forms[0], scale)
    close(first, forms[1], scale)
    close(second - first, forms[0] - forms[1], scale)
    close(second_phi["inner_lr"], forms[2], scale * (1 + steps))
    close(first_phi["inner_lr"], forms[3], scale * (1 + steps))


def check_quadratics(rule, system, problem):
    """L = ½‖Aθ − b‖² and a linear rule: both orders for θ⁰ are products of `system`'s matrices, any T."""
    forms = zip(
        *(system.unrolled(problem.theta, problem.steps, *q) for q in quadratics(problem)), strict=True
    )
    second, first, growth = (torch.stack(form).mean(0) for form in forms)
    (ours_first, _), (ours_second, _) = both_orders(rule, problem)
    for ours, theirs in (
        (ours_first, first),
        (ours_second, second),
        (ours_second - ours_first, second - first),
    ):
        assert float((ours - theirs).abs().max()) <= 1e-13 * float(growth)


def check_is_the_gradient(make, problem, *, order="second", constants=False):
    """`order`'s meta-gradient is the derivative of the meta-loss, along a random direction of (θ⁰, φ).

    `constants`: of the meta-loss with every support gradient and loss replaced by its number at (θ⁰, φ),
    which is what the first order claims to be. The meta-loss is a plain loop here, and its derivative
    that of central differences: what three step sizes disagree by bounds their error.

    Returns False, having checked nothing, where the path is too steep for them.
    """
    rule, generator = built(make, problem), torch.Generator().manual_seed(problem.seed)
    _, for_theta, for_phi = meta_gradient(
        rule, problem.learner, problem.theta, problem.task, steps=problem.steps, order=order
    )
    here = {THETA: problem.theta, **{name: phi.detach() for name, phi in rule.named_parameters()}}
    along = {k: torch.randn(x.shape, generator=generator, dtype=x.dtype) for k, x in here.items()}
    slope = sum(float((g * along[k]).sum()) for k, g in (for_phi | {THETA: for_theta}).items())
    signals = []
    meta_losses(rule, problem, [here], record=signals)
    offsets = [h * side for h in (1e-4, 2e-4, 4e-4) for side in (1, -1)]
    around = [{k: x + offset * along[k] for k, x in here.items()} for offset in offsets]
    values = meta_losses(rule, problem, around, constants=signals if constants else None)
    slopes = [(values[i] - values[i + 1]) / (2 * offsets[i]) for i in (0, 2, 4)]
    error, scale = abs(slopes[0] - slopes[1]) + abs(slopes[1] - slopes[2]), 1 + max(map(abs, slopes + values))
    if not error <= 1e-3 * scale:  # a NaN is not
        return False
    assert abs((4 * slopes[0] - slopes[1]) / 3 - slope) <= error + 1e-8 * scale
    return True


THETA = ""


def meta_losses(rule, problem, points, record=None, constants=None):
    """The mean query loss after T steps from each point (θ⁰, φ): a loop that knows no order.

    The support gradient and loss of every step are added to `record`, or taken from `constants`.
    """
    count, (support, query) = len(points), (problem.task.support, problem.task.query)
    support, query = (
        Batch(*(torch.cat([x] * count) for x in (b.inputs, b.targets))) for b in (support, query)
    )
    phis = [{name: x for name, x in point.items() if name != THETA} for point in points]
    thetas = [point[THETA].expand(problem.tasks, -1) for point in points]
    states = list(map(rule.init_state, thetas))
    for t in range(problem.steps):
        if constants is None:
            # all points at once; each has its own φ, so the rule is called for one after the other
            signals = list(
                zip(*(x.chunk(count) for x in at(problem, support, torch.cat(thetas))), strict=True)
            )
        else:
            signals = [constants[t]] * count
        if record is not None:
            record += signals
        for i, (phi, signal) in enumerate(zip(phis, signals, strict=True)):
            with torch.no_grad():
                arguments = thetas[i], Signal(*signal, t), states[i]
                thetas[i], states[i] = functional_call(rule, phi, arguments)
    _, losses = at(problem, query, torch.cat(thetas))
    return [float(x.mean()) for x in losses.chunk(count)]


# Problems of a known shape.


@attrs.frozen
class QuadraticArchitecture:
    """L(θ) = ½‖Aθ − b‖² with A, b a batch's inputs and targets, θ ∈ Rⁿ."""

    n: int
    outputs: int = 1
    loss: str = "mse"

    @property
    def input_shape(self):
        return (self.n,)

    def learner(self, dtype=torch.float64):
        def half_square(prediction, target):
            return 0.5 * (prediction - target).square().sum()

        return BaseLearner(nn.Linear(self.n, 1, bias=False).to(dtype), half_square)


def quadratics(problem):
    """A, b of the support set and of the query set, of every task."""
    columns = (x.squeeze(-1) if i % 2 else x for i, x in enumerate(problem.task.tensors))
    return list(zip(*columns, strict=True))


@st.composite
def quadratic_problems(draw):
    counts = st.integers(1, 4)
    sizes = [draw(counts) for _ in range(3)]
    architecture = QuadraticArchitecture(draw(counts))
    return Problem(architecture, *sizes, draw(inner_steps(8)), draw(seeds()))


def step_size(problem, share):
    """`share` of the largest α at which gradient descent shrinks every task's error, within reason."""
    curvature = max(float(torch.linalg.matrix_norm(a, 2)) ** 2 for a, *_ in quadratics(problem))
    return min(0.5, 2 * share / curvature)


@attrs.frozen
class StraightArchitecture:
    """A linear layer; some of its outputs, `bent`, are for a support loss with curvature alone."""

    inputs: int
    straight: int
    bent: int = 0
    loss: str = "mse"

    @property
    def input_shape(self):
        return (self.inputs,)

    @property
    def outputs(self):
        """Two numbers of a target for each output: the slope and the bend of its loss."""
        return 2 * (self.straight + self.bent)

    def learner(self, dtype=torch.float64):
        def loss(prediction, target):
            slope, bend = target.chunk(2, -1)
            return (slope * prediction + bend * prediction.sin()).mean()

        return BaseLearner(nn.Linear(self.inputs, self.straight + self.bent).to(dtype), loss)


class StraightProblem(Problem):
    """The support loss is linear in the parameters that the query loss reads, and bent in the others.

    So H is 0 without other parameters, and with them H w is 0 for every w that the query loss sends back
    through a rule that works coordinate by coordinate.
    """

    @cached_property
    def task(self):
        task, straight = super().task, self.architecture.straight
        # views, to be written to
        _, support_bend, query_slope, query_bend = (
            half for batch in (task.support, task.query) for half in batch.targets.chunk(2, -1)
        )
        support_bend[..., :straight] = 0
        query_slope[..., straight:] = query_bend[..., straight:] = 0
        return task


@st.composite
def straight_problems(draw, *, most_bent=2):
    count = st.integers(1, 3)
    architecture = StraightArchitecture(draw(count), draw(count), draw(st.integers(0, most_bent)))
    sizes = draw(count), draw(count), draw(count)
    return StraightProblem(architecture, *sizes, draw(inner_steps()), draw(seeds()), draw(dtypes()))


# Rules that are linear where their input is g alone, and what they are on a quadratic.


@attrs.frozen
class System:
    """z⁽ᵗ⁺¹⁾ = K z⁽ᵗ⁾ + P g⁽ᵗ⁾ + ℓ L⁽ᵗ⁾ + s, with z = (θ, memory), memory 0 at the start.

    With E z = θ and g = Hθ − Aᵀb the Jacobian of a step is J⁽ᵗ⁾ = K + P H E + ℓ g⁽ᵗ⁾ᵀ E under the second
    order and K under the first, and the meta-gradients for θ⁰ are E (J⁽ᵀ⁻¹⁾ ⋯ J⁽⁰⁾)ᵀ Eᵀ ∇q(θ⁽ᵀ⁾), a power
    where no loss is read, and E (K^T)ᵀ Eᵀ ∇q(θ⁽ᵀ⁾).
    """

    keep: torch.Tensor
    push: torch.Tensor
    by_loss: torch.Tensor
    shift: torch.Tensor

    @classmethod
    def of(cls, n, keep, push, by_loss=0.0, shift=0.0):
        """From numbers, or vectors, for the blocks of θ and the memory; L and the shift act on θ alone."""
        whole = torch.kron(torch.tensor(keep, dtype=torch.float64), torch.eye(n, dtype=torch.float64))
        on_theta = (torch.arange(len(whole)) < n).double()
        blocks = [torch.as_tensor(x, dtype=torch.float64).expand(n).diag() for x in push]
        return cls(whole, torch.cat(blocks), by_loss * on_theta, shift * on_theta)

    def unrolled(self, theta, steps, a, b, query_a, query_b):
        """The second-order meta-gradient for θ⁰, the first-order one, and how far rounding may have grown."""
        pick = torch.eye(len(theta), len(self.keep), dtype=theta.dtype)
        z = pick.T @ theta
        first = second = torch.eye(len(z), dtype=theta.dtype)
        growth, largest = 1.0, torch.ones(())
        for _ in range(steps):
            residual = a @ pick @ z - b
            g = a.T @ residual
            jacobian = self.keep + self.push @ a.T @ a @ pick + self.by_loss.outer(g) @ pick
            z = self.keep @ z + self.push @ g + self.by_loss * residual.square().sum() / 2 + self.shift
            second, first = jacobian @ second, self.keep @ first
            growth *= max(1.0, *(float(torch.linalg.matrix_norm(m, 2)) for m in (jacobian, self.keep)))
            largest = torch.maximum(largest, 1 + z.norm() + g.norm() + self.by_loss.norm() * residual.norm())
        query = query_a.T @ (query_a @ pick @ z - query_b)
        reach = (1 + query_a.norm() ** 2) * (largest + query_b.norm()) * (1 + self.by_loss.norm() * a.norm())
        return *(pick @ m.T @ pick.T @ query for m in (second, first)), growth**2 * reach


@attrs.frozen
class Numbers:
    """What the rule of a system is made from: α, a decay λ, a momentum β, and what seeds the rest."""

    alpha: float
    decay: float = 0.1
    momentum: float = 0.5
    seed: int = 0

    def vector(self, n):
        """n numbers from 0 to α."""
        generator = torch.Generator().manual_seed(self.seed)
        return self.alpha * torch.rand(n, generator=generator, dtype=torch.float64)


def descent(problem, numbers):
    """(I − αH)^T ∇q against ∇q."""
    rule = make_rule("gradient-descent", problem.learner.layout, inner_lr=numbers.alpha)
    return rule, System.of(problem.learner.layout.size, [[1]], [-numbers.alpha])


def meta_sgd(problem, numbers):
    """(I − H diag α)^T ∇q against ∇q."""
    n = problem.learner.layout.size
    rule = make_rule("gradient-descent", problem.learner.layout, learn_lr="parameter").double()
    fill(rule, inner_lr=numbers.vector(n))
    return rule, System.of(n, [[1]], [-numbers.vector(n)])


def weight_decay(problem, numbers):
    """((1 − αλ)I − αH)^T ∇q against (1 − αλ)^T ∇q."""
    options = {"inner_lr": numbers.alpha, "weight_decay": numbers.decay}
    rule = make_rule("gradient-descent", problem.learner.layout, **options)
    keep = 1 - numbers.alpha * numbers.decay
    return rule, System.of(problem.learner.layout.size, [[keep]], [-numbers.alpha])


def heavy_ball(problem, numbers):
    """A power of [[I − αH, −αβI], [H, βI]] against ∇q."""
    alpha, beta, n = numbers.alpha, numbers.momentum, problem.learner.layout.size
    rule = make_rule("gradient-descent", problem.learner.layout, inner_lr=alpha, momentum=beta)
    return rule, System.of(n, [[1, -alpha * beta], [0, beta]], [-alpha, 1])


def nesterov(problem, numbers):
    """A power of [[I − α(1 + β)H, −αβ²I], [H, βI]] against ∇q."""
    alpha, beta, n = numbers.alpha, numbers.momentum, problem.learner.layout.size
    options = {"inner_lr": alpha, "momentum": beta, "nesterov": True}
    rule = make_rule("gradient-descent", problem.learner.layout, **options)
    keep = [[1, -alpha * beta**2], [0, beta]]
    return rule, System.of(n, keep, [-alpha * (1 + beta), 1])


def constant_gates(problem, numbers):
    """The LSTM at W = 0, so with constant gates: (fI − iH)^T ∇q against f^T ∇q. The loss has no way in."""
    rule = make_rule("lstm", problem.learner.layout).double()
    f, i = 1 - numbers.decay, numbers.alpha
    for gate, value in ((rule.forget_gate, f), (rule.input_gate, i)):
        fill(gate, weight=torch.zeros(()), bias=torch.tensor(value, dtype=torch.float64).logit())
    return rule, System.of(problem.learner.layout.size, [[f]], [-i])


def linear_network(problem, numbers):
    """g_φ = W g + c: (I + WH)^T ∇q against ∇q."""
    rule = linear(problem, [-numbers.alpha], numbers.decay)
    return rule, System.of(problem.learner.layout.size, [[1]], [-numbers.alpha], shift=numbers.decay)


def linear_network_of_theta(problem, numbers):
    """g_φ = W g + Vθ: ((1 + V)I + WH)^T ∇q against (1 + V)^T ∇q."""
    rule = linear(problem, [-numbers.alpha, -numbers.decay], inputs=["grad", "theta"])
    return rule, System.of(problem.learner.layout.size, [[1 - numbers.decay]], [-numbers.alpha])


def linear_network_of_past_gradients(problem, numbers):
    """g_φ = W g + V h, h an average of gradients: a power of [[I + WH, VI], [(1 − β)H, βI]] against ∇q."""
    w, v, beta = -numbers.alpha, -numbers.alpha * numbers.decay, numbers.momentum
    rule = linear(problem, [w, v], history="grad", beta=beta)
    return rule, System.of(problem.learner.layout.size, [[1, v], [0, beta]], [w, 1 - beta])


def linear_network_of_past_updates(problem, numbers):
    """The same with an average of updates: a power of [[I + WH, VI], [(1 − β)WH, (β + (1 − β)V)I]]."""
    w, v, beta = -numbers.alpha, numbers.decay, numbers.momentum
    rule = linear(problem, [w, v], history="update", beta=beta)
    keep = [[1, v], [0, beta + (1 - beta) * v]]
    return rule, System.of(problem.learner.layout.size, keep, [w, (1 - beta) * w])


def linear_network_of_the_loss(problem, numbers):
    """g_φ = W g + V L: a product of I + WH + V 1 g⁽ᵗ⁾ᵀ against ∇q."""
    v = by_loss(problem, numbers)
    rule = linear(problem, [-numbers.alpha, v], inputs=["grad", "loss"])
    return rule, System.of(problem.learner.layout.size, [[1]], [-numbers.alpha], v)


def by_loss(problem, numbers):
    """V, so small that what it does to θ does not make L grow from step to step."""
    reach = max(
        float(a.norm()) * (1 + float((a @ problem.theta - b).norm())) for a, b, *_ in quadratics(problem)
    )
    return 0.1 * numbers.decay / (1 + reach)


def linear(problem, weights, bias=0.0, **options):
    """A feed-forward rule without hidden layers."""
    rule = make_rule("feed-forward", problem.learner.layout, hidden=[], **options).double()
    fill(
        rule.network[0],
        weight=torch.tensor([weights], dtype=torch.float64),
        bias=torch.tensor(bias, dtype=torch.float64),
    )
    return rule


def fill(module, **values):
    with torch.no_grad():
        for name, value in values.items():
            getattr(module, name).copy_(value)


SYSTEMS = [
    descent, meta_sgd, weight_decay, heavy_ball, nesterov, constant_gates, linear_network,
    linear_network_of_theta, linear_network_of_past_gradients, linear_network_of_past_updates,
    linear_network_of_the_loss,
]  # fmt: skip


# The theorems.

ONE, NONE = st.just(1), st.just(0)


@given(name=st.sampled_from(list(RULES)), problem=problems(dtype=dtypes(), steps=NONE))
def test_without_a_step_the_orders_agree(name, problem):
    """T = 0: any rule, any network."""
    check_orders_agree(RULES[name], problem)


@given(
    name=st.sampled_from(list(RULES)),
    problem=problems(dtype=dtypes(), steps=ONE),
    clip=st.sampled_from([None, BY_VALUE, BY_NORM]),
)
def test_after_one_step_the_orders_agree_for_phi(name, problem, clip):
    """T = 1: any rule, any network, clipped or not. θ⁰ knows no φ, so g and L at θ⁰ do not either."""
    check_phi_agrees(RULES[name], problem, clip)


@given(problem=problems(smooth=True, steps=ONE), alpha=st.floats(1e-3, 0.99))
def test_after_one_step_of_descent_the_orders_differ_by_one_hessian_vector_product(problem, alpha):
    """T = 1: gradient descent, any smooth network; −α H ∇q(θ¹) is all of it."""
    make = functools.partial(make_rule, "gradient-descent", inner_lr=alpha)
    check_gap_of_one_descent_step(make, alpha, problem)


@given(name=st.sampled_from(list(RULES)), problem=problems(smooth=True, steps=ONE))
def test_after_one_step_the_orders_differ_by_what_the_signal_passes_on(name, problem):
    """T = 1: any rule, any smooth network."""
    check_gap_of_one_step(RULES[name], problem)


@given(
    name=st.sampled_from(BY_COORDINATE),
    problem=straight_problems(),
    clip=st.sampled_from([None, BY_VALUE]),
)
def test_where_the_hessian_vector_products_vanish_the_orders_agree(name, problem, clip):
    """Any T: rules that read no loss and work coordinate by coordinate, H w = 0 on the way."""
    check_orders_agree(RULES[name], problem, clip)


@given(
    name=st.sampled_from(READS_NO_LOSS),
    problem=straight_problems(most_bent=0),
)
def test_without_curvature_the_orders_agree_under_any_clipping(name, problem):
    """Any T: rules that read no loss, H = 0. (A clipped norm mixes coordinates, so here H must be 0.)"""
    check_orders_agree(RULES[name], problem, BY_NORM)


@given(name=st.sampled_from(IGNORES_THE_GRADIENT), problem=problems(dtype=dtypes()))
def test_rules_without_a_derivative_for_the_gradient_have_one_order(name, problem):
    """Any T, any network: w = 0 whatever H is."""
    check_orders_agree(RULES[name], problem)


@given(problem=quadratic_problems(), share=st.floats(0.01, 1))
def test_descent_on_quadratics_in_closed_form(problem, share):
    """Any T, any H: for θ⁰ and for α."""
    alpha = float(torch.tensor(step_size(problem, share)))  # a number of float32, as φ is made
    make = functools.partial(make_rule, "gradient-descent", inner_lr=alpha, learn_lr="scalar")
    check_descent_on_quadratics(make, alpha, problem)


@given(
    make=st.sampled_from(SYSTEMS),
    problem=quadratic_problems(),
    share=st.floats(0.01, 1),
    decay=st.floats(0, 0.5),
    momentum=st.floats(0.05, 0.9),
)
def test_linear_rules_on_quadratics_in_closed_form(make, problem, share, decay, momentum):
    """Any T, any H: each of `SYSTEMS`, whose docstrings say what the two orders are."""
    numbers = Numbers(step_size(problem, share), decay, momentum, problem.seed)
    check_quadratics(*make(problem, numbers), problem)


SHORT = problems(smooth=True, steps=inner_steps(3), most_tasks=2)


@given(name=st.sampled_from(SMOOTH_RULES), problem=SHORT)
def test_the_second_order_is_the_derivative_of_the_meta_loss(name, problem):
    """Any T: smooth rules, smooth networks, for θ⁰ and every φ."""
    assume(check_is_the_gradient(RULES[name], problem))


@given(name=st.sampled_from(SMOOTH_RULES), problem=SHORT)
def test_the_first_order_is_that_with_the_support_gradients_and_losses_held(name, problem):
    """Any T: smooth rules, smooth networks, for θ⁰ and every φ."""
    assume(check_is_the_gradient(RULES[name], problem, order="first", constants=True))


# Where the theorems end: each condition is needed, each difference is there.

WITNESS = Problem(SMALL, tasks=2, support=4, query=4, steps=1, seed=3)
STRAIGHT = StraightProblem(StraightArchitecture(2, 2), tasks=2, support=3, query=3, steps=3, seed=1)
BENT = attrs.evolve(STRAIGHT, architecture=StraightArchitecture(2, 2, bent=1))


def gaps(make, problem, clip=None):
    """How far the orders are apart, for θ⁰ and for φ, relative to the second."""
    first, second = both_orders(built(make, problem), problem, clip)
    pairs = [(first[0], second[0]), *((first[1][name], second[1][name]) for name in second[1])]
    apart = [float((ours - theirs).abs().max() / (theirs.abs().max() + 1e-300)) for ours, theirs in pairs]
    return apart[0], max(apart[1:], default=0.0)


@pytest.mark.parametrize(
    "name", [name for name in RULES if name not in (*IGNORES_THE_GRADIENT, *BLIND_AT_FIRST, *SIGNS_AT_FIRST)]
)
def test_after_one_step_the_orders_differ_for_theta(name):
    assert gaps(RULES[name], WITNESS)[0] > 1e-5


@pytest.mark.parametrize("name", SIGNS_AT_FIRST)
def test_the_first_step_of_an_optimiser_that_normalises_is_a_sign_but_for_its_epsilon(name):
    """T = 1: so the orders differ by ε alone, and from T = 2 on by more."""
    assert gaps(functools.partial(RULES[name], eps=1e-14), WITNESS)[0] < 1e-9
    assert gaps(RULES[name], attrs.evolve(WITNESS, steps=2))[0] > 1e-4


@pytest.mark.parametrize("name", BLIND_AT_FIRST)
def test_a_rule_that_sees_past_gradients_alone_differs_a_step_later(name):
    """T = 1: one order; T = 2: θ⁰ differs; T = 3: φ as well."""
    differs = [[gap > 1e-5 for gap in gaps(RULES[name], attrs.evolve(WITNESS, steps=t))] for t in (1, 2, 3)]
    assert differs == [[False, False], [True, False], [True, True]]


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, make in RULES.items()
        if name not in (*IGNORES_THE_GRADIENT, *BLIND_AT_FIRST)
        and list(make(SMALL.learner().layout).parameters())
    ],
)
def test_after_two_steps_the_orders_differ_for_phi(name):
    assert gaps(RULES[name], attrs.evolve(WITNESS, steps=2))[1] > 1e-5


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", READS_LOSS)
def test_without_curvature_the_orders_differ_for_rules_that_read_the_loss(name, steps):
    """The condition is needed: ∇L (∂u/∂L)ᵀ λ is left, whatever H is."""
    assert gaps(RULES[name], attrs.evolve(STRAIGHT, steps=steps))[0] > 1e-9


def test_the_curvature_that_no_product_meets_is_there():
    """H ≠ 0 where the parameters of the bent outputs are; and a clipped norm takes w there."""
    theta = BENT.theta.expand(BENT.tasks, -1)
    assert not hessian_times(STRAIGHT, STRAIGHT.theta.expand(2, -1), torch.ones(2, 6).double()).any()
    assert float(hessian_times(BENT, theta, torch.ones_like(theta)).abs().min(0).values.max()) > 1e-3
    make = RULES["gradient-descent-fixed"]
    check_orders_agree(make, BENT, Clipping("norm", 100.0))  # nothing to clip
    assert gaps(make, BENT, Clipping("norm", 0.05))[0] > 1e-6


@pytest.mark.parametrize("name", ["gradient-descent-scalar", "lstm-equation", "feed-forward-tanh-all"])
def test_neither_order_is_the_derivative_that_the_other_one_is(name):
    problem = attrs.evolve(WITNESS, steps=2)
    assert check_is_the_gradient(RULES[name], problem)
    assert check_is_the_gradient(RULES[name], problem, order="first", constants=True)
    for order, constants in (("first", False), ("second", True)):
        with pytest.raises(AssertionError):
            check_is_the_gradient(RULES[name], problem, order=order, constants=constants)


# Rules and engines that are wrong on purpose, and what notices.

ALPHA, KAPPA = 2.0**-3, 2.0**-6


class Descends(UpdateRule):
    """θ ← θ − αg"""

    elementwise = True

    def __init__(self, layout):
        super().__init__()
        self.inner_lr = nn.Parameter(torch.tensor(ALPHA))

    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad, state


class DetachesTheGradient(Descends):
    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad.detach(), state


class LearnsUnderTheSecondAlone(Descends):
    def update(self, theta, signal, state):
        alpha = self.inner_lr if signal.grad.requires_grad else self.inner_lr.detach()
        return theta - alpha * signal.grad, state


class ReadsTheLoss(Descends):
    """θ ← θ − αg − κL"""

    uses_loss = True

    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad - KAPPA * signal.loss.unsqueeze(-1), state


class DetachesTheLoss(ReadsTheLoss):
    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad - KAPPA * signal.loss.detach().unsqueeze(-1), state


@contextmanager
def engine(**parts):
    """The inner loop and the meta-gradient with some of their functions exchanged."""
    with pytest.MonkeyPatch.context() as patch:
        for name, part in parts.items():
            for module in (inner_loop, import_module("metalearn_core.training.meta_gradient")):
                if hasattr(module, name):
                    patch.setattr(module, name, part)
        yield


def shows_the_gradient(seen):
    """An engine that shows rules `seen(constant, gradient)`."""
    return lambda: engine(gradient_for_rule=lambda constant, clip, gradient: seen(constant, gradient))


def with_other_arguments(change):
    """An engine that calls rules with `change(losses, theta)` in the place of these."""
    honest = inner_loop.update_every_task

    def update(rule, step, losses, theta, *rest, **beside):
        return honest(rule, step, *change(losses, theta), *rest, **beside)

    return lambda: engine(update_every_task=update)


@contextmanager
def shows_the_living_loss():
    """An engine that does not detach the loss under the first order."""
    living, honest = [], inner_loop.per_task

    def per_task(*arguments):
        living[:] = [honest(*arguments)]
        return living[0]

    with engine(per_task=per_task), with_other_arguments(lambda _, theta: (living[0], theta))():
        yield


def cuts_the_start():
    """An engine whose first order does not see θ⁰ where no step is taken."""
    honest = inner_loop.trajectory

    def trajectory(*arguments, steps, order, **others):
        path = honest(*arguments, steps=steps, order=order, **others)
        cut = order == "first" and steps == 0
        return ((theta.detach(), state) for theta, state in path) if cut else path

    return engine(trajectory=trajectory)


def on_quadratics(make):
    problem = Problem(QuadraticArchitecture(3), tasks=2, support=4, query=4, steps=3, seed=0)
    kappa = KAPPA if issubclass(make, ReadsTheLoss) else 0.0
    check_quadratics(built(make, problem), System.of(3, [[1]], [-ALPHA], -kappa), problem)


TWO_STEPS = attrs.evolve(WITNESS, steps=2)
PROPERTIES = {
    "T = 0": lambda make: check_orders_agree(make, attrs.evolve(WITNESS, steps=0)),
    "T = 1: φ": lambda make: check_phi_agrees(make, WITNESS),
    "T = 1: gap": lambda make: check_gap_of_one_step(make, WITNESS),
    "T = 1: descent": lambda make: check_gap_of_one_descent_step(make, ALPHA, WITNESS),
    "H w = 0": lambda make: check_orders_agree(make, BENT),
    "quadratics: descent": lambda make: check_descent_on_quadratics(
        make, ALPHA, Problem(QuadraticArchitecture(3), tasks=2, support=4, query=4, steps=3, seed=0)
    ),
    "quadratics": on_quadratics,
    "second order": lambda make: check_is_the_gradient(make, TWO_STEPS),
    "first order": lambda make: check_is_the_gradient(make, TWO_STEPS, order="first", constants=True),
}
OF_DESCENT = ("T = 1: descent", "H w = 0", "quadratics: descent")
"""What is claimed of rules that read no loss."""

MUTANTS = {
    "a rule that detaches the gradient": (
        DetachesTheGradient,
        nullcontext,
        {"T = 1: descent", "quadratics: descent", "quadratics", "second order"},
    ),
    "a rule that detaches the loss": (DetachesTheLoss, nullcontext, {"quadratics", "second order"}),
    "a rule that learns under the second order alone": (
        LearnsUnderTheSecondAlone,
        nullcontext,
        {"T = 1: φ", "H w = 0", "quadratics: descent", "first order"},
    ),
    "an engine whose first order keeps the gradient": (
        Descends,
        shows_the_gradient(lambda constant, gradient: gradient),
        {"T = 1: gap", "T = 1: descent", "quadratics: descent", "quadratics", "first order"},
    ),
    "an engine whose first order keeps the loss": (
        ReadsTheLoss,
        shows_the_living_loss,
        {"T = 1: gap", "quadratics", "first order"},
    ),
    "an engine whose second order is the first": (
        Descends,
        shows_the_gradient(lambda constant, gradient: gradient.detach()),
        {"T = 1: gap", "T = 1: descent", "quadratics: descent", "quadratics", "second order"},
    ),
    "an engine whose second order has half of the curvature": (
        Descends,
        shows_the_gradient(
            lambda constant, gradient: gradient.detach() if constant else (gradient + gradient.detach()) / 2
        ),
        {"T = 1: gap", "T = 1: descent", "quadratics: descent", "quadratics", "second order"},
    ),
    "an engine whose second order drops the loss": (
        ReadsTheLoss,
        with_other_arguments(lambda losses, theta: (losses.detach(), theta)),
        {"T = 1: gap", "quadratics", "second order"},
    ),
    "an engine whose first order cuts the path": (
        Descends,
        with_other_arguments(
            lambda losses, theta: (losses, theta if losses.requires_grad else theta.detach())
        ),
        {"T = 1: gap", "T = 1: descent", "H w = 0", "quadratics: descent", "quadratics", "first order"},
    ),
    "an engine whose first order forgets the start": (Descends, cuts_the_start, {"T = 0"}),
}


def claimed_of(make):
    return [name for name in PROPERTIES if not (issubclass(make, ReadsTheLoss) and name in OF_DESCENT)]


@pytest.mark.parametrize("make", [Descends, ReadsTheLoss])
def test_honest_rules_have_every_property(make):
    for name in claimed_of(make):
        assert PROPERTIES[name](make) is not False, f"{name}: nothing was checked"


@pytest.mark.parametrize("mutant", MUTANTS)
def test_what_is_wrong_on_purpose_is_caught(mutant):
    """By each property that is about it, and by no other."""
    make, wrong, expected = MUTANTS[mutant]
    caught = set()
    for name in claimed_of(make):
        try:
            with wrong():
                PROPERTIES[name](make)
        except AssertionError:
            caught.add(name)
    assert caught == expected


def test_every_property_catches_something():
    assert set().union(*(expected for *_, expected in MUTANTS.values())) == set(PROPERTIES)


def test_a_rule_that_reads_the_loss_is_caught_where_none_may():
    with pytest.raises(AssertionError):
        check_orders_agree(ReadsTheLoss, STRAIGHT)
