from __future__ import annotations

import functools
import os
import tomllib
from pathlib import Path

import hypothesis
import pytest
import torch

torch.set_num_threads(1)


def _ours() -> list[str]:
    """The entry points of this checkout's distributions."""
    root = Path(__file__).parents[1]
    files = [root / "benchmarks/pyproject.toml", *root.glob("plugins/*/pyproject.toml")]
    return [
        name
        for path in sorted(files)
        for name in tomllib.loads(path.read_text())["project"]["entry-points"]["metalearn"]
    ]


# tables are as wide as in a log, whoever runs the tests
os.environ.pop("COLUMNS", None)
os.unsetenv("COLUMNS")  # pytest loads readline, which sets it behind Python's back
# whatever else is installed is not loaded; a test that installs something takes the variable away
os.environ["METALEARN_LOAD_PLUGINS"] = ",".join(_ours())
# derandomized: a run repeats, and what it finds is found again
for name, examples in {"ci": 200, "nightly": 1_000, "theory": 20_000}.items():
    hypothesis.settings.register_profile(
        name,
        deadline=None,
        derandomize=True,
        max_examples=examples,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile("ci")  # `--hypothesis-profile=nightly` for more examples


@pytest.fixture(autouse=True)
def _no_leaks_between_tests():
    """A test that changes torch's global state is a bug of that test."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    yield
    assert torch.get_default_dtype() is dtype
    assert torch.is_grad_enabled()
    torch.set_num_threads(threads)


@pytest.fixture
def unshrunk():
    """Counterexamples are looked for, not made small: what matters is that there is one."""
    profile = hypothesis.settings.get_current_profile_name()
    parent = hypothesis.settings.get_profile("ci")
    generate = [hypothesis.Phase.generate]
    hypothesis.settings.register_profile("unshrunk", parent, phases=generate)
    hypothesis.settings.load_profile("unshrunk")
    yield
    hypothesis.settings.load_profile(profile)


@pytest.fixture
def quick_figures(monkeypatch):
    """Every figure of a report is one empty picture: to draw them takes longer than most tests."""
    from metalearn_benchmarks.report import page, sections  # tests of the core alone do without them

    monkeypatch.setattr(sections, "render", lambda figure, ending, salt: _empty(ending))
    monkeypatch.setattr(page, "_rule_map", _empty_rule_map())


@functools.cache
def _empty_rule_map():
    """A memory of its own: pictures that are kept are not to meet the empty ones in another test."""
    from metalearn_benchmarks.report import page

    return functools.cache(page._rule_map.__wrapped__)


@functools.cache
def _empty(ending: str) -> bytes:
    from matplotlib.figure import Figure

    from metalearn_benchmarks.plotting.rendering import render

    return render(Figure(), ending, "empty")
