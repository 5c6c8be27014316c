"""Another outer gradient in the place of backpropagation: how it is called, refused, resumed and compiled."""

from __future__ import annotations

import functools
import types

import attrs
import pytest
import torch

from metalearn_core import (
    Registry,
    Settings,
    UsageError,
    hookimpl,
    make_meta_gradient,
    make_rule,
    meta_gradient,
    meta_train,
    meta_train_seeds,
    query_losses,
    support_losses,
)
from metalearn_core.outer_gradient import OuterGradient, task_keys
from metalearn_core.testing import Architecture, Problem, TinySines

LEARNER = Architecture((1, 3, 1)).learner()
FAMILY = TinySines()
SMALL = Settings(
    tasks=7, meta_batch=3, steps=2, validation_interval=3, validation_tasks=3, checkpoint_seconds=0.0,
    engine="eager",
)  # fmt: skip


def doubled(rule, learner, theta, task, *, factor=2.0, **settings):
    """Twice the meta-gradient: a stranger's outer gradient with an option."""
    loss, grad, of_phi = meta_gradient(rule, learner, theta, task, **settings)
    return loss, factor * grad, {name: factor * g for name, g in of_phi.items()}


def noisy(rule, learner, theta, task, *, keys, **settings):
    """A step of θ⁰ that depends on nothing but the keys."""
    loss, _, of_phi = meta_gradient(rule, learner, theta, task, **settings)
    rows = torch.stack([torch.arange(theta.numel()) * (key % 1000) % 17 for key in keys]).to(theta)
    return loss, rows.mean(0), of_phi


def train(gradient, path=None, settings=SMALL, seed=0, stop_after=None):
    seen = []

    def stop(event):
        seen.append(event)
        if stop_after is not None and sum(e.kind == "step" for e in seen) == stop_after:
            raise KeyboardInterrupt

    rule = make_rule("gradient-descent", LEARNER.layout, learn_lr="parameter")
    generator = torch.Generator().manual_seed(seed)
    try:
        return meta_train(
            rule, LEARNER, FAMILY, settings, generator=generator, checkpoint=path, observers=[stop],
            meta_gradient=gradient,
        )  # fmt: skip
    except KeyboardInterrupt:
        return None


def by_hand(factor):
    """Adam in a plain loop, on the tasks of the stream."""
    from metalearn_core import TaskStream

    rule = make_rule("gradient-descent", LEARNER.layout, learn_lr="parameter").double()
    theta = LEARNER.initial(torch.Generator().manual_seed(0)).requires_grad_()
    adam = torch.optim.Adam([theta, *rule.parameters()], lr=SMALL.outer_lr)
    stream = TaskStream(FAMILY, "train", 0, LEARNER.device, LEARNER.dtype)
    for start, count in ((0, 3), (3, 3), (6, 1)):
        losses = []
        for index in range(count):
            task = stream.take(start + index, 1)[0]
            now = theta
            for _ in range(SMALL.steps):
                (grad,) = torch.autograd.grad(LEARNER.loss(now, task.support), now, create_graph=True)
                now = now - rule.inner_lr * grad
            losses.append(LEARNER.loss(now, task.query))
        adam.zero_grad()
        (factor * torch.stack(losses).mean()).backward()
        adam.step()
    return theta.detach(), rule.inner_lr.detach()


def test_the_outer_loop_follows_the_function_that_it_is_given():
    theta, rates = by_hand(-1.0)
    trained = train(functools.partial(doubled, factor=-1.0))
    torch.testing.assert_close(trained.theta.detach(), theta, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(trained.rule.inner_lr.detach(), rates, rtol=1e-9, atol=1e-9)


def test_backpropagation_by_its_name_is_the_engines_own():
    assert make_meta_gradient("backpropagation") is meta_gradient
    assert OuterGradient.of(meta_gradient) is None
    assert OuterGradient.of(None) is None
    theta = train(meta_gradient).theta
    assert torch.equal(theta, train(None).theta)


@pytest.mark.parametrize("pieces", [None, 2])
def test_a_resumed_training_draws_what_the_whole_one_draws(tmp_path, pieces):
    settings = attrs.evolve(SMALL, tasks_at_once=pieces)
    whole = train(noisy, settings=settings)
    path = tmp_path / "checkpoint.pt"
    assert train(noisy, path, settings, stop_after=1) is None
    assert path.exists()
    assert torch.equal(train(noisy, path, settings).theta, whole.theta)
    assert not torch.equal(train(noisy, seed=1).theta, whole.theta)


def test_keys_belong_to_seed_and_task():
    whole = task_keys(5, 10, 6)
    assert torch.equal(task_keys(5, 12, 3), whole[2:5])
    assert len({*whole.tolist(), *task_keys(6, 10, 6).tolist()}) == 12
    assert whole.dtype == torch.int64
    assert bool((whole >= 0).all())


def test_a_checkpoint_of_another_outer_gradient_is_told(tmp_path):
    path = tmp_path / "checkpoint.pt"
    train(functools.partial(doubled, factor=3.0), path, stop_after=1)
    with pytest.raises(
        UsageError, match=r"meta-gradient is doubled\(factor=3.0\) there and doubled\(\) here"
    ):
        train(doubled, path)
    with pytest.raises(UsageError, match=r"meta-gradient is doubled\(factor=3.0\) there and None here"):
        train(None, path)


def test_seeds_together_are_each_alone():
    rules = [make_rule("gradient-descent", LEARNER.layout, learn_lr="parameter") for _ in range(2)]
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    both = meta_train_seeds(rules, LEARNER, FAMILY, SMALL, generators=generators, meta_gradient=noisy)
    for seed, trained in enumerate(both):
        assert torch.equal(trained.theta, train(noisy, seed=seed).theta)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "it returned a NoneType"),
        (lambda loss, grad, phi: (loss, grad), "it returned a tuple"),
        (lambda loss, grad, phi: (loss, grad[:1], phi), r"'the gradient for θ⁰': \(1,\)"),
        (lambda loss, grad, phi: (loss, grad, {}), "'the loss': ()"),
        (lambda loss, grad, phi: (loss, grad, dict.fromkeys(phi)), "'that for inner_lr': 'NoneType'"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_before_the_training(answer, told):
    def stranger(rule, learner, theta, task, **settings):
        return answer and answer(*meta_gradient(rule, learner, theta, task, **settings))

    with pytest.raises(UsageError, match=f"meta-gradient '.*stranger': it must return loss.*{told}"):
        train(stranger)
    with pytest.raises(UsageError, match="meta_train: meta_gradient must be a function, or None, got a str"):
        train("reptile")


def test_what_a_function_raises_is_told_with_its_name():
    def broken(rule, learner, theta, task, **settings):
        raise KeyError("x")

    with pytest.raises(UsageError, match=r"meta-gradient '.*broken': it raised KeyError: 'x'"):
        train(broken)


def registry_of(**functions):
    module = types.ModuleType("fake")

    def metalearn_meta_gradients():
        return functions

    module.metalearn_meta_gradients = hookimpl(metalearn_meta_gradients)
    registry = Registry(discover=False)
    registry.register(module, "fake")
    return registry


def test_the_registry_makes_an_outer_gradient_with_its_options():
    registry = registry_of(doubled=doubled)
    problem = Problem(Architecture((1, 3, 1)), tasks=2)
    rule = make_rule("gradient-descent", problem.learner.layout)
    found = registry.make_meta_gradient("doubled", factor=4.0)
    _, grad, _ = found(rule, problem.learner, problem.theta, problem.task, steps=1)
    _, plain, _ = meta_gradient(rule, problem.learner, problem.theta, problem.task, steps=1)
    assert torch.equal(grad, 4 * plain)
    assert list(registry.catalogues["metalearn_meta_gradients"]["doubled"].options()) == [
        "factor", "**settings",
    ]  # fmt: skip


def test_a_misspelt_outer_gradient_and_a_misspelt_option_are_told():
    def strict(rule, learner, theta, task, *, steps, order, clip, truncate, outer_decay, factor=1.0):
        raise AssertionError

    registry = registry_of(strict=strict)
    with pytest.raises(UsageError, match=r"unknown meta-gradient 'strct': did you mean 'strict'\?"):
        registry.make_meta_gradient("strct")
    with pytest.raises(
        UsageError, match=r"meta-gradient 'strict': unknown option 'factr': did you mean 'factor'\?"
    ):
        registry.make_meta_gradient("strict", factr=2.0)
    with pytest.raises(UsageError, match="meta-gradient 'backpropagation': it has no options, got factor"):
        registry.make_meta_gradient("backpropagation", factor=2.0)


def test_a_name_with_two_owners_belongs_to_neither():
    registry = registry_of(doubled=doubled)
    second = types.ModuleType("second")
    second.metalearn_meta_gradients = hookimpl(named_as_hook(lambda: {"doubled": noisy}))
    registry.register(second, "second", "other")
    with pytest.raises(
        UsageError, match=r"meta-gradient 'doubled' is claimed by .*other .*uninstall or rename"
    ):
        registry.make_meta_gradient("doubled")


def named_as_hook(function):
    function.__name__ = "metalearn_meta_gradients"
    return function


def test_the_losses_of_tasks_are_those_of_each_alone():
    problem = Problem(Architecture((1, 3, 1)), tasks=3)
    thetas = problem.theta + torch.arange(3.0).unsqueeze(1)
    query, support = (f(problem.learner, thetas, problem.task) for f in (query_losses, support_losses))
    for i in range(3):
        task = problem.task[i]
        torch.testing.assert_close(query[i], problem.learner.loss(thetas[i], task.query))
        torch.testing.assert_close(support[i], problem.learner.loss(thetas[i], task.support))


def test_compiled_it_is_one_seed_at_a_time_and_the_same_numbers(monkeypatch):
    """Traced and not compiled: the compiler is the programs' own affair."""
    from metalearn_core.kernels import programs

    monkeypatch.setattr(
        programs, "compiled", lambda function, arguments, **_: lambda *given: function(*given)
    )
    notes = []

    def hear(event):
        if event.kind == "engine":
            notes.append(event.values["note"])

    settings = attrs.evolve(SMALL, engine="compiled", tasks=6)
    rules = [make_rule("gradient-descent", LEARNER.layout, learn_lr="parameter") for _ in range(2)]
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    both = meta_train_seeds(
        rules, LEARNER, FAMILY, settings, generators=generators, meta_gradient=noisy, observers=[[hear], []]
    )
    for seed, trained in enumerate(both):
        alone = train(noisy, settings=attrs.evolve(SMALL, tasks=6), seed=seed)
        torch.testing.assert_close(trained.theta, alone.theta, rtol=1e-9, atol=1e-9)
    assert "each is by itself: meta-gradient 'noisy' takes one seed at a time" in notes[0]


def test_a_long_unroll_runs_eager_and_says_why(monkeypatch):
    settings = attrs.evolve(SMALL, engine="compiled", steps=17, tasks=3)
    notes = []
    rule = make_rule("gradient-descent", LEARNER.layout)
    meta_train(
        rule, LEARNER, FAMILY, settings, generator=torch.Generator(), meta_gradient=doubled,
        observers=[lambda event: notes.append(event.values.get("note"))],
    )  # fmt: skip
    assert any("runs eager: meta-gradient 'doubled' is one program" in str(note) for note in notes)
