"""Pretraining as meta-training with T = 0, the head alone, and training from scratch as torch has it."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from metalearn_benchmarks.learners.head import Head
from metalearn_benchmarks.learners.perceptron import multilayer_perceptron
from metalearn_benchmarks.tasks.minibatches import FlatFamily
from metalearn_benchmarks.tasks.sine import SineFamily
from metalearn_core import (
    BaseLearner,
    Settings,
    TaskFamily,
    TaskStream,
    UsageError,
    adapt,
    evaluate,
    make_rule,
    meta_train,
    seeded_generator,
)
from metalearn_core.testing import TinySines

FAMILY = SineFamily(example_tasks=20)
SLOW = {"optimizer": "adam", "inner_lr": 0.001}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learner(dtype: torch.dtype = torch.float64) -> BaseLearner:
    return multilayer_perceptron(hidden=(12, 8)).to("cpu", dtype)


def test_minibatches_come_from_the_flat_data():
    flat = FlatFamily(FAMILY, minibatch=16)
    task = flat.sample("train", 40, seeded())
    assert isinstance(flat, TaskFamily)
    assert flat.splits == FAMILY.splits
    assert [tuple(t.shape) for t in task.tensors] == [(40, 16, 1)] * 4
    assert torch.equal(task.support.inputs, task.query.inputs)
    assert torch.equal(task.support.targets, task.query.targets)
    data = FAMILY.examples("train")
    pairs = torch.cat([data.inputs, data.targets], 1)
    drawn = torch.cat([task.query.inputs, task.query.targets], -1).reshape(-1, 2)
    at = (drawn[:, None] == pairs).all(-1)
    assert at.any(1).all()  # input and target together
    assert at.any(0).sum() > 400  # of 1100: all over the data, not a corner of it
    assert len({tuple(row) for row in drawn[:16].tolist()}) > 12
    assert torch.equal(flat.sample("train", 40, seeded()).query.inputs, task.query.inputs)
    assert not torch.equal(flat.sample("train", 40, seeded(1)).query.inputs, task.query.inputs)
    assert not torch.isin(flat.sample("test", 1, seeded()).query.inputs, data.inputs).any()


def test_the_flat_data_is_asked_for_once():
    class Counted(SineFamily):
        def examples(self, split):
            asked.append(split)
            return super().examples(split)

    asked: list[str] = []
    flat = FlatFamily(Counted(example_tasks=2), 3)
    for split in ("train", "test", "train", "train"):
        flat.sample(split, 2, seeded())
    assert asked == ["train", "test"]


def test_pretraining_is_adam_on_minibatches():
    start, settings = learner(), Settings(tasks=30, steps=0, outer_lr=0.01, validation_tasks=1)
    rule = make_rule("gradient-descent", start.layout)
    trained = meta_train(rule, start, FlatFamily(FAMILY, 16), settings, generator=seeded(3))
    module = start.module_at(start.initial(seeded(3)))
    adam = torch.optim.Adam(module.parameters(), lr=0.01)
    batches = FlatFamily(FAMILY, 16).sample("train", 100, seeded_generator(0, "train", 0)).support
    for x, y in list(zip(batches.inputs, batches.targets, strict=True))[:30]:
        adam.zero_grad()
        mse_loss(module(x.double()), y.double()).backward()
        adam.step()
    expected = torch.cat([p.detach().flatten() for p in module.parameters()])
    torch.testing.assert_close(trained.theta.detach(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("module", "name", "size"),
    [
        (nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 2)), "2", 8),
        (nn.Sequential(nn.Linear(1, 3), nn.Sequential(nn.Tanh(), nn.Linear(3, 1))), "1.1", 4),
        (nn.Sequential(OrderedDict(out2=nn.Linear(1, 3), out=nn.Linear(3, 1))), "out", 4),  # not out2
        (nn.Linear(2, 1), "", 3),
    ],
)
def test_the_head_is_the_last_layer(module, name, size):
    whole = BaseLearner(module, mse_loss)
    theta = torch.arange(float(whole.layout.size))
    head, own = Head(whole).freeze_body(theta)
    assert Head(whole).name == name
    assert torch.equal(own, theta[-size:])
    assert head.layout.size == size
    assert {n for n, p in head.module.named_parameters() if p.requires_grad} == set(head.layout.names)
    assert all(n.rpartition(".")[0] == name for n in head.layout.names)
    x = torch.rand(4, next(p for p in module.parameters()).shape[-1])
    torch.testing.assert_close(head.predict(own, x), whole.predict(theta, x))
    assert whole.layout.size == theta.numel()  # the learner given is as it was
    assert all(p.requires_grad for p in whole.module.parameters())


def test_the_head_keeps_loss_score_and_what_was_frozen():
    module = nn.Sequential(nn.Linear(1, 3), nn.Linear(3, 1))
    module[1].bias.requires_grad_(False)
    whole = BaseLearner(module, mse_loss, lambda p, t: -(p - t).abs().mean())
    head, _ = Head(whole).freeze_body(whole.initial(seeded()))
    assert head.higher_is_better
    assert head.layout.names == ("1.weight",)


def test_adapting_the_head_alone_leaves_the_body():
    whole = learner()
    theta = whole.initial(seeded())
    head, own = Head(whole).freeze_body(theta)
    before = copy.deepcopy(head.module.state_dict())
    task = FAMILY.sample("test", 3, seeded()).to("cpu", torch.float64)
    adapted = adapt(make_rule("gradient-descent", head.layout), head, own, task.support, steps=5)
    assert adapted.shape == (3, 9)
    assert (adapted - own).abs().amax(1).min() > 0
    assert all(torch.equal(v, before[k]) for k, v in head.module.state_dict().items())
    for one in adapted.detach():
        after = dict(head.module_at(one).named_parameters())
        body = {name: value for name, value in whole.layout.unflatten(theta).items() if name[0] != "4"}
        assert len(body) == 4
        assert all(torch.equal(after[name], value) for name, value in body.items())


@pytest.mark.parametrize("only_head", [False, True])
def test_training_from_scratch_and_finetuning_are_torchs_adam_on_one_task_at_a_time(only_head):
    whole, steps = learner(), 100
    theta = whole.initial(seeded(1))
    tested, start = Head(whole).freeze_body(theta) if only_head else (whole, theta)
    rule = make_rule("gradient-descent", tested.layout, **SLOW)
    settings = Settings(test_steps=steps)
    scores = evaluate(rule, tested, start, FAMILY, settings, split="test", tasks=3)
    tasks = TaskStream(FAMILY, "test", 0, torch.device("cpu"), torch.float64).take(0, 3)
    for row, task in zip(scores, tasks, strict=True):
        module = whole.module_at(theta)
        last = list(module.children())[-1]
        adam = torch.optim.Adam((last if only_head else module).parameters(), lr=0.001)
        expected = []
        for _ in range(steps + 1):
            expected.append(mse_loss(module(task.query.inputs), task.query.targets).detach())
            adam.zero_grad()
            mse_loss(module(task.support.inputs), task.support.targets).backward()
            adam.step()
        torch.testing.assert_close(row, torch.stack(expected), rtol=0, atol=1e-9)
        assert (row[-1] - row[0]).abs() > 1e-3


def test_a_family_without_flat_data_is_told_so():
    with pytest.raises(
        UsageError, match=r"TinySines has no flat data to pretrain on .*leave out the methods"
    ):
        FlatFamily(TinySines(), 4).examples("train")
