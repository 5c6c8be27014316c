"""The meta-step as one compiled program: all tasks, all inner steps, the inner and the outer gradients.

What is traced is the eager meta-step itself, with `higher`'s differentiable optimiser in it, so that what a
meta-step is stands in one place. Inductor writes kernels for the whole; Python, autograd and `higher` cost
nothing when it runs. There is one program for each shape; kernels are cached on disk by Inductor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from metalearn_core.inner_loop import meta_gradient
from metalearn_core.kernels.coordinatewise import fused_networks
from metalearn_core.kernels.products import arrange
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import UpdateRule, parameters_as
from metalearn_core.settings import Clipping, Order
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


def traced(function: Callable[..., list[Tensor]], arguments: Sequence[Tensor]) -> torch.fx.GraphModule:
    """What the function does with tensors of these shapes, whatever their values; small networks fused."""
    from torch.fx.experimental.proxy_tensor import make_fx  # it takes time to load

    with fused_networks():
        graph: torch.fx.GraphModule = make_fx(function)(*arguments)
    arrange(graph.graph)
    graph.recompile()
    return graph


def compiled(
    function: Callable[..., list[Tensor]], arguments: Sequence[Tensor], *, eager_first: bool = True
) -> Program:
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
            for node in graph.graph.nodes:  # shapes come anew; those of several tracers do not mix
                node.meta.clear()
            # between its kernels a step is C++ too; on a GPU it is one graph, launched at once
            options = {"triton.cudagraphs": True} if arguments[0].is_cuda else {"cpp_wrapper": True}
            with torch.no_grad():
                program: Program = torch._inductor.compile(graph, list(arguments), options=options)
                program(*arguments)
    except Exception as error:  # tracers and compilers raise what they like
        line = next(iter(str(error).strip().splitlines()), "")
        raise CompilationError(f"{type(error).__name__}: {line}") from error
    return program
