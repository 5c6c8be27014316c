"""The files of a record say which run they are of; those of earlier versions are read all the same."""

from __future__ import annotations

import json

import pytest
import synthetic_records as made

from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.files import DamagedError
from metalearn_benchmarks.records.metrics_log import MetricsLog
from metalearn_core import Event

OWN = {"experiment": "sine", "setting": "sine-5-shot", "method": "maml", "seed": 0}


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_finished_run_names_itself(finished):
    (path,) = finished.glob("sine/*/maml/1/result.json")
    own = {**OWN, "seed": 1}
    result = json.loads(path.read_text())
    assert {key: result[key] for key in own} == own
    told = lines(path.parent)
    assert len(told) > 1
    assert all({key: line[key] for key in own} == own for line in told)
    assert len({line["run_id"] for line in told}) == 1


def test_two_runs_have_two_ids(finished):
    logs = list(finished.glob("*/*/*/*/metrics.jsonl"))
    assert len({lines(path.parent)[0]["run_id"] for path in logs}) == len(logs) == 4


def test_a_log_of_an_earlier_version_goes_on_and_gets_the_names(tmp_path):
    path = tmp_path / "metrics.jsonl"
    old = {"position": 0, "seconds": 1.5, "score": 3.0, "best": 3.0}
    path.write_text(json.dumps(old) + "\n")
    log = MetricsLog(path, OWN)
    assert log.resumed
    assert log.earlier_seconds == 1.5
    log(Event("validation", 4, {"score": 2.0, "best": 2.0}))
    first, second = lines(tmp_path)
    assert first == {**OWN, "run_id": log.run_id, **old}
    assert (second["position"], second["score"], second["method"]) == (4, 2.0, "maml")


def test_the_id_of_a_run_stays_when_it_goes_on(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", OWN)
    assert not log.resumed
    log(Event("validation", 0, {"score": 2.0, "best": 2.0}))
    again = MetricsLog(tmp_path / "metrics.jsonl", OWN)
    assert (again.resumed, again.run_id) == (True, log.run_id)
    assert again.lines == log.lines


def test_a_result_without_names_is_read(tmp_path):
    folder = made.write(tmp_path, made.cell("maml", 0))
    assert "method" not in json.loads((folder / "result.json").read_text())
    assert record.read_record(folder).method == "maml"


@pytest.mark.parametrize(("key", "other"), [("method", "turtle"), ("seed", 3), ("setting", "elsewhere")])
def test_a_result_that_names_another_run_is_refused(tmp_path, key, other):
    folder = made.write(tmp_path, made.cell("maml", 0), **{**OWN, key: other})
    with pytest.raises(DamagedError, match=f"it is of {key} {other!r}"):
        record.read_record(folder)
    folder = made.write(tmp_path, made.cell("maml", 0), **OWN)
    assert record.read_record(folder).seed == 0
