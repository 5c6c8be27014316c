"""What lies beside a whole dataset does not stand in its way; what is no dataset is refused by what it is."""

from __future__ import annotations

import collections
import os
import pickle

import image_copies as copies
import pytest
from image_copies import as_jpeg, ready, require_pictures

from metalearn_core.errors import UsageError

PHOTOS = copies.photos()
JPEGS = {which: [as_jpeg(picture) for picture in found] for which, found in PHOTOS.items()}
STORED = {which: [picture.resize((12, 12), 3) for picture in found] for which, found in PHOTOS.items()}
WHOLE_PICKLE = pickle.dumps(copies.cache(PHOTOS))
BOOKKEEPING = {"labels_to_indices": collections.defaultdict(list, {"n00000001": [0, 1]}), "labels": [0, 1]}
FOREIGN = {
    "a truncated pickle": ("other.pkl", WHOLE_PICKLE[:500]),
    "bookkeeping with a defaultdict": ("mini-imagenet-bookkeeping-train.pkl", pickle.dumps(BOOKKEEPING)),
    "a pickle of a list": ("list.pkl", pickle.dumps([1, 2])),
    "a pickle that would run something": ("evil.pkl", pickle.dumps({"a": os.system})),
    "a pickle of another dataset": ("cub.pkl", pickle.dumps(copies.cache({"x": PHOTOS["n00000001"]}))),
    "predictions": ("a.csv", "filename,label\nx.jpg,n00000001\n"),
    "a list of other classes": ("a.csv", "filename,label\nx.jpg,7\n"),
    "half a list": ("a.csv", "filename,label\nx.jpg\n"),
    "another table": ("a.csv", "epoch,loss\n1,2.5\n"),
    "a table that is no text": ("a.csv", b"filename,label\n\xff\xfe\0,\0\n"),
    "bytes": ("a.csv", bytes(range(256)) * 4),
    "a truncated archive": ("a.tgz", b"\x1f\x8b\x08\x00rest"),
    "a Parquet file": ("a.parquet", b"PAR1" + bytes(100)),
    "an image of one class": ("n00000001/x.jpg", copies.encoded(copies.photo(3))),
    "lists of birds": ("classes.txt", "1 001.Auk\n"),
}


@pytest.mark.parametrize("form", ["pickle", "lists", "folders", "archive"])
@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_file_beside_a_whole_dataset(tmp_path, form, what):
    name, data = FOREIGN[what]
    if form == "pickle":
        files, expected = {"cache.pkl": WHOLE_PICKLE}, STORED
    elif form == "folders":
        files = {
            f"{which}/{k}.png": copies.encoded(picture.resize((12, 12), 3), "PNG")
            for which, found in PHOTOS.items()
            for k, picture in enumerate(found)
        }
        expected = STORED
    else:
        files, expected = copies.ravi_files(PHOTOS), JPEGS
    if form == "folders" and name.endswith(".jpg"):
        name = "n00000009/x.jpg"  # a fourth image of a class would be of the dataset
    copies.write(tmp_path / "copy", {name: data})
    if form == "archive":
        copies.tarred(tmp_path / "copy" / "images.bin", files)
    else:
        copies.write(tmp_path / "copy", files)
    made = ready(copies.MINI, tmp_path / "copy", tmp_path / "out")
    require_pictures(made.store, expected)
    assert all(note.startswith("left out: ") and "\n" not in note for note in made.notes)
    if form == "pickle" and what in ("a truncated pickle", "a pickle of a list"):
        assert name in made.notes[0]


def test_many_foreign_files_are_counted(tmp_path):
    files = {f"{k}.pkl": pickle.dumps([k]) for k in range(9)} | {"cache.pkl": WHOLE_PICKLE}
    made = ready(copies.MINI, copies.write(tmp_path / "copy", files), tmp_path / "out")
    assert len(made.notes) == 4
    assert made.notes[-1] == "left out: 6 more files"


def test_a_list_of_all_images_beside_those_of_the_splits(tmp_path):
    files = copies.ravi_files(PHOTOS)
    rows = [line for name, text in files.items() if name.endswith(".csv") for line in text.splitlines()[1:]]
    files["all.csv"] = "\n".join(["filename,label", *rows])
    made = ready(copies.MINI, copies.write(tmp_path / "copy", files), tmp_path / "out")
    require_pictures(made.store, JPEGS)
    assert len([note for note in made.notes if "is taken for a row before it" in note]) == 3


@pytest.mark.parametrize("damage", ["a list", "a pickle"])
def test_a_damaged_file_of_the_dataset_itself_is_the_reason(tmp_path, damage):
    if damage == "a list":
        files, told = copies.ravi_files(PHOTOS), "val.csv: no CSV with filename,label in every row"
        files["val.csv"] = "filename,label\nx\n"
    else:
        parts = {"a.pkl": copies.TRAIN, "b.pkl": copies.VALIDATION + copies.TEST}
        files = {n: pickle.dumps(copies.cache({w: PHOTOS[w] for w in c})) for n, c in parts.items()}
        files["b.pkl"], told = files["b.pkl"][:900], "b.pkl: no whole pickle (ValueError: it ends too early)"
    with pytest.raises(UsageError) as caught:
        ready(copies.MINI, copies.write(tmp_path / "copy", files), tmp_path / "out")
    assert told in str(caught.value)


# --- forms that people have


def test_lists_written_on_windows(tmp_path):
    files = copies.ravi_files(PHOTOS)
    for name in ("train.csv", "val.csv", "test.csv"):
        header, *rows = files[name].splitlines()
        files[name] = "\ufeff" + "\r\n".join([header, *[f"images\\{row}" for row in rows]]) + "\r\n"
    require_pictures(ready(copies.MINI, copies.write(tmp_path / "a", files), tmp_path / "out").store, JPEGS)
    files["train.csv"] = files["train.csv"].replace("images\\", "..\\..\\")
    with pytest.raises(UsageError, match="which leads out of the folder: refused"):
        ready(copies.MINI, copies.write(tmp_path / "b", files), tmp_path / "out-b")


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("filename, label, concept_label", "{image}, {which}, 3"), (",filename,label", "7,{image},{which}"),
        ('"filename","label"', '"{image}","{which}"'), ("label,filename", "{which},{image}"),
        ("image_name,class_name", "{image},{which}"),
    ],
)  # fmt: skip
def test_lists_with_other_columns_too(tmp_path, header, row):
    files = copies.ravi_files(PHOTOS)
    for name in ("train.csv", "val.csv", "test.csv"):
        pairs = [line.split(",") for line in files[name].splitlines()[1:]]
        rows = [row.format(image=image, which=which) for image, which in pairs]
        files[name] = "\n".join([header, *rows])
    require_pictures(ready(copies.MINI, copies.write(tmp_path / "a", files), tmp_path / "out").store, JPEGS)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_cifar_100_that_was_read_with_encoding_bytes_and_written_again(tmp_path, protocol):
    def as_bytes(what):
        if isinstance(what, str):
            return what.encode()
        if isinstance(what, list):
            return [as_bytes(each) for each in what]
        return {as_bytes(k): as_bytes(v) for k, v in what.items()} if isinstance(what, dict) else what

    files = copies.cifar_files(copies.things(), lambda content: pickle.dumps(as_bytes(content), protocol))
    require_pictures(
        ready(copies.CIFAR, copies.write(tmp_path / "a", files), tmp_path / "out").store, copies.things()
    )


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            {"train.pickle": pickle.dumps({"data": copies.stacked([copies.photo(1)]), "labels": [3]})},
            "without the names of their classes, as MetaOptNet's CIFAR_FS and FC100",
        ),
        ({"train_images_png.pkl": pickle.dumps([b"x", b"y"])}, "it holds a list of 2 objects"),
        (
            {"train_labels.pkl": pickle.dumps({"label_specific": [1], "label_general": [2]})},
            "labels as tieredImageNet has them, which is prepared under a name of your own; its keys are",
        ),
        (
            {"labels.csv": "FILE_NAME,CATEGORY,SUPER_CATEGORY\n1.jpg,a,b\n", "images/1.jpg": "x"},
            "found 1 images, such as images/1.jpg, in no folder named after a class; labels.csv with the"
            " columns FILE_NAME,CATEGORY,SUPER_CATEGORY",
        ),
        ({"train.parquet": b"PAR1" + bytes(30)}, "train.parquet: "),
        ({"a.h5": b"\x89HDF\r\n\x1a\n" + bytes(30)}, "found an HDF5 file, a.h5"),
        ({"readme.md": "hello"}, "found 1 other files, such as readme.md"),
        ({}, "found no file at all"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_with_what_was_seen(tmp_path, files, told):
    (tmp_path / "copy").mkdir()
    with pytest.raises(UsageError) as caught:
        ready(copies.MINI, copies.write(tmp_path / "copy", files), tmp_path / "out")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path):
    path = copies.write(tmp_path / "copy", copies.ravi_files(PHOTOS))
    os.mkfifo(path / "more.csv")
    require_pictures(ready(copies.MINI, path, tmp_path / "out").store, JPEGS)
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        ready(copies.MINI, path / "more.csv", tmp_path / "out")
