"""Forms that people have of known datasets, each small and as published: what is read is what is in it."""

from __future__ import annotations

import csv
import io
import json
import pickle

import attrs
import image_copies as copies
import numpy as np
import pytest
from PIL import Image

from metalearn_benchmarks.tasks.images.own.preparation import prepare_own
from metalearn_benchmarks.tasks.images.own.splitting import Shares
from metalearn_core.errors import UsageError

PARTS = {"train": ("lynx", "mole"), "val": ("newt",), "test": ("otter", "pika")}
PICTURES = {
    which: [copies.photo(31 * at + k, (12, 12)) for k in range(3)]
    for at, which in enumerate(which for classes in PARTS.values() for which in classes)
}
SPLITS = {"train": "train", "val": "validation", "test": "test"}


def made(path, tmp_path):
    return prepare_own("mine", path, tmp_path / "home/mine/12", 12, Shares(), lambda *_: None)


def require(store, names=None):
    """Every picture is there, under its class, in its split; `names` are the classes' names in the store."""
    copies.require_pictures(store, {(names or {}).get(w, w): found for w, found in PICTURES.items()})
    found = {each.name: each.split for each in store.manifest.classes}
    for part, classes in PARTS.items():
        for which in classes:
            assert found[(names or {}).get(which, which)] == SPLITS[part]


def rows_of(part):
    """The pictures of a split and the number of the class of each, from 0 in every split."""
    pixels = [np.asarray(picture) for which in PARTS[part] for picture in PICTURES[which]]
    return np.stack(pixels), [number for number, which in enumerate(PARTS[part]) for _ in PICTURES[which]]


def write_pickle(path, content, protocol=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))


def tiered(folder):
    """tieredImageNet of few-shot-ssl-public: PNG files as arrays of bytes, and labels with their names."""
    for part in PARTS:
        _, numbers = rows_of(part)
        files = [
            np.frombuffer(copies.encoded(picture, "PNG"), np.uint8)[:, None]
            for which in PARTS[part]
            for picture in PICTURES[which]
        ]
        write_pickle(folder / f"{part}_images_png.pkl", files)
        labels = {
            "label_specific": np.array(numbers), "label_specific_str": list(PARTS[part]),
            "label_general": np.zeros(len(numbers), int), "label_general_str": ["animal"],
        }  # fmt: skip
        write_pickle(folder / f"{part}_labels.pkl", labels)
    return folder


def test_tiered_imagenet(tmp_path):
    found = made(tiered(tmp_path / "copy"), tmp_path).store
    require(found)
    assert "tieredImageNet" in found.manifest.source["form"]


@pytest.mark.parametrize("keys", [str, str.encode])
def test_metaoptnets_cifar_fs_and_fc100(tmp_path, keys):
    """`data` and `labels` alone; the numbers of the classes may begin anew in each file."""
    for part in PARTS:
        pixels, numbers = rows_of(part)
        write_pickle(
            tmp_path / f"copy/CIFAR_FS_{part}.pickle", {keys("data"): pixels, keys("labels"): numbers}
        )
    names = {which: f"{part}-{number}" for part in PARTS for number, which in enumerate(PARTS[part])}
    require(made(tmp_path / "copy", tmp_path).store, names)


def test_meta_album(tmp_path):
    """labels.csv with FILE_NAME, CATEGORY and SUPER_CATEGORY; images/; info.json. It has no splits."""
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(["FILE_NAME", "CATEGORY", "SUPER_CATEGORY"])
    files = {}
    for which, found in PICTURES.items():
        for k, picture in enumerate(found):
            table.writerow([f"{which}_{k}.png", which, "animal"])
            files[f"images/{which}_{k}.png"] = copies.encoded(picture, "PNG")
    info = json.dumps({"dataset_name": "ANM", "image_column_name": "FILE_NAME"})
    found = made(
        copies.write(tmp_path / "copy", {**files, "labels.csv": rows.getvalue(), "info.json": info}), tmp_path
    )
    copies.require_pictures(found.store, PICTURES)
    assert found.store.manifest.split == "seed-0"


def test_feats_lists_of_cub(tmp_path):
    """split/train.csv, val.csv, test.csv with the bare name of an image; images in folders of classes."""
    files = {}
    for part, classes in PARTS.items():
        lines = ["filename,label"]
        for which in classes:
            for k, picture in enumerate(PICTURES[which]):
                files[f"images/{which}/{which}_{k}.png"] = copies.encoded(picture, "PNG")
                lines.append(f"{which}_{k}.png,{which}")
        files[f"split/{part}.csv"] = "\n".join(lines) + "\n"
    require(made(copies.write(tmp_path / "copy", files), tmp_path).store)


def parquet(folder, names, parts):
    """Parquet as `datasets` has it, of pictures by class."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    (folder / "data").mkdir(parents=True)
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    for part, pictures in parts.items():
        rows = [(which, picture) for which, found in pictures.items() for picture in found]
        table = pyarrow.table(
            {
                "image": [{"bytes": copies.encoded(picture, "PNG"), "path": None} for _, picture in rows],
                "label": [list(names).index(which) for which, _ in rows],
            }
        )
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        files.write_table(table, folder / f"data/{part}-00000-of-00001.parquet")
    return folder


def test_parquet_of_mini_imagenet_under_its_published_split(tmp_path):
    """Images of each class lie in every file, as in timm's: the class decides, after the published list."""
    photos = copies.photos()
    parts = {
        "train": {which: found[:2] for which, found in photos.items()},
        "test": {which: found[2:] for which, found in photos.items()},
    }
    path = parquet(tmp_path / "copy", photos, parts)
    store = copies.ready(copies.MINI, path, tmp_path / "out").store
    counts = {each.name: (each.split, each.count) for each in store.manifest.classes}
    assert counts == {which: (part, 3) for which, part in copies.RAVI.classes.items()}
    for which, found in copies.held(store).items():
        wanted = {copies.resized(picture, 12).tobytes() for picture in photos[which]}
        assert {pixels.tobytes() for pixels in found} == wanted


def test_omniglot_in_an_npz_with_the_names_of_its_characters(tmp_path):
    drawings = copies.letters()
    (tmp_path / "copy").mkdir()
    rows = [(which, np.asarray(drawing)) for which, found in drawings.items() for drawing in found]
    np.savez(
        tmp_path / "copy/omniglot.npz", images=np.stack([x for _, x in rows]), labels=[w for w, _ in rows]
    )
    dataset = attrs.evolve(copies.OMNIGLOT, closed=False)
    store = copies.ready(dataset, tmp_path / "copy", tmp_path / "out", split="turned").store
    assert store.manifest.images == 4 * 6
    for which, found in drawings.items():
        for turn in range(4):
            wanted = np.rot90(np.stack([copies.resized(one, 14, "L") for one in found]), turn, axes=(1, 2))
            np.testing.assert_array_equal(copies.held(store)[f"{which}/rot{90 * turn:03}"], wanted)


# --- broken ones


def test_tiered_without_its_labels_is_refused(tmp_path):
    copy = tiered(tmp_path / "copy")
    (copy / "val_labels.pkl").unlink()
    with pytest.raises(UsageError, match=r"no val_labels\.pkl beside it"):
        made(copy, tmp_path)


def test_tiered_with_a_broken_image_leaves_it_out_and_says_so(tmp_path):
    copy = tiered(tmp_path / "copy")
    files = pickle.loads((copy / "train_images_png.pkl").read_bytes())
    files[1] = files[1][:60]
    write_pickle(copy / "train_images_png.pkl", files)
    found = made(copy, tmp_path)
    assert found.store.manifest.images == 14
    assert any("1 images cannot be decoded" in note and "row 1" in note for note in found.notes)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"data": np.zeros((2, 4, 4, 3), np.uint8), "labels": [0]}, "2 images and 1 labels"),
        ({"data": np.zeros((2, 4, 4, 3)), "labels": [0, 1]}, "data is float64"),
        ({"data": np.zeros((2, 4, 4, 3), np.uint8), "labels": ["a", "b"]}, "no list of integers"),
        ({"pixels": 3}, "its keys are pixels"),
    ],
)
def test_pickles_that_do_not_fit_are_refused(tmp_path, content, told):
    write_pickle(tmp_path / "copy/CIFAR_FS_train.pickle", content)
    with pytest.raises(UsageError) as caught:
        made(tmp_path / "copy", tmp_path)
    assert told in str(caught.value)


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(ran), "w"))

    for name in ("train_images_png.pkl", "CIFAR_FS_train.pickle"):
        write_pickle(tmp_path / f"{name}-copy/{name}", [Evil()] if name[0] == "t" else {"data": Evil()})
        write_pickle(tmp_path / f"{name}-copy/train_labels.pkl", {})
        with pytest.raises(UsageError, match="refused"):
            made(tmp_path / f"{name}-copy", tmp_path)
    assert not ran.exists()


def test_names_of_another_dataset_are_told(tmp_path):
    photos = {f"x{which}": found for which, found in copies.photos().items()}
    path = parquet(tmp_path / "copy", photos, {"train": photos})
    with pytest.raises(UsageError, match="have other names than those of miniImageNet"):
        copies.ready(copies.MINI, path, tmp_path / "out")


def test_grey_arrays_stay_grey(tmp_path):
    pixels = np.stack([np.asarray(one.convert("L")) for found in PICTURES.values() for one in found])
    labels = [which for which, found in PICTURES.items() for _ in found]
    (tmp_path / "copy").mkdir()
    np.savez(tmp_path / "copy/a.npz", images=pixels, labels=labels)
    store = made(tmp_path / "copy", tmp_path).store
    assert store.manifest.channels == 1
    first = Image.fromarray(copies.held(store)["lynx"][0, :, :, 0])
    assert first.tobytes() == PICTURES["lynx"][0].convert("L").tobytes()
