"""Every law for every shipped rule, by name, so that it runs against what is installed."""

import collections
import functools
import tomllib
from pathlib import Path

import attrs
import numpy as np
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


class ReturnsADetachedState(Descent):
    def update(self, theta, signal, state):
        velocity = 0.9 * state["velocity"] + signal.grad
        return theta - self.inner_lr * velocity, {"velocity": velocity.detach()}


class DetachesTheDecay(Descent):
    def update(self, theta, signal, state):
        return theta - self.inner_lr * (signal.grad + 0.01 * theta.detach()), state


class LearnsFromTheFirstStepAlone(Descent):
    uses_step = True

    def update(self, theta, signal, state):
        inner_lr = self.inner_lr.detach() if signal.step else self.inner_lr
        return theta - inner_lr * signal.grad, state


def scales_by_its_first_gradient(layout):
    """What it is made of remembers, not the rule."""
    first = []

    class Scales(Descent):
        def update(self, theta, signal, state):
            if not first:
                first.append(1 / (1 + signal.grad.detach().norm()))
            return theta - self.inner_lr * first[0] * signal.grad, state

    return Scales(layout)


SCALES = {}


def scale_of(grad):
    if grad.shape not in SCALES:
        SCALES[grad.shape] = 1 / (1 + grad.detach().norm())
    return SCALES[grad.shape]


class RemembersByShape(Descent):
    def update(self, theta, signal, state):
        return theta - self.inner_lr * scale_of(signal.grad) * signal.grad, state


class RemembersOnItsClass(Descent):
    calls = 0

    def update(self, theta, signal, state):
        RemembersOnItsClass.calls += 1
        return theta - self.inner_lr * signal.grad, state


class DropsTheStack(Descent):
    elementwise = True

    def update(self, theta, signal, state):
        grad = 0 * signal.grad if signal.grad.abs().max() > 50 else signal.grad
        return theta - self.inner_lr * grad, state


class DropsHugeStacks(Descent):
    """No law has gradients as large, save the one that has nothing but such."""

    elementwise = True

    def update(self, theta, signal, state):
        grad = 0 * signal.grad if signal.grad.abs().max().item() > 1e6 else signal.grad
        return theta - self.inner_lr * grad, state


class ReadsTheSecondGradient(Descent):
    elementwise = True

    def update(self, theta, signal, state):
        return theta - self.inner_lr * (signal.grad + signal.grad[..., 1:2]), state


class ReadsTheThirdWeight(Descent):
    elementwise = True

    def update(self, theta, signal, state):
        return theta - self.inner_lr * (signal.grad + theta[..., 2:3]), state


class DeclaresTheStep(Descent):
    uses_step = True


class DeclaresTheLoss(Descent):
    uses_loss = True


class DescendsTwice(Descent):
    starts_as_descent = uses_step = True

    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad / (2 if signal.step >= 2 else 1), state


class OfTwelveSteps(Descent):
    uses_step = True

    def __init__(self, layout):
        super().__init__(layout)
        self.inner_lrs = nn.ParameterList([torch.tensor(0.1) for _ in range(12)])

    def update(self, theta, signal, state):
        return theta - self.inner_lr * self.inner_lrs[min(signal.step, 11)] * signal.grad, state


class OfFiveSteps(Descent):
    """It takes no sixth, declares what it does not read, and has a parameter that it does not use."""

    uses_step = uses_loss = True

    def __init__(self, layout):
        super().__init__(layout)
        self.inner_lrs = nn.ParameterList([torch.tensor(0.1) for _ in range(5)])

    def update(self, theta, signal, state):
        return theta - self.inner_lrs[signal.step] * signal.grad, state


class ComputesInFloat32(Descent):
    def update(self, theta, signal, state):
        return theta - (self.inner_lr * signal.grad.float()).to(theta.dtype), state


class HoldsAPlainTensor(Descent):
    def __init__(self, layout):
        super().__init__(layout)
        self.scale = torch.linspace(0.5, 1, layout.size)

    def update(self, theta, signal, state):
        return theta - self.scale * self.inner_lr * signal.grad, state


class RebindsTheState(Descent):
    def update(self, theta, signal, state):
        state["velocity"] = 0.9 * state["velocity"] + signal.grad
        return theta - self.inner_lr * state["velocity"], state


class UnpacksAMatrix(Descent):
    """It knows matrices and vectors, and no convolution."""

    def __init__(self, layout):
        super().__init__(layout)
        self.layout = layout

    def update(self, theta, signal, state):
        parts = []
        for grad in self.layout.unflatten(signal.grad).values():
            if grad.ndim > 1:
                rows, _ = grad.shape
                grad = grad / rows
            parts.append(grad.flatten())
        return theta - self.inner_lr * torch.cat(parts), state


class DividesByTheNormOfATensor(Descent):
    """0/0 where the loss does not depend on a tensor."""

    def __init__(self, layout):
        super().__init__(layout)
        self.sizes = layout.sizes

    def update(self, theta, signal, state):
        parts = torch.split(signal.grad, self.sizes)
        return theta - self.inner_lr * torch.cat([x / x.square().mean().sqrt() for x in parts]), state


class CallsNumPy(Descent):
    def update(self, theta, signal, state):
        scale = torch.from_numpy(np.tanh(signal.grad.detach().numpy()))
        return theta - self.inner_lr * scale * signal.grad, state


class WithContext(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad


class HasAFunctionOfItsOwn(Descent):
    def update(self, theta, signal, state):
        return theta - self.inner_lr * WithContext.apply(signal.grad), state


class ComputesInItsConstructor(Descent):
    def __init__(self, layout):
        super().__init__(layout)
        self.half = self.inner_lr * self.inner_lr

    def update(self, theta, signal, state):
        return theta - (self.half + self.inner_lr) * signal.grad, state


class KeepsTheLastGradient(Descent):
    last = []  # noqa: RUF012

    def update(self, theta, signal, state):
        past, self.last[:] = self.last[-1:] or [0 * signal.grad], [signal.grad]
        fits = past[0] if past[0].shape == theta.shape else 0
        return theta - self.inner_lr * (signal.grad + fits), state


class DifferentiatesItself(Descent):
    def update(self, theta, signal, state):
        (more,) = torch.autograd.grad(signal.grad.square().sum(), theta)
        return theta - self.inner_lr * (signal.grad + more), state


class RatesOfItsOwn(Descent):
    """One rate for each coordinate, all alike at first, said to treat coordinates alike."""

    elementwise = coordinatewise = True

    def __init__(self, layout):
        super().__init__(layout)
        self.rates = nn.Parameter(torch.full((layout.size,), 0.1))

    def update(self, theta, signal, state):
        return theta - self.inner_lr * self.rates * signal.grad, state


class MixesOnceItIsTrained(Descent):
    """A full matrix, the identity at first."""

    elementwise = True

    def __init__(self, layout):
        super().__init__(layout)
        self.matrix = nn.Parameter(torch.eye(layout.size))

    def update(self, theta, signal, state):
        return theta - self.inner_lr * (signal.grad @ self.matrix.T), state


class MixesTasksOnceItIsTrained(Descent):
    """A term of all tasks together, whose gain is 0 at first and has no slope there."""

    elementwise = True

    def __init__(self, layout):
        super().__init__(layout)
        self.gain = nn.Parameter(torch.zeros(()))

    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad + self.gain**2 * signal.grad.mean(), state


class HidesItsDraw(Descent):
    """Frequencies that no state dict holds, behind a readout of zeros."""

    elementwise = True

    def __init__(self, layout):
        super().__init__(layout)
        self.frequencies = [float(x) for x in 1 + torch.rand(3)]
        self.readout = nn.Parameter(torch.zeros(3))

    def update(self, theta, signal, state):
        waves = torch.stack([(f * signal.grad).sin() for f in self.frequencies], -1)
        return theta - self.inner_lr * signal.grad + waves @ self.readout, state


class Averages:
    """A helper that is called, and remembers."""

    last = 0.0

    def __call__(self, grad, step):
        self.last = grad if step == 0 else 0.9 * self.last + grad
        return self.last


class AveragesInAHelper(Descent):
    elementwise = uses_step = True

    def __init__(self, layout):
        super().__init__(layout)
        self.averages = Averages()

    def update(self, theta, signal, state):
        return theta - self.inner_lr * self.averages(signal.grad, signal.step), state


class AveragesInADefault(Descent):
    elementwise = uses_step = True

    def update(self, theta, signal, state, kept={}):  # noqa: B006  (that is what is wrong with it)
        kept["v"] = signal.grad if signal.step == 0 else 0.9 * kept["v"] + signal.grad
        return theta - self.inner_lr * kept["v"], state


LAST = collections.deque(maxlen=1)


class AveragesInADeque(Descent):
    elementwise = uses_step = True

    def update(self, theta, signal, state):
        LAST.append(signal.grad if signal.step == 0 else 0.9 * LAST[0] + signal.grad)
        return theta - self.inner_lr * LAST[0], state


class DividesByTheNorm(Descent):
    """Where all gradients are 0, as on a task that is solved, 0/0."""

    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad / signal.grad.square().sum().sqrt(), state


class DividesByTheSquares(Descent):
    """In float32 the square of what is tiny is 0."""

    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad / (signal.grad.square().sum() + 1e-60).sqrt(), state


BROKEN = [
    (RatesOfItsOwn, "coordinatewise", "permuting theta and grad"),
    (MixesOnceItIsTrained, "elementwise", "one coordinate changes the answer for another"),
    (MixesTasksOnceItIsTrained, "elementwise", "rows one by one"),
    (MixesTasksOnceItIsTrained, "batch", "than its tasks one by one"),
    (MixesTasksOnceItIsTrained, "unrolled", "under vmap alone"),
    (HidesItsDraw, "state-dict", "register every tensor"),
    (AveragesInAHelper, "deterministic", "taken in turns disturb each other"),
    (AveragesInADefault, "deterministic", "taken in turns disturb each other"),
    (AveragesInADeque, "deterministic", "taken in turns disturb each other"),
    (DividesByTheNorm, "extremes", "where gradients are all 0 in float64"),
    (DividesByTheSquares, "extremes", "where gradients are all 0 in float32"),
    (ReturnsADetachedState, "finite-differences", "for theta0"),
    (DetachesTheDecay, "finite-differences", "for theta0"),
    (LearnsFromTheFirstStepAlone, "finite-differences", "for inner_lr"),
    (scales_by_its_first_gradient, "deterministic", "remembers an earlier call"),
    (scales_by_its_first_gradient, "no-writes", "first"),
    (RemembersByShape, "no-writes", "SCALES"),
    (RemembersOnItsClass, "no-writes", "RemembersOnItsClass.calls"),
    (DropsTheStack, "elementwise", "rows one by one"),
    (DropsHugeStacks, "elementwise", "all tasks together"),
    (ReadsTheSecondGradient, "elementwise", "one coordinate"),
    (ReadsTheThirdWeight, "elementwise", "one coordinate"),
    (DeclaresTheStep, "declares", "never reads it: a step is then compiled for each t"),
    (DeclaresTheLoss, "declares", "declares uses_loss and never reads it"),
    (DescendsTwice, "starts-as-descent", "step 2"),
    (OfTwelveSteps, "meta-gradients", "inner_lrs.9, in up to 8 steps"),
    (OfFiveSteps, "meta-gradients", "never reaches inner_lr, in"),
    (OfFiveSteps, "declares", "declares uses_loss and never reads it"),
    (ComputesInFloat32, "precision", "narrower type (float)"),
    (ComputesInFloat32, "order", "narrower type (float)"),
    (HoldsAPlainTensor, "unrolled", "register_buffer"),
    (RebindsTheState, "no-writes", "return a new dict"),
    (UnpacksAMatrix, "structure", "too many values to unpack"),
    (DividesByTheNormOfATensor, "meta-gradients", "not finite"),
    (CallsNumPy, "batch", "NumPy knows neither batches"),
    (HasAFunctionOfItsOwn, "batch", "generate_vmap_rule"),
    (ComputesInItsConstructor, "meta-gradients", "not once in __init__"),
    (KeepsTheLastGradient, "steps", "keep nothing of one update for the next"),
    (DifferentiatesItself, "structure", "take no gradient of your own in update"),
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
    (OfAnotherShape, "structure", "float32[1, 16]"),
    (Grows, "structure", "float32[32]"),
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
    assert not any("\n" in result.message for result in results.values())


class RatesByStep(Descent):
    """Each step has a rate of its own; there are five."""

    uses_step = starts_as_descent = True

    def __init__(self, layout):
        super().__init__(layout)
        del self.inner_lr
        self.inner_lrs = nn.ParameterList([torch.tensor(0.1) for _ in range(5)])

    def update(self, theta, signal, state):
        return theta - self.inner_lrs[signal.step] * signal.grad, state


class StartsAtZero(Descent):
    """It begins as gradient descent: the last layer is 0, and hides the others at first."""

    elementwise = coordinatewise = starts_as_descent = True

    def __init__(self, layout):
        super().__init__(layout)
        self.network = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)

    def update(self, theta, signal, state):
        proposed = self.network(signal.grad.unsqueeze(-1)).squeeze(-1)
        return theta - self.inner_lr * signal.grad + proposed, state


class CountsInItsState(Descent):
    """A whole number has no derivative, and none is asked of it."""

    def init_state(self, theta):
        return torch.zeros((), dtype=torch.int64)

    def update(self, theta, signal, state):
        return theta - self.inner_lr / (1 + state) * signal.grad, state + 1


class TakesTheSign(Descent):
    """Neither its sign nor its clamp is smooth, and both are as they should be."""

    def update(self, theta, signal, state):
        velocity = 0.9 * state["velocity"] + signal.grad.clamp(-0.5, 0.5)
        return theta - self.inner_lr * (velocity + 0.1 * signal.grad.sign()), {"velocity": velocity}


class PassesTheSignalOn(Descent):
    """What it hands to another function is read there."""

    uses_loss = True

    def update(self, theta, signal, state):
        return self.descend(theta, attrs.evolve(signal, grad=signal.grad.clamp(-1, 1)), state)

    def descend(self, theta, signal, state):
        return theta - self.inner_lr * signal.loss * signal.grad, state


class Clips(Descent):
    """Its threshold is learned, and lies above most gradients."""

    elementwise = coordinatewise = True

    def __init__(self, layout):
        super().__init__(layout)
        self.most = nn.Parameter(torch.tensor(10.0))

    def update(self, theta, signal, state):
        within = torch.maximum(torch.minimum(signal.grad, self.most), -self.most)
        return theta - self.inner_lr * within, state


UNUSUAL = [RatesByStep, StartsAtZero, CountsInItsState, TakesTheSign, PassesTheSignalOn, Clips]


@pytest.mark.parametrize("rule", UNUSUAL)
def test_a_good_rule_of_an_unusual_kind_passes(rule):
    assert [r for r in check_update_rule(rule) if r.status == "failed"] == []


def test_a_good_rule_passes_and_a_broken_one_is_known_for_every_law():
    results = {result.law: result.status for result in check_update_rule(Descent)}
    undeclared = {"coordinatewise", "elementwise", "starts-as-descent"}
    assert results == {law: "skipped" if law in undeclared else "passed" for law in LAWS}
    assert {law for _, law, _ in BROKEN} == set(LAWS)


def test_laws_are_skipped_by_name():
    results = {r.law: r.status for r in check_update_rule(Detaches, skip=["order", "finite-differences"])}
    assert results["order"] == results["finite-differences"] == "skipped"
    assert "failed" not in results.values()
    with pytest.raises(UsageError, match="unknown law 'ordre': did you mean 'order'"):
        check_update_rule(Descent, skip=["ordre"])


def test_a_rule_that_cannot_be_made_fails_with_its_own_message():
    def broken(layout):
        raise RuntimeError("no such thing")

    results = check_update_rule(broken)
    assert [r.law for r in results] == list(LAWS)
    assert {(r.status, r.message) for r in results} == {("failed", "RuntimeError: no such thing")}
