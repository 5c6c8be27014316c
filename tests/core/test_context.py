"""A learner that judges a query set in the light of the support set: in every loop, against a plain one."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.func import functional_call

from metalearn_core import (
    BaseLearner,
    Batch,
    CompiledMetaGradient,
    Settings,
    Task,
    evaluate,
    make_rule,
    meta_gradient,
)
from metalearn_core.kernels.by_steps import BySteps
from metalearn_core.kernels.scores import CompiledScores
from metalearn_core.training.meta_gradient import meta_gradients

ORDERS = ("first", "second")
close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)


class Standardised(nn.Module):
    """Hidden units less their mean over the support set, by their deviation there."""

    def __init__(self, uses_support=True):
        super().__init__()
        self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 1)
        self.uses_support = uses_support

    def forward(self, x, support=None):
        seen = self.first(x if support is None else support)
        hidden = (self.first(x) - seen.mean(0)) / (seen.std(0) + 0.1)
        return self.last(torch.tanh(hidden))


LEARNER = BaseLearner(Standardised(), nn.functional.mse_loss).to("cpu", torch.float64)
THETA = LEARNER.initial(torch.Generator().manual_seed(0))


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TASK = Task.of([drawn(s, 3, n, w) for s, n, w in ((1, 4, 2), (2, 4, 1), (3, 5, 2), (4, 5, 1))], stacked=True)


def rule_with(rate=0.125):  # a power of two is the same number in every precision
    return make_rule("gradient-descent", LEARNER.layout, inner_lr=rate, learn_lr="scalar").double()


def by_hand(rate, theta, steps, order):
    """Mean query loss, and the meta-gradients for θ⁰ and the inner learning rate, one task at a time."""
    theta, rate = theta.clone().requires_grad_(), torch.tensor(rate).double().requires_grad_()
    losses = []
    for i in range(len(TASK)):
        support, target, query, wanted = TASK[i].tensors
        now = LEARNER.layout.unflatten(theta)
        for _ in range(steps):
            loss = nn.functional.mse_loss(functional_call(LEARNER.module, now, (support,)), target)
            grads = torch.autograd.grad(loss, list(now.values()), create_graph=order == "second")
            now = {name: p - rate * g for (name, p), g in zip(now.items(), grads, strict=True)}
        losses.append(nn.functional.mse_loss(functional_call(LEARNER.module, now, (query, support)), wanted))
    loss = sum(losses) / len(losses)
    return loss.detach(), *torch.autograd.grad(loss, [theta, rate], materialize_grads=True)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_meta_gradient_flows_through_the_support_set(steps, order):
    loss, grad, phi = meta_gradient(rule_with(), LEARNER, THETA, TASK, steps=steps, order=order)
    close((loss, grad, phi["inner_lr"]), by_hand(0.125, THETA, steps, order))


@pytest.mark.parametrize("order", ORDERS)
def test_without_the_support_set_it_is_another_loss(order):
    alone = BaseLearner(Standardised(uses_support=False), nn.functional.mse_loss).to("cpu", torch.float64)
    ours, theirs = (
        meta_gradient(rule_with(), learner, THETA, TASK, steps=2, order=order) for learner in (LEARNER, alone)
    )
    assert not torch.allclose(ours[0], theirs[0], rtol=1e-3)
    assert alone.context(TASK) == ()


@pytest.mark.parametrize("order", ORDERS)
def test_seeds_and_long_unrolls_have_the_same(order):
    how = {"steps": 3, "order": order}
    thetas = torch.stack([THETA, THETA.flip(0)])
    rules = [rule_with(), rule_with(0.25)]
    phi = {"inner_lr": torch.stack([rule.inner_lr.detach() for rule in rules])}
    found = meta_gradients(rules[0], LEARNER, thetas, phi, TASK, **how)
    together = BySteps(rules[0], LEARNER, 3, order, seeds=True)(thetas, phi, TASK)
    for i, rule in enumerate(rules):
        wanted = meta_gradient(rule, LEARNER, thetas[i], TASK, **how)
        for answer in (found, together):
            close(
                (answer[0][i], answer[1][i], answer[2]["inner_lr"][i]), (*wanted[:2], wanted[2]["inner_lr"])
            )
        close(BySteps(rule, LEARNER, 3, order)(thetas[i], dict(rule.named_parameters()), TASK), wanted)


@pytest.mark.parametrize("every", [None, pytest.param(2, marks=pytest.mark.nightly)])
def test_compiled_programs_have_the_same(every):
    rule = rule_with()
    program = CompiledMetaGradient(rule, LEARNER, steps=2, checkpoint_every=every)
    close(program(THETA, TASK), meta_gradient(rule, LEARNER, THETA, TASK, steps=2))


class Fixed:
    """A family of the tasks above, again and again."""

    splits = ("train", "validation", "test")

    def sample(self, split, count, generator):
        return Task.of([x.repeat(-(-count // 3), 1, 1)[:count] for x in TASK.tensors], stacked=True)

    def examples(self, split):
        raise NotImplementedError


def test_scores_are_those_of_the_adapted_module_beside_the_support_set():
    settings = Settings(tasks=6, meta_batch=3, steps=2, validation_tasks=3, evaluation_batch=3)
    rule = rule_with()
    found = evaluate(rule, LEARNER, THETA, Fixed(), settings, split="test", tasks=3)
    assert found.shape == (3, 3)
    for steps in range(3):
        close(found[:, steps].mean(), by_hand(0.125, THETA, steps, "first")[0])
    close(CompiledScores(LEARNER, settings)(rule, THETA, TASK), found)


def test_a_prediction_is_made_beside_a_support_set():
    support, _, query, target = TASK[0].tensors
    module = LEARNER.module_at(THETA)
    close(LEARNER.predict(THETA, query, support), module(query, support))
    close(LEARNER.predict(THETA, query), module(query))
    assert LEARNER.with_module(module).uses_support
    close(LEARNER.loss(THETA, Batch(query, target), support),
          nn.functional.mse_loss(module(query, support), target))  # fmt: skip
