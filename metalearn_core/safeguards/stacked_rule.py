"""Whether a rule that takes a stack of tasks (`elementwise`) says of them what it says of each alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import suppress
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metalearn_core.errors import UsageError
from metalearn_core.rule import UpdateRule
from metalearn_core.safeguards.trials import MOST_SHAPES, is_traced, streams_kept
from metalearn_core.signal import Noise, Signal, UndeclaredField

SIZES = (1.0, -1e2)
"""The gradients of the tasks that are compared: tasks may differ in sign, and by orders of magnitude."""

MOST_WEIGHTS = 250_000
"""Beyond so many, the comparison would itself need much of the memory that there is."""

Answers = list[Tensor]

_CHECKED: WeakKeyDictionary[UpdateRule, set[object]] = WeakKeyDictionary()


def check_first_update(rule: UpdateRule, theta: Tensor, tasks: int, steps: int) -> None:
    """Compare an elementwise rule on a small stack of tasks with each of them alone, once for each shape.

    The gradients are made up. Nothing is left behind: a copy of the rule is called, and random streams are
    put back. A rule whose `check_first_update` is False is not checked, nor are one for very many weights
    and what torch traces.

    Args:
        rule: the update rule.
        theta: `[n]`, or `[tasks, n]`.
        tasks: how many tasks come together; one by itself is right whatever the rule declares.
        steps: T.

    Raises:
        UsageError: where they differ.
    """
    wanted = rule.elementwise and rule.check_first_update and tasks > 1 and steps
    if not wanted or theta.shape[-1] > MOST_WEIGHTS or is_traced(theta):
        return
    kind, known = (theta.shape[-1], theta.dtype, steps > 1), _CHECKED.setdefault(rule, set())
    if kind in known or len(known) >= MOST_SHAPES:
        return
    with streams_kept(theta.device), torch.enable_grad():
        apart = _difference(rule, theta.detach(), steps)
    if apart:
        raise UsageError(
            f"rule {rule.label}: it declares elementwise, and for several tasks at once it gives another"
            f" answer than for each alone ({100 * apart:.2g} % off): it mixes tasks; reduce over the last"
            " axis alone (dim=-1), or set elementwise = False, which calls it for one task at a time"
        )
    known.add(kind)


def _difference(rule: UpdateRule, theta: Tensor, steps: int) -> float:
    """How far all tasks together are from each alone; 0 where that is rounding, or cannot be told."""
    wide = torch.promote_types(theta.dtype, torch.float64)
    for dtype, tolerance in ((wide, 1e-4), (theta.dtype, 0.05)):  # where there is no float64 of it
        with suppress(Exception):  # of a stranger's code, which the run calls too, and tells them
            ours, start = copy.deepcopy(rule), theta.to(dtype).nan_to_num()
            ours = ours.double() if dtype == wide else ours
            rounding = 1e6 * torch.finfo(dtype).eps * float(start.abs().max() + 1)
            together, alone = _answers(ours, start, steps)
            apart = _distance(together, alone, rounding)
            # a rule that draws random numbers, or remembers, does not even agree with itself
            mixes = apart > tolerance and not _distance(_answers(ours, start, steps)[1], alone, rounding)
            return apart if mixes else 0.0
    return 0.0


def _answers(rule: UpdateRule, theta: Tensor, steps: int) -> tuple[Answers, Answers]:
    """What the rule says of a stack, and of each of its tasks alone."""
    places = torch.arange(len(SIZES) * theta.shape[-1], device=theta.device).view(len(SIZES), -1)
    waves = [(places + shift).cos().to(theta.dtype) for shift in range(3)]
    sizes = torch.tensor(SIZES, device=theta.device, dtype=theta.real.dtype)
    start = (theta if theta.ndim == 1 else theta[0]) + 1e-3 * waves[0]
    given = [start, sizes.unsqueeze(1) * (waves[1] + 0.5), sizes.abs(), waves[2]]
    rows = [_moved(rule, [x[i : i + 1] for x in given], steps) for i in range(len(SIZES))]
    return _moved(rule, given, steps), [torch.cat(column) for column in zip(*rows, strict=True)]


def _moved(rule: UpdateRule, given: Sequence[Tensor], steps: int) -> Answers:
    """How far θ moves, and the derivatives of where it ends for θ, the gradient and the loss."""
    theta, grad, loss = leaves = [x.clone().requires_grad_() for x in given[:3]]
    undeclared = UndeclaredField(rule.label)
    now, state = theta, rule.init_state(theta)
    for step in range(min(steps, 2 if pytree.tree_leaves(state) else 1)):  # a state shows in the second one
        read = loss if rule.uses_loss else undeclared, step if rule.uses_step else undeclared
        noise = (
            Noise(torch.full(theta.shape[:-1], step, device=theta.device), theta)
            if rule.uses_noise
            else undeclared
        )
        numbered = steps if rule.uses_step else undeclared
        shown = Signal((step + 1) * grad, *read, steps=numbered, noise=noise)
        now, state = rule.update(now, shown, state)
    total = (now * given[3]).sum() + sum(0 * x.sum() for x in leaves)
    return [(now - theta).detach(), *torch.autograd.grad(total.real, leaves)]


def _distance(found: Answers, expected: Answers, rounding: float) -> float:
    """The largest difference in any task's answer, relative to that answer; below `rounding` it is none."""
    worst = 0.0
    rows = (row for pair in zip(found, expected, strict=True) for row in zip(*pair, strict=True))
    for got, wanted in rows:
        away, own = float((got - wanted).abs().max()), float(wanted.abs().max())
        if math.isfinite(own) and not away <= rounding:
            worst = max(worst, away / own if own and away == away else math.inf)
    return worst
