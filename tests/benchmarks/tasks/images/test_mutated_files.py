"""Files of every kind with bytes changed: the command keeps its promise, and no pixel changes in silence.

The promise: exit code 0, 1, 2 or 130; after a mistake one line and no traceback; nothing is touched outside
of the folder of prepared images; what is prepared is what an independent reading of the mutated file gives.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import tempfile
import warnings
from pathlib import Path

import hypothesis.strategies as st
import image_copies as copies
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from PIL import Image

from metalearn_benchmarks.cli import app
from metalearn_benchmarks.tasks.images import datasets
from metalearn_benchmarks.tasks.images.store.image_store import ImageStore

PHOTOS = copies.photos()
NAME = "mini-imagenet"
CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
QUICK = settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=CHECKS)
LONG = settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=CHECKS)


def mutated(draw, data):
    """Some bytes are changed, cut out, doubled, or replaced by what is often wrong."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(found) - 1, 0)))
        how = draw(st.sampled_from(["byte", "bit", "cut", "double", "truncate", "number"]))
        if how == "byte":
            found[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif how == "bit" and found:
            found[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del found[at : at + draw(st.integers(1, 40))]
        elif how == "double":
            found[at:at] = found[at : at + draw(st.integers(1, 40))]
        elif how == "truncate" and draw(st.booleans()):
            del found[at:]
        elif how == "number":
            found[at : at + 4] = draw(
                st.sampled_from([b"\xff" * 4, bytes(4), b"\0\0\0\x7f", b"\xff\xff\0\0"])
            )
    return bytes(found)


@contextlib.contextmanager
def place():
    """A folder with a copy, a home, and files that nobody may touch."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setattr(datasets, "datasets", lambda: {NAME: copies.MINI})
        patch.setenv("METALEARN_DATA", str(folder / "home"))
        patch.chdir(folder)
        yield folder


def outside(folder):
    """Everything in a folder but the prepared images."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "home" not in path.relative_to(folder).parts
    }


def command(folder, *arguments):
    """The exit code, after what must hold of every command was required."""
    before = outside(folder)
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr("sys.argv", ["metalearn", "data", *map(str, arguments)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                app.main()
            except SystemExit as end:
                code = int(end.code or 0)
    said = err.getvalue()
    assert code in (0, 1, 2, 130), said
    assert "Traceback" not in said
    if code:
        assert said.count("\n") == 1
        assert said.startswith("metalearn: ")
    assert outside(folder) == before
    return code


def prepare(folder):
    """Prepare what lies there; the store, or None where it was refused."""
    code = command(folder, "prepare", NAME, folder / "copy")
    store = folder / "home" / NAME / "12"
    if code:
        assert not (store / "manifest.json").exists()
        return None
    assert command(folder, "verify", NAME) == 0
    return ImageStore.open(store)


def seen(data):
    """What Pillow alone makes of a file on white: the reference."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = Image.open(io.BytesIO(data))
        orientation = picture.getexif().get(274, 1)
        assert orientation == 1
        picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB").resize((12, 12), 3))


FORMS = ["PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM"]
MODES = {"PNG": ["RGB", "L", "RGBA", "P", "1", "LA"], "GIF": ["P"], "WEBP": ["RGB", "RGBA"]}


def image_keeps_the_promise(data):
    form = data.draw(st.sampled_from(FORMS))
    mode = data.draw(st.sampled_from(MODES.get(form, ["RGB", "L"])))
    whole = copies.encoded(copies.photo(data.draw(st.integers(0, 5)), (16, 12)).convert(mode), form)
    with place() as folder:
        image = mutated(data.draw, whole)
        files = {
            f"{which}/{k}.png": copies.encoded(p, "PNG")
            for which, f in PHOTOS.items()
            for k, p in enumerate(f)
        }
        copies.write(folder / "copy", files | {"n00000003/1.png": image})
        store = prepare(folder)
        if store is not None:
            np.testing.assert_array_equal(copies.held(store)["n00000003"][1], seen(image))
            pictures = {which: [p.resize((12, 12), 3) for p in found] for which, found in PHOTOS.items()}
            for which, expected in pictures.items():
                for k, picture in enumerate(expected):
                    if (which, k) != ("n00000003", 1):
                        np.testing.assert_array_equal(copies.held(store)[which][k], np.asarray(picture))


def pickle_keeps_the_promise(data):
    protocol = data.draw(st.integers(0, 5))
    make = data.draw(st.sampled_from([copies.cache, copies.category]))
    whole = pickle.dumps(make(PHOTOS), protocol)
    pixels = np.concatenate([copies.stacked(found) for found in PHOTOS.values()])
    with place() as folder:
        start = data.draw(st.integers(0, len(whole) // 600)) * 600  # most of it is pixels
        changed = whole[:start] + mutated(data.draw, whole[start : start + 300]) + whole[start + 300 :]
        copies.write(folder / "copy", {"cache.pkl": changed})
        store = prepare(folder)
        if store is not None:
            rows, found = np.concatenate([copies.held(store)[which] for which in PHOTOS]), {}
            # Python's own reader, the one without a table as large as a number in the file
            with contextlib.suppress(pickle.UnpicklingError):  # frames say how much to read at once, not what
                found = pickle._Unpickler(io.BytesIO(changed), encoding="latin1").load()
            if not found:
                return
            key = "image_data" if make is copies.cache else "data"
            read = found[key]
            if make is copies.cache:
                order = [row for which in PHOTOS for row in found["class_dict"][which]]
            else:
                labels = np.asarray(found["labels"])
                order = [r for w in PHOTOS for r in np.flatnonzero(labels == found["catname2label"][w])]
            if read.shape == pixels.shape:
                np.testing.assert_array_equal(rows, read[order])


def store_keeps_the_promise(data):
    """A change of a store is found by `verify`, or it is none."""
    with place() as folder:
        copies.write(folder / "copy", copies.ravi_files(PHOTOS))
        store = prepare(folder)
        pixels, classes = np.array(store.pixels), store.manifest.classes
        home = store.folder
        del store
        name = data.draw(st.sampled_from(["manifest.json", "pixels", "preparing.json"]))
        (path,) = home.glob("pixels-*.npy") if name == "pixels" else [home / name]
        if name == "preparing.json":
            path.write_text(json.dumps({"plan": "", "done": {}, "sha256": "", "examples": {}}))
        changed = mutated(data.draw, path.read_bytes())
        path.write_bytes(changed)
        if command(folder, "verify", NAME) == 0:
            found = ImageStore.open(home)
            np.testing.assert_array_equal(found.pixels, pixels)
            assert found.manifest.classes == classes
            del found
        command(folder, "list")
        assert command(folder, "prepare", NAME, folder / "copy") == 0
        np.testing.assert_array_equal(ImageStore.open(home).pixels, pixels)


def copy_keeps_the_promise(data):
    """Lists and archives: what is prepared in the end is whole, and every image is the one that was named."""
    files = copies.ravi_files(PHOTOS)
    jpegs = {
        hashlib.sha256(copies.resized(copies.as_jpeg(p), 12).tobytes()).digest()
        for f in PHOTOS.values()
        for p in f
    }
    with place() as folder:
        kind = data.draw(st.sampled_from(["train.csv", "tar", "zip"]))
        if kind == "train.csv":
            files[kind] = mutated(data.draw, files[kind].encode())
            copies.write(folder / "copy", files)
        else:
            make = copies.tarred if kind == "tar" else copies.zipped
            path = make(folder / "copy", files)
            path.write_bytes(mutated(data.draw, path.read_bytes()))
        store = prepare(folder)
        if (
            store is not None and kind != "tar"
        ):  # tar has no checksum of what is in it, but gzip has one of all
            for pixels in store.pixels:
                assert hashlib.sha256(pixels.tobytes()).digest() in jpegs


PROMISES = {
    "images": image_keeps_the_promise, "pickles": pickle_keeps_the_promise,
    "stores": store_keeps_the_promise, "copies": copy_keeps_the_promise,
}  # fmt: skip


@pytest.mark.parametrize("of", PROMISES)
@seed(20)
@QUICK
@given(data=st.data())
def test_some_mutated_files(of, data):
    PROMISES[of](data)


@pytest.mark.nightly
@pytest.mark.parametrize("of", PROMISES)
@seed(400)
@LONG
@given(data=st.data())
def test_hundreds_of_mutated_files(of, data):
    PROMISES[of](data)
