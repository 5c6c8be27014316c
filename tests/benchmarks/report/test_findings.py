"""The sentence that a report opens with: never more than the marks of its table say."""

from __future__ import annotations

import re

import numpy as np
import pytest
import synthetic_records as synthetic
from test_comparing_rows import record, runs

from metalearn_benchmarks.report.page import write_report
from metalearn_benchmarks.report.tables.building import result_tables
from metalearn_benchmarks.report.tables.findings import findings, opening
from metalearn_benchmarks.report.tables.grids import grid_of_settings, grid_of_steps


def tables_of(*methods):
    return result_tables([run for of_method in methods for run in of_method])


@pytest.mark.parametrize("up", [False, True])
def test_a_method_that_is_ahead_of_all_is_said_to_be(up):
    best, second = (2.0, 1.0) if up else (1.0, 2.0)
    (table,) = tables_of(runs("a", best, up=up), runs("b", second, up=up))
    (found,) = findings(table)
    assert found.decided
    name = "highest mean error" if up else "lowest typical error"
    said = re.fullmatch(
        rf"A has the {name}, [\d.]+ \[[\d., ]+\], and is ahead of B, by ([\d.]+) \[([\d.]+), ([\d.]+)\]\."
        r"( \d+ of its 8 seeds never learned\.)?",
        found.text,
    )
    by, low, high = map(float, said.groups()[:3])
    assert 0 < low < by < high
    assert by == pytest.approx(1, abs=0.1)
    assert opening([table]) == found.text


def test_a_tie_is_told():
    (found,) = findings(*tables_of(runs("a", 1.0), runs("b", 1.001), runs("c", 3.0)))
    assert found.partly
    assert not found.decided
    assert "is ahead of C, and cannot be told from" in found.text


@pytest.mark.parametrize(("seeds", "others"), [(1, 2), (8, 1)])
def test_where_the_records_do_not_tell_no_method_is_ahead(seeds, others):
    apart = 9.0 if seeds == 1 else 1.001
    rest = [runs(name, apart, seeds=seeds) for name in "bc"[:others]]
    (found,) = findings(*tables_of(runs("a", 1.0, seeds=seeds), *rest))
    assert (found.decided, found.partly) == (False, False)
    assert found.text.startswith("These records do not tell which method is best")
    assert "ahead" not in found.text


def test_one_seed_tells_runs_apart_and_not_methods():
    (table,) = tables_of(runs("a", 1.0, seeds=1), runs("b", 9.0, seeds=1))
    (found,) = findings(table)
    apart = table.rows[1].difference_from_best
    bounds = apart.interval()
    lead = f"{apart.value:.3f} [{bounds.low:.3f}, {bounds.high:.3f}]"
    assert found.text.removesuffix(" Its only seed never learned.") == (
        f"On one seed each, A is ahead of B by {lead}, paired over 60 test tasks."
        " It takes more seeds to tell methods apart."
    )
    assert not found.decided


def test_runs_of_one_seed_that_are_equal_are_not_told_apart():
    first, second = runs("a", 1.0, seeds=1), runs("b", 1.0, seeds=1)
    noise = np.random.default_rng(0).normal(size=60)
    (found,) = findings(*tables_of(first, [record("b", 0, second[0].final + noise - noise.mean())]))
    assert re.search("(A is better than B|B is better than A) by", found.text)
    assert "that may be chance" in found.text


def test_of_several_comparisons_the_opening_has_the_counts():
    decided = tables_of(runs("a", 1.0), runs("b", 2.0))
    open_ = tables_of(runs("a", 1.0), runs("b", 1.001))
    assert opening([*decided, *open_]) == (
        "Of 2 comparisons, 1 has one method ahead of all others beyond chance, 0 have one ahead of some, and"
        " 1 is undecided."
    )
    assert opening([*open_, *open_]).startswith("In none of 2 comparisons")


@pytest.fixture(scope="module")
def axes(tmp_path_factory):
    """Two methods by T and by shots, on two seeds."""
    found = []
    for shots in (1, 5):
        for method in ("maml", "turtle"):
            for steps in (5, 10):
                name = method if steps == 5 else f"{method},steps=10"
                found += [
                    synthetic.cell(
                        name,
                        seed,
                        experiment="shots",
                        setting=f"sine-{shots}-shot",
                        method=method,
                        steps=steps,
                    )
                    for seed in (0, 1)
                ]
    return synthetic.read(tmp_path_factory.mktemp("axes"), found)


def test_an_experiment_with_axes_is_a_grid(axes, tmp_path):
    tables = result_tables(axes)
    grid = grid_of_steps(tables[0])
    assert grid.columns == ["T = 5", "T = 10"]
    assert {title: [row.method for row in cells] for title, cells in grid.lines} == {
        "MAML": ["maml", "maml,steps=10"], "TURTLE": ["turtle", "turtle,steps=10"],
    }  # fmt: skip
    over = grid_of_settings(tables)
    assert over.columns == ["1-shot", "5-shot"]
    assert {(title, *(row.method for row in cells)) for title, cells in over.lines} == {
        (title, name, name)
        for title, name in (
            ("MAML", "maml"), ("MAML (steps=10)", "maml,steps=10"),
            ("TURTLE", "turtle"), ("TURTLE (steps=10)", "turtle,steps=10"),
        )
    }  # fmt: skip
    page = write_report(axes, tmp_path).read_text()
    assert page.count('<table class="grid">') == 3
    assert "Methods are compared within a column" in page
    assert "means little yet" not in page


def test_a_table_without_axes_is_no_grid():
    (table,) = tables_of(runs("a", 1.0), runs("b", 2.0))
    assert grid_of_steps(table) is None
    assert grid_of_settings([table]) is None


def test_a_page_has_what_concerns_its_rows(tmp_path):
    """Deviations of images and of the LSTM say nothing to one who ran MAML alone."""
    small = {**synthetic.cell("maml", 0, tasks=200), "scale": "smoke"}
    found = synthetic.read(tmp_path / "in", [small])
    page = write_report(found, tmp_path / "out").read_text()
    assert "Clipping of MAML and TURTLE" in page
    assert "Clipping of the LSTM" not in page
    assert "Clipping of the LSTM" in (tmp_path / "out/deviations.md").read_text()
    assert 'id="paper"' not in page
    assert "scale smoke; 200 meta-training tasks; 20 test tasks; run on cpu: x86_64" in page
    assert "<p>200 tasks of training, scale smoke: the order of the methods means little yet.</p>" in page


def test_a_table_of_one_method_is_not_called_undecided(tmp_path):
    alone = [
        synthetic.cell("maml", seed, setting=f"sine-{n}-shot", experiment="one")
        for n in (5, 10)
        for seed in (0, 1)
    ]
    page = write_report(synthetic.read(tmp_path / "in", alone), tmp_path / "out").read_text()
    assert "undecided" not in page
    assert (
        page.count("MAML has no other method beside it; its typical error is") == 4
    )  # listed, and above each
