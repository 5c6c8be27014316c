"""The meta-step as one compiled program: all tasks, all inner steps, the inner and the outer gradients.

What is traced is the eager meta-step itself, with `higher`'s differentiable optimiser in it, so that what a
meta-step is stands in one place. Inductor writes kernels for the whole; Python, autograd and `higher` cost
nothing when it runs. There is one program for each shape; kernels are cached on disk by Inductor.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from metalearn_core.errors import UsageError, describe_error, require_count, require_kinds
from metalearn_core.inner_loop import require_unroll
from metalearn_core.kernels.by_steps import BySteps, Function, is_recomputed
from metalearn_core.kernels.coordinatewise import fused_networks
from metalearn_core.kernels.operators import shims
from metalearn_core.kernels.products import arrange
from metalearn_core.kernels.sources import quick_compiler
from metalearn_core.learner import BaseLearner
from metalearn_core.many_steps.calls import Entry
from metalearn_core.many_steps.entries import entry_of
from metalearn_core.rule import UpdateRule, parameters_as
from metalearn_core.safeguards.same_alone import check_first_batch
from metalearn_core.safeguards.stacked_rule import check_first_update
from metalearn_core.settings import Clipping, Order
from metalearn_core.task import Task
from metalearn_core.training.meta_gradient import meta_gradient

Program = Callable[..., Sequence[Tensor]]


class CompilationError(Exception):
    """A rule or a learner that cannot be traced or compiled; its text says why, in one line."""


class Programs:
    """Functions of tensors, each compiled once for each name and shape of its arguments.

    `before`: called before each is compiled, which takes seconds; what it raises passes.
    """

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self._made: dict[object, Program] = {}
        self._entries: dict[object, Entry | None] = {}
        self._before = before

    def __call__(
        self, name: str, function: Function, arguments: Sequence[Tensor], *, eager_first: bool = True
    ) -> Sequence[Tensor]:
        """What the function returns. Raises CompilationError, if so when a name or a shape is new."""
        arguments = [x.contiguous() for x in arguments]  # a program is about strides too
        known = _known(name, arguments)
        with torch.no_grad():
            if known not in self._made:
                self._before()
                self._made[known] = compiled(function, arguments, eager_first=eager_first)
            return self._made[known](*arguments)

    def entry(self, name: str, arguments: Sequence[Tensor]) -> Entry | None:
        """The C++ function behind a program that was made, for such arguments; None where there is none."""
        known = _known(name, arguments)
        if known not in self._entries:
            program = self._made.get(known)
            with torch.no_grad():
                self._entries[known] = None if program is None else entry_of(program, arguments)
        return self._entries[known]

    def __len__(self) -> int:
        return len(self._made)


def _known(name: str, arguments: Sequence[Tensor]) -> object:
    """What a program is found again by."""
    return name, tuple((x.shape, x.dtype, x.device) for x in arguments)


class CompiledMetaGradient:
    """`meta_gradient` of one rule and learner, compiled once for each shape of its arguments.

    Up to 16 inner steps are one program. A longer unroll is one program for a step and one for its way back.

    Args:
        rule: the update rule. Its φ is read at every call, so a program depends on its shape, not its values.
        learner: the base-learner.
        steps: T, at least 0.
        order: as in `meta_gradient`.
        clip: as in `meta_gradient`.
        checkpoint_every: as in `Settings`.
        truncate: as in `meta_gradient`.
        outer_decay: as in `meta_gradient`.

    Raises:
        UsageError: for an unroll that does not exist, such as one of −1 steps.

    Example:
        >>> import torch
        >>> from metalearn_core import CompiledMetaGradient, make_rule
        >>> from metalearn_core.testing import TinySines, tiny_learner
        >>> learner = tiny_learner()
        >>> rule = make_rule("gradient-descent", learner.layout)
        >>> compiled = CompiledMetaGradient(rule, learner, steps=5)
        >>> task = TinySines().sample("train", 4, torch.Generator().manual_seed(0))
        >>> theta = learner.initial(torch.Generator().manual_seed(0))
        >>> loss, grad, of_phi = compiled(theta, task)  # doctest: +SKIP
        >>> compiled = CompiledMetaGradient(rule, learner, steps=-1)
        Traceback (most recent call last):
        metalearn_core.errors.UsageError: adapt: steps must be an integer >= 0, got -1
    """

    def __init__(
        self, rule: UpdateRule, learner: BaseLearner,
        *, steps: int, order: Order = "second", clip: Clipping | None = None,
        checkpoint_every: int | None = None, truncate: int | None = None, outer_decay: float | None = None,
    ) -> None:  # fmt: skip
        require_kinds("CompiledMetaGradient", rule=(rule, UpdateRule), learner=(learner, BaseLearner))
        require_kinds("CompiledMetaGradient", clip=(clip, (Clipping, NoneType)))
        if checkpoint_every is not None:
            require_count("CompiledMetaGradient", "checkpoint_every", checkpoint_every, 1)
        require_unroll(steps, order, truncate, outer_decay)
        self._rule, self._learner, self._every = rule, learner, checkpoint_every
        self._settings: dict[str, Any] = {
            "steps": steps, "order": order, "clip": clip, "truncate": truncate, "outer_decay": outer_decay,
        }  # fmt: skip
        self._programs = Programs()

    def __call__(self, theta: Tensor, task: Task) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Loss `[]`, its gradient for θ⁰ and every φ; beyond 16 inner steps θ⁰ is `[n]`.

        Raises CompilationError, if so when a shape is new, and UsageError for another θ⁰.
        """
        require_kinds("CompiledMetaGradient", theta=(theta, Tensor), task=(task, Task))
        task = task if task.stacked else Task.stack([task])
        order = 2 if self._settings["order"] == "second" else 1
        check_first_batch(self._learner, theta, task.support, what="support", derivatives=order)
        context = self._learner.context(task)
        check_first_batch(self._learner, theta, task.query, *context, derivatives=1)
        check_first_update(self._rule, theta, len(task), self._settings["steps"])
        phi = {name: parameter.detach() for name, parameter in self._rule.named_parameters()}
        if is_recomputed(self._settings["steps"], self._every):
            require_one_step_for_all(self._rule, self._learner)
            if theta.shape != (self._learner.layout.size,):
                wanted = f"[{self._learner.layout.size}] where steps are taken one by one"
                raise UsageError(f"CompiledMetaGradient: theta must be {wanted}, got {list(theta.shape)}")
            by_steps = BySteps(
                self._rule, self._learner, **self._settings,
                checkpoint_every=self._every, run=self._programs,
            )  # fmt: skip
            return by_steps(theta, phi, task)
        arguments = [theta.detach(), *phi.values(), *task.tensors]
        traced = functools.partial(self._traced, task)
        loss, grad, *grads = self._programs("all" + task.structure, traced, arguments)
        return loss, grad, dict(zip(phi, grads, strict=True))

    def _traced(self, like: Task, theta: Tensor, *rest: Tensor) -> list[Tensor]:
        """The eager meta-step as a function of tensors alone."""
        learned = dict(self._rule.named_parameters())
        values = {
            name: given.detach().requires_grad_(parameter.requires_grad)
            for (name, parameter), given in zip(learned.items(), rest, strict=False)
        }
        task = like.like(rest[len(values) :], stacked=True)
        with parameters_as(self._rule, values):
            loss, grad, grads = meta_gradient(self._rule, self._learner, theta, task, **self._settings)
        return [loss, grad, *grads.values()]


def require_one_step_for_all(rule: UpdateRule, learner: BaseLearner) -> None:
    """CompilationError for a rule or a loss that reads the step, and so would need a program for each."""
    if rule.uses_step:
        raise CompilationError("it reads the step, and so many would be a program each")
    if rule.uses_noise:
        raise CompilationError("its noise is another at every step, and so many would be a program each")
    if learner.has_support_loss:
        raise CompilationError("its base-learner's support_loss may read the step: a program each")


def traced(function: Function, arguments: Sequence[Tensor]) -> torch.fx.GraphModule:
    """What the function does with tensors of these shapes, whatever their values; small networks fused."""
    from torch.fx.experimental.proxy_tensor import make_fx  # it takes time to load

    with fused_networks():
        # of tensors without values: a value that a rule reads, NumPy's too, would become a constant
        trace = make_fx(lambda *tensors: function(*tensors), tracing_mode="fake", _allow_non_fake_inputs=True)
        graph: torch.fx.GraphModule = trace(*arguments)
    arrange(graph.graph)
    graph.recompile()
    return graph


def compiled(function: Function, arguments: Sequence[Tensor], *, eager_first: bool = True) -> Program:
    """A program for arguments of these shapes. Raises CompilationError.

    `eager_first`: run the function once as it is, so that what is wrong with a rule is said in its own words.
    """
    if eager_first:
        function(*arguments)
    try:
        # torch's own deprecations, while it looks for what it can trace
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = traced(function, arguments)
            on_cpu = {"cpp_wrapper": True, "aot_inductor.custom_ops_to_c_shims": shims(graph.graph)}
            for node in graph.graph.nodes:  # shapes come anew; those of several tracers do not mix
                node.meta.clear()
            # between its kernels a step is C++ too; on a GPU it is one graph, launched at once
            options = {"triton.cudagraphs": True} if arguments[0].is_cuda else on_cpu
            quickly = nullcontext() if arguments[0].is_cuda else quick_compiler()
            with torch.no_grad(), _disk_cache(), quickly:
                program: Program = torch._inductor.compile(graph, list(arguments), options=options)
                program(*arguments)
    except Exception as error:  # tracers and compilers raise what they like
        raise CompilationError(describe_error(error)) from error
    return program


def _disk_cache() -> AbstractContextManager[Any]:
    """A context in which Inductor looks for programs on disk; without shapes it does not."""
    from torch._guards import TracingContext, tracing
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv  # these take time to load

    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    context: AbstractContextManager[Any] = tracing(TracingContext(mode))
    return context
