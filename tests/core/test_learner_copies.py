"""Copies of a base-learner keep its class, loss and score; several threads may share one learner."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from metalearn_core import BaseLearner, Batch, Task, adapt, forked_rng, make_rule, meta_gradient


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sines(count: int = 4) -> Task:
    x = torch.rand(count, 15, 1, generator=seeded(1))
    y = torch.sin(x + torch.rand(count, 1, 1, generator=seeded(2)))
    return Task(Batch(x[:, :5], y[:, :5]), Batch(x[:, 5:], y[:, 5:]), stacked=True)


class Weighted(BaseLearner):
    """Adds a penalty to the loss, and scores in a way of its own."""

    def __init__(self, module: nn.Module, penalty: float) -> None:
        super().__init__(module, mse_loss)
        self.penalty = torch.tensor(penalty)

    def loss(self, theta, batch, support=None):
        return super().loss(theta, batch, support) + self.penalty * theta.square().sum()

    def score(self, theta, batch, support=None):
        return theta.sum() * 0 + 7.0


COPIES = {
    "to": lambda learner: learner.to("cpu"),
    "to float64": lambda learner: learner.to("cpu", torch.float64),
    "with_module": lambda learner: learner.with_module(learner.module),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda learner: pickle.loads(pickle.dumps(learner)),
}


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_keeps_the_subclass_and_its_own_loss_and_score(way):
    learner = Weighted(nn.Linear(1, 1), penalty=3.0)
    copied = COPIES[way](learner)
    assert type(copied) is Weighted
    theta = torch.tensor([1.0, 2.0], dtype=copied.dtype)  # predicts x + 2
    batch = Batch(torch.zeros(3, 1, dtype=copied.dtype), torch.zeros(3, 1, dtype=copied.dtype))
    assert float(copied.loss(theta, batch)) == 4 + 3 * 5
    assert float(copied.score(theta, batch)) == 7
    assert copied.penalty.dtype is (copied.dtype if way.startswith("to") else torch.float32)
    assert learner.penalty.dtype is torch.float32
    rule = make_rule("gradient-descent", copied.layout, inner_lr=0.1).to(copied.dtype)
    task = sines().to("cpu", copied.dtype)
    plain = BaseLearner(nn.Linear(1, 1), mse_loss).to("cpu", copied.dtype)
    ours, theirs = (meta_gradient(rule, one, theta, task, steps=1)[1] for one in (copied, plain))
    assert not torch.allclose(ours, theirs)


def test_a_loss_that_is_a_module_moves_with_the_learner():
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))
    learner = BaseLearner(nn.Linear(2, 2), loss).to("cpu", torch.float64)
    theta = torch.zeros(6, dtype=torch.float64)
    batch = Batch(torch.ones(2, 2, dtype=torch.float64), torch.tensor([0, 1]))
    assert learner.loss(theta, batch).dtype is torch.float64
    assert loss.weight.dtype is torch.float32


def together(functions):
    """What each function gives, all of them called in threads of their own at the same time."""
    found, start = [None] * len(functions), threading.Barrier(len(functions))

    def call(index):
        start.wait()
        try:
            found[index] = functions[index]()
        except Exception as error:
            found[index] = error

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_four_threads_get_from_one_learner_what_they_get_alone():
    learner = BaseLearner(nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 1)), mse_loss)
    rule, tasks = make_rule("gradient-descent", learner.layout), sines()
    thetas = [learner.initial(seeded(i)) for i in range(4)]
    calls = [
        lambda i=i: adapt(rule, learner, thetas[i], tasks[i].support, steps=3).detach() for i in range(4)
    ]
    expected = [call() for call in calls]
    for _ in range(25):
        for found, wanted in zip(together(calls), expected, strict=True):
            assert torch.equal(found, wanted), found


def test_four_threads_draw_what_they_draw_alone():
    learners = [BaseLearner(nn.Sequential(nn.Linear(3, 30), nn.Linear(30, 3)), mse_loss) for _ in range(4)]
    calls = [lambda i=i: learners[i].initial(seeded(i)) for i in range(4)]
    expected, before = [call() for call in calls], torch.get_rng_state()
    for _ in range(25):
        for found, wanted in zip(together(calls), expected, strict=True):
            assert torch.equal(found, wanted), found
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_that_copy_and_read_one_learner_leave_it_whole():
    learner = BaseLearner(nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 1)), mse_loss)
    rule, tasks, theta = make_rule("gradient-descent", learner.layout), sines(), learner.initial(seeded())
    calls = [
        lambda: meta_gradient(rule, learner, theta, tasks, steps=2)[1],
        lambda: learner.initial(seeded()),
        lambda: torch.cat([p.detach().flatten() for p in learner.module_at(theta).parameters()]),
        lambda: learner.to("cpu", torch.float64).initial(seeded()),
    ]
    expected = [call() for call in calls]
    for _ in range(25):
        for found, wanted in zip(together(calls), expected, strict=True):
            assert torch.equal(found, wanted), found


def test_the_global_generator_is_seeded_for_one_thread_at_a_time():
    first_is_in, second_is_in, first_has_drawn = (threading.Event() for _ in range(3))

    def first():
        with forked_rng(seeded(1)):
            first_is_in.set()
            second_is_in.wait(0.2)  # it cannot be, as long as this one is
            drawn = torch.rand(3)
            first_has_drawn.set()
        return drawn

    def second():
        first_is_in.wait()
        with forked_rng(seeded(2)):
            second_is_in.set()
            first_has_drawn.wait(0.2)
            return torch.rand(3)

    expected = []
    for seed in (1, 2):
        with forked_rng(seeded(seed)):
            expected.append(torch.rand(3))
    for found, wanted in zip(together([first, second]), expected, strict=True):
        assert torch.equal(found, wanted), found
