"""Files that cannot be trusted: named, set aside, made anew; and the others go on."""

from __future__ import annotations

import io
import json
import random
import shutil
import tomllib
from multiprocessing import get_context

import pytest
import torch

from metalearn_benchmarks.cli import run
from metalearn_benchmarks.experiments.catalogue import Overrides, cells, find_experiment
from metalearn_benchmarks.records import quarantine
from metalearn_benchmarks.records import record as records
from metalearn_benchmarks.records.files import AnotherExperimentError
from metalearn_benchmarks.records.reading import read_records
from metalearn_benchmarks.report import page
from metalearn_benchmarks.runs.interruption import InterruptFlag
from metalearn_benchmarks.runs.job import run_job
from metalearn_benchmarks.runs.seed_groups import SeedGroup
from metalearn_benchmarks.runs.training import run_cells
from metalearn_core import UsageError

RUN = ("run", "sine", "--scale", "smoke", "--tasks", 60, "--engine", "eager", "--workers", 1)
PLACE = "sine/sine-5-shot"


def numbers(directory):
    """Everything that came out, without what depends on when and how fast it ran."""
    kept, found = ("scores", "summary", "validations", "best_position", "curves", "seeds_together"), {}
    for path in sorted(directory.rglob("result.json")):
        values = json.loads(path.read_text())
        lines = [json.loads(line) for line in path.with_name("metrics.jsonl").read_text().splitlines()]
        told = [{key: line[key] for key in ("position", "score", "best")} for line in lines]
        found[str(path.relative_to(directory))] = [told, {key: values[key] for key in kept}]
    return found


ARGUMENTS = (*RUN, "-m", "maml", "--seeds", 2, "--together", 2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two seeds of one method that trained together: a folder, never written to."""
    name, experiment = find_experiment("sine")
    asked = Overrides(methods=["maml"], seeds=2, tasks=60, engine="eager")
    directory = tmp_path_factory.mktemp("whole")
    run_cells(cells(name, experiment, "smoke", asked), directory, [])
    return directory


@pytest.fixture(autouse=True)
def _no_page(monkeypatch):
    """It takes seconds to draw, and `metalearn report` is tried below."""
    monkeypatch.setattr(run, "write_and_print_report", lambda directory, console: None)


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def saved(payload):
    file = io.BytesIO()
    torch.save(payload, file)
    return file.getvalue()


def without(key):
    def changed(good):
        payload = torch.load(io.BytesIO(good), weights_only=True)
        del payload[key]
        return saved(payload)

    return changed


def nonsense(good):
    payload = torch.load(io.BytesIO(good), weights_only=True)
    return saved({**payload, "now": {**payload["now"], "phi": {"no": "tensor"}}})


CHECKPOINTS = {
    "empty": (lambda good: b"", "cannot be read"),
    "text": (lambda good: b"not a checkpoint", "cannot be read"),
    "noise": (lambda good: random.Random(3).randbytes(5000), "cannot be read"),
    "half": (lambda good: good[: len(good) // 2], "cannot be read"),
    "wrong keys": (lambda good: saved({"format": 1, "weights": torch.zeros(3)}), "not of format 1"),
    "a key less": (without("best"), "not of format 1"),
    "nonsense": (nonsense, "not what a checkpoint holds"),
    "no fingerprint": (lambda good: saved({**dict.fromkeys(torch.load(io.BytesIO(good), weights_only=True)),
                                           "format": 1}), "not what a checkpoint holds"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_damaged_checkpoint_is_set_aside_and_its_run_begins_anew(metalearn, whole, copy, case):
    """One of two seeds that trained together: the other is not touched, and all ends in the same bits."""
    damage, told = CHECKPOINTS[case]
    folder = copy / PLACE / "maml/1"
    (folder / "result.json").unlink()
    path = folder / "checkpoint.pt"
    path.write_bytes(bad := damage(path.read_bytes()))
    other = (copy / PLACE / "maml/0/result.json").stat().st_mtime_ns
    code, _, err = metalearn(*ARGUMENTS, "--out", copy)
    assert (code, err.count("\n")) == (0, 1)
    assert f"{path}: {told}" in err
    assert "set aside as checkpoint.pt.damaged-1" in err
    assert (folder / "checkpoint.pt.damaged-1").read_bytes() == bad
    assert numbers(copy) == numbers(whole)
    assert (copy / PLACE / "maml/0/result.json").stat().st_mtime_ns == other


def test_a_checkpoint_of_another_run_is_set_aside_too(metalearn, whole, copy):
    folder = copy / PLACE / "maml/1"
    foreign = (copy / PLACE / "maml/0/checkpoint.pt").read_bytes()
    for _ in range(2):
        (folder / "result.json").unlink()
        (folder / "checkpoint.pt").write_bytes(foreign)
        code, _, err = metalearn(*ARGUMENTS, "--out", copy)
        assert (code, err.count("\n")) == (0, 1)
        assert "it is of another run: origin is" in err
    assert [(folder / f"checkpoint.pt.foreign-{n}").read_bytes() for n in (1, 2)] == [foreign] * 2
    assert numbers(copy) == numbers(whole)


def test_a_checkpoint_of_a_newer_version_is_left_alone(metalearn, whole, copy):
    folder = copy / PLACE / "maml/1"
    (folder / "result.json").unlink()
    (folder / "checkpoint.pt").write_bytes(newer := saved({"format": 3}))
    code, _, err = metalearn(*ARGUMENTS, "--out", copy)
    assert (code, err.count("\n")) == (1, 1)
    assert "maml, seed 1: checkpoint" in err
    assert "of format 3, and this version reads 1" in err
    assert (folder / "checkpoint.pt").read_bytes() == newer
    assert not list(copy.rglob("*-1"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 1}',
        b'{"format": "x"}',
        b'{"format": 1, "scores": {"sine": []}}',
        b"\xff",
    ],
)
def test_a_damaged_result_is_set_aside_and_made_again(metalearn, whole, copy, content):
    path = copy / PLACE / "maml/1/result.json"
    path.write_bytes(content)
    code, out, err = metalearn(*ARGUMENTS, "--out", copy)
    assert (code, err.count("\n")) == (0, 1)
    assert f"{path}: " in err
    assert "set aside as result.json.damaged-1" in err
    assert path.with_name("result.json.damaged-1").read_bytes() == content
    assert numbers(copy) == numbers(whole)
    assert out.count("already done") == 1


def test_a_flipped_bit_in_a_number_is_seen_by_the_checksum(whole, copy):
    path = copy / PLACE / "maml/1/result.json"
    data = path.read_bytes()
    assert records.has_valid_checksum(path.parent)
    assert list(json.loads(data))[-1] == "crc32"
    at = data.index(b"0.") + 2
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert not records.has_valid_checksum(path.parent)


@pytest.mark.parametrize("content", [None, b"", b"seed = ", b"\xff", b"seed = 1\n"])
def test_without_its_experiment_nothing_in_the_folder_is_trusted(metalearn, whole, copy, content):
    folder = copy / PLACE / "maml/1"
    path = folder / "experiment.toml"
    held = {name: (folder / name).read_bytes() for name in ("checkpoint.pt", "result.json", "metrics.jsonl")}
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    code, _, err = metalearn(*ARGUMENTS, "--out", copy)
    assert code == 0, err
    assert err.count("\n") == (3 if content is None else 4)
    for name, data in held.items():
        assert (folder / f"{name}.damaged-1").read_bytes() == data
    found, wanted = numbers(copy), numbers(whole)
    record = f"{PLACE}/maml/1/result.json"
    assert found[record][1].pop("seeds_together") == [1]  # nobody can tell that it had trained with another
    assert wanted[record][1].pop("seeds_together") == [0, 1]
    assert found == wanted


@pytest.mark.parametrize("content", [b"\xff\n", b"{}\n", b"[]\n", b"{", b'{"position": "x", "seconds": 1}\n'])
def test_a_damaged_log_is_set_aside_and_written_again(metalearn, whole, copy, content):
    folder = copy / PLACE / "maml/1"
    (folder / "result.json").unlink()
    first = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)[0]
    (folder / "metrics.jsonl").write_bytes(first + content)
    code, _, err = metalearn(*ARGUMENTS, "--out", copy)
    assert (code, err.count("\n")) == (0, 1)
    assert "metrics.jsonl: " in err
    assert (folder / "metrics.jsonl.damaged-1").read_bytes() == first + content
    assert numbers(copy) == numbers(whole)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    known = [None, None] if content == b"\xff\n" else [lines[0]["seconds"], None]
    assert [line["seconds"] for line in lines][:2] == known


def test_a_record_of_a_newer_version_is_named_and_left_alone(metalearn, whole, copy):
    path = copy / PLACE / "maml/1/result.json"
    path.write_text(newer := '{"format": 3, "scores": "otherwise"}')
    before = {p: p.read_bytes() for p in path.parent.iterdir()}
    code, _, err = metalearn(*ARGUMENTS, "--out", copy)
    assert code == 1
    assert "maml, seed 1: " in err
    assert path.read_text() == newer
    assert {p: p.read_bytes() for p in path.parent.iterdir() if p.name != ".lock"} == {
        p: data for p, data in before.items() if p.name != ".lock"
    }
    with pytest.raises(UsageError, match="format 3"):
        read_records(copy)


def test_a_report_names_what_it_leaves_out_and_goes_on(metalearn, copy, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(page, "write_report", lambda found, target, *rest: target)
    for seed, content in ((2, "{"), (3, '{"format": 3}')):
        shutil.copytree(copy / PLACE / "maml/1", copy / PLACE / f"maml/{seed}")
        (copy / PLACE / f"maml/{seed}/result.json").write_text(content)
    code, out, err = metalearn("report", copy)
    assert (code, err.count("\n")) == (0, 2)
    assert "MAML" in out
    damaged, newer = err.splitlines()
    assert "maml/2/result.json: cannot be read" in damaged
    assert "maml/3/result.json: a record of format 3" in newer
    assert "another version of metalearn wrote it, a newer one (left out)" in newer


def test_records_that_are_whole_are_neither_read_nor_compared_one_by_one(metalearn, copy, monkeypatch):
    """What makes a second run over a thousand records quick."""
    monkeypatch.setattr(records, "read_record", None)
    parsed, loads = [], tomllib.loads
    monkeypatch.setattr(tomllib, "loads", lambda text: parsed.append(text) or loads(text))
    code, out, err = metalearn(*ARGUMENTS, "--out", copy)
    assert (code, out.count("already done"), err) == (0, 2, "")
    assert (
        len({text for text in parsed if "seeds_together" in text}) == 1
    )  # the other differs in its seed alone


def test_what_another_command_began_meanwhile_with_other_numbers_ends_this_one(copy):
    """Both found an empty folder; this one had to wait for the other."""
    name, experiment = find_experiment("sine")
    asked = cells(name, experiment, "smoke", Overrides(methods=["maml"], seeds=1, tasks=50, engine="eager"))
    held = {path: path.read_bytes() for path in copy.rglob("[!.]*.*")}
    with pytest.raises(AnotherExperimentError, match=r"settings\.tasks is 60 .* and 50 here"):
        run_job(
            SeedGroup(tuple(asked), (0,)),
            copy,
            lambda label, event: None,
            InterruptFlag(get_context("spawn")),
        )
    assert held == {path: path.read_bytes() for path in copy.rglob("[!.]*.*")}


def test_what_is_set_aside_takes_no_name_that_is_taken(tmp_path, capsys):
    for content in "abc":
        (tmp_path / "file").write_text(content)
        quarantine.quarantine(tmp_path / "file", "bad")
    assert [(tmp_path / f"file.damaged-{n}").read_text() for n in (1, 2, 3)] == list("abc")
    assert capsys.readouterr().err.count("\n") == 3
