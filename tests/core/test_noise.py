"""Noise that repeats: normal, the same in every batch and engine, another for every task, step and seed."""

from __future__ import annotations

import functools
import math
from contextlib import suppress

import pytest
import torch
from plain_loop import networks
from torch import nn

from metalearn_core import (
    Batch,
    CompiledMetaGradient,
    Noise,
    Settings,
    Task,
    UpdateRule,
    UsageError,
    adapt,
    meta_gradient,
    meta_train,
    meta_train_seeds,
    trajectory,
)
from metalearn_core.kernels.by_steps import BySteps
from metalearn_core.kernels.programs import traced
from metalearn_core.testing import TinySines, check_update_rule, tiny_learner

NET = networks()["tanh"]
LEARNER, THETA, TASK = NET.learner, NET.theta, NET.task()
close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)


class Langevin(UpdateRule):
    """Stochastic gradient Langevin dynamics (Welling and Teh, 2011), with a learned temperature."""

    uses_noise = True

    def __init__(self, layout):
        super().__init__()
        self.heat = nn.Parameter(torch.tensor(0.3))

    def update(self, theta, signal, state):
        return theta - 0.1 * signal.grad + self.heat * signal.noise(theta.shape), state


class Stacked(Langevin):
    elementwise = True


class Still(UpdateRule):
    """Nothing but the noise is left of θ."""

    uses_noise = True

    def update(self, theta, signal, state):
        return signal.noise(theta.shape), state


def draws(task, steps=1, theta=THETA, rule=None):
    rule = Still() if rule is None else rule
    return [theta for theta, _ in trajectory(rule, LEARNER, theta, task.support, steps=steps)][1:]


def test_it_is_normal_and_independent():
    keys = torch.arange(2_000)
    drawn = Noise(keys, torch.zeros(1, dtype=torch.float64))((2_000, 50))
    assert abs(float(drawn.mean())) < 0.015
    assert abs(float(drawn.var()) - 1) < 0.02
    assert abs(float(drawn.pow(4).mean()) - 3) < 0.1
    assert float(torch.corrcoef(drawn.T).fill_diagonal_(0).abs().max()) < 0.12
    assert float(torch.corrcoef(drawn[:50]).fill_diagonal_(0).abs().max()) < 0.7
    edges = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    shares = (drawn.unsqueeze(-1) < edges).double().mean((0, 1))
    expected = torch.tensor([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in edges.tolist()])
    torch.testing.assert_close(shares.float(), expected, atol=0.01, rtol=0)


def test_tasks_steps_and_seeds_have_noise_of_their_own():
    first, second = draws(TASK, steps=2)
    other = Still()
    other.noise_seed.data += 1
    (seeded,) = draws(TASK, rule=other)
    rows = torch.cat([first, second, seeded])
    assert len({tuple(row.tolist()) for row in rows}) == len(rows) == 9
    twice = Noise(torch.tensor(1), THETA)
    assert not torch.equal(twice((4,)), twice((4,)))


def test_a_task_has_the_same_noise_alone_in_any_place_and_padded():
    (together,) = draws(TASK)
    close(draws(TASK.map(lambda x: x.flip(0)))[0].flip(0), together)
    for i in range(len(TASK)):
        close(draws(TASK[i])[0], together[i])
    padded = Task.stack([TASK[i] for i in range(len(TASK))], pad=9)
    close(draws(padded)[0], together)
    slow = draws(TASK.to("cpu", torch.float64))
    close(slow[0], together)


def by_hand(rule, task, index, steps, order, theta):
    """The steps written out; the numbers are those that `Still` was left with."""
    noises = [draws(task, steps=steps)[t][index] for t in range(steps)]
    inputs, targets, *query = task[index].tensors
    for noise in noises:
        (grad,) = torch.autograd.grad(NET.value(theta, inputs, targets), theta, create_graph=True)
        theta = theta - 0.1 * (grad.detach() if order == "first" else grad) + rule.heat * noise
    return NET.value(theta, *query)


@pytest.mark.parametrize("kind", [Langevin, Stacked])
@pytest.mark.parametrize("order", ["first", "second"])
def test_meta_gradients_are_those_of_the_steps_written_out(order, kind):
    rule, theta = kind(LEARNER.layout).double(), THETA.clone().requires_grad_()
    loss = sum(by_hand(rule, TASK, i, 2, order, theta) for i in range(len(TASK))) / len(TASK)
    want = torch.autograd.grad(loss, [theta, rule.heat])
    _, of_theta, of_phi = meta_gradient(rule, LEARNER, THETA, TASK, steps=2, order=order)
    close((of_theta, of_phi["heat"]), want)
    phi = {name: p.detach() for name, p in rule.named_parameters()}
    _, of_theta, of_phi = BySteps(rule, LEARNER, 2, order)(THETA, phi, TASK)
    close((of_theta, of_phi["heat"]), want)


def test_a_traced_program_draws_the_same_numbers():
    rule = Langevin(LEARNER.layout).double()
    want = adapt(rule, LEARNER, THETA, TASK.support, steps=2).detach()

    def function(theta, inputs, targets):
        support = Batch(inputs, targets, stacked=True)
        return [adapt(rule, LEARNER, theta, support, steps=2).detach()]

    program = traced(function, [THETA, *TASK.support.tensors])
    close(program(THETA, *TASK.support.tensors)[0], want)
    moved = TASK.map(lambda x: x + 1)
    want = adapt(rule, LEARNER, THETA, moved.support, steps=2).detach()
    close(program(THETA, *moved.support.tensors)[0], want)


@pytest.mark.nightly
def test_compiled_it_is_the_eager_gradient():
    rule = Langevin(LEARNER.layout).double()
    ours = CompiledMetaGradient(rule, LEARNER, steps=1)(THETA, TASK)
    close(ours, meta_gradient(rule, LEARNER, THETA, TASK, steps=1))


def test_training_repeats_and_resumes_and_seeds_together_are_each_alone(tmp_path):
    learner = tiny_learner().to("cpu", torch.float64)
    settings = Settings(tasks=6, meta_batch=2, steps=2, validation_tasks=2, engine="eager")

    def stop(event):
        if event.kind == "step" and event.position >= 4:
            raise KeyboardInterrupt

    def alone(seed, **more):
        generator = torch.Generator().manual_seed(seed)
        rule = Langevin(learner.layout)
        return meta_train(rule, learner, TinySines(), settings, generator=generator, **more)

    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    rules = [Langevin(learner.layout) for _ in generators]
    together = meta_train_seeds(rules, learner, TinySines(), settings, generators=generators)
    with suppress(KeyboardInterrupt):
        alone(1, checkpoint=tmp_path / "c.pt", observers=[stop])
    resumed = alone(1, checkpoint=tmp_path / "c.pt")
    assert torch.equal(resumed.theta, alone(1).theta)
    close(together[1].theta, resumed.theta)
    seeds = [int(trained.rule.noise_seed) for trained in together]
    assert seeds[0] != seeds[1]
    assert seeds[1] == int(resumed.rule.noise_seed)


@pytest.mark.parametrize("kind", [Langevin, Stacked])
def test_the_kit_looks_at_such_rules(kind):
    assert [r for r in check_update_rule(kind) if r.status == "failed"] == []


class Silent(Langevin):
    uses_noise = False


class Late(Langevin):
    uses_noise = False

    def __init__(self, layout):
        super().__init__(layout)
        self.uses_noise = True


def test_what_does_not_fit_is_said_in_one_line():
    with pytest.raises(UsageError, match=r"reads signal.noise without having declared it; add .* uses_noise"):
        adapt(Silent(LEARNER.layout).double(), LEARNER, THETA, TASK.support, steps=1)
    settings, generator = Settings(tasks=1), torch.Generator()
    with pytest.raises(UsageError, match="set uses_noise in the class"):
        meta_train(Late(LEARNER.layout), LEARNER, TinySines(), settings, generator=generator)
    with pytest.raises(UsageError, match=r"must lead with \(3,\), got \(2,\): an elem.* take theta.shape"):
        Noise(torch.arange(3), THETA)((2, 4))
    for shape, kind in ((4, "int"), (THETA, "Tensor")):
        with pytest.raises(UsageError, match=f"the shape must be a tuple, such as theta.shape; got: {kind}"):
            Noise(torch.tensor(3), THETA)(shape)


def test_a_rule_that_draws_by_itself_is_told_of_the_noise():
    class Drawing(Langevin):
        def update(self, theta, signal, state):
            return theta - 0.1 * signal.grad + torch.randn_like(theta), state

    with pytest.raises(UsageError, match=r"declares uses_noise may take signal.noise\(shape\)"):
        adapt(Drawing(LEARNER.layout).double(), LEARNER, THETA, TASK.support, steps=1)
