"""The shipped experiments on images: what they ask for, what they leave out, and what their records hold."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil

import pytest
from image_copies import noise_store

from metalearn_benchmarks.claims.published import published_result
from metalearn_benchmarks.experiments.catalogue import Overrides, cells, find_experiment
from metalearn_benchmarks.records.reading import read_records
from metalearn_benchmarks.report.grouping import cross_family_records
from metalearn_benchmarks.tasks.images.baselines import CLASSIFIERS, pixel_scores
from metalearn_core import task_families

needs_fonts = pytest.mark.skipif(
    importlib.util.find_spec("fontpkg_andada_pro") is None, reason="needs metalearn-benchmarks[images]: fonts"
)
DOMAINS = {"glyphs-print", "glyphs-display"}
IN_HERE = ("--scale", "smoke", "--workers", 1)
AUTHORS = """
    fo-maml       1   5 10 4 first  value 10
    fo-maml       5   5 10 2 first  value 10
    maml          1   5 10 4 second value 10
    maml          5   5 10 2 second value 10
    lstm          1  12 12 1 first  norm 0.25
    lstm          5   5  5 1 first  norm 0.25
    lstm-enhanced 1   8  8 1 second norm 0.25
    lstm-enhanced 5   8  8 1 second norm 0.25
    fo-turtle     1   5  5 2 first  norm 10
    fo-turtle     5   5  5 2 first  norm 10
    turtle        1   5  5 2 second norm 10
    turtle        5   5  5 2 second norm 10
"""
"""Method, shots; T, T at test, meta-batch, order, clipping of the meta-gradient."""


def at_paper_scale(name):
    return cells(*find_experiment(name), "paper", Overrides())


def shots(cell):
    return cell.family.options["shots"]


@pytest.mark.parametrize("name", ["table-3.1", "table-3.4", "figure-3.4"])
def test_meta_learners_have_the_authors_hyperparameters(name):
    from metalearn_benchmarks.runs.resolution import core_settings

    wanted = {tuple(line.split()) for line in AUTHORS.strip().splitlines()}
    found = set()
    for cell in at_paper_scale(name):
        if cell.method.start == "meta":
            own = core_settings(cell)
            numbers = (own.steps, own.evaluation_steps, own.meta_batch, own.order)
            clip = (own.outer_clip.by, f"{own.outer_clip.limit:g}")
            found.add((cell.name, str(shots(cell)), *map(str, numbers), *clip))
    assert found == wanted


@pytest.mark.parametrize("name", ["table-3.1", "table-3.4", "figure-3.4"])
def test_counts_are_those_of_the_paper(name):
    found = at_paper_scale(name)
    assert {cell.seed for cell in found} == set(range(5))
    assert {cell.test_tasks for cell in found} == {600}
    counts = {(shots(cell), cell.method.settings["tasks"]) for cell in found}
    assert counts == {(1, 60_000), (5, 40_000)}
    assert {cell.method.settings["validation_interval"] for cell in found} == {2500}
    assert {cell.method.settings["validation_tasks"] for cell in found} == {600}
    families = {cell.family.name for cell in found}
    assert families == ({"mini-imagenet"} if name == "figure-3.4" else {"mini-imagenet", "cub"})
    rows = "train-from-scratch finetuning baseline++ lstm lstm-enhanced fo-maml maml fo-turtle turtle"
    floor = "nearest-centroid logistic-regression"
    assert {cell.name for cell in found} == {*rows.split(), *floor.split()}


def test_turtle_has_its_inputs_for_images_and_the_network_is_the_programs(prepared):
    from metalearn_benchmarks.runs.components import Components

    by_name = {cell.name: cell for cell in at_paper_scale("table-3.1")}
    for name in ("turtle", "fo-turtle"):
        options = by_name[name].method.options
        assert options["history"] == "grad"
        assert (options["learn_lr"], options["alpha_start"]) == ("parameter", "uniform")
        assert by_name[name].method.title.endswith("TURTLE")
    parts = Components.build(by_name["turtle"])
    assert parts.test_learner.layout.size == 115_973
    assert sum(p.numel() for p in parts.rule.parameters()) == 1_761 + 115_973


def test_table_3_4_is_table_3_1_tested_on_the_other_family_too():
    for cell in at_paper_scale("table-3.4"):
        (other,) = cell.also_tested_on
        assert {cell.family.name, other.name} == {"mini-imagenet", "cub"}
        assert other.options == cell.family.options
    one, both = (at_paper_scale(name) for name in ("table-3.1", "table-3.4"))
    assert [(c.row, c.seed, c.method) for c in one] == [(c.row, c.seed, c.method) for c in both]


def test_the_papers_numbers_stand_beside_what_is_run():
    rows = {cell.row for cell in at_paper_scale("table-3.4")}
    assert published_result("mini-imagenet-5-way-1-shot", "maml").value == 0.47
    assert published_result("cub-5-way-5-shot-to-mini-imagenet", "baseline++").value == 0.31
    for setting, name in rows:
        there = name not in CLASSIFIERS
        assert (published_result(setting, name) is not None) is there
        other = "cub" if setting.startswith("mini") else "mini-imagenet"
        assert (published_result(f"{setting}-to-{other}", name) is not None) is there


def test_what_is_not_prepared_is_left_out_and_the_rest_is_run(metalearn, prepared, tmp_path, monkeypatch):
    home = tmp_path / "data"
    home.mkdir()
    (home / "mini-imagenet").symlink_to(prepared / "mini-imagenet")
    monkeypatch.setenv("METALEARN_DATA", str(home))
    asked = ("run", "table-3.1", *IN_HERE, "-m", "nearest-centroid", "--out", tmp_path / "out")
    code, _, err = metalearn(*asked)
    lines = err.splitlines()
    assert (code, len(lines)) == (1, 2)
    for line, k in zip(lines, (1, 5), strict=True):
        assert line.startswith(f"metalearn: cub-5-way-{k}-shot is left out: cub: not prepared at 84 x 84")
        assert line.endswith("metalearn data prepare cub PATH --size 84")
    done = sorted(path.parts[-4] for path in (tmp_path / "out").glob("*/*/*/*/result.json"))
    assert done == ["mini-imagenet-5-way-1-shot", "mini-imagenet-5-way-5-shot"]
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path / "nothing"))
    code, _, err = metalearn(*asked)
    assert (code, err.count("\n")) == (2, 1)
    assert "metalearn data prepare mini-imagenet PATH --size 84" in err


def test_other_pixels_under_the_same_name_are_another_experiment(metalearn, tmp_path, monkeypatch):
    """Looked at before anything is trained, and when a record is run again."""
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path / "data"))
    noise_store(tmp_path / "data", 0)
    one = ("--only", "mini-imagenet-5-way-1-shot/nearest-centroid", "--seeds", 1)
    asked = ("run", "table-3.1", *IN_HERE, *one, "--out", tmp_path / "out")
    assert metalearn(*asked)[0] == 0
    (told,) = (tmp_path / "out").rglob("experiment.toml")
    before = told.read_text()
    shutil.rmtree(tmp_path / "data")
    noise_store(tmp_path / "data", 1)
    code, _, err = metalearn(*asked[:-4], "--seeds", 2, "--out", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "it holds another experiment: data.mini-imagenet is" in err
    code, _, err = metalearn("run", told, "--out", tmp_path / "again")
    assert (code, err.count("\n")) == (2, 1)
    assert f"{told}: it saw the data of mini-imagenet with checksum" in err
    noise_store(tmp_path / "data", 0)
    assert metalearn("run", told, "--out", tmp_path / "again")[0] == 0
    assert told.read_text() == before


def test_the_way_to_prepare_another_split_is_told(metalearn, tmp_path, monkeypatch):
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="metalearn data prepare cub PATH --split 140-30-30 --size 84"):
        task_families()["cub-140-30-30"]().store  # noqa: B018


@pytest.mark.nightly
@needs_fonts
def test_glyphs_are_tested_across_domains_on_the_tasks_of_the_floor(metalearn, data_home, tmp_path):

    methods = ("nearest-centroid", "logistic-regression", "finetuning")
    chosen = [part for name in methods for part in ("-m", name)]
    code, out, err = metalearn("run", "glyphs", *IN_HERE, *chosen, "--out", tmp_path)
    assert (code, err) == (0, "")
    assert "glyphs-print-5-way-1-shot-to-glyphs-display" in out
    found = read_records(tmp_path)
    assert len(found) == 4 * len(methods)
    for record in found:
        own = record.cell["family"]["name"]
        assert (
            set(record.result["scores"]) == set(record.result["data"]) == {"glyphs-print", "glyphs-display"}
        )
        for name, scores in record.result["scores"].items():
            family = task_families()[name](**record.cell["family"]["options"])
            assert record.result["data"][name] == family.store.manifest.sha256
            if record.method in CLASSIFIERS:
                again = pixel_scores(CLASSIFIERS[record.method], family, "test", 5, 0)
                assert [row[-1] for row in scores] == pytest.approx(again[:, 0].tolist())
        assert record.result["summary"]["tasks"] == len(record.result["scores"][own]) == 5
    views = cross_family_records(found)
    assert {view.setting for view in views} == {
        f"glyphs-{a}-5-way-{k}-shot-to-glyphs-{b}"
        for a, b in (("print", "display"), ("display", "print"))
        for k in (1, 5)
    }


@needs_fonts
def test_classifiers_of_pixels_say_what_they_cannot_do(metalearn, tmp_path):
    code, _, err = metalearn("run", "sine", *IN_HERE, "-m", "nearest-centroid", "--out", tmp_path / "a")
    assert code == 2
    assert "its targets are no classes; leave classifiers out" in err
    one = ("run", "glyphs", *IN_HERE, "-m", "nearest-centroid", "--out", tmp_path / "b")
    assert metalearn(*one)[0] == 0
    run = next((tmp_path / "b").glob("glyphs/*/nearest-centroid/0"))
    code, _, err = metalearn("export", run)
    assert (code, err.count("\n")) == (2, 1)
    assert "has neither a rule nor an initialisation to export" in err
    assert json.loads((run / "result.json").read_text())["validations"] == []
    assert os.path.exists(run / "experiment.toml")
    assert metalearn("run", run / "experiment.toml", "--workers", 1, "--out", tmp_path / "c")[0] == 0
    again = next((tmp_path / "c").glob("*/*/nearest-centroid/0"))
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (run, again))
    assert first["scores"] == second["scores"]
