"""An elementwise rule is compared, on a few tasks together, with each of them alone before it is used."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from metalearn_core import (
    CompiledMetaGradient,
    Settings,
    UpdateRule,
    UsageError,
    adapt,
    evaluate,
    make_rule,
    meta_gradient,
    meta_train,
    rules,
    trajectory,
)
from metalearn_core.testing import TinySines, tiny_learner

LEARNER = tiny_learner()
THETA = LEARNER.initial(torch.Generator().manual_seed(0))


def tasks(count: int = 3):
    return TinySines().sample("train", count, torch.Generator().manual_seed(0))


class Descent(UpdateRule):
    elementwise = True

    def __init__(self, layout) -> None:
        super().__init__()
        self.inner_lr = nn.Parameter(torch.tensor(0.05))

    def update(self, theta, signal, state):
        return theta - self.inner_lr * self.step_from(signal), state


class Normalised(Descent):
    def step_from(self, signal):
        return signal.grad / signal.grad.square().mean().sqrt()


class Clipped(Descent):
    def step_from(self, signal):
        return signal.grad * (1 / (1 + signal.grad.norm()))


class AcrossTasks(Descent):
    def step_from(self, signal):
        return signal.grad - 0.5 * signal.grad.mean(0)


class ByTheLoss(Descent):
    uses_loss = True

    def step_from(self, signal):
        return signal.grad * signal.loss.mean()


class Decides(Descent):
    def step_from(self, signal):
        return signal.grad if bool(signal.grad.sum() > 0) else 2 * signal.grad


class ByTheState(UpdateRule):
    """The first update is right."""

    elementwise = True

    def __init__(self, layout) -> None:
        super().__init__()

    def init_state(self, theta):
        return torch.zeros_like(theta)

    def update(self, theta, signal, state):
        return theta - 0.05 * (signal.grad + state), signal.grad.mean() + 0 * signal.grad


class SlopeOfAll(torch.autograd.Function):
    """The identity; backward gives every task the mean slope."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.mean(0, keepdim=True).expand_as(grad) * torch.ones_like(grad)


class WrongSlope(Descent):
    def step_from(self, signal):
        return SlopeOfAll.apply(torch.arange(1.0, 1 + len(signal.grad)).unsqueeze(1) * 0 + signal.grad)


MIXING = [Normalised, Clipped, AcrossTasks, ByTheLoss, ByTheState]


def every_use(rule, task):
    yield lambda: adapt(rule, LEARNER, THETA, task.support, steps=2)
    yield lambda: torch.no_grad()(adapt)(rule, LEARNER, THETA, task.support, steps=2)
    yield lambda: trajectory(rule, LEARNER, THETA, task.support, steps=2, order="first")
    yield lambda: meta_gradient(rule, LEARNER, THETA, task, steps=2)
    yield lambda: evaluate(rule, LEARNER, THETA, TinySines(), Settings(steps=2), split="test", tasks=3)
    yield lambda: meta_train(
        rule, LEARNER, TinySines(),
        Settings(tasks=2, meta_batch=1, steps=2, validation_tasks=2, engine="eager"),
        generator=torch.Generator(),
    )  # fmt: skip


@pytest.mark.parametrize("kind", [*MIXING, Decides])
def test_a_rule_that_mixes_tasks_is_refused_by_name_in_every_use(kind):
    said = rf"^rule {kind.__name__} \(.*\): it declares elementwise, .*% off.*elementwise = False"
    for use in every_use(kind(LEARNER.layout), tasks()):
        with pytest.raises(UsageError, match=said) as caught:
            use()
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=said):
        CompiledMetaGradient(kind(LEARNER.layout), LEARNER, steps=2)(THETA, tasks())


def test_a_derivative_that_mixes_tasks_is_refused():
    with pytest.raises(UsageError, match=r"WrongSlope.* declares elementwise"):
        meta_gradient(WrongSlope(LEARNER.layout), LEARNER, THETA, tasks(), steps=1)


@pytest.mark.parametrize("kind", MIXING)
def test_the_remedy_works(kind):
    rule, task = kind(LEARNER.layout), tasks()
    rule.elementwise = False
    together = adapt(rule, LEARNER, THETA, task.support, steps=3)
    alone = [adapt(rule, LEARNER, THETA, task[i].support, steps=3) for i in range(3)]
    torch.testing.assert_close(together, torch.stack(alone))


def test_what_reduces_over_the_last_axis_is_taken():
    class OverTheLastAxis(Descent):
        def step_from(self, signal):
            return signal.grad / (1 + signal.grad.norm(dim=-1, keepdim=True))

    for use in every_use(OverTheLastAxis(LEARNER.layout), tasks()):
        use()


def test_one_task_and_no_steps_are_right_whatever_the_rule_declares():
    rule = Normalised(LEARNER.layout)
    adapt(rule, LEARNER, THETA, tasks()[0].support, steps=2)
    adapt(rule, LEARNER, THETA, tasks().support, steps=0)


def test_a_rule_may_refuse_to_be_checked():
    rule = Normalised(LEARNER.layout)
    rule.check_first_update = False
    for use in every_use(rule, tasks()):
        use()


class Rounds(Descent):
    """All of the update is rounding: (1e8 + g) − 1e8."""

    def step_from(self, signal):
        return signal.grad.sum(-1, keepdim=True) / 1e9 + (1e8 + signal.grad) - 1e8


class Cancels(Descent):
    """What depends on the order of a sum, blown up."""

    def step_from(self, signal):
        total = signal.grad.sum(-1, keepdim=True)
        return torch.sin(1e5 * (total - signal.grad.cumsum(-1)[..., -1:])) + signal.grad


class Explodes(Descent):
    def step_from(self, signal):
        return (100 * signal.grad).exp()


class Constant(Descent):
    def step_from(self, signal):
        return torch.ones_like(signal.grad.detach())


class Draws(Descent):
    def step_from(self, signal):
        return signal.grad + 0.1 * torch.randn_like(signal.grad)


class ReadsOneStep(Descent):
    """It has parameters for the first step alone."""

    uses_step = True

    def __init__(self, layout) -> None:
        super().__init__(layout)
        self.rates = [1.0]

    def update(self, theta, signal, state):
        return theta - self.rates[signal.step] * self.inner_lr * signal.grad, state


@pytest.mark.parametrize("kind", [Rounds, Cancels, Explodes, Constant, Draws, ReadsOneStep])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_chance_and_overflow_are_not_taken_for_mixing(kind, dtype):
    learner = LEARNER.to("cpu", dtype)
    support = tasks().support
    support = type(support)(support.inputs.to(dtype), support.targets.to(dtype), stacked=True)
    adapt(kind(LEARNER.layout).to(dtype), learner, THETA.to(dtype), support, steps=1)


OF_A_LEARNER_OF_THEIR_OWN = {"cavia", "proto-maml"}
"""Rules that are for a network with contexts, or with a head of logits."""


@pytest.mark.parametrize("name", sorted({*rules()} - OF_A_LEARNER_OF_THEIR_OWN))
def test_every_installed_rule_is_taken(name):
    for scale in (0.0, 1.0, 1e3, float("nan"), float("inf")):
        rule = make_rule(name, LEARNER.layout)
        adapt(rule, LEARNER, scale * THETA, tasks().support, steps=2)


CALLS: list[int] = []


class Counts(Descent):
    def step_from(self, signal):
        CALLS.append(len(signal.grad))
        self.seen = getattr(self, "seen", 0) + 1
        return signal.grad


def calls_of(use) -> list[int]:
    CALLS.clear()
    use()
    return list(CALLS)


def test_it_comes_once_for_each_shape_and_leaves_nothing_behind():
    rule, state = Counts(LEARNER.layout), torch.get_rng_state()
    go = functools.partial(adapt, rule, LEARNER, THETA, tasks(5).support, steps=2)
    assert len(calls_of(go)) > 2
    assert rule.seen == 2
    assert calls_of(go) == [5, 5]
    assert torch.equal(torch.get_rng_state(), state)


def test_what_torch_traces_does_not_contain_it():
    from torch.fx.experimental.proxy_tensor import make_fx

    rule, support = Counts(LEARNER.layout), tasks().support
    assert len(calls_of(lambda: make_fx(lambda t: adapt(rule, LEARNER, t, support, steps=1))(THETA))) == 1
