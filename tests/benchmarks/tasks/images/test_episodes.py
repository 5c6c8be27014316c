"""Few-shot tasks of images: what is drawn, what it is drawn from, and what is refused."""

from __future__ import annotations

import multiprocessing
import pickle

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metalearn_benchmarks.tasks.images import pixels
from metalearn_benchmarks.tasks.images.augmentation import FIELDS, apply_augmentation, draw_augmentation
from metalearn_benchmarks.tasks.images.episodes import ImageFamily
from metalearn_benchmarks.tasks.images.families import image_families
from metalearn_benchmarks.tasks.images.store.image_store import ImageStore
from metalearn_benchmarks.tasks.images.store.locations import store_folder
from metalearn_benchmarks.tasks.images.store.manifest import SPLITS, Manifest
from metalearn_benchmarks.tasks.images.store.writer import StoreWriter
from metalearn_benchmarks.tasks.minibatches import FlatFamily
from metalearn_core import TaskFamily, TaskStream, UsageError, seeded_generator, task_families

CPU = torch.device("cpu")
COUNTS = {"train": (9, 30, 7, 12, 8, 300), "validation": (7, 8, 9), "test": (20, 20, 20, 20, 20)}


def refused(*parts: str):
    return pytest.raises(UsageError, match=r"\A[^\n]*" + r"[^\n]*".join(parts) + r"[^\n]*\Z")


def write(
    folder, channels: int = 1, size: int = 4, split_of=lambda index: None, name: str = "numbered"
) -> None:
    """A store whose images hold their own row: in the first two pixels of every channel."""
    plan = [(f"{split}-{i}", split, n) for split in SPLITS for i, n in enumerate(COUNTS[split])]
    if split_of(0):
        plan = [(label, split_of(index), n) for index, (label, _, n) in enumerate(plan)]
    writer = StoreWriter(folder, Manifest.of(name, "by hand", size, channels, plan, {}))
    for each in writer.remaining():
        images = np.zeros((each.count, size, size, channels), np.uint8)
        rows = np.arange(each.first, each.first + each.count)
        images[:, 0, 0], images[:, 0, 1] = (rows // 256)[:, None], (rows % 256)[:, None]
        images[:, 1, 0] = np.arange(channels)
        writer.put(each, images)
    writer.finish()


@attrs.frozen
class Opened:
    folder: object
    name = "numbered"
    splits = SPLITS

    def __call__(self, size: int) -> ImageStore:
        return ImageStore.open(self.folder)


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "grey"
    write(folder)
    return Opened(folder)


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "colour"
    write(folder, channels=3)
    return Opened(folder)


def rows(images: torch.Tensor) -> torch.Tensor:
    """The rows of the store that images `[..., channels, size, size]` came from."""
    high, low = (images * 255).round().long()[..., 0, 0, :2].unbind(-1)
    return high * 256 + low


def class_of(store: ImageStore, row: torch.Tensor) -> torch.Tensor:
    ends = torch.tensor([each.first + each.count for each in store.manifest.classes])
    return torch.bucketize(row, ends, right=True)


@given(
    ways=st.integers(1, 3), shots=st.integers(1, 4), queries=st.integers(1, 3), count=st.integers(1, 6),
    split=st.sampled_from(SPLITS), seed=st.integers(0, 2**31), augment=st.sampled_from(["none", "flip"]),
)  # fmt: skip
def test_a_task_is_n_classes_and_unlike_images_of_each(
    grey, ways, shots, queries, count, split, seed, augment
):
    family = ImageFamily(grey, ways, shots, queries, size=4)
    task = family.sample(split, count, seeded_generator(seed))
    assert task.support.inputs.shape == (count, ways * shots, 1, 4, 4)
    assert task.query.inputs.shape == (count, ways * queries, 1, 4, 4)
    support, query = rows(task.support.inputs), rows(task.query.inputs)
    both = torch.cat([support, query], 1)
    store = family.store
    for one in both.tolist():
        assert len(set(one)) == ways * (shots + queries)  # nothing twice, nothing in both
    classes = class_of(store, both)
    for drawn_classes, labels in zip(
        classes, torch.cat([task.support.targets, task.query.targets], 1), strict=True
    ):
        pairs = set(zip(drawn_classes.tolist(), labels.tolist(), strict=True))
        assert len(pairs) == ways  # a label is one class, and a class one label
        assert {label for _, label in pairs} == set(range(ways))
        assert {store.manifest.classes[c].split for c, _ in pairs} == {split}
    expected = torch.arange(ways)
    assert torch.equal(task.support.targets, expected.repeat_interleave(shots).expand(count, -1))
    assert torch.equal(task.query.targets, expected.repeat_interleave(queries).expand(count, -1))
    assert task.support.targets.dtype == torch.int64
    again = family.sample(split, count, seeded_generator(seed))
    assert all(torch.equal(x, y) for x, y in zip(task.tensors, again.tensors, strict=True))


@settings(max_examples=30)
@given(start=st.integers(0, 250), count=st.integers(1, 60), augment=st.sampled_from(["none", "crop-flip"]))
def test_task_i_is_the_same_whoever_takes_it(colour, start, count, augment):
    family = ImageFamily(colour, 3, 2, 3, size=4, augment=augment)
    taken = TaskStream(family, "train", 3, CPU, torch.float32).take(start, count)
    blocks = range(start // 100, (start + count - 1) // 100 + 1)
    whole = [family.sample("train", 100, seeded_generator(3, "train", block)) for block in blocks]
    for index in {0, count // 2, count - 1}:
        block, offset = divmod(start + index, 100)
        expected = whole[block - blocks[0]][offset]
        assert all(torch.equal(x, y) for x, y in zip(taken[index].tensors, expected.tensors, strict=True))


def test_every_class_and_image_is_drawn_about_equally_often(grey):
    family = ImageFamily(grey, 2, 2, 3, size=4)
    task = family.sample("train", 6000, seeded_generator(0))
    chosen = torch.cat([rows(task.support.inputs), rows(task.query.inputs)], 1)
    classes = class_of(family.store, chosen[:, [0, 2]]).flatten().bincount(minlength=6)
    assert (classes - 2000).abs().max() < 200  # 12,000 draws over 6 classes: a standard deviation is 41
    of_third = chosen[(chosen >= 39) & (chosen < 46)] - 39  # a class of 7, of which 5 are drawn each time
    often = of_third.bincount(minlength=7) / len(of_third)
    assert (often - 1 / 7).abs().max() < 0.01
    first = rows(task.support.inputs)[:, 0]
    assert ((first[(first >= 39) & (first < 46)] - 39).bincount(minlength=7) > 100).all()  # in every place


def test_colours_and_axes_are_in_their_places(colour):
    family = ImageFamily(colour, 2, 1, 1, size=4)
    inputs = family.sample("test", 3, seeded_generator(0)).query.inputs
    assert inputs.shape == (3, 2, 3, 4, 4)
    assert torch.equal((inputs[..., 1, 0] * 255).round(), torch.arange(3.0).expand(3, 2, 3))
    assert inputs.is_contiguous()
    assert 0 <= inputs.min() <= inputs.max() <= 1
    assert family.channels == 3
    assert family.training_classes == 6
    assert isinstance(family, TaskFamily)


def test_tasks_come_in_the_type_of_the_learner_and_all_of_255_is_one(grey):
    task = TaskStream(ImageFamily(grey, 2, 1, 1, size=4), "train", 0, CPU, torch.float64).take(0, 2)
    assert task.support.inputs.dtype == torch.float64
    images = pixels.SplitPixels(ImageStore.open(grey.folder), ImageStore.open(grey.folder).classes("train"))
    white = images.look_up(torch.tensor([[255]]), torch.float32)
    assert white[0, 0, 0, 1] == 1.0


def test_a_stream_keeps_numbers_and_not_images(colour):
    stream = TaskStream(ImageFamily(colour, 3, 2, 3, size=4), "train", 0, CPU, torch.float32)
    stream.take(5, 2)
    _, kept = stream._cached
    assert kept.support.inputs.shape == (100, 6, 1)
    assert not kept.support.inputs.is_floating_point()


def test_nothing_that_is_done_to_examples_reaches_the_file(grey):
    family = ImageFamily(grey, 2, 1, 1, size=4)
    batch = family.examples("validation")
    assert batch.inputs.dtype == torch.uint8
    assert batch.inputs.shape == (24, 1, 4, 4)
    assert batch.targets.tolist() == [0] * 7 + [1] * 8 + [2] * 9
    first = int(family.store.classes("validation")[0].first)
    assert rows(batch.inputs.float() / 255).tolist() == list(range(first, first + 24))
    batch.inputs.fill_(9)
    ImageStore.open(grey.folder).verify()


def test_splits_whose_classes_lie_apart_are_put_together(tmp_path):
    write(tmp_path / "mixed", split_of=lambda index: SPLITS[index % 2])
    family = ImageFamily(Opened(tmp_path / "mixed"), 3, 1, 2, size=4)
    seen = rows(family.sample("train", 200, seeded_generator(0)).query.inputs)
    assert set((class_of(family.store, seen) % 2).flatten().tolist()) == {0}
    batch = family.examples("train")
    again = class_of(family.store, rows(batch.inputs.float() / 255))
    assert torch.equal(again // 2, batch.targets)


def test_minibatches_for_pretraining_are_looked_up_where_they_are_used(colour):
    family = ImageFamily(colour, 2, 1, 1, size=4)
    stream = TaskStream(FlatFamily(family, 8), "train", 0, CPU, torch.float32)
    task = stream.take(98, 4)
    assert task.query.inputs.shape == (4, 8, 3, 4, 4)
    assert torch.equal(class_of(family.store, rows(task.query.inputs)), task.query.targets)
    assert torch.equal(task.support.inputs, task.query.inputs)
    _, kept = stream._cached
    assert kept.query.inputs.shape == (100, 8, 1)
    directly = FlatFamily(family, 8).sample("train", 100, seeded_generator(0, "train", 0))
    assert torch.equal(directly[98].query.inputs, task[0].query.inputs)
    augmented = FlatFamily(ImageFamily(colour, 2, 1, 1, size=4, augment="flip"), 8)
    assert augmented.draw("train", 2, seeded_generator(0)).query.inputs.shape == (2, 8, 1 + FIELDS)


@pytest.mark.parametrize("augment", ["flip", "crop", "crop-flip"])
def test_augmentation_flips_and_crops_each_image_for_itself(augment):
    size, images = 16, torch.rand(60, 3, 16, 16)
    draws = draw_augmentation(torch.Size([60]), augment, size, seeded_generator(1))
    made = apply_augmentation(images, draws)
    padded = torch.zeros(60, 3, 20, 20)
    padded[..., 2:18, 2:18] = images
    for image, (flip, top, left), result in zip(padded, draws.tolist(), made, strict=True):
        window = image[:, top : top + size, left : left + size]
        assert torch.equal(result, window.flip(-1) if flip else window)
    assert set(draws[:, 0].tolist()) == ({0, 1} if "flip" in augment else {0})
    assert set(draws[:, 1:].flatten().tolist()) == (set(range(5)) if "crop" in augment else {2})


def test_only_training_images_are_augmented(grey):
    plain, flipped = (ImageFamily(grey, 2, 2, 3, size=4, augment=a) for a in ("none", "flip"))
    for split in SPLITS:
        ours, theirs = (f.sample(split, 30, seeded_generator(0)).support.inputs for f in (plain, flipped))
        assert torch.equal(ours, theirs) == (split != "train")
        assert torch.equal(torch.minimum(ours, ours.flip(-1)), torch.minimum(theirs, theirs.flip(-1)))


def _first_rows(family: ImageFamily) -> list[int]:
    return rows(family.sample("test", 1, seeded_generator(4)).query.inputs).flatten().tolist()


def test_another_process_opens_the_images_for_itself(grey):
    family = ImageFamily(grey, 2, 1, 3, size=4)
    expected = _first_rows(family)
    assert len(pickle.dumps(family)) < 1_000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_first_rows, (family,)) == expected


def test_held_out_images_are_not_augmented(grey):
    """They choose the pretrained state: of one image in ten, as it is."""
    family = ImageFamily(grey, ways=2, shots=1, queries=1, size=4, augment="crop-flip")
    flat = FlatFamily(family, minibatch=8, held_out=3)
    fields = {
        split: flat.draw(split, 4, seeded_generator(0)).query.inputs.shape[-1]
        for split in ("train", "validation")
    }
    assert fields["validation"] == 1 < fields["train"]
    sampled = flat.sample("validation", 4, seeded_generator(0))
    numbers = flat.draw("validation", 4, seeded_generator(0)).query.inputs[..., 0]
    assert torch.equal(rows(sampled.query.inputs), numbers)


@pytest.mark.parametrize(
    ("options", "split", "parts"),
    [
        (
            {"ways": 7},
            "train",
            ("numbered, train", "7 ways of 1 shots and 1 queries", "7 classes of 2", "6 classes"),
        ),
        ({"shots": 5, "queries": 3}, "train", ("classes of 8 images", "smallest of 7")),
        ({"ways": 4}, "validation", ("validation", "it has 3 classes")),
    ],
)
def test_too_few_classes_or_images_are_told_in_numbers(grey, options, split, parts):
    family = ImageFamily(grey, **{"ways": 2, "shots": 1, "queries": 1, "size": 4, **options})
    with refused(*parts):
        family.sample(split, 1, seeded_generator(0))


def test_a_split_without_classes_is_refused(tmp_path):
    write(tmp_path / "half", split_of=lambda index: "train")
    family = ImageFamily(Opened(tmp_path / "half"), size=4)
    with refused("numbered", "validation split has no classes"):
        family.sample("validation", 1, seeded_generator(0))
    with refused("split of numbered 'tests'", "did you mean 'test'"):
        family.sample("tests", 1, seeded_generator(0))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"ways": 0}, ("ways must be an integer >= 1", "got 0")),
        ({"shots": True}, ("shots must be", "got True")),
        ({"queries": 1.5}, ("queries must be", "got 1.5")),
        ({"size": -3}, ("size must be", "got -3")),
        ({"augment": "flop"}, ("augment 'flop'", "did you mean 'flip'")),
        ({"shot": 1}, ("option 'shot'", "did you mean 'shots'")),
    ],
)
def test_options_out_of_range_are_refused_when_it_is_made(options, parts):
    with refused("task family 'cub'", *parts):
        task_families()["cub"](**options)


def test_what_is_not_prepared_says_how_to(monkeypatch, tmp_path):
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path))
    family = task_families()["mini-imagenet"](size=60)  # not opened yet
    assert family.splits == SPLITS
    with refused("mini-imagenet", "60 x 60", "metalearn data prepare mini-imagenet PATH --size 60"):
        family.sample("train", 1, seeded_generator(0))
    write(store_folder("omniglot", 28), size=28, name="omniglot")
    assert task_families()["omniglot"]().sample("test", 1, seeded_generator(0)).query.inputs.shape[-1] == 28


def test_all_families_are_registered_with_their_usual_sizes():
    assert {"mini-imagenet": 84, "cub": 84, "omniglot": 28, "cifar-fs": 32, "fc100": 32}.items() <= {
        name: factory().size for name, factory in image_families().items()
    }.items()
    assert set(image_families()) <= set(task_families())
    assert {name for name, make in image_families().items() if make().splits == ("test",)} == {
        "digits",
        "fashion-mnist",
    }
