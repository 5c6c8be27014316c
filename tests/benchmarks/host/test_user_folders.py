"""The user's folders: where they are by default on Linux, and the variables that move them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metalearn_benchmarks.host.user_folders import cache_folder, data_folder

CASES = [
    (cache_folder, "XDG_CACHE_HOME", ".cache"), (data_folder, "XDG_DATA_HOME", ".local/share"),
]  # fmt: skip


@pytest.mark.parametrize(("folder", "variable", "below"), CASES)
def test_a_variable_moves_it(monkeypatch, tmp_path, folder, variable, below):
    for base in (str(tmp_path), "here/relative", " "):
        monkeypatch.setenv(variable, base)
        assert folder() == Path(base, "metalearn")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
@pytest.mark.parametrize(("folder", "variable", "below"), CASES)
def test_the_usual_place(monkeypatch, tmp_path, folder, variable, below):
    monkeypatch.setenv("HOME", str(tmp_path))
    for base in (None, ""):
        monkeypatch.delenv(variable, raising=False) if base is None else monkeypatch.setenv(variable, base)
        assert folder() == tmp_path / below / "metalearn"
    assert not list(tmp_path.iterdir())
