"""Stores that were changed after they were written are found; those of earlier versions are told apart."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os

import image_copies as copies
import numpy as np
import pytest

from metalearn_benchmarks.tasks.images import datasets
from metalearn_benchmarks.tasks.images.families import PreparedDataset
from metalearn_benchmarks.tasks.images.store.image_store import ImageStore
from metalearn_benchmarks.tasks.images.store.locations import store_folder
from metalearn_core.errors import UsageError

PHOTOS = copies.photos()
NAME = "mini-imagenet"


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "datasets", lambda: {NAME: copies.MINI})
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path / "home"))
    copies.write(tmp_path / "copy", copies.ravi_files(PHOTOS))
    copies.ready(copies.MINI, tmp_path / "copy", store_folder(NAME, 12))
    return store_folder(NAME, 12)


def change(folder, edit):
    path = folder / "manifest.json"
    plain = json.loads(path.read_text())
    edit(plain)
    path.write_text(json.dumps(plain))


def swap(plain, *keys):
    one, other = plain["classes"][0], plain["classes"][1]
    for key in keys:
        one[key], other[key] = other[key], one[key]


CHANGES = {
    "a first row": lambda plain: plain["classes"][1].update(first=0),
    "a last first row": lambda plain: plain["classes"][-1].update(first=11),
    "rows of two classes": lambda plain: swap(plain, "first"),
    "names of two classes": lambda plain: swap(plain, "name"),
    "the order of two classes": lambda plain: plain["classes"].reverse(),
    "a count": lambda plain: plain["classes"][0].update(count=2),
    "a negative count": lambda plain: plain["classes"][0].update(count=-3),
    "the source": lambda plain: plain["source"].update(form="another"),
    "the tally": lambda plain: plain.update(tally={"converted from L": 3}),
    "its checksum": lambda plain: plain.update(checksum="0" * 64),
    "the checksum of pixels": lambda plain: plain.update(sha256="0" * 64),
    "a checksum that is a path": lambda plain: plain.update(sha256="/../../x"),
    "the size": lambda plain: plain.update(size=13),
    "a split": lambda plain: plain["classes"][0].update(split="nowhere"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_manifest_that_was_changed_is_found(metalearn, folder, what):
    change(folder, CHANGES[what])
    with pytest.raises(UsageError):
        ImageStore.open(folder)
    code, out, err = metalearn("data", "verify", NAME)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert metalearn("data", "prepare", NAME, folder.parents[2] / "copy")[0] == 0
    assert metalearn("data", "verify", NAME)[0] == 0


def earlier(folder, **more):
    """As earlier versions wrote it."""

    def edit(plain):
        for key in ("checksum", "examples"):
            del plain[key]
        del plain["source"]["convert"]
        plain.update(more)

    change(folder, edit)


def test_a_store_of_an_earlier_version_is_read_and_told_apart(metalearn, folder):
    pixels = np.array(ImageStore.open(folder).pixels)
    earlier(folder)
    np.testing.assert_array_equal(ImageStore.open(folder).pixels, pixels)
    code, out, err = metalearn("data", "verify", NAME)
    assert (code, out[:5], err.count("\n")) == (0, "whole", 1)
    assert "prepared by an earlier version: no checksum says which rows belong to which class" in err
    change(folder, CHANGES["a first row"])
    code, out, err = metalearn("data", "verify", NAME)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "n00000002 begins at row 0 and has 3 images, expected row 3" in err


@pytest.mark.parametrize(
    ("mode", "lost"), [("RGBA", "lost what was transparent"), ("I;16", "made 16-bit grey white")]
)
def test_what_an_earlier_version_may_have_lost_is_told_where_it_is_used(metalearn, folder, mode, lost):
    earlier(folder, tally={f"converted from {mode}": 2, "converted from L": 1})
    told = f"2 images were converted from {mode} by an earlier version, which {lost}"
    with pytest.warns(UserWarning, match=told) as caught:
        PreparedDataset(NAME, NAME)(12)
    assert len(caught) == 1
    code, _, err = metalearn("data", "verify", NAME)
    assert (code, err.count("\n")) == (0, 2)
    assert told in err
    assert metalearn("data", "prepare", NAME, folder.parents[2] / "copy")[1].startswith("prepared: ")
    assert metalearn("data", "verify", NAME)[2] == ""


def npy(header, version=b"\x01\x00", data=b""):
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + data


def described(kind="|u1", fortran=False, shape="(15, 12, 12, 3)", data=b""):
    text = f"{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': {shape}}}\n"
    return npy(text.encode(), data=data)


HEADERS = {
    "empty": b"", "half a header": b"\x93NUMPY\x01\x00", "zeros": bytes(1000),
    "a zip archive": b"PK\x03\x04" + bytes(100), "a pickle": b"\x80\x04]." + bytes(100),
    "objects": described("|O"), "another order": described(fortran=True, data=bytes(6480)),
    "a negative axis": described(shape="(-15, 12, 12)"), "an enormous axis": described(shape="(1 << 90,)"),
    "a large axis": described(shape=f"({1 << 62},)"), "a header that is nested": npy(b"(" * 8191 + b"\n"),
    "a header of gigabytes": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100),
}  # fmt: skip


@pytest.mark.parametrize("what", HEADERS)
def test_a_file_of_pixels_that_is_none_is_named_as_damaged(metalearn, folder, what):
    (path,) = folder.glob("pixels-*.npy")
    path.write_bytes(HEADERS[what])
    code, out, err = metalearn("data", "verify", NAME)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{path}: " in err
    assert "prepare the dataset again" in err
    assert metalearn("data", "list")[0] == 0
    assert metalearn("data", "prepare", NAME, folder.parents[2] / "copy")[0] == 0


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "1" * 5_000, "null", "[]", "{}", "\ud800"]
)
def test_a_manifest_that_is_none(metalearn, folder, text):
    (folder / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    code, out, err = metalearn("data", "verify", NAME)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert metalearn("data", "list")[0] == 0


@pytest.mark.parametrize(
    "edit",
    [
        lambda state: state.update(sha256="x/../../../victim"), lambda state: state.update(done=[1]),
        lambda state: state.update(done={"nobody": {}}), lambda state: state.update(examples=3),
        lambda state: state.update(done={"n00000001": {"a": "b"}}), lambda state: state.clear(),
    ],
)  # fmt: skip
def test_what_is_kept_of_a_preparation_is_not_believed(monkeypatch, folder, edit):
    """A state that was changed makes it begin anew, and nothing outside of the folder is touched."""
    victim = folder.parent / "victim.npy"
    victim.write_bytes(b"mine")
    (folder / "pixels-x").mkdir()
    manifest = ImageStore.open(folder).manifest
    sha256, digest = manifest.sha256, hashlib.sha256(manifest.plan.as_json().encode()).hexdigest()
    plan = {"plan": digest, "done": {}, "sha256": "", "examples": {}}
    edit(plan)
    (folder / "preparing.json").write_text(json.dumps(plan))
    (folder / "preparing.npy").symlink_to(victim)
    (folder / "manifest.json").unlink()
    copies.ready(copies.MINI, folder.parents[2] / "copy", folder)
    assert victim.read_bytes() == b"mine"
    assert ImageStore.open(folder).manifest.sha256 == sha256


def test_a_folder_without_locks_is_one_line(metalearn, folder, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    copies.write(
        folder.parents[2] / "copy", {"images/n0000000100000001.jpg": copies.encoded(copies.photo(9))}
    )
    monkeypatch.setattr(fcntl, "flock", refuse)
    code, out, err = metalearn("data", "prepare", NAME, folder.parents[2] / "copy")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "cannot be locked" in err
