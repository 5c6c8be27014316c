"""Copies that are broken, swapped, someone else's or hostile: one clear line, and nothing is prepared."""

from __future__ import annotations

import io
import os
import pickle
import stat
import tarfile
import zipfile
from contextlib import suppress

import attrs
import hypothesis.strategies as st
import image_copies as copies
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays
from image_copies import ready

from metalearn_benchmarks.tasks.images.readers import unpickling
from metalearn_core.errors import UsageError

PHOTOS = copies.photos()


def refused(dataset, path, folder, *told):
    """It ends in one line that says all this, and leaves nothing behind."""
    with pytest.raises(UsageError) as caught:
        ready(dataset, path, folder / "out")
    message = str(caught.value)
    assert "\n" not in message
    for words in told:
        assert words in message
    assert not (folder / "out").exists() or not list((folder / "out").glob("*.json"))


def test_a_truncated_archive(tmp_path):
    files = copies.cub_files(copies.birds())
    for whole in (copies.tarred(tmp_path / "a.tgz", files), copies.zipped(tmp_path / "a.zip", files)):
        for part in (0.3, 0.97):
            cut = tmp_path / f"cut{whole.suffix}"
            cut.write_bytes(whole.read_bytes()[: int(part * whole.stat().st_size)])
            refused(copies.closed(copies.CUB, whole), cut, tmp_path, str(cut), "truncated or damaged")


@pytest.mark.parametrize("kind", ["tar.xz", "zip"])
def test_a_byte_that_was_turned_in_what_lzma_compressed(tmp_path, kind):
    files, path = copies.cub_files(copies.birds()), tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        copies.tarred(path, files, how="w:xz")
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 64):
        data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"the archive is truncated or damaged \([^\n]*\); get it again$"):
        ready(copies.closed(copies.CUB, path), path, tmp_path / "out")


def test_a_zip_archive_whose_names_are_no_text(tmp_path):
    whole = copies.zipped(tmp_path / "a.zip", {"Käfer.jpg": b"x"})
    whole.write_bytes(whole.read_bytes().replace("ä".encode(), b"\xff\xff"))
    refused(copies.closed(copies.CUB, whole), whole, tmp_path, str(whole), "truncated or damaged")


def test_a_tar_archive_that_ends_between_two_members(tmp_path):
    """Python's reader takes that for the end: the checksum, or what is missing, tells."""
    whole = tmp_path / "a.tar"
    with tarfile.open(whole, "w") as tar:
        for name, data in copies.cub_files(copies.birds()).items():
            data = data if isinstance(data, bytes) else data.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[: 512 * 6])
    refused(copies.closed(copies.CUB, whole), cut, tmp_path, "wrong checksum")
    refused(
        attrs.evolve(copies.CUB, closed=False), cut, tmp_path, "3 of 4 classes of the birds' list are missing"
    )


def test_a_wrong_checksum_names_all_that_are_known(tmp_path):
    path = copies.tarred(tmp_path / "a.tgz", copies.cub_files(copies.birds()))
    other = attrs.evolve(copies.CUB, archives={"a" * 32: "Caltech's", "b" * 32: "fast.ai's"})
    refused(
        other, path, tmp_path, f"{path}: wrong checksum, md5 is {copies.md5(path)}",
        f"{'a' * 32} (Caltech's) or {'b' * 32} (fast.ai's)", "unpack it and give the folder",
    )  # fmt: skip


def test_a_missing_class(tmp_path):
    pictures = {which: found for which, found in PHOTOS.items() if which != "n00000003"}
    path = copies.write(tmp_path / "copy", copies.ravi_files(pictures))
    refused(copies.MINI, path, tmp_path, "1 of 5 classes of the small list are missing: n00000003")


@pytest.mark.parametrize(("count", "also"), [(2, ""), (4, "")])
def test_a_wrong_count(tmp_path, count, also):
    pictures = PHOTOS | {"n00000004": [copies.photo(k) for k in range(count)]}
    path = copies.write(tmp_path / "copy", copies.ravi_files(pictures))
    refused(copies.MINI, path, tmp_path, f"class n00000004 has {count} images, expected 3 (found: CSVs")


def test_a_wrong_count_of_pickled_images(tmp_path):
    """Further images of training classes are not taken for those that are missing."""
    further = {which: [copies.photo(10 + k) for k in range(2)] for which in copies.SYNSETS}
    path = copies.write(tmp_path / "copy", {"a.pickle": pickle.dumps(copies.category(further))})
    refused(copies.MINI, path, tmp_path, "class n00000001 has 2 images, expected 3, and 4 other classes")


def test_a_wrong_total(tmp_path):
    birds = copies.birds()
    birds["004.Duck"].pop()
    path = copies.write(tmp_path / "copy", copies.cub_files(birds))
    refused(copies.CUB, path, tmp_path, "9 images, expected 10")


def test_another_partition_of_the_same_dataset(tmp_path):
    """As Vinyals' list of miniImageNet, with other classes under the same file names."""
    files = copies.ravi_files(PHOTOS)
    files = {
        name.replace("n0", "n1"): data.replace("n0", "n1") if isinstance(data, str) else data
        for name, data in files.items()
    }
    refused(
        copies.MINI,
        copies.write(tmp_path / "copy", files),
        tmp_path,
        "5 of 5 classes of the small list are missing",
    )


def test_a_listed_image_that_is_not_there(tmp_path):
    files = copies.ravi_files(PHOTOS)
    del files["images/n0000000100000002.jpg"]
    path = copies.write(tmp_path / "copy", files)
    refused(
        copies.MINI, path, tmp_path, "train.csv names n0000000100000002.jpg of class n00000001, which is not"
    )
    birds = copies.cub_files(copies.birds())
    del birds["CUB_200_2011/images/003.Crow/Crow_0.jpg"]
    path = copies.write(tmp_path / "birds", birds)
    refused(copies.CUB, path, tmp_path, "images.txt names 003.Crow/Crow_0.jpg, which is not in")


def test_one_image_for_two_rows(tmp_path):
    """A class that has no images of its own is not given another one's of the same name."""
    files = copies.ravi_files(PHOTOS, "{k}.jpg", "class_name,image_name")
    files = {name: data for name, data in files.items() if name.endswith(".csv")}
    files |= {f"n00000001/{k}.jpg": copies.encoded(p) for k, p in enumerate(PHOTOS["n00000001"], 1)}
    path = copies.write(tmp_path / "copy", files)
    refused(copies.MINI, path, tmp_path, "n00000001/1.jpg is taken for a row before it")
    files = copies.ravi_files(PHOTOS)
    files["val.csv"] += "n0000000300000001.jpg,n00000003\n"
    path = copies.write(tmp_path / "twice", files)
    refused(copies.MINI, path, tmp_path, "is taken for a row before it")


@pytest.mark.parametrize("data", [b"", b"no image", "half"])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path, data):
    files = copies.ravi_files(PHOTOS)
    name = "images/n0000000400000003.jpg"
    files[name] = files[name][: len(files[name]) // 2] if data == "half" else data
    path = copies.write(tmp_path / "copy", files)
    with pytest.raises(UsageError, match=rf"{path}/{name}: cannot be decoded \(.+\); mend or replace it"):
        ready(copies.MINI, path, tmp_path / "out")
    assert not list((tmp_path / "out").glob("manifest.json"))
    copies.write(path, {name: copies.encoded(PHOTOS["n00000004"][2])})
    made = ready(copies.MINI, path, tmp_path / "out")
    assert made.store.manifest.images == 15


def test_nothing_that_is_known(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(copies.MINI, tmp_path / "empty", tmp_path, "no miniImageNet in it; expected this or that")
    refused(copies.MINI, tmp_path / "nowhere", tmp_path, "there is no such file or folder")
    (tmp_path / "file").write_text("hello")
    refused(copies.MINI, tmp_path / "file", tmp_path, "no miniImageNet in it")
    strange = copies.write(tmp_path / "strange", {"x.pkl": pickle.dumps({"what": np.zeros(3)})})
    refused(copies.MINI, strange, tmp_path, "x.pkl: no pickle of images whose layout is known")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image_data": np.zeros((15, 12, 12, 3))}, "image_data is float64 [15, 12, 12, 3], expected uint8"),
        ({"image_data": [1, 2]}, "image_data is list, expected uint8"),
        ({"image_data": np.zeros((3, 12, 12, 3), np.uint8)}, "has rows beyond its 3 images"),
        ({"class_dict": 3}, "class_dict and image_data do not fit together"),
    ],
)
def test_pickles_of_other_things(tmp_path, change, told):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(copies.cache(PHOTOS) | change))
    refused(copies.MINI, path, tmp_path, "a.pkl", told)


# --- what would harm


class Harm:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def harms(mark):
    return [
        (Harm(os.system, f"touch {mark}"), ".system"),
        (Harm(eval, f"open({str(mark)!r}, 'w')"), ".eval"),
        (Harm(getattr, {}, "update"), ".getattr"),
        (Harm(np.fromfile, str(mark)), ".fromfile"),
        (io.BytesIO(b"x"), "_io.BytesIO"),
        (attrs.make_class, ".make_class"),
    ]


@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_that_asks_for_more_than_arrays_is_refused(tmp_path, which, protocol):
    mark = tmp_path / "mark"
    harm, named = harms(mark)[which]
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(copies.cache(PHOTOS) | {"extra": harm}, protocol=protocol))
    refused(
        copies.MINI,
        path,
        tmp_path,
        f"{path}: refused, it asks for ",
        f"{named};",
        "only arrays and plain containers",
    )
    assert not mark.exists()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x80\x04cnumpy\nfromfile\n.", "asks for numpy.fromfile"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0aload.__x__\x93.", "asks for numpy.load.__x__"),
        (b"\x80\x02c_codecs\nencode\nU\x01xU\x03zip\x86R.", "asks for the encoding 'zip'"),
        (b"\x80\x02U\x01aQ.", "asks for an object of another program"),
        (b"\x80\x04\x82\x01.", "no whole pickle"),
        (b"\x80\x04", "no whole pickle"),
        (b"\x80\x04N", "no whole pickle"),
        (b"\x80\x09N.", "no whole pickle"),
        (b"\x80\x02cnumpy\nndarray\n(Lxx\ntR.", "no whole pickle"),
    ],
)
def test_pickles_by_hand(data, told):
    with pytest.raises(UsageError, match=r"^x: ") as caught:
        unpickling.load(io.BytesIO(data), "x")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)
pixels = arrays.arrays(np.uint8, arrays.array_shapes(max_dims=4))


@given(plain, pixels, st.integers(2, 5), st.booleans())
def test_arrays_and_plain_containers_come_back(what, array, protocol, fortran):
    array = np.asfortranarray(array) if fortran else array
    given = {"a": array, "b": [what, array[:1]], "c": np.int64(3)}
    found = unpickling.load(io.BytesIO(pickle.dumps(given, protocol)), "x")
    np.testing.assert_array_equal(found["a"], array)
    np.testing.assert_array_equal(found["b"][1], array[:1])
    assert found["b"][0] == what
    assert found["c"] == 3


@given(st.binary(max_size=200), st.integers(2, 5))
def test_any_bytes_are_a_pickle_or_refused(data, protocol):
    with suppress(UsageError):
        unpickling.load(io.BytesIO(b"\x80" + bytes([protocol]) + data), "x")


@given(st.data())
def test_a_damaged_pickle_is_read_or_refused(data):
    whole = bytearray(pickle.dumps(copies.cache({"n00000001": [copies.photo(1)]}), protocol=4))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(2, 200))] = data.draw(st.integers(0, 255))
    with suppress(UsageError):
        unpickling.load(io.BytesIO(bytes(whole)), "x")


def special(name, kind, link=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    ("member", "told"),
    [
        (special("../x.jpg", tarfile.REGTYPE), "'../x.jpg' leads out of the archive"),
        (special("a/../../x.jpg", tarfile.REGTYPE), "leads out of the archive"),
        (special("/etc/x.jpg", tarfile.REGTYPE), "'/etc/x.jpg' leads out of the archive"),
        (special("a/x.jpg", tarfile.SYMTYPE, "/etc/passwd"), "'a/x.jpg' is a link or a device"),
        (special("a/x.jpg", tarfile.LNKTYPE, "b.jpg"), "is a link or a device"),
        (special("a/x", tarfile.FIFOTYPE), "is a link or a device"),
        (special("a/x", tarfile.CHRTYPE), "is a link or a device"),
        (special("a/x", tarfile.BLKTYPE), "is a link or a device"),
    ],
)
def test_a_tar_archive_that_leads_elsewhere_is_refused(tmp_path, member, told):
    path = copies.tarred(tmp_path / "a.tgz", copies.ravi_files(PHOTOS), member)
    refused(copies.MINI, path, tmp_path, f"{path}: refused, its member", told)


@pytest.mark.parametrize("name", ["../x.jpg", "/x.jpg", "a/../../x.jpg", "..\\x.jpg", "C:\\x.jpg"])
def test_a_zip_archive_that_leads_elsewhere_is_refused(tmp_path, name):
    path = copies.zipped(tmp_path / "a.zip", copies.ravi_files(PHOTOS) | {name: b""})
    refused(copies.MINI, path, tmp_path, f"{path}: refused, its member", "leads out of the archive")


def test_a_zip_archive_with_a_link_is_refused(tmp_path):
    member = zipfile.ZipInfo("a/x.jpg")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = copies.zipped(tmp_path / "a.zip", copies.ravi_files(PHOTOS) | {member: b"/etc/passwd"})
    refused(copies.MINI, path, tmp_path, "'a/x.jpg' is a link or a device")


@pytest.mark.parametrize("name", ["../../secret.jpg", "/secret.jpg"])
def test_a_list_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    (tmp_path / "secret.jpg").write_bytes(copies.encoded(copies.photo(1)))
    files = copies.ravi_files(PHOTOS)
    files["train.csv"] = files["train.csv"].replace("n0000000100000001.jpg", name)
    path = copies.write(tmp_path / "copy", files)
    refused(copies.MINI, path, tmp_path, f"train.csv names {name}, which leads out of the folder: refused")
    birds = copies.cub_files(copies.birds())
    lists = "CUB_200_2011/images.txt"
    birds[lists] = birds[lists].replace("001.Auk/Auk_0.jpg", "../../../secret.jpg")
    path = copies.write(tmp_path / "birds", birds)
    refused(copies.CUB, path, tmp_path, "images.txt names ../../../secret.jpg, which is not in")


def test_links_in_folders_are_followed_and_loops_are_not(tmp_path):
    """People link to where ImageNet lies; an archive's links are another matter."""
    copies.write(tmp_path / "elsewhere", copies.ravi_files(PHOTOS))
    path = tmp_path / "copy"
    path.mkdir()
    for name in ("train.csv", "val.csv", "test.csv"):
        (path / name).symlink_to(tmp_path / "elsewhere" / name)
    (path / "images").symlink_to(tmp_path / "elsewhere" / "images")
    (tmp_path / "elsewhere" / "images" / "up").symlink_to(path)
    assert ready(copies.MINI, path, tmp_path / "out").store.manifest.images == 15
