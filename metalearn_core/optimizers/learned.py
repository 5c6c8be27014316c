"""An update rule as an ordinary `torch.optim.Optimizer`, which `higher` knows as well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, _disable_dynamo  # type: ignore[attr-defined]
from torch.utils import _pytree as pytree

from metalearn_core.errors import UsageError, unknown
from metalearn_core.optimizers.differentiable import Advance, register
from metalearn_core.optimizers.groups import require_made_for, require_one_kind, require_options
from metalearn_core.optimizers.state_by_parameter import (
    STEP,
    Entry,
    SavedState,
    grown_state,
    joined_state,
    memory_name,
    split_state,
)
from metalearn_core.optimizers.stepping import RuleStepper, example_state
from metalearn_core.rule import State, UpdateRule
from metalearn_core.settings import ORDERS, Clipping, Order
from metalearn_core.training.parameters import ParameterLayout
from metalearn_core.training.processes import mean_over_replicas

OWN = ("rule", "order", "clip", "process_group", "layout", "_members", "_rates_of", "_example")
"""The attributes that a copy has beside torch's own."""


class LearnedOptimizer(torch.optim.Optimizer):
    """An update rule as an ordinary `torch.optim.Optimizer`: θ ← θ + lr (θ′ − θ).

    Here θ′ is the rule's own answer: θ′, state ← update(θ, ∇L, state).
    The parameters of all groups are one vector θ, in their order; a rule that depends on its layout must have
    been made for this order. A frozen parameter stays outside θ; when it is unfrozen, or a group is added, it
    joins with a state of its own where the rule is `coordinatewise` or has taken no step, and is refused
    elsewhere. One that is frozen later no longer moves. A gradient that is None counts as zeros, as in
    `adapt`, unless all are None: then `step` does nothing.

    In `higher.innerloop_ctx` it is differentiable through φ and θ⁰. There the rule sees the loss that
    `diffopt.step(loss)` is given.

    Args:
        params: as `torch.optim` takes them, also `(name, parameter)` pairs or groups, each with its own `lr`.
        rule: made for as many parameters. It is not copied: its φ are where a meta-gradient ends.
        lr: the factor on the rule's step, >= 0; what schedulers move.
        order: what `higher` differentiates through; `"first"` takes gradients and losses for constants.
        clip: bounds the gradient before the rule sees it.
        process_group: the replicas over which the loss that a rule reads is averaged, as DDP averages
            gradients; None: all processes, where torch.distributed is initialised.

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

    _pending: RuleStepper | None = None
    """What took the last step, while its state is not yet in `state`."""
    _cache: tuple[State, list[Entry]] | None = None
    """The rule's state, and what was made of it in `state`."""

    def __init__(
        self,
        params: Iterable[Any],
        rule: UpdateRule,
        *,
        lr: float | Tensor = 1.0,
        order: Order = "second",
        clip: Clipping | None = None,
        process_group: Any = None,
    ) -> None:
        if not isinstance(rule, UpdateRule):
            raise UsageError(f"LearnedOptimizer: expected an UpdateRule, got a {type(rule).__name__}")
        if rule.uses_support or rule.has_start:
            raise UsageError(
                f"LearnedOptimizer: rule {rule.label} reads the support set of a task, and an optimizer has"
                " none; use adapt or meta_train"
            )
        if order not in ORDERS:
            raise unknown("order", str(order), ORDERS)
        require_options({"lr": lr})
        self.rule, self.order, self.clip, self.process_group = rule, order, clip, process_group
        self._members: list[Tensor] = []
        self._held: set[int] = set()
        super().__init__(params, {"lr": lr})
        self._lay_out()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take one more group. UsageError for options that nothing reads, and where θ cannot grow."""
        if isinstance(param_group, dict):
            require_options(param_group)
        super().add_param_group(param_group)
        if self._members:  # not while the first groups are taken
            try:
                self._lay_out()
            except UsageError:
                self.param_groups.pop()
                raise

    # a whole step is left out of compiled programs: what a rule does was not written for their tracer
    @_disable_dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | Any = None, loss: Any = None) -> Any:
        """Update the parameters from their gradients; returns the loss, if there is one.

        Args:
            closure: clears the gradients, computes the loss and its gradients, and returns the loss. Or the
                loss itself, where the gradients are there already.
            loss: the loss, as another way of giving it.

        Raises:
            UsageError: where the rule reads the loss and there is none.
        """
        if callable(closure):
            with torch.enable_grad():
                loss = closure()
        elif closure is not None:
            loss = closure
        self._take_in_unfrozen()
        grads = [parameter.grad for parameter in self._members]
        if self._only_allocates(grads, loss):
            stepper = self._stepper()
            stepper.start(self._members)
            self._pending = stepper
            return loss
        shown = self._shown_loss(loss)
        if any(grad is not None for grad in grads):
            stepper = self._stepper()
            values = stepper(self._members, grads, shown, track=False)
            for parameter, value in zip(self._members, values, strict=True):
                if parameter.requires_grad and value is not parameter:
                    parameter.copy_(value)
            self._pending = stepper
        return loss

    def _only_allocates(self, grads: Sequence[Tensor | None], loss: Any) -> bool:
        """Whether nothing can move: torch.distributed.checkpoint makes a state by such a step."""
        if self._pending is not None or loss is not None or any(group["lr"] for group in self.param_groups):
            return False
        if self.state:
            return False
        return all(grad is not None and not grad.any() for grad in grads)

    def _shown_loss(self, loss: Any) -> Tensor:
        """The loss as the rule sees it, `[]`: the mean over replicas; zero where it does not look."""
        like = self._members[0]
        if not self.rule.uses_loss:
            return like.new_zeros(())
        if loss is None:
            raise UsageError(
                f"LearnedOptimizer: rule {self.rule.label} reads the loss; call step(closure) with a closure"
                " that returns it, or step(loss)"
            )
        shown = torch.as_tensor(loss, dtype=like.dtype, device=like.device)
        if shown.numel() != 1:
            raise UsageError(
                f"LearnedOptimizer: the closure must return one number, got shape {tuple(shown.shape)}"
            )
        return mean_over_replicas(shown.detach().reshape(()), self.process_group)

    def unrolled(self, device: torch.device | None) -> tuple[Advance, list[int]]:
        """Its further steps as a function that `higher` can differentiate; its own state stays as it is.

        Returns:
            The function, and the places of θ's parameters among those of all groups.
        """
        stepper = attrs.evolve(self._stepper())
        if stepper.step:
            stepper.state = pytree.tree_map(lambda held: held.detach().clone().to(device), stepper.state)
        everything = [parameter for group in self.param_groups for parameter in group["params"]]
        places = {id(parameter): place for place, parameter in reversed(list(enumerate(everything)))}
        return stepper, [places[id(parameter)] for parameter in self._members]

    # --- the vector

    def _take_in_unfrozen(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad and id(parameter) not in self._held:
                    return self._lay_out()

    def _lay_out(self) -> None:
        """Put all that requires a gradient into θ; what is in it stays. UsageError where the rule cannot."""
        members: dict[Tensor, tuple[str, int]] = {}
        places = iter(range(sum(len(group["params"]) for group in self.param_groups)))
        for number, group in enumerate(self.param_groups):
            names = group.get("param_names") or [None] * len(group["params"])
            for name, parameter, place in zip(names, group["params"], places, strict=False):
                if parameter.requires_grad or id(parameter) in self._held:
                    members.setdefault(parameter, (str(place if name is None else name), number))
        params = list(members)
        require_one_kind(params)
        names = tuple(name for name, _ in members.values())
        if len(set(names)) < len(names):
            raise UsageError(f"LearnedOptimizer: two parameters have one name, of {', '.join(names)}")
        layout = ParameterLayout(names, tuple(tuple(p.shape) for p in params))
        stepper = RuleStepper(self.rule, layout, self.clip, self.order == "first", [1.0] * len(params))
        example = example_state(stepper, params)
        require_made_for(self.rule, layout, named=self._named)
        if self.state and len(params) > len(self._held):
            self._grow(params, layout, example)
        self.layout, self._members, self._example = layout, params, example
        self._rates_of = [number for _, number in members.values()]
        self._held = set(map(id, params))
        self._cache = None

    @property
    def _named(self) -> bool:
        return "param_names" in self.param_groups[0]

    def _grow(self, params: list[Tensor], layout: ParameterLayout, example: State) -> None:
        """Give new parameters of θ a state that begins afresh."""
        if not self.rule.coordinatewise:
            raise UsageError(
                f"LearnedOptimizer: rule {self.rule.label} has begun with {len(self._members)} parameters and"
                f" cannot go on with {len(params)}: it is not coordinatewise; make another optimizer"
            )
        stepper = RuleStepper(self.rule, layout, self.clip, True)
        stepper.start(params)
        leaves = pytree.tree_leaves(stepper.state)
        pairs = zip(pytree.tree_leaves(self._example), leaves, strict=True)
        whole = [memory_name(i) for i, (old, new) in enumerate(pairs) if old.shape == new.shape]
        fresh = dict(zip(params, split_state(leaves, layout), strict=True))
        taken = self.state[self._members[0]][STEP]
        for parameter, entry in grown_state({p: self.state[p] for p in self._members}, fresh, whole).items():
            self.state[parameter] = {STEP: taken, **entry}

    # --- the state

    def _rates(self) -> list[float]:
        """`lr` of each parameter of θ."""
        rates = [float(group["lr"]) for group in self.param_groups]
        return [rates[number] for number in self._rates_of]

    def _stepper(self) -> RuleStepper:
        """What takes the next step, from where the last one ended or from what `self.state` has been made."""
        if self._pending is not None:
            self._pending.rates = self._rates()
            return self._pending
        stepper = RuleStepper(self.rule, self.layout, self.clip, self.order == "first", self._rates())
        if not self.state:
            return stepper
        entries: list[Entry] = [self.state.get(parameter) or {} for parameter in self._members]
        if not all(STEP in entry for entry in entries):
            raise UsageError(
                "LearnedOptimizer: its state lacks parameters; clear it whole, or load a whole one"
            )
        stepper.step = int(entries[0][STEP])
        if self._cache is not None and all(
            entry.get(name) is held for entry, kept in zip(entries, self._cache[1], strict=True)
            for name, held in kept.items()
        ):  # fmt: skip
            stepper.state = self._cache[0]
        else:
            leaves, structure = pytree.tree_flatten(self._example)
            stepper.state = pytree.tree_unflatten(joined_state(entries, self.layout, leaves), structure)
        return stepper

    @property  # type: ignore[override]
    def state(self) -> dict[Tensor, Entry]:
        """The state by parameter, as torch has it; what steps have left is written when somebody looks."""
        held: dict[Tensor, Entry] = self.__dict__["state"]
        if self._pending is not None:
            stepper, self._pending = self._pending, None
            entries = split_state(pytree.tree_leaves(stepper.state), self.layout)
            for parameter, entry in zip(self._members, entries, strict=True):
                held[parameter].update({STEP: stepper.step, **entry})
            self._cache = stepper.state, entries
        return held

    @state.setter
    def state(self, value: dict[Tensor, Entry]) -> None:
        self.__dict__["state"], self._pending = value, None

    def state_dict(self) -> dict[str, Any]:
        """As torch has it; beside it, under `rule`, whose state this is, and of which parameters."""
        told = {
            "label": self.rule.label, "named": self._named,
            "names": list(self.layout.names), "shapes": [list(shape) for shape in self.layout.shapes],
        }  # fmt: skip
        return {**super().state_dict(), "rule": told}

    @_disable_dynamo
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` told. UsageError if that was of another rule or other parameters."""
        learns = [
            [id(parameter) in self._held for parameter in group["params"]] for group in self.param_groups
        ]
        example, options = pytree.tree_leaves(self._example), [set(group) for group in self.param_groups]
        saved = SavedState(self.rule, self.layout, example, learns, self._named, options)
        # torch casts what it loads to the parameter's dtype, integers too
        before = self.register_load_state_dict_pre_hook(lambda _, given: saved.read(given))
        after = self.register_load_state_dict_post_hook(lambda _: self._take(saved.entries), prepend=True)
        try:
            super().load_state_dict(dict(state_dict))
        finally:
            before.remove()
            after.remove()

    def _take(self, entries: Sequence[Entry]) -> None:
        for parameter, entry in zip(self._members, entries, strict=False):
            if entry:
                self.state[parameter] = {
                    key: value.detach().clone().to(parameter.device) if isinstance(value, Tensor) else value
                    for key, value in entry.items()
                }

    def __getstate__(self) -> dict[str, Any]:
        if self.process_group is not None:
            raise UsageError(
                "LearnedOptimizer: one with a process_group cannot be copied; copy its state_dict"
            )
        # torch's own leaves out all that it does not know
        return {**super().__getstate__(), **{name: getattr(self, name) for name in OWN}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "layout" in state and "_members" not in state:
            raise UsageError("LearnedOptimizer: pickled by version 0.1; load the state_dict of it instead")
        self._pending = self._cache = None
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)  # torch's, which a group added later would show
        self._held = set(map(id, self._members))


register(LearnedOptimizer)
