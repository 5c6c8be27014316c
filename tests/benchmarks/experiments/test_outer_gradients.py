"""A method's outer gradient: its key, its axis, --meta-gradient, and what records and reports tell of it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from command_runs import SMALL_EXPERIMENT

from metalearn_benchmarks.claims.published import trained_as_published
from metalearn_benchmarks.experiments.catalogue import Overrides, cells, find_experiment, methods
from metalearn_benchmarks.records.cell_file import write_cell
from metalearn_benchmarks.records.compatibility import require_same_experiment
from metalearn_benchmarks.records.files import AnotherExperimentError
from metalearn_benchmarks.runs.resolution import resolve_cell
from metalearn_core import UsageError

REPTILE = """
[method.mine]
extends = "reptile"
title = "Reptile of mine"
meta_gradient_options = { examples = "all" }
[method.back]
extends = "mine"
title = "Back"
meta_gradient = "backpropagation"
"""


def experiment(tmp_path, further="", names=("maml",)):
    path = tmp_path / "mine.toml"
    text = SMALL_EXPERIMENT.replace('["maml", "two-layer"]', json.dumps(list(names)))
    path.write_text(text.replace("[method.two-layer]", f"{further}\n[method.two-layer]"))
    return find_experiment(str(path))


def rows(found, **overrides):
    return {cell.name: cell.method for cell in cells(*found, "smoke", Overrides(**overrides))}


def test_a_method_names_its_outer_gradient_and_its_options(tmp_path):
    found = rows(experiment(tmp_path, REPTILE, ("maml", "mine", "back")))
    told = {name: (m.meta_gradient, m.meta_gradient_options) for name, m in found.items()}
    assert told == {
        "maml": ("backpropagation", {}),
        "mine": ("reptile", {"examples": "all"}),
        "back": ("backpropagation", {}),  # options were meant for the other one
    }


def test_the_command_line_makes_rows_of_their_own(tmp_path):
    found = rows(
        experiment(tmp_path, names=("maml", "two-layer", "finetuning")),
        meta_gradient=("evolution", {"pairs": 2}), rules=[("lstm", {"hidden": 3})],
    )  # fmt: skip
    changed = "meta_gradient=evolution,pairs=2"
    assert list(found) == [
        f"maml,{changed}",
        f"two-layer,{changed}",
        "finetuning",
        f"lstm,hidden=3,{changed}",
    ]
    assert found[f"maml,{changed}"].meta_gradient_options == {"pairs": 2}
    with pytest.raises(UsageError, match="--meta-gradient reptile: no method of these is meta-trained"):
        rows(experiment(tmp_path, names=("finetuning",)), meta_gradient=("reptile", {}))


def test_it_is_an_axis(tmp_path):
    axes = '[axes]\nmeta_gradient = ["backpropagation", "reptile"]\n'
    found = rows(experiment(tmp_path, axes))
    assert [(n, m.meta_gradient) for n, m in found.items()] == [
        ("maml", "backpropagation"), ("maml,meta_gradient=reptile", "reptile"),
    ]  # fmt: skip
    pairs = '[axes]\nmeta_gradient = ["evolution"]\nmeta_gradient_options = { pairs = [1, 2] }\n'
    assert list(rows(experiment(tmp_path, pairs))) == [
        "maml,meta_gradient=evolution,pairs=1", "maml,meta_gradient=evolution,pairs=2",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="axis 'meta_gradient': method 'finetuning' is not meta-trained"):
        rows(experiment(tmp_path, axes, ("finetuning",)))
    with pytest.raises(UsageError, match="meta_gradient: expected the name of an outer gradient, got 3"):
        experiment(tmp_path, "[axes]\nmeta_gradient = [3]\n")


@pytest.mark.parametrize(
    ("further", "told"),
    [
        ('[method.maml]\nextends = "maml"\nmeta_gradient = "reptile"', "would be another method"),
        ('[method.f]\nextends = "finetuning"\ntitle = "F"\nmeta_gradient = "reptile"', "is not meta-trained"),
        (
            '[method.f]\nextends = "maml"\ntitle = "F"\nmeta_gradeint = "reptile"',
            "did you mean .*meta_gradient",
        ),
    ],
)
def test_what_cannot_be_is_told(tmp_path, further, told):
    with pytest.raises(UsageError, match=told):
        experiment(tmp_path, further)


def test_the_record_has_it_with_every_option_and_an_older_one_reads_as_before(tmp_path):
    (cell,) = cells(*experiment(tmp_path), "smoke", Overrides(meta_gradient=("evolution", {"pairs": 2})))
    plain = resolve_cell(cell)
    assert plain["method"]["meta_gradient"] == "evolution"
    assert plain["method"]["meta_gradient_options"] == {"pairs": 2, "sigma": 0.01}
    assert not trained_as_published(plain)
    (cell,) = cells(*experiment(tmp_path), "smoke", Overrides())
    plain = resolve_cell(cell)
    assert trained_as_published(plain)
    old = {**plain, "method": {k: v for k, v in plain["method"].items() if "meta_gradient" not in k}}
    assert trained_as_published(old)
    write_cell(tmp_path / cell.folder, old)
    (tmp_path / cell.folder / "checkpoint.pt").touch()
    assert require_same_experiment(tmp_path, [plain]) == set()
    other = {**plain, "method": {**plain["method"], "meta_gradient": "reptile"}}
    with pytest.raises(AnotherExperimentError, match=r"method\.meta_gradient is 'backpropagation' in"):
        require_same_experiment(tmp_path, [other])


def test_a_run_by_another_outer_gradient_is_a_row_of_the_report(metalearn, tmp_path):
    experiment(tmp_path)
    out = tmp_path / "out"
    run = ("run", tmp_path / "mine.toml", "--scale", "smoke", "--workers", 1, "--out", out)
    assert metalearn(*run)[0] == 0
    code, printed, _ = metalearn(*run, "--meta-gradient", "reptile", "--option", 'examples="all"', "--json")
    assert code == 0
    told = {row["method"]: row for row in json.loads(printed)["tables"][0]["rows"]}
    assert len(told) == 2
    (folder,) = out.glob("mine/sine-3-shot/maml,*/0")
    assert folder.parent.name == "maml,meta_gradient=reptile,examples=all"
    record = tomllib.loads((folder / "experiment.toml").read_text())
    assert record["method"]["meta_gradient_options"] == {"examples": "all"}
    assert "metalearn-reptile" in json.loads((folder / "result.json").read_text())["versions"]
    page = (out / "report/report.html").read_text()
    assert "MAML (meta_gradient=reptile,examples=all)" in page or "meta_gradient=reptile" in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--meta-gradient", "reptle"), "unknown meta-gradient 'reptle': did you mean 'reptile'?"),
        (
            ("--meta-gradient", "evolution", "--option", "pear=3"),
            "meta-gradient 'evolution': unknown option 'pear'",
        ),
        (
            ("--meta-gradient", "reptile", "--meta-gradient", "evolution"),
            "--meta-gradient: a run has one, got reptile and evolution",
        ),
        (("--option", "pairs=3"), "say --rule NAME or --meta-gradient NAME before it"),
        (("--meta-gradient", "implicit"), "does not hold θ at θ⁰: take the rule proximal"),
        (("-m", "two-layer", "--meta-gradient", "reptile"), "alpha and 6 more to learn"),
    ],
)
def test_a_mistake_is_one_line(metalearn, tmp_path, words, told):
    experiment(tmp_path)
    run = ("run", tmp_path / "mine.toml", "--scale", "smoke", "--workers", 1, "--out", tmp_path / "out")
    code, _, err = metalearn(*run, *words)
    assert code == 2
    assert told in err
    assert "Traceback" not in err


def test_the_shipped_methods_with_outer_gradients_can_be_built():
    from metalearn_benchmarks.runs.components import Components

    shipped = [name for name, method in methods().items() if method.meta_gradient != "backpropagation"]
    assert shipped == ["es-maml", "hf-maml", "imaml", "reptile"]
    for cell in cells(*find_experiment("outer-gradients"), "smoke", Overrides()):
        found = Components.build(cell).meta_gradient
        assert getattr(found, "name", "backpropagation") == cell.method.meta_gradient


def test_the_pages_table_is_of_the_experiment(monkeypatch):
    """What was timed is what the experiment trains, and what was trained is in the archive."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "docs"))
    import outer_gradients

    found = {cell.name: cell for cell in cells(*find_experiment("outer-gradients"), "small", Overrides())}
    trained = {name: way for name, way in outer_gradients.WAYS.items() if way[2] != "mixed-mode"}
    assert list(found) == list(trained)
    for name, (rule, _, outer, _) in trained.items():
        assert (found[name].method.rule, found[name].method.meta_gradient) == (rule, outer)
    table = outer_gradients.outer_gradients().splitlines()
    assert len(table) == 2 + len(outer_gradients.WAYS)
    assert sum("| mixed-mode | 0 |" in line for line in table) == 2
    assert sum("| 0 |" in line for line in table) == 2
    assert "| `maml` | backpropagation | 1 |" in table[2]
