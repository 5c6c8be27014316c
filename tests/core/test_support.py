"""The support set in a rule's hands, T, and where a task starts: against the steps written out by hand."""

from __future__ import annotations

import functools

import pytest
import torch
from plain_loop import networks
from torch import nn

from metalearn_core import (
    BaseLearner,
    Clipping,
    CompiledMetaGradient,
    LearnedOptimizer,
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
from metalearn_core.kernels.scores import CompiledScores
from metalearn_core.testing import TinySines, check_update_rule, tiny_learner
from metalearn_core.training.meta_gradient import meta_gradients

NET = networks()["tanh"]
LEARNER, THETA, TASK = NET.learner, NET.theta, NET.task()
close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)
both_orders = pytest.mark.parametrize("order", ["first", "second"])
CLIPS = [None, Clipping("norm", 0.05), Clipping("value", 0.02)]


class Curious(UpdateRule):
    """Everything that a rule may ask: a start, a product with the Hessian, a learned loss, and T."""

    uses_support = uses_step = True

    def __init__(self, layout):
        super().__init__()
        self.rate, self.weight = (nn.Parameter(torch.tensor(x)) for x in (0.2, 0.7))

    def start(self, theta, support):
        return theta - self.weight * support.gradient(support.loss, theta) + 0.01 * support.loss(theta)

    def update(self, theta, signal, state):
        support = signal.support
        seen = signal.grad
        bent = support.gradient(lambda at: support.gradient(support.loss, at) @ seen, theta)
        learned = support.gradient(lambda at: self.weight * support.predict(at).pow(4).mean(), theta)
        share = 1 / (signal.steps + signal.step)
        return theta - self.rate * share * (seen - 0.3 * bent + learned), state


def shown(grad, order, clip):
    grad = grad if clip is None else clip(grad)
    return grad.detach() if order == "first" else grad


def by_hand(rule, theta, inputs, targets, steps, order, clip):
    """The same steps with `torch.autograd.grad` and whole Hessians, for one task."""
    slope = functools.partial(torch.autograd.grad, create_graph=True)

    def loss(at):
        return NET.value(at, inputs, targets)

    def fourth(at):
        return rule.weight * NET.learner.predict(at, inputs).pow(4).mean()

    at = theta + 0
    theta = at - rule.weight * shown(slope(loss(at), at)[0], order, clip) + 0.01 * loss(at)
    for step in range(steps):
        seen = shown(slope(loss(theta), theta)[0], order, clip)
        hessian = torch.autograd.functional.hessian(loss, theta, create_graph=True)
        bent, learned = (shown(x, order, clip) for x in (hessian @ seen, slope(fourth(theta), theta)[0]))
        theta = theta - rule.rate / (steps + step) * (seen - 0.3 * bent + learned)
    return theta


def expected(rule, task, steps, order, clip=None):
    theta = THETA.clone().requires_grad_()
    loss = 0
    for i in range(len(task)):
        inputs, targets, *query = task[i].tensors
        loss = loss + NET.value(by_hand(rule, theta, inputs, targets, steps, order, clip), *query) / len(task)
    of_theta, *of_phi = torch.autograd.grad(loss, [theta, *rule.parameters()])
    return loss.detach(), of_theta, dict(zip(dict(rule.named_parameters()), of_phi, strict=True))


def curious():
    return Curious(LEARNER.layout).double()


@both_orders
@pytest.mark.parametrize("clip", CLIPS, ids=str)
def test_gradients_of_any_function_follow_order_and_clipping(order, clip):
    rule = curious()
    want = expected(rule, TASK, 2, order, clip)
    close(meta_gradient(rule, LEARNER, THETA, TASK, steps=2, order=order, clip=clip), want)
    phi = {name: p.detach() for name, p in rule.named_parameters()}
    close(BySteps(rule, LEARNER, 2, order, clip)(THETA, phi, TASK), want)


def test_a_batch_is_its_tasks_alone_with_and_without_vmap():
    rule = curious()
    alone = [adapt(rule, LEARNER, THETA, TASK[i].support, steps=2) for i in range(len(TASK))]
    slow = BaseLearner(NET.module, NET.loss)
    slow.use_vmap = False
    for learner in (LEARNER, slow):
        close(adapt(rule, learner, THETA, TASK.support, steps=2), torch.stack(alone))
    close(meta_gradient(rule, slow, THETA, TASK, steps=2), meta_gradient(rule, LEARNER, THETA, TASK, steps=2))


@both_orders
def test_seeds_together_are_each_alone(order):
    rules = [curious() for _ in range(2)]
    with torch.no_grad():
        rules[1].rate.mul_(1.5)
    phi = {
        n: torch.stack([dict(r.named_parameters())[n].detach() for r in rules]) for n in ("rate", "weight")
    }
    thetas = torch.stack([THETA, 0.8 * THETA])
    losses, grads, of_phi = meta_gradients(rules[0], LEARNER, thetas, phi, TASK, steps=2, order=order)
    stepped = BySteps(rules[0], LEARNER, 2, order, seeds=True)(thetas, phi, TASK)
    for i, rule in enumerate(rules):
        want = meta_gradient(rule, LEARNER, thetas[i], TASK, steps=2, order=order)
        close((losses[i], grads[i], {n: g[i] for n, g in of_phi.items()}), want)
        close((stepped[0][i], stepped[1][i], {n: g[i] for n, g in stepped[2].items()}), want)


@pytest.mark.parametrize("truncate", [1, 3])
def test_a_truncated_unroll_keeps_the_derivative_of_its_start(truncate):
    rule, phi = curious(), {name: p.detach() for name, p in curious().named_parameters()}
    ours = meta_gradient(rule, LEARNER, THETA, TASK, steps=3, truncate=truncate)
    close(BySteps(rule, LEARNER, 3, "second", truncate=truncate)(THETA, phi, TASK), ours)


class Sharp(UpdateRule):
    """Sharpness-aware descent (Foret et al., 2021), the gradient at θ + ρg, from a learned shift of θ⁰."""

    uses_support = True

    def __init__(self, layout):
        super().__init__()
        self.radius, self.shift = nn.Parameter(torch.tensor(0.1)), nn.Parameter(torch.zeros(layout.size))

    def start(self, theta, support):
        return theta + self.shift

    def update(self, theta, signal, state):
        support = signal.support
        return theta - 0.1 * support.gradient(support.loss, theta + self.radius * signal.grad), state


@pytest.mark.nightly
def test_compiled_whole_and_step_by_step_it_is_the_eager_gradient():
    rule = Sharp(LEARNER.layout).double()
    eager = meta_gradient(rule, LEARNER, THETA, TASK, steps=1)
    close(CompiledMetaGradient(rule, LEARNER, steps=1)(THETA, TASK), eager)
    close(CompiledMetaGradient(rule, LEARNER, steps=1, checkpoint_every=1)(THETA, TASK), eager)
    scores = CompiledScores(LEARNER, Settings(steps=1))(rule, THETA, TASK)
    path = trajectory(rule, LEARNER, THETA, TASK.support, steps=1)
    want = [
        torch.stack([LEARNER.score(theta[i], TASK[i].query) for theta, _ in [now] for i in range(len(TASK))])
        for now in path
    ]
    close(scores, torch.stack(want, 1).detach())


def test_it_trains_alone_and_with_other_seeds():
    learner = tiny_learner().to("cpu", torch.float64)
    settings = Settings(tasks=6, meta_batch=2, steps=2, validation_tasks=2, engine="eager")
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    together = meta_train_seeds(
        [Sharp(learner.layout) for _ in generators], learner, TinySines(), settings, generators=generators
    )
    generator = torch.Generator().manual_seed(1)
    alone = meta_train(Sharp(learner.layout), learner, TinySines(), settings, generator=generator)
    close(together[1].theta, alone.theta)
    assert float(alone.rule.shift.detach().abs().max()) > 0


@pytest.mark.parametrize("rule", [Curious, Sharp])
def test_the_kit_looks_at_such_rules(rule):
    assert [r for r in check_update_rule(rule) if r.status == "failed"] == []


def test_a_start_needs_no_declaration_and_the_kit_says_so():
    class Start(UpdateRule):
        uses_support = True

        def start(self, theta, support):
            return theta - 0.1 * support.gradient(support.loss, theta)

        def update(self, theta, signal, state):
            return theta - 0.1 * signal.grad, state

    told = {r.law: r.message for r in check_update_rule(lambda layout: Start()) if r.status == "failed"}
    assert "start has its support set without it; leave it out" in told["declares"]
    Start.uses_support = False
    assert [r for r in check_update_rule(lambda layout: Start()) if r.status == "failed"] == []


def test_a_rule_for_other_data_is_told_to_bring_them():
    class Encoder(UpdateRule):
        def __init__(self, layout):
            super().__init__()
            self.encoder = nn.Linear(2, layout.size)

        def start(self, theta, support):
            return theta + self.encoder(torch.cat([support.batch.inputs, support.batch.targets], 1)).mean(0)

        def update(self, theta, signal, state):
            return theta - 0.1 * signal.grad, state

    told = {r.law: r.message for r in check_update_rule(Encoder) if r.status == "failed"}
    assert "bring those that it is made for as problem=, in a terminal --problem" in told["batch"]
    learner = BaseLearner(nn.Linear(1, 1), nn.functional.mse_loss)
    draw = torch.Generator().manual_seed(0)
    task = Task.of([torch.randn(3, 5, 1, generator=draw) for _ in range(4)], stacked=True)
    found = check_update_rule(Encoder, problem=(learner, torch.tensor([0.3, -0.2]), task))
    assert [r for r in found if r.status == "failed"] == []


def test_zero_steps_give_the_start():
    rule = Sharp(LEARNER.layout).double()
    nn.init.ones_(rule.shift)
    close(adapt(rule, LEARNER, THETA, TASK[0].support, steps=0), THETA + 1)


def changed(**attributes):
    return type("Changed", (Sharp,), attributes)(LEARNER.layout).double()


class Blind(UpdateRule):
    def update(self, theta, signal, state):
        return theta - signal.support.gradient(signal.support.loss, theta), state


class Hasty(Blind):
    def update(self, theta, signal, state):
        return theta / signal.steps, state


REFUSED = [
    (lambda: Blind(), "reads signal.support without having declared it; add the class variable uses_support"),
    (lambda: Hasty(), "reads signal.steps without having declared it; add the class variable uses_step = T"),
    (lambda: changed(elementwise=True, check_first_update=False), "with uses_support it is for one task"),
    (lambda: changed(start=lambda self, theta, support: theta[:2]), r"start must return θ as it was given"),
    (lambda: changed(start=lambda self, theta, support: None), "start must return θ .* got None"),
    (lambda: changed(start=lambda self, theta, support: theta.add_(1)), "start raised RuntimeError"),
    (lambda: changed(start=lambda self, theta, support: (theta, ())), r"got \(float64\[\d+\], \(\)\)$"),
    (lambda: changed(start=lambda self, theta, support: theta.add_(1)), "new tensor instead of writing in p"),
    (
        lambda: changed(
            start=lambda self, theta, support: theta + support.batch.inputs.mul_(2).sum(),
        ),
        "writes to its inputs",
    ),
    (
        lambda: changed(update=lambda self, t, s, state: (t + s.support.batch.targets.mul_(1).sum(), state)),
        "rule Changed .*: it writes to its targets",
    ),
    (
        lambda: changed(
            update=lambda self, t, s, state: (s.support.gradient(s.support.loss(t), t), state),
        ),
        "support.gradient: objective must be a function, got a Tensor",
    ),
    (
        lambda: changed(
            update=lambda self, t, s, state: (s.support.gradient(s.support.loss, s.support), state),
        ),
        "support.gradient: theta must be a Tensor, got a SupportSet",
    ),
    (
        lambda: changed(update=lambda self, t, s, state: (t + t.detach().requires_grad_(), state)),
        r"signal.support.gradient\(function, theta\) for any other",
    ),
    (
        lambda: changed(
            init_state=lambda self, theta: {"v": theta}, update=lambda self, t, s, state: (t, (state["v"],))
        ),
        r"as it was given them: \(float64\[(\d+)\], \{'v': float64\[\1\]\}\);"
        r" it returned \(float64\[\1\], \(float64\[\1\],\)\)$",
    ),
    (
        lambda: changed(update=lambda self, t, s, state: (s.support.gradient(s.support.predict, t), state)),
        r"the objective must return one number, got shape \(4, 2\)",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_does_not_fit_is_said_in_one_line(make, message):
    support = TASK.map(torch.clone).support
    with pytest.raises(UsageError, match=message) as error:
        adapt(make(), LEARNER, THETA, support, steps=1)
    assert "\n" not in str(error.value)


def test_an_optimizer_has_no_support_set():
    rule = Sharp(LEARNER.layout).double()
    with pytest.raises(UsageError, match="reads the support set of a task, and an optimizer has none"):
        LearnedOptimizer(NET.module.parameters(), rule)


def test_nothing_of_it_is_called_for_a_rule_that_declares_nothing(monkeypatch):
    from metalearn_core import inner_loop, make_rule

    monkeypatch.setattr(inner_loop, "SupportSet", None)  # not even made
    adapt(make_rule("gradient-descent", LEARNER.layout).double(), LEARNER, THETA, TASK.support, steps=2)
