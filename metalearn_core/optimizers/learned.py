"""An update rule as an ordinary `torch.optim.Optimizer`, which `higher` knows as well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metalearn_core.errors import RuleError, UsageError, unknown
from metalearn_core.optimizers.differentiable import Advance, register
from metalearn_core.optimizers.stepping import RuleStepper
from metalearn_core.rule import State, UpdateRule
from metalearn_core.settings import ORDERS, Clipping, Order
from metalearn_core.training.parameters import ParameterLayout

MEMORY = "rule"
"""Where an optimiser's `state` keeps that of the rule: it belongs to all parameters together."""


class LearnedOptimizer(torch.optim.Optimizer):
    """An update rule as an ordinary `torch.optim.Optimizer`: every `step` is θ, state ← update(θ, ∇L, state).

    The parameters are one vector θ, in their order. A parameter that is frozen at the start stays outside it.
    A gradient that is None counts as zeros, as in `adapt`, unless all are None: then `step` does nothing.

    In `higher.innerloop_ctx` it is differentiable through φ and θ⁰. There the rule sees the loss that
    `diffopt.step(loss)` is given; here `step(closure)` must return it where the rule `uses_loss`.

    Args:
        params: as `torch.optim` takes them, also `(name, parameter)` pairs; one group, without options.
        rule: made for as many parameters. It is not copied: its φ are where a meta-gradient ends.
        order: what `higher` differentiates through; `"first"` takes gradients and losses for constants.
        clip: bounds the gradient before the rule sees it.

    Raises:
        UsageError: for arguments that do not fit together.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from metalearn_core import LearnedOptimizer, ParameterLayout, make_rule
        >>> network = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(network.weight)
        >>> rule = make_rule("gradient-descent", ParameterLayout.of(network), inner_lr=0.25)
        >>> optimizer = LearnedOptimizer(network.parameters(), rule)
        >>> (network(torch.ones(1, 1)) - 1).square().sum().backward()  # the loss is (θ − 1)²
        >>> optimizer.step()
        >>> network.weight.item()
        0.5
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
        self._example = _example_state(self._stepper(), group["params"])

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
            stepper = self._stepper()
            for parameter, value in zip(params, stepper(params, grads, shown, track=False), strict=True):
                parameter.copy_(value)
            self.state[MEMORY] = stepper.state_dict()  # type: ignore[index]
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
        stepper = self._stepper()
        if stepper.step:
            stepper.state = pytree.tree_map(lambda held: held.detach().clone().to(device), stepper.state)
        return stepper

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` told. UsageError if that was of another rule or other parameters."""
        held = state_dict["state"].get(MEMORY, {})
        others = sorted(str(key) for key in state_dict["state"].keys() - {MEMORY})
        if others:
            raise UsageError(
                f"LearnedOptimizer: the state has entries {', '.join(others[:3])}; it is another optimizer's"
            )
        if held:
            _require_matching_state(held, self.rule, self._example)
        super().load_state_dict(state_dict)
        if held:
            device = self.param_groups[0]["params"][0].device
            memory = [leaf.detach().clone().to(device) for leaf in held["memory"]]
            self.state[MEMORY] = {**held, "memory": memory}  # type: ignore[index]

    def __getstate__(self) -> dict[str, Any]:
        # torch's own leaves out all that it does not know
        own = ("rule", "order", "clip", "layout", "_example")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}

    def _stepper(self) -> RuleStepper:
        stepper = RuleStepper(self.rule, self.layout, self.clip, self.order == "first")
        held = self.state.get(MEMORY)  # type: ignore[call-overload]
        if held:
            stepper.step = held["step"]
            stepper.state = pytree.tree_unflatten(held["memory"], pytree.tree_structure(self._example))
        return stepper


register(LearnedOptimizer)


def _example_state(stepper: RuleStepper, params: Sequence[Tensor]) -> State:
    """What the rule's state looks like, without values, found by a step that changes nothing.

    Raises UsageError for a rule that cannot take it.
    """
    theta = [parameter.detach() for parameter in params]
    try:
        stepper(theta, [None] * len(theta), theta[0].new_zeros(()), track=False)
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, UsageError) and not isinstance(error, RuleError):
            raise
        raise UsageError(
            f"LearnedOptimizer: rule {stepper.rule.label} cannot update these"
            f" {stepper.layout.size} coordinates;"
            f" make it for their layout and dtype ({str(error).strip().splitlines()[0]})"
        ) from error
    return pytree.tree_map(lambda leaf: leaf.to("meta"), stepper.state)


def _require_matching_state(held: dict[str, Any], rule: UpdateRule, example: State) -> None:
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
