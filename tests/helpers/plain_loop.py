"""The inner loop and its meta-gradients written a second time: a plain loop, one task at a time.

Gradients of the support loss come from `torch.func.grad_and_value` of `functional_call`; nothing of
`metalearn_core.inner_loop` and no `higher` is in the loop (a twin optimiser's step is its rule's).
"""

import functools
import tomllib
from pathlib import Path

import torch
from torch import nn
from torch.func import functional_call, grad_and_value

from metalearn_core import BaseLearner, Signal, Task, UpdateRule, forked_rng, make_rule

RULES = {
    f"{rule}-{name}": (rule, options)
    for rule, rows in tomllib.loads(
        (Path(__file__).parents[1] / "conformance" / "rules.toml").read_text()
    ).items()
    for name, options in rows.items()
}


FACTORIES = {name: functools.partial(make_rule, rule, **options) for name, (rule, options) in RULES.items()}


def seeded(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rule_of(name, learner, seed=0):
    """A rule of the list, its draws seeded, in float64."""
    rule, options = RULES[name]
    with forked_rng(torch.Generator().manual_seed(seed)):
        return make_rule(rule, learner.layout, **options).double()


class Remembers(UpdateRule):
    """A state that starts from θ⁰ and φ, and counts in a tensor of integers."""

    def __init__(self, layout):
        super().__init__()
        self.pull, self.inner_lr = (torch.nn.Parameter(torch.tensor(x)) for x in (0.3, 0.05))

    def init_state(self, theta):
        return {"anchor": self.pull * theta, "count": torch.zeros((), dtype=torch.int64)}

    def update(self, theta, signal, state):
        moved = theta - self.inner_lr * (signal.grad + theta - state["anchor"])
        return moved, {"anchor": state["anchor"], "count": state["count"] + 1}


class Tied(UpdateRule):
    """One weight in two places: what goes in, and what comes out."""

    elementwise = True

    def __init__(self, layout):
        super().__init__()
        self.inward, self.outward = (torch.nn.Linear(1, 1, bias=False) for _ in range(2))
        self.outward.weight = self.inward.weight

    def update(self, theta, signal, state):
        inside = torch.tanh(self.inward(signal.grad.unsqueeze(-1)))
        return theta - 0.1 * self.outward(inside).squeeze(-1), state


class Net:
    """A module with its loss, as the reference sees it, and `learner`, as the library does."""

    def __init__(self, module, loss, shape, classes=None):
        self.module, self.loss, self.shape, self.classes = module.double(), loss, shape, classes
        self.learner = BaseLearner(self.module, loss)
        self.theta = self.learner.initial(torch.Generator().manual_seed(7))

    def task(self, count=3, support=4, query=6):
        """A meta-batch of random tasks."""
        tensors = []
        for seed, examples in enumerate((support, query)):
            inputs = seeded(count, examples, *self.shape, seed=seed)
            with torch.no_grad():
                width = self.module(inputs[0]).shape[-1]
            targets = seeded(count, examples, width, seed=10 + seed)
            tensors += [inputs, targets if self.classes is None else targets.argmax(-1)]
        return Task.of(tensors, stacked=True)

    def value(self, theta, inputs, targets):
        """The loss at θ, sliced out of the vector by hand."""
        parameters, start = dict(self.module.named_parameters()), 0
        for name, p in self.module.named_parameters():
            if p.requires_grad:
                parameters[name] = theta[start : start + p.numel()].reshape(p.shape)
                start += p.numel()
        return self.loss(functional_call(self.module, parameters, (inputs,)), targets)


def networks():
    """1-40-40-1 under relu, a tanh perceptron, a small conv net, and one with frozen layers."""
    with forked_rng(torch.Generator().manual_seed(1)):
        relu, tanh = nn.ReLU(), nn.Tanh()
        linear, square = nn.Linear, nn.functional.mse_loss
        frozen = nn.Sequential(linear(2, 6), tanh, linear(6, 6), relu, linear(6, 2))
        frozen[0].requires_grad_(False)
        frozen[2].bias.requires_grad_(False)
        conv = nn.Sequential(nn.Conv2d(1, 2, 3), tanh, nn.MaxPool2d(2), nn.Flatten(), linear(8, 3))
        return {
            "relu": Net(
                nn.Sequential(linear(1, 40), relu, linear(40, 40), relu, linear(40, 1)), square, (1,)
            ),
            "tanh": Net(nn.Sequential(linear(3, 5), tanh, linear(5, 4), tanh, linear(4, 2)), square, (3,)),
            "conv": Net(conv, nn.functional.cross_entropy, (1, 6, 6), classes=3),
            "frozen": Net(frozen, square, (2,)),
        }


def clip_by_value(limit):
    return lambda grad: torch.maximum(torch.minimum(grad, grad * 0 + limit), grad * 0 - limit)


def clip_by_norm(limit):
    """As `torch.nn.utils.clip_grad_norm_` does it."""

    def clip(grad):
        factor = limit / (grad.square().sum().sqrt() + 1e-6)
        return grad * factor if factor < 1 else grad

    return clip


def adapted(rule, net, theta, inputs, targets, steps, order, clip=lambda grad: grad):
    """θ⁽ᵀ⁾ of one task."""
    state = rule.init_state(theta)
    for step in range(steps):
        grad, loss = grad_and_value(net.value)(theta, inputs, targets)
        if order == "first":
            grad, loss = grad.detach(), loss.detach()
        theta, state = rule.update(theta, Signal(clip(grad), loss, step), state)
    return theta


def meta_gradient(rule, net, theta, task, steps, order, clip=lambda grad: grad):
    """Mean query loss, gradient for θ⁰, `{name: gradient}` for φ."""
    phi = dict(rule.named_parameters())
    theta = theta.detach().requires_grad_()
    losses = []
    for i in range(len(task)):
        inputs, targets, query_inputs, query_targets = task[i].tensors
        end = adapted(rule, net, theta, inputs, targets, steps, order, clip)
        losses.append(net.value(end, query_inputs, query_targets))
    loss = sum(losses) / len(losses)
    grads = torch.autograd.grad(loss, [theta, *phi.values()], allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for g, p in zip(grads[1:], phi.values(), strict=True)]
    return loss.detach(), grads[0], dict(zip(phi, filled, strict=True))


def quadratic(n):
    """L(θ) = ½‖Aθ − b‖² with A, b the inputs and targets: a module whose Hessian is AᵀA."""

    def half_square(prediction, target):
        return 0.5 * (prediction - target).square().sum()

    return BaseLearner(nn.Linear(n, 1, bias=False).double(), half_square)
