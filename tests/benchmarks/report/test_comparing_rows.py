"""Marks of a table: only where the records bear them; runs that cannot be compared are refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.report.tables.building import result_tables
from metalearn_benchmarks.report.tables.text import LATEX, MARKDOWN, render_table, rich_table
from metalearn_core import UsageError


def record(method, seed, finals, *, up=False, test_family="sine", diverged=None, folder=None, **options):
    """A record in memory, of one inner step."""
    cell = {
        "experiment": "e", "setting": "s", "name": method, "seed": seed,
        "family": {"name": "sine", "options": {"support": 5, **options}},
        "method": {"title": method.title(), "start": "meta", "settings": {"task_seed": 0}},
    }  # fmt: skip
    scores = [[0.0, None if not np.isfinite(x) else float(x)] for x in finals]
    result = {
        "score": "error", "higher_is_better": up, "seconds": 1.0, "diverged": diverged,
        "scores": {test_family: scores},
    }  # fmt: skip
    return Record(Path(folder or f"e/s/{method}/{seed}"), cell, result)


def runs(method, centre, *, seeds=8, tasks=60, spread=0.05, **more):
    """Runs that differ by seed and task, the tasks' part the same for every method."""
    of_tasks = np.random.default_rng(1).exponential(size=tasks)
    generator = np.random.default_rng([sum(map(ord, method)), seeds])
    return [
        record(method, seed, centre + of_tasks + spread * generator.normal(), **more) for seed in range(seeds)
    ]


def marks(*methods, **more):
    (table,) = result_tables([run for of_method in methods for run in of_method], **more)
    return {row.method: "best" if row.best else "tied" if row.tied else "" for row in table.rows}, table


def test_a_row_that_is_better_than_every_other_is_best():
    found, table = marks(runs("a", 1.0), runs("b", 2.0), runs("c", 3.0))
    assert found == {"a": "best", "b": "", "c": ""}
    assert table.rows[0].difference_from_best is None
    assert [row.difference_from_best.value for row in table.rows[1:]] == pytest.approx([1, 2], abs=0.2)
    # tasks differ far more than methods do: only paired differences tell the rows apart
    assert all(row.difference_from_best.standard_error < 0.1 < row.mean.value for row in table.rows[1:])


@pytest.mark.parametrize("up", [False, True])
def test_rows_that_cannot_be_told_from_the_best_mean_are_tied_with_it(up):
    sign = -1 if up else 1
    found, table = marks(
        runs("a", sign * 1.0, up=up), runs("b", sign * 1.001, up=up), runs("c", sign * 3.0, up=up)
    )
    assert found == {"a": "tied", "b": "tied", "c": ""}
    assert [row.method for row in table.rows][2] == "c"
    assert "≈" in table.caption


def test_where_nothing_can_be_told_nothing_is_marked():
    found, table = marks(runs("a", 1.0), runs("b", 1.001))
    assert set(found.values()) == {""}
    assert "the records do not say which is" in table.caption


def test_one_seed_marks_nothing():
    found, table = marks(runs("a", 1.0, seeds=1), runs("b", 9.0, seeds=1))
    assert set(found.values()) == {""}
    assert "that takes several seeds" in table.caption
    assert "over test tasks" in table.caption


def test_many_rows_ask_for_more():
    # each pair alone is told apart at 5 %, but not each of 40
    others = [runs(f"m{k}", 1.0 + 0.055, spread=0.05) for k in range(40)]
    _, table = marks(runs("a", 1.0, spread=0.01), *others, runs("z", 9.0))
    apart = [row for row in table.rows[1:] if row.difference_from_best.p_value() < 0.05]
    assert [row for row in apart if row.tied]
    assert all(row.adjusted_p >= row.difference_from_best.p_value() for row in table.rows[1:])


@pytest.mark.nightly
@pytest.mark.parametrize("rows", [2, 5, 9])
def test_rows_that_are_alike_are_seldom_told_apart(rows):
    """The best of them is chosen from the same records that it is then held against."""
    generator, wrong = np.random.default_rng(4), 0
    for _ in range(300):
        table = [
            [
                record(f"m{row}", seed, 1 + generator.normal() + 0.1 * generator.normal(size=20))
                for seed in range(10)
            ]
            for row in range(rows)
        ]
        found, _ = marks(*table)
        wrong += any(found.values())
    assert wrong / 300 <= 0.075


def test_scores_that_are_not_finite_are_told_and_stand_last():
    lost = runs("a", 1.0)
    lost[3] = record("a", 3, [np.nan, *([1.0] * 59)], diverged="at 10")
    found, table = marks(lost, runs("b", 2.0), runs("c", 3.0))
    # one score of 480 moves no median; of the mean, which accuracies are ordered by, it leaves nothing
    assert found == {"a": "best", "b": "", "c": ""}
    assert np.isfinite(table.rows[0].median.value)
    assert not np.isfinite(table.rows[0].mean.value)
    assert "1 of 480 scores are not finite and count as the worst" in table.caption
    assert "A: 1 of 8 runs diverged" in table.caption
    up = [record("a", run.seed, run.final, up=True) for run in lost]
    found, table = marks(up, runs("b", 2.0, up=True), runs("c", 3.0, up=True))
    assert found == {"c": "best", "b": "", "a": ""}
    assert [row.method for row in table.rows] == ["c", "b", "a"]


def test_a_run_that_never_learned_decides_no_order():
    """Of ten runs one is stuck: the others are ahead, and the count says that one is not."""
    stuck = [*runs("a", 1.0, seeds=9, spread=0.01), record("a", 9, np.full(60, 20.0))]
    found, table = marks(stuck, runs("b", 1.2, seeds=10, spread=0.01))
    assert table.rows[0].mean.value > table.rows[1].mean.value
    assert found == {"a": "best", "b": ""}
    assert [row.never_learned for row in table.rows] == [1, 0]
    assert "typical error is the mean over the middle half" in table.caption


def test_rows_are_compared_at_each_t_alone():
    """As an experiment with an axis T has them: one row with a T of its own is compared with the others."""

    def at(method, centre, steps, own=0):
        for run in runs(method, centre):
            scores = np.repeat(run.final[:, None], (own or steps) + 1, axis=1)
            name = f"{method},steps={steps}" if steps != 5 else method
            cell = dict(run.cell, name=name)
            yield Record(Path(f"e/s/{name}/{run.seed}"), cell, dict(run.result, scores={"sine": scores}))

    groups = [at("a", 1.0, 5), at("a", 0.5, 10), at("b", 2.0, 5, own=8), at("b", 0.1, 10)]
    (table,) = result_tables([run for group in groups for run in group])
    found = [[(row.method, row.steps, row.best) for row in group] for group in table.groups]
    assert found == [
        [("a", 5, True), ("b", 8, False)], [("b,steps=10", 10, True), ("a,steps=10", 10, False)]
    ]  # fmt: skip
    assert table.groups[1][1].difference_from_best.value == pytest.approx(0.4, abs=0.1)
    assert "and from the first at the same T" in table.caption


def test_the_reader_chooses_what_differences_are_taken_from():
    (table,) = result_tables([*runs("a", 1.0), *runs("b", 2.0), *runs("c", 2.001)], against="b")
    a, b, c = sorted(table.rows, key=lambda row: row.method)
    assert table.rows[0] is a
    assert table.reference == "B"
    assert b.difference is None
    assert a.difference.value == pytest.approx(-b.difference_from_best.value)
    assert (a.differs, b.differs, c.differs) == (True, False, False)
    assert [row.method for row in table.rows if row.reference] == ["b"]
    # what is best does not depend on what a reader compares with
    (usual,) = result_tables([*runs("a", 1.0), *runs("b", 2.0), *runs("c", 2.001)])
    assert [(row.best, row.tied, row.apart) for row in usual.rows] == [
        (row.best, row.tied, row.apart) for row in table.rows
    ]


def test_fewer_comparisons_need_less_correction():
    """The best row is found among all pairs; a chosen row is compared with the others alone."""
    levels = {"a": 1.0, "b": 1.07, "c": 3.0, "d": 3.0}
    (table,) = result_tables(
        [run for name, level in levels.items() for run in runs(name, level)], against="a"
    )
    second = table.rows[1]
    p = second.difference.p_value()
    assert 0.05 / 6 < p < 0.05
    assert (second.method, second.differs, second.apart) == ("b", True, False)


def test_rows_without_a_common_seed_are_not_told_apart():
    other = [record("b", seed + 100, run.final) for seed, run in enumerate(runs("b", 9.0))]
    found, table = marks(runs("a", 1.0), other)
    assert table.rows[1].difference_from_best is None
    assert set(found.values()) == {""}


@pytest.mark.parametrize(
    ("other", "key", "values"),
    [
        (lambda: runs("a", 1.0, tasks=50), "test_tasks", {"60", "50"}),
        (lambda: runs("a", 1.0, support=10), "family.options.support", {"5", "10"}),
        (lambda: runs("a", 1.0, query=3), "family.options.query", {"None", "3"}),
    ],
)
def test_runs_on_other_tasks_are_refused_by_what_differs(other, key, values):
    """Whether they are runs of one method or of two."""
    second = [record("b", run.seed, run.final, **options_of(run)) for run in other()]
    for mixed in ([*runs("a", 1.0), *second], [*runs("a", 1.0, seeds=2), *other()[2:]]):
        with pytest.raises(UsageError, match="were tested on different tasks") as caught:
            result_tables(mixed)
        told = re.search(rf"{re.escape(key)} is (\S+) and (\S+);", str(caught.value))
        assert set(told.groups()) == values


def test_runs_on_other_pixels_are_refused():
    """A font or a library of another version draws other images under the same name."""
    ours, theirs = runs("a", 1.0), runs("b", 1.0)
    for run in (*ours, *theirs):
        run.result["data"] = {"glyphs": "one" if run.method == "a" else "other"}
    with pytest.raises(UsageError, match=r"tested on different tasks: data of glyphs is 'o\w+' and 'o\w+'"):
        result_tables([*ours, *theirs])


def options_of(run):
    return {k: v for k, v in run.cell["family"]["options"].items() if (k, v) != ("support", 5)}


def test_a_run_that_is_there_twice_is_refused():
    (first,) = runs("a", 1.0, seeds=1)
    twin = record("a", 0, first.final, folder="copy/e/s/a/0")
    with pytest.raises(UsageError, match="e/s/a/0 and copy/e/s/a/0 are the same run"):
        result_tables([first, twin])


@pytest.mark.parametrize("way", ["t", "bootstrap", "paper"])
def test_no_table_is_without_interval_seeds_and_tasks(way, capsys):
    from rich.console import Console

    _, table = marks(runs("a", 1.0), runs("b", 1.0), runs("c", 4.0), interval_method=way)
    Console(width=140, force_terminal=False).print(rich_table(table))
    written, printed = (render_table(table, MARKDOWN), render_table(table, LATEX)), capsys.readouterr().out
    for text in (*written, printed):
        for row in table.rows:
            parts = re.split(r"\n(?=\|)|\\\\\n|[│┩┓]\n", text)
            (line,) = [part for part in parts if row.title in part and "method" not in part][:1]
            assert len(re.findall(r"\[-?[\d.]+, -?[\d.]+\]", line)) >= (1 if text == printed else 2)
            assert re.search(r"\b8\b.*\b60\b", line, re.DOTALL), line
    assert "**A** ≈" in render_table(table, MARKDOWN)
    assert r"\textbf{A} $\approx$" in render_table(table, LATEX)


def test_what_the_papers_way_leaves_out_is_told():
    outlier = [*runs("a", 1.0, seeds=9), record("a", 9, [50.0] * 60)]
    _, table = marks(outlier, runs("b", 2.0), interval_method="paper")
    assert "A: the paper's way leaves 1, 1, 1 of 10 runs out" in table.caption


def test_few_seeds_in_a_bootstrap_are_warned_of():
    assert "too narrow" in marks(runs("a", 1.0, seeds=3), interval_method="bootstrap")[1].caption
    assert "too narrow" not in marks(runs("a", 1.0, seeds=12), interval_method="bootstrap")[1].caption
