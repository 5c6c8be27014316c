"""The laws of meta-gradients: they reach everything, and are the derivatives that they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from metalearn_core.errors import RuleError
from metalearn_core.inner_loop import adapt
from metalearn_core.learner import BaseLearner
from metalearn_core.outer_gradient import query_losses
from metalearn_core.rule import UpdateRule
from metalearn_core.settings import ORDERS, Order
from metalearn_core.task import Batch, Task
from metalearn_core.testing.laws.problems import (
    STEPS,
    MakeRule,
    close,
    is_given,
    loss_and_gradient,
    make,
    noise_key,
    nudged,
    problem,
    randn,
    require,
    require_float64,
    signal,
    support_of,
)
from metalearn_core.training.meta_gradient import meta_gradient

_LONGEST = 8
"""Steps in which every φ must have been used: rules may have some for each step."""


def law_meta_gradients(make_rule: MakeRule) -> None:
    """Meta-gradients of θ⁰ and of every φ are finite and reach them, under both orders.

    Where a rule asks the support set for gradients of its own, first order need not reach φ.

    Some support gradients are exactly 0, as those behind a dead ReLU or of an unused parameter are.
    """
    # as rules are trained: in float32, and one backward pass after another
    trained = make(make_rule, problem()[0].layout, dtype=torch.float32)
    for order in ORDERS:
        _finite_meta_gradients(trained, order, unused=True, steps=2, dtype=torch.float32)
        lost: set[str] | None = None
        for rule, steps, size in _attempts(make_rule):
            try:
                found = _finite_meta_gradients(rule, order, unused=False, steps=steps, size=size)
            except RuleError:
                if steps <= STEPS:
                    raise
                break  # it has parameters for so many steps alone
            # under the first order what support.gradient gives is a constant, for φ in it too
            hidden = order == "first" and (rule.uses_support or rule.has_start)
            learned = (
                [] if hidden else [n for n, p in rule.named_parameters() if p.requires_grad and p.numel()]
            )
            missed = {name for name in ("theta0", *learned) if not found[name].abs().max() > 0}
            lost = missed if lost is None else lost & missed
            if not lost:
                break
        require(
            not lost,
            f"the {order}-order meta-gradient never reaches {', '.join(sorted(lost or ()))}, in up to"
            f" {_LONGEST} steps, with every φ moved off 0, and with targets a hundredth and a hundred times"
            " as large; use it in update without detach(), .data, .item() or no_grad(), compute what depends"
            " on it in update and not in __init__, or freeze it (requires_grad=False); if only a later step"
            " uses it, have fewer of them by default, and if only larger gradients do, a smaller threshold",
        )


def _attempts(make_rule: MakeRule) -> Iterator[tuple[UpdateRule, int, float]]:
    """Rules, T, and how large targets are: the rule as it is made; then moved off what may be 0 at first;
    with targets that make gradients small or large, as a threshold may need them; and with more steps.
    """
    layout = problem(unused=False)[0].layout
    yield make(make_rule, layout, seed=1), 2, 1.0
    for size in (1.0, 0.01, 100.0):
        yield nudged(make(make_rule, layout, seed=2), 2), 2, size
    for steps in range(3, _LONGEST + 1):
        yield nudged(make(make_rule, layout, seed=steps), steps), steps, 1.0


def _finite_meta_gradients(
    rule: UpdateRule, order: Order, *, unused: bool, steps: int, size: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:  # fmt: skip
    """Those of θ⁰ and of every φ, by name."""
    learner, theta, task = problem(unused=unused, size=size)
    learner, theta, task = learner.to("cpu", dtype), theta.to(dtype), task.to("cpu", dtype)
    _, for_theta, for_phi = meta_gradient(rule, learner, theta, task, steps=steps, order=order)
    found = {"theta0": for_theta, **for_phi}
    for name, grad in found.items():
        require(
            bool(torch.isfinite(grad).all()),
            f"the {order}-order meta-gradient for {name} is not finite; look for √x, |x|ᵖ,"
            " log x or a division at x = 0 (torch.where alone does not help: clamp x first)",
        )
    return found


def law_order(make_rule: MakeRule) -> str | None:
    """On a quadratic, T = 1, the orders differ by what flows through the support signal, and by no more.

    Second minus first order is H·∂(q·θ′)/∂∇ + ∇·∂(q·θ′)/∂L for θ⁰, with the derivatives of `update`
    taken by finite differences, H the Hessian and q the query gradient at θ′; for φ it is 0.
    """
    require_float64(make_rule)
    if is_given():
        return "the rule is looked at on a problem of its own, which is no quadratic"
    learner, theta, task = _quadratic()
    rule = make(make_rule, learner.layout)
    if rule.uses_support or rule.has_start:
        return "the rule asks the support set for more than its gradient"
    (_, first, phi_first), (_, second, phi_second) = (
        meta_gradient(rule, learner, theta, task, steps=1, order=order) for order in ORDERS
    )
    for name, g in phi_first.items():
        require(
            close(g, phi_second[name]),
            f"at T = 1 the order changes the meta-gradient for {name}; the core decides the order, so"
            " update must not differentiate anything itself",
        )
    loss, grad = loss_and_gradient(learner, theta, task.support)
    key = noise_key(rule, task.support, 0)
    seen = signal(rule, grad, loss, 0, key=key)
    adapted = rule.update(theta, seen, rule.init_state(theta))[0].detach()
    _, query = loss_and_gradient(learner, adapted, task.query)

    def answer(grad: Tensor, loss: Tensor) -> Tensor:
        given = signal(rule, grad, loss, 0, key=key)
        moved = rule.update(theta, given, rule.init_state(theta))[0]
        return (query @ moved).detach()

    h = 1e-5
    steps = h * torch.eye(len(grad), dtype=grad.dtype)
    slopes = [(answer(grad + e, loss) - answer(grad - e, loss)) / (2 * h) for e in steps]
    slope = (answer(grad, loss + h) - answer(grad, loss - h)) / (2 * h)
    hessian = task.support.inputs.T @ task.support.inputs
    require(
        close(second - first, hessian @ torch.stack(slopes) + grad * slope, 1e-4, 1e-7),
        "the second-order meta-gradient for theta0 lacks what flows through signal.grad and"
        " signal.loss; use both as they are: no detach(), .data or no_grad() in update",
    )
    return None


def law_unrolled(make_rule: MakeRule) -> None:
    """`meta_gradient` is the derivative of the T steps written out, task after task, under both orders."""
    require_float64(make_rule)
    learner, start, task = problem()
    rule = nudged(make(make_rule, learner.layout), 1)
    phi = {name: p for name, p in rule.named_parameters() if p.requires_grad}
    for order in ORDERS:
        _, for_theta, for_phi = meta_gradient(rule, learner, start, task, steps=2, order=order)
        theta = start.clone().requires_grad_()
        loss = sum(
            learner.loss(_unroll(rule, learner, theta, one.support, order), one.query, *learner.context(one))
            for one in (task[i] for i in range(len(task)))
        ) / len(task)
        assert isinstance(loss, Tensor)
        grads = torch.autograd.grad(loss, [theta, *phi.values()], allow_unused=True)
        found = [for_theta, *(for_phi[name] for name in phi)]
        for name, mine, plain in zip(("theta0", *phi), found, grads, strict=True):
            require(
                close(mine, torch.zeros_like(mine) if plain is None else plain),
                f"the {order}-order meta-gradient for {name} is not that of the same steps written out in"
                " plain PyTorch; look for what update does under vmap alone, and for custom derivatives",
            )


def law_finite_differences(make_rule: MakeRule) -> None:
    """At T = 3 second-order meta-gradients are the slopes of the outer loss, by central differences."""
    require_float64(make_rule)
    learner, theta, task = problem()
    rule = nudged(make(make_rule, learner.layout), 1)
    _, for_theta, for_phi = meta_gradient(rule, learner, theta, task, steps=STEPS)
    phi = {name: p for name, p in rule.named_parameters() if p.requires_grad and p.numel()}
    places, grads = {"theta0": theta, **phi}, {"theta0": for_theta, **for_phi}

    def outer_loss() -> float:
        with torch.no_grad():
            adapted = adapt(rule, learner, theta, task.support, steps=STEPS)
            return float(query_losses(learner, adapted, task).mean())

    for together in (["theta0"], list(phi)):
        if _differ(outer_loss, places, grads, together):
            wrong = [name for name in together if _differ(outer_loss, places, grads, [name])]
            raise AssertionError(
                f"the second-order meta-gradient for {', '.join(wrong or together)} is not the slope of the"
                f" outer loss at T = {STEPS}: {_differ(outer_loss, places, grads, wrong[:1] or together)};"
                " update stops a derivative in some step, or has a wrong one of its own: use theta, the"
                " signal, φ and the state, and return the state, without detach(), .data or no_grad(); if the"
                " rule means to stop one, give the reason in expected_failures"
            )


def _differ(
    loss: Callable[[], float], places: Mapping[str, Tensor], grads: Mapping[str, Tensor], names: Sequence[str]
) -> str:
    """How slope and gradient differ along drawn directions in these tensors; empty where they do not."""
    norm = sum(float(grads[name].square().sum()) for name in names) ** 0.5
    for seed in range(2):
        drawn = {name: randn(*places[name].shape, seed=seed) for name in names}
        slope, doubt = _slope(loss, places, drawn)
        found = sum(float((grads[name] * x).sum()) for name, x in drawn.items())
        if not abs(found - slope) <= 1e-6 * norm + doubt:  # a NaN is not
            return f"along a drawn direction {found:.6g} instead of {slope:.6g}"
    return ""


def _slope(
    loss: Callable[[], float], places: Mapping[str, Tensor], direction: Mapping[str, Tensor]
) -> tuple[float, float]:
    """The slope of the loss along a direction, and how far it can be trusted.

    Where the loss is smooth, two step sizes agree, and the slopes to both sides differ in proportion to the
    step. By as much as they do not, there is a kink or a jump, and the slope is in doubt.
    """
    h, values = 1e-6, {}
    kept = {name: places[name].detach().clone() for name in direction}
    for distance in (-2, -1, 1, 2, 0):  # 0 is last, and leaves everything in its place
        with torch.no_grad():
            for name, x in direction.items():
                places[name].copy_(kept[name] + distance * h * x)
        values[distance] = loss()
    narrow, wide = ((values[k] - values[-k]) / (2 * k * h) for k in (1, 2))
    bend, wider_bend = ((values[k] - 2 * values[0] + values[-k]) / (k * h) for k in (1, 2))
    rounding = 64 * torch.finfo(torch.float64).eps * (1 + abs(values[0])) / h
    return narrow, 10 * (abs(wide - narrow) + abs(2 * bend - wider_bend)) + rounding


def _unroll(rule: UpdateRule, learner: BaseLearner, theta: Tensor, support: Batch, order: Order) -> Tensor:
    """Two steps for one task, derivatives kept; the first order takes gradient and loss as numbers."""
    theta = rule.start(theta, support_of(learner, support, order))
    state = rule.init_state(theta)
    for step in range(2):
        shown = support_of(learner, support, order, step)
        at = theta if theta.requires_grad else theta.detach().requires_grad_()
        loss = learner.support_loss(at, support, step)
        (grad,) = torch.autograd.grad(loss, at, create_graph=order == "second", retain_graph=True)
        if order == "first":
            loss = loss.detach()
        theta, state = rule.update(
            theta, signal(rule, grad, loss, step, shown, 2, noise_key(rule, support, step)), state
        )
    return theta


def _half_square(prediction: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (prediction - target).square().sum()


def _quadratic() -> tuple[BaseLearner, Tensor, Task]:
    """L(θ) = ½‖Aθ − b‖², so that the Hessian is AᵀA; A and b are the inputs and targets."""
    learner = BaseLearner(nn.Linear(3, 1, bias=False).double(), _half_square)
    tensors = [randn(4, columns, seed=seed) for seed, columns in enumerate((3, 1, 3, 1))]
    return learner, randn(3, seed=9), Task.of(tensors, stacked=False)
