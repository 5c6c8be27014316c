"""What a record says of where it was made: the commit, the machine, and the memory of this run alone."""

from __future__ import annotations

import os
import subprocess

import pytest
import torch

from metalearn_benchmarks.host import machine
from metalearn_benchmarks.runs.results import provenance


def git(folder, *arguments):
    own = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    run = subprocess.run(
        ["git", *who, *arguments], cwd=folder, env=own, check=True, capture_output=True, text=True
    )  # fmt: skip
    return run.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository that has this package's file in it, and a copy that git ignores."""
    (tmp_path / "package").mkdir()
    (tmp_path / "environment").mkdir()
    for folder in ("package", "environment"):
        (tmp_path / folder / "provenance.py").write_text("")
    (tmp_path / ".gitignore").write_text("environment\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")

    def commit_of(folder):
        monkeypatch.setattr(provenance, "__file__", str(tmp_path / folder / "provenance.py"))
        return provenance.commit()

    return tmp_path, commit_of


def test_the_commit_is_that_of_the_checkout_and_says_whether_it_was_changed(checkout):
    folder, commit_of = checkout
    head = git(folder, "rev-parse", "HEAD")
    assert commit_of("package") == head
    (folder / "package/provenance.py").write_text("changed = True")
    assert commit_of("package") == f"{head}-dirty"


def test_an_environment_within_another_repository_has_no_commit(checkout, tmp_path_factory):
    _, commit_of = checkout
    assert commit_of("environment") is None
    assert commit_of(tmp_path_factory.mktemp("nowhere")) is None


def test_the_peak_of_memory_is_of_what_came_since():
    large = torch.ones(100_000_000)  # 400 MB
    before = machine.peak_memory()
    del large
    provenance.reset_peak(torch.device("cpu"))
    after = machine.peak_memory()
    assert before - after > 200e6
    large = torch.ones(100_000_000)
    assert machine.peak_memory() - after > 200e6
    del large


def test_the_machine_has_a_name_and_cores(monkeypatch):
    assert machine.processor()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert machine.cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores() == os.cpu_count()
