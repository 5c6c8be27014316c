"""Where an exact claim fails: along the path of θ, then in the meta-gradients for θ⁰."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from metalearn_core.inner_loop import per_task, trajectory
from metalearn_core.rule import UpdateRule
from metalearn_core.settings import Order
from metalearn_core.task import Task
from metalearn_core.testing.problems import Problem
from metalearn_core.testing.theory.statement import Example, NothingToCompareError, Statement

NUDGE, ROUNDING = 500, 5e4
"""In units in the last place: how far away rounding is measured from, and what is always allowed."""


def deviations(claim: Statement, special: UpdateRule, general: UpdateRule, example: Example) -> Iterator[str]:
    """Where an exact edge is not one: along the trajectory, then in the meta-gradients for θ⁰."""
    problem = example.problem
    starts, task = _starts(claim, problem)
    (theirs, their_gradient), (ours, our_gradient) = (
        _follow(claim, rule, problem, starts, task, example.order) for rule in (special, general)
    )
    for t, (their_theta, our_theta) in enumerate(zip(theirs, ours, strict=True)):
        if not torch.isfinite(their_theta).all():
            raise NothingToCompareError(f"θ of the special rule is not finite after {t} steps")
        if found := _difference(claim, our_theta, their_theta, problem.tasks):
            yield f"θ after {t} of {problem.steps} steps differs: {found}"
    if not torch.isfinite(their_gradient).all():
        raise NothingToCompareError("the meta-gradient of the special rule is not finite")
    if found := _difference(claim, our_gradient, their_gradient, problem.tasks):
        yield f"the {example.order}-order meta-gradient for θ⁰ differs: {found}"


def _follow(
    claim: Statement, rule: UpdateRule, problem: Problem, starts: Tensor, task: Task, order: Order
) -> tuple[list[Tensor], Tensor]:
    """θ⁽⁰⁾ … θ⁽ᵀ⁾, and what `meta_gradient` gives for the starts, from one unroll."""
    starts = starts.detach().requires_grad_()
    now = trajectory(
        rule, problem.learner, starts, task.support, steps=problem.steps, order=order, clip=claim.clip
    )
    thetas = [theta for theta, _ in now]
    judged = per_task(problem.learner.loss, thetas[-1], task.query, *problem.learner.context(task))
    loss = judged.mean() + 0 * starts.sum()
    (gradient,) = torch.autograd.grad(loss, starts)
    return [theta.detach() for theta in thetas], gradient


def _starts(claim: Statement, problem: Problem) -> tuple[Tensor, Task]:
    """θ⁰ for every task and, unless bits are compared, both sides of it: a ruler for rounding."""
    theta = problem.theta.expand(problem.tasks, -1)
    if claim.bitwise:
        return theta, problem.task
    signs = torch.ones_like(theta)
    signs[..., ::2] = -1
    nudge = NUDGE * torch.finfo(theta.dtype).eps * (1 + theta.abs()) * signs
    starts = torch.cat([theta, theta + nudge, theta - nudge])
    return starts, problem.task.map(lambda x: torch.cat([x] * 3))


def _difference(claim: Statement, ours: Tensor, theirs: Tensor, tasks: int) -> str:
    """Empty where both are equal: to the bit, or as far as rounding goes that the steps amplified.

    How far it grows is seen on the special rule itself, from starts that are a nudge away.
    """
    if claim.bitwise:
        bound = torch.zeros(())
    else:
        exact, *nudged = torch.split(theirs, tasks)
        amplified = torch.stack([(x - exact).abs().max() for x in nudged]).max()
        bound = 10 * amplified + ROUNDING * torch.finfo(theirs.dtype).eps * (1 + exact.abs().max())
        ours, theirs = ours[:tasks], exact
    error = (ours - theirs).abs()
    if bool((error <= bound).all()):  # a NaN is not
        return ""
    row, column = divmod(int(error.nan_to_num(torch.inf).argmax()), error.shape[-1])
    return (
        f"task {row}, coordinate {column}: {float(theirs[row, column])!r} by the special rule,"
        f" {float(ours[row, column])!r} by the general one (allowed: {float(bound):.3g})"
    )
