"""The meta-step as one compiled program: all tasks, all inner steps, the inner and the outer gradients.

What is traced is the eager meta-step itself, with `higher`'s differentiable optimiser in it, so that what a
meta-step is stands in one place. Inductor writes kernels for the whole; Python, autograd and `higher` cost
nothing when it runs. There is one program for each shape; kernels are cached on disk by Inductor.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from metalearn_core.inner_loop import meta_gradient
from metalearn_core.kernels.coordinatewise import fused_networks
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import UpdateRule
from metalearn_core.settings import Clipping, Order, Settings
from metalearn_core.task import Task

Program = Callable[..., Sequence[Tensor]]


class CompilationError(Exception):
    """A rule or a learner that cannot be traced or compiled; its text says why, in one line."""


class CompiledMetaGradient:
    """`meta_gradient` of one rule and learner, compiled once for each shape of its arguments.

    Args:
        rule, learner, steps, order, clip: as in `metalearn_core.meta_gradient`. The rule's φ is read at
            every call: a program is about its shape, not its values.
    """

    def __init__(
        self, rule: UpdateRule, learner: BaseLearner,
        *, steps: int, order: Order = "second", clip: Clipping | None = None,
    ) -> None:  # fmt: skip
        self._rule, self._learner = rule, learner
        self._settings: dict[str, Any] = {"steps": steps, "order": order, "clip": clip}
        self._programs: dict[object, Program] = {}

    def __call__(self, theta: Tensor, task: Task) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Loss `[]`, its gradient for θ⁰ and every φ. Raises CompilationError, if so when a shape is new."""
        phi = {name: parameter.detach() for name, parameter in self._rule.named_parameters()}
        arguments = [theta.detach(), *phi.values(), *task.tensors]
        shapes = tuple((x.shape, x.dtype, x.device) for x in arguments)
        if shapes not in self._programs:
            self._programs[shapes] = compiled(self._traced, arguments)
        with torch.no_grad():
            loss, grad, *grads = self._programs[shapes](*arguments)
        return loss, grad, dict(zip(phi, grads, strict=True))

    def _traced(self, theta: Tensor, *rest: Tensor) -> list[Tensor]:
        """The eager meta-step as a function of tensors alone."""
        learned = dict(self._rule.named_parameters())
        values = {
            name: given.detach().requires_grad_(parameter.requires_grad)
            for (name, parameter), given in zip(learned.items(), rest, strict=False)
        }
        task = Task.of(rest[len(values) :], stacked=True)
        with parameters_as(self._rule, values):
            loss, grad, grads = meta_gradient(self._rule, self._learner, theta, task, **self._settings)
        return [loss, grad, *grads.values()]


@contextmanager
def parameters_as(module: torch.nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """The module with other tensors in the places of its parameters."""
    places = []
    for name, value in values.items():
        path, _, leaf = name.rpartition(".")
        table: dict[str, Any] = module.get_submodule(path)._parameters
        places.append((table, leaf, table[leaf]))
        table[leaf] = value
    try:
        yield
    finally:
        for table, leaf, parameter in places:
            table[leaf] = parameter


def traced(function: Callable[..., list[Tensor]], arguments: Sequence[Tensor]) -> torch.fx.GraphModule:
    """What the function does with tensors of these shapes, whatever their values; small networks fused."""
    from torch.fx.experimental.proxy_tensor import make_fx  # it takes time to load

    with fused_networks():
        graph: torch.fx.GraphModule = make_fx(function)(*arguments)
    return graph


def compiled(function: Callable[..., list[Tensor]], arguments: Sequence[Tensor]) -> Program:
    """A program for arguments of these shapes. Raises CompilationError."""
    function(*arguments)  # what is wrong with a rule is said by eager code, in its own words
    try:
        # torch's own deprecations, while it looks for what it can trace
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = traced(function, arguments)
            with torch.no_grad():
                # on a GPU a step is otherwise bound by launching its kernels
                options = {"triton.cudagraphs": True} if arguments[0].is_cuda else {}
                program: Program = torch._inductor.compile(graph, list(arguments), options=options)
                program(*arguments)
    except Exception as error:  # tracers and compilers raise what they like
        line = next(iter(str(error).strip().splitlines()), "")
        raise CompilationError(f"{type(error).__name__}: {line}") from error
    return program


LONG_RUN = 10_000
"""Outer steps from which a run is worth compiling: what that takes, half a minute, is then saved."""


class Engine:
    """Meta-gradients as the settings ask for them: by eager code, or by a compiled program.

    `engine = "auto"` compiles long runs. A meta-batch smaller than the others, the last one, stays eager:
    it comes once. What cannot be compiled runs eager, and `note` says in one line what and why.

    Args:
        chosen: `"eager"` or `"compiled"` where a run is resumed that had chosen already.
    """

    def __init__(self, rule: UpdateRule, learner: BaseLearner, settings: Settings, chosen: str = "") -> None:
        self.note = ""
        self._rule, self._learner, self._meta_batch = rule, learner, settings.meta_batch
        self._settings: dict[str, Any] = {
            "steps": settings.steps, "order": settings.order, "clip": settings.inner_clip,
        }  # fmt: skip
        long = settings.tasks // settings.meta_batch >= LONG_RUN
        automatic = "compiled" if long else "eager"
        self.name = chosen or (automatic if settings.engine == "auto" else settings.engine)
        if self.name == "compiled" and (missing := _missing(learner.device)):
            self._fall_back(f"runs eager: {missing}")
        self._compiled = CompiledMetaGradient(rule, learner, **self._settings)

    def __call__(self, theta: Tensor, task: Task) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """What `meta_gradient` returns."""
        if self.name == "compiled" and len(task) == self._meta_batch:
            try:
                return self._compiled(theta, task)
            except CompilationError as error:
                self._fall_back(f"rule {self._rule.label} cannot be compiled and runs eager: {error}")
        return meta_gradient(self._rule, self._learner, theta, task, **self._settings)

    def _fall_back(self, note: str) -> None:
        self.name, self.note = "eager", note


def _missing(device: torch.device) -> str | None:
    """What compiling needs and is not here, or None."""
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "no C++ compiler is installed"
    return None
