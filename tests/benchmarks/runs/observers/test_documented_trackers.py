"""The trackers that the documentation shows in full: run as they stand there, offline, where installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from metalearn_core import Event

PAGE = Path(__file__).parents[4] / "docs" / "trackers.md"
RUN = {
    "experiment": "sine", "setting": "sine-5-shot", "name": "maml", "seed": 0, "run_id": "0123abc",
    "resumed": False, "commit": None, "versions": {"torch": "2"}, "tags": ["sine", "maml"],
    "method": {"options": {"inner_lr": 0.01}, "settings": {"outer_lr": 0.001, "steps": 5}},
}  # fmt: skip
EVENTS = (
    Event("start", 0, {"tasks": 2, "resumed": 0.0}),
    Event("engine", 1, {"engine": "eager", "note": ""}),
    Event("step", 1, {"loss": 3.0, "outer_lr": 0.001}),
    Event("validation", 2, {"score": 2.0, "best": 2.0}),
    Event("result", 2, {"mean": 1.5, "median": 1.0, "score_after_0": 4.0}),
)


def documented(first_line, name):
    """The class of a block of the page."""
    (code,) = re.findall(rf"^```python\n({first_line}\n.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names[name]


def follow(tracker, run, events=EVENTS):
    followed = tracker(run)
    for event in events:
        followed(event)
    followed.close()


@pytest.mark.filterwarnings("default")
def test_mlflow_holds_the_run_and_goes_on_with_it(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracker = documented("import mlflow", "MLflow")
    follow(tracker, {**RUN, "folder": str(tmp_path)}, EVENTS[:4])
    follow(tracker, {**RUN, "folder": str(tmp_path), "resumed": True}, EVENTS[4:])
    (held,) = mlflow.search_runs(experiment_names=["sine"], output_format="list")
    assert held.data.params["inner_lr"] == "0.01"
    assert held.data.metrics["step/loss"] == 3.0
    assert held.data.metrics["result/score_after_0"] == 4.0
    assert held.info.status == "FINISHED"


@pytest.mark.filterwarnings("default")
def test_weights_and_biases_writes_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    follow(documented("import wandb", "WeightsAndBiases"), {**RUN, "folder": str(tmp_path)})
    (held,) = tmp_path.rglob("run-0123abc.wandb")
    assert b"step/loss" in held.read_bytes()
