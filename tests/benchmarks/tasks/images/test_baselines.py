"""The transfer methods on images against references of their own: plain loops over one task, scikit-learn."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from plain_networks import plain_conv_4
from torch import nn

from metalearn_benchmarks.experiments.catalogue import Cell, Component, methods
from metalearn_benchmarks.runs.components import Components
from metalearn_benchmarks.runs.evaluation import Evaluation, best_state
from metalearn_core import Batch, Registry, Task, Trained, adapt, hookimpl, registry, seeded_generator

WAYS, SHOTS, QUERIES, SIZE, CLASSES = 3, 4, 5, 16, 6


@attrs.frozen
class Patterns:
    """Each class is a faint pattern under noise, so that no support set can be told apart by a line."""

    ways: int = WAYS
    noise: float = 2.0
    channels = 1
    size = SIZE
    splits = ("train", "validation", "test")
    training_classes = CLASSES

    def _images(self, classes, generator):
        patterns = torch.randn(CLASSES, 1, SIZE, SIZE, generator=seeded_generator("patterns"))[classes]
        return patterns + self.noise * torch.randn(patterns.shape, generator=generator)

    def sample(self, split, count, generator):
        each = SHOTS + QUERIES
        chosen = torch.stack(
            [torch.randperm(CLASSES, generator=generator)[: self.ways] for _ in range(count)]
        )
        images = self._images(chosen[..., None].expand(-1, -1, each), generator)
        labels = torch.arange(self.ways)[:, None].expand(count, self.ways, each)

        def batch(part):
            return Batch(
                images[:, :, part].flatten(1, 2), labels[:, :, part].reshape(count, -1), stacked=True
            )

        return Task(batch(slice(SHOTS)), batch(slice(SHOTS, None)), stacked=True)

    def examples(self, split):
        labels = torch.arange(CLASSES).repeat_interleave(20)
        return Batch(self._images(labels, seeded_generator(split)), labels)


class Plugin:
    @hookimpl
    def metalearn_task_families(self):
        return {"patterns": Patterns}


@pytest.fixture(autouse=True)
def patterns(monkeypatch):
    own = Registry()
    own.register(Plugin(), "patterns", "patterns-distribution")
    monkeypatch.setattr(registry, "default_registry", lambda: own)


def at_test(method):
    """What is tested of a method in float64, untrained; θ⁰ of the whole network; its parts."""
    cell = Cell(
        experiment="toy", setting="toy", name=method, seed=0, scale="smoke",
        family=Component("patterns"), learner=Component("conv-4", {"width": 4}),
        method=methods()[method], test_tasks=3,
    )  # fmt: skip
    parts = Components.build(cell)
    double = {name: getattr(parts, name).to("cpu", torch.float64) for name in ("learner", "test_learner")}
    parts = attrs.evolve(parts, **double, rule=parts.rule.double())
    trained = Trained.begin(parts.rule, parts.learner, parts.settings, parts.generator, parts.family)
    trained.best = trained.snapshot(0.0)
    return Evaluation.build(cell, parts, trained), best_state(cell, parts, trained)[1], parts


def plain_network(parts, theta, head):
    """Torch's own layers with θ⁰ in them, in the order in which they hold their parameters."""
    network = plain_conv_4(1, SIZE, 4, 1, WAYS, head)
    with torch.no_grad():
        for parameter, value in zip(
            network.parameters(), parts.test_learner.layout.unflatten(theta).values(), strict=True
        ):
            parameter.copy_(value.reshape(parameter.shape))
    return network


@pytest.mark.parametrize(
    ("method", "head", "adapted"),
    [
        ("train-from-scratch", "linear", slice(None)),
        ("finetuning", "linear", slice(-2, None)),
        ("baseline++", "cosine", slice(-2, None)),
    ],
)
def test_a_baseline_is_a_plain_loop_with_torchs_adam_over_one_task(method, head, adapted):
    tested, theta, parts = at_test(method)
    tasks = Patterns().sample("test", 3, seeded_generator("tasks")).to("cpu", torch.float64)
    seen = tested.families["patterns"].sample("test", 3, seeded_generator("tasks"))
    seen = seen.to("cpu", torch.float64)
    steps = parts.settings.evaluation_steps
    assert steps == 100
    ends = adapt(tested.rule, tested.learner, tested.theta, seen.support, steps=steps)
    for index in range(3):
        network = plain_network(parts, theta, head)
        adam = torch.optim.Adam(list(network.parameters())[adapted], lr=0.001)
        support, query = tasks.support, tasks.query
        for _ in range(steps):
            adam.zero_grad()
            nn.functional.cross_entropy(network(support.inputs[index]), support.targets[index]).backward()
            adam.step()
        theirs = network(query.inputs[index])
        ours = tested.learner.predict(ends[index], seen.query.inputs[index])
        # Adam divides by the gradient's size: where that is rounding alone, 1e-16, so is the direction
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_head_that_is_adapted_to_the_end_is_scikit_learns_logistic_regression():
    linear = pytest.importorskip(
        "sklearn.linear_model", reason="needs metalearn-benchmarks[images]: scikit-learn"
    )
    tested, _, _ = at_test("finetuning")
    many = attrs.evolve(Patterns(noise=6.0))
    task = many.sample("test", 12, seeded_generator("many"))
    inputs = task.support.inputs.flatten(0, 1)  # 144 images of mixed classes: not to be told apart by a line
    stacked = Batch(inputs[None], task.support.targets.flatten()[None], stacked=True)
    seen = tested.families["patterns"]
    features = seen.realise("test", Task(stacked, stacked, stacked=True), torch.float64)[0].support
    theta = tested.theta
    momenta = torch.zeros_like(theta)
    for _ in range(3000):  # the optimum itself, by our loss alone: heavy-ball gradient descent
        theta = theta.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(tested.learner.loss(theta, features), theta)
        momenta = 0.9 * momenta - 0.2 * gradient
        theta = theta + momenta
    ours = tested.learner.predict(theta.detach(), features.inputs).softmax(-1).numpy()
    x, y = features.inputs.numpy(), features.targets.numpy()
    theirs = linear.LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(x, y).predict_proba(x)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
