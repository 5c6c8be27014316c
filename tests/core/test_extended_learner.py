"""`BaseLearner` as a base class: what subclasses override, and that copies keep it."""

from __future__ import annotations

import copy
import functools
from typing import ClassVar

import pytest
import torch
from plain_loop import networks
from seeds_alone import check_seeds_together_are_each_alone
from torch import nn

from metalearn_core import (
    BaseLearner,
    CompiledMetaGradient,
    Settings,
    UpdateRule,
    UsageError,
    adapt,
    make_rule,
    meta_gradient,
    meta_train,
)
from metalearn_core.errors import TrainingWarning
from metalearn_core.kernels.by_steps import BySteps
from metalearn_core.kernels.programs import CompilationError
from metalearn_core.testing import TinySines, check_update_rule, tiny_learner

NET = networks()["tanh"]
close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)


class Annealed(BaseLearner):
    """A penalty on the support set alone, which fades from step to step; a query set with a mean to meet."""

    def __init__(self, *given, strength=0.5):
        super().__init__(*given)
        self.strength = torch.tensor(strength, dtype=torch.float64)

    def support_loss(self, theta, batch, step):
        return self.loss(theta, batch) + self.strength / (1 + step) * theta.square().mean()

    def context(self, task):
        return ({"mean": task.support.targets.mean(-2)},)

    def loss(self, theta, batch, support=None):
        plain = super().loss(theta, batch)
        if support is None:
            return plain
        return plain + (self.predict(theta, batch.inputs).mean(-2) - support["mean"]).square().mean()


class SharpnessAware(UpdateRule):
    """θ ← θ − α ∇L(θ + ∇L/10), which asks for the support loss of the step."""

    uses_support = True

    def __init__(self, layout):
        super().__init__()
        self.inner_lr = nn.Parameter(torch.tensor(0.1))

    def update(self, theta, signal, state):
        worse = signal.support.gradient(signal.support.loss, theta + 0.1 * signal.grad)
        return theta - self.inner_lr * worse, state


LEARNER = Annealed(NET.module, NET.loss)
THETA, TASK = NET.theta, NET.task()
RULE = make_rule("gradient-descent", LEARNER.layout, inner_lr=0.1, learn_lr="scalar").double()


def expected(steps, order):
    theta, loss = THETA.clone().requires_grad_(), 0
    for i in range(len(TASK)):
        inputs, targets, query, truth = TASK[i].tensors
        now = theta
        for step in range(steps):
            total = NET.value(now, inputs, targets) + 0.5 / (1 + step) * now.square().mean()
            (grad,) = torch.autograd.grad(total, now, create_graph=True)
            now = now - RULE.inner_lr * (grad.detach() if order == "first" else grad)
        met = (NET.learner.predict(now, query).mean(0) - targets.mean(0)).square().mean()
        loss = loss + (NET.value(now, query, truth) + met) / len(TASK)
    of_theta, of_lr = torch.autograd.grad(loss, [theta, RULE.inner_lr])
    return loss.detach(), of_theta, {"inner_lr": of_lr}


@pytest.mark.parametrize("order", ["first", "second"])
def test_support_loss_and_context_are_used(order):
    want = expected(3, order)
    close(meta_gradient(RULE, LEARNER, THETA, TASK, steps=3, order=order), want)
    phi = {name: p.detach() for name, p in RULE.named_parameters()}
    close(BySteps(RULE, LEARNER, 3, order)(THETA, phi, TASK), want)


def test_a_batch_is_its_tasks_alone():
    alone = [adapt(RULE, LEARNER, THETA, TASK[i].support, steps=2) for i in range(len(TASK))]
    close(adapt(RULE, LEARNER, THETA, TASK.support, steps=2), torch.stack(alone))


def test_a_loss_for_each_step_is_not_compiled_step_by_step_and_says_why():
    program = CompiledMetaGradient(RULE, LEARNER, steps=2, checkpoint_every=1)
    with pytest.raises(CompilationError, match="support_loss may read the step: a program each"):
        program(THETA, TASK)


@pytest.mark.parametrize("make", [SharpnessAware, "gradient-descent"])
def test_the_kit_looks_at_rules_with_its_losses(make):
    found = check_update_rule(make, problem=(LEARNER, THETA, TASK))
    assert [(result.law, result.message) for result in found if result.status == "failed"] == []


@pytest.mark.nightly
def test_compiled_it_is_the_eager_gradient():
    ours = CompiledMetaGradient(RULE, LEARNER, steps=2)(THETA, TASK)
    close(ours, meta_gradient(RULE, LEARNER, THETA, TASK, steps=2))


COPIES = {
    "to": lambda learner: learner.to("cpu", torch.float32),
    "with_module": lambda learner: learner.with_module(learner.module_at(THETA)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_every_copy_keeps_the_subclass_and_what_it_holds(make):
    copied = make(LEARNER)
    assert type(copied) is Annealed
    assert copied.strength == 0.5
    assert copied.has_support_loss
    assert copied.strength.dtype == copied.dtype


def of_support(function):
    """A base-learner with this support loss."""
    function.__name__ = "support_loss"
    return type("Own", (BaseLearner,), {"support_loss": function})(NET.module, NET.loss)


REFUSED = [
    (lambda self, theta, batch: self.loss(theta, batch), r"support_loss raised TypeError: .* 4 were given"),
    (lambda self, theta, batch, step: self.loss(theta, batch).item(), r"support_loss .* as a tensor, got \d"),
    (lambda self, theta, batch, step: None, "support_loss must return one number, .* got None"),
    (lambda self, theta, batch, step: theta, r"support_loss must return one number, .* got shape \(\d+,\)"),
    (
        lambda self, theta, batch, step: self.loss(theta, batch) + torch.randn(()),
        "support_loss raised RuntimeError: .*: the same arguments must give the same answer",
    ),
]


@pytest.mark.parametrize(("function", "message"), REFUSED)
def test_what_does_not_fit_is_said_in_one_line(function, message):
    with pytest.raises(UsageError, match=f"base-learner Sequential: {message}") as error:
        adapt(RULE, of_support(function), THETA, TASK.support, steps=1)
    assert "\n" not in str(error.value)


def test_a_loss_that_is_overridden_must_give_one_number():
    class Own(BaseLearner):
        def loss(self, theta, batch, support=None):
            return theta

    learner = Own(NET.module, NET.loss)
    with pytest.raises(UsageError, match=r"base-learner Sequential: loss must return one number"):
        adapt(RULE, learner, THETA, TASK.support, steps=1)


def test_a_support_loss_without_a_gradient_is_warned_of():
    def constant(self, theta, batch, step):
        with torch.no_grad():
            return self.loss(theta, batch)

    with pytest.warns(TrainingWarning, match="its support_loss has no gradient for θ, so every update"):
        adapt(RULE, of_support(constant), THETA, TASK.support, steps=1)


def test_it_is_what_trains():
    class Counting(BaseLearner):
        steps: ClassVar = set()

        def support_loss(self, theta, batch, step):
            self.steps.add(step)
            return self.loss(theta, batch)

    plain = tiny_learner()
    learner = Counting(plain.module, nn.functional.mse_loss)
    settings = Settings(tasks=2, steps=3, validation_tasks=2, engine="eager")
    trained = meta_train(
        make_rule("gradient-descent", learner.layout), learner, TinySines(), settings,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert type(trained.learner) is Counting
    assert Counting.steps == {0, 1, 2}


def test_seeds_together_are_each_alone():
    """With a support loss and a context of its own, which each seed's tasks bring."""
    learner = Annealed(tiny_learner().module.double(), nn.functional.mse_loss)
    check_seeds_together_are_each_alone(learner, TinySines())
