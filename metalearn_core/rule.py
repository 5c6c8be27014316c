"""An update rule: what turns a support gradient into the next parameters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metalearn_core.errors import UsageError, require_kinds
from metalearn_core.signal import Signal, SupportSet
from metalearn_core.training.parameters import ParameterLayout
from metalearn_core.trees import shapes_of

State: TypeAlias = Any
"""Tensors in tuples, named tuples or dicts; `()` for a rule without memory."""


class UpdateRule(nn.Module, ABC):
    """θ⁽ᵗ⁺¹⁾, state = update(θ⁽ᵗ⁾, signal, state), written for one task and one vector (Algorithm 9, line 8).

    Its `nn.Parameter`s are the meta-parameters φ. `update` must be pure: it reads its arguments and
    its parameters, writes nothing, draws no random numbers, does not branch on the value of a tensor, and
    returns a state of the structure that it was given. The core batches it over tasks, decides the
    order of differentiation, and clips. An instance may set its class variables where an option decides.

    Class variables:
        uses_loss: it reads `signal.loss`.
        uses_step: it reads `signal.step` or `signal.steps`.
        uses_support: it reads `signal.support`; it is then called for one task at a time, never on a stack.
            `start` has its support set without it.
        uses_noise: it reads `signal.noise`, of the class and not of an instance. Such a rule has a frozen
            parameter `noise_seed`, which `meta_train` draws for each seed.
        elementwise: each coordinate is updated by itself, and the code takes leading axes: it is
            called once on the stack `[tasks, n]` instead of under `vmap`.
        coordinatewise: the same function for every coordinate, so permuting θ permutes the result.
        starts_as_descent: as it is made, it is θ ← θ − αg, with one α > 0.
        check_first_update: an elementwise rule is compared on a few tasks together with each alone, before
            it is used; False leaves that out.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from metalearn_core import BaseLearner, Batch, UpdateRule, adapt
        >>> class Momentum(UpdateRule):
        ...     elementwise = True
        ...
        ...     def __init__(self, layout, inner_lr=0.25, beta=0.5):
        ...         super().__init__()
        ...         self.inner_lr, self.beta = inner_lr, nn.Parameter(torch.tensor(beta))
        ...
        ...     def init_state(self, theta):
        ...         return torch.zeros_like(theta)
        ...
        ...     def update(self, theta, signal, velocity):
        ...         velocity = self.beta * velocity + signal.grad
        ...         return theta - self.inner_lr * velocity, velocity
        >>> learner = BaseLearner(nn.Linear(1, 1, bias=False), nn.functional.mse_loss)
        >>> support = Batch(torch.ones(1, 1), torch.ones(1, 1))  # the loss is (θ − 1)²
        >>> adapt(Momentum(learner.layout), learner, torch.zeros(1), support, steps=2).tolist()
        [1.0]
    """

    api_version: ClassVar[int] = 1
    uses_loss: bool = False
    uses_step: bool = False
    uses_support: bool = False
    uses_noise: bool = False
    elementwise: bool = False
    coordinatewise: bool = False
    starts_as_descent: bool = False
    check_first_update: bool = True

    def __init__(self) -> None:
        super().__init__()
        if self.uses_noise:
            # among the parameters, so that seeds, checkpoints and files have it without being told
            self.noise_seed = nn.Parameter(torch.zeros((), dtype=torch.int64), requires_grad=False)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note the layout among the arguments, whatever `__init__` does with it."""
        rule = super().__new__(cls)
        layouts = [given for given in (*args, *kwargs.values()) if isinstance(given, ParameterLayout)]
        rule.__dict__["_made_for"] = layouts[0] if layouts else None
        return rule

    @property
    def made_for(self) -> ParameterLayout | None:
        """The layout that it was made for, where that is known: the order of θ's parameters."""
        layout: ParameterLayout | None = self.__dict__.get("_made_for")
        return layout

    @property
    def seed_of_noise(self) -> Tensor | int:
        """What noise depends on beside task and step: `noise_seed`, of the rule or of one inside it."""
        found = (part._parameters.get("noise_seed") for part in self.modules())
        return next((seed for seed in found if seed is not None), 0)

    @property
    def has_start(self) -> bool:
        """Whether it begins a task elsewhere than at θ⁰: whether `start` is its own."""
        return type(self).start is not UpdateRule.start

    def start(self, theta: Tensor, support: SupportSet) -> Tensor:
        """θ⁽⁰⁾ of one task, `[n]`, from θ⁰ and its support set: once for each task, before `init_state`.

        By default θ⁰ itself. It is written for one task, whatever the rule declares, and meta-gradients go
        through it under both orders.
        """
        return theta

    def init_state(self, theta: Tensor) -> State:
        """The state at t = 0 for θ of shape `[n]` (`[tasks, n]` if elementwise)."""
        return ()

    @abstractmethod
    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        """The next θ, of the same shape and dtype, and the next state, of the same structure."""

    def forward(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        """`update`, so that `torch.func.functional_call` reaches it with another φ."""
        return self.update(theta, signal, state)

    @property
    def label(self) -> str:
        """Class and module, for messages."""
        return f"{type(self).__name__} ({type(self).__module__})"


@contextmanager
def parameters_as(module: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """The module with other tensors in the places of its parameters; a shared one has several places."""
    tables: list[dict[str, Any]] = [part._parameters for part in module.modules()]
    meant = {}
    for name, value in values.items():
        path, _, leaf = name.rpartition(".")
        meant[id(module.get_submodule(path)._parameters[leaf])] = value
    places = [(table, leaf, p) for table in tables for leaf, p in table.items() if id(p) in meant]
    for table, leaf, parameter in places:
        table[leaf] = meant[id(parameter)]
    try:
        yield
    finally:
        for table, leaf, parameter in places:
            table[leaf] = parameter


def log_and_sign(x: Tensor, p: float = 10.0) -> list[Tensor]:
    """Make gradients of all magnitudes readable for a network (Andrychowicz et al., 2016, Appendix A).

    The two columns are (log|x|/p, sign x) where |x| >= e⁻ᵖ, else (−1, eᵖx).

    Args:
        x: gradients, of any shape.
        p: the smaller the magnitudes that matter, the larger it is.

    Returns:
        Two columns, each in the shape of x.

    Example:
        >>> import torch
        >>> from metalearn_core import log_and_sign
        >>> magnitude, sign = log_and_sign(torch.tensor([1.0, -1.0, 0.0]))
        >>> magnitude.tolist(), sign.tolist()
        ([0.0, 0.0, -1.0], [1.0, -1.0, 0.0])
    """
    require_kinds("log_and_sign", x=(x, Tensor))
    if type(p) not in (int, float) or not 0 < p < math.inf:
        raise UsageError(f"log_and_sign: p must be a number > 0, got {p!r:.60}")
    threshold = math.exp(-p)
    large = x.abs() >= threshold
    # the clamp keeps the branch not taken, and so its gradient, finite at x = 0
    logarithm = torch.where(large, x.abs().clamp(min=threshold).log() / p, -torch.ones_like(x))
    return [logarithm, torch.where(large, x.sign(), x / threshold)]


def require_contract(rule: UpdateRule, given: object, answer: object) -> None:
    """UsageError unless (θ, state) comes back in the structure, shapes and dtypes it was given in."""
    (old, before), (new, after) = pytree.tree_flatten(given), pytree.tree_flatten(answer)
    if before != after:
        alone = "a tensor alone; write `return theta, state`" if isinstance(answer, Tensor) else None
        raise UsageError(
            f"rule {rule.label}: update must return (theta, state) as it was given them:"
            f" {shapes_of(given)}; it returned {alone or shapes_of(answer)}"
        )
    require_tensors(rule, "update", "θ", new[:1])
    require_tensors(rule, "update", "the state", new[1:])
    for index, (was, now) in enumerate(zip(old, new, strict=True)):
        if (was.shape, was.dtype) != (now.shape, now.dtype):
            raise UsageError(
                f"rule {rule.label}: update was given {'a state tensor' if index else 'θ'} of shape"
                f" {tuple(was.shape)} and {was.dtype}, and returned {tuple(now.shape)} and {now.dtype}"
            )


def require_tensors(rule: UpdateRule, method: str, what: str, leaves: Sequence[object]) -> None:
    """UsageError for the first leaf of `what`, which `method` returned, that is no tensor."""
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise UsageError(
                f"rule {rule.label}: {what} that {method} returns must be made of tensors, got {leaf!r:.60}"
            )
