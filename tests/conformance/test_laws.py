"""Every law for every shipped rule, by name, so that it runs against what is installed."""

import functools
import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

from metalearn_core import UpdateRule, UsageError, make_rule
from metalearn_core.testing import LAWS, check_update_rule

RULES = {
    f"{rule}-{name}": functools.partial(make_rule, rule, **options)
    for rule, rows in tomllib.loads(Path(__file__).with_name("rules.toml").read_text()).items()
    for name, options in rows.items()
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("rule", RULES)
def test_shipped_rules_keep_every_law(rule, law):
    # a rule makes one of the two declarations, or neither: then there is nothing to check
    LAWS[law](lambda layout: RULES[rule](layout))


class Descent(UpdateRule):
    """A good rule with memory, for one task, for the broken ones to spoil."""

    def __init__(self, layout):
        super().__init__()
        self.inner_lr = nn.Parameter(torch.tensor(0.1))

    def init_state(self, theta):
        return {"velocity": torch.zeros_like(theta)}

    def update(self, theta, signal, state):
        velocity = 0.9 * state["velocity"] + signal.grad
        return theta - self.inner_lr * velocity, {"velocity": velocity}


class WritesToTheta(Descent):
    def update(self, theta, signal, state):
        theta -= self.inner_lr.detach() * signal.grad
        return theta + 0 * self.inner_lr, state


class WritesToTheState(Descent):
    def update(self, theta, signal, state):
        state["velocity"].mul_(0.9).add_(signal.grad)
        return theta - self.inner_lr * state["velocity"], state


class RemembersOnItself(Descent):
    velocity = 0.0

    def update(self, theta, signal, state):
        self.velocity = 0.9 * self.velocity + signal.grad
        return theta - self.inner_lr * self.velocity, state


class CountsInABuffer(Descent):
    def __init__(self, layout):
        super().__init__(layout)
        self.register_buffer("calls", torch.zeros(()))

    def update(self, theta, signal, state):
        self.calls += 1
        return theta - self.inner_lr / self.calls * signal.grad, state


class Noisy(Descent):
    def update(self, theta, signal, state):
        return theta - self.inner_lr * (signal.grad + torch.randn_like(theta)), state


class OfAnotherType(Descent):
    def update(self, theta, signal, state):
        return (theta - self.inner_lr * signal.grad).float(), state


class OfAnotherShape(Descent):
    def update(self, theta, signal, state):
        return (theta - self.inner_lr * signal.grad).unsqueeze(0), state


class Grows(Descent):
    def update(self, theta, signal, state):
        past = torch.cat([state["velocity"], signal.grad])
        return theta - self.inner_lr * signal.grad, {"velocity": past}


class RenamesItsState(Descent):
    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad, {"momentum": signal.grad}


class StateOfNumbers(Descent):
    """An int, which every task would share."""

    def init_state(self, theta):
        return 0

    def update(self, theta, signal, state):
        return theta - self.inner_lr / (1 + state) * signal.grad, state + 1


class NoTuple(Descent):
    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad


class Detaches(Descent):
    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad.detach(), state


class DetachesTheLoss(Descent):
    uses_loss = True

    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.loss.detach() * signal.grad, state


class UsesLossUndeclared(Descent):
    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.loss * signal.grad, state


class UsesStepUndeclared(Descent):
    def update(self, theta, signal, state):
        return theta - self.inner_lr / (1 + signal.step) * signal.grad, state


class ForgetsItsParameter(Descent):
    def update(self, theta, signal, state):
        return theta - self.inner_lr.item() * signal.grad, state


class CutsTheStart(Descent):
    def update(self, theta, signal, state):
        return theta.detach() - self.inner_lr * signal.grad.detach(), state


class RootAtZero(Descent):
    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad / (signal.grad.square().sqrt() + 1e-3), state


class WithoutCare(Descent):
    """1 − cos x ≈ x²/2, which float32 loses where x is small."""

    def update(self, theta, signal, state):
        x = 1e-4 * signal.grad
        return theta - self.inner_lr * (1 - x.cos()) * 2e8, state


class Branches(Descent):
    def update(self, theta, signal, state):
        sign = 1 if signal.grad.sum() > 0 else -1
        return theta - sign * self.inner_lr * signal.grad, state


class MixesTasks(Descent):
    elementwise = True

    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad / (1 + signal.grad.norm()), state


class MixesCoordinates(Descent):
    elementwise = True

    def update(self, theta, signal, state):
        norm = signal.grad.norm(dim=-1, keepdim=True)
        return theta - self.inner_lr * signal.grad / (1 + norm), state


class SharesItsState(Descent):
    elementwise = True

    def init_state(self, theta):
        return torch.zeros((), dtype=theta.dtype)

    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad, state


class KnowsCoordinates(Descent):
    coordinatewise = True

    def __init__(self, layout):
        super().__init__(layout)
        self.inner_lr = nn.Parameter(torch.linspace(0, 1, layout.size))


class NotInTheStateDict(Descent):
    def __init__(self, layout):
        super().__init__(layout)
        self.drawn = float(torch.rand(()))

    def update(self, theta, signal, state):
        return theta - self.drawn * self.inner_lr * signal.grad, state


class WritesAtTheStart(Descent):
    def init_state(self, theta):
        theta.mul_(0.5)
        return super().init_state(theta)


class PassesHalfOn(Descent):
    """Half of its memory hangs on the class."""

    elementwise = True
    memory = torch.zeros(())

    def update(self, theta, signal, state):
        velocity = 0.9 * type(self).memory + signal.grad
        type(self).memory = signal.grad.detach().mean()
        return theta - self.inner_lr * velocity, state


class ReadsANumber(Descent):
    def update(self, theta, signal, state):
        return theta - self.inner_lr / (1 + signal.grad.norm().item()) * signal.grad, state


class ScalesByTheBatch(Descent):
    elementwise = uses_loss = True

    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.loss.mean() * signal.grad, state


class HidesFromAutograd(Descent):
    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad.data, state


class Doubled(torch.autograd.Function):
    """The identity, with twice its derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


class LiesUnderVmap(Descent):
    """Its derivative for θ is another one when it is batched."""

    def update(self, theta, signal, state):
        batched = torch._C._functorch.is_batchedtensor(theta)
        return (Doubled.apply(theta) if batched else theta) - self.inner_lr * signal.grad, state


class Explodes(Descent):
    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad.exp(), state


class KeepsThePast(Descent):
    past = []  # noqa: RUF012

    def update(self, theta, signal, state):
        KeepsThePast.past.append(signal.grad.detach().sum() * torch.ones(3))
        return theta - self.inner_lr * signal.grad, state


class ClaimsToBeDescent(Descent):
    """Its second step is another one, for it has momentum."""

    starts_as_descent = True


BROKEN = [
    (ReadsANumber, "batch", ".item()"),
    (ScalesByTheBatch, "batch", "one by one"),
    (HidesFromAutograd, "order", ".data"),
    (LiesUnderVmap, "unrolled", "under vmap"),
    (Explodes, "extremes", "1e+12"),
    (KeepsThePast, "memory", "no list"),
    (ClaimsToBeDescent, "starts-as-descent", "starts_as_descent = False"),
    (WritesToTheta, "no-writes", "theta"),
    (WritesToTheState, "no-writes", "state"),
    (RemembersOnItself, "no-writes", "self.velocity"),
    (CountsInABuffer, "no-writes", "self._buffers['calls']"),
    (WritesAtTheStart, "zero-steps", "init_state"),
    (RemembersOnItself, "deterministic", "outside the state"),
    (Noisy, "deterministic", "random numbers"),
    (OfAnotherType, "structure", "float32"),
    (OfAnotherShape, "structure", "(1, 8)"),
    (Grows, "structure", "(16,)"),
    (RenamesItsState, "structure", "momentum"),
    (StateOfNumbers, "structure", "init_state must return tensors"),
    (NoTuple, "structure", "(theta, state)"),
    (Detaches, "order", "signal.grad"),
    (DetachesTheLoss, "order", "signal.loss"),
    (UsesLossUndeclared, "declares", "uses_loss = True"),
    (UsesStepUndeclared, "declares", "uses_step = True"),
    (ForgetsItsParameter, "meta-gradients", "inner_lr"),
    (CutsTheStart, "meta-gradients", "theta0"),
    (RootAtZero, "meta-gradients", "not finite"),
    (WithoutCare, "precision", "float32"),
    (Branches, "batch", "data-dependent control flow"),
    (MixesTasks, "batch", "one by one"),
    (PassesHalfOn, "steps", "in the state"),
    (MixesTasks, "elementwise", "rows one by one"),
    (MixesCoordinates, "elementwise", "one coordinate"),
    (SharesItsState, "elementwise", "state must lead"),
    (KnowsCoordinates, "coordinatewise", "coordinatewise = False"),
    (NotInTheStateDict, "state-dict", "register"),
]


@pytest.mark.parametrize(("rule", "law", "said"), BROKEN, ids=lambda x: getattr(x, "__name__", x))
def test_a_broken_rule_fails_the_law_meant_for_it(rule, law, said):
    results = {result.law: result for result in check_update_rule(rule)}
    assert results[law].status == "failed"
    assert said in results[law].message


def test_a_good_rule_passes_and_a_broken_one_is_known_for_every_law():
    results = {result.law: result.status for result in check_update_rule(Descent)}
    undeclared = {"coordinatewise", "elementwise", "starts-as-descent"}
    assert results == {law: "skipped" if law in undeclared else "passed" for law in LAWS}
    assert {law for _, law, _ in BROKEN} == set(LAWS)


def test_laws_are_skipped_by_name():
    results = {r.law: r.status for r in check_update_rule(Detaches, skip=["order"])}
    assert results["order"] == "skipped"
    assert "failed" not in results.values()
    with pytest.raises(UsageError, match="unknown law 'ordre': did you mean 'order'"):
        check_update_rule(Descent, skip=["ordre"])


def test_a_rule_that_cannot_be_made_fails_with_its_own_message():
    def broken(layout):
        raise RuntimeError("no such thing")

    results = check_update_rule(broken)
    assert [r.law for r in results] == list(LAWS)
    assert {(r.status, r.message) for r in results} == {("failed", "RuntimeError: no such thing")}
