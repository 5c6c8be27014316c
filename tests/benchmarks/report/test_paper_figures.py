"""The paper's figures and numbers beside records that are made up, so that what must come out is known."""

from __future__ import annotations

import math
import tomllib

import attrs
import numpy as np
import pytest
import synthetic_records as synthetic
from matplotlib.figure import Figure
from scipy import stats
from undrawn import without_map

from metalearn_benchmarks.claims import published
from metalearn_benchmarks.experiments import catalogue
from metalearn_benchmarks.plotting.rendering import inline_svg, render
from metalearn_benchmarks.plotting.style import styles_by_method
from metalearn_benchmarks.records import record as records
from metalearn_benchmarks.report import page as report
from metalearn_benchmarks.report.figures import rule_figures, setting_figures
from metalearn_benchmarks.report.figures.drawing import draw_figure
from metalearn_benchmarks.report.figures.setting_figures import error_by_step
from metalearn_benchmarks.report.grouping import cross_family_records
from metalearn_benchmarks.report.page import write_report
from metalearn_benchmarks.report.paper import figures
from metalearn_benchmarks.report.paper.drawing import draw_depths

DEPTHS, SEEDS = (0, 1, 3), (0, 1)


def grid(experiment="anything", **changed):
    """TURTLE over depth, order and T, and MAML."""
    cells = []
    for order in ("first", "second"):
        for steps in (1, 5):
            for seed in SEEDS:
                same = {"experiment": experiment, "order": order, "steps": steps, **changed}
                for depth in DEPTHS:
                    name, hidden = f"t{depth}{order}{steps}", {"hidden": [20] * depth}
                    cells.append(synthetic.cell(name, seed, method="turtle", options=hidden, **same))
                cells.append(synthetic.cell(f"m{order}{steps}", seed, method="maml", **same))
    return cells


def bars(figure):
    """Label to the heights of its marks, panel by panel."""
    return [
        {c.get_label(): [float(y) for y in c.lines[0].get_ydata()] for c in axes.containers}
        for axes in figure.axes
    ]


def test_figure_3_2_is_found_by_content_and_shows_the_best_validation(tmp_path):
    found, missing = figures.paper_figures(synthetic.read(tmp_path, grid(), level=0.5))
    (figure,) = [one for one in found if one.stem == "figure-3.2"]
    assert [axes.get_title() for axes in figure.figure.axes] == ["T = 1", "T = 5"]
    assert [t.get_text() for t in figure.figure.axes[-1].get_xticklabels()] == ["MAML", "0", "1", "3"]
    for panel in bars(figure.figure):
        assert panel == {
            f"{name}, {order} order": pytest.approx([0.5] * count)
            for name, count in (("MAML", 1), ("TURTLE", 3))
            for order in ("first", "second")
        }
    assert "2 seed(s)" in figure.caption
    assert not any(one.title == "Figure 3.2" for one in missing)


def test_a_run_in_two_experiments_counts_once_and_one_of_another_size_apart(tmp_path):
    twice = [*grid("one"), *grid("two")]
    (figure,) = (f for f in all_of(tmp_path / "a", twice) if f.stem.startswith("figure-3.2"))
    assert "2 seed(s)" in figure.caption
    assert "left out" not in figure.caption
    sizes = [*grid("one"), *grid("two", tasks=500)]
    stems = [f.stem for f in all_of(tmp_path / "b", sizes) if f.stem.startswith("figure-3.2")]
    assert stems == ["figure-3.2", "figure-3.2-2"]
    clipped = [*grid("one"), *grid("two", outer_clip={"by": "norm", "limit": 1.0})]
    (figure,) = (f for f in all_of(tmp_path / "c", clipped) if f.stem.startswith("figure-3.2"))
    assert f"{len(grid())} run(s) that differ from these in other settings are left out" in figure.caption


def test_figure_3_2_has_a_panel_for_a_t_with_two_depths_alone(tmp_path):
    alone = [
        synthetic.cell("m20", 0, experiment="long", method="maml", order="second", steps=20),
        synthetic.cell("t20", 0, experiment="long", method="turtle", options={"hidden": [20] * 9}, steps=20),
    ]
    (figure,) = (f for f in all_of(tmp_path, [*grid(), *alone]) if f.stem.startswith("figure-3.2"))
    assert [axes.get_title() for axes in figure.figure.axes] == ["T = 1", "T = 5"]
    assert [t.get_text() for t in figure.figure.axes[-1].get_xticklabels()] == ["MAML", "0", "1", "3"]


def test_a_figure_tells_which_protocol_its_runs_followed(tmp_path):
    runs = synthetic.read(tmp_path, grid(), protocol="authors")
    assert "protocol=authors" in figures.paper_figures(runs)[0][0].caption
    assert "protocol" not in all_of(tmp_path / "other", grid())[0].caption


def test_an_interval_of_errors_that_reaches_below_0_runs_off_a_logarithmic_axis():
    """Two seeds a factor of 8 apart have an interval far below 0; a linear axis would hide small errors."""
    values = {(1, "second", 5): [0.5, 4.0], (2, "second", 5): [0.3, 0.32]}
    (axes,) = draw_depths(values, [1, 2]).axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] == pytest.approx(0.8 * 0.3)
    (axes,) = draw_depths({key: [0.3, 0.32] for key in values}, [1, 2]).axes
    assert axes.get_yscale() == "linear"


def all_of(folder, cells, **given):
    return figures.paper_figures(synthetic.read(folder, cells, **given))[0]


@pytest.mark.parametrize(
    "changed",
    [
        {"options": {"hidden": [10, 10]}},
        {"options": {"history": "grad"}},
        {"options": {"learn_lr": "parameter"}},
        {"options": {"inputs": ["grad", "loss"]}},
        {"family": "glyphs"},
        {"test_steps": 10},
        {"truncate": 2},
        {"outer_decay": 0.5},
        {"warm_up": 0.5},
    ],
)
def test_another_rule_or_task_is_not_in_figure_3_2(tmp_path, changed):
    options = {"hidden": [20], **changed.pop("options", {})}
    cells = [
        synthetic.cell("a", 0, method="turtle", options={"hidden": [20] * 5}),
        synthetic.cell("b", 0, method="turtle", options=options, **changed),
    ]
    found, missing = figures.paper_figures(synthetic.read(tmp_path, cells))
    assert found == []
    assert [one.title for one in missing] == ["Figure 3.2", "Figure 3.3", "Figure 3.4"]
    assert all("no such records" in one.reason for one in missing)


def test_figure_3_3_shows_what_is_typical_of_seeds_of_the_median_over_tasks(tmp_path):
    cells = [
        synthetic.cell(f"{m},steps={t}", seed, method=m, steps=t)
        for m in ("maml", "lstm", "turtle", "finetuning") for t in (1, 5) for seed in SEEDS
    ]  # fmt: skip
    runs = synthetic.read(tmp_path, cells)
    (figure,) = figures.paper_figures(runs)[0]
    assert figure.stem == "figure-3.3"
    (panel,) = bars(figure.figure)
    assert set(panel) == {"MAML, second order", "Meta-learner LSTM, first order", "TURTLE, second order"}
    wanted = [
        stats.trim_mean([np.median(r.final) for r in runs if r.method == f"turtle,steps={t}"], 0.25)
        for t in (1, 5)
    ]
    assert panel["TURTLE, second order"] == pytest.approx(wanted)


def images():
    family = "miniimagenet"
    return [
        synthetic.cell(name, seed, experiment="any", setting=f"{family}-5-way-{shots}-shot", family=family)
        for name in ("maml", "turtle")
        for shots in (1, 5)
        for seed in SEEDS
    ]


def test_figure_3_4_has_a_panel_for_each_number_of_shots(tmp_path):
    runs = synthetic.read(tmp_path, images(), level=0.5, accuracy=True)
    (figure,) = figures.paper_figures(runs)[0]
    assert (figure.stem, figure.title) == ("figure-3.4", "Figure 3.4 from our records: miniImageNet")
    assert [axes.get_title() for axes in figure.figure.axes] == ["1-shot", "5-shot"]
    for axes in figure.figure.axes:
        means = [c.lines[0] for c in axes.containers]
        assert len(means) == 2
        # in minutes: the longest run is under an hour and over a minute
        assert all(1 <= mark.get_xdata()[0] <= 10 for mark in means)


@pytest.mark.parametrize(
    ("setting", "method", "wanted"),
    [
        ("miniimagenet-5-way-1-shot", "turtle", ("0.48 ± 0.01", "Table 3.1")),
        ("miniImageNet-5-way-5-shot", "fo-turtle", ("0.59 ± 0.04", "Table 3.1")),
        ("mini-imagenet-5-way-5-shot", "baseline++", ("0.58 ± 0.00", "Table 3.1")),
        ("cub-5-way-1-shot", "lstm", ("0.50 ± 0.00", "Table 3.1")),
        ("cub-to-miniimagenet-5-way-5-shot", "maml", ("0.47 ± 0.00", "Table 3.4")),
        ("miniimagenet-5-way-1-shot-to-cub", "lstm-enhanced", ("0.37 ± 0.00", "Table 3.4")),
    ],
)
def test_the_papers_number_of_a_row(setting, method, wanted):
    found = published.published_result(setting, method)
    assert (str(found), found.table) == wanted


@pytest.mark.parametrize(
    ("setting", "method"),
    [
        ("sine-5-shot", "maml"), ("miniimagenet-5-way-1-shot", "turtle,steps=10"),
        ("miniimagenet-5-way-10-shot", "maml"), ("miniimagenet-20-way-1-shot", "maml"),
        ("glyphs-5-way-1-shot", "maml"), ("cub-5-way-1-shot", "columns"), ("cub-5-way-1-shot", "mine"),
    ],
)  # fmt: skip
def test_other_rows_have_none(setting, method):
    assert published.published_result(setting, method) is None


@pytest.fixture
def no_figures(monkeypatch):
    """A page without what takes long to draw and is not asked for."""
    for module in (setting_figures, rule_figures):
        monkeypatch.setattr(module, "FIGURES", {})
    without_map(monkeypatch)
    monkeypatch.setattr(report, "paper_figures", lambda records: ([], []))


def test_the_page_has_the_papers_numbers_beside_ours_within_and_across_domains(tmp_path, no_figures):
    runs = synthetic.read(tmp_path / "in", images(), level=0.5, accuracy=True, across=("cub",))
    assert {r.setting for r in cross_family_records(runs)} == {
        "miniimagenet-5-way-1-shot-to-cub", "miniimagenet-5-way-5-shot-to-cub",
    }  # fmt: skip
    page = write_report(runs, tmp_path / "out").read_text()
    for number in ("0.48 ± 0.01", "0.62 ± 0.01", "0.38 ± 0.00", "0.56 ± 0.01"):
        assert f"<td>{number}</td>" in page
    stem = "any-miniimagenet-5-way-1-shot-beside-the-paper"
    assert "| 0.48 ± 0.01 | Table 3.1 |" in (tmp_path / f"out/{stem}.md").read_text()
    assert r"& 0.48 $\pm$ 0.01" in (tmp_path / f"out/{stem}.tex").read_text()


def test_deviations_are_whole_and_name_methods_that_exist(tmp_path, no_figures):
    shipped = set(catalogue.methods())
    for one in published.deviations():
        assert all(attrs.asdict(one).values()), one.title
        assert set(one.methods) <= shipped, one.title
    write_report([], tmp_path)
    listed = (tmp_path / "deviations.md").read_text()
    assert listed.count("\n## ") == len(published.deviations()) >= 10


def test_the_papers_tables_are_whole():
    data = tomllib.loads((published.PAPER_FOLDER / "tables.toml").read_text(encoding="utf-8"))
    for key in published.TABLES:
        rows = {name: row for name, row in data[key].items() if name != "columns"}
        assert len(rows) == 9
        assert all(len(row) == len(data[key]["columns"]) == 4 for row in rows.values())


def test_a_rule_is_drawn_from_the_record_alone(tmp_path):
    runs = synthetic.read(tmp_path, [synthetic.cell("turtle", seed) for seed in SEEDS])
    figure = draw_figure(rule_figures.rule_responses, runs, styles_by_method(runs))
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    g = lines["t = 0"].get_xdata()
    assert lines["t = 0"].get_ydata() == pytest.approx(-0.01 * g)
    assert lines["t = T − 1"].get_ydata() == pytest.approx(-0.05 * g)
    paths = draw_figure(rule_figures.update_paths, runs, styles_by_method(runs))
    assert paths.axes[1].get_lines()[0].get_ydata() == pytest.approx([0.01] * 5)


def test_old_records_and_nulls_are_drawn_as_far_as_they_go(tmp_path):
    cells = [synthetic.cell("turtle", 0), synthetic.cell("maml", 0)]
    folder = synthetic.write(tmp_path / "in", cells[0])
    old = records.read_record(folder)
    for key in ("rule_response", "batch_norm", "peak_memory_bytes"):
        del old.result[key]
    old.result["scores"]["sine"][0, -1] = math.nan
    old.result["validations"][3][1] = None
    page = write_report([old], tmp_path / "out").read_text()
    assert "What each learned rule does" not in page
    assert "not recorded" in page


def test_a_figure_is_drawn_once_for_each_format(monkeypatch):
    """A report has hundreds of them, and drawing is most of its time."""
    figure = Figure(layout="constrained")
    figure.add_subplot().plot([1, 2], label="line")
    drawn = []
    draw = Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda self, renderer: (drawn.append(renderer), draw(self, renderer)))
    files = [render(figure, ending, "x") for ending in ("png", "pdf", "svg")]
    assert len(drawn) == 3
    assert files == [render(figure, ending, "x") for ending in ("png", "pdf", "svg")]


def test_a_figure_in_the_page_has_a_name_and_the_pages_own_colours(tmp_path):
    runs = synthetic.read(tmp_path, [synthetic.cell("maml", 0)])
    svg = inline_svg(
        render(draw_figure(rule_figures.update_paths, runs, styles_by_method(runs)), "svg", "x"),
        'A "b" & <c>',
    )
    assert svg.startswith('<svg role="img" aria-label="A &quot;b&quot; &amp; &lt;c&gt;"')
    assert "var(--c0)" in svg
    assert "#0072b2" not in svg
    assert "<metadata" not in svg


def test_methods_of_one_title_are_told_apart(tmp_path):
    cells = [synthetic.cell(name, 0, method="turtle") for name in ("wide", "deep")]
    runs = synthetic.read(tmp_path, cells)
    drawn = draw_figure(error_by_step, runs, styles_by_method(runs))
    labels = [line.get_label() for line in drawn.axes[0].get_lines()]
    assert labels == ["TURTLE, deep", "TURTLE, wide"]
    colours = {line.get_color() for line in drawn.axes[0].get_lines()}
    assert len(colours) == 2
    assert drawn.axes[0].get_xlim()[1] < 6, "an axis no longer than the steps there are"
