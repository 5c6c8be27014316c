"""Every form in which people have these datasets: what is read from it is pixel for pixel what is in it."""

from __future__ import annotations

import pickle

import attrs
import image_copies as copies
import numpy as np
import pytest
from image_copies import as_jpeg, ready, require_pictures

from metalearn_benchmarks.tasks.images.datasets import datasets
from metalearn_benchmarks.tasks.images.splits import split_lists
from metalearn_core.errors import UsageError

PHOTOS = copies.photos()
JPEGS = {which: [as_jpeg(picture) for picture in found] for which, found in PHOTOS.items()}
STORED = {
    which: [copies.photo(100 * at + k).resize((12, 12), 3) for k in range(3)]
    for at, which in enumerate(copies.SYNSETS)
}
"""As a cache of 12 pixels holds them."""


def splits_of(store):
    return {each.name: each.split for each in store.manifest.classes}


def as_tree(folder, files):
    return copies.write(folder / "copy", files)


def as_tar(folder, files):
    return copies.tarred(folder / "copy.bin", files)  # its name says nothing


def as_zip(folder, files):
    return copies.zipped(folder / "copy.bin", files)


@pytest.mark.parametrize("pack", [as_tree, as_tar, as_zip])
@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("{which}{k:08}.jpg", "filename,label"),
        ("{which}_{k}.jpg", "class_name,image_name"),
    ],
)
def test_csvs_with_images(tmp_path, pack, name, header):
    path = pack(tmp_path, copies.ravi_files(PHOTOS, name, header))
    made = ready(copies.MINI, path, tmp_path / "out")
    require_pictures(made.store, JPEGS)
    assert splits_of(made.store) == dict(copies.RAVI.classes)
    assert header in made.store.manifest.source["form"]
    assert made.notes == ()


def test_csvs_decide_which_images_are_of_the_dataset_and_in_which_order(tmp_path):
    """ImageNet's folders hold more than miniImageNet; the list's order is the order of rows."""
    files = copies.ravi_files(PHOTOS, "{which}_{k}.JPEG", "class_name,image_name")
    first = copies.TRAIN[0]
    files[f"images/{first}_9.JPEG"] = copies.encoded(copies.photo(5))
    lines = files["train.csv"].splitlines()
    files["train.csv"] = "\r\n".join([lines[0], *reversed(lines[1:])])
    moved = {(f"ILSVRC/{n[7:16]}/{n[7:]}" if n.startswith("images/") else n): d for n, d in files.items()}
    made = ready(copies.MINI, as_tree(tmp_path, moved), tmp_path / "out")
    require_pictures(made.store, {w: f[::-1] if w in copies.TRAIN else f for w, f in JPEGS.items()})


def test_csvs_of_ranks_with_imagenet_itself(tmp_path):
    """ImageNet's names are other ones: a rank counts its images of a class, by number and not by text."""
    lists = {n: d for n, d in copies.ravi_files(PHOTOS).items() if n.endswith(".csv")}
    lists = {n: text.replace("00000003.jpg", "00000004.jpg") for n, text in lists.items()}
    images = {}
    for at, (which, found) in enumerate(PHOTOS.items()):
        extra = copies.photo(5000 + at)
        for number, picture in zip((9, 20, 100, 1003), (*found[:2], extra, found[2]), strict=True):
            images[f"train/{which}/{which}_{number}.JPEG"] = copies.encoded(picture)
    made = ready(copies.MINI, as_tree(tmp_path, lists | images), tmp_path / "out")
    require_pictures(made.store, JPEGS)
    assert "15 images were found by their rank" in made.notes[0]
    del images["train/n00000002/n00000002_9.JPEG"]
    with pytest.raises(
        UsageError, match=r"names n0000000200000004.jpg of class n00000002, which is not there"
    ):
        ready(copies.MINI, copies.write(tmp_path / "b", lists | images), tmp_path / "out-b")


@pytest.mark.parametrize("pack", [as_tree, as_tar])
@pytest.mark.parametrize(
    "place", ["{split}/{which}/{k}.jpg", "{which}/{k}.jpg", "{which}/images/{k}.jpg", "images/{which}{k}.jpg"]
)
def test_folders_or_names_that_are_classes(tmp_path, pack, place):
    files = {
        f"data/{place.format(split=copies.RAVI.classes[which], which=which, k=k)}": copies.encoded(picture)
        for which, found in PHOTOS.items()
        for k, picture in enumerate(found)
    }
    files |= {"data/.DS_Store": "", "__MACOSX/data/._1.jpg": "", "data/readme.txt": "hello"}
    made = ready(copies.MINI, pack(tmp_path, files), tmp_path / "out")
    require_pictures(made.store, JPEGS)
    assert made.notes == ()


def dump2(content):
    return pickle.dumps(content, protocol=2)


def dump5(content):
    return pickle.dumps(content, protocol=5)


@pytest.mark.parametrize("pack", [as_tree, as_tar])
@pytest.mark.parametrize("dump", [copies.python2, dump2, dump5])
@pytest.mark.parametrize("binary", [False, True])
def test_the_three_caches(tmp_path, pack, dump, binary):
    files = {
        f"mini-imagenet-cache-{name}.pkl": dump(
            copies.cache({which: PHOTOS[which] for which in classes}, 12, binary)
        )
        for name, classes in (("train", copies.TRAIN), ("val", copies.VALIDATION), ("test", copies.TEST))
    }
    made = ready(copies.MINI, pack(tmp_path, files), tmp_path / "out")
    require_pictures(made.store, STORED)
    assert splits_of(made.store) == dict(copies.RAVI.classes)
    assert made.notes == ()


@pytest.mark.parametrize("dump", [copies.python2, dump2])
def test_category_splits_without_their_further_images_of_training_classes(tmp_path, dump):
    further = {which: [copies.photo(10_000 + k) for k in range(2)] for which in copies.TRAIN}
    stem = "miniImageNet_category_split"
    files = {
        f"{stem}_train_phase_train.pickle": dump(copies.category({w: PHOTOS[w] for w in copies.TRAIN})),
        f"{stem}_train_phase_val.pickle": dump(copies.category(further)),
        f"{stem}_train_phase_test.pickle": dump(copies.category(further)),
        f"{stem}_val.pickle": dump(copies.category({w: PHOTOS[w] for w in copies.VALIDATION}, 64)),
        f"{stem}_test.pickle": dump(copies.category({w: PHOTOS[w] for w in copies.TEST}, 80)),
    }
    made = ready(copies.MINI, as_tree(tmp_path, files), tmp_path / "out")
    require_pictures(made.store, STORED)
    assert [note.split(":")[0] for note in made.notes] == [
        f"{stem}_train_phase_test.pickle", f"{stem}_train_phase_val.pickle",
    ]  # fmt: skip
    assert all("left out, 4 further images of 2 classes" in note for note in made.notes)


@pytest.mark.parametrize("form", ["pickles", "csv", "folders"])
def test_val_and_test_that_are_swapped_are_put_right_and_told(tmp_path, form):
    named = {"train": copies.TRAIN, "val": copies.TEST, "test": copies.VALIDATION}
    if form == "pickles":
        files = {f"c-{n}.pkl": dump2(copies.cache({w: PHOTOS[w] for w in c})) for n, c in named.items()}
    elif form == "csv":
        files = copies.ravi_files(PHOTOS)
        files["val.csv"], files["test.csv"] = files["test.csv"], files["val.csv"]
    else:
        files = {
            f"{n}/{w}/{k}.png": copies.encoded(p.resize((12, 12), 3), "PNG")
            for n, c in named.items()
            for w in c
            for k, p in enumerate(PHOTOS[w])
        }
    made = ready(copies.MINI, as_tree(tmp_path, files), tmp_path / "out")
    require_pictures(made.store, JPEGS if form == "csv" else STORED)
    assert splits_of(made.store) == dict(copies.RAVI.classes)
    assert len(made.notes) == 2
    assert "test" in made.notes[0].split(":")[0]
    assert "holds classes of validation in spite of its name; the classes decide" in made.notes[0]
    assert "holds classes of test in spite" in made.notes[1]


def test_a_list_that_is_not_the_published_one_is_told(tmp_path):
    known = attrs.evolve(copies.MINI, lists={"0" * 64: "train.csv"})
    made = ready(known, as_tree(tmp_path, copies.ravi_files(PHOTOS)), tmp_path / "out")
    assert "not byte for byte the published list" in made.notes[0]


@pytest.mark.parametrize("pack", [as_tree, as_tar])
@pytest.mark.parametrize("split", [None, "other"])
def test_cub_with_its_lists(tmp_path, pack, split):
    path = pack(tmp_path, copies.cub_files(copies.birds()))
    dataset = copies.closed(copies.CUB, path) if path.is_file() else copies.CUB
    made = ready(dataset, path, tmp_path / "out", split)
    require_pictures(made.store, {w: [as_jpeg(p) for p in f] for w, f in copies.birds().items()})
    assert splits_of(made.store) == dict(copies.CUB.split(split).classes)
    assert made.store.manifest.split == (split or "chen")
    assert "lists" in made.store.manifest.source["form"]


def test_cub_as_an_archive_in_a_folder_beside_another_one(tmp_path):
    path = copies.tarred(tmp_path / "CUB.tgz", copies.cub_files(copies.birds()))
    copies.tarred(tmp_path / "segmentations.tgz", {"segmentations/001.Auk/0.png": "x"})
    made = ready(copies.closed(copies.CUB, path), tmp_path, tmp_path / "out")
    require_pictures(made.store, {w: [as_jpeg(p) for p in f] for w, f in copies.birds().items()})


@pytest.mark.parametrize("zipped", [False, True])
def test_omniglot_unpacked_or_as_its_two_archives(tmp_path, zipped):
    drawings = copies.letters()
    parts = {
        "images_background": {w: drawings[w] for w in copies.LETTERS[:2]},
        "images_evaluation": {w: drawings[w] for w in copies.LETTERS[2:]},
    }
    trees = {name: copies.omniglot_files(part, name) for name, part in parts.items()}
    dataset = copies.OMNIGLOT
    if zipped:
        dataset = copies.closed(
            copies.OMNIGLOT,
            *[copies.zipped(tmp_path / f"{name}.zip", files) for name, files in trees.items()],
        )
    else:
        for files in trees.values():
            copies.write(tmp_path, files)
    made = ready(dataset, tmp_path, tmp_path / "out" / "x")
    require_pictures(made.store, drawings, mode="L")
    assert splits_of(made.store) == {w: part for part, found in copies.ALPHABETS.items() for w in found}
    assert made.store.manifest.channels == 1
    assert made.store.manifest.tally == {}  # one bit a pixel is grey


def test_turned_characters_are_classes(tmp_path):
    path = as_zip(tmp_path, copies.omniglot_files(copies.letters(), "images"))
    plain = copies.held(ready(copies.OMNIGLOT, path, tmp_path / "plain").store)
    turned = copies.held(ready(copies.OMNIGLOT, path, tmp_path / "turned", "turned").store)
    assert set(turned) == {f"{w}/rot{degrees}" for w in plain for degrees in ("000", "090", "180", "270")}
    for which, pixels in turned.items():
        name, turns = which.rsplit("/rot", 1)
        np.testing.assert_array_equal(pixels, np.rot90(plain[name], int(turns) // 90, axes=(1, 2)))


@pytest.mark.parametrize("pack", [as_tree, as_tar])
@pytest.mark.parametrize("dump", [copies.python2, dump2])
def test_cifar_100(tmp_path, pack, dump):
    path = pack(tmp_path, copies.cifar_files(copies.things(), dump))
    dataset = copies.closed(copies.CIFAR, path) if path.is_file() else copies.CIFAR
    made = ready(dataset, path, tmp_path / "out")
    require_pictures(made.store, copies.things())
    assert splits_of(made.store) == {"bee": "train", "cup": "validation", "apple": "test"}
    assert made.notes == ()


def test_cifar_100_in_folders_of_its_two_halves_whose_names_begin_anew(tmp_path):
    """In both a class's images are numbered from 0: 500 and 100 of one, 2 and 1 here."""
    files = {
        f"{part}/{which}/{k:04}.png": copies.encoded(picture, "PNG")
        for which, found in copies.things().items()
        for part, pictures in (("train", found[:2]), ("test", found[2:]))
        for k, picture in enumerate(pictures)
    }
    made = ready(copies.CIFAR, as_tree(tmp_path, files), tmp_path / "out")
    assert {each.name: each.count for each in made.store.manifest.classes} == dict.fromkeys(copies.THINGS, 3)
    assert "twice" not in " ".join(made.notes)


def test_a_whole_copy_beside_the_first_one_is_taken_once(tmp_path):
    files = {
        f"{part}/{which}/{which}_{k}.png": copies.encoded(picture, "PNG")
        for part in ("one", "two")
        for which, found in PHOTOS.items()
        for k, picture in enumerate(found)
    }
    made = ready(copies.MINI, as_tree(tmp_path, files), tmp_path / "out")
    require_pictures(made.store, PHOTOS)
    assert "15 images are there twice; each is taken once" in made.notes


def test_cifar_100_without_the_pickle_that_names_its_classes(tmp_path):
    files = copies.cifar_files(copies.things(), dump2)
    del files["cifar-100-python/meta"]
    require_pictures(ready(copies.CIFAR, as_tree(tmp_path, files), tmp_path / "out").store, copies.things())


def test_grey_images_become_rgb_and_are_counted(tmp_path):
    files = copies.ravi_files(PHOTOS)
    grey = copies.photo(0, mode="L")
    files[f"images/{copies.TEST[0]}00000001.jpg"] = copies.encoded(grey)
    files[f"images/{copies.TRAIN[1]}00000002.jpg"] = copies.encoded(grey.convert("CMYK"))
    made = ready(copies.MINI, as_tree(tmp_path, files), tmp_path / "out")
    assert made.store.manifest.tally == {"converted from CMYK": 1, "converted from L": 1}
    np.testing.assert_array_equal(
        copies.held(made.store)[copies.TEST[0]][0], copies.resized(as_jpeg(grey), 12)
    )


def test_processes_make_no_difference(tmp_path):
    path = as_tar(tmp_path, copies.ravi_files(PHOTOS))
    made = [ready(copies.MINI, path, tmp_path / f"out-{n}", processes=n).store for n in (1, 2)]
    assert made[0].manifest.sha256 == made[1].manifest.sha256


def test_another_size(tmp_path):
    made = ready(copies.MINI, as_tree(tmp_path, copies.ravi_files(PHOTOS)), tmp_path / "out", size=9)
    require_pictures(made.store, JPEGS, 9)


def test_the_real_lists_are_the_published_ones():
    counts = {
        ("mini-imagenet", "ravi"): (64, 16, 20), ("cub", "chen"): (100, 50, 50),
        ("cub", "140-30-30"): (140, 30, 30), ("cifar-fs", "bertinetto"): (64, 16, 20),
        ("fc100", "oreshkin"): (60, 20, 20), ("omniglot", "vinyals"): (1028, 172, 423),
        ("omniglot", "vinyals-rotations"): (4112, 688, 1692), ("omniglot", "lake"): (964, 0, 659),
        ("omniglot", "small"): (0, 0, 242),
    }  # fmt: skip
    found = {(name, split.name): split for name, each in datasets().items() for split in each.splits.values()}
    assert set(found) == set(counts)
    for key, split in found.items():
        parts = list(split.classes.values())
        assert tuple(parts.count(part) for part in ("train", "validation", "test")) == counts[key]
        assert split.counts == "/".join(map(str, counts[key]))
        assert sum(map(len, split.parts.values())) == len(split.on_disk)  # no class twice
    assert set(found["cub", "chen"].on_disk) == set(found["cub", "140-30-30"].on_disk)
    assert set(found["cifar-fs", "bertinetto"].on_disk) == set(found["fc100", "oreshkin"].on_disk)


def test_chens_rule_gives_chens_list():
    split = split_lists("cub")["chen"]
    for i, which in enumerate(sorted(split.on_disk)):
        assert split.on_disk[which] == ("train" if i % 2 == 0 else "validation" if i % 4 == 1 else "test")
    assert sorted(split.on_disk)[-1] == "200.Common_Yellowthroat"
    assert {name[:3] for name in split.on_disk} == {f"{n:03}" for n in range(1, 201)}
    assert copies.BIRDS[0] not in split.on_disk


def test_an_unknown_split_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'chen'"):
        copies.CUB.split("chenn")
