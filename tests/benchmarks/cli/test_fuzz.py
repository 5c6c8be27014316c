"""Command lines, experiments and records that nobody would write: each ends with one line and a known code.

A few examples in CI's tier, hundreds in the nightly one. Nothing is trained: what would run is refused.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import synthetic_records as synthetic
from command_runs import SMALL_EXPERIMENT
from hypothesis import given, settings
from hypothesis import strategies as st
from undrawn import without_figures

from metalearn_benchmarks.cli import app
from metalearn_benchmarks.records.cell_file import write_cell
from metalearn_benchmarks.runs import runner
from metalearn_core import UsageError

TIERS = [pytest.param(20, id="few"), pytest.param(300, id="many", marks=pytest.mark.nightly)]
ODD = st.text(st.characters(exclude_characters="\0"), max_size=12)
WORDS = st.sampled_from(
    """
    run report claims archive records export map plugins data families methods experiments list show validate
    new prepare verify zoo demo turtle-sine --against
    sine figure-3.2 --help -h --version --json --out --to out --scale smoke -m maml --rule
    lstm --option hidden=3 --seeds 3 --steps -1 --only * --order first --no-plugins --device cpu --all
    --statistics paper --size 84 cub . nowhere --protocol authors --together auto --observe --threads
    10000000000000000000000 --tasks nan -- - = hidden={ --option=x=[ [red]
    """.split()  # noqa: SIM905 - a list would be a page
)


@pytest.fixture(scope="module", autouse=True)
def _nothing_runs():
    def refuse(*_given):
        raise UsageError("nothing is run here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "run_experiment", refuse)
        without_figures(patch)
        yield


def ends_well(*words, prepare=lambda folder: None):
    """Run the command in a folder of its own."""
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name, "here")
        folder.mkdir()
        patch.chdir(folder)
        prepare(folder)
        patch.setattr(sys, "argv", ["metalearn", *words])
        with redirect_stdout(out), redirect_stderr(err):
            try:
                app.main()
                code = 0
            except SystemExit as end:
                code = end.code
        assert [path.name for path in Path(name).iterdir()] == ["here"]
    told = err.getvalue()
    assert code in (0, 1, 2, 130), (words, told)
    assert "Traceback" not in told + out.getvalue()
    assert not set(told + out.getvalue()) & {"\x1b", "\x07", "\x9b", "\u202e"}
    if code == 2:
        lines = told.splitlines()
        assert lines, words
        assert all(line.startswith("metalearn: ") for line in lines), told
        assert sum(not line.endswith("(left out)") for line in lines) == 1, told


@pytest.mark.parametrize("examples", TIERS)
def test_any_command_line_ends_well(examples):
    @settings(max_examples=examples)
    @given(st.lists(st.one_of(WORDS, WORDS, WORDS, ODD), max_size=6))
    def check(words):
        # what computes for minutes has tests of its own
        if not {"speed", "check"} & set(words):
            ends_well(*(word.encode("utf-8", "replace").decode() for word in words))

    check()


EXPERIMENT = f"{SMALL_EXPERIMENT}[axes]\nsteps = [1, 2]".strip().split("\n")
VALUES = st.sampled_from(
    ["-1", "0", "1e400", "nan", '""', '"\\u001b[2J$\\n"', "[]", "{}", "[[]]", "true", "[1, 'a']",
     '"../../x"', '"/x"', '"maml"', "{ a = { b = 1 } }", "'''\n'''", "9" * 400, '"\\u0000"', '"sine"']
)  # fmt: skip


@st.composite
def experiments(draw):
    """The experiment with some lines changed, dropped, doubled or made up."""
    lines = list(EXPERIMENT)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        key = lines[at].partition("=")[0]
        lines[at : at + 1] = draw(
            st.one_of(
                st.just([]),
                st.just([lines[at]] * 2),
                VALUES.map(lambda value, key=key: [f"{key}= {value}"]),
                ODD.map(lambda text: [text]),
            )
        )
        lines = lines or [""]
    return "\n".join(lines)


@pytest.mark.parametrize("examples", TIERS)
def test_any_experiment_file_ends_well(examples):
    @settings(max_examples=examples)
    @given(experiments())
    def check(text):
        ends_well(
            "run", "mine.toml", "--scale", "smoke", "--out", "out",
            prepare=lambda folder: (folder / "mine.toml").write_text(text, "utf-8", "replace"),
        )  # fmt: skip

    check()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), ODD, st.just("../../x")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(ODD, inner, max_size=3)),
    max_leaves=4,
)


@pytest.mark.parametrize("examples", TIERS)
@pytest.mark.parametrize("command", ["report", "claims"])
def test_any_record_ends_well(examples, command):
    cell = synthetic.cell("maml", 0, test_tasks=3)
    result = {"format": 1, **synthetic.result(cell, points=2)}

    @settings(max_examples=examples)
    @given(st.dictionaries(st.sampled_from(sorted(result)), JSON, min_size=1, max_size=2), st.booleans())
    def check(changes, drop):
        found = {key: value for key, value in result.items() if key not in changes}
        text = json.dumps(found if drop else {**found, **changes})

        def prepare(folder):
            run = folder / "out/sine/sine-5-shot/maml/0"
            write_cell(run, cell)
            (run / "result.json").write_text(text)

        ends_well(command, "out", prepare=prepare)

    check()
