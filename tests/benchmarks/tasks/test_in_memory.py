"""Families of what a program has in memory: tasks are what they say, and what does not fit is refused."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch

from metalearn_benchmarks import ClassFamily, RegressionFamily
from metalearn_benchmarks.tasks import in_memory
from metalearn_core import BaseLearner, Settings, TaskStream, UsageError, make_rule, meta_test, meta_train

WORDS = [f"class-{number:02}" for number in range(12)]
SPLITS = {"train": WORDS[:6], "validation": WORDS[6:9], "test": WORDS[9:]}
LABELS = np.random.default_rng(0).permutation(np.repeat(WORDS, 8))
INPUTS = np.stack([[WORDS.index(label), row] for row, label in enumerate(LABELS)]).astype(np.float32)


def family(**given):
    return ClassFamily(INPUTS, LABELS, SPLITS, **{"ways": 3, "shots": 2, "queries": 4, **given})


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("split", SPLITS)
def test_a_task_has_its_classes_and_no_example_twice(split):
    tasks = family().sample(split, 20, generator())
    assert tasks.support.inputs.shape == (20, 6, 2)
    assert tasks.query.inputs.shape == (20, 12, 2)
    for index in range(20):
        support, targets, query, truth = tasks[index].tensors
        every = torch.cat([support, query])
        assert len(set(every[:, 1].tolist())) == 18
        named = {int(target): WORDS[int(which)] for target, which in zip(targets, support[:, 0], strict=True)}
        assert len(set(named.values())) == 3
        assert set(named.values()) <= set(SPLITS[split])
        assert [named[int(target)] for target in truth] == [WORDS[int(which)] for which in query[:, 0]]


def test_every_class_and_example_is_drawn_and_the_seed_decides():
    tasks = family().sample("train", 300, generator())
    assert len(set(tasks.query.inputs[..., 1].flatten().tolist())) == 48
    again = family().sample("train", 300, generator())
    torch.testing.assert_close(tasks.query.inputs, again.query.inputs, rtol=0, atol=0)
    other = family().sample("train", 300, generator(1))
    assert not torch.equal(tasks.query.inputs, other.query.inputs)


def test_a_stream_takes_rows_and_looks_up_bytes_as_parts_of_one():
    pixels = np.full((len(LABELS), 1, 2, 2), 51, np.uint8)
    small = ClassFamily(pixels, LABELS, SPLITS, ways=3, queries=4)
    assert small.draw("test", 5, generator()).query.inputs.dtype == torch.int64
    stream = TaskStream(small, "test", 0, torch.device("cpu"), torch.float64)
    taken = stream.take(3, 2).query.inputs
    assert taken.shape == (2, 12, 1, 2, 2)
    torch.testing.assert_close(taken, torch.full_like(taken, 0.2))


def test_the_flat_data_are_all_examples_of_a_split_with_their_classes():
    flat = family().examples("validation")
    assert len(flat) == 24
    assert flat.targets.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert [WORDS[int(which)] for which in flat.inputs[::8, 0]] == SPLITS["validation"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"labels": LABELS[:-1]}, "96 inputs and 95 labels"),
        ({"splits": {"train": WORDS[:6], "test": WORDS[5:9]}}, "'class-05' is in train and in test"),
        ({"splits": {"train": [*WORDS[:6], "oak"]}}, "'oak' of train has no example"),
        ({"queries": 7}, "3 ways of 2 shots and 7 queries need 3 classes of 9 examples; it has 6 classes"),
        ({"ways": 4}, "validation: 4 ways"),
        ({"ways": 0}, "ways must be an integer >= 1"),
        ({"inputs": INPUTS.astype(int)}, "got torch.int64 [96, 2]"),
        ({"inputs": "images"}, "got a str"),
    ],
)
def test_what_does_not_fit_is_refused(given, told):
    whole = {"inputs": INPUTS, "labels": LABELS, "splits": SPLITS, "ways": 3, "shots": 2, "queries": 4}
    with pytest.raises(UsageError) as caught:
        ClassFamily(**{**whole, **given})
    assert told in str(caught.value)
    with pytest.raises(UsageError, match="did you mean 'train'"):
        family().sample("trian", 1, generator())


def lines(x, generator):
    return torch.randn(1, generator=generator) * x + torch.randn(1, generator=generator)


def test_each_task_of_a_function_is_one_curve():
    tasks = RegressionFamily(lines, support=4, query=6, low=0.0, high=2.0).sample("test", 8, generator())
    inputs = torch.cat([tasks.support.inputs, tasks.query.inputs], 1)[..., 0]
    targets = torch.cat([tasks.support.targets, tasks.query.targets], 1)[..., 0]
    assert 0 <= inputs.min() < inputs.max() <= 2
    for x, y in zip(inputs, targets, strict=True):
        slope, offset = np.polyfit(x.numpy(), y.numpy(), 1)
        np.testing.assert_allclose(slope * x + offset, y, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"function": 3}, "must be callable"),
        ({"low": 1.0, "high": 1.0}, "low must be below high"),
        ({"function": lambda x, generator: 1.0}, "got float"),
        ({"function": lambda x, generator: x[:2]}, r"got \[2, 1\]"),
    ],
)
def test_a_function_that_gives_no_values_is_refused(given, told):
    with pytest.raises(UsageError, match=told):
        RegressionFamily(**{"function": lines, **given}).sample("train", 2, generator())


def test_a_rule_learns_on_them():
    network = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    learner = BaseLearner(network, torch.nn.functional.mse_loss)
    rule = make_rule("gradient-descent", learner.layout, inner_lr=0.05)
    settings = Settings(
        tasks=200, meta_batch=4, steps=3, outer_lr=0.01, validation_interval=200, validation_tasks=20
    )
    curves = RegressionFamily(lines, query=10, low=-1.0, high=1.0)
    trained = meta_train(rule, learner, curves, settings, generator=generator())
    scores = meta_test(trained, curves, tasks=40).mean(0)
    assert scores[-1] < 0.8 * scores[0]


def test_the_examples_of_their_docstrings_run():
    assert doctest.testmod(in_memory).failed == 0
