"""Records, statistics, tables, figures and the page."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil

import numpy as np
import pytest
from synthetic_records import change_result

from metalearn_benchmarks.records.files import write_atomically
from metalearn_benchmarks.records.reading import read_records
from metalearn_benchmarks.report.page import write_report
from metalearn_benchmarks.report.tables import building
from metalearn_benchmarks.statistics import summaries
from metalearn_core import UsageError


def test_intervals_by_hand():
    # Student's t at 3 degrees of freedom, 97.5 %: 3.182446
    estimate = summaries.mean([1.0, 2.0, 3.0, 6.0])
    half = 3.182446 * np.std([1, 2, 3, 6], ddof=1) / 2
    assert estimate.value == 3.0
    assert estimate.low == pytest.approx(3 - half, rel=1e-6)
    assert estimate.high == pytest.approx(3 + half, rel=1e-6)
    # the binomial test at n = 10 leaves out one value on each side: P(X <= 1) = 11/1024 <= 0.025
    interval = summaries.median(np.arange(10.0))
    assert (interval.value, interval.low, interval.high) == (4.5, 1.0, 8.0)
    assert np.isnan(summaries.mean([1.0]).low)


def test_intervals_cover_what_they_should():
    generator = np.random.default_rng(0)
    samples = generator.exponential(size=(400, 60))
    for estimator, truth in ((summaries.mean, 1.0), (summaries.median, np.log(2))):
        covered = np.mean([e.low <= truth <= e.high for e in map(estimator, samples)])
        assert 0.90 <= covered <= 0.99


def test_intervals_are_over_seeds_only_where_there_are_seeds(finished):
    (table,) = building.result_tables(read_records(finished))
    over = {row.method: (row.intervals_over, row.seeds) for row in table.rows}
    assert over == {
        "maml": ("seeds", 2), "turtle": ("seeds", 2), "train-from-scratch": ("test tasks", 1),
    }  # fmt: skip
    assert "over seeds or test tasks" in table.caption


def test_every_number_of_the_table_follows_from_the_scores(finished):
    (table,) = building.result_tables(read_records(finished))
    for row in table.rows:
        finals = []
        for path in sorted(finished.glob(f"sine/sine-5-shot/{row.method}/*/result.json")):
            finals.append([scores[-1] for scores in json.loads(path.read_text())["scores"]["sine"]])
        assert row.seeds == len(finals)
        assert row.mean.value == pytest.approx(np.mean(finals))
        assert row.median.value == pytest.approx(np.mean([np.median(final) for final in finals]))
        # of fewer than four runs none is left out
        assert row.headline.value == pytest.approx(row.median.value)
        assert row.never_learned == sum(np.mean(f) > 3.9 and np.median(f) > 3 for f in finals)
    assert [row.headline.value for row in table.rows] == sorted(row.headline.value for row in table.rows)


def test_the_page_is_one_file_with_everything_and_nothing_from_elsewhere(finished, tmp_path):
    page = write_report(read_records(finished), tmp_path, unfinished=2).read_text()
    assert "2 run(s) are begun and not finished" in page
    # the first two, of the setting, of its rules, Figure 3.3, the map
    assert page.count("<svg") == 2 + 5 + 2 + 1 + 3
    assert not re.search(r"""(src|href)\s*=\s*["'](https?:|//)""", page)
    for needle in ("MAML", "TURTLE", "Train from scratch", "inner_clip", "prefers-color-scheme"):
        assert needle in page, needle
    for path in finished.rglob("result.json"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in page
    ids = re.findall(r'<clipPath id="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "figures share ids and would clip each other"
    beside = {path.suffix for path in tmp_path.iterdir()}
    assert beside == {".html", ".md", ".tex", ".png", ".pdf"}
    assert "| MAML |" in next(tmp_path.glob("*.md")).read_text()
    assert r"\begin{tabular}" in next(tmp_path.glob("*.tex")).read_text()


def test_the_same_records_give_the_same_page(finished, tmp_path):
    found = read_records(finished)
    pages = [write_report(found, tmp_path / name).read_bytes() for name in ("one", "two")]
    assert pages[0] == pages[1]


def test_the_best_stands_first_whichever_way_is_up(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    (table,) = building.result_tables(read_records(tmp_path / "copy"))
    assert "mean squared error" in table.caption
    assert "lower is better" in table.caption
    for path in (tmp_path / "copy").rglob("result.json"):
        change_result(path.parent, score="accuracy", higher_is_better=True)
    (upward,) = building.result_tables(read_records(tmp_path / "copy"))
    assert [row.method for row in upward.rows] == [row.method for row in reversed(table.rows)]
    assert "accuracy" in upward.caption
    assert "higher is better" in upward.caption


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read"),
        ("[]", "another version"),
        ('{"format": 99}', "another version"),
        ('{"format": 1}', "damaged"),
        ('{"format": 1, "scores": {"sine": []}}', "damaged"),
    ],
)
def test_a_broken_or_newer_record_is_named(finished, tmp_path, content, told):
    shutil.copytree(finished, tmp_path / "copy")
    victim = next((tmp_path / "copy").rglob("result.json"))
    victim.write_text(content)
    with pytest.raises(UsageError, match=told) as caught:
        read_records(tmp_path / "copy")
    assert str(victim) in str(caught.value)


def test_a_folder_without_a_finished_run_is_refused_with_what_is_in_it(metalearn, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("result.json"):
        path.unlink()
    code, _, err = metalearn("report", tmp_path / "copy")
    assert code == 2
    assert "no finished run is in it (5 begun)" in err


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_atomically(tmp_path / "file", "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left on device"):
        write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
