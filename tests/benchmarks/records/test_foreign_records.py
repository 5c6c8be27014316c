"""Records from others: no value in them is taken for what it is not, and no name leads out of DIR."""

from __future__ import annotations

import io
import json
import lzma
import os
import tarfile

import pytest
import synthetic_records as synthetic
import tomli_w

from metalearn_benchmarks.cli import run as run_command
from metalearn_benchmarks.records import archive as archives
from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.archive import SUFFIX, read_archived_runs, write_archive
from metalearn_benchmarks.records.files import DamagedError
from metalearn_benchmarks.records.reading import read_records
from metalearn_core import UsageError

PLACE = "sine/sine-5-shot/maml/0"
GONE = object()


def placed(directory, cell, result, folder=PLACE):
    """Write a record as it is given, with a seal that fits: whoever forges one can make that too."""
    folder = directory / folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.toml").write_text(tomli_w.dumps(cell))
    record.write_result(folder, result)
    return folder


def at(value, path, new):
    """Return nested tables with another value at a dotted path, or without that key."""
    key, _, rest = path.partition(".")
    if rest:
        return {**value, key: at(value[key], rest, new)}
    return {k: v for k, v in {**value, key: new}.items() if v is not GONE}


@pytest.mark.parametrize("name", ["/tmp/evil", "../../evil", "..", "a/b", "report", "a\nb", "a\x1b[31mb", ""])
@pytest.mark.parametrize("key", ["experiment", "setting", "name"])
def test_a_name_that_is_no_folder_is_refused_by_every_command(metalearn, tmp_path, key, name):
    cell = synthetic.cell("maml", 0)
    placed(tmp_path / "o", at(cell, key, name), synthetic.result(cell))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DamagedError, match=r"names a folder|cannot be|it is of"):
        read_records(tmp_path / "o")
    for command in (("report",), ("claims",), ("archive", "--out", tmp_path / f"x{SUFFIX}")):
        code, _, err = metalearn(command[0], tmp_path / "o", *command[1:])
        assert (code, err.count("\n"), "\x1b" in err) == (2, 2, False)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_family_that_is_no_name_is_refused(tmp_path):
    cell = synthetic.cell("maml", 0)
    placed(tmp_path, cell, synthetic.result(cell, across=("../../evil",)))
    with pytest.raises(DamagedError, match=r"'\.\./\.\./evil' is no name of a family"):
        read_records(tmp_path)


WRONG_CELLS = [
    ("seed", "zero"), ("seed", -1), ("seed", True), ("seed", GONE), ("family", "sine"), ("family", GONE),
    ("family.name", 3), ("learner", 3), ("method", []), ("method.title", 3), ("method.title", GONE),
    ("method.settings", "x"), ("method.settings.tasks", "x"), ("method.settings.tasks", [1]),
    ("method.options", GONE), ("method.start", GONE), ("test_tasks", "many"), ("seeds_together", [0, "1"]),
    ("method.settings.inner_clip", 3), ("threads", 1.5),
]  # fmt: skip
WRONG_RESULTS = [
    ("scores", []), ("scores", {}), ("scores.sine", [["1.0"]]), ("scores.sine", [[1.0], [1.0, 2.0]]),
    ("scores.sine", [[{}]]), ("scores.sine", [[True]]), ("score", 3), ("score", GONE),
    ("higher_is_better", 1),
    ("seconds", "x"), ("seconds", GONE), ("diverged", 3), ("validations", [[1]]),
    ("validations", [["a", 1.0]]),
    ("validations", {}), ("curves", []), ("curves.query", [[1.0]]), ("curves.predictions", {"x": [1.0]}),
    ("rule_response", 3), ("rule_response.response.updates", [[1.0]]), ("rule_response.path.steps", [1]),
    ("versions", []), ("versions", {"torch": 2}), ("seeds_together", 3), ("peak_memory_bytes", "much"),
    ("protocol", []), ("engine", {}), ("summary", []), ("summary.ci95", [1.0]), ("batch_norm", 1),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), WRONG_CELLS + WRONG_RESULTS)
def test_a_value_of_another_kind_is_one_line_with_its_key(tmp_path, path, value):
    cell = synthetic.cell("maml", 0)
    result = synthetic.result(cell)
    if (path, value) in WRONG_CELLS:
        cell = at(cell, path, value)
    else:
        result = at(result, path, value)
    placed(tmp_path, cell, result)
    lines = []
    assert read_records(tmp_path, lines.append) == []
    (line,) = lines
    assert "\n" not in line
    assert any(part in line for part in path.split(".")) or path.startswith("scores")


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("result.json", b"[" * 100_000, "nests deeper than 64"),
        ("result.json", b'{"format": 1, "a": ' + b"9" * 5000 + b"}", "more than 19 digits"),
        ("result.json", b'{"format": 1, "score": "\\ud800"}', "half a character"),
        ("experiment.toml", b"a = " + b"[" * 100_000, "nests deeper than 64"),
        ("experiment.toml", b"a." * 100_000 + b"a = 1", "nests deeper than 64"),
    ],
)
def test_a_text_that_no_reader_should_build_is_one_line_of_every_command(
    metalearn, tmp_path, monkeypatch, file, text, told
):
    monkeypatch.setattr(record, "require_whole", lambda *_: None)  # sealed by whoever wrote it
    cell = synthetic.cell("maml", 0)
    folder = placed(tmp_path / "o", cell, synthetic.result(cell))
    (folder / file).write_bytes(text)
    for command in (("report",), ("claims",), ("archive", "--out", tmp_path / f"x{SUFFIX}")):
        code, _, err = metalearn(command[0], tmp_path / "o", *command[1:])
        assert (code, err.count("\n"), told in err) == (2, 2, True)
    code, _, err = metalearn("export", folder)
    assert (code, err.count("\n")) == (2, 1)


def packed(path, *members):
    with tarfile.open(path, "w:xz") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "name", ["/a/b/c/0/result.json", "../b/c/0/result.json", "a/b/0/result.json", "a/b/c/0/d/x"]
)
def test_a_member_out_of_its_place_is_refused(tmp_path, name):
    path = packed(tmp_path / f"x{SUFFIX}", (tarfile.TarInfo(name), b"{}"))
    with pytest.raises(DamagedError, match="is not <experiment>/<setting>/<method>/<seed>/<file>"):
        read_archived_runs(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_member_that_is_a_link_or_a_device_is_refused(tmp_path, kind):
    member = tarfile.TarInfo("a/b/c/0/result.json")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(DamagedError, match="is no file of at most"):
        read_archived_runs(packed(tmp_path / f"x{SUFFIX}", (member, b"")))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_that_go_on_in_other_headers_are_damage(tmp_path, kind):
    """tarfile follows each with a call inside the one before."""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 1
    (tmp_path / f"x{SUFFIX}").write_bytes(lzma.compress(3_000 * (header.tobuf() + bytes(512))))
    with pytest.raises(DamagedError, match="not an archive of records"):
        read_archived_runs(tmp_path / f"x{SUFFIX}")


def test_a_header_that_claims_any_length_is_damage(tmp_path):
    record_of_pax = b"99999999999999999999 a=b\n"
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, len(record_of_pax)
    data = header.tobuf() + record_of_pax.ljust(512, b"\0") + tarfile.TarInfo("y").tobuf()
    (tmp_path / f"x{SUFFIX}").write_bytes(lzma.compress(data))
    with pytest.raises(DamagedError, match="not an archive of records"):
        read_archived_runs(tmp_path / f"x{SUFFIX}")


def test_an_archive_is_unpacked_up_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 10_000)
    (tmp_path / f"x{SUFFIX}").write_bytes(lzma.compress(bytes(10_001)))
    with pytest.raises(DamagedError, match="unpacked it has more than 10000 bytes, and no more are read"):
        read_archived_runs(tmp_path / f"x{SUFFIX}")
    many = [(tarfile.TarInfo(f"a/b/c/{i}/result.json"), b"") for i in range(8)]
    packed(tmp_path / f"x{SUFFIX}", *many)
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 2**20)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 7)
    with pytest.raises(DamagedError, match="it has more than 7 members"):
        read_archived_runs(tmp_path / f"x{SUFFIX}")


def test_a_run_that_lies_elsewhere_in_an_archive_is_refused(tmp_path):
    found = synthetic.read(tmp_path / "o", [synthetic.cell("maml", 0)])
    write_archive(found, tmp_path / f"x{SUFFIX}")
    (run,) = read_archived_runs(tmp_path / f"x{SUFFIX}")
    files = {"experiment.toml": run.experiment, "result.json": run.result}
    members = [(tarfile.TarInfo(f"other/sine-5-shot/maml/0/{name}"), data) for name, data in files.items()]
    packed(tmp_path / f"x{SUFFIX}", *members)
    with pytest.raises(UsageError, match="it is of sine/sine-5-shot/maml/0 and lies elsewhere"):
        read_records(tmp_path / f"x{SUFFIX}")
    spoilt = bytearray(lzma.decompress((tmp_path / f"x{SUFFIX}").read_bytes()))
    second = spoilt.index(b"other/sine-5-shot/maml/0/result.json")
    spoilt[second] ^= 1
    (tmp_path / f"x{SUFFIX}").write_bytes(lzma.compress(bytes(spoilt)))
    with pytest.raises(DamagedError, match="what follows its last member is none"):
        read_archived_runs(tmp_path / f"x{SUFFIX}")


def test_linked_folders_are_read_alike_by_all_commands_and_circles_end(metalearn, tmp_path, monkeypatch):
    monkeypatch.setattr(run_command, "write_and_print_report", lambda *_: None)
    quick = ("run", "sine", "--scale", "smoke", "--tasks", 4, "-m", "maml", "--seeds", 1, "--workers", 1)
    assert metalearn(*quick, "--out", tmp_path / "elsewhere")[0] == 0
    linked = tmp_path / "o/sine"
    linked.mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere/sine/sine-5-shot", linked / "sine-5-shot")
    os.symlink(tmp_path / "o", linked / "again")
    code, out, err = metalearn(*quick, "--out", tmp_path / "o")
    assert (code, out.count("already done"), err) == (0, 1, "")
    assert len(read_records(tmp_path / "o")) == 1
    code, out, _ = metalearn("archive", tmp_path / "o", "--out", tmp_path / f"x{SUFFIX}")
    assert (code, ": 1 record, " in out) == (0, True)
    code, _, err = metalearn(*quick, "--steps", 2, "--out", tmp_path / "o")
    assert (code, err) == (0, "")  # a row of its own
    code, _, err = metalearn(*quick[:-6], "--tasks", 5, "-m", "maml", "--out", tmp_path / "o")
    assert (code, "it holds another experiment" in err) == (2, True)
    assert json.loads((linked / "sine-5-shot/maml/0/result.json").read_text())["diverged"] is None
