"""Images of a user's own: every form that is read, what is told of it, and that an experiment runs on it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import image_copies as copies
import numpy as np
import pytest
from PIL import Image

from metalearn_benchmarks.experiments.catalogue import Overrides, cells, find_experiment
from metalearn_benchmarks.runs.training import run_cells
from metalearn_benchmarks.tasks.images.own.labelled import split_of
from metalearn_benchmarks.tasks.images.own.preparation import prepare_own
from metalearn_benchmarks.tasks.images.own.splitting import Shares
from metalearn_benchmarks.tasks.images.store.image_store import ImageStore
from metalearn_core import Registry, registry
from metalearn_core.errors import UsageError

SIZE = 12
CLASSES = ("ash", "beech", "cedar", "date", "elm")
PER_CLASS = 3


def leaf(which, index):
    """A picture of a class, and its bytes as PNG."""
    return copies.encoded(copies.photo(1000 * CLASSES.index(which) + index), "PNG")


LEAVES = {(which, index): leaf(which, index) for which in CLASSES for index in range(PER_CLASS)}


def silent(*_):
    pass


def made(path, tmp_path, shares=Shares()):  # noqa: B008 - it is frozen
    return prepare_own("leaves", path, tmp_path / "home/leaves/12", SIZE, shares, silent)


def splits_of(store):
    return {
        part: sorted(each.name for each in store.classes(part)) for part in ("train", "validation", "test")
    }


def require_leaves(store, classes=CLASSES):
    """Every image of the store is the one that Pillow makes of the file, class by class."""
    found = {each.name: each for each in store.manifest.classes}
    assert sorted(found) == sorted(classes)
    for name, each in found.items():
        assert each.count == PER_CLASS
        for index in range(PER_CLASS):
            wanted = copies.resized(Image.open(io.BytesIO(LEAVES[name, index])), SIZE)
            np.testing.assert_array_equal(store.pixels[each.first + index], wanted)


# --- the forms, one after another


def flat_folders(folder):
    return copies.write(folder, {f"{which}/{index}.png": data for (which, index), data in LEAVES.items()})


SAID = {"ash": "train", "beech": "train", "cedar": "val", "date": "test", "elm": "train"}
AS_SAID = {"train": ["ash", "beech", "elm"], "validation": ["cedar"], "test": ["date"]}


def split_folders(folder):
    return copies.write(
        folder, {f"leaves/{SAID[w]}/{w}/{index}.png": data for (w, index), data in LEAVES.items()}
    )


def table(folder, columns=("path", "label", "split"), name="leaves.csv", delimiter=","):
    text = io.StringIO()
    rows = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    rows.writerow(columns)
    for which, index in LEAVES:
        rows.writerow([f"{which}-{index}.png", which, SAID[which]][: len(columns)])
    files = {f"images/{which}-{index}.png": data for (which, index), data in LEAVES.items()}
    return copies.write(folder, {**files, name: text.getvalue()})


def arrays():
    """Images of one size, their labels and splits."""
    pixels = np.stack(
        [np.asarray(Image.open(io.BytesIO(data)).resize((SIZE, SIZE))) for data in LEAVES.values()]
    )
    return {
        "images": pixels,
        "labels": np.array([which for which, _ in LEAVES]),
        "split": np.array([SAID[which] for which, _ in LEAVES]),
    }


def packed(folder):
    folder.mkdir(parents=True)
    np.savez(folder / "leaves.npz", **arrays())
    return folder / "leaves.npz"


def apart(folder):
    folder.mkdir(parents=True)
    for name, array in arrays().items():
        np.save(folder / f"{name}.npy", array)
    return folder


def by_split(folder):
    """An .npz for each split, with channels first."""
    folder.mkdir(parents=True)
    told = arrays()
    for part in ("train", "val", "test"):
        rows = told["split"] == part
        np.savez(folder / f"{part}.npz", x=np.moveaxis(told["images"][rows], 3, 1), y=told["labels"][rows])
    return folder


def hugging_face_table(pyarrow, rows):
    """A table as `datasets` writes it: struct of bytes and path, and classes by number."""
    names = list(CLASSES)
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    columns = {
        "image": [{"bytes": LEAVES[key], "path": f"{key[0]}.png"} for key in rows],
        "label": [names.index(which) for which, _ in rows],
    }
    found = pyarrow.table(columns)
    return found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def parquet_shards(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (folder / "data").mkdir(parents=True)
    for part, word in (("train", "train"), ("validation", "val"), ("test", "test")):
        rows = [key for key in LEAVES if SAID[key[0]] == word]
        parquet.write_table(
            hugging_face_table(pyarrow, rows), folder / "data" / f"{part}-00000-of-00001.parquet"
        )
    return folder


def saved_to_disk(folder):
    """What `DatasetDict.save_to_disk` leaves: a folder for each split, with streams of Arrow."""
    pyarrow = pytest.importorskip("pyarrow")
    for part in ("train", "val", "test"):
        table = hugging_face_table(pyarrow, [key for key in LEAVES if SAID[key[0]] == part])
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        where = folder / part
        where.mkdir(parents=True)
        (where / "dataset_info.json").write_text(json.dumps({"features": features}))
        (where / "state.json").write_text("{}")
        plain = table.replace_schema_metadata(None)
        file = pyarrow.OSFile(str(where / "data-00000-of-00001.arrow"), "wb")
        with file, pyarrow.ipc.new_stream(file, plain.schema) as stream:
            stream.write_table(plain)
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "val", "test"]}')
    return folder


def parquet_of_paths(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    copies.write(folder, {f"{which}-{index}.png": data for (which, index), data in LEAVES.items()})
    columns = {
        "filename": [f"{which}-{index}.png" for which, index in LEAVES],
        "class": [which for which, _ in LEAVES],
        "partition": [SAID[which] for which, _ in LEAVES],
    }
    parquet.write_table(pyarrow.table(columns), folder / "leaves.parquet")
    return folder


FORMS = [split_folders, table, packed, apart, by_split, parquet_shards, saved_to_disk, parquet_of_paths]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_gives_the_same_images_and_the_splits_that_it_names(form, tmp_path):
    store = made(form(tmp_path / "copy"), tmp_path).store
    assert splits_of(store) == AS_SAID
    if form in (packed, apart, by_split):  # they were resized when the arrays were made
        wanted = dict(zip(LEAVES, arrays()["images"], strict=True))
        for each in store.manifest.classes:
            for index in range(PER_CLASS):
                np.testing.assert_array_equal(store.pixels[each.first + index], wanted[each.name, index])
    else:
        require_leaves(store)


def test_classes_without_a_split_are_split_by_a_recorded_seed(tmp_path):
    copy = flat_folders(tmp_path / "copy")
    first = made(copy, tmp_path, Shares((60, 20, 20), 3)).store
    require_leaves(first)
    found = splits_of(first)
    assert [len(found[part]) for part in ("train", "validation", "test")] == [3, 1, 1]
    assert first.manifest.source["split seed"] == 3
    assert first.manifest.source["shares"] == [60, 20, 20]
    assert made(copy, tmp_path, Shares((60, 20, 20), 3)).already
    others = [splits_of(made(copy, tmp_path, Shares((60, 20, 20), seed)).store) for seed in range(4)]
    assert any(other != found for other in others)


def test_shares_that_are_asked_for_take_the_place_of_folders(tmp_path):
    store = made(split_folders(tmp_path / "copy"), tmp_path, Shares((20, 20, 60), 0, True)).store
    assert [len(classes) for classes in splits_of(store).values()] == [1, 1, 3]


@pytest.mark.parametrize(
    ("parts", "classes", "counts"),
    [((64, 16, 20), 100, (64, 16, 20)), ((64, 16, 20), 5, (3, 1, 1)), ((1, 1, 1), 7, (3, 2, 2)),
     ((98, 1, 1), 3, (1, 1, 1)), ((80, 20, 0), 10, (8, 2, 0)), ((0, 0, 5), 4, (0, 0, 4))],
)  # fmt: skip
def test_shares_are_whole_classes(parts, classes, counts):
    assert Shares(parts).counts(classes) == counts


def test_more_parts_than_classes_are_refused():
    with pytest.raises(UsageError, match="2 classes cannot be split 64/16/20"):
        Shares().counts(2)


def test_a_folder_that_splits_images_is_pooled_and_told(tmp_path):
    """torchvision's ImageFolder of an ordinary classifier has every class in train and in val."""
    files = {
        f"{'val' if index == 0 else 'train'}/{which}/{index}.png": data
        for (which, index), data in LEAVES.items()
    }
    found = made(copies.write(tmp_path / "copy", files), tmp_path)
    assert [(each.name, each.count) for each in found.store.manifest.classes if each.name == "ash"] == [
        ("ash", 3)
    ]
    assert any("5 classes, such as ash" in note and "split anew" in note for note in found.notes)


def test_classes_for_validation_are_taken_from_training_where_there_are_none(tmp_path):
    files = {
        f"{'test' if which == 'elm' else 'train'}/{which}/{index}.png": data
        for (which, index), data in LEAVES.items()
    }
    found = made(copies.write(tmp_path / "copy", files), tmp_path)
    assert [len(classes) for classes in splits_of(found.store).values()] == [3, 1, 1]
    assert any("names no classes for validation: 1 of 4" in note for note in found.notes)


# --- what is told and counted


def test_broken_images_and_small_classes_are_left_out_told_and_counted(tmp_path):
    copy = flat_folders(tmp_path / "copy")
    copies.write(
        copy, {"ash/9.png": LEAVES["ash", 0][:200], "fir/0.png": LEAVES["ash", 1], "loose.png": b"?"}
    )
    found = made(copy, tmp_path)
    require_leaves(found.store)
    told = "\n".join(found.notes)
    assert "1 images cannot be decoded and are left out" in told
    assert "ash/9.png" in told
    assert "1 classes with fewer than 2 images are left out: fir" in told
    assert "1 images lie in no folder of a class" in told
    assert found.store.manifest.source["left out"] == {"broken images": 1, "small classes": 1}
    assert "shots and queries of 3 together" in told


def test_odd_modes_are_counted_and_grey_images_stay_grey(tmp_path):
    copy = flat_folders(tmp_path / "colour")
    cmyk = copies.encoded(Image.open(io.BytesIO(LEAVES["ash", 2])).convert("CMYK"), "JPEG")
    (copy / "ash/2.png").unlink()
    copies.write(copy, {"ash/2.jpg": cmyk})
    store = made(copy, tmp_path).store
    assert store.manifest.tally == {"converted from CMYK": 1}
    assert store.manifest.channels == 3
    grey = {
        f"{which}/{index}.png": copies.encoded(Image.open(io.BytesIO(data)).convert("L"), "PNG")
        for (which, index), data in LEAVES.items()
    }
    assert made(copies.write(tmp_path / "grey", grey), tmp_path).store.manifest.channels == 1


# --- what is refused, in one line


def refused(path, tmp_path, *words):
    with pytest.raises(UsageError) as caught:
        made(path, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert not (tmp_path / "home").exists()


def test_a_table_without_its_columns_is_refused_with_those_it_has(tmp_path):
    refused(
        table(tmp_path / "copy", columns=("path", "kind")), tmp_path, "no column of the labels", "path, kind"
    )


def test_a_table_of_images_that_are_not_there_is_refused_with_their_number(tmp_path):
    copy = table(tmp_path / "copy")
    (copy / "images/elm-1.png").unlink()
    refused(copy, tmp_path, "1 of its 15 rows", "elm-1.png")


@pytest.mark.parametrize("said", ["../ash-0.png", "/etc/passwd", "..\\ash-0.png"])
def test_a_table_that_leads_out_of_its_folder_finds_nothing(tmp_path, said):
    copies.write(tmp_path, {"ash-0.png": LEAVES["ash", 0]})
    copy = copies.write(tmp_path / "copy", {"t.csv": f"path,label\n{said},ash\n", "x/ash-1.png": b""})
    refused(copy, tmp_path, "1 of its 1 rows name no image that is there")


def test_arrays_of_objects_are_refused_and_run_nothing(tmp_path):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(ran), "w"))

    (tmp_path / "copy").mkdir()
    objects = np.array([Evil(), Evil()], dtype=object)
    np.savez(tmp_path / "copy/a.npz", images=arrays()["images"][:2], labels=objects)
    refused(tmp_path / "copy", tmp_path, "refused, an array of objects")
    assert not ran.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": np.zeros((15, 4, 4, 3), np.float32)}, ["images is float32 [15, 4, 4, 3]", "255"]),
        ({"labels": np.arange(14)}, ["15 images and 14 labels"]),
        ({"labels": np.zeros((15, 2), int)}, ["labels is int64 [15, 2]"]),
        ({"labels": None}, ["no column of the labels"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, words):
    (tmp_path / "copy").mkdir()
    given = {key: value for key, value in {**arrays(), **changes}.items() if value is not None}
    np.savez(tmp_path / "copy/a.npz", **given)
    refused(tmp_path / "copy", tmp_path, *words)


@pytest.mark.parametrize("cut", ["leaves.npz", "leaves.parquet"])
def test_a_file_that_was_cut_off_is_refused_by_name(tmp_path, cut):
    path = packed(tmp_path / "a") if cut.endswith("npz") else parquet_of_paths(tmp_path / "a") / cut
    path.write_bytes(path.read_bytes()[:-700])
    refused(path if cut.endswith("npz") else path.parent, tmp_path, cut)


def test_an_empty_folder_is_refused_with_what_is_read(tmp_path):
    copies.write(tmp_path / "copy", {"notes.txt": "nothing"})
    refused(tmp_path / "copy", tmp_path, "folders named after classes", "notes.txt")


def test_a_missing_pyarrow_is_said_with_the_remedy(tmp_path, monkeypatch):
    copies.write(tmp_path / "copy", {"a.parquet": b"PAR1"})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(tmp_path / "copy", tmp_path, "pip install pyarrow")


def test_words_for_splits():
    assert [split_of(word) for word in ("Train", "val", "novel", "leaves")] == [
        "train",
        "validation",
        "test",
        None,
    ]


# --- the command, and an experiment on it


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["mini-imagnet", "copy"], "did you mean 'mini-imagenet'"),
        (["sine", "copy"], "a family of metalearn-benchmarks has this name"),
        (["../leaves", "copy"], "use letters, digits"),
        (["leaves", "copy", "--split", "chen"], "no published split"),
        (["cub", "copy", "--shares", "1/1/1"], "split as published"),
        (["leaves", "copy", "--shares", "1/1"], "is no A/B/C"),
        (["leaves", "nowhere"], "no such file or folder"),
    ],
)
def test_the_command_refuses_in_one_line(metalearn, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path / "home"))
    (tmp_path / "copy").mkdir()
    code, _, err = metalearn("data", "prepare", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert told in err
    assert not (tmp_path / "home").exists()


EXPERIMENT = """
extends = "glyphs"
title = "Leaves"
methods = ["maml"]
also_tested_on = []
axes = { family = [], shots = [] }
where = []
[family]
name = "leaves"
options = { ways = 2, shots = 1, queries = 2 }
[learner]
options = { width = 4 }
[scale.smoke]
test_tasks = 3
settings = { tasks = 4, steps = 1, meta_batch = 2, validation_interval = 4, validation_tasks = 2 }
"""


def test_what_was_prepared_is_a_family_of_any_experiment(metalearn, tmp_path, monkeypatch):
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path / "home"))
    files = {
        f"{part}/{number}/{index}.png": copies.encoded(copies.photo(50 * number + index), "PNG")
        for number, part in enumerate(("train", "train", "val", "val", "test", "test"))
        for index in range(PER_CLASS)
    }
    code, out, err = metalearn(
        "data", "prepare", "leaves", copies.write(tmp_path / "copy", files), "--size", 16
    )
    assert code == 0
    assert "18 images of 6 classes (2/2/2 by own), 16x16x3" in out
    assert "train: 2 classes, the smallest (0) of 3 images" in err
    fresh = Registry()  # as the next command reads what there is
    monkeypatch.setattr(registry, "default_registry", lambda: fresh)
    (tmp_path / "mine.toml").write_text(EXPERIMENT)
    (cell,) = cells(*find_experiment(str(tmp_path / "mine.toml")), "smoke", Overrides(seeds=1))
    run_cells([cell], tmp_path / "out", [])
    result = json.loads((tmp_path / "out" / cell.folder / "result.json").read_text())
    assert len(result["scores"]["leaves"]) == 3
    assert result["data"]["leaves"] == ImageStore.open(tmp_path / "home/leaves/16").manifest.sha256


@pytest.mark.nightly
def test_the_page_runs_from_pictures_to_a_table(tmp_path):
    """The next command knows what was prepared: each is a process of its own, as for a user."""
    page = (Path(__file__).parents[4] / "docs/from-your-data.md").read_text("utf-8")
    own = {**os.environ, "METALEARN_DATA": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    told = ""
    for language, code in re.findall(r"^```(\w+)\n(.*?)^```$", page, re.M | re.S):
        if language == "toml":
            (tmp_path / "leaves.toml").write_text(code)
            continue
        words = (
            ["-c", code] if language == "python" else ["-m", "metalearn_benchmarks", *shlex.split(code)[2:]]
        )
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=own, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        told += done.stdout + done.stderr
    assert "120 images of 12 classes (6/3/3 by seed-0), 28x28x3" in told
    assert "train: 6 classes, the smallest (kind-" in told
    assert "MAML" in told
    runs = list((tmp_path / "results/leaves").rglob("result.json"))
    assert len(runs) == 6  # three methods, 1 and 5 shots
    assert json.loads(runs[0].read_text())["data"].keys() == {"leaves"}
