"""What goes wrong in a rule's own code is said in one line: whose, what, and what to do instead."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metalearn_core import (
    CompiledMetaGradient,
    Settings,
    UpdateRule,
    UsageError,
    adapt,
    meta_gradient,
    meta_train,
    task_families,
)
from metalearn_core.kernels.programs import CompilationError
from metalearn_core.testing import Architecture, Problem

PROBLEM = Problem(Architecture((1, 3, 1)), tasks=2, steps=2, seed=0)
FAMILY = task_families()["sine"](support=5, query=5)
LEARNER = Architecture((1, 3, 1)).learner()


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.square()

    @staticmethod
    def backward(ctx, g):
        return g


def read_out(grad):
    return grad * float(grad.sum().item() > 0)


def branch(grad):
    return grad if grad.sum() > 0 else -grad


def with_numpy(grad):
    return torch.as_tensor(np.sign(grad.detach().numpy()))


WAYS = {
    read_out: "do not read a tensor out",
    branch: "choose with torch.where",
    with_numpy: "NumPy",
    Square.apply: "setup_context",
    lambda grad: grad @ grad.new_zeros(3, 3): "Expected size",
}


def rule_that(way, elementwise):
    class Proposal(UpdateRule):
        def __init__(self, layout):
            super().__init__()
            self.inner_lr = torch.nn.Parameter(torch.tensor(0.01))

        def update(self, theta, signal, state):
            return theta - self.inner_lr * way(signal.grad), state

    Proposal.elementwise = elementwise
    return Proposal


@pytest.mark.parametrize("way", WAYS)
def test_a_rule_that_cannot_be_batched_is_told_so_by_name(way):
    rule = rule_that(way, elementwise=False)(PROBLEM.learner.layout).double()
    with pytest.raises(UsageError, match=f"^rule .*Proposal.*: update raised .*({WAYS[way]})") as error:
        meta_gradient(rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, steps=2)
    assert "\n" not in str(error.value)
    assert "pytorch/issues" not in str(error.value)
    assert error.value.__cause__ is not None


def test_a_state_too():
    class Broken(rule_that(read_out, elementwise=False)):
        def init_state(self, theta):
            return torch.zeros(int(theta.sum().item()))

    with pytest.raises(UsageError, match=r"init_state raised .*do not read a tensor out"):
        adapt(
            Broken(PROBLEM.learner.layout).double(), PROBLEM.learner, PROBLEM.theta,
            PROBLEM.task.support, steps=1,
        )  # fmt: skip


@pytest.mark.parametrize("way", [read_out, branch, with_numpy])
def test_a_value_that_is_read_never_becomes_a_constant_of_a_program(way):
    """Eager these work, elementwise as they claim; compiled they would repeat the first batch's values."""
    rule = rule_that(way, elementwise=True)(PROBLEM.learner.layout).double()
    meta_gradient(rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, steps=2)
    with pytest.raises(CompilationError, match=WAYS[way]):
        CompiledMetaGradient(rule, PROBLEM.learner, steps=2)(PROBLEM.theta, PROBLEM.task)


@pytest.mark.parametrize("way", [read_out, branch, with_numpy])
def test_a_run_of_it_is_eager_and_says_why(way):
    said = []
    settings = Settings(
        tasks=3, meta_batch=1, steps=2, validation_interval=9, validation_tasks=2, engine="compiled"
    )
    trained = meta_train(
        rule_that(way, elementwise=True)(LEARNER.layout).double(), LEARNER, FAMILY, settings,
        generator=torch.Generator().manual_seed(0), observers=[said.append],
    )  # fmt: skip
    assert (trained.engine, trained.position) == ("eager", 3)
    (event,) = [event for event in said if event.kind == "engine"]
    assert WAYS[way] in event.values["note"]
    assert "cannot be compiled and runs eager: update raised" in event.values["note"]
