"""CAVIA, Proto-MAML, ML3 and Newton-CG: against plain PyTorch, batched, for several seeds, traced, kit."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from plain_loop import seeded
from torch import nn
from torch.func import functional_call

from metalearn_cavia import CAVIA
from metalearn_core import (
    BaseLearner,
    CompiledMetaGradient,
    Task,
    UsageError,
    adapt,
    forked_rng,
    meta_gradient,
)
from metalearn_core.kernels.by_steps import BySteps
from metalearn_core.kernels.programs import traced
from metalearn_core.testing import check_update_rule
from metalearn_core.training.meta_gradient import meta_gradients
from metalearn_ml3 import ML3
from metalearn_newton_cg import NewtonCG
from metalearn_proto_maml import ProtoMAML

ROOT = Path(__file__).parents[2]
close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)
STEPS = 2


class WithContext(nn.Module):
    """A context vector beside the inputs, as the paper has it for regression."""

    def __init__(self):
        super().__init__()
        self.context = nn.Parameter(torch.zeros(2))
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))

    def forward(self, x):
        return self.body(torch.cat([x, self.context.expand(len(x), 2)], 1))


def network(kind):
    with forked_rng(torch.Generator().manual_seed(2)):
        if kind == "cavia":
            return WithContext().double()
        return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def problem(kind):
    """A learner, θ⁰ and three tasks: regression, and classes for prototypes."""
    classes = kind == "proto-maml"
    loss = nn.functional.cross_entropy if classes else nn.functional.mse_loss
    learner = BaseLearner(network(kind), loss)
    if classes:
        support = torch.tensor([[0, 1, 2, 0, 2], [2, 1, 0, 0, 0], [1, 1, 0, 2, 2]])
        targets = support, support.flip(1)
    else:
        width = 2 if kind == "cavia" else 3
        targets = seeded(3, 5, width, seed=3), seeded(3, 5, width, seed=4)
    tensors = [seeded(3, 5, 2, seed=1), targets[0], seeded(3, 5, 2, seed=2), targets[1]]
    return learner, learner.initial(torch.Generator().manual_seed(5)), Task.of(tensors, stacked=True)


MAKERS = {
    "cavia": functools.partial(CAVIA, inner_lr=0.3, learn_lr=True),
    "proto-maml": functools.partial(ProtoMAML, inner_lr=0.3, learn_lr=True),
    "ml3": functools.partial(ML3, hidden=3, inner_lr=0.3),
    "newton-cg": functools.partial(NewtonCG, inner_lr=0.5, damping=1.5, iterations=2),
}
names = pytest.mark.parametrize("name", MAKERS)
both_orders = pytest.mark.parametrize("order", ["first", "second"])


def rule_of(name, seed=0):
    with forked_rng(torch.Generator().manual_seed(seed)):
        return MAKERS[name](problem(name)[0].layout).double()


# --- the reference: one task at a time, with torch.autograd.grad and whole Hessians


class Plain:
    """One task of a rule's problem, its network called by hand."""

    def __init__(self, name, rule, order, inputs, targets):
        self.name, self.rule, self.order = name, rule, order
        self.inputs, self.targets, self.module = inputs, targets, network(name)
        self.criterion = nn.functional.cross_entropy if name == "proto-maml" else nn.functional.mse_loss

    def parts(self, theta):
        found, place = {}, 0
        for key, p in self.module.named_parameters():
            found[key] = theta[place : place + p.numel()].view(p.shape)
            place += p.numel()
        return found

    def output(self, theta):
        return functional_call(self.module, self.parts(theta), (self.inputs,))

    def loss(self, theta):
        return self.criterion(self.output(theta), self.targets)

    def slope(self, function, theta):
        (grad,) = torch.autograd.grad(function(theta), theta, create_graph=True)
        return grad.detach() if self.order == "first" else grad

    def start(self, theta):
        if self.name == "cavia":
            return torch.cat([torch.zeros(2, dtype=theta.dtype), theta[2:]])
        if self.name != "proto-maml":
            return theta + 0
        parts = self.parts(theta)
        features = torch.tanh(self.inputs @ parts["0.weight"].T + parts["0.bias"])
        prototypes = torch.stack([features[self.targets == k].mean(0) for k in range(3)])
        body = torch.cat([parts["0.weight"].flatten(), parts["0.bias"]])
        return torch.cat([body, 2 * prototypes.flatten(), -(prototypes.norm(dim=1) ** 2)])

    def learned_loss(self, theta):
        pairs = torch.stack([self.output(theta).flatten(), self.targets.flatten()], 1)
        return self.rule.network(pairs).mean()

    def newton(self, theta):
        """Conjugate gradients from 0, as a textbook has them."""
        grad = self.slope(self.loss, theta)
        hessian = torch.autograd.functional.hessian(self.loss, theta, create_graph=True)

        def times(p):  # a product with the Hessian is a constant under the first order
            bent = hessian @ p
            bent = bent.detach() if self.order == "first" else bent
            return bent + self.rule.log_damping.exp() * p

        x, r = torch.zeros_like(theta), grad
        p = r
        for _ in range(2):
            product = times(p)
            a = (r @ r) / (p @ product)
            x, after = x + a * p, r - a * product
            p, r = after + (after @ after) / (r @ r) * p, after
        return x

    def step(self, theta):
        rate = self.rule.inner_lr
        if self.name == "newton-cg":
            return theta - rate * self.newton(theta)
        grad = self.slope(self.learned_loss if self.name == "ml3" else self.loss, theta)
        if self.name == "cavia":
            grad = torch.cat([grad[:2], torch.zeros_like(grad[2:])])
        return theta - rate * grad

    def end(self, theta, steps):
        theta = self.start(theta)
        for _ in range(steps):
            theta = self.step(theta if theta.requires_grad else theta.detach().requires_grad_())
        return theta


def expected(name, rule, steps, order):
    _, start, task = problem(name)
    theta = start.clone().requires_grad_()
    ends, loss = [], 0
    for i in range(len(task)):
        inputs, targets, query, truth = task[i].tensors
        ends.append(Plain(name, rule, order, inputs, targets).end(theta, steps))
        loss = loss + Plain(name, rule, order, query, truth).loss(ends[-1]) / len(task)
    phi = {key: p for key, p in rule.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss, [theta, *phi.values()], allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for g, p in zip(grads[1:], phi.values(), strict=True)]
    return torch.stack(ends).detach(), loss.detach(), grads[0], dict(zip(phi, filled, strict=True))


@both_orders
@names
def test_it_is_the_same_steps_in_plain_pytorch(name, order):
    rule, (learner, theta, task) = rule_of(name), problem(name)
    ends, *want = expected(name, rule, STEPS, order)
    close(adapt(rule, learner, theta, task.support, steps=STEPS, order=order).detach(), ends)
    close(list(meta_gradient(rule, learner, theta, task, steps=STEPS, order=order)), want)
    phi = {key: p.detach() for key, p in rule.named_parameters()}
    close(list(BySteps(rule, learner, STEPS, order)(theta, phi, task)), want)
    alone = [adapt(rule, learner, theta, task[i].support, steps=STEPS) for i in range(len(task))]
    close(torch.stack(alone).detach(), ends)


@both_orders
@names
def test_seeds_together_are_each_alone(name, order):
    rules, (learner, theta, task) = [rule_of(name, seed) for seed in (0, 1)], problem(name)
    with torch.no_grad():
        rules[1].inner_lr.mul_(0.7)
    named = [dict(rule.named_parameters()) for rule in rules]
    phi = {key: torch.stack([each[key].detach() for each in named]) for key in named[0]}
    thetas = torch.stack([theta, 0.5 * theta])
    losses, grads, of_phi = meta_gradients(rules[0], learner, thetas, phi, task, steps=1, order=order)
    for i, rule in enumerate(rules):
        want = meta_gradient(rule, learner, thetas[i], task, steps=1, order=order)
        close((losses[i], grads[i], {key: g[i] for key, g in of_phi.items()}), want)


@names
def test_what_is_compiled_is_the_eager_step(name):
    """The program, as it is traced, for other values than it was traced with."""
    rule, (learner, theta, task) = rule_of(name), problem(name)
    step = CompiledMetaGradient(rule, learner, steps=1)
    function = functools.partial(step._traced, task)
    program = traced(function, [theta, *map(torch.detach, rule.parameters()), *task.tensors])
    moved = Task.of([x + 0.1 if x.is_floating_point() else x for x in task.tensors], stacked=True)
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter.mul_(1.1)
        ours = program(0.9 * theta, *map(torch.detach, rule.parameters()), *moved.tensors)
    loss, grad, phi = meta_gradient(rule, learner, 0.9 * theta, moved, steps=1)
    close(list(ours), [loss, grad, *phi.values()])


@names
def test_the_kit_finds_nothing(name):
    found = check_update_rule(MAKERS[name], problem=functools.partial(problem, name))
    assert [result for result in found if result.status == "failed"] == []


def test_a_padded_task_starts_and_adapts_as_it_does_alone():
    for name in ("proto-maml", "ml3"):
        rule, (learner, theta, task) = rule_of(name), problem(name)
        tasks = [task[i] for i in range(len(task))]
        together = adapt(rule, learner, theta, Task.stack(tasks, pad=8).support, steps=1)
        close(together, adapt(rule, learner, theta, task.support, steps=1))


@names
def test_it_is_short(name):
    folder = name.replace("-", "_")
    source = (ROOT / f"plugins/{folder}/metalearn_{folder}.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) < 80


REFUSED = [
    (CAVIA, {"contexts": "none"}, "no parameter's name contains 'none'; there are 0.weight, 0.bias"),
    (CAVIA, {"contexts": "bias", "inner_lr": 0}, "inner_lr must be a number > 0, got 0"),
    (ML3, {"hidden": 0}, "hidden must be an integer >= 1, got 0"),
    (NewtonCG, {"iterations": 1.5}, "iterations must be an integer >= 1, got 1.5"),
    (NewtonCG, {"damping": -1.0}, "damping must be a number > 0, got -1.0"),
    (ProtoMAML, {"learn_lr": "yes"}, "learn_lr must be true or false, got 'yes'"),
]


@pytest.mark.parametrize(("rule", "options", "message"), REFUSED)
def test_options_that_make_no_sense_are_refused(rule, options, message):
    with pytest.raises(UsageError, match=message):
        rule(problem("ml3")[0].layout, **options)


def test_prototypes_need_a_head():
    learner = BaseLearner(nn.Linear(2, 3, bias=False), nn.functional.mse_loss)
    with pytest.raises(UsageError, match="a head must come last"):
        ProtoMAML(learner.layout)


def test_a_problem_that_is_none_is_refused():
    with pytest.raises(UsageError, match="problem: expected a Problem, a tuple"):
        check_update_rule(NewtonCG, problem=3)
