"""What makes long unrolls trainable: truncation, an outer loss over several steps, a T that grows."""

from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_loop import FACTORIES, Remembers, networks, rule_of
from torch.func import grad_and_value
from torch.utils._pytree import tree_map

from metalearn_core import (
    BaseLearner,
    Batch,
    Settings,
    Signal,
    Task,
    UpdateRule,
    UsageError,
    make_rule,
    meta_gradient,
    meta_train,
    task_families,
    trajectory,
)
from metalearn_core.kernels.by_steps import BySteps
from metalearn_core.kernels.programs import CompiledMetaGradient
from metalearn_core.testing import Architecture
from metalearn_core.training.meta_gradient import meta_gradients
from metalearn_core.training.task_stream import TaskStream

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
NETS = networks()
WAYS = [(1, None), (2, None), (9, None), (None, 1.0), (None, 0.5), (2, 0.7), (1, 1.0)]
"""truncate, outer_decay."""


def plainly(rule, net, theta, task, steps, order, truncate, decay):
    """Loss and gradients by a plain loop over tasks and steps, as the settings' words have it."""
    phi = dict(rule.named_parameters())
    theta0 = theta.detach().requires_grad_()
    weights = (
        [0.0] * steps + [1.0]
        if decay is None
        else [0.0] + [decay ** (steps - t) for t in range(1, steps + 1)]
    )
    total = 0.0
    for i in range(len(task)):
        inputs, targets, *query = task[i].tensors
        theta, state = theta0, rule.init_state(theta0)
        for t in range(steps):
            if truncate is not None and t < steps - truncate:
                grad, loss = grad_and_value(net.value)(theta.detach(), inputs, targets)
                with torch.no_grad():
                    moved, after = rule.update(theta.detach(), Signal(grad, loss, t), state)
                # both are moved by a constant
                theta = theta + (moved - theta).detach()
                state = tree_map(lambda old, new: old + (new - old).detach(), state, after)
            else:
                grad, loss = grad_and_value(net.value)(theta, inputs, targets)
                if order == "first":
                    grad, loss = grad.detach(), loss.detach()
                theta, state = rule.update(theta, Signal(grad, loss, t), state)
            if weights[t + 1]:
                total = total + weights[t + 1] / sum(weights) * net.value(theta, *query)
    loss = total / len(task)
    grads = torch.autograd.grad(loss, [theta0, *phi.values()], allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for g, p in zip(grads[1:], phi.values(), strict=True)]
    return loss.detach(), grads[0], dict(zip(phi, filled, strict=True))


def same(ours, theirs, **close):
    for a, b in zip([*ours[:2], *ours[2].values()], [*theirs[:2], *theirs[2].values()], strict=True):
        torch.testing.assert_close(a, b, **{**CLOSE, **close})


@settings(max_examples=80)
@given(
    name=st.sampled_from(["remembers", *sorted(FACTORIES)]),
    net=st.sampled_from(["tanh", "frozen"]),
    order=st.sampled_from(["first", "second"]),
    way=st.sampled_from(WAYS),
    steps=st.integers(1, 4),
    every=st.sampled_from([None, 2, 3]),
)
def test_the_gradients_are_those_of_a_plain_loop(name, net, order, way, steps, every):
    """Of the whole unroll, and step by step with what lies between computed again."""
    net, (truncate, decay) = NETS[net], way
    remembers = name == "remembers"
    rule = Remembers(net.learner.layout).double() if remembers else rule_of(name, net.learner)
    task = net.task(2)
    theirs = plainly(rule, net, net.theta, task, steps, order, truncate, decay)
    how = {"steps": steps, "order": order, "truncate": truncate, "outer_decay": decay}
    same(meta_gradient(rule, net.learner, net.theta, task, **how), theirs)
    by_steps = BySteps(rule, net.learner, checkpoint_every=every, **how)
    same(by_steps(net.theta, dict(rule.named_parameters()), task), theirs)


@pytest.mark.parametrize("order", ["first", "second"])
def test_a_truncated_gradient_is_the_whole_one_of_its_last_steps(order):
    """Of a rule without memory: θ⁰ stands for the θ at which differentiation begins."""
    net, task = NETS["tanh"], NETS["tanh"].task(3)
    rule = make_rule("feed-forward", net.learner.layout, hidden=[4]).double()
    path = list(trajectory(rule, net.learner, net.theta, task.support, steps=3))
    loss, each, of_phi = meta_gradient(rule, net.learner, path[3][0].detach(), task, steps=2, order=order)
    ours = meta_gradient(rule, net.learner, net.theta, task, steps=5, order=order, truncate=2)
    same(ours, (loss, each.sum(0), of_phi))


def test_the_weighted_loss_is_that_of_every_number_of_steps():
    net, task = NETS["tanh"], NETS["tanh"].task(3)
    rule = rule_of("lstm-program", net.learner)
    ours = meta_gradient(rule, net.learner, net.theta, task, steps=3, outer_decay=0.5)
    parts = [meta_gradient(rule, net.learner, net.theta, task, steps=t) for t in (1, 2, 3)]
    weights = (1 / 7, 2 / 7, 4 / 7)

    def mean(values):
        return sum(w * value for w, value in zip(weights, values, strict=True))

    loss, grad = (mean([part[i] for part in parts]) for i in (0, 1))
    same(ours, (loss, grad, {name: mean([part[2][name] for part in parts]) for name in ours[2]}))


def test_what_a_state_started_from_keeps_its_part_in_a_truncated_gradient():
    net, task = NETS["tanh"], NETS["tanh"].task(2)
    rule = Remembers(net.learner.layout).double()
    theirs = plainly(rule, net, net.theta, task, 4, "second", 2, None)
    by_steps = BySteps(rule, net.learner, 4, "second", checkpoint_every=3, truncate=2)
    same(by_steps(net.theta, dict(rule.named_parameters()), task), theirs)
    assert theirs[2]["pull"].any()
    assert theirs[2]["inner_lr"].any()


class Proximal(UpdateRule):
    """θ ← θ − α (g + λ (θ − θ⁰)), with θ⁰ in its state."""

    def init_state(self, theta):
        return theta

    def update(self, theta, signal, state):
        return theta - 0.1 * (signal.grad + 0.5 * (theta - state)), state


@pytest.mark.parametrize("truncate", [1, 2])
@pytest.mark.parametrize("recomputed", [False, True])
def test_a_proximal_term_keeps_its_anchor_under_truncation(truncate, recomputed):
    """Closed form: the loss is (θ − 1)², so g = 2 (θ − 1); θ and the anchor are both θ⁰ and a constant.

    One differentiated step has dθ'/dθ⁰ = (1 − 0.2 − 0.05) dθ/dθ⁰ + 0.05, from dθ/dθ⁰ = 1.
    """
    learner = BaseLearner(torch.nn.Linear(1, 1, bias=False), torch.nn.functional.mse_loss).to(
        "cpu", torch.float64
    )
    rule, one = Proximal(), torch.ones(1, 1, dtype=torch.float64)
    task = Task.stack([Task(Batch(one, one), Batch(one, one))])
    theta = torch.tensor([0.3], dtype=torch.float64)
    (*_, (end, _)) = trajectory(rule, learner, theta, task.support, steps=4)
    slope = 1.0
    for _ in range(truncate):
        slope = (1 - 0.2 - 0.05) * slope + 0.05
    if recomputed:
        how = {"steps": 4, "order": "second", "truncate": truncate, "checkpoint_every": 2}
        _, grad, _ = BySteps(rule, learner, **how)(theta, {}, task)
    else:
        _, grad, _ = meta_gradient(rule, learner, theta, task, steps=4, truncate=truncate)
    torch.testing.assert_close(grad, 2 * (end[0] - 1) * slope, **CLOSE)


@pytest.mark.parametrize("way", WAYS)
def test_seeds_together_have_the_gradients_of_each(way):
    net, task, (truncate, decay) = NETS["tanh"], NETS["tanh"].task(2), way
    rule = rule_of("lstm-program", net.learner)
    how = {"steps": 3, "truncate": truncate, "outer_decay": decay}
    theta = torch.stack([net.theta, 0.9 * net.theta])
    phi = {key: torch.stack([p.detach(), 1.1 * p.detach()]) for key, p in rule.named_parameters()}
    theirs = meta_gradients(rule, net.learner, theta, phi, task, **how)
    by_steps = BySteps(rule, net.learner, order="second", seeds=True, checkpoint_every=2, **how)
    same(by_steps(theta, phi, task), theirs)
    first = meta_gradient(rule, net.learner, net.theta, task, **how)
    same((theirs[0][0], theirs[1][0], {name: grad[0] for name, grad in theirs[2].items()}), first)


def test_a_warm_up_doubles_t_in_equal_parts():
    long = Settings(tasks=100, steps=20, warm_up=0.5)
    assert [long.at(position).steps for position in (0, 9, 10, 20, 30, 40, 49, 50, 99)] == [
        1, 1, 2, 4, 8, 16, 16, 20, 20,
    ]  # fmt: skip
    assert {long.at(position).evaluation_steps for position in (0, 40, 50)} == {20}
    assert attrs.evolve(long, test_steps=3).at(0).evaluation_steps == 3
    for steps in (0, 1):
        assert attrs.evolve(long, steps=steps).at(0).steps == steps
    assert attrs.evolve(long, warm_up=None).at(0).steps == 20


FAMILY = task_families()["sine"](support=5, query=5)
LEARNER = Architecture((1, 4, 1)).learner()
GROWING = Settings(
    tasks=8, meta_batch=1, steps=3, warm_up=0.625, truncate=2, outer_decay=0.5, validation_interval=50,
    validation_tasks=2,
)  # fmt: skip


def grown(settings, **options):
    rule = make_rule("feed-forward", LEARNER.layout, hidden=[3])
    with torch.no_grad():
        for index, parameter in enumerate(rule.parameters()):
            parameter.copy_(torch.linspace(-0.3, 0.2 + index / 9, parameter.numel()).reshape(parameter.shape))
    generator = torch.Generator().manual_seed(0)
    return meta_train(rule, LEARNER, FAMILY, settings, generator=generator, **options)


def test_a_run_that_grows_is_adam_on_the_gradients_of_a_growing_t():
    """One task a step: T is 1 for three tasks, 2 for two, 3 from then on; the rest of the settings holds."""
    begun = grown(attrs.evolve(GROWING, tasks=0))
    rule, theta = begun.rule, begun.theta.detach().clone().requires_grad_()
    adam = torch.optim.Adam([theta, *rule.parameters()], lr=GROWING.outer_lr)
    stream = TaskStream(FAMILY, "train", 0, LEARNER.device, LEARNER.dtype)
    for position, steps in enumerate([1, 1, 1, 2, 2, 3, 3, 3]):
        _, grad, grads = meta_gradient(
            rule, LEARNER, theta, stream.take(position, 1), steps=steps, truncate=2, outer_decay=0.5
        )
        theta.grad = grad
        for name, parameter in rule.named_parameters():
            parameter.grad = grads[name]
        adam.step()
    trained = grown(attrs.evolve(GROWING, engine="eager"))
    torch.testing.assert_close(trained.theta.detach(), theta.detach(), rtol=0, atol=0)
    for name, parameter in trained.rule.named_parameters():
        torch.testing.assert_close(parameter, dict(rule.named_parameters())[name], rtol=0, atol=0)


def test_a_run_that_grows_goes_on_where_it_was_stopped(tmp_path):
    whole, path = grown(GROWING), tmp_path / "checkpoint.pt"

    def stop(event):
        if event.kind == "step" and event.position == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grown(GROWING, checkpoint=path, observers=[stop])
    again = grown(GROWING, checkpoint=path)
    assert torch.equal(again.theta, whole.theta)


@pytest.mark.nightly
def test_compiled_it_is_the_same_run():
    eager, compiled = (grown(attrs.evolve(GROWING, engine=engine)) for engine in ("eager", "compiled"))
    assert (eager.engine, compiled.engine) == ("eager", "compiled")
    torch.testing.assert_close(compiled.theta, eager.theta, rtol=1e-9, atol=1e-11)


@pytest.mark.nightly
@pytest.mark.parametrize("way", WAYS)
def test_a_compiled_gradient_is_the_eager_one(way):
    net, task, (truncate, decay) = NETS["tanh"], NETS["tanh"].task(2), way
    rule = rule_of("feed-forward-default", net.learner)
    theirs = meta_gradient(rule, net.learner, net.theta, task, steps=3, truncate=truncate, outer_decay=decay)
    for every in (None, 2):
        program = CompiledMetaGradient(
            rule, net.learner, steps=3, truncate=truncate, outer_decay=decay, checkpoint_every=every
        )
        same(program(net.theta, task), theirs)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"truncate": 0}, "truncate must be an integer >= 1, got 0"),
        ({"warm_up": 2}, "warm_up must be a number > 0 and <= 1, or None, got 2"),
        ({"outer_decay": 0}, "outer_decay must be a number > 0 and <= 1, or None, got 0"),
        ({"outer_decay": 1.5}, "outer_decay must be a number > 0 and <= 1, or None, got 1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, told):
    with pytest.raises(UsageError, match=f"^Settings: {told}$"):
        Settings(**wrong)
