"""A forward that writes to what it is given is refused by name, wherever it does so."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from metalearn_core import (
    BaseLearner,
    Batch,
    Task,
    UpdateRule,
    UsageError,
    adapt,
    make_rule,
    meta_gradient,
    trajectory,
)


class Writes(nn.Module):
    """A linear layer that also writes to what `way` names."""

    def __init__(self, way):
        super().__init__()
        self.layer, self.way = nn.Linear(1, 1), way
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.way == "inputs":
            x = x.sub_(1.0)
        if self.way == "calls":
            self.calls += 1
        if self.way == "mean":
            with torch.no_grad():
                self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        if self.way == "mean at once":
            with torch.no_grad():
                self.mean.add_(x.mean(0))
        if self.way == "parameters":
            with torch.no_grad():
                self.layer.weight.clamp_(-0.1, 0.1)
        return self.layer(x - self.mean)


SAID = {
    "inputs": "(it writes to its inputs|Writes writes into its inputs)",
    "calls": "(it writes to calls|Writes changes its 'calls')",
    "mean": "(it writes to mean|Writes changes its 'mean')",
    "mean at once": "(it writes to mean|Writes changes its 'mean')",
    "parameters": "(it writes to its parameters|modified inplace; compute a new tensor)",
}
"""Of one call, and of the check before the first one."""


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("way", SAID)
@pytest.mark.parametrize("called", ["loss", "adapt", "meta_gradient"])
def test_a_forward_that_writes_is_refused_by_name(way, order, called):
    learner = BaseLearner(Writes(way), mse_loss)
    rule = make_rule("gradient-descent", learner.layout)
    theta = torch.ones(2)
    batches = [Batch(torch.full((3, 1), float(i)), torch.ones(3, 1)) for i in (1, 2)]
    tasks = Task.stack([Task(batch, batch) for batch in batches])
    calls = {
        "loss": lambda: learner.loss(theta, batches[0]),
        "adapt": lambda: adapt(rule, learner, theta, batches[0], steps=2, order=order),
        "meta_gradient": lambda: meta_gradient(rule, learner, theta, tasks, steps=2, order=order),
    }
    with pytest.raises(UsageError, match=f"^base-learner Writes: .*{SAID[way]}") as error:
        calls[called]()
    assert "\n" not in str(error.value)


def test_a_loss_that_writes_to_the_targets_is_refused():
    learner = BaseLearner(nn.Linear(1, 1), lambda prediction, y: (prediction - y.sub_(1.0)).square().mean())
    rule = make_rule("gradient-descent", learner.layout)
    with pytest.raises(UsageError, match=r"^base-learner Linear: it writes to its targets"):
        adapt(rule, learner, torch.ones(2), Batch(torch.ones(3, 1), torch.ones(3, 1)), steps=1)


def test_a_forward_that_writes_to_its_own_tensors_alone_is_used():
    class Own(nn.Linear):
        def forward(self, x):
            return super().forward(x.clone().sub_(1.0))

    learner = BaseLearner(Own(1, 1), mse_loss)
    batch = Batch(torch.zeros(3, 1), torch.ones(3, 1))
    shifted = Batch(torch.full((3, 1), -1.0), torch.ones(3, 1))
    plain = BaseLearner(nn.Linear(1, 1), mse_loss)
    rule = make_rule("gradient-descent", learner.layout)
    ours, theirs = (
        adapt(rule, one, torch.ones(2), given, steps=2) for one, given in ((learner, batch), (plain, shifted))
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("elementwise", [False, True])
def test_a_rule_that_writes_to_its_state_is_refused(elementwise):
    """Without a graph nobody else would notice: the states of all steps would be the last one."""

    class Writes(UpdateRule):
        def init_state(self, theta):
            return torch.zeros_like(theta)

        def update(self, theta, signal, state):
            state.mul_(0.5).add_(signal.grad)
            return theta - 0.1 * state, state

    Writes.elementwise = elementwise
    learner = BaseLearner(nn.Linear(1, 1), mse_loss)
    support = Batch(torch.ones(2, 3, 1), torch.zeros(2, 3, 1), stacked=True)
    with torch.no_grad(), pytest.raises(UsageError, match=r"rule Writes .*: it writes to its state"):
        list(trajectory(Writes(), learner, torch.ones(2), support, steps=3))
