"""Archives that unpack to far more than their size are refused in one line, before memory fills."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile

import image_copies as copies
import pytest
from image_copies import ready, require_pictures

from metalearn_benchmarks.tasks.images.sources import archives, bounds
from metalearn_core.errors import UsageError

PHOTOS = copies.photos()
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """8 MiB do, in place of a gigabyte."""
    monkeypatch.setattr(bounds, "LEAST_BOUND", 8 * MIB)


def refused(path, folder):
    with pytest.raises(UsageError, match=r"refused, it unpacks to more than 8 MiB") as caught:
        ready(copies.MINI, path, folder / "out")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def member(name, size, **more):
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in more.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize("how", ["w:gz", "w:xz", "w:bz2"])
@pytest.mark.parametrize("name", ["a.jpg", "a.csv", "a.pkl"])
def test_a_tar_archive_with_one_large_member(tmp_path, how, name):
    with tarfile.open(tmp_path / "a", how) as tar:
        tar.addfile(member(name, 10 * MIB), io.BytesIO(bytes(10 * MIB)))
    assert (tmp_path / "a").stat().st_size < MIB / 16
    refused(tmp_path / "a", tmp_path)


def test_a_tar_archive_with_many_members(tmp_path):
    blocks = b"".join(member(f"{k}.csv", 0).tobuf() for k in range(100)) * 45
    (tmp_path / "a").write_bytes(gzip.compress(blocks, 1))
    refused(tmp_path / "a", tmp_path)


def test_a_header_of_a_tar_archive_that_is_large(tmp_path):
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE):
        header = member("x", 10 * MIB, type=kind).tobuf()
        (tmp_path / "a").write_bytes(lzma.compress(header + bytes(10 * MIB), preset=0))
        refused(tmp_path / "a", tmp_path)


def test_a_sparse_member_that_claims_much(tmp_path):
    header = bytearray(member("a.jpg", 512, type=tarfile.GNUTYPE_SPARSE).tobuf())
    header[386:398], header[398:410] = b"%011o\0" % 0, b"%011o\0" % 512
    header[483:495] = b"%011o\0" % (1 << 32)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a").write_bytes(bytes(header) + bytes(512 * 3))
    refused(tmp_path / "a", tmp_path)


def test_a_zip_archive_with_large_members(tmp_path):
    with zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(7):
            archive.writestr(f"{k}.pkl", bytes(2 * MIB))
    refused(tmp_path / "a", tmp_path)


def test_a_zip_archive_whose_member_is_larger_than_it_says(tmp_path):
    copies.zipped(tmp_path / "a", copies.ravi_files(PHOTOS))
    with zipfile.ZipFile(tmp_path / "b", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.csv", bytes(5000))
    data = (tmp_path / "b").read_bytes().replace((5000).to_bytes(4, "little"), (7).to_bytes(4, "little"))
    (tmp_path / "b").write_bytes(data)
    with pytest.raises(UsageError):
        ready(copies.MINI, tmp_path / "b", tmp_path / "out")


def test_no_more_small_files_are_kept_than_there_is_room_for(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "KEPT_BYTES", 100)
    path = copies.tarred(tmp_path / "a", copies.ravi_files(PHOTOS))
    found = archives.TarArchive(path)
    assert sum(map(len, found._kept.values())) <= 100
    jpegs = {which: [copies.as_jpeg(picture) for picture in each] for which, each in PHOTOS.items()}
    require_pictures(ready(copies.MINI, path, tmp_path / "out").store, jpegs)


def test_what_is_as_large_as_its_file_has_no_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "LEAST_BOUND", 0)
    for path in (
        copies.tarred(tmp_path / "a", copies.ravi_files(PHOTOS)),
        copies.zipped(tmp_path / "b", copies.ravi_files(PHOTOS)),
    ):
        assert ready(copies.MINI, path, tmp_path / "out").store.manifest.images == 15


def test_a_zip_archive_written_on_windows(tmp_path):
    names = {f"copy\\{name}".replace("/", "\\"): data for name, data in copies.ravi_files(PHOTOS).items()}
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        for name, data in names.items():
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, data)
    assert ready(copies.MINI, tmp_path / "a", tmp_path / "out").store.manifest.images == 15
