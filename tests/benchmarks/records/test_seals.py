"""Records that were changed, or whose files do not belong together: named by whatever reads them."""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib

import pytest
import synthetic_records as synthetic

from metalearn_benchmarks.cli import app
from metalearn_benchmarks.cli import run as run_command
from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.archive import SUFFIX, write_archive
from metalearn_benchmarks.records.reading import read_records
from metalearn_core import UsageError

PLACE = "sine/sine-5-shot"


@pytest.fixture
def directory(tmp_path):
    """Two methods with two seeds each."""
    for method in ("maml", "turtle"):
        for seed in (0, 1):
            synthetic.write(tmp_path / "o", synthetic.cell(method, seed))
    return tmp_path / "o"


def change_digit(path):
    """Change the first decimal of the first score, and nothing else."""
    text = path.read_text()
    at = text.index("[[", text.index('"scores"')) + 4
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])


def unsealed(folder):
    """Make a record look as earlier versions wrote it: with a checksum, and no seal."""
    path = folder / "result.json"
    found = json.loads(path.read_text())
    text = json.dumps({key: value for key, value in found.items() if key not in ("seal", "crc32")})[:-1]
    path.write_text(f'{text}, "crc32": "{zlib.crc32(text.encode()):08x}"}}')


def test_a_changed_digit_is_named_by_every_command_that_reads_records(metalearn, directory, tmp_path):
    path = directory / PLACE / "turtle/1/result.json"
    change_digit(path)
    told = f"{path}: it was changed after it was written: its checksum does not fit"
    assert metalearn("claims", directory)[2] == f"metalearn: {told}; move it away (left out)\n"
    code, _, err = metalearn("archive", directory, "--out", tmp_path / f"x{SUFFIX}")
    assert (code, told in err, (tmp_path / f"x{SUFFIX}").exists()) == (2, True, False)
    code, _, err = metalearn("export", path.parent)
    assert code == 2
    code, _, err = metalearn("run", path.with_name("experiment.toml"), "--out", tmp_path / "again")
    assert (code, err.count("\n"), told in err) == (2, 1, True)
    for kept in (directory / PLACE).glob("*/*"):
        if kept != path.parent:
            shutil.rmtree(kept)
    code, _, err = metalearn("report", directory)
    assert (code, err.count("\n"), told in err) == (2, 2, True)


@pytest.mark.parametrize("sealed", [True, False])
def test_any_changed_character_is_found(directory, sealed):
    folder = directory / PLACE / "maml/0"
    if not sealed:
        unsealed(folder)
    path, whole = folder / "result.json", (folder / "result.json").read_bytes()
    record.read_record(folder)
    assert record.has_valid_checksum(folder)
    for at in (*range(0, len(whole), len(whole) // 40), *range(len(whole) - 200, len(whole) - 25, 7)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert not record.has_valid_checksum(folder)
        with pytest.raises(UsageError):
            record.read_record(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("seed = 1", "seed = 0"), "it is not the one that result.json beside it was made with"),
        (
            ("outer_lr = 0.001", "outer_lr = 0.002"),
            "it is not the one that result.json beside it was made with",
        ),
        (('name = "maml"', 'name = "turtle"'), "it is not the one that result.json beside it was made with"),
    ],
)
def test_an_experiment_that_a_result_does_not_belong_to_is_named(directory, change, told):
    folder = directory / PLACE / "maml/1"
    path = folder / "experiment.toml"
    path.write_text(path.read_text().replace(*change, 1))
    assert not record.has_valid_checksum(folder)
    with pytest.raises(UsageError, match=f"{re.escape(str(path))}: {told}"):
        record.read_record(folder)


@pytest.mark.parametrize(
    ("source", "seed"), [("maml/0", "maml/1"), ("turtle/1", "maml/1"), ("maml/0", "maml/x")]
)
@pytest.mark.parametrize("sealed", [True, False])
def test_a_record_in_the_folder_of_another_is_named(directory, source, seed, sealed):
    if not sealed:
        unsealed(directory / PLACE / source)
    shutil.rmtree(directory / PLACE / seed, ignore_errors=True)
    shutil.copytree(directory / PLACE / source, directory / PLACE / seed)
    with pytest.raises(UsageError, match=f"it is of .*, seed {source[-1]}, and lies in {seed}"):
        read_records(directory)


def test_records_of_earlier_versions_are_read_and_told_apart(directory, tmp_path):
    kept = read_records(directory)
    assert all("seal" in one.result for one in kept)
    for path in directory.rglob("result.json"):
        unsealed(path.parent)
    old = read_records(directory)
    assert [one.final.tolist() for one in old] == [one.final.tolist() for one in kept]
    assert not any("seal" in one.result for one in old)
    path = directory / PLACE / "maml/0/result.json"  # earlier still: no checksum either
    found = json.loads(path.read_text())
    del found["crc32"]
    path.write_text(json.dumps(found, indent=1))
    assert len(read_records(directory)) == 4


def test_an_archive_seals_what_it_holds(directory, tmp_path):
    path = tmp_path / f"x{SUFFIX}"
    write_archive(read_records(directory), path)
    shutil.unpack_archive(path, tmp_path / "laid-out", "xztar", filter="data")
    assert len(read_records(tmp_path / "laid-out")) == 4
    victim = tmp_path / "laid-out" / PLACE / "maml/1"
    text = (victim / "result.json").read_text()
    (victim / "result.json").write_text(text.replace('"seconds":', '"seconds":1', 1))
    with pytest.raises(UsageError, match="its checksum does not fit"):
        read_records(tmp_path / "laid-out")


def test_two_results_of_one_run_are_not_both_counted(directory, metalearn, monkeypatch):
    shutil.copytree(directory / "sine", directory / "copied/sine")
    assert len(read_records(directory)) == 4  # the same bytes twice
    synthetic.change_result(directory / "copied" / PLACE / "maml/1", seconds=3.0)
    with pytest.raises(UsageError, match="are two results of the same run; move one away"):
        read_records(directory)
    lines = []
    assert len(read_records(directory, lines.append)) == 4
    assert len(lines) == 1


def test_a_run_makes_a_changed_record_again_and_says_so(metalearn, directory, tmp_path, monkeypatch):
    """With the checkpoint that it was made from; here there is none, so all of it is made again."""
    monkeypatch.setattr(run_command, "write_and_print_report", lambda *_: None)
    quick = ("run", "sine", "--scale", "smoke", "--tasks", 4, "-m", "maml", "--seeds", 2, "--workers", 1,
             "--out", tmp_path / "r")  # fmt: skip
    assert metalearn(*quick)[0] == 0
    path = tmp_path / "r" / PLACE / "maml/1/result.json"
    whole = json.loads(path.read_text())["scores"]
    change_digit(path)
    code, out, err = metalearn(*quick)
    assert (code, out.count("already done"), err.count("\n")) == (0, 1, 1)
    assert f"{path}: it was changed after it was written" in err
    assert json.loads(path.read_text())["scores"] == whole


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of one seed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_command, "write_and_print_report", lambda *_: None)
        patch.setattr(
            "sys.argv", ["metalearn", *map(str, ONE), "--out", str(made := tmp_path_factory.mktemp("run"))]
        )
        app.main()
    return made


ONE = ("run", "sine", "--scale", "smoke", "--tasks", 4, "-m", "maml", "--seeds", 1)


@pytest.mark.parametrize("name", ["checkpoint.pt", "metrics.jsonl"])
def test_a_run_names_a_changed_file_beside_a_result_that_stands(
    metalearn, finished, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(run_command, "write_and_print_report", lambda *_: None)
    shutil.copytree(finished, tmp_path / "r")
    folder = tmp_path / "r" / PLACE / "maml/0"
    code, out, err = metalearn(*ONE, "--out", tmp_path / "r")
    assert (code, "already done" in out, err) == (0, True, "")
    whole, result = (folder / name).read_bytes(), (folder / "result.json").read_bytes()
    changed = whole[:-30] + bytes([whole[-30] ^ 1]) + whole[-29:]
    (folder / name).write_bytes(changed)
    code, out, err = metalearn(*ONE, "--out", tmp_path / "r")
    made = "made from" if name == "checkpoint.pt" else "made with"
    assert code == 0
    assert err == (
        f"metalearn: {folder / name}: it is not the one that result.json beside it was {made}, or it was"
        f" changed; set aside as {name}.damaged-1, and the result.json beside it stands\n"
    )
    assert (folder / f"{name}.damaged-1").read_bytes() == changed
    assert (folder / "result.json").read_bytes() == result
    code, out, err = metalearn(*ONE, "--out", tmp_path / "r")
    assert (code, "already done" in out, err) == (0, True, "")


def test_seals_of_earlier_versions_say_nothing_of_the_log(metalearn, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(run_command, "write_and_print_report", lambda *_: None)
    shutil.copytree(finished, tmp_path / "r")
    folder = tmp_path / "r" / PLACE / "maml/0"
    path = folder / "result.json"
    found = json.loads(path.read_text())
    del found["crc32"], found["seal"]["log"]
    text = json.dumps(found)[:-1]
    path.write_text(f'{text}, "crc32": "{zlib.crc32(text.encode()):08x}"}}')
    (folder / "metrics.jsonl").write_text("")
    code, out, err = metalearn(*ONE, "--out", tmp_path / "r")
    assert (code, "already done" in out, err) == (0, True, "")
    assert record.has_valid_checksum(folder)
    (folder / "experiment.toml").write_text((folder / "experiment.toml").read_text() + "\n")
    assert not record.has_valid_checksum(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_a_run_does_not_wait_for_a_checkpoint_that_is_a_pipe(metalearn, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(run_command, "write_and_print_report", lambda *_: None)
    shutil.copytree(finished, tmp_path / "r")
    folder = tmp_path / "r" / PLACE / "maml/0"
    (folder / "checkpoint.pt").unlink()
    os.mkfifo(folder / "checkpoint.pt")
    assert metalearn(*ONE, "--out", tmp_path / "r")[0] == 0  # finished: nothing reads it
    (folder / "result.json").unlink()
    code, _, err = metalearn(*ONE, "--out", tmp_path / "r")
    assert (code, err.count("\n")) == (0, 1)
    assert "checkpoint.pt: it is no regular file; set aside as checkpoint.pt.damaged-1, and made anew" in err


def test_export_refuses_a_checkpoint_that_the_result_was_not_made_from(metalearn, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(run_command, "write_and_print_report", lambda *_: None)
    assert metalearn("run", "sine", "--scale", "smoke", "--tasks", 4, "-m", "maml", "--seeds", 1,
                     "--out", tmp_path)[0] == 0  # fmt: skip
    path = tmp_path / PLACE / "maml/0/checkpoint.pt"
    assert metalearn("export", path.parent)[0] == 0
    payload = torch.load(path, weights_only=True)
    payload["best"]["theta"] += 1
    torch.save(payload, path)
    code, _, err = metalearn("export", path.parent)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{path}: it is not the one that result.json beside it was made from" in err
