"""`--protocol authors`: what the authors' program does otherwise than the text."""

from __future__ import annotations

import copy
import tomllib

import pytest
import torch

from metalearn_benchmarks.experiments.catalogue import Overrides, cells, find_experiment
from metalearn_benchmarks.records.record import read_record
from metalearn_benchmarks.runs import evaluation
from metalearn_benchmarks.runs.components import Components
from metalearn_benchmarks.runs.resolution import resolve_cell
from metalearn_benchmarks.runs.training import run_cells
from metalearn_core import Trained, UsageError

CLAMP = {"by": "value", "limit": 10.0}


def run_of(method, experiment="sine", **given):
    name, found = find_experiment(experiment)
    overrides = Overrides(methods=[method], protocol="authors", seeds=1, **given)
    return cells(name, found, "smoke", overrides)[0]


@pytest.mark.parametrize("method", ["maml", "fo-maml", "turtle", "fo-turtle"])
def test_maml_and_turtle_are_clamped_where_t_is_above_1_and_phi_is_not(method):
    cell = run_of(method, steps=5)
    settings = resolve_cell(cell)["method"]["settings"]
    assert (settings["inner_clip"], settings["outer_clip"]) == (CLAMP, CLAMP)
    assert (settings["outer_clip_scope"], settings["outer_loss"]) == ("initialisation", "sum")
    one = resolve_cell(run_of(method, steps=1))["method"]["settings"]
    assert not {"inner_clip", "outer_clip"} & one.keys()
    assert cell.name == f"{method},protocol=authors"


def test_the_lstm_divides_by_the_support_size_and_keeps_its_bound():
    name, experiment = find_experiment("figure-3.3")
    overrides = Overrides(methods=["lstm"], protocol="authors", seeds=1, steps=5)
    found = cells(name, experiment, "smoke", overrides)
    assert [cell.method.options["candidate_scale"] for cell in found] == [1 / 5, 1 / 10]
    for cell in found:
        assert cell.method.settings["outer_clip"] == {"by": "norm", "limit": 0.25}
        assert "inner_clip" not in cell.method.settings


def test_the_history_has_the_present_gradient_in_it():
    cell = run_of("turtle-history-of-gradients", "turtle-inputs")
    assert cell.method.options["history_timing"] == "program"
    assert "history_timing" not in run_of("turtle").method.options


@pytest.mark.parametrize("history", ["grad", "update"])
def test_a_history_of_processed_gradients_is_refused(metalearn, tmp_path, history):
    """Their program averages what is processed, and cannot average updates; the rule here does otherwise."""
    (tmp_path / "x.toml").write_text(
        "title = 'x'\nmethods = ['mine']\nfamily.name = 'sine'\nlearner.name = 'mlp'\n"
        "[settings]\nsteps = 1\ntasks = 2\n"
        "[method.mine]\nextends = 'turtle'\ntitle = 'mine'\n"
        f"options = {{ preprocess = 'log', history = '{history}' }}\n"
        "[scale.smoke]\nseeds = 1\ntest_tasks = 2\n"
    )
    run = ("run", tmp_path / "x.toml", "--scale", "smoke", "--protocol", "authors", "--out", tmp_path / "o")
    code, _, err = metalearn(*run)
    assert (code, err.count("\n")) == (2, 1)
    assert "averages processed gradients" in err


@pytest.mark.parametrize(
    ("method", "experiment", "told"),
    [("turtle-loss", "turtle-inputs", "the loss for a constant"), ("alfa", "sine", "has no rule 'alfa'")],
)
def test_what_it_cannot_be_is_refused(method, experiment, told):
    with pytest.raises(UsageError, match=told):
        run_of(method, experiment)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[settings]\nmeta_batch = 1", "authors' program clips where T > 1: say steps"),
        ("[settings]\nsteps = 'five'", "steps must be an integer >= 0, got 'five'"),
        (
            "[settings]\nsteps = 5\n[method.mine]\nextends = 'lstm'\ntitle = 'mine'",
            "say support, or ways and shots",
        ),
    ],
)
def test_what_it_needs_to_know_is_one_clear_line(metalearn, tmp_path, text, told):
    method = "mine" if "mine" in text else "maml"
    (tmp_path / "x.toml").write_text(
        f"title = 'x'\nmethods = ['{method}']\nfamily.name = 'sine'\nlearner.name = 'mlp'\n{text}\n"
        "[scale.smoke]\nseeds = 1\ntest_tasks = 2\n"
    )
    run = ("run", tmp_path / "x.toml", "--scale", "smoke", "--protocol", "authors", "--out", tmp_path / "o")
    code, _, err = metalearn(*run)
    assert (code, err.count("\n")) == (2, 1)
    assert told in err


def test_what_is_not_meta_trained_is_the_same_in_both(metalearn, tmp_path):
    assert run_of("finetuning").name == "finetuning"
    assert resolve_cell(run_of("finetuning"))["method"]["protocol"] == "paper"


@pytest.mark.parametrize(
    ("method", "rule", "start"),
    [("maml", "best", "best"), ("turtle", "last", "best"), ("lstm", "last", "last")],
)
def test_the_state_that_is_tested_is_the_programs(method, rule, start):
    """Only of MAML does the program restore all; of TURTLE θ⁰ without φ; of the LSTM nothing."""
    cell = run_of(method)
    parts = Components.build(cell)
    trained = Trained.begin(
        parts.rule, parts.learner, parts.settings, torch.Generator().manual_seed(0), parts.family
    )
    phi = copy.deepcopy(trained.rule.state_dict())
    theta = trained.theta.detach().clone()
    trained.best = trained.snapshot(1.0)
    with torch.no_grad():
        trained.theta += 1
        for parameter in trained.rule.parameters():
            parameter += 1
    found, begin = evaluation.tested_state(cell, trained)
    ahead = {"best": 0.0, "last": 1.0}
    torch.testing.assert_close(begin, theta + ahead[start])
    assert not begin.requires_grad
    for key, value in found.state_dict().items():
        torch.testing.assert_close(value, phi[key] + ahead[rule])


def test_a_record_says_its_protocol_and_runs_again_as_it_was(tmp_path):
    cell = run_of("turtle", tasks=20)
    run_cells([cell], tmp_path, [])
    folder = tmp_path / cell.folder
    assert folder.parent.name == "turtle,protocol=authors"
    assert read_record(folder).result["protocol"] == "authors"
    assert tomllib.loads((folder / "experiment.toml").read_text())["method"]["protocol"] == "authors"


def test_the_command_runs_both_ways_side_by_side(metalearn, tmp_path):
    quick = ("run", "sine", "--scale", "smoke", "--tasks", 20, "-m", "maml", "--out", tmp_path)
    assert metalearn(*quick)[0] == 0
    code, out, _ = metalearn(*quick, "--protocol", "authors")
    assert code == 0
    assert "MAML (protocol=authors)" in out
    again = tmp_path / "sine/sine-5-shot/maml,protocol=authors/0/experiment.toml"
    assert metalearn("run", again, "--out", tmp_path / "again")[0] == 0
    place = "sine/sine-5-shot/maml,protocol=authors/0"
    one, other = (read_record(folder / place) for folder in (tmp_path, tmp_path / "again"))
    assert one.result["scores"]["sine"].tolist() == other.result["scores"]["sine"].tolist()
