"""A record's own experiment.toml, run again, gives the same scores."""

from __future__ import annotations

import json
import tomllib

import click
import pytest
import tomli_w
from click.core import ParameterSource

from metalearn_benchmarks.cli import app, run
from metalearn_benchmarks.runs import recompute

SMOKE = ("run", "sine", "--scale", "smoke", "--workers", 1)
QUICK = (*SMOKE, "--tasks", 30)


@pytest.fixture(autouse=True)
def _no_page(monkeypatch):
    monkeypatch.setattr(run, "write_and_print_report", lambda directory, console: None)


def same_scores(one, other):
    kept = ("scores", "summary", "validations", "curves", "seeds_together", "engine")
    found = [{key: json.loads((f / "result.json").read_text())[key] for key in kept} for f in (one, other)]
    assert found[0] == found[1]
    assert (one / "experiment.toml").read_text() == (other / "experiment.toml").read_text()


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        (("-m", "maml"), "maml"),
        (("-m", "finetuning"), "finetuning"),
        (("-m", "lstm-enhanced", "--steps", 2, "--order", "first"), "lstm-enhanced,steps=2,order=first"),
        (("--rule", "lstm", "--option", "hidden=2"), "lstm,hidden=2"),
    ],
)
def test_the_same_scores_come_out(metalearn, tmp_path, arguments, method):
    rows = ("-m", "maml") if "--rule" in arguments else ()
    assert metalearn(*QUICK, *rows, *arguments, "--out", tmp_path / "one")[0] == 0
    place = f"sine/sine-5-shot/{method}/0"
    code, _, err = metalearn("run", tmp_path / "one" / place / "experiment.toml", "--out", tmp_path / "two")
    assert code == 0, err
    same_scores(tmp_path / "one" / place, tmp_path / "two" / place)
    assert len(list((tmp_path / "two").rglob("result.json"))) == 1


@pytest.mark.parametrize(
    ("method", "engine"),
    [
        ("maml", "eager"),
        *(pytest.param(m, "compiled", marks=pytest.mark.nightly) for m in ("maml", "turtle")),
    ],
)
def test_of_seeds_that_trained_as_one_program_one_is_computed_in_its_place(
    metalearn, tmp_path, method, engine
):
    arguments = ("--seeds", 3, "--together", 3, "--engine", engine, "--steps", 1, "-m", method)
    assert metalearn(*QUICK, *arguments, "--out", tmp_path / "one")[0] == 0
    place = f"sine/sine-5-shot/{method},steps=1/1"
    code, _, err = metalearn("run", tmp_path / "one" / place / "experiment.toml", "--out", tmp_path / "two")
    assert code == 0, err
    same_scores(tmp_path / "one" / place, tmp_path / "two" / place)
    assert json.loads((tmp_path / "two" / place / "result.json").read_text())["seeds_together"] == [0, 1, 2]
    assert [path.parent.name for path in (tmp_path / "two").rglob("checkpoint.pt")] == ["1"]


@pytest.fixture
def told(finished):
    return finished / "sine/sine-5-shot/maml/1/experiment.toml"


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--seeds", 3), ("-m", "maml"), ("--scale", "small"), ("--steps", 5), ("--order", "first")),
        *(("--tasks", 9), ("--engine", "eager"), ("--threads", 1), ("--device", "cpu"), ("--together", 2)),
        ("--rule", "lstm"),
    ],
)
def test_an_option_that_would_make_another_run_is_refused(metalearn, tmp_path, told, arguments):
    code, _, err = metalearn("run", told, *arguments, "--out", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    option = {"-m": "--method"}.get(arguments[0], arguments[0])
    assert f"{option}: {told} says all of one run" in err
    assert not (tmp_path / "out").exists()


def test_what_may_be_said_are_options_of_the_command():
    assert {parameter.name for parameter in app.metalearn.commands["run"].params} >= recompute.ALLOWED_OPTIONS
    context = click.Context(app.metalearn.commands["run"])
    for name in recompute.ALLOWED_OPTIONS:
        context.set_parameter_source(name, ParameterSource.COMMANDLINE)
    recompute.require_no_other_options(context, "a/experiment.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"sine": "00ab"}}, "it saw the data of sine with checksum 00ab, here they have None"),
        ({"seeds_together": [0, 2]}, "seeds_together must be a list of seeds with 1 in it, got [0, 2]"),
        ({"seeds_together": 1}, "seeds_together must be a list of seeds"),
        ({"seed": "1", "seeds_together": ["1"]}, "key 'seed': expected int, got '1'"),
        ({"name": "../maml"}, "method '../maml' names a folder"),
        ({"colour": "red"}, "colour"),
        ({"family": {"name": "sin"}}, "unknown task family 'sin': did you mean 'sine'?"),
    ],
)
def test_a_file_that_was_changed_by_hand_is_refused(metalearn, tmp_path, told, change, message):
    path = tmp_path / "experiment.toml"
    path.write_text(tomli_w.dumps({**tomllib.loads(told.read_text()), **change}))
    code, _, err = metalearn("run", path, "--out", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not list((tmp_path / "out").rglob("*.toml"))


def test_an_experiment_is_none(tmp_path):
    (tmp_path / "mine.toml").write_text("title = 'x'\nsetting = 'y'\n")
    (tmp_path / "broken.toml").write_text("[")
    for name in ("sine", "missing.toml", "broken.toml", "mine.toml"):
        assert recompute.read_recorded_cell(name if name == "sine" else str(tmp_path / name)) is None
