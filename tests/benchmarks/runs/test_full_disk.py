"""Disks that are full and folders that are read-only: one line, nothing lost, and the command goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from metalearn_benchmarks.cli import run as run_command
from metalearn_benchmarks.experiments.catalogue import Overrides, cells, find_experiment
from metalearn_benchmarks.runs.training import run_cells

RUN = ("run", "sine", "--scale", "smoke", "--tasks", 60, "--engine", "eager")
ONE = (*RUN, "-m", "maml", "--workers", 1)


def numbers(directory):
    kept = ("scores", "summary", "validations", "curves")
    return {
        str(path.relative_to(directory)): {key: json.loads(path.read_text())[key] for key in kept}
        for path in sorted(directory.rglob("result.json"))
    }


@pytest.fixture(autouse=True)
def _no_page(monkeypatch):
    monkeypatch.setattr(run_command, "write_and_print_report", lambda directory, console: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    name, experiment = find_experiment("sine")
    directory = tmp_path_factory.mktemp("whole")
    asked = Overrides(methods=["maml"], tasks=60, engine="eager")
    run_cells(cells(name, experiment, "smoke", asked), directory, [])
    return directory


@pytest.mark.parametrize(
    ("file", "writes"),
    [
        *(("experiment.toml", 0), ("metrics.jsonl", 0), ("metrics.jsonl", 1)),
        *(("checkpoint.pt", 0), ("checkpoint.pt", 2), ("result.json", 0)),
    ],
)
def test_full_at_any_write_it_says_so_in_a_line_and_goes_on(
    metalearn, tmp_path, monkeypatch, whole, file, writes
):
    """The disk takes the file so many times, and then nothing of it any more."""
    left, real = [writes], os.replace

    def replace(source, target):
        left[0] -= Path(target).name == file
        if left[0] < 0:
            raise OSError(28, os.strerror(28))
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        code, _, err = metalearn(*ONE, "-m", "turtle", "--out", tmp_path)  # the second one is not begun
    assert (code, err.count("\n")) == (2, 1), err
    assert f"maml/0/{file}: cannot be written (No space left on device)" in err
    assert not list(tmp_path.rglob("*.tmp"))
    assert (tmp_path / "sine/sine-5-shot/maml/0/checkpoint.pt").exists() == (
        writes > 0 or file == "result.json"
    )
    assert not (tmp_path / "sine/sine-5-shot/turtle").exists()
    assert metalearn(*ONE, "--out", tmp_path)[0] == 0
    assert numbers(tmp_path) == numbers(whole)


@pytest.fixture
def disk(tmp_path):
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here: it takes root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def run(directory, *arguments):
    program = (
        "from metalearn_benchmarks.cli import main, run; run.write_and_print_report = lambda *_: None; main()"
    )
    command = [sys.executable, "-c", program, *map(str, (*RUN, *arguments, "--out", directory))]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.nightly
def test_a_disk_that_is_full_in_truth(disk, tmp_path):
    """Two workers, and seeds that train together."""
    arguments = ("-m", "maml", "-m", "turtle", "--seeds", 2, "--together", 2, "--workers", 2)
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        file.write(bytes(2**21 - 100 * 2**10))  # a part of what they need is left
    full = run(disk / "out", *arguments)
    assert full.returncode == 2, full.stderr
    assert "cannot be written (No space left on device)" in full.stderr
    assert full.stderr.count("\n") == 1
    filler.unlink()
    again = run(disk / "out", *arguments)
    assert again.returncode == 0, again.stderr
    assert run(tmp_path / "whole", *arguments).returncode == 0
    assert numbers(disk / "out") == numbers(tmp_path / "whole")
    assert len(numbers(disk / "out")) == 4


def test_a_folder_that_is_read_only(disk, metalearn):
    assert metalearn(*ONE, "--out", disk / "out")[0] == 0
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for place in (disk / "out", disk / "other"):
        code, out, err = metalearn(*ONE, "--out", place)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"{place}: cannot be written (Read-only file system)" in err
        assert "use another --out" in err
