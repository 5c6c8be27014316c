"""Many records in one file: what it keeps, and that everything reads it as it reads a folder."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
from synthetic_records import change_result

from metalearn_benchmarks.records import record as records
from metalearn_benchmarks.records.archive import (
    MAX_MEMBER_BYTES,
    SUFFIX,
    read_archived_runs,
    read_archives,
    write_archive,
)
from metalearn_benchmarks.records.reading import read_records
from metalearn_core import UsageError

PLACE = "sine/sine-5-shot"


@pytest.fixture(scope="module")
def archive(finished, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / f"sine{SUFFIX}"
    write_archive(read_records(finished), path)
    return path


def test_an_archive_has_every_run_in_three_digits(finished, archive):
    whole, kept = read_records(finished), read_records(archive)
    assert len(kept) == 5
    for one, other in zip(whole, kept, strict=True):
        assert (other.experiment, other.setting, other.method, other.seed, other.steps) == (
            one.experiment, one.setting, one.method, one.seed, one.steps,
        )  # fmt: skip
        assert other.cell == one.cell
        np.testing.assert_allclose(other.final, one.final, rtol=5e-3)
        assert np.any(other.final != one.final)  # it is rounded: the next line is no accident
        np.testing.assert_allclose(other.by_step, one.by_step, rtol=5e-5)
        for key in ("seconds", "summary", "versions", "best_position", "engine", "seeds_together"):
            assert other.result[key] == one.result[key]
    size = sum(path.stat().st_size for path in finished.rglob("result.json"))
    assert archive.stat().st_size < size / 3


def test_the_same_records_are_the_same_bytes_and_stay_so(finished, archive, tmp_path):
    again, from_archive = tmp_path / f"again{SUFFIX}", tmp_path / f"from-archive{SUFFIX}"
    write_archive(read_records(finished)[::-1], again)
    write_archive(read_records(archive), from_archive)
    assert again.read_bytes() == archive.read_bytes() == from_archive.read_bytes()


def test_scores_that_are_not_finite_stay_so(finished, tmp_path):
    (folder,) = finished.glob(f"{PLACE}/maml/0")
    shutil.copytree(folder, tmp_path / PLACE / "maml/0")
    path = tmp_path / PLACE / "maml/0/result.json"
    result = json.loads(path.read_text())
    result["scores"]["sine"][3] = [None] * 6
    change_result(path.parent, scores=result["scores"])
    write_archive(read_records(tmp_path), tmp_path / f"x{SUFFIX}")
    (record,) = read_archives(tmp_path)
    assert np.flatnonzero(~np.isfinite(record.final)).tolist() == [3]
    assert np.isnan(record.by_step).all()


def test_report_and_claims_read_it_wherever_they_read_a_folder(metalearn, archive, tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    shutil.copy(archive, folder)
    tables = []
    for place in (archive, folder):
        code, out, _ = metalearn("report", place, "--out", tmp_path / "report")
        assert code == 0
        tables.append(out)
    assert tables[0] == tables[1]
    assert "TURTLE" in tables[0]
    page = (tmp_path / "report/report.html").read_text()
    assert "SHA-256 of result.json" in page
    code, out, _ = metalearn("claims", archive)
    assert (code, "too small" in out) == (0, True)


def test_a_report_on_it_is_that_on_the_folder_but_for_rounding(finished, archive, metalearn, tmp_path):
    for place, name in ((finished, "whole"), (archive, "kept")):
        assert metalearn("report", place, "--out", tmp_path / name)[0] == 0
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert names == {path.name for path in (tmp_path / "kept").iterdir()}
    texts = [(tmp_path / name / "sine-sine-5-shot.md").read_text() for name in ("whole", "kept")]
    rows = [text.splitlines()[2:5] for text in texts]
    for one, other in zip(*rows, strict=True):
        assert one.split("|")[1] == other.split("|")[1]
        numbers = [float(line.split("|")[2].strip(" *")) for line in (one, other)]
        assert numbers[0] == pytest.approx(numbers[1], rel=2e-3)


def test_tar_lays_it_out_as_folders_that_read_the_same(archive, metalearn, tmp_path):
    subprocess.run(["tar", "xf", archive, "-C", tmp_path], check=True)
    for one, other in zip(read_records(archive), read_records(tmp_path), strict=True):
        assert one.cell == other.cell
        np.testing.assert_array_equal(one.final, other.final)
        np.testing.assert_array_equal(one.by_step, other.by_step)


def test_one_seed_of_it_is_computed_again_from_its_experiment_toml(archive, metalearn, tmp_path):
    subprocess.run(["tar", "xf", archive, "-C", tmp_path], check=True)
    asked = tmp_path / PLACE / "maml/1/experiment.toml"
    assert metalearn("run", asked, "--out", tmp_path / "again")[0] == 0
    (again,) = read_records(tmp_path / "again")
    (kept,) = [r for r in read_records(archive) if (r.method, r.seed) == ("maml", 1)]
    np.testing.assert_allclose(again.final, kept.final, rtol=5e-3)


def test_a_run_leaves_out_what_an_archive_in_its_folder_has(archive, metalearn, tmp_path):
    shutil.copy(archive, tmp_path)
    quick = ("run", "sine", "--scale", "smoke", "-m", "maml", "--out", tmp_path)
    code, out, _ = metalearn(*quick, "--seeds", 2)
    assert (code, out.count("already done")) == (0, 2)
    assert not (tmp_path / PLACE).exists()
    code, out, _ = metalearn(*quick, "--seeds", 3)
    assert (code, out.count("already done")) == (0, 2)
    assert [path.name for path in (tmp_path / PLACE / "maml").iterdir()] == ["2"]
    assert len([r for r in read_records(tmp_path) if r.method == "maml"]) == 3


def test_a_run_with_other_numbers_than_an_archive_has_is_refused(archive, metalearn, tmp_path):
    shutil.copy(archive, tmp_path)
    quick = ("run", "sine", "--scale", "smoke", "-m", "maml", "--tasks", 20, "--out", tmp_path)
    code, _, err = metalearn(*quick)
    assert (code, err.count("\n")) == (2, 1)
    assert "it holds another experiment: method.settings.tasks is 100 in" in err


def test_a_run_in_a_folder_and_in_an_archive_is_read_once_from_the_folder(finished, archive, tmp_path):
    shutil.copytree(finished / PLACE / "maml", tmp_path / PLACE / "maml")
    shutil.copy(archive, tmp_path)
    found = read_records(tmp_path)
    assert len(found) == 5
    assert {r.method for r in found if "archived" not in r.result} == {"maml"}


def test_archives_are_joined_and_what_is_in_both_is_there_once(finished, archive, metalearn, tmp_path):
    shutil.copytree(finished / PLACE / "maml", tmp_path / "some" / PLACE / "maml")
    path = tmp_path / f"joined{SUFFIX}"
    code, out, _ = metalearn("archive", tmp_path / "some", "--out", path)
    assert (code, out.split(": ")[1].startswith("2 records")) == (0, True)
    code, out, _ = metalearn("archive", archive, path, tmp_path / "some", "--out", path)
    assert (code, out.split(": ")[1].startswith("5 records")) == (0, True)
    assert path.read_bytes() == archive.read_bytes()


def test_two_results_of_one_run_are_refused_and_nothing_is_written(finished, archive, metalearn, tmp_path):
    folder = tmp_path / PLACE / "maml/0"
    shutil.copytree(finished / PLACE / "maml/0", folder)
    change_result(folder, seconds=1.0)
    path = tmp_path / f"out{SUFFIX}"
    code, _, err = metalearn("archive", archive, tmp_path, "--out", path)
    assert (code, err.count("\n"), path.exists()) == (2, 1, False)
    assert "are the same run; leave one out" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{archive}", "--out", "x.zip"], "the name of an archive ends in .records.tar.xz"),
        (["nowhere", "--out", f"x{SUFFIX}"], "nowhere: there is no such folder, nor archive"),
        (["{empty}", "--out", f"x{SUFFIX}"], "no finished run to archive"),
        (["{cut}", "--out", f"x{SUFFIX}"], "1 of its records cannot be read"),
    ],
)
def test_what_cannot_be_archived_is_one_line(archive, metalearn, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / f"cut{SUFFIX}").write_bytes(archive.read_bytes()[:-200])
    places = {"archive": archive, "empty": tmp_path / "empty", "cut": tmp_path / f"cut{SUFFIX}"}
    code, _, err = metalearn("archive", *[word.format(**places) for word in arguments])
    assert code == 2
    assert told in err.splitlines()[-1]
    assert "Traceback" not in err


def packed(path, members):
    with tarfile.open(path, "w:xz") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"a/b/c/0/result.json": b"{}"}, "must have experiment.toml and result.json"),
        ({"a/b/c/0/result.json": b"{}", "a/b/c/0/experiment.toml": b""}, "not a record of format 1"),
        ({"a/b/c/0/result.json": b"{", "a/b/c/0/experiment.toml": b""}, "cannot be read"),
        ({"a/b/c/0/result.json": b'{"format": 2}', "a/b/c/0/experiment.toml": b"="}, "cannot be read"),
    ],
)
def test_an_archive_that_is_damaged_is_named(tmp_path, metalearn, members, told):
    packed(tmp_path / f"bad{SUFFIX}", members)
    with pytest.raises(UsageError, match=told):
        read_records(tmp_path)
    code, _, err = metalearn("report", tmp_path)
    assert (code, err.count("\n")) == (2, 2)
    assert f"bad{SUFFIX}" in err


def test_a_member_that_is_no_plain_file_or_too_large_is_refused(tmp_path):
    path = tmp_path / f"link{SUFFIX}"
    with tarfile.open(path, "w:xz") as tar:
        member = tarfile.TarInfo("a/b/c/0/result.json")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(records.DamagedError, match=f"no file of at most {MAX_MEMBER_BYTES} bytes"):
        read_archived_runs(path)
