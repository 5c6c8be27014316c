"""A training that diverges, or that cannot learn anything, warns by name."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from metalearn_core import (
    BaseLearner,
    Settings,
    UpdateRule,
    adapt,
    make_rule,
    meta_gradient,
    meta_train,
    trajectory,
)
from metalearn_core.errors import DivergenceWarning, TrainingWarning
from metalearn_core.testing import TinySines, tiny_learner

SETTINGS = Settings(tasks=20, meta_batch=2, steps=2, validation_interval=10, validation_tasks=2)


class Ends(UpdateRule):
    """θ is what the rule says, whatever came before; φ is not in it."""

    def __init__(self, layout) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(()))

    def update(self, theta, signal, state):
        return torch.ones_like(theta), state


def train(rule, learner, settings=SETTINGS):
    return meta_train(rule, learner, TinySines(), settings, generator=torch.Generator().manual_seed(0))


def test_a_divergence_is_told_with_where_it_was_and_what_to_do():
    learner = tiny_learner()
    rule = make_rule("gradient-descent", learner.layout, inner_lr=1e20)
    with pytest.warns(DivergenceWarning, match=r"stopped after 0 of 20 tasks .*outer step 1.*lower inner_lr"):
        assert train(rule, learner).diverged is not None


@pytest.mark.parametrize("constant", ["rule", "loss"])
def test_a_meta_gradient_that_is_always_zero_is_told(constant):
    learner = tiny_learner()
    rule = Ends(learner.layout) if constant == "rule" else make_rule("gradient-descent", learner.layout)
    if constant == "loss":
        learner = BaseLearner(learner.module, lambda prediction, target: 0 * prediction.mean())
    with pytest.warns(TrainingWarning, match="exactly 0.* nothing is learned") as told:
        train(rule, learner)
    assert len(told) == 1


@pytest.mark.parametrize("learn_lr", ["none", "scalar"])
def test_a_training_that_learns_warns_of_nothing(learn_lr):
    learner = tiny_learner()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(make_rule("gradient-descent", learner.layout, learn_lr=learn_lr), learner)


def test_a_rule_that_learns_phi_alone_warns_of_nothing():
    class Learns(Ends):
        def update(self, theta, signal, state):
            return torch.ones_like(theta) * self.unused, state

    learner = tiny_learner()
    train(Learns(learner.layout), learner)


def constant_losses():
    yield lambda prediction, target: nn.functional.mse_loss(prediction.detach(), target)
    yield torch.no_grad()(nn.functional.mse_loss)
    yield lambda prediction, target: (prediction > target).float().mean()


@pytest.mark.parametrize("loss", list(constant_losses()), ids=["detach", "no_grad", "a count"])
@pytest.mark.parametrize("order", ["first", "second"])
def test_a_loss_without_a_gradient_is_told_by_every_function_of_the_library(loss, order):
    def told_of(use):
        learner = BaseLearner(tiny_learner().module, loss)
        with pytest.warns(TrainingWarning) as told:
            use(make_rule("gradient-descent", learner.layout), learner)
        assert "its loss has no gradient for θ, so every update" in str(told[0].message)
        return len(told), Path(told[0].filename).name

    task = TinySines().sample("train", 3, torch.Generator().manual_seed(0))
    theta = tiny_learner().initial(torch.Generator().manual_seed(0))
    how = {"steps": 2, "order": order}
    assert told_of(lambda *of: adapt(*of, theta, task.support, **how)) == (1, Path(__file__).name)
    told_of(lambda *of: trajectory(*of, theta, task[0].support, **how))
    told_of(lambda *of: meta_gradient(*of, theta, task, **how))
    told_of(train)


def test_a_loss_that_depends_on_no_weight_there_is_warns_of_nothing():
    module = nn.Linear(1, 1).requires_grad_(False)
    learner = BaseLearner(module, nn.functional.mse_loss)
    task = TinySines().sample("train", 3, torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapt(make_rule("gradient-descent", learner.layout), learner, torch.zeros(0), task.support, steps=1)
