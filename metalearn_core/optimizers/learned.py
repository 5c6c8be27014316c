"""An update rule as an ordinary `torch.optim.Optimizer`, which `higher` knows as well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metalearn_core.errors import RuleError, UsageError, unknown
from metalearn_core.inner_loop import seen_gradient, start_state, update_every_task
from metalearn_core.learner import ParameterLayout
from metalearn_core.optimizers.differentiable import Advance, register
from metalearn_core.rule import State, UpdateRule
from metalearn_core.settings import ORDERS, Clipping, Order

MEMORY = "rule"
"""Where an optimiser's `state` keeps that of the rule: it belongs to all parameters together."""


class LearnedOptimizer(torch.optim.Optimizer):
    """θ, state ← update(θ, ∇L, state) at every `step`: an update rule drives an ordinary training loop.

    The parameters are one vector θ, in their order. One that is frozen at the start stays outside it; a
    gradient that is None counts as zeros, as in `adapt`, unless all are: then `step` does nothing.

    In `higher.innerloop_ctx` it is differentiable through φ and θ⁰. There the rule sees the loss that
    `diffopt.step(loss)` is given; here `step(closure)` must return it where the rule `uses_loss`.

    Args:
        params: as `torch.optim` takes them, also `(name, parameter)` pairs; one group, without options.
        rule: made for as many parameters. It is not copied: its φ are where a meta-gradient ends.
        order: what `higher` differentiates through; `"first"` takes gradients and losses for constants.
        clip: bound on the gradient before the rule sees it.

    Raises:
        UsageError: for what does not fit together.
    """

    def __init__(
        self,
        params: Iterable[Any],
        rule: UpdateRule,
        *,
        order: Order = "second",
        clip: Clipping | None = None,
    ) -> None:
        if not isinstance(rule, UpdateRule):
            raise UsageError(f"LearnedOptimizer: expected an UpdateRule, got a {type(rule).__name__}")
        if order not in ORDERS:
            raise unknown("order", str(order), ORDERS)
        self.rule, self.order, self.clip = rule, order, clip
        super().__init__(params, {})
        group = self.param_groups[0]
        names = [str(name) for name in group.get("param_names", range(len(group["params"])))]
        self.layout = ParameterLayout(tuple(names), tuple(tuple(p.shape) for p in group["params"]))
        self._example = _example_state(self._walk(), group["params"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take the one group that there can be. UsageError for a second one, and for options of a group."""
        if self.param_groups:
            raise UsageError(
                "LearnedOptimizer: its parameters are one vector, so there is one group and no second;"
                " make another optimizer for it, with a rule of its own"
            )
        for option in sorted(param_group.keys() - {"params", "param_names"}):
            raise UsageError(f"LearnedOptimizer: a group has no option {option!r}; the rule has its own")
        super().add_param_group(param_group)
        group = self.param_groups[0]
        learned = [parameter.requires_grad for parameter in group["params"]]
        for key in group.keys() & {"params", "param_names"}:
            group[key] = [held for held, learns in zip(group[key], learned, strict=True) if learns]
        kinds = sorted({f"{p.dtype} on {p.device}" for p in group["params"]})
        if len(kinds) != 1:
            raise UsageError(
                "LearnedOptimizer: it needs parameters that require a gradient, of one dtype on one device,"
                f" got {' and '.join(kinds) or 'none'}"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters from their gradients; returns what the closure returned.

        Args:
            closure: clears the gradients, computes the loss and its gradients, and returns the loss.

        Raises:
            UsageError: where the rule reads the loss and there is none.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        params = self.param_groups[0]["params"]
        shown = self._shown_loss(loss, params[0])
        grads = [parameter.grad for parameter in params]
        if any(grad is not None for grad in grads):
            walk = self._walk()
            for parameter, value in zip(params, walk(params, grads, shown, track=False), strict=True):
                parameter.copy_(value)
            self.state[MEMORY] = walk.kept()  # type: ignore[index]
        return loss

    def _shown_loss(self, loss: Any, like: Tensor) -> Tensor:
        """The loss as the rule sees it: `[]`; zero where it does not look."""
        if not self.rule.uses_loss:
            return like.new_zeros(())
        if loss is None:
            raise UsageError(
                f"LearnedOptimizer: rule {self.rule.label} reads the loss; call step(closure) with a closure"
                " that returns it"
            )
        shown = torch.as_tensor(loss, dtype=like.dtype, device=like.device)
        if shown.numel() != 1:
            raise UsageError(
                f"LearnedOptimizer: the closure must return one number, got shape {tuple(shown.shape)}"
            )
        return shown.reshape(())

    def unrolled(self, device: torch.device | None) -> Advance:
        """Its further steps as a function that `higher` can differentiate; its own state stays as it is."""
        walk = self._walk()
        if walk.step:
            walk.state = pytree.tree_map(lambda held: held.detach().clone().to(device), walk.state)
        return walk

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` told. UsageError if that was of another rule or other parameters."""
        held = state_dict["state"].get(MEMORY, {})
        others = sorted(str(key) for key in state_dict["state"].keys() - {MEMORY})
        if others:
            raise UsageError(
                f"LearnedOptimizer: the state has entries {', '.join(others[:3])}; it is another optimizer's"
            )
        if held:
            _require_like(held, self.rule, self._example)
        super().load_state_dict(state_dict)
        if held:
            device = self.param_groups[0]["params"][0].device
            memory = [leaf.detach().clone().to(device) for leaf in held["memory"]]
            self.state[MEMORY] = {**held, "memory": memory}  # type: ignore[index]

    def __getstate__(self) -> dict[str, Any]:
        # torch's own leaves out all that it does not know
        own = ("rule", "order", "clip", "layout", "_example")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}

    def _walk(self) -> Walk:
        walk = Walk(self.rule, self.layout, self.clip, self.order == "first")
        held = self.state.get(MEMORY)  # type: ignore[call-overload]
        if held:
            walk.step = held["step"]
            walk.state = pytree.tree_unflatten(held["memory"], pytree.tree_structure(self._example))
        return walk


register(LearnedOptimizer)


@attrs.define(eq=False)
class Walk:
    """A rule on its way: its state, of a stack of one, and t. Called, it takes a step.

    `constant`: gradients and losses are taken for constants.
    """

    rule: UpdateRule
    layout: ParameterLayout
    clip: Clipping | None
    constant: bool
    state: State = None
    step: int = 0

    def __call__(
        self, params: Sequence[Tensor], grads: Sequence[Tensor | None], loss: Tensor, *, track: bool
    ) -> list[Tensor]:
        """The parameters after one more step; `track`: keep the graph."""
        constant = self.constant or not track
        with torch.set_grad_enabled(track):
            theta = self._flat(params)
            grad = self._flat([_dense(g, p) for g, p in zip(grads, params, strict=True)])
            if self.step == 0:
                self.state = start_state(self.rule, theta, track=track)
            shown = loss.detach() if constant else loss
            theta, self.state = update_every_task(
                self.rule, self.step, shown.reshape(1), theta,
                seen_gradient(constant, self.clip, grad), self.state,
            )  # fmt: skip
            self.step += 1
            return list(self.layout.unflatten(theta[0]).values())

    def _flat(self, tensors: Sequence[Tensor]) -> Tensor:
        return self.layout.flatten(dict(zip(self.layout.names, tensors, strict=True))).unsqueeze(0)

    def kept(self) -> dict[str, Any]:
        """What it needs to go on, in plain containers."""
        return {"rule": self.rule.label, "step": self.step, "memory": pytree.tree_leaves(self.state)}


def _dense(grad: Tensor | None, parameter: Tensor) -> Tensor:
    if grad is None:
        return torch.zeros_like(parameter)
    return grad if grad.layout is torch.strided else grad.to_dense()


def _example_state(walk: Walk, params: Sequence[Tensor]) -> State:
    """What the rule's state looks like, without values, found by a step that changes nothing.

    Raises UsageError for a rule that cannot take it.
    """
    theta = [parameter.detach() for parameter in params]
    try:
        walk(theta, [None] * len(theta), theta[0].new_zeros(()), track=False)
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, UsageError) and not isinstance(error, RuleError):
            raise
        raise UsageError(
            f"LearnedOptimizer: rule {walk.rule.label} cannot update these {walk.layout.size} coordinates;"
            f" make it for their layout and dtype ({str(error).strip().splitlines()[0]})"
        ) from error
    return pytree.tree_map(lambda leaf: leaf.to("meta"), walk.state)


def _require_like(held: dict[str, Any], rule: UpdateRule, example: State) -> None:
    """UsageError unless what is `held` is a state of this rule, shaped as the example is."""
    if held["rule"] != rule.label:
        raise UsageError(
            f"LearnedOptimizer: the state is of rule {held['rule']}, this is an optimizer of {rule.label}"
        )
    found, wanted = (
        ", ".join(f"{list(leaf.shape)} of {leaf.dtype}" for leaf in leaves) or "none"
        for leaves in (held["memory"], pytree.tree_leaves(example))
    )
    if found != wanted:
        raise UsageError(
            f"LearnedOptimizer: the state is of other parameters or options: its tensors are {found},"
            f" here {wanted}"
        )
