"""Pretraining over all classes, a new head for each task, and what else is tested on, on toy classes."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest
import torch
from torch import nn

from metalearn_benchmarks.experiments.catalogue import Cell, Component, methods
from metalearn_benchmarks.learners.head import Head
from metalearn_benchmarks.learners.head_features import FeatureFamily, head_on_features
from metalearn_benchmarks.runs.components import Components
from metalearn_benchmarks.runs.evaluation import Evaluation, best_state
from metalearn_benchmarks.runs.training import HOLD_OUT_EVERY, run_cells
from metalearn_benchmarks.tasks.minibatches import FlatFamily
from metalearn_core import (
    BaseLearner,
    Batch,
    Registry,
    Task,
    Trained,
    UsageError,
    adapt,
    hookimpl,
    registry,
    seeded_generator,
)

CLASSES = {"train": 6, "validation": 4, "test": 4}


@attrs.frozen
class Clusters:
    """Classes are Gaussian clusters in the plane; `angle` turns them, for another domain."""

    ways: int = 3
    shots: int = 2
    angle: float = 0.0

    splits = ("train", "validation", "test")
    training_classes = CLASSES["train"]

    def _centres(self, split):
        first = sum(CLASSES[s] for s in self.splits[: self.splits.index(split)])
        turns = torch.arange(first, first + CLASSES[split]) * 2.4 + self.angle
        return 3 * torch.stack([turns.cos(), turns.sin()], 1)

    def sample(self, split, count, generator):
        centres, each = self._centres(split), self.shots + 5
        chosen = torch.stack(
            [torch.randperm(len(centres), generator=generator)[: self.ways] for _ in range(count)]
        )
        points = centres[chosen][:, :, None] + torch.randn(count, self.ways, each, 2, generator=generator)
        labels = torch.arange(self.ways).repeat(count, 1)[..., None].expand(-1, -1, each)

        def batch(part):
            inputs, targets = points[:, :, part], labels[:, :, part]
            return Batch(inputs.reshape(count, -1, 2), targets.reshape(count, -1), stacked=True)

        return Task(batch(slice(self.shots)), batch(slice(self.shots, None)), stacked=True)

    def examples(self, split):
        centres = self._centres(split).repeat_interleave(40, 0)
        points = centres + torch.randn(centres.shape, generator=seeded_generator(split))
        return Batch(points, torch.arange(CLASSES[split]).repeat_interleave(40))


def accuracy(prediction, target):
    return (prediction.argmax(-1) == target).float().mean()


def network(ways: int = 7, width: int = 8) -> BaseLearner:
    body = [nn.Linear(2, width), nn.BatchNorm1d(width, track_running_stats=False), nn.Tanh()]
    return BaseLearner(nn.Sequential(*body, nn.Linear(width, ways)), nn.functional.cross_entropy, accuracy)


def headless() -> BaseLearner:
    """No option says how many classes there are."""
    return network()


def scaled(ways: int = 7) -> BaseLearner:
    """Does something after its head."""
    head_inside = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, ways), nn.LogSoftmax(-1))
    return BaseLearner(head_inside, nn.functional.nll_loss, accuracy)


class Plugin:
    @hookimpl
    def metalearn_task_families(self):
        return {"clusters": Clusters, "turned": lambda ways=3, shots=2: Clusters(ways, shots, 1.0)}

    @hookimpl
    def metalearn_base_learners(self):
        return {"network": network, "headless": headless, "scaled": scaled}


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    fresh = Registry()
    fresh.register(Plugin(), "toys", "toys-distribution")
    monkeypatch.setattr(registry, "default_registry", lambda: fresh)


def cell_of(method="finetuning", learner="network", **over):
    known = methods()[method]
    settings = {"tasks": 300, "validation_interval": 100, "validation_tasks": 20, **known.settings}
    if known.start == "meta":
        settings["steps"] = 3
    return Cell(
        experiment="toy", setting="toy", name=method, seed=0, scale="smoke",
        family=Component("clusters", {"ways": 3, "shots": 2}), learner=Component(learner),
        method=attrs.evolve(known, settings=settings), test_tasks=40, **over,
    )  # fmt: skip


@pytest.fixture
def pretrained():
    """A cell in float64 with a θ⁰ that tells classes apart."""
    cell = cell_of()
    parts = Components.build(cell)
    double = {name: getattr(parts, name).to("cpu", torch.float64) for name in ("learner", "test_learner")}
    parts = attrs.evolve(parts, **double, rule=parts.rule.double())
    trained = Trained.begin(parts.rule, parts.learner, parts.settings, parts.generator, parts.family)
    trained.best = trained.snapshot(0.5)
    return cell, parts, trained


def test_the_head_that_is_trained_is_over_all_training_classes(pretrained):
    _, parts, trained = pretrained
    assert parts.learner.layout.shapes[-1] == (CLASSES["train"],)
    assert parts.test_learner.layout.shapes[-1] == (3,)
    assert trained.theta.shape == (parts.learner.layout.size,)


def test_a_task_starts_with_the_trained_body_and_a_new_head_of_the_seed(pretrained):
    cell, parts, trained = pretrained
    old = parts.learner.layout.unflatten(trained.best.theta)
    found = parts.test_learner.layout.unflatten(best_state(cell, parts, trained)[1])
    again = parts.test_learner.layout.unflatten(best_state(cell, parts, trained)[1])
    other = parts.test_learner.layout.unflatten(best_state(attrs.evolve(cell, seed=1), parts, trained)[1])
    for name, value in found.items():
        in_head = name.startswith("3.")
        assert torch.equal(value, again[name])
        assert in_head or torch.equal(value, old[name])
        assert torch.equal(value, other[name]) is not in_head


def test_adapting_the_head_on_features_is_adapting_it_inside_the_network(pretrained):
    """Against a plain loop over tasks with torch's own Adam on the whole network."""
    cell, parts, trained = pretrained
    at_test = Evaluation.build(cell, parts, trained)
    _, start = best_state(cell, parts, trained)
    family = parts.family
    tasks = family.sample("test", 4, seeded_generator("tasks")).to("cpu", torch.float64)
    seen = at_test.families["clusters"].sample("test", 4, seeded_generator("tasks"))
    ends = adapt(at_test.rule, at_test.learner, at_test.theta, seen.support, steps=100)
    for index in range(4):
        module = parts.test_learner.module_at(start)
        adam = torch.optim.Adam(module[3].parameters(), lr=0.001)
        for _ in range(100):
            adam.zero_grad()
            nn.functional.cross_entropy(
                module(tasks.support.inputs[index]), tasks.support.targets[index]
            ).backward()
            adam.step()
        theirs = nn.functional.cross_entropy(module(tasks.query.inputs[index]), tasks.query.targets[index])
        ours = at_test.learner.loss(ends[index], seen[index].query)
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_a_network_that_goes_on_after_its_head_is_refused():
    learner = scaled(3)
    theta = learner.initial(seeded_generator(0))
    with pytest.raises(UsageError, match="a network that ends with its head"):
        FeatureFamily(Clusters(), learner, theta).sample("test", 2, seeded_generator(0))


def test_the_head_of_features_is_the_head():
    learner = network(3)
    theta = learner.initial(seeded_generator(0))
    head, own = head_on_features(learner, theta)
    assert torch.equal(own, Head(learner).freeze_body(theta)[1])
    assert head.layout.size == 8 * 3 + 3


def test_held_out_examples_are_in_no_training_minibatch():
    flat = FlatFamily(Clusters(), 16, HOLD_OUT_EVERY)
    drawn = {
        split: {
            tuple(x)
            for x in flat.sample(split, 200, seeded_generator(0)).query.inputs.reshape(-1, 2).tolist()
        }
        for split in ("train", "validation")
    }
    everything = {tuple(x) for x in Clusters().examples("train").inputs.tolist()}
    assert not drawn["train"] & drawn["validation"]
    assert drawn["train"] | drawn["validation"] == everything
    assert len(drawn["validation"]) == len(everything) // HOLD_OUT_EVERY


@pytest.mark.parametrize("method", ["finetuning", "train-from-scratch", "maml"])
def test_methods_run_and_are_tested_on_the_other_family_too(method, tmp_path):
    cell = cell_of(method, also_tested_on=(Component("turned", {"ways": 3, "shots": 2}),))
    run_cells([cell], tmp_path, [])
    result = json.loads((tmp_path / cell.folder / "result.json").read_text())
    assert list(result["scores"]) == ["clusters", "turned"]
    own, other = (torch.tensor(result["scores"][name])[:, -1] for name in result["scores"])
    assert len(own) == len(other) == 40
    assert result["summary"]["mean"] == pytest.approx(float(own.mean()), rel=1e-5)
    assert (own != other).any()
    if method == "finetuning":
        assert max(score for _, score in result["validations"]) > 0.5  # of six training classes
        assert float(own.mean()) > 0.6  # of three new ones
    plain = (tmp_path / cell.folder / "experiment.toml").read_text()
    assert 'name = "turned"' in plain
    assert "ways = 3" in plain  # of the base-learner too, which has it from the family


def test_a_base_learner_without_ways_is_refused():
    with pytest.raises(UsageError, match="'headless' must have the option `ways`"):
        Components.build(cell_of(learner="headless"))


def test_a_base_learner_has_its_ways_from_the_family_unless_they_are_said():
    cell = cell_of("maml")
    assert Components.build(cell).learner.layout.shapes[-1] == (3,)
    said = attrs.evolve(cell, learner=Component("network", {"ways": 5}))
    assert Components.build(said).learner.layout.shapes[-1] == (5,)
    by_method = attrs.evolve(cell, method=attrs.evolve(cell.method, learner={"width": 4}))
    assert Components.build(by_method).learner.layout.shapes[0] == (4, 2)
    assert Path(cell.folder).parts[-1] == "0"
