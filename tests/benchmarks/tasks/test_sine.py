"""Sine tasks: the formula, the ranges, and the same tasks for the same generator."""

from __future__ import annotations

import math

import pytest
import torch

from metalearn_benchmarks.tasks.sine import SineFamily
from metalearn_core import TaskFamily, UsageError, seeded_generator


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def curves(count: int, family: SineFamily | None = None, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of `count` tasks, support and query together, `[count, n]`, in double."""
    task = (family or SineFamily()).sample("train", count, seeded(seed)).to("cpu", torch.float64)
    x = torch.cat([task.support.inputs, task.query.inputs], 1).squeeze(-1)
    return x, torch.cat([task.support.targets, task.query.targets], 1).squeeze(-1)


def solved(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A and φ of y = A sin(x + φ) = (A cos φ) sin x + (A sin φ) cos x by least squares, and what is left."""
    basis = torch.stack([x.sin(), x.cos()], -1)
    weights = torch.linalg.lstsq(basis, y.unsqueeze(-1)).solution
    left = (basis @ weights).squeeze(-1) - y
    cosine, sine = weights.squeeze(-1).unbind(-1)
    return torch.hypot(cosine, sine), torch.atan2(sine, cosine), left


def test_targets_are_a_sine_of_the_inputs_in_its_ranges():
    x, y = curves(500)
    amplitude, phase, left = solved(x, y)
    assert left.abs().max() < 1e-5  # float32 data, no noise
    assert amplitude.min() >= 0.1 - 1e-5
    assert amplitude.max() <= 5 + 1e-5
    assert phase.min() >= -1e-4
    assert phase.max() <= math.pi + 1e-4
    assert x.abs().max() <= 5
    assert y.abs().max() <= 5


def test_one_curve_for_support_and_query():
    task = SineFamily(support=4, query=9).sample("test", 40, seeded()).to("cpu", torch.float64)
    (a, p), (b, q) = (
        solved(batch.inputs.squeeze(-1), batch.targets.squeeze(-1))[:2]
        for batch in (task.support, task.query)
    )
    torch.testing.assert_close(a * p.sin(), b * q.sin(), rtol=0, atol=1e-3)
    torch.testing.assert_close(a * p.cos(), b * q.cos(), rtol=0, atol=1e-3)


def test_amplitude_phase_and_inputs_are_uniform_and_independent():
    x, y = curves(4000)
    amplitude, phase, _ = solved(x, y)
    for values, low, high in ((amplitude, 0.1, 5.0), (phase, 0.0, math.pi), (x[:, 0], -5.0, 5.0)):
        quantiles = ((values - low) / (high - low)).sort().values
        even = torch.linspace(0, 1, len(values), dtype=torch.float64)
        assert (quantiles - even).abs().max() < 0.03  # 1.36/√4000 = 0.0215 is the 5% point
    columns = torch.stack([amplitude, phase, x[:, 0], x[:, 1], x[:, -1]])
    assert (torch.corrcoef(columns) - torch.eye(5)).abs().max() < 0.06


@pytest.mark.parametrize(("support", "query"), [(5, 50), (10, 50), (1, 1)])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_shapes(support, query, split):
    task = SineFamily(support, query).sample(split, 3, seeded())
    assert [tuple(t.shape) for t in task.tensors] == [(3, support, 1)] * 2 + [(3, query, 1)] * 2
    assert {t.dtype for t in task.tensors} == {torch.float32}
    assert (task.stacked, len(task)) == (True, 3)


def test_the_same_generator_state_gives_the_same_tasks_and_moves_on():
    before = torch.get_rng_state()
    (one, y), (again, _), (other, _) = (curves(4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    stream = seeded(1)
    first, second = (SineFamily().sample("train", 4, stream).query.targets for _ in range(2))
    assert torch.equal(first.squeeze(-1).double(), y[:, 5:])
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_examples_are_the_points_of_many_tasks():
    family = SineFamily(support=2, query=6, example_tasks=30)
    flat = family.examples("train")
    assert [tuple(flat.inputs.shape), tuple(flat.targets.shape)] == [(240, 1), (240, 1)]
    assert (
        solved(flat.inputs.reshape(30, 8).double(), flat.targets.reshape(30, 8).double())[2].abs().max()
        < 1e-5
    )
    assert torch.equal(flat.inputs, family.examples("train").inputs)
    assert not torch.equal(flat.inputs, family.examples("validation").inputs)
    assert len(SineFamily().examples("train")) == 550_000
    tasks = family.sample("train", 30, seeded_generator(0, "train", 0)).support.inputs
    assert not torch.isin(tasks, flat.inputs).all()


@pytest.mark.parametrize("option", ["support", "query", "example_tasks"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "5", None])
def test_options_that_are_no_count_are_refused_by_name(option, value):
    with pytest.raises(UsageError, match=rf"\A{option} must be an integer >= 1, got {value!r}\Z"):
        SineFamily(**{option: value})


def test_an_unknown_split_is_refused():
    with pytest.raises(UsageError, match="'tests': did you mean 'test'"):
        SineFamily().sample("tests", 1, seeded())
    with pytest.raises(UsageError, match="unknown split"):
        SineFamily().examples("all")


def test_it_is_a_family():
    assert isinstance(SineFamily(), TaskFamily)
    assert SineFamily().splits == ("train", "validation", "test")
