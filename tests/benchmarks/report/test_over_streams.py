"""Methods over streams of tasks, in a report: the numbers are those of the records, each stream has a say."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import synthetic_records as synthetic

from metalearn_benchmarks.report.page import write_report
from metalearn_benchmarks.report.tables.over_streams import stream_tables

LEVELS = {
    "maml": lambda stream, steps: 1.0,
    "turtle": lambda stream, steps: 0.5 if steps == 5 else 2.0,
    "lstm": lambda stream, steps: 0.6 if stream < 2 else 1.4,  # another story on the last stream
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three methods, T = 5 and 1, six seeds on each of three streams."""
    made = tmp_path_factory.mktemp("streams")
    for (method, level), steps, stream, seed in itertools.product(LEVELS.items(), (5, 1), range(3), range(6)):
        name = method if steps == 5 else f"{method},steps=1"
        setting = "sine-5-shot" if stream == 0 else f"sine-5-shot,task_seed={stream}"
        cell = synthetic.cell(name, seed, method=method, setting=setting, task_seed=stream, steps=steps)
        synthetic.write(made, cell, level=level(stream, steps))
    return made


@pytest.fixture(scope="module")
def records(folder):
    return synthetic.read(folder, [])


def test_the_numbers_are_those_of_the_records(records):
    (table,) = stream_tables(records)
    assert (table.setting, [*table.streams]) == ("sine-5-shot", [0, 1, 2])
    row = next(row for row in table.rows if row.method == "maml")
    medians = sorted(float(np.median(r.final)) for r in records if r.method == "maml")
    assert row.runs == len(medians) == 18
    assert row.typical_error == pytest.approx(np.mean(medians[4:-4]))
    for stream, value in zip(table.streams, row.by_stream, strict=True):
        own = sorted(
            float(np.median(r.final))
            for r in records
            if r.method == "maml" and r.cell["method"]["settings"]["task_seed"] == stream
        )
        assert value == pytest.approx(np.mean(own[1:-1]))


def test_told_apart_takes_every_stream(records):
    (table,) = stream_tables(records, "maml")
    rows = {row.method: row for row in table.rows}
    assert rows["maml"].contrast is rows["maml,steps=1"].contrast is None
    assert rows["turtle"].apart
    assert rows["turtle"].contrast.ratio().value == pytest.approx(0.5, rel=0.1)
    assert rows["turtle,steps=1"].apart  # told apart, and behind
    assert not rows["lstm"].apart
    assert [row.steps for row in table.rows] == [1, 1, 1, 5, 5, 5]


def test_one_stream_and_a_method_that_lacks_one_are_left_out(records):
    first = [r for r in records if r.cell["method"]["settings"]["task_seed"] == 0]
    assert stream_tables(first) == []
    lacking = [r for r in records if r.method != "lstm" or r in first]
    (table,) = stream_tables(lacking)
    assert "lstm" not in {row.method for row in table.rows}


def test_it_is_printed_and_on_the_page_and_in_json(folder, records, metalearn, tmp_path, quick_figures):
    page = write_report(records, tmp_path / "report").read_text()
    assert "sine: sine-5-shot, over 3 streams" in page
    code, out, err = metalearn("report", folder, "--against", "maml", "--out", tmp_path / "again")
    assert (code, err) == (0, "")
    assert "sine: sine-5-shot, over 3 streams" in out
    assert "alike on every stream" in " ".join(out.split())
    code, out, _ = metalearn("report", folder, "--against", "maml", "--json", "--out", tmp_path / "again")
    (table,) = json.loads(out)["over_streams"]
    rows = {row["method"]: row for row in table["rows"]}
    assert rows["turtle"]["told_apart"] is True
    assert rows["maml"]["ratio"] is None
    assert rows["lstm"]["by_stream"]["2"] > 1.2
