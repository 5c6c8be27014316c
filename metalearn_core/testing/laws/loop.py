"""The laws of a rule in the inner loop: batches, steps, precision and memory."""

from __future__ import annotations

import gc

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metalearn_core.inner_loop import adapt
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import UpdateRule
from metalearn_core.task import Batch
from metalearn_core.testing.laws.problems import (
    STEPS,
    MakeRule,
    as_made_and_moved,
    close,
    loss_and_gradient,
    make,
    noise_key,
    problem,
    randn,
    require,
    require_float64,
    signal,
    support_of,
)


def law_zero_steps(make_rule: MakeRule) -> None:
    """Zero inner steps leave θ as it is, or as the rule starts it."""
    learner, theta, task = problem()
    rule, kept = make(make_rule, learner.layout), theta.clone()
    adapted = adapt(rule, learner, theta, task[0].support, steps=0)
    if rule.has_start:
        kept = rule.start(theta, support_of(learner, task[0].support)).detach()
        require(close(adapted, kept), "T = 0 must give what start returns; init_state must only read it")
        return
    require(
        torch.equal(adapted, kept) and torch.equal(theta, kept),
        "T = 0 must leave theta as it is; init_state must only read it",
    )


def law_precision(make_rule: MakeRule) -> None:
    """float64 is kept to where it is given, and float32 agrees with it as far as it goes."""
    require_float64(make_rule)
    learner, theta, task = problem()
    wide, narrow = (
        adapt(
            make(make_rule, learner.layout, dtype=dtype),
            learner.to("cpu", dtype),
            theta.to(dtype),
            task.to("cpu", dtype).support,
            steps=STEPS,
        )
        for dtype in (torch.float64, torch.float32)
    )
    require(
        close(narrow.double(), wide, 1e-3),
        "float32 and float64 answers differ by more than rounding; look for differences of nearly"
        " equal numbers, for an epsilon below 1e-7 inside a root, and for tensors that are neither"
        " nn.Parameter nor buffer and so do not follow .to(dtype)",
    )


def law_batch(make_rule: MakeRule) -> None:
    """A meta-batch gives what its tasks give one by one, whatever their order."""
    learner, theta, task = problem()
    starts = theta + 0.1 * randn(len(task), len(theta), seed=3)
    for rule in as_made_and_moved(make_rule, learner.layout):
        together = adapt(rule, learner, starts, task.support, steps=2)
        alone = [adapt(rule, learner, start, task[i].support, steps=2) for i, start in enumerate(starts)]
        require(
            close(together, torch.stack(alone)),
            "a meta-batch gives another answer than its tasks one by one; update is written for one task"
            " and theta [n], or (elementwise = True) must take leading axes: reduce over dim=-1 alone",
        )
        backwards = adapt(rule, learner, starts.flip(0), task.map(lambda x: x.flip(0)).support, steps=2)
        require(
            close(backwards.flip(0), together),
            "the order of the tasks changes their answers; one task must not see another",
        )


def law_steps(make_rule: MakeRule) -> None:
    """T steps are T calls of `update`, state and step number passed on."""
    learner, theta, task = problem()
    rule = make(make_rule, learner.layout)
    for steps in (1, STEPS):
        at_once = adapt(rule, learner, theta, task[0].support, steps=steps)
        by_hand = _adapt_by_hand(rule, learner, theta, task[0].support, steps)
        require(
            close(at_once, by_hand),
            f"T = {steps} differs from {steps} calls of update with the state passed on; everything"
            " that a step hands to the next must be in the state",
        )


def law_memory(make_rule: MakeRule) -> None:
    """Nothing is kept from one adaptation to the next."""
    learner, theta, task = problem()
    rule = make(make_rule, learner.layout)
    counts = []
    frozen = gc.get_freeze_count()
    gc.freeze()  # what is there already is not looked through, four times
    try:
        for _ in range(4):
            adapt(rule, learner, theta, task.support, steps=2)
            gc.collect()
            counts.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
    finally:
        if not frozen:
            gc.unfreeze()
    require(
        not counts[1] < counts[2] < counts[3],
        f"every adaptation leaves tensors behind ({counts[3] - counts[2]} at the last); keep nothing outside"
        " the state: no list, no cache, no attribute of the class",
    )


def _adapt_by_hand(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, support: Batch, steps: int
) -> Tensor:
    theta = rule.start(theta, support_of(learner, support)).detach()
    state = rule.init_state(theta)
    for step in range(steps):
        loss, grad = loss_and_gradient(learner, theta, support, step)
        shown = support_of(learner, support, step=step)
        key = noise_key(rule, support, step)
        theta, state = rule.update(theta, signal(rule, grad, loss, step, shown, steps, key), state)
        theta, state = theta.detach(), pytree.tree_map(torch.detach, state)
    return theta
