"""Evolution strategies: a meta-gradient from losses alone, without a derivative of the inner loop.

Antithetic pairs (Salimans et al., "Evolution Strategies as a Scalable Alternative to Reinforcement Learning",
2017): g = mean of ε [L(x + σε) − L(x − σε)] / 2σ, ε ~ N(0, I), x all of θ⁰ and φ. With `truncate`, persistent
ones: Vicol, Metz and Sohl-Dickstein, "Unbiased Gradient Estimation in Unrolled Computation Graphs with
Persistent Evolution Strategies" (2021), Algorithm 2. φ is then perturbed anew for each piece of the unroll,
the inner loop goes on from where it was, and the losses of a piece are weighed by the sum of all
perturbations so far, ξₖ = ε₁ + ... + εₖ. That sum keeps the estimate unbiased.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from metalearn_core import (
    BaseLearner,
    Clipping,
    Order,
    Signal,
    State,
    Task,
    UpdateRule,
    UsageError,
    hookimpl,
    keyed_normal,
    loss_weights,
    query_losses,
    trajectory,
)


def evolution(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, task: Task,
    *, steps: int, order: Order = "second", clip: Clipping | None = None,
    truncate: int | None = None, outer_decay: float | None = None, keys: Tensor | None = None,
    pairs: int = 8, sigma: float = 0.01,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:  # fmt: skip
    """Σₖ ξₖ [Lₖ(x + σε) − Lₖ(x − σε)] / 2σ, mean over pairs and tasks   (Vicol et al., 2021; k = 1: ES).

    Lₖ is the part of the outer loss in piece k of the unroll. What is drawn depends on seed and task alone.
    The loss that is returned is the mean over all perturbations.

    Args:
        truncate: steps of a piece; None: the whole unroll is one.
        pairs: antithetic pairs of perturbations for each task, two inner loops each.
        sigma: σ, how far θ⁰ and φ are moved.
    """
    _require(rule, order, pairs, sigma)
    task = task if task.stacked else Task.stack([task])
    n, count, length = theta.shape[-1], len(task), truncate or max(steps, 1)
    learned = {name: phi for name, phi in rule.named_parameters() if phi.requires_grad}
    sizes, pieces = [phi.numel() for phi in learned.values()], max(1, -(-steps // length))
    keys = torch.arange(count, device=theta.device) if keys is None else keys
    drawn = keyed_normal(keys, pairs * (n + pieces * sum(sizes)), dtype=theta.dtype)
    of_theta, of_phi = drawn.view(count, pairs, -1).transpose(0, 1).tensor_split([n], -1)
    of_phi = of_phi.reshape(pairs, count, pieces, -1)
    sign = torch.tensor([sigma, -sigma], device=theta.device, dtype=theta.dtype).view(2, 1, 1, 1)
    start = (theta.detach() + sign * of_theta).reshape(-1, n)
    moves = (sign.unsqueeze(-1) * of_phi).reshape(len(start), pieces, -1).transpose(0, 1)
    parts = zip(learned.items(), torch.split(moves, sizes, -1), strict=True)
    phis = {name: phi.detach() + part.reshape(*part.shape[:2], *phi.shape) for (name, phi), part in parts}
    rows, losses = Task.concatenate([task] * (2 * pairs)), [torch.zeros_like(start[:, 0])] * pieces
    weights = loss_weights(steps, outer_decay)
    with torch.no_grad():
        path = trajectory(
            _Perturbed(rule, phis, length), learner, start, rows.support, steps=steps, clip=clip
        )
        for t, (now, _) in enumerate(path):
            if t in weights:
                piece = max(t - 1, 0) // length
                losses[piece] = losses[piece] + weights[t] * query_losses(learner, now, rows)
    of_piece = torch.stack(losses, -1).view(2, pairs, count, pieces)
    slope = (of_piece[0] - of_piece[1]) / (2 * sigma * pairs * count)
    grad = (slope.sum(-1, keepdim=True) * of_theta).sum(0)
    flat = (slope.unsqueeze(-1) * of_phi.cumsum(2)).sum((0, 1, 2))
    grads = {name: torch.zeros_like(phi) for name, phi in rule.named_parameters()}
    split = zip(learned.items(), torch.split(flat, sizes), strict=True)
    grads |= {name: part.view(phi.shape) for (name, phi), part in split}
    return of_piece.sum(-1).mean(), grad if theta.ndim == 2 else grad.sum(0), grads


def _require(rule: UpdateRule, order: str, pairs: object, sigma: object) -> None:
    if order != "second":
        raise UsageError("evolution: it takes no derivative of the outer loss: leave order out")
    if type(pairs) is not int or pairs < 1:
        raise UsageError(f"evolution: pairs must be an integer >= 1, got {pairs!r:.60}")
    if type(sigma) not in (int, float) or not 0 < sigma < math.inf:  # type: ignore[operator]
        raise UsageError(f"evolution: sigma must be a number > 0, got {sigma!r:.60}")
    if rule.uses_support or rule.has_start:
        raise UsageError(
            f"evolution: rule {rule.label} reads the support set itself, which perturbed rules do not get:"
            " take backpropagation"
        )


class _Perturbed(UpdateRule):
    """The rule with a φ of its own for each row of the stack and each piece of the unroll.

    `phis`: by name, `[pieces, rows, ...]`; `length`: steps of a piece.
    """

    elementwise = True  # it is called on the stack, and batches the rule itself
    uses_step = True
    check_first_update = False

    def __init__(self, rule: UpdateRule, phis: Mapping[str, Tensor], length: int) -> None:
        super().__init__()
        self.rule, self.phis, self.length, self.uses_loss = rule, phis, length, rule.uses_loss

    def init_state(self, theta: Tensor) -> State:
        return self._batched(_Start(self.rule), "rule.", 0, theta)

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        losses = signal.loss if self.uses_loss else theta.new_zeros(len(theta))
        step = _Update(self.rule, signal.step, signal.steps)
        moved: tuple[Tensor, State] = self._batched(
            step, "rule.", signal.step, theta, signal.grad, losses, state
        )
        return moved

    def _batched(self, module: nn.Module, prefix: str, step: int, *rows: Any) -> Any:
        if not self.phis:  # nothing differs between rows
            return module(*rows) if self.rule.elementwise else vmap(module)(*rows)
        phi = {prefix + name: values[step // self.length] for name, values in self.phis.items()}
        return vmap(functools.partial(functional_call, module))(phi, rows)


class _Start(nn.Module):
    def __init__(self, rule: UpdateRule) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, theta: Tensor) -> State:
        return self.rule.init_state(theta)


class _Update(_Start):
    def __init__(self, rule: UpdateRule, step: int, steps: int) -> None:
        super().__init__(rule)
        self.step, self.steps = step, steps

    def forward(  # type: ignore[override]
        self, theta: Tensor, grad: Tensor, loss: Tensor, state: State
    ) -> tuple[Tensor, State]:
        return self.rule.update(theta, Signal(grad, loss, self.step, steps=self.steps), state)


@hookimpl
def metalearn_meta_gradients() -> Mapping[str, Callable[..., Any]]:
    """The outer gradient, by its name."""
    return {"evolution": evolution}
