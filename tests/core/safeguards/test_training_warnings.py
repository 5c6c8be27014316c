"""A training that diverges, or that cannot learn anything, warns by name."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from metalearn_core import BaseLearner, Settings, UpdateRule, make_rule, meta_train
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
