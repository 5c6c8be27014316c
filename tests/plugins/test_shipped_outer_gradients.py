"""The shipped outer gradients, each against an independent reference in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from metalearn_benchmarks.speed.live_bytes import LiveBytes
from metalearn_core import (
    BaseLearner,
    Batch,
    Clipping,
    Settings,
    Task,
    UpdateRule,
    UsageError,
    base_learners,
    keyed_normal,
    make_meta_gradient,
    make_rule,
    meta_gradient,
    meta_gradients,
    meta_train,
    task_families,
)
from metalearn_core.testing import Architecture, Problem, TinySines
from metalearn_core.training.noise import threefry

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
PROBLEM = Problem(Architecture((1, 4, 1)), tasks=3, steps=3)
SHIPPED = ("evolution", "hessian-free", "implicit", "mixed-mode", "reptile")
DIAGONAL = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


class Bowl(nn.Module):
    """Its loss on (x, y) is ½ Σ d (θ − x)², whatever y is: a quadratic with a known minimum."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def forward(self, x):
        return x - self.place


def bowl_loss(prediction, target):
    return 0.5 * (DIAGONAL * prediction.square()).sum(-1).mean()


BOWL = BaseLearner(Bowl(), bowl_loss)


def bowl_task(count=2):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, 2, 3, generator=generator, dtype=torch.float64)
    return Task(Batch(x[:, :1], x[:, :1]), Batch(x[:, 1:], x[:, 1:]), stacked=True)


class Shift(UpdateRule):
    """θ + φ: where it ends is linear in every perturbation."""

    def __init__(self, layout):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64))

    def update(self, theta, signal, state):
        return theta + self.shift, state


def ask(name, rule, problem=PROBLEM, task=None, **settings):
    given = problem.task if task is None else task
    options = {"steps": problem.steps} | settings
    return make_meta_gradient(name)(rule, problem.learner, problem.theta, given, **options)


def plain_rule(name="gradient-descent", **options):
    options = {"inner_lr": 0.1} | options if name == "gradient-descent" else options
    torch.manual_seed(0)
    return make_rule(name, PROBLEM.learner.layout, **options).double()


def descend(theta, support, steps, pull=0.0, learner=PROBLEM.learner, rate=0.1):
    """Gradient descent as a plain loop; `pull` holds it at θ⁰."""
    start = theta
    for _ in range(steps):
        (grad,) = torch.autograd.grad(learner.loss(theta, support), theta, create_graph=True)
        theta = theta - rate * (grad + pull * (theta - start))
    return theta


@pytest.mark.parametrize("examples", ["support", "all"])
def test_reptile_is_a_plain_loop(examples):
    theta = PROBLEM.theta.detach().requires_grad_()
    ends, losses = [], []
    for i in range(3):
        task = PROBLEM.task[i]
        seen = task.support
        if examples == "all":
            both = (seen, task.query)
            seen = Batch(torch.cat([b.inputs for b in both]), torch.cat([b.targets for b in both]))
        ends.append(descend(theta, seen, 3).detach())
        losses.append(PROBLEM.learner.loss(ends[-1], task.query))
    gradient = make_meta_gradient("reptile", examples=examples)
    loss, grad, of_phi = gradient(
        plain_rule(), PROBLEM.learner, PROBLEM.theta, PROBLEM.task, steps=3
    )  # fmt: skip
    torch.testing.assert_close(grad, theta.detach() - torch.stack(ends).mean(0), **CLOSE)
    torch.testing.assert_close(loss, torch.stack(losses).mean(), **CLOSE)
    assert of_phi == {}


def test_implicit_is_backpropagation_through_a_converged_inner_loop():
    theta = PROBLEM.theta.detach().requires_grad_()
    steps, pull = 300, 3.0
    losses = [
        PROBLEM.learner.loss(descend(theta, PROBLEM.task[i].support, steps, pull), PROBLEM.task[i].query)
        for i in range(3)
    ]
    loss = torch.stack(losses).mean()
    (wanted,) = torch.autograd.grad(loss, theta)
    rule = make_rule("proximal", PROBLEM.learner.layout, inner_lr=0.1, regularisation=pull)
    found = make_meta_gradient("implicit", iterations=20)(
        rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, steps=steps
    )
    torch.testing.assert_close(found[0], loss.detach(), **CLOSE)
    torch.testing.assert_close(found[1], wanted, **CLOSE)
    exact = meta_gradient(rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, steps=steps)[1]
    torch.testing.assert_close(exact, wanted, **CLOSE)


def test_implicit_on_a_bowl_is_its_closed_form():
    """θ* = (D + λ)⁻¹(D x + λ θ⁰), and so the meta-gradient is λ (D + λ)⁻¹ D (θ* − query)."""
    task, theta, pull = bowl_task(), torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64), 1.5
    ends = (DIAGONAL * task.support.inputs[:, 0] + pull * theta) / (DIAGONAL + pull)
    wanted = (pull / (DIAGONAL + pull) * DIAGONAL * (ends - task.query.inputs[:, 0])).mean(0)
    rule = make_rule("proximal", BOWL.layout, inner_lr=0.4, regularisation=pull)
    found = make_meta_gradient("implicit", iterations=3)(rule, BOWL, theta, task, steps=150)[1]
    torch.testing.assert_close(found, wanted, **CLOSE)


RULES = [
    ("gradient-descent", {"learn_lr": "parameter"}),
    ("gradient-descent", {"optimizer": "adam"}),
    ("feed-forward", {"hidden": [3], "inputs": ["grad", "loss", "step"]}),
    ("lstm", {}),
]
FURTHER = [
    {},
    {"truncate": 2},
    {"outer_decay": 0.7},
    {"clip": Clipping("value", 0.3)},
    {"truncate": 1, "steps": 0},
]


@pytest.mark.parametrize(("name", "options"), RULES)
@pytest.mark.parametrize("further", FURTHER)
def test_hessian_free_is_the_exact_product_as_its_step_shrinks(name, options, further):
    rule = plain_rule(name, **options)
    settings = {"steps": 3} | further
    wanted = meta_gradient(rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, **settings)
    errors = []
    for difference in (1e-1, 1e-2, 1e-3):
        found = make_meta_gradient("hessian-free", difference=difference)(
            rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, **settings
        )
        parts = zip((found[1], *found[2].values()), (wanted[1], *wanted[2].values()), strict=True)
        errors.append(max(float((a - b).norm() / (b.norm() + 1e-6)) for a, b in parts))
        torch.testing.assert_close(found[0], wanted[0], **CLOSE)
    assert errors[2] < 1e-6
    # a central difference: a hundredth of the error at a tenth of the step, where it is above rounding
    assert errors[1] < 0.02 * errors[0] + 1e-12


@pytest.mark.parametrize(("name", "options"), RULES)
@pytest.mark.parametrize("further", FURTHER)
def test_mixed_mode_is_backpropagation(name, options, further):
    rule = plain_rule(name, **options)
    settings = {"steps": 3} | further
    wanted = meta_gradient(rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, **settings)
    torch.testing.assert_close(ask("mixed-mode", rule, **settings), wanted, **CLOSE)


def test_mixed_mode_is_a_plain_loop():
    theta = PROBLEM.theta.detach().requires_grad_()
    losses = [
        PROBLEM.learner.loss(descend(theta, PROBLEM.task[i].support, 3), PROBLEM.task[i].query)
        for i in range(3)
    ]
    loss = torch.stack(losses).mean()
    (wanted,) = torch.autograd.grad(loss, theta)
    found = ask("mixed-mode", plain_rule(), steps=3)
    torch.testing.assert_close(found[:2], (loss.detach(), wanted), **CLOSE)


def test_mixed_mode_needs_the_path_and_the_work_of_one_step():
    """From T = 20 to 40 its memory grows by 20 of θ; backpropagation keeps what each step computed."""
    learner = base_learners()["mlp"](hidden=[40, 40], inputs=1, outputs=1)
    task = task_families()["sine"](support=5, query=50).sample("train", 1, torch.Generator().manual_seed(0))
    rule = make_rule("feed-forward", learner.layout)
    theta = learner.initial(torch.Generator().manual_seed(0))

    def most(name, steps):
        with LiveBytes() as live:
            make_meta_gradient(name)(rule, learner, theta, task, steps=steps)
        return live.most

    path = 20 * theta.numel() * theta.element_size()
    assert most("mixed-mode", 40) - most("mixed-mode", 20) <= 1.1 * path
    assert most("backpropagation", 40) - most("backpropagation", 20) > 3 * path


def test_a_loss_without_a_forward_derivative_is_told():
    class Backwards(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x.square()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, g):
            return 2 * ctx.saved_tensors[0] * g

    def loss(prediction, target):
        return Backwards.apply(prediction - target).mean()

    learner = BaseLearner(PROBLEM.learner.module, loss)
    told = "mixed-mode: the base-learner's loss has no forward-mode derivative .* take hessian-free, or"
    with pytest.raises(UsageError, match=told):
        make_meta_gradient("mixed-mode")(plain_rule(), learner, PROBLEM.theta, PROBLEM.task, steps=2)


def test_hessian_free_on_a_bowl_is_exact_at_any_step():
    task, theta = bowl_task(), torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    rule = make_rule("gradient-descent", BOWL.layout, inner_lr=0.3)
    ends = task.support.inputs[:, 0] + (1 - 0.3 * DIAGONAL) ** 4 * (theta - task.support.inputs[:, 0])
    wanted = ((1 - 0.3 * DIAGONAL) ** 4 * DIAGONAL * (ends - task.query.inputs[:, 0])).mean(0)
    found = make_meta_gradient("hessian-free", difference=0.5)(rule, BOWL, theta, task, steps=4)[1]
    torch.testing.assert_close(found, wanted, **CLOSE)


def test_threefry_has_the_published_answers():
    """The known answers of Random123, its authors' own library."""
    most = 0xFFFFFFFF
    for key, counter, wanted in (
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((most, most), (most, most), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ):
        words = [[torch.tensor([word]) for word in pair] for pair in (key, counter)]
        assert tuple(int(x) for x in threefry(*words)) == wanted


def test_keyed_numbers_are_normal_and_belong_to_their_keys():
    drawn = keyed_normal(torch.arange(500), 201, dtype=torch.float64)
    assert abs(float(drawn.mean())) < 4 / math.sqrt(drawn.numel())
    assert float(drawn.square().mean()) == pytest.approx(1, abs=0.02)
    assert float((drawn**4).mean()) == pytest.approx(3, abs=0.1)
    assert torch.equal(drawn[7:9], keyed_normal(torch.tensor([7, 8]), 201, dtype=torch.float64))
    assert keyed_normal(torch.tensor([2**62]), 3).dtype == torch.float32


def enumerated(monkeypatch, pieces):
    """Draws whose mean outer product is exactly the identity: √N times each axis, as the pairs."""
    size = 3 + pieces * 3
    axes = math.sqrt(size) * torch.eye(size, dtype=torch.float64)

    def drawn(keys, count, *, dtype):
        assert count == size * size
        return axes.reshape(1, -1).expand(len(keys), -1)

    monkeypatch.setattr("metalearn_evolution.keyed_normal", drawn)
    return {"pairs": size, "sigma": 0.7}


@pytest.mark.parametrize("further", [{}, {"outer_decay": 0.6}])
@pytest.mark.parametrize("truncate", [None, 1, 2, 4])
def test_evolution_has_no_bias_on_a_quadratic(monkeypatch, truncate, further):
    """Where the loss is quadratic in all perturbations, the mean over the axes is the expectation itself."""
    pieces = 1 if truncate is None else -(-4 // truncate)
    options = enumerated(monkeypatch, pieces)
    task, theta, rule = bowl_task(), torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64), Shift(BOWL.layout)
    wanted = meta_gradient(rule, BOWL, theta, task, steps=4, **further)
    gradient = make_meta_gradient("evolution", **options)
    _, grad, of_phi = gradient(rule, BOWL, theta, task, steps=4, truncate=truncate, **further)
    torch.testing.assert_close(grad, wanted[1], **CLOSE)
    torch.testing.assert_close(of_phi["shift"], wanted[2]["shift"], **CLOSE)
    if pieces > 1:  # what backpropagation through the last piece alone would say is another gradient
        cut = meta_gradient(rule, BOWL, theta, task, steps=4, truncate=truncate, **further)
        assert not torch.allclose(cut[2]["shift"], wanted[2]["shift"], rtol=1e-3)


@pytest.mark.parametrize("truncate", [None, 1])
@pytest.mark.parametrize("name", ["gradient-descent", "feed-forward"])
def test_evolution_comes_to_the_meta_gradient_with_many_pairs(name, truncate):
    """Within five standard errors, over batches of pairs, in the direction of the gradient and of each φ."""
    options = {"learn_lr": "scalar"} if name == "gradient-descent" else {"hidden": [2]}
    rule = plain_rule(name, **options)
    settings = {"steps": 3, "outer_decay": 0.8}
    wanted = meta_gradient(rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, **settings)
    gradient = make_meta_gradient("evolution", pairs=40, sigma=1e-3)
    parts = []
    for start in range(0, 90, 3):
        keys = torch.arange(start, start + 3)
        found = gradient(
            rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, keys=keys, truncate=truncate, **settings
        )
        pairs = [(found[1], wanted[1]), *((found[2][k], wanted[2][k]) for k in wanted[2])]
        parts.append([float((a * b).sum() / b.square().sum()) for a, b in pairs])
    estimates = torch.tensor(parts)
    error = estimates.std(0) / math.sqrt(len(estimates))
    assert bool(((estimates.mean(0) - 1).abs() < 5 * error + 1e-3).all()), (estimates.mean(0), error)
    assert float(error[0]) < 0.2


def rule_for(name):
    if name == "implicit":
        return make_rule("proximal", PROBLEM.learner.layout, inner_lr=0.1)
    return plain_rule(learn_lr="none" if name == "reptile" else "parameter")


def keyed(name, keys):
    return {"keys": keys} if name == "evolution" else {}


@pytest.mark.parametrize("name", SHIPPED)
def test_tasks_together_are_each_alone(name):
    rule, keys = rule_for(name), torch.tensor([11, 12, 13])
    loss, grad, of_phi = ask(name, rule, **keyed(name, keys))
    alone = [ask(name, rule, task=PROBLEM.task[i], **keyed(name, keys[i : i + 1])) for i in range(3)]
    torch.testing.assert_close(loss, torch.stack([a[0] for a in alone]).mean(), **CLOSE)
    torch.testing.assert_close(grad, torch.stack([a[1] for a in alone]).mean(0), **CLOSE)
    for key, g in of_phi.items():
        torch.testing.assert_close(g, torch.stack([a[2][key] for a in alone]).mean(0), **CLOSE)
    starts = PROBLEM.theta.expand(3, -1).contiguous()
    rows = make_meta_gradient(name)(
        rule, PROBLEM.learner, starts, PROBLEM.task, steps=3, **keyed(name, keys)
    )[1]
    torch.testing.assert_close(rows, torch.stack([a[1] for a in alone]) / 3, **CLOSE)


class Fading(UpdateRule):
    """θ − (1 − t/T) α∇L: it reads both t and T."""

    uses_step = True

    def __init__(self, layout):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))

    def update(self, theta, signal, state):
        return theta - (1 - signal.step / signal.steps) * self.rate * signal.grad, state


class Weighed(BaseLearner):
    """Its support loss has a penalty that grows with t."""

    def support_loss(self, theta, batch, step):
        return self.loss(theta, batch) + 0.1 * (step + 1) * theta.square().sum()


def test_step_and_a_support_loss_of_its_own_are_followed():
    learner = Weighed(PROBLEM.learner.module, nn.functional.mse_loss)
    rule, arguments = Fading(learner.layout), (learner, PROBLEM.theta, PROBLEM.task)
    wanted = meta_gradient(rule, *arguments, steps=3)
    found = make_meta_gradient("hessian-free", difference=1e-4)(rule, *arguments, steps=3)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(make_meta_gradient("mixed-mode")(rule, *arguments, steps=3), wanted, **CLOSE)
    estimate = make_meta_gradient("evolution", pairs=2000, sigma=1e-3)(rule, *arguments, steps=3)
    along = float((estimate[1] * wanted[1]).sum() / wanted[1].square().sum())
    assert along == pytest.approx(1, abs=0.1)


class Watching(UpdateRule):
    uses_support = True

    def update(self, theta, signal, state):
        return theta - 0.1 * signal.support.gradient(signal.support.loss, theta), state


@pytest.mark.parametrize("name", ["evolution", "hessian-free", "mixed-mode"])
def test_a_rule_that_reads_the_support_set_is_refused(name):
    with pytest.raises(UsageError, match=f"{name}: rule Watching .* reads the support set itself"):
        ask(name, Watching())


def test_sets_with_masks_are_taken():
    """Padded examples count for nothing: the answers are those of the sets without them."""
    whole = PROBLEM.task
    few = [
        Task(Batch(t.support.inputs[:4], t.support.targets[:4]), t.query)
        for t in map(whole.__getitem__, range(3))
    ]
    padded, plain = Task.stack(few, pad=5), Task.stack(few)
    for name in SHIPPED:
        rule = rule_for(name)
        ours, theirs = (ask(name, rule, task=task) for task in (padded, plain))
        torch.testing.assert_close(ours, theirs, **CLOSE)
    gradient = make_meta_gradient("reptile", examples="all")
    ours, theirs = (
        gradient(plain_rule(), PROBLEM.learner, PROBLEM.theta, t, steps=2) for t in (padded, plain)
    )
    torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_training_is_resumed_exactly(name, tmp_path):
    settings = Settings(
        tasks=12, meta_batch=3, steps=2, validation_interval=6, validation_tasks=2, checkpoint_seconds=0.0,
        engine="eager",
    )  # fmt: skip

    def train(path=None, limit=None):
        seen = []

        def stop(event):
            seen.append(event.kind)
            if limit is not None and seen.count("step") == limit:
                raise KeyboardInterrupt

        return meta_train(
            rule_for(name), PROBLEM.learner, TinySines(), settings,
            generator=torch.Generator().manual_seed(4), checkpoint=path, observers=[stop],
            meta_gradient=make_meta_gradient(name),
        )  # fmt: skip

    whole, path = train(), tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        train(path, 2)
    resumed = train(path)
    assert torch.equal(resumed.theta, whole.theta)
    assert all(map(torch.equal, resumed.rule.parameters(), whole.rule.parameters()))
    start = PROBLEM.learner.initial(torch.Generator().manual_seed(4))
    assert not torch.equal(whole.theta, start)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_has_no_meaning_for_it_is_refused_in_one_line(name):
    short = name.partition("-")[0]
    with pytest.raises(UsageError, match=f"{short}.*leave.*order"):
        ask(name, rule_for(name), order="first")
    if name in ("reptile", "implicit"):
        with pytest.raises(UsageError, match=f"{name}: .* has inner_lr to learn"):
            ask(name, plain_rule(learn_lr="scalar"))
        with pytest.raises(UsageError, match=f"{name}: .*leave out.*truncate"):
            ask(name, rule_for(name), truncate=1)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("reptile", {"examples": "query"}, 'examples must be "support" or "all", got \'query\''),
        ("implicit", {"iterations": 0}, "iterations must be an integer >= 1, got 0"),
        ("implicit", {"regularisation": -1.0}, "regularisation must be a number > 0, got -1.0"),
        ("evolution", {"pairs": True}, "pairs must be an integer >= 1, got True"),
        ("evolution", {"sigma": 0.0}, "sigma must be a number > 0, got 0.0"),
        ("hessian-free", {"difference": math.inf}, "difference must be a number > 0, got inf"),
    ],
)
def test_an_option_that_does_not_fit_is_told(name, options, told):
    with pytest.raises(UsageError, match=told):
        make_meta_gradient(name, **options)(
            rule_for(name), PROBLEM.learner, PROBLEM.theta, PROBLEM.task, steps=1
        )


def test_implicit_wants_a_rule_that_is_held_at_its_start():
    with pytest.raises(UsageError, match="take the rule proximal, or say regularisation"):
        ask("implicit", plain_rule())
    make_meta_gradient("implicit", regularisation=2.0)(
        plain_rule(), PROBLEM.learner, PROBLEM.theta, PROBLEM.task, steps=1
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_traced_and_gives_the_eager_numbers(name):
    """What the compiled engine compiles is this trace."""
    from metalearn_core.kernels.programs import traced

    rule, keys = rule_for(name), torch.tensor([5, 6, 7])
    phi = dict(rule.named_parameters())

    def function(theta, keys, *tensors):
        task = Task.of(tensors, stacked=True)
        loss, grad, of_phi = make_meta_gradient(name)(
            rule, PROBLEM.learner, theta, task, steps=2, **keyed(name, keys)
        )
        return [loss, grad, *of_phi.values()]

    arguments = [PROBLEM.theta.detach(), keys, *PROBLEM.task.tensors]
    with torch.no_grad():
        graph = traced(function, arguments)
        for ours, wanted in zip(graph(*arguments), function(*arguments), strict=True):
            torch.testing.assert_close(ours, wanted, **CLOSE)
        others = [arguments[0] + 0.1, keys + 1, *arguments[2:]]
        for ours, wanted in zip(graph(*others), function(*others), strict=True):
            torch.testing.assert_close(ours, wanted, **CLOSE)
    assert len(phi) == len(dict(rule.named_parameters()))


def test_each_is_a_distribution_of_its_own():
    found = meta_gradients()  # mixed-mode is hessian-free with another product, and comes with it
    for name, other in itertools.product({*SHIPPED} - {"mixed-mode"}, repeat=2):
        assert (found[name].distribution == found[other].distribution) == (name == other)
