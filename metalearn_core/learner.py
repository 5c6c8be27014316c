"""A base-learner: any module seen as a pure function of one flat parameter vector θ."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from metalearn_core.errors import UsageError, require_callables, require_kinds, user_code
from metalearn_core.safeguards.embeddings import mend_embeddings
from metalearn_core.safeguards.locks import CopyableLock
from metalearn_core.safeguards.losses import comparing, one_number, why_loss_failed
from metalearn_core.safeguards.modules import refuse_unusable_modules
from metalearn_core.safeguards.writes import (
    nothing_written,
    versions,
    why_forward_failed,
    writes_to_buffers,
    written,
)
from metalearn_core.task import Batch, Task
from metalearn_core.training.parameters import ParameterLayout, forked_rng, reset_every_parameter
from metalearn_core.trees import over_first_axis

Criterion = Callable[[Any, Any], Tensor]


def one_line_repr(thing: object) -> str:
    """Its representation in one line, the same in every process: nothing by its address."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(repr(thing).split()))


class BaseLearner:
    """Any `nn.Module` as a pure function of θ ∈ Rⁿ, its trainable parameters in one vector.

    Frozen parameters (`requires_grad=False`) and buffers are constants: to adapt the head alone, freeze the
    rest. The module is copied and never written to.

    A module may judge a query set in the light of the support set, as batch norm with the statistics of the
    support set does. It then has an attribute `uses_support = True` and is called as
    `module(query inputs, support inputs)`; on a support set itself it is called as `module(inputs)`.

    It may be extended: `loss`, `score`, `support_loss` and `context` are for subclasses to override. What
    calls the `loss` of this class heeds the mask of a batch; what does not must heed it itself. Every copy,
    on another device or over another module, keeps the subclass and what it holds.

    Args:
        module: the network.
        loss: `loss(prediction, target) -> []`, a mean over all elements. It gets what the module returns,
            a dict or a tuple as it is. Of a batch with a mask it is taken example by example.
        score: `score(prediction, target) -> []`, what results are reported in; by default the loss.
            Higher is better unless it has an attribute `higher_is_better = False`, or is the loss.
        initialise: `initialise(module)` draws new parameters in place; by default every
            `reset_parameters`, so a pretrained network is drawn anew: `initialise=keep_parameters` keeps
            it. A parameter that neither touches keeps its value.

    Raises:
        UsageError: for a module that answers differently every time, such as dropout or a norm that updates
            running statistics, and for one that cannot be copied.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from metalearn_core import BaseLearner, Batch
        >>> learner = BaseLearner(nn.Linear(2, 1), nn.functional.mse_loss)
        >>> theta = torch.tensor([1.0, 2.0, 0.5])  # the weight, then the bias
        >>> learner.predict(theta, torch.tensor([[1.0, 1.0]])).tolist()
        [[3.5]]
        >>> learner.loss(theta, Batch(torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0]]))).item()
        0.25
    """

    use_vmap: bool = True
    """Whether the tasks of a meta-batch are computed at once; set to False, one after the other, which is
    slower. It becomes False by itself, with a warning, for modules that torch cannot batch."""

    check_first_batch: bool = True
    """Whether a few tasks of the first meta-batch are compared with each of them alone, before it is used."""

    def __init__(
        self,
        module: nn.Module,
        loss: Criterion,
        score: Criterion | None = None,
        initialise: Callable[[nn.Module], None] | None = None,
    ) -> None:
        require_kinds("BaseLearner", module=(module, nn.Module))
        require_callables("BaseLearner", loss=loss)
        require_callables("BaseLearner", optional=True, score=score, initialise=initialise)
        self._take(module)
        self._loss, self._score = loss, score or loss
        its_own = self._score is not loss
        self.higher_is_better = its_own and bool(getattr(score, "higher_is_better", True))
        self.score_name = str(getattr(self._score, "__name__", type(self._score).__name__))
        self._initialise = initialise or reset_every_parameter

    def _take(self, module: nn.Module) -> None:
        """Copy the module, and keep all that follows from it."""
        refuse_unusable_modules(module)
        self._lock = CopyableLock()
        self.checked: set[object] = set()  # what has been compared
        with user_code(f"BaseLearner: {type(module).__name__}", "a copy of it"):
            self.module = copy.deepcopy(module)
        mend_embeddings(self.module)
        self.layout = ParameterLayout.of(self.module)
        self.uses_support = bool(getattr(self.module, "uses_support", False))
        self.constants = {
            name: tensor.detach()
            for name, tensor in (*self.module.named_parameters(), *self.module.named_buffers())
            if name not in self.layout.names
        }

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """The same learner on another device, or of another floating-point dtype.

        Its loss and score, and what a subclass holds, move with it where they are tensors or modules.
        """
        with self._lock.held():
            moved = self.with_module(copy.deepcopy(self.module).to(device=device, dtype=dtype))
        followed = {name: value for name, value in vars(self).items() if name not in _OF_THE_MODULE}
        vars(moved).update({name: _moved(value, device, dtype) for name, value in followed.items()})
        return moved

    def with_module(self, module: nn.Module) -> Self:
        """The same learner, with all that a subclass adds to it, over another module."""
        copied = copy.copy(self)
        copied._take(module)
        return copied

    @property
    def device(self) -> torch.device:
        """Where the module lives; the CPU if it has no parameter."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The type of θ: that of what is adapted, else of what is frozen."""
        parts = sorted(self.module.parameters(), key=lambda p: not p.requires_grad)
        return parts[0].dtype if parts else torch.get_default_dtype()

    @property
    def who(self) -> str:
        """What messages call it."""
        return f"base-learner {type(self.module).__name__}"

    def describe(self) -> str:
        """Module, loss and score in one line."""
        loss = getattr(self._loss, "__name__", None) or one_line_repr(self._loss)
        return f"{one_line_repr(self.module)} under {loss}, scored by {self.score_name}"

    def initial(self, generator: torch.Generator) -> Tensor:
        """Draw θ⁰, `[n]`: on a CPU copy, so that a seed means the same on every device."""
        require_kinds(self.who, generator=(generator, torch.Generator))
        with self._lock.held():
            fresh = copy.deepcopy(self.module).cpu()
        with forked_rng(generator), user_code(self.who, "initialise"):
            self._initialise(fresh)
        parameters = dict(fresh.named_parameters())
        chosen = {name: parameters[name].detach() for name in self.layout.names}
        return self.layout.flatten(chosen).to(self.device)

    def module_at(self, theta: Tensor) -> nn.Module:
        """A copy of the module whose trainable parameters are those of θ, `[n]`."""
        with self._lock.held():
            module = copy.deepcopy(self.module)
        parameters = dict(module.named_parameters())
        with torch.no_grad():
            for name, value in self.layout.unflatten(theta).items():
                parameters[name].copy_(value)
        return module

    def context(self, task: Task) -> tuple[Any, ...]:
        """What a query set of `task` is judged in the light of: the support inputs, or nothing.

        What it returns are further arguments of `loss` and `score`, tensors or pytrees of them, which lead
        with `[tasks]` where the task is stacked; each task gets its own.
        """
        require_kinds(self.who, task=(task, Task))
        return (task.support.inputs,) if self.uses_support else ()

    def predict(self, theta: Tensor, inputs: Any, support: Any = None) -> Any:
        """The module's output for `inputs` with parameters θ, `[n]`: a tensor, or what it returns.

        `support`: inputs of the support set, where `inputs` are others and the module uses them; or None.
        """
        parameters = {**self.layout.unflatten(theta), **self.constants}
        given = (inputs, support) if self.uses_support and support is not None else (inputs,)
        before, held, seen = versions(self.constants), self.constants, _named("inputs", inputs)
        with user_code(
            self.who, "forward", lambda error: why_forward_failed(theta.dtype, inputs, held, before, error)
        ), nothing_written(self.who, parameters=theta, **seen), self._lock.held():  # fmt: skip
            # the module holds the parameters of a call while it lasts: one thread at a time
            output = functional_call(self.module, parameters, given)
        if names := written(held, before):
            raise UsageError(f"{self.who}: forward failed: {writes_to_buffers(names)}")
        return output

    def loss(self, theta: Tensor, batch: Batch, support: Any = None) -> Tensor:
        """Mean loss of θ, `[n]`, on a batch: `[]`; `support` as in `predict`."""
        require_kinds(self.who, batch=(batch, Batch))
        return self._scalar("loss", self._loss, self.predict(theta, batch.inputs, support), batch)

    def support_loss(self, theta: Tensor, batch: Batch, step: int) -> Tensor:
        """What is lowered on a support set in inner step t, from 0: `[]`; by default the loss.

        An override may add what the query set is not judged by, such as a penalty or another target.
        """
        return self.loss(theta, batch)

    @property
    def has_support_loss(self) -> bool:
        """Whether support sets have a loss of their own: whether `support_loss` is overridden."""
        return type(self).support_loss is not BaseLearner.support_loss

    def score(self, theta: Tensor, batch: Batch, support: Any = None) -> Tensor:
        """Score of θ, `[n]`, on a batch: `[]`; see `higher_is_better`, and `predict` for `support`."""
        require_kinds(self.who, batch=(batch, Batch))
        return self._scalar("score", self._score, self.predict(theta, batch.inputs, support), batch)

    def _scalar(self, name: str, criterion: Criterion, prediction: Any, batch: Batch) -> Tensor:
        targets = batch.targets

        def why(error: Exception) -> str:
            return why_loss_failed(prediction, targets, error)

        with user_code(self.who, name, why), comparing(prediction, targets):
            if batch.mask is None:
                value = criterion(prediction, targets)
            else:
                value = _mean_of_examples(criterion, prediction, targets, batch.mask, at_once=self.use_vmap)
        value = one_number("BaseLearner", name, value)
        if name == "loss" and not value.is_floating_point():
            raise UsageError(f"BaseLearner: loss must return a floating-point number, got {value.dtype}")
        return value


def _named(name: str, tree: Any) -> dict[str, Any]:
    """A tensor by this name, or each leaf of a pytree by the name and its place."""
    if isinstance(tree, Tensor):
        return {name: tree}
    return {f"{name}{pytree.keystr(path)}": x for path, x in pytree.tree_flatten_with_path(tree)[0]}


def _mean_of_examples(
    criterion: Criterion, prediction: Any, targets: Any, mask: Tensor, *, at_once: bool
) -> Tensor:
    """The mean of a criterion over the examples that are there, each a batch of one."""

    def of_one(*own: Any) -> Tensor:
        value = criterion(*pytree.tree_map_only(Tensor, lambda x: x.unsqueeze(0), own))
        return torch.as_tensor(value)

    values = over_first_axis(of_one, at_once=at_once)(prediction, targets)
    values = values if values.is_floating_point() else values.to(torch.get_default_dtype())
    return torch.where(mask, values, 0).sum() / mask.sum()


_OF_THE_MODULE = ("module", "layout", "uses_support", "constants", "checked", "_lock")
"""What `_take` finds; all else that a learner holds is kept by its copies."""


def _moved(value: Any, device: torch.device | str, dtype: torch.dtype | None) -> Any:
    """A tensor or a module on another device, or of another floating-point dtype; all else as it is."""
    if isinstance(value, nn.Module):
        return copy.deepcopy(value).to(device=device, dtype=dtype)
    if isinstance(value, Tensor):
        return value.to(device, dtype if value.is_floating_point() else None)
    return value
