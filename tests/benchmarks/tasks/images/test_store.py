"""The form on disk: it is resumed, changes at one moment, has one writer, and no half is taken for whole."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from contextlib import suppress

import numpy as np
import pytest

from metalearn_benchmarks.tasks.images.store import writer as writer_module
from metalearn_benchmarks.tasks.images.store.image_store import ImageStore
from metalearn_benchmarks.tasks.images.store.manifest import Manifest
from metalearn_benchmarks.tasks.images.store.writer import StoreWriter
from metalearn_core.errors import UsageError, WriteError

COUNTS = [("a", "train", 3), ("b", "train", 2), ("c", "validation", 4), ("d", "test", 1)]


def manifest(source="one", size=5, counts=COUNTS):
    return Manifest.of("letters", "mine", size, 1, counts, {"from": source})


def pixels(which, seed=0, size=5):
    draw = np.random.default_rng([seed, ord(which.name)])
    return draw.integers(0, 256, (which.count, size, size, 1), dtype=np.uint8)


def fill(writer, seed=0, only=None):
    for which in list(writer.remaining())[:only]:
        writer.put(which, pixels(which, seed, writer.manifest.size), {"odd": 1})


def made(folder, source="one", seed=0):
    with StoreWriter(folder, manifest(source)) as writer:
        fill(writer, seed)
        return writer.finish()


def require_letters(found, seed=0, size=5):
    for which in found.manifest.classes:
        rows = found.pixels[which.first : which.first + which.count]
        np.testing.assert_array_equal(rows, pixels(which, seed, size))
    found.verify()


def test_what_was_written_is_read(tmp_path):
    require_letters(made(tmp_path / "a"))
    found = ImageStore.open(tmp_path / "a")
    assert [each.name for each in found.classes("train")] == ["a", "b"]
    assert found.manifest.shape == found.pixels.shape == (10, 5, 5, 1)
    assert found.manifest.tally == {"odd": 4}
    assert isinstance(found.pixels, np.memmap)
    assert not found.pixels.flags.writeable
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "manifest.json", ".lock", found.manifest.file,
    }  # fmt: skip
    with pytest.raises(UsageError, match="did you mean 'train'"):
        found.classes("trian")


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("done", range(5))
def test_it_goes_on_with_what_is_missing(tmp_path, monkeypatch, close, done):
    """In whatever order classes come; a writer that is killed has saved what it did some time before."""
    monkeypatch.setattr(writer_module, "SAVE_SECONDS", 0)
    writer = StoreWriter(tmp_path, manifest())
    for which in list(writer.remaining())[::-1][:done]:
        writer.put(which, pixels(which), {"odd": 1})
    with pytest.raises(UsageError, match="no prepared images there"):
        ImageStore.open(tmp_path)
    if done < 4:
        with pytest.raises(ValueError, match=f"{4 - done} of 4 classes are not written yet"):
            writer.finish()
    if close:
        writer.close()
    del writer
    again = StoreWriter(tmp_path, manifest())
    assert [which.name for which in again.remaining()] == list("abcd")[: 4 - done]
    fill(again)
    found = again.finish()
    require_letters(found)
    assert found.manifest.tally == {"odd": 4}


def test_a_plan_that_changed_starts_anew_and_so_does_the_first_one_after_it(tmp_path):
    first = StoreWriter(tmp_path, manifest())
    fill(first, only=3)
    first.close()
    second = StoreWriter(tmp_path, manifest("two"))
    assert len(list(second.remaining())) == 4
    which = next(second.remaining())
    second.put(which, pixels(which, seed=2))  # and it is killed: the first one's pixels are gone
    second._lock()
    third = StoreWriter(tmp_path, manifest())
    assert len(list(third.remaining())) == 4
    fill(third)
    require_letters(third.finish())


def test_the_older_store_is_whole_until_the_new_one_is(tmp_path):
    made(tmp_path, "older", seed=1)
    writer = StoreWriter(tmp_path, manifest())
    mapped = ImageStore.open(tmp_path)
    for which in list(writer.remaining()):
        require_letters(ImageStore.open(tmp_path), seed=1)
        writer.put(which, pixels(which))
    require_letters(writer.finish())
    for which in mapped.manifest.classes:  # who has it mapped keeps what was there
        np.testing.assert_array_equal(
            mapped.pixels[which.first : which.first + which.count], pixels(which, 1)
        )


class Killed(BaseException):
    pass


def _fail_at(monkeypatch, number):
    """The process dies at the call of this number that changes the disk."""
    left = [number]

    def dying(real):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*arguments, **options)

        return call

    for name in ("replace", "unlink", "fsync"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))


@pytest.mark.parametrize("older", [False, True])
def test_killed_at_any_moment_of_the_end(tmp_path, monkeypatch, older):
    moments = 0
    for number in range(100):
        folder = tmp_path / str(number)
        if older:
            made(folder, "older", seed=1)
        writer = StoreWriter(folder, manifest())
        fill(writer)
        with monkeypatch.context() as patched:
            _fail_at(patched, number)
            try:
                writer.finish()
            except Killed:
                moments += 1
            else:
                break
        writer._lock()
        try:
            found = ImageStore.open(folder)
        except UsageError:
            assert not older
        else:
            require_letters(found, seed=1 if found.manifest.source["from"] == "older" else 0)
        again = StoreWriter(folder, manifest())
        fill(again)
        require_letters(again.finish())
        assert len(list(folder.glob("*.npy"))) == 1
    assert moments >= 6


def test_a_second_writer_is_refused(tmp_path):
    first = StoreWriter(tmp_path, manifest())
    with pytest.raises(UsageError, match="another command is preparing it; wait until that has ended"):
        StoreWriter(tmp_path, manifest())
    fill(first, only=1)
    first.close()
    first.close()
    second = StoreWriter(tmp_path, manifest())
    assert len(list(second.remaining())) == 3


def test_what_is_put_must_fit(tmp_path):
    writer = StoreWriter(tmp_path, manifest())
    which = next(writer.remaining())
    with pytest.raises(ValueError, match=r"expected uint8 \[3, 5, 5, 1\], got uint8 \[2, 5, 5, 1\]"):
        writer.put(which, pixels(which)[1:])
    with pytest.raises(ValueError, match="got float64"):
        writer.put(which, pixels(which) / 2)
    with pytest.raises(ValueError, match="no class of this store"):
        writer.put(manifest(counts=[("x", "train", 3)]).classes[0], pixels(which))
    with pytest.raises(ValueError, match="two classes have one name"):
        StoreWriter(tmp_path / "b", manifest(counts=[("x", "train", 3), ("x", "test", 3)]))


def damaged(folder, what):
    path = folder / "manifest.json"
    plain = json.loads(path.read_text())
    image = folder / f"pixels-{plain['sha256'][:16]}.npy"
    if what == "a bit":
        data = bytearray(image.read_bytes())
        data[-7] ^= 1
        image.write_bytes(data)
    elif what == "shorter":
        image.write_bytes(image.read_bytes()[:-1])
    elif what == "no pixels":
        image.unlink()
    elif what == "no json":
        path.write_text("{")
    elif what == "no manifest":
        path.write_text('{"a": 3}')
    elif what == "newer":
        path.write_text(json.dumps(plain | {"format": 9}))
    elif what == "other shape":
        path.write_text(json.dumps(plain | {"size": 6}))
    return ImageStore.open(folder)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("a bit", "it was damaged after it was prepared: remove it and prepare the dataset again"),
        ("shorter", "cannot be read"), ("no pixels", "cannot be read"), ("no json", "cannot be read"),
        ("no manifest", "not a manifest of images"), ("newer", "format 9, this version reads up to 1"),
        ("other shape", r"expected uint8 \[10, 6, 6, 1\], found uint8 \[10, 5, 5, 1\]"),
    ],
)  # fmt: skip
def test_damage_is_found_and_named(tmp_path, what, told):
    made(tmp_path)
    with pytest.raises(UsageError, match=told) as caught:
        damaged(tmp_path, what).verify()
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- disks


@pytest.fixture
def disk(tmp_path):
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here: it takes root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def remount(disk, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


LARGE = manifest(size=100)
"""100 kB."""


def _no_promises(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("promises", [True, False])
def test_a_disk_that_is_too_small(disk, monkeypatch, promises):
    """Said before the work where the system can tell, else half-way; then it goes on."""
    if not promises:
        monkeypatch.setattr(os, "posix_fallocate", _no_promises(errno.EOPNOTSUPP))
        monkeypatch.setattr(writer_module, "SAVE_SECONDS", 0)
    writer = StoreWriter(disk / "out", LARGE)
    with pytest.raises(WriteError, match=r"cannot be written \(No space left on device\)") as caught:
        fill(writer)
    assert "make room and give the same command again" in str(caught.value)
    assert len(writer.done) == (0 if promises else 2)
    with suppress(WriteError):
        writer.close()
    writer._lock()
    with pytest.raises(UsageError, match="no prepared images there"):
        ImageStore.open(disk / "out")
    if promises:
        assert not list((disk / "out").glob("*.npy"))  # it does not go on filling the disk
    remount(disk, "size=1m")
    again = StoreWriter(disk / "out", LARGE)
    fill(again)
    require_letters(again.finish(), size=100)


def test_a_disk_that_is_read_only(disk):
    made(disk / "a")
    remount(disk, "ro")
    for place in (disk / "a", disk / "b"):
        with pytest.raises(WriteError, match=r"cannot be written \(Read-only file system\)"):
            StoreWriter(place, manifest())
    require_letters(ImageStore.open(disk / "a"))


@pytest.mark.parametrize("name", ["posix_fallocate", "fsync", "replace"])
def test_any_write_may_be_refused(tmp_path, monkeypatch, name):
    with monkeypatch.context() as patched:
        patched.setattr(os, name, _no_promises(errno.ENOSPC))
        with pytest.raises(WriteError, match="No space left on device"):
            made(tmp_path)
    assert not (tmp_path / "manifest.json").exists()
    require_letters(made(tmp_path))
