"""iMAML: the meta-gradient at the end of the inner loop, whatever way led there.

Rajeswaran, Finn, Kakade and Levine, "Meta-Learning with Implicit Gradients" (2019). The inner loop minimises
L(θ) + λ/2 ‖θ − θ⁰‖² on the support set (their Equation 3). Where it has converged, the derivative of θ⁽ᵀ⁾ for
θ⁰ is (I + H/λ)⁻¹, H the Hessian of L there (their Lemma 1). Its product with the gradient of the query loss
is found by conjugate gradients, from products H·v alone (their Algorithm 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from metalearn_core import (
    BaseLearner,
    Clipping,
    Order,
    ParameterLayout,
    Signal,
    State,
    Task,
    UpdateRule,
    UsageError,
    adapt,
    hookimpl,
    query_losses,
    support_losses,
)


class Proximal(UpdateRule):
    """θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾ − α(∇L(θ⁽ᵗ⁾) + λ(θ⁽ᵗ⁾ − θ⁰))   (gradient descent on Equation 3).   φ: none.

    Args:
        inner_lr: α.
        regularisation: λ, how strongly θ is held at θ⁰.
    """

    elementwise = True
    coordinatewise = True

    def __init__(
        self, layout: ParameterLayout, inner_lr: float = 0.01, regularisation: float = 1.0
    ) -> None:  # fmt: skip
        super().__init__()
        self.inner_lr = _positive("inner_lr", inner_lr)
        self.regularisation = _positive("regularisation", regularisation)

    def init_state(self, theta: Tensor) -> State:
        return theta

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        return theta - self.inner_lr * (signal.grad + self.regularisation * (theta - state)), state


def implicit(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, task: Task,
    *, steps: int, order: Order = "second", clip: Clipping | None = None,
    truncate: int | None = None, outer_decay: float | None = None,
    iterations: int = 5, regularisation: float | None = None,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:  # fmt: skip
    """(I + H/λ)⁻¹ ∇L_query(θ⁽ᵀ⁾), mean over tasks   (Rajeswaran et al., 2019, Algorithm 2).

    Time and memory of the gradient do not grow with T. It is exact where the inner loop has converged.

    Args:
        iterations: steps of conjugate gradients, a product with H each.
        regularisation: λ; None takes the rule's own. Of a rule that has none, θ⁽ᵀ⁾ is taken for a minimum
            under this λ, which is an approximation.
    """
    if (order, truncate, outer_decay) != ("second", None, None):
        raise UsageError("implicit: it differentiates no path: leave out order, truncate and outer_decay")
    if type(iterations) is not int or iterations < 1:
        raise UsageError(f"implicit: iterations must be an integer >= 1, got {iterations!r:.60}")
    if learned := [name for name, phi in rule.named_parameters() if phi.requires_grad]:
        raise UsageError(
            f"implicit: a minimum depends on θ⁰ alone, and rule {rule.label} has {_listed(learned)} to"
            " learn: take backpropagation, hessian-free or evolution"
        )
    given = getattr(rule, "regularisation", None) if regularisation is None else regularisation
    if given is None:
        raise UsageError(
            f"implicit: rule {rule.label} does not hold θ at θ⁰: take the rule proximal, or say"
            " regularisation = λ, and θ⁽ᵀ⁾ is taken for a minimum under it"
        )
    weight = _positive("regularisation", given)
    task = task if task.stacked else Task.stack([task])
    with torch.no_grad():
        adapted = adapt(rule, learner, theta, task.support, steps=steps, clip=clip)
    with torch.enable_grad():
        at = adapted.detach().requires_grad_()
        losses = query_losses(learner, at, task)
        (right,) = torch.autograd.grad(losses.sum() + 0 * at.sum(), at)
        # a loss that is linear in θ has a gradient without a graph
        inner = support_losses(learner, at, task, steps).sum() + 0 * at.square().sum()
        (slope,) = torch.autograd.grad(inner, at, create_graph=True)

    def product(v: Tensor) -> Tensor:
        (hessian_v,) = torch.autograd.grad(slope, at, v, retain_graph=True)
        return v + hessian_v / weight

    solved = conjugate_gradients(product, right.detach(), iterations) / len(task)
    grad = solved if theta.ndim == 2 else solved.sum(0)
    return losses.detach().mean(), grad, {k: torch.zeros_like(phi) for k, phi in rule.named_parameters()}


def conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor, iterations: int) -> Tensor:
    """Solve A x = b for each row, A symmetric (Hestenes and Stiefel, 1952); a row that is solved stays."""
    x, residual, direction = torch.zeros_like(right), right, right
    size = residual.square().sum(-1, keepdim=True)
    for _ in range(iterations):
        image = product(direction)
        curvature = (direction * image).sum(-1, keepdim=True)
        going = (size > 0) & (curvature != 0)
        length = torch.where(going, size / torch.where(going, curvature, 1), 0)
        x, residual = x + length * direction, residual - length * image
        before, size = size, residual.square().sum(-1, keepdim=True)
        direction = residual + torch.where(going, size / torch.where(going, before, 1), 0) * direction
    return x


def _positive(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UsageError(f"{name} must be a number > 0, got {value!r:.60}")
    return float(value)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The inner loop that the outer gradient is made for."""
    return {"proximal": Proximal}


@hookimpl
def metalearn_meta_gradients() -> Mapping[str, Callable[..., Any]]:
    """The outer gradient, by its name."""
    return {"implicit": implicit}
