"""`partial` against a plain loop over tensors by name: gradients for what adapts alone, task by task."""

from __future__ import annotations

from types import SimpleNamespace

import attrs
import pytest
import torch
from torch import nn
from torch.func import functional_call
from traced_step import assert_traced_is_eager

from metalearn_core import (
    BaseLearner,
    ParameterLayout,
    Registry,
    Settings,
    Signal,
    UpdateRule,
    UsageError,
    adapt,
    forked_rng,
    hookimpl,
    make_rule,
    meta_gradient,
    meta_train,
    registry,
    task_families,
)
from metalearn_core.testing import Architecture, Problem
from metalearn_core.training.meta_gradient import meta_gradients

PROBLEM = Problem(Architecture((2, 5, 4, 3)), tasks=3, support=4, query=5, steps=3, seed=2)
NAMES = PROBLEM.learner.layout.names
CLOSE = {"rtol": 1e-9, "atol": 1e-11}

PARTS = {
    "head": ("head", ["4.weight", "4.bias"]),
    "body": ("body", ["0.weight", "0.bias", "2.weight", "2.bias"]),
    "pattern": ("*.weight", ["0.weight", "2.weight", "4.weight"]),
    "patterns": (["0.*", "4.bias"], ["0.weight", "0.bias", "4.bias"]),
    "all": ("*", list(NAMES)),
}
RULES = {
    "gradient-descent": {"inner_lr": 0.1, "learn_lr": "scalar"},
    "per-parameter": {"rule": "gradient-descent", "inner_lr": 0.1, "learn_lr": "parameter"},
    "momentum": {"rule": "gradient-descent", "inner_lr": 0.1, "momentum": 0.9, "learn_lr": "tensor"},
    "lslr": {"rule": "lslr", "inner_lr": 0.1},
    "meta-curvature": {"rule": "meta-curvature", "inner_lr": 0.1},
    "lstm": {"rule": "lstm"},
    "feed-forward": {"rule": "feed-forward", "hidden": [3], "inputs": ["grad", "loss", "theta", "step"]},
}


def made(layout, adapts, options, seed=0):
    """The rule with its φ moved away from where they start."""
    with forked_rng(torch.Generator().manual_seed(seed)):
        rule = make_rule("partial", layout, adapts=adapts, **options).double()
        with torch.no_grad():
            for phi in rule.parameters():
                phi.add_(0.1 * torch.randn_like(phi))
    return rule


def plain(rule, problem, names, order):
    """θ⁽ᵀ⁾ of each task, the mean query loss and both meta-gradients: a loop over tensors by name."""
    module, learner = problem.learner.module, problem.learner
    start = {name: x.detach().requires_grad_() for name, x in learner.layout.unflatten(problem.theta).items()}
    phi = dict(rule.named_parameters())
    shapes = {name: start[name].shape for name in names}
    ends, losses = [], []
    for task in problem.task:
        now = dict(start)
        state = rule.rule.init_state(torch.cat([now[name].reshape(-1) for name in names]))
        for step in range(problem.steps):
            loss = nn.functional.mse_loss(
                functional_call(module, now, task.support.inputs), task.support.targets
            )
            grads = torch.autograd.grad(loss, [now[name] for name in names], create_graph=True)
            flat = torch.cat([now[name].reshape(-1) for name in names])
            grad = torch.cat([g.reshape(-1) for g in grads])
            if order == "first":
                grad, loss = grad.detach(), loss.detach()
            flat, state = rule.rule.update(flat, Signal(grad, loss, step), state)
            parts = flat.split([shape.numel() for shape in shapes.values()])
            now |= {name: part.reshape(shapes[name]) for name, part in zip(names, parts, strict=True)}
        ends.append(torch.cat([now[name].reshape(-1) for name in learner.layout.names]))
        losses.append(
            nn.functional.mse_loss(functional_call(module, now, task.query.inputs), task.query.targets)
        )
    loss = sum(losses) / len(losses)
    grads = torch.autograd.grad(loss, [*start.values(), *phi.values()], allow_unused=True)
    filled = [
        torch.zeros_like(x) if g is None else g
        for g, x in zip(grads, [*start.values(), *phi.values()], strict=True)
    ]
    of_theta = torch.cat([g.reshape(-1) for g in filled[: len(start)]])
    return torch.stack(ends), loss, of_theta, dict(zip(phi, filled[len(start) :], strict=True))


CASES = {
    **{f"{part}-gradient-descent": (*PARTS[part], RULES["gradient-descent"]) for part in PARTS},
    **{f"patterns-{rule}": (*PARTS["patterns"], RULES[rule]) for rule in RULES},
}


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize(("adapts", "names", "options"), CASES.values(), ids=list(CASES))
def test_equal_to_a_plain_loop(adapts, names, options, order):
    rule = made(PROBLEM.learner.layout, adapts, options)
    ends, loss, of_theta, of_phi = plain(rule, PROBLEM, names, order)
    given = PROBLEM.learner, PROBLEM.theta
    found = adapt(rule, *given, PROBLEM.task.support, steps=3, order=order)
    torch.testing.assert_close(found, ends, **CLOSE)
    kept = torch.cat(
        [
            torch.full((size,), name not in names)
            for name, size in zip(NAMES, PROBLEM.learner.layout.sizes, strict=True)
        ]
    )
    assert torch.equal(found[:, kept], PROBLEM.theta[kept].expand(3, -1))
    ours = meta_gradient(rule, *given, PROBLEM.task, steps=3, order=order)
    torch.testing.assert_close(ours[0], loss, **CLOSE)
    torch.testing.assert_close(ours[1], of_theta, **CLOSE)
    assert ours[2].keys() == of_phi.keys()
    for name, grad in of_phi.items():
        torch.testing.assert_close(ours[2][name], grad, **CLOSE)


class Curious(UpdateRule):
    """It asks for all that there is: a start, a product with the Hessian, a loss of its own, and T."""

    uses_support = uses_step = True

    def __init__(self, layout):
        super().__init__()
        self.rate, self.weight = nn.Parameter(torch.tensor(0.2)), nn.Parameter(torch.tensor(0.7))

    def start(self, theta, support):
        return theta - self.weight * support.gradient(support.loss, theta) + 0.01 * support.loss(theta)

    def update(self, theta, signal, state):
        support, seen = signal.support, signal.grad
        bent = support.gradient(lambda at: support.gradient(support.loss, at) @ seen, theta)
        own = support.gradient(lambda at: self.weight * support.predict(at).pow(4).mean(), theta)
        return theta - self.rate / (signal.steps + signal.step) * (seen - 0.3 * bent + own), state


class Shaken(UpdateRule):
    """It puts the noise in the place of what adapts."""

    uses_noise = True

    def __init__(self, layout):
        super().__init__()

    def update(self, theta, signal, state):
        return signal.noise(theta.shape), state


@hookimpl
def metalearn_update_rules():
    return {"curious": Curious, "shaken": Shaken}


@pytest.fixture
def strangers(monkeypatch):
    own = Registry()
    own.register(SimpleNamespace(metalearn_update_rules=metalearn_update_rules), "strangers")
    monkeypatch.setattr(registry, "default_registry", lambda: own)


def curious_by_hand(rule, inputs, targets, start, names, order):
    """What adapts after two steps, by `torch.autograd.grad` and whole Hessians of a function of it alone."""
    sizes = [start[name].numel() for name in names]

    def predict(part):
        moved = dict(zip(names, part.split(sizes), strict=True))
        own = start | {name: value.reshape(start[name].shape) for name, value in moved.items()}
        return functional_call(PROBLEM.learner.module, own, (inputs,))

    def loss(part):
        return nn.functional.mse_loss(predict(part), targets)

    def shown(value, part):
        (grad,) = torch.autograd.grad(value, part, create_graph=True)
        return grad.detach() if order == "first" else grad

    part = torch.cat([start[name].reshape(-1) for name in names])
    part = part - rule.weight * shown(loss(part), part) + 0.01 * loss(part)
    for step in range(2):
        seen = shown(loss(part), part)
        bent = torch.autograd.functional.hessian(loss, part, create_graph=True) @ seen
        bent = bent.detach() if order == "first" else bent
        own = shown(rule.weight * predict(part).pow(4).mean(), part)
        part = part - rule.rate / (2 + step) * (seen - 0.3 * bent + own)
    return start | {
        name: value.reshape(start[name].shape)
        for name, value in zip(names, part.split(sizes), strict=True)
    }  # fmt: skip


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize(("adapts", "names"), [PARTS["head"], PARTS["patterns"]], ids=["head", "patterns"])
def test_a_rule_sees_the_support_set_as_a_function_of_what_adapts(adapts, names, order, strangers):
    """Its start, its own losses and their derivatives, all against a part of θ written out by hand."""
    layout = PROBLEM.learner.layout
    rule = make_rule("partial", layout, adapts=adapts, rule="curious").double()
    found = meta_gradient(rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, steps=2, order=order)
    start = {name: x.detach().requires_grad_() for name, x in layout.unflatten(PROBLEM.theta).items()}
    losses, ends = [], []
    for task in PROBLEM.task:
        end = curious_by_hand(rule.rule, *task.tensors[:2], start, names, order)
        prediction = functional_call(PROBLEM.learner.module, end, (task.query.inputs,))
        losses.append(nn.functional.mse_loss(prediction, task.query.targets))
        ends.append(layout.flatten(end))
    loss = sum(losses) / len(losses)
    grads = torch.autograd.grad(loss, [*start.values(), rule.rule.rate, rule.rule.weight])
    of_theta = layout.flatten(dict(zip(start, grads, strict=False)))
    of_phi = {"rule.rate": grads[-2], "rule.weight": grads[-1]}
    torch.testing.assert_close(found, (loss.detach(), of_theta, of_phi), **CLOSE)
    adapted = adapt(rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task.support, steps=2, order=order)
    torch.testing.assert_close(adapted, torch.stack(ends), **CLOSE)


def test_a_rule_has_its_noise(strangers):
    """Normal numbers of each task and seed for what adapts, the same for the task alone, and no others."""
    rule = make_rule("partial", PROBLEM.learner.layout, adapts="head", rule="shaken").double()
    given, support = (rule, PROBLEM.learner, PROBLEM.theta), PROBLEM.task.support
    ends = adapt(*given, support, steps=1)
    apart = ends != PROBLEM.theta
    assert apart[:, -15:].all()
    assert not apart[:, :-15].any()
    assert ends[:, -15:].unique().numel() == 45
    for index, end in enumerate(ends):
        torch.testing.assert_close(adapt(*given, PROBLEM.task[index].support, steps=1), end, **CLOSE)
    with torch.no_grad():
        rule.rule.noise_seed.add_(1)
    assert (adapt(*given, support, steps=1) != ends)[:, -15:].all()


def test_a_rule_without_a_start_has_none():
    assert not made(PROBLEM.learner.layout, "head", {}).has_start


def test_what_is_kept_is_meta_learned():
    """Its meta-gradient is not zero, as it would be for a frozen parameter, which is in no vector at all."""
    rule = made(PROBLEM.learner.layout, "head", {})
    _, grad, _ = meta_gradient(rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, steps=3)
    assert all(bool(part.abs().min() > 0) for part in PROBLEM.learner.layout.unflatten(grad).values())


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("options", RULES.values(), ids=list(RULES))
def test_seeds_and_tasks_together_are_each_alone(options, order):
    rules = [made(PROBLEM.learner.layout, ["0.*", "4.bias"], options, seed) for seed in range(2)]
    named = [dict(rule.named_parameters()) for rule in rules]
    phi = {key: torch.stack([each[key].detach() for each in named]) for key in named[0]}
    theta = torch.stack([PROBLEM.theta, -PROBLEM.theta])
    losses, grad, grads = meta_gradients(
        rules[0], PROBLEM.learner, theta, phi, PROBLEM.task, steps=3, order=order
    )
    for seed, rule in enumerate(rules):
        alone = [
            meta_gradient(rule, PROBLEM.learner, theta[seed], PROBLEM.task[i], steps=3, order=order)
            for i in range(len(PROBLEM.task))
        ]
        torch.testing.assert_close(losses[seed], sum(a[0] for a in alone) / 3, **CLOSE)
        torch.testing.assert_close(grad[seed], sum(a[1] for a in alone) / 3, **CLOSE)
        for key, of_seeds in grads.items():
            torch.testing.assert_close(of_seeds[seed], sum(a[2][key] for a in alone) / 3, **CLOSE)


@pytest.mark.parametrize("rule", ["momentum", "lstm", "meta-curvature"])
def test_what_is_compiled_is_the_eager_step(rule):
    """The program, as it is traced, for other values than it was traced with."""
    rule = made(PROBLEM.learner.layout, "head", RULES[rule])
    assert_traced_is_eager(rule, PROBLEM, **CLOSE)


@pytest.mark.nightly
def test_it_trains_compiled():
    """A run of its own on the default engine, which compiles; one step from the same state is eager's."""
    learner = BaseLearner(
        nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double(), nn.functional.mse_loss
    )
    settings = Settings(tasks=4, meta_batch=2, steps=2, validation_interval=4, validation_tasks=2)
    family, ends = task_families()["sine"](support=5, query=5), []
    for engine in ("compiled", "eager"):
        trained = meta_train(
            made(learner.layout, "head", {"learn_lr": "scalar"}), learner, family,
            attrs.evolve(settings, engine=engine), generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        assert trained.engine == engine
        ends.append([trained.theta, *trained.rule.parameters()])
    for ours, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


LAYOUT = ParameterLayout(("body.weight", "head.weight", "head.bias"), ((2, 3), (3, 1), (1,)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"adapts": "haed"}, ["adapts = 'haed' fits no parameter", "body.weight, head.weight, head.bias"]),
        ({"adapts": []}, ["fits no parameter"]),
        ({"adapts": 3}, ['"head", "body", a pattern', "3"]),
        ({"adapts": ["head.*", 3]}, ["a list of them", "3"]),
        ({"rule": "gradient-decent"}, ["unknown rule", "did you mean 'gradient-descent'"]),
        ({"rule": "lslr", "inner_rate": 0.1}, ["rule 'lslr'", "unknown option 'inner_rate'"]),
        ({"inner_lr": -1.0}, ["rule 'gradient-descent'", "inner_lr", "-1.0"]),
    ],
    ids=str,
)
def test_a_mistake_is_named(options, said):
    with pytest.raises(UsageError) as error:
        make_rule("partial", LAYOUT, **options)
    for part in ("rule 'partial'", *said):
        assert part in str(error.value)


def test_a_network_of_one_layer_has_no_body():
    with pytest.raises(UsageError, match="adapts = 'body' fits no parameter; there are weight, bias"):
        make_rule("partial", ParameterLayout(("weight", "bias"), ((1, 1), (1,))), adapts="body")
