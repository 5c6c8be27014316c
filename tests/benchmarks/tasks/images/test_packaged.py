"""Digits and Fashion-MNIST as targets, and what classifiers on bare pixels reach."""

from __future__ import annotations

import gzip
import importlib.util
import struct

import attrs
import numpy as np
import pytest
import torch

from metalearn_benchmarks.tasks.images.baselines import CLASSIFIERS, pixel_scores
from metalearn_core import Batch, Task, UsageError, seeded_generator, task_families

needs_sklearn = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="needs metalearn-benchmarks[images]: scikit-learn"
)


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path / "data"))


def refused(*parts: str):
    return pytest.raises(UsageError, match=r"\A[^\n]*" + r"[^\n]*".join(parts) + r"[^\n]*\Z")


@needs_sklearn
def test_digits_are_scikit_learns_made_larger():
    from sklearn.datasets import load_digits

    family = task_families()["digits"](ways=10, queries=4)
    store = family.store
    assert [each.name for each in store.manifest.classes] == [str(digit) for digit in range(10)]
    assert store.manifest.images == 1797
    data = load_digits()
    small, large = (task_families()["digits"](size=size).store for size in (8, 16))
    for digit, each in enumerate(store.manifest.classes):
        here = slice(each.first, each.first + each.count)
        scans = data.images[data.target == digit] / 16
        assert np.abs(small.pixels[here, :, :, 0] / 255 - scans).max() < 0.002
        halves = large.pixels[here, :, :, 0].reshape(-1, 8, 2, 8, 2).mean((2, 4)) / 255
        assert np.abs(halves - scans).mean() < 0.05
    task = family.sample("test", 2, seeded_generator(0))
    assert task.query.inputs.shape == (2, 40, 1, 28, 28)
    with refused("split of digits 'train'", "test"):
        family.sample("train", 1, seeded_generator(0))


def idx(path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


@pytest.fixture
def clothes(tmp_path):
    """The four files, with 30 and 20 images of each class, whose every pixel says class and file."""
    folder = tmp_path / "clothes"
    folder.mkdir()
    for part, (name, each) in enumerate((("train", 30), ("t10k", 20))):
        labels = np.random.default_rng(part).permutation(np.repeat(np.arange(10), each))
        idx(folder / f"{name}-labels-idx1-ubyte.gz", labels)
        idx(
            folder / f"{name}-images-idx3-ubyte.gz",
            np.broadcast_to((20 * labels + part)[:, None, None], (len(labels), 28, 28)),
        )
    return folder


def test_fashion_mnist_is_read_from_its_four_files(clothes):
    family = task_families()["fashion-mnist"](files=str(clothes))
    store = family.store
    assert [each.count for each in store.manifest.classes] == [50] * 10
    assert store.manifest.classes[9].name == "Ankle boot"
    for label, each in enumerate(store.manifest.classes):
        values = store.pixels[each.first : each.first + each.count]
        assert sorted(np.unique(values)) == [20 * label, 20 * label + 1]
    assert family.splits == ("test",)
    assert family.sample("test", 2, seeded_generator(0)).query.inputs.shape == (2, 80, 1, 28, 28)
    assert len(store.manifest.source) == 4
    for path in clothes.iterdir():
        path.unlink()
    assert task_families()["fashion-mnist"]().store.manifest == store.manifest  # once read, the files may go


def test_fashion_mnist_that_is_not_there_says_where_to_get_it(tmp_path):
    with refused("not there", "apt-get install dataset-fashion-mnist", "option `files`"):
        _ = task_families()["fashion-mnist"](files=str(tmp_path)).store


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("t10k-images-idx3", lambda raw: raw[: len(raw) // 2], "cannot be unpacked"),
        ("train-labels-idx1", lambda raw: b"no gzip", "cannot be unpacked"),
        ("train-labels-idx1", lambda raw: gzip.compress(gzip.decompress(raw)[:-3]), "not a whole file"),
        ("train-images-idx3", lambda raw: gzip.compress(b"\0\0\x08"), "not a whole file"),
        ("train-images-idx3", lambda raw: gzip.compress(b"\0\0\x0d\3" + bytes(12)), "not a whole file"),
    ],
)
def test_a_broken_file_of_fashion_mnist_is_named(clothes, file, change, told):
    path = clothes / f"{file}-ubyte.gz"
    path.write_bytes(change(path.read_bytes()))
    with refused(file, told):
        _ = task_families()["fashion-mnist"](files=str(clothes)).store


def test_labels_that_do_not_fit_the_images_are_refused(clothes):
    idx(clothes / "t10k-labels-idx1-ubyte.gz", np.arange(10).repeat(19))
    with refused("t10k-images", "28 x 28 pixels and a label", "190 labels"):
        _ = task_families()["fashion-mnist"](files=str(clothes)).store


@attrs.frozen
class Blobs:
    """Three classes around the corners of a triangle, `noise` away."""

    noise: float
    splits = ("test",)

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        corners = torch.eye(3).reshape(3, 1, 3, 1)
        batches = []
        for n in (4, 7):
            targets = torch.arange(3).repeat_interleave(n).repeat(count, 1)
            inputs = corners[targets] + self.noise * torch.randn(count, 3 * n, 1, 3, 1, generator=generator)
            batches.append(Batch(inputs, targets, stacked=True))
        return Task(*batches, stacked=True)

    def examples(self, split: str) -> Batch:
        raise NotImplementedError


def floor_scores(family, split, tasks, seed):
    return {
        name: pixel_scores(classifier, family, split, tasks, seed)[:, 0].tolist()
        for name, classifier in CLASSIFIERS.items()
    }


@needs_sklearn
def test_the_floor_is_scored_task_by_task():
    easy, hopeless, between = (floor_scores(Blobs(noise), "test", 60, 1) for noise in (0.05, 50.0, 0.5))
    assert set(easy) == {"nearest-centroid", "logistic-regression"}
    for name in easy:
        assert easy[name] == [1.0] * 60
        assert 0.25 < np.mean(hopeless[name]) < 0.42  # chance is 1/3
        assert 0.6 < np.mean(between[name]) < 0.95
    assert floor_scores(Blobs(0.5), "test", 20, 1) == {name: between[name][:20] for name in between}


@needs_sklearn
def test_the_floor_agrees_with_scikit_learns_own_nearest_centroid():
    from sklearn.neighbors import NearestCentroid

    from metalearn_core import TaskStream

    mine = floor_scores(Blobs(0.7), "test", 10, 3)["nearest-centroid"]
    stream = TaskStream(Blobs(0.7), "test", 3, torch.device("cpu"), torch.float32)
    for index, task in enumerate(stream.take(0, 10)[i] for i in range(10)):
        support, labels, query, truth = (
            x.flatten(1).numpy() if x.ndim > 1 else x.numpy() for x in task.tensors
        )
        assert NearestCentroid().fit(support, labels).score(query, truth) == pytest.approx(mine[index])
