"""Long unrolls one inner step at a time: the path is kept, and each step is taken again in the backward pass.

What is alive is then θ and the state at every t, and the graph of one step, however large T is. And where
programs are compiled, one step and its vector-Jacobian product are, not T of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from metalearn_core.errors import user_code
from metalearn_core.inner_loop import Beside, inner_step, per_task, start_every_task, start_state
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import State, UpdateRule, parameters_as
from metalearn_core.settings import Clipping, Order
from metalearn_core.task import Batch, Task
from metalearn_core.training.meta_gradient import loss_weights

Tensors = Sequence[Tensor]
Function = Callable[..., list[Tensor]]
Run = Callable[[str, Function, Tensors], Tensors]
"""Calls a function of tensors, or a program made of it that is known by its name."""

UNROLLED = 16
"""Inner steps up to which a meta-gradient is taken of the whole unroll at once."""


MOST_KEPT_STEPS = 50
"""How many steps of a path are kept at most, where nobody says."""


def is_recomputed(steps: int, checkpoint_every: int | None) -> bool:
    """Whether an unroll is too long to be taken at once, or is asked to be taken otherwise."""
    return steps > UNROLLED or checkpoint_every is not None


def run_eagerly(name: str, function: Function, arguments: Tensors) -> Tensors:
    """Eager code."""
    return function(*arguments)


@attrs.frozen(eq=False)
class BySteps:
    """The meta-gradient of a long unroll (Algorithm 9, line 11), by recomputation.

    Args:
        rule, learner, steps, order, clip: as in `metalearn_core.meta_gradient`.
        seeds: whether θ⁰ and every φ lead with `[seeds]`.
        checkpoint_every: of the path, every so many steps are kept, and those between taken once more;
            None: so that 50 are kept at most.
        truncate, outer_decay: as in `metalearn_core.Settings`.
        run: how its parts are called.
    """

    rule: UpdateRule
    learner: BaseLearner
    steps: int
    order: Order
    clip: Clipping | None = None
    seeds: bool = False
    checkpoint_every: int | None = None
    truncate: int | None = None
    outer_decay: float | None = None
    run: Run = run_eagerly

    @torch.no_grad()
    def __call__(
        self, theta: Tensor, phi: Mapping[str, Tensor], task: Task
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Losses `[]` or `[seeds]`, and the gradients, shaped as θ⁰ and φ."""
        phi = {name: value.detach() for name, value in phi.items()}
        values, support = list(phi.values()), task.support.tensors
        query = query_tensors(self.learner, task)
        start = theta.detach().unsqueeze(-2).expand(*theta.shape[:-1], len(task), -1).contiguous()
        every = self.checkpoint_every or max(1, -(-self.steps // MOST_KEPT_STEPS))
        constant = 0 if self.truncate is None else max(0, self.steps - self.truncate)
        weights = loss_weights(self.steps, self.outer_decay)

        def step(t: int, now: Tensors) -> list[Tensor]:
            return list(self.run("step", self.step(phi, t, task), [*now, *values, *support]))

        now = self.begin(phi, start, task)
        kept, reached, terms = {}, dict[int, Tensor](), []
        for t in range(self.steps + 1):
            now = step(t - 1, now) if t else now
            if t % every == 0 and t < self.steps:
                kept[t] = now
            if t in weights:
                found = self.run("query", self._query(task), [now[0], *query])
                loss, reached[t] = (weights[t] * x for x in found)
                terms.append(loss)
        nothing = [torch.zeros_like(x) for x in now[1:]]
        back = [reached.pop(self.steps), *nothing, *map(torch.zeros_like, values)]
        for first in reversed(range(constant // every * every, self.steps, every)):
            path = [kept.pop(first)]
            for t in range(first, min(first + every, self.steps) - 1):
                path.append(step(t, path[-1]))
            for t in reversed(range(max(first, constant), first + len(path))):
                arguments = [*path[t - first], *values, *support, *back]
                back = list(self.run("back", self._back(phi, t, task), arguments))
                del path[t - first :]
                back[0] = back[0] + reached.pop(t, 0)
        if constant:  # what came before only shifts θ and the state, and its losses reach θ⁰ unchanged
            back[0] = sum(reached.values(), back[0])
        given = [*support] if self.rule.has_start else []
        arguments = [start, *values, *given, *back]
        grad, *grads = self.run("begin", self._back_to_start(phi, task), arguments)
        return sum(terms[1:], terms[0]), grad.sum(-2), dict(zip(phi, grads, strict=True))

    def _bound(self, phi: Mapping[str, Tensor]) -> tuple[Any, Mapping[str, Tensor] | None]:
        """A context in which the rule has this φ, and φ where it has to be handed over."""
        return (nullcontext(), phi) if self.seeds else (parameters_as(self.rule, phi), None)

    def begin(self, phi: Mapping[str, Tensor], theta: Tensor, task: Task) -> list[Tensor]:
        """θ⁽⁰⁾ of every task, and the leaves of the state."""
        start, given = self._start(phi, task), [theta, *phi.values()]
        if self.rule.has_start:
            return list(self.run("start", start, [*given, *task.support.tensors]))
        return [theta, *self.run("start", start, given)]

    def _start(self, phi: Mapping[str, Tensor], task: Task, track: bool = False) -> Function:
        """The state at t = 0, in leaves, from θ of every task and φ.

        With the support set too, and θ⁽⁰⁾ before the leaves, where the rule has a start of its own.
        """

        def start(theta: Tensor, *rest: Tensor) -> list[Tensor]:
            context, handed = self._bound(dict(zip(phi, rest, strict=False)))
            begun: list[Tensor] = []
            with context:
                if self.rule.has_start:
                    support = task.support.like(rest[len(phi) :], stacked=True)
                    constant = self.order == "first" or not track
                    beside = Beside(self.learner, support, self.steps, constant, self.clip)
                    theta = start_every_task(self.rule, theta, beside, track=track, phi=handed)
                    begun = [theta]
                return [*begun, *pytree.tree_leaves(start_state(self.rule, theta, track=track, phi=handed))]

        return start

    def _state(self, theta: Tensor, values: Mapping[str, Tensor], leaves: Tensors) -> State:
        """The leaves in the structure of the rule's state."""
        context, handed = self._bound(values)
        with context:
            structure = pytree.tree_structure(start_state(self.rule, theta, track=False, phi=handed))
        return pytree.tree_unflatten(list(leaves), structure)

    def step(self, phi: Mapping[str, Tensor], t: int, task: Task, track: bool = False) -> Function:
        """Step t: θ and the state's leaves, from themselves, φ and the support set."""
        support = len(task.support.tensors)

        def step(theta: Tensor, *rest: Tensor) -> list[Tensor]:
            count = len(rest) - len(phi) - support
            batch = task.support.like(rest[len(rest) - support :], stacked=True)
            values = dict(zip(phi, rest[count:], strict=False))
            state = self._state(theta.detach(), values, rest[:count])
            context, handed = self._bound(values)
            with context:
                theta, state = inner_step(
                    self.rule, self.learner, theta, state, batch, t,
                    steps=self.steps, order=self.order, clip=self.clip, track=track, phi=handed,
                )  # fmt: skip
            return [theta, *pytree.tree_leaves(state)]

        return step

    def _query(self, task: Task) -> Function:
        """Mean query losses, and what the sum of them over seeds has for a gradient at θ⁽ᵀ⁾."""

        def query(theta: Tensor, *tensors: Tensor) -> list[Tensor]:
            batch, context = query_of(self.learner, task, tensors)

            def losses_of(theta: Tensor) -> Tensor:
                return per_task(self.learner.loss, theta, batch, *context)

            with torch.enable_grad():
                theta = theta.detach().requires_grad_()
                losses = (vmap(losses_of) if self.seeds else losses_of)(theta).mean(-1)
                (grad,) = torch.autograd.grad(losses.sum() + 0 * theta.sum().real, theta)
            return [losses.detach(), grad]

        return query

    def _back(self, phi: Mapping[str, Tensor], t: int, task: Task) -> Function:
        """The vector-Jacobian product of step t, and φ's gradients so far with its own part added."""
        step, names, held = self.step(phi, t, task, track=True), list(phi), len(task.support.tensors)

        def back(*arguments: Tensor) -> list[Tensor]:
            # θ and state, φ, support, cotangents of θ and state, φ's gradients so far
            width = (len(arguments) - 2 * len(names) - held) // 2
            given, after = arguments[: width + len(names)], arguments[width + len(names) + held :]
            support = arguments[width + len(names) : width + len(names) + held]
            with torch.enable_grad():
                inputs = self._leaves(given, names)
                found = _pull_back(step(*inputs, *support), inputs, after[:width])
            sums = [total + own for total, own in zip(after[width:], found[width:], strict=True)]
            return [*found[:width], *sums]

        return back

    def _back_to_start(self, phi: Mapping[str, Tensor], task: Task) -> Function:
        """θ⁰ and φ through what θ⁽⁰⁾ and the state started from."""
        names, given = list(phi), len(task.support.tensors) if self.rule.has_start else 0

        def back(theta: Tensor, *arguments: Tensor) -> list[Tensor]:
            values, rest = arguments[: len(names)], arguments[len(names) :]
            support, after = rest[:given], rest[given:]
            width = len(after) - len(names)
            with torch.enable_grad():
                inputs = self._leaves((theta, *values), names)
                begun = self._start(phi, task, track=True)(*inputs, *support)
                # θ⁰ itself goes on as θ⁽⁰⁾ where the rule has no start of its own
                found = _pull_back(begun, inputs, after[not given : width])
            sums = [total + own for total, own in zip(after[width:], found[1:], strict=True)]
            return [found[0] if given else after[0] + found[0], *sums]

        return back

    def _leaves(self, given: Tensors, names: Sequence[str]) -> list[Tensor]:
        """Copies that gradients are taken for, where one is wanted and there is one."""
        learned = {name: p.requires_grad for name, p in self.rule.named_parameters()}
        wanted = [True] * (len(given) - len(names)) + [learned[name] for name in names]
        return [
            x.detach().requires_grad_(want and x.is_floating_point())
            for x, want in zip(given, wanted, strict=True)
        ]


def query_tensors(learner: BaseLearner, task: Task) -> list[Tensor]:
    """The tensors of the query set and of what it is judged in the light of."""
    found = [x for x in pytree.tree_leaves(learner.context(task)) if isinstance(x, Tensor)]
    return [*task.query.tensors, *found]


def query_of(learner: BaseLearner, task: Task, tensors: Tensors) -> tuple[Batch, tuple[Any, ...]]:
    """Query set and context out of such tensors."""
    own = len(task.query.tensors)
    leaves, structure = pytree.tree_flatten(learner.context(task))
    fresh = iter(tensors[own:])
    context = [next(fresh) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    return task.query.like(tensors[:own], stacked=True), pytree.tree_unflatten(context, structure)


def _pull_back(outputs: Tensors, inputs: Tensors, cotangents: Tensors) -> list[Tensor]:
    """The vector-Jacobian product for every input; zeros where there is none."""
    reached = [(y, c) for y, c in zip(outputs, cotangents, strict=True) if y.requires_grad]
    wanted = [x for x in inputs if x.requires_grad]
    if not reached or not wanted:
        return [torch.zeros_like(x) for x in inputs]
    ends, given = zip(*reached, strict=True)
    with user_code("meta_gradient", "the backward pass"):
        found = iter(torch.autograd.grad(ends, wanted, given, allow_unused=True))
    grads = [next(found) if x.requires_grad else None for x in inputs]
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True)]
