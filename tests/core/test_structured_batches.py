"""Batches that are pytrees, without targets, or padded: against the same written out in plain PyTorch."""

from __future__ import annotations

import functools

import pytest
import torch
from plain_loop import seeded
from seeds_alone import check_seeds_together_are_each_alone
from torch import nn
from torch.func import functional_call

from metalearn_core import (
    BaseLearner,
    Batch,
    CompiledMetaGradient,
    Settings,
    Task,
    UsageError,
    adapt,
    make_rule,
    meta_gradient,
    meta_train,
)
from metalearn_core.evaluation import scores
from metalearn_core.kernels.by_steps import BySteps
from metalearn_core.kernels.scores import CompiledScores

close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)
both_orders = pytest.mark.parametrize("order", ["first", "second"])


class Reader(nn.Module):
    """Words with an attention mask and a number beside them, in a dict; two answers, in a dict too."""

    def __init__(self):
        super().__init__()
        self.words, self.scale = nn.Linear(4, 3), nn.Linear(1, 3)
        self.mean, self.spread = nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, given):
        there = given["attention"].unsqueeze(-1)
        words = (self.words(given["words"]) * there).sum(1) / there.sum(1)
        hidden = torch.tanh(words + self.scale(given["beside"][0]))
        return {"mean": self.mean(hidden), "spread": self.spread(hidden)}


def likelihood(out, targets):
    return (out["spread"] + 0.5 * ((targets["y"] - out["mean"]) / out["spread"].exp()) ** 2).mean()


def examples(n, seed):
    attention = torch.ones(n, 5, dtype=torch.float64)
    attention[::2, 3:] = 0
    inputs = {"words": seeded(n, 5, 4, seed=seed), "attention": attention}
    return Batch({**inputs, "beside": (seeded(n, 1, seed=seed + 1),)}, {"y": seeded(n, 1, seed=seed + 2)})


MODULE = Reader().double()
LEARNER = BaseLearner(MODULE, likelihood)
THETA = LEARNER.initial(torch.Generator().manual_seed(3))
RULE = make_rule("gradient-descent", LEARNER.layout, inner_lr=0.1, learn_lr="scalar").double()
SIZES = [(3, 4), (5, 6), (2, 6)]
TASKS = [Task(examples(s, 10 * i), examples(q, 10 * i + 5)) for i, (s, q) in enumerate(SIZES)]
EQUAL = [Task(examples(3, 10 * i), examples(4, 10 * i + 5)) for i in range(3)]


def plain_loss(theta, batch):
    values, start = {}, 0
    for name, p in MODULE.named_parameters():
        values[name] = theta[start : start + p.numel()].view(p.shape)
        start += p.numel()
    return likelihood(functional_call(MODULE, values, (batch.inputs,)), batch.targets)


def expected(tasks, steps, order):
    """Each task by itself, without padding."""
    theta, loss = THETA.clone().requires_grad_(), 0
    for task in tasks:
        now = theta
        for _ in range(steps):
            (grad,) = torch.autograd.grad(plain_loss(now, task.support), now, create_graph=True)
            now = now - RULE.inner_lr * (grad.detach() if order == "first" else grad)
        loss = loss + plain_loss(now, task.query) / len(tasks)
    of_theta, of_lr = torch.autograd.grad(loss, [theta, RULE.inner_lr])
    return loss.detach(), of_theta, {"inner_lr": of_lr}


@both_orders
@pytest.mark.parametrize("padded", [False, True])
def test_meta_gradients_are_those_of_each_task_without_padding(order, padded):
    tasks = TASKS if padded else EQUAL
    batch = Task.stack(tasks, pad=padded)
    want = expected(tasks, 2, order)
    close(meta_gradient(RULE, LEARNER, THETA, batch, steps=2, order=order), want)
    phi = {name: p.detach() for name, p in RULE.named_parameters()}
    close(BySteps(RULE, LEARNER, 2, order)(THETA, phi, batch), want)
    slow = BaseLearner(MODULE, likelihood)
    slow.use_vmap = False
    close(meta_gradient(RULE, slow, THETA, batch, steps=2, order=order), want)


def test_a_padded_batch_adapts_as_its_tasks_alone():
    together = adapt(RULE, LEARNER, THETA, Task.stack(TASKS, pad=8).support, steps=2)
    close(together, torch.stack([adapt(RULE, LEARNER, THETA, task.support, steps=2) for task in TASKS]))


@pytest.mark.nightly
def test_compiled_it_is_the_eager_gradient():
    batch = Task.stack(TASKS, pad=True)
    want = meta_gradient(RULE, LEARNER, THETA, batch, steps=2)
    close(CompiledMetaGradient(RULE, LEARNER, steps=2)(THETA, batch), want)
    close(CompiledMetaGradient(RULE, LEARNER, steps=2, checkpoint_every=1)(THETA, batch), want)
    settings = Settings(steps=2)
    close(
        CompiledScores(LEARNER, settings)(RULE, THETA, batch), scores(RULE, LEARNER, THETA, batch, settings)
    )


def test_a_loss_may_ask_for_no_targets():
    """An autoencoder: the inputs are what it is compared with."""
    network = nn.Linear(3, 3).double()

    def stays(pair, targets):
        assert targets is None
        return (pair[0] - pair[1]).square().mean()

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, x):
            return self.inner(x), x

    learner = BaseLearner(Both(), stays)
    inputs = seeded(2, 4, 3, seed=1)
    task = Task(Batch(inputs, None, stacked=True), Batch(inputs + 1, None, stacked=True), stacked=True)
    theta = learner.initial(torch.Generator())
    rule = make_rule("gradient-descent", learner.layout, inner_lr=0.1).double()
    ours = meta_gradient(rule, learner, theta, task, steps=1)[0]
    losses = []
    for x in inputs:
        at = theta.clone().requires_grad_()

        def error(now, x):
            return (x @ now[:9].view(3, 3).T + now[9:] - x).square().mean()

        (grad,) = torch.autograd.grad(error(at, x), at)
        losses.append(error(theta - 0.1 * grad, x + 1))
    close(ours, sum(losses) / 2)


class Family:
    """Tasks of the dict, every block padded to one size."""

    splits = ("train", "validation", "test")

    def sample(self, split, count, generator):
        sizes = torch.randint(1, 4, (count,), generator=generator).tolist()
        return Task.stack([Task(examples(n, n), examples(4 - n, 9)) for n in sizes], pad=4)


def test_it_trains():
    settings = Settings(tasks=6, meta_batch=3, steps=1, validation_tasks=4)
    generator = torch.Generator().manual_seed(0)
    trained = meta_train(RULE, LEARNER, Family(), settings, generator=generator)
    assert trained.position == 6
    assert trained.diverged is None


def test_padding_adds_a_mask_and_can_be_taken_apart():
    batch = Task.stack(TASKS, pad=True)
    assert batch.support.mask.sum(1).tolist() == [s for s, _ in SIZES]
    assert batch.query.mask.sum(1).tolist() == [q for _, q in SIZES]
    assert batch[1].support.mask.shape == (5,)
    assert len(batch[:2]) == 2
    assert Task.concatenate([batch, Task.stack(TASKS[:1], pad=7)]).support.mask.shape == (4, 7)
    assert batch.to("cpu", torch.float32).support.inputs["words"].dtype == torch.float32
    assert batch.to("cpu", torch.float32).support.mask.dtype == torch.bool


REFUSED = [
    (
        lambda: Batch({"a": torch.zeros(3, 1), "b": torch.zeros(2)}, None),
        r"agree .* {'a': \(3, 1\), 'b': \(2",
    ),
    (lambda: Batch({}, None), "must be tensors"),
    (lambda: Batch(torch.zeros(3, 1), "labels"), "got .* and str"),
    (lambda: Batch(torch.zeros(3, 1), None, mask=torch.ones(3)), "mask must be booleans of shape"),
    (lambda: Batch(torch.zeros(3, 1), None, mask=[True] * 3), "mask must be a Tensor or a? ?None"),
    (lambda: Task.stack(TASKS), "tasks of the same shapes"),
    (lambda: Task.stack(TASKS, pad=2), "pad must be True or at least 6, got 2: support and query sets"),
    (lambda: Task(examples(3, 0), Batch(torch.zeros(3, 1), torch.zeros(3, 1))), "support and query inputs"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_does_not_fit_is_said_in_one_line(make, message):
    with pytest.raises(UsageError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


class Drawn:
    """Draws meta-batches of the ragged tasks above, padded."""

    splits = ("train", "validation", "test")

    def sample(self, split, count, generator):
        places = torch.randint(len(TASKS), (count,), generator=generator).tolist()
        return Task.stack([TASKS[place] for place in places], pad=6)


def test_seeds_together_are_each_alone():
    check_seeds_together_are_each_alone(LEARNER, Drawn())
