"""Recurrent base-learners: their tasks are taken one after the other by themselves, and everything works."""

from __future__ import annotations

import functools

import attrs
import plain_loop
import pytest
import torch
from torch import nn

from metalearn_core import (
    Batch,
    CompiledMetaGradient,
    Settings,
    Task,
    forked_rng,
    make_rule,
    meta_gradient,
    meta_test,
    meta_train,
    meta_train_seeds,
)
from metalearn_core.errors import TrainingWarning
from metalearn_core.kernels.programs import traced

TOLD = "cannot batch aten::(lstm|gru) over tasks"
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


class Reader(nn.Module):
    """Sequences `[n, length, 2]` to `[n, 1]`."""

    def __init__(self, kind):
        super().__init__()
        self.recurrent, self.head = getattr(nn, kind)(2, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


def net(kind):
    with forked_rng(torch.Generator().manual_seed(0)):
        return plain_loop.Net(Reader(kind), nn.functional.mse_loss, (3, 2))


class Sums:
    """Each task has its own weights of the two features; the target is their sum over the sequence."""

    splits = ("train", "validation", "test")

    def sample(self, split, count, generator):
        x = torch.randn(count, 10, 3, 2, generator=generator, dtype=torch.float64)
        weights = torch.randn(count, 1, 1, 2, generator=generator, dtype=torch.float64)
        y = (weights * x).sum((2, 3)).unsqueeze(-1)
        return Task(Batch(x[:, :5], y[:, :5]), Batch(x[:, 5:], y[:, 5:]), stacked=True)

    def examples(self, split):
        raise NotImplementedError


SETTINGS = Settings(tasks=8, meta_batch=2, steps=2, validation_interval=4, validation_tasks=3, engine="eager")


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_its_meta_gradients_are_those_of_a_plain_loop(kind, order):
    """Loss, θ⁰ and φ; then each task alone."""
    ours = net(kind)
    rule = make_rule("gradient-descent", ours.learner.layout, inner_lr=0.1, learn_lr="parameter").double()
    task = ours.task()
    with pytest.warns(TrainingWarning, match=TOLD):
        found = meta_gradient(rule, ours.learner, ours.theta, task, steps=3, order=order)
    expected = plain_loop.meta_gradient(rule, ours, ours.theta, task, 3, order)
    torch.testing.assert_close(found, expected, **CLOSE)
    alone = [meta_gradient(rule, ours.learner, ours.theta, one, steps=3, order=order) for one in task]
    torch.testing.assert_close(found[1], sum(one[1] for one in alone) / 3, **CLOSE)


def test_what_is_compiled_is_the_eager_step():
    """The program as it is traced, for other values than it was traced with."""
    ours = net("LSTM")
    rule = make_rule("gradient-descent", ours.learner.layout, inner_lr=0.1, learn_lr="scalar").double()
    with pytest.warns(TrainingWarning, match=TOLD):
        expected = meta_gradient(rule, ours.learner, ours.theta, ours.task(2), steps=1)
    step = CompiledMetaGradient(rule, ours.learner, steps=1)
    given = [rule.inner_lr.detach(), *ours.task(2).tensors]
    program = traced(functools.partial(step._traced, ours.task(2)), [torch.zeros_like(ours.theta), *given])
    for one, another in zip(program(ours.theta, *given), (*expected[:2], *expected[2].values()), strict=True):
        torch.testing.assert_close(one, another, **CLOSE)


def trained(engine="eager", seed=0):
    ours = net("LSTM")
    rule = make_rule("gradient-descent", ours.learner.layout, inner_lr=0.1, learn_lr="scalar").double()
    settings, generator = attrs.evolve(SETTINGS, engine=engine), torch.Generator().manual_seed(seed)
    return meta_train(rule, ours.learner, Sums(), settings, generator=generator)


def test_a_training_says_it_once():
    with pytest.warns(TrainingWarning) as told:
        scores = meta_test(trained(), Sums(), tasks=3)
    assert [str(one.message) for one in told] == [
        "base-learner Reader: torch cannot batch aten::lstm over tasks, so they are taken one after the"
        " other; that is right, and slower"
    ]
    assert scores.isfinite().all()


@pytest.mark.filterwarnings("ignore::metalearn_core.errors.TrainingWarning")
@pytest.mark.parametrize("engine", ["eager", pytest.param("compiled", marks=pytest.mark.nightly)])
def test_seeds_together_are_each_alone(engine):
    """Compiled, each seed is a program of its own, and it is that program that runs."""
    ours = net("LSTM")
    rules = [
        make_rule("gradient-descent", ours.learner.layout, inner_lr=0.1, learn_lr="scalar").double()
        for _ in "ab"
    ]
    together = meta_train_seeds(
        rules, ours.learner, Sums(), attrs.evolve(SETTINGS, engine=engine),
        generators=[torch.Generator().manual_seed(seed) for seed in range(2)],
    )  # fmt: skip
    for seed, one in enumerate(together):
        assert one.engine == engine
        alone = trained(seed=seed)
        torch.testing.assert_close(one.theta, alone.theta, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(one.rule.inner_lr, alone.rule.inner_lr, rtol=1e-8, atol=1e-10)
