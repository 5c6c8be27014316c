"""Experiments as data: what they inherit, what they vary, what their runs are called, and what is refused."""

from __future__ import annotations

import glob
import json
import re
import shutil
import tarfile
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalearn_benchmarks.experiments.axes import MAX_NAME_LENGTH, folder_name, require_folder_name
from metalearn_benchmarks.experiments.catalogue import SCALES, Overrides, cells, experiments, find_experiment
from metalearn_benchmarks.experiments.inheritance import merge_tables
from metalearn_benchmarks.records.reading import read_records
from metalearn_core import Settings, UsageError

FORMAT = (Path(__file__).parents[3] / "docs/experiments.md").read_text(encoding="utf-8")
PAPER_SINE = [
    *("train-from-scratch", "maml", "turtle", "lstm"),
    *("lstm-enhanced", "fo-turtle", "fo-maml", "finetuning"),
]


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a file; the experiment that it is."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "mine.toml") -> tuple[str, object]:
        Path(name).write_text(text)
        return find_experiment(name)

    return write


def runs(found, scale="smoke", **overrides):
    return cells(*found, scale, Overrides(**overrides))


def labels(found, **overrides):
    return [f"{cell.setting}/{cell.name}" for cell in runs(found, **overrides) if cell.seed == 0]


# --- what is shipped


@pytest.mark.parametrize(
    "scale",
    [scale if scale == "smoke" else pytest.param(scale, marks=pytest.mark.nightly) for scale in SCALES],
)
@pytest.mark.parametrize("name", sorted(experiments()))
def test_every_shipped_experiment_has_every_scale_and_could_be_run(name, scale, prepared):
    from metalearn_benchmarks.runs.components import Components

    found = runs(find_experiment(name), scale)
    families = (found[0].family, *found[0].also_tested_on)
    if any(family.name.startswith("glyphs") for family in families):
        pytest.importorskip("fontpkg_andada_pro", reason="needs metalearn-benchmarks[images]")
    for cell in {cell.row: cell for cell in found}.values():
        Components.build(cell)
    assert experiments()[name].reproduces


def test_names_of_sine_are_as_ever():
    assert labels(find_experiment("sine")) == [f"sine-5-shot/{name}" for name in PAPER_SINE]


def test_the_papers_scale_is_the_papers():
    for name, count in {"sine": 8, "figure-3.2": 2 * 3 * (1 + 8), "figure-3.3": 2 * (5 * 3 + 4)}.items():
        found = runs(find_experiment(name), "paper")
        assert len(found) == 30 * count
        assert {cell.test_tasks for cell in found} == {2000}
        for cell in found:
            settings = cell.method.settings
            counts = [settings[key] for key in ("tasks", "validation_interval", "validation_tasks")]
            assert counts == [70_000, 2_500, 1_000]


def test_figure_3_2_varies_depth_of_turtle_alone():
    found = {cell.name: cell.method for cell in runs(find_experiment("figure-3.2"))}
    points = {
        (m.rule, len(m.options.get("hidden", "")), m.settings["steps"], m.settings["order"])
        for m in found.values()
    }
    grid = [(steps, order) for steps in (1, 5, 10) for order in ("first", "second")]
    wanted = {("feed-forward", depth, *point) for depth in range(8) for point in grid}
    assert points == wanted | {("gradient-descent", 0, *point) for point in grid}
    assert {width for m in found.values() for width in m.options.get("hidden", [])} == {20}
    shown = {"maml", "maml,steps=1,order=first", "turtle", "turtle,order=first", "turtle,hidden=[20],steps=1"}
    assert shown < set(found)


# --- inheritance


def test_a_file_says_only_what_is_another(written):
    _, mine = written('extends = "sine"\nmethods = ["maml"]\n[scale.smoke]\nseeds = 3')
    _, sine = find_experiment("sine")
    assert (mine.title, mine.family, mine.settings) == (sine.title, sine.family, sine.settings)
    assert mine.reproduces == ""
    assert (mine.scale["smoke"].seeds, mine.scale["smoke"].test_tasks) == (3, sine.scale["smoke"].test_tasks)
    assert mine.scale["paper"] == sine.scale["paper"]


def test_files_extend_files_from_where_they_are(written, tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below/base.toml").write_text(
        'extends = "sine"\nmethods = ["turtle"]\n[axes]\nsteps = [1, 2]'
    )
    (tmp_path / "below/middle.toml").write_text('extends = "base.toml"\n[axes]\norder = ["first"]')
    found = written('extends = "below/middle.toml"\n[axes]\nsteps = [3]')
    assert labels(found) == ["sine-5-shot/turtle,steps=3,order=first"]


def test_options_that_were_meant_for_another_thing_are_not_inherited():
    under = {
        "family": {"name": "sine", "options": {"support": 5}},
        "learner": {"name": "mlp", "options": {"hidden": [40], "inputs": 1}},
        "method": {"a": {"rule": "lstm", "options": {"hidden": 20}, "settings": {"steps": 8}}},
        "settings": {"clip": {"by": "norm", "limit": 1.0}},
    }
    over = {
        "family": {"name": "glyphs", "options": {"ways": 5}},
        "learner": {"name": "mlp", "options": {"hidden": [80]}},
        "method": {"a": {"rule": "feed-forward"}},
        "settings": {"clip": {"limit": 2.0}},
    }
    assert merge_tables(over, under) == {
        "family": {"name": "glyphs", "options": {"ways": 5}},
        "learner": {"name": "mlp", "options": {"hidden": [80], "inputs": 1}},
        "method": {"a": {"rule": "feed-forward", "settings": {"steps": 8}}},
        "settings": {"clip": {"by": "norm", "limit": 2.0}},
    }
    assert under["settings"]["clip"] == {"by": "norm", "limit": 1.0}


TABLES = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
SOME = st.dictionaries(st.sampled_from("abc"), TABLES, max_size=3)


@given(SOME, SOME, SOME)
def test_merging_keeps_what_is_said_last_and_chains(one, two, three):
    assert merge_tables(one, {}) == merge_tables({}, one) == merge_tables(one, one) == one
    left, right = merge_tables(merge_tables(one, two), three), merge_tables(one, merge_tables(two, three))
    # a value between two tables hides the lower one for who reads from the left alone
    assert {key: left[key] for key in one.keys() - two.keys()} == {
        k: right[k] for k in one.keys() - two.keys()
    }
    for key, value in one.items():
        if not isinstance(value, dict):
            assert left[key] == right[key] == value


def test_a_method_extends_a_method(written):
    found = written("""
extends = "sine"
methods = ["wide", "slow"]
[method.wide]
extends = "turtle"
title = "Wide"
options = { hidden = [80] }
[method.slow]
extends = "wide"
title = "Slow"
settings = { outer_clip = { limit = 1.0 }, outer_lr = 1e-4 }
""")
    wide, slow = (cell.method for cell in runs(found))
    assert (wide.title, wide.rule, wide.options["hidden"]) == ("Wide", "feed-forward", [80])
    assert slow.options == wide.options == {"hidden": [80], "inputs": ["grad"]}
    assert slow.settings["outer_clip"] == {"by": "norm", "limit": 1.0}
    assert "outer_lr" not in wide.settings


def test_the_outer_learning_rate_may_be_a_table(metalearn, tmp_path, monkeypatch):
    from metalearn_benchmarks.records.reading import read_records

    monkeypatch.chdir(tmp_path)
    text = 'extends = "sine"\n[settings]\nouter_lr = { start = 0.01, schedule = "steps", at = [0.5] }\n'
    Path("mine.toml").write_text(text)
    metalearn("run", "mine.toml", "-m", "maml", "--scale", "smoke", "--tasks", "20", "--out", "results")
    record = read_records(Path("results"))[0]
    table = {"start": 0.01, "schedule": "steps", "at": [0.5], "end": 0.0, "factor": 0.1, "warm_up": 0.0}
    assert record.cell["method"]["settings"]["outer_lr"] == table


# --- axes


def test_axes_of_all_and_of_one_method(written):
    found = written("""
extends = "sine"
methods = ["train-from-scratch", "maml", "turtle"]
[axes]
order = ["second", "first"]
shots = [5, 1]
steps = [5, 3]
[axes.train-from-scratch]
order = []
steps = []
[axes.turtle]
steps = [10]
options.hidden = [[20], [20, 20, 20, 20, 20]]
""")
    rows = [
        *("train-from-scratch", "maml", "maml,steps=3", "maml,order=first", "maml,steps=3,order=first"),
        *("turtle,hidden=[20],steps=10", "turtle,steps=10"),
        *("turtle,hidden=[20],steps=10,order=first", "turtle,steps=10,order=first"),
    ]
    assert labels(found) == [f"sine-{k}-shot/{row}" for k in (5, 1) for row in rows]
    assert len({cell.folder for cell in runs(found, seeds=3)}) == 3 * 2 * len(rows)
    for cell in runs(found):
        assert cell.family.options == {"support": 1 if cell.setting == "sine-1-shot" else 5, "query": 50}
        shown = re.search(r"steps=(\d+)", cell.name)
        steps = 100 if cell.name == "train-from-scratch" else int(shown[1]) if shown else 5
        assert cell.method.settings["steps"] == steps
        if cell.method.start == "meta":
            assert cell.method.settings["order"] == ("first" if "first" in cell.name else "second")


def test_all_of_a_seed_comes_before_the_next_seed(written):
    found = runs(written('extends = "sine"\nmethods = ["maml", "lstm"]\n[axes]\nshots = [1, 5]'), seeds=2)
    order = [(cell.seed, cell.setting, cell.name) for cell in found]
    assert order == [(s, f"sine-{k}-shot", m) for s in (0, 1) for k in (1, 5) for m in ("maml", "lstm")]
    assert found[0].label == "sine-1-shot: maml, seed 0"
    assert "prefix" not in found[0].as_toml()


def test_quoted_and_nested_axes_are_the_same(written):
    text = 'extends = "sine"\nmethods = ["turtle"]\n[axes]\n'
    assert labels(written(text + '"options.hidden" = [[3], [4]]')) == labels(
        written(text + "options.hidden = [[3], [4]]")
    )
    (extending, _) = "other.toml", written(text + "options.hidden = [[3], [4]]")
    again = written('extends = "mine.toml"\n[axes]\n"options.hidden" = [[5]]', extending)
    assert labels(again) == ["sine-5-shot/turtle,hidden=[5]"]


def test_axes_of_families_and_base_learners_make_settings(written):
    found = written("""
extends = "sine"
methods = ["maml"]
[axes]
family = ["sine", { name = "cosine", options = { phase = 1.0, query = 20 } }]
shots = [2]
"learner.hidden" = [[40, 40], [8]]
"settings.outer_lr" = [0.01]
""")
    row = "maml,outer_lr=0.01"
    assert labels(found) == [
        f"{family}-2-shot{width}/{row}" for family in ("sine", "cosine") for width in ("", ",hidden=[8]")
    ]
    last = runs(found)[-1]
    assert (last.family.name, last.learner.options) == ("cosine", {"hidden": [8]})
    assert last.family.options == {"support": 2, "query": 20, "phase": 1.0}


def test_ways_and_shots_are_named_as_image_families_have_them(written):
    found = written("""
extends = "sine"
methods = ["maml"]
[family]
name = "glyphs"
options = { ways = 5, shots = 1 }
[axes]
ways = [5, 20]
shots = [1, 5]
""")
    wanted = [f"glyphs-{n}-way-{k}-shot/maml" for n in (5, 20) for k in (1, 5)]
    assert labels(found) == wanted


def test_the_command_line_takes_the_place_of_an_axis(written):
    found = written("""
extends = "sine"
methods = ["turtle", "train-from-scratch"]
[axes.turtle]
steps = [1, 5]
order = ["first", "second"]
""")
    told = labels(found, steps=7, order="first", rules=[("lstm", {"hidden": 3})])
    rows = ["turtle,steps=7,order=first", "train-from-scratch,steps=7", "lstm,hidden=3,steps=7,order=first"]
    assert told == [f"sine-5-shot/{row}" for row in rows]


@pytest.mark.parametrize(
    ("only", "wanted"),
    [
        (["maml"], ["sine-1-shot/maml", "sine-5-shot/maml"]),
        (["sine-5-shot/maml"], ["sine-5-shot/maml"]),
        (["turtle,hidden=[2,2]"], ["sine-1-shot/turtle,hidden=[2,2]", "sine-5-shot/turtle,hidden=[2,2]"]),
        (["sine-1-shot/turtle*"], ["sine-1-shot/turtle,hidden=[2,2]", "sine-1-shot/turtle,hidden=[2]"]),
        (["*[2]", "*-1-*/maml"], ["sine-1-shot/maml", *(f"sine-{k}-shot/turtle,hidden=[2]" for k in (1, 5))]),
    ],
)  # fmt: skip
def test_rows_are_chosen_by_what_tables_call_them(written, only, wanted):
    found = written("""
extends = "sine"
methods = ["maml", "turtle"]
[axes]
shots = [1, 5]
[axes.turtle]
"options.hidden" = [[2, 2], [2]]
""")
    every = labels(found)
    assert sorted(labels(found, only=only)) == sorted(wanted)
    assert [row for row in every if row in wanted] == labels(found, only=only)
    for name in ("turtle,hidden=[3]", "sine-1-shot/turtle,hidden=[2", "turtle,hidden=[22]", "", "sine"):
        with pytest.raises(UsageError, match=r"unknown row '.*there are "):
            labels(found, only=[*only, name])
    with pytest.raises(UsageError, match=r"did you mean 'sine-5-shot/maml'\?"):
        labels(found, only=["sine-5-shots/maml"])


def test_t_that_differs_at_test_alone_is_named(written):
    found = written("""
extends = "sine"
methods = ["two"]
[method.two]
extends = "maml"
title = "Two"
settings = { steps = 5, test_steps = 10 }
[axes]
steps = [5]
""")
    # the method of its own has a T of its own
    with pytest.raises(UsageError, match="'two' has a T of its own, 5"):
        labels(found)
    (cell,) = runs((found[0], found[1]), methods=["maml"])
    assert cell.name == "maml"
    own = written(Path("mine.toml").read_text().replace("[axes]", "[axes.two]"))
    (cell,) = runs(own)
    assert (cell.name, "test_steps" in cell.method.settings) == ("two,steps=5", False)


@given(
    st.text(max_size=12),
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.integers()
        | st.booleans()
        | st.floats()
        | st.text(max_size=400)
        | st.lists(st.integers(), max_size=99),
        max_size=4,
    ),
)
def test_a_name_of_anything_fits_a_file_system(name, changed):
    made = folder_name(f"row{name}", changed)
    require_folder_name("row", made)
    assert made == folder_name(f"row{name}", changed)
    assert len(made.encode()) <= MAX_NAME_LENGTH


def test_a_name_that_no_file_can_have_is_refused_with_its_length():
    require_folder_name("setting", "s" * 255)
    for name in ("s" * 256, "é" * 128):
        said = rf"^setting '{name[0]}{{40}}\.\.\.' names a folder, .* room for 255 bytes, and it has 256; use"
        with pytest.raises(UsageError, match=said):
            require_folder_name("setting", name)


def test_long_names_differ_where_what_they_name_does():
    one, two = (folder_name("turtle", {"hidden": [20] * 100 + [last]}) for last in (1, 2))
    assert one != two
    assert one.startswith("turtle,hidden=[20,20,")


# --- what is refused


ALONE = [
    ('extends = "sin"', "unknown experiment 'sin': did you mean 'sine'?"),
    ("extends = 3", "mine.toml: key 'extends': expected str, got 3"),
    ('extends = "mine.toml"', "mine.toml: extends itself: mine.toml -> mine.toml"),
    ('extends = "gone.toml"', "gone.toml: cannot be read"),
    ('extends = "sine"\ntitel = "x"', "mine.toml: unknown key 'titel': did you mean 'title'?"),
    ('title = "x"', "mine.toml: key 'family' is missing"),
]
BELOW_SINE = [
        ("a = ]", "mine.toml: not TOML: Invalid value (at line 2, column 5)"),
        ('methods = "maml"', "key 'methods': expected a list, got 'maml'"),
        ("methods = [1]", "key 'methods': expected str, got 1"),
        ('methods = ["turtel"]', "key 'methods': unknown method 'turtel': did you mean 'turtle'?"),
        ('methods = ["maml", "maml"]', "key 'methods': method 'maml' is in it twice"),
        ('family = "sine"', "key 'family': expected a table, got 'sine'"),
        ("settings = [1]", "key 'settings': expected a table, got [1]"),
        ("[family]\nname = 'sine'\noption = {}", "unknown key 'family.option': did you mean 'family"),
        ("[scale.smal]\nseeds = 1\ntest_tasks = 2", "unknown scale 'smal': did you mean 'small'?"),
        ("[scale.smoke]\nseed = 2", "unknown key 'scale.smoke.seed': did you mean 'scale"),
        ("[scale.smoke]\nseeds = 0", "key 'scale.smoke': seeds must be an integer >= 1, got 0"),
        ("[scale.smoke]\ntest_tasks = -1", "test_tasks must be an integer >= 1, got -1"),
        ("[scale.smoke]\nseeds = 1.0", "key 'scale.smoke.seeds': expected int, got 1.0"),
        ("[scale.smoke]\nseeds = true", "key 'scale.smoke.seeds': expected int, got True"),
        ("[method.maml]\ntitle = 'x'", "method 'maml' is a shipped one"),
        ("[method.maml]\nextends = 'maml'\nrule = 'lstm'", "key 'method.maml.rule': 'maml' would be another"),
        ("[method.maml]\nextends = 'maml'\ntitle = 'x'", "key 'method.maml.title': 'maml' would be another"),
        ("[method.maml]\nextends = 'maml'\noption = {}", "unknown key 'method.maml.option'"),
        ("[method.maml]\nextends = 'turtle'\ntitle = 'x'", "method 'maml' is a shipped one"),
        ("[method.a]\nextends = 'turtle'", "key 'method.a.title' is missing"),
        ("[method.a]\nextends = 'turtel'", "'method.a.extends': unknown method 'turtel': did you mean"),
        ("[method.a]\nextends = 3", "'method.a.extends': expected str, got 3"),
        ("[method.a]\nextends = 'b'\n[method.b]\nextends = 'a'", "it extends itself: a -> b -> a"),
        ("[method.a]\nextends = 'lstm'\ntitle = 'x'\nminibatch = 0", "minibatch must be an integer >= 1"),
        ("[method.a]\nextends = 'lstm'\nstart = 'mta'", "key 'method.a.start'"),
        ("axes = 3", "key 'axes': expected a table, got 3"),
        ("[axes]\nsteps = 5", "key 'axes': steps: an axis is a list of values, got 5"),
        ("[axes]\nsteps = [1, '5']", "steps: expected an integer >= 0, got '5'"),
        ("[axes]\nsteps = [-1]", "steps: expected an integer >= 0, got -1"),
        ("[axes]\nsteps = [true]", "steps: expected an integer >= 0, got True"),
        ("[axes]\nsteps = [1, 1]", "steps: 1 is in it twice"),
        ("[axes]\nshots = [0]", "shots: expected an integer >= 1, got 0"),
        ("[axes]\norder = ['frist']", """order: expected "first" or "second", got 'frist'"""),
        ("[axes]\nfamily = [{ nam = 'sine' }]", "family: expected a name, or a table of a name and"),
        ("[axes]\nstep = [1]", "unknown axis 'step': did you mean 'steps'?"),
        ("[axes]\noption.hidden = [[1]]", "key 'axes'"),
        ("[axes]\nseeds = [1]", "seeds are the scale's"),
        ("[axes]\nsettings.tasks = [1]", "all runs of a table share it"),
        ("[axes]\nsettings.steps = [1]", "this axis is called 'steps'"),
        ("[axes.turtel]\nsteps = [1]", "key 'axes': unknown method 'turtel': did you mean 'turtle'?"),
        ("[axes.maml]\nstep = [1]", "unknown axis 'maml.step'"),
        ("[axes.maml]\nshots = [1]", "maml.shots: methods are compared on the same tasks"),
        ("[axes]\norder = ['first']", "axis 'order': method 'train-from-scratch' is not meta-trained"),
        ("[axes.finetuning]\norder = ['first']", "axis 'order': method 'finetuning' is not meta-trained"),
        ("[axes]\nsteps = [1]", "axis 'steps': method 'train-from-scratch' has a T of its own, 100"),
        ("methods = ['lstm-enhanced']\n[axes]\nsteps = [1]", "'lstm-enhanced' has a T of its own, 8"),
        ("[axes]\nways = [5]", "axis 'ways': [family] options say none of family 'sine'"),
        ("setting = 'a'\n[axes]\nshots = [1]", "setting 'a' is one name for all that axis 'shots' makes"),
        ("[axes.maml]\norder = ['first', 'second']", "rows 'maml,order=first' and 'fo-maml' are the same"),
        ("methods = []", "it has no methods"),
        ("[axes.maml]\noptions.hidden = [[1]]", "rule 'gradient-descent': optimizer 'sgd': unknown option"),
        ("[axes.turtle]\noptions.hidden = ['x']", "hidden must be a list of widths >= 1, got 'x'"),
        ("[axes]\nsettings.outer_lt = [1]", "unknown setting 'outer_lt': did you mean 'outer_lr'?"),
        ("[settings]\nouter_clip = 3\n[method.lstm]\nextends = 'lstm'", "outer_clip must be a table { by ="),
        ("[learner]\noptions = { hidden = 40 }", "hidden must be a list of widths >= 1, got 40"),
        ("[method.maml]\nextends = 'maml'\nprotocol = 'authors'", "'maml' would be another method"),
        ("[axes]\nsettings.outer_lr = [0]", "outer_lr must be a number > 0, got 0"),
        ("[settings]\nouter_lr = { schedule = 'cosine' }", "outer_lr: a table needs start"),
        ("[settings]\nouter_lr = { start = 1, shedule = 'cosine' }", "unknown key of outer_lr 'shedule'"),
        ("[axes]\nfamily.suport = [1]", "task family 'sine': unknown option 'suport': did you mean"),
        ("[settings]\ntasks = -1\n[scale.smoke.settings]\ntasks = -1", "tasks must be an integer >= 0"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"), [*ALONE, *((f'extends = "sine"\n{text}', told) for text, told in BELOW_SINE)]
)
def test_what_cannot_be_run_is_one_clear_line(metalearn, tmp_path, monkeypatch, text, told):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(text)
    code, out, err = metalearn("run", "mine.toml", "--scale", "smoke", "--workers", 1, "--out", "out")
    assert (code, err.count("\n"), out) == (2, 1, "")
    assert told in err
    assert not list(tmp_path.rglob("experiment.toml"))


def test_what_is_wrong_in_a_parent_is_said_of_the_parent(metalearn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.toml").write_text('extends = "sine"\ntitel = "x"')
    Path("mine.toml").write_text('extends = "base.toml"')
    assert "metalearn: base.toml: unknown key 'titel'" in metalearn("run", "mine.toml")[2]
    Path("base.toml").write_text('extends = "mine.toml"')
    told = "mine.toml: extends itself: mine.toml -> base.toml -> mine.toml"
    assert told in metalearn("run", "mine.toml")[2]


# --- run


def test_the_documented_example_runs(metalearn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, *_ = re.findall(r"```toml\n(.*?)```", FORMAT, re.DOTALL)
    Path("order-matters.toml").write_text(text)
    run, listed = re.findall(r"^\$ metalearn (.*)$", FORMAT, re.MULTILINE)
    code, out, err = metalearn(*run.split(), "--workers", 1)
    assert code == 0, err
    rows = {
        str(path.parent.parent.relative_to("results/order-matters")) for path in Path().rglob("result.json")
    }
    small = [
        f"turtle-small,hidden={hidden}{order}"
        for hidden in ("_20_", "_20,20_") for order in ("", ",order=first")
    ]  # fmt: skip
    names = ["maml", "maml,order=first", "train-from-scratch", *small]
    assert rows == {f"order-matters/sine-{k}-shot/{name}" for k in (1, 5) for name in names}
    assert "sine-1-shot: maml,order=first, seed 0: median error" in out
    (line,) = json.loads(metalearn(*listed.split(), "--json")[1])
    assert (line["runs"], line["seconds"]) == (len(rows), None)


def test_every_key_is_documented():
    from metalearn_benchmarks.experiments import axes
    from metalearn_benchmarks.experiments.experiment import Experiment
    from metalearn_benchmarks.experiments.method import Method, Scale

    for kind in (Experiment, Method, Scale):
        for field in kind.__attrs_attrs__:
            assert f"`{field.name}`" in FORMAT or f"[{field.name}" in FORMAT, field.name
    for axis in (*axes.SETTING_AXES, *axes.METHOD_AXES):
        assert f"`{axis}`" in FORMAT


def test_the_stream_of_tasks_is_an_axis_that_all_methods_share(tmp_path):
    file = tmp_path / "streams.toml"
    file.write_text('extends = "sine"\nmethods = ["maml", "turtle"]\n[axes]\ntask_seed = [0, 1, 2]\n')
    name, experiment = find_experiment(str(file))
    found = cells(name, experiment, "smoke", Overrides(seeds=2))
    streams = {(cell.setting, cell.method.settings["task_seed"]) for cell in found}
    assert streams == {("sine-5-shot", 0), *((f"sine-5-shot,task_seed={n}", n) for n in (1, 2))}
    assert len(found) == 2 * 2 * 3
    plain = cells(name, find_experiment("sine")[1], "smoke", Overrides(seeds=1, methods=("maml",)))
    (same,) = [cell for cell in found if (cell.setting, cell.name, cell.seed) == ("sine-5-shot", "maml", 0)]
    assert same.method.settings["task_seed"] == plain[0].method.settings.get("task_seed", 0)


@pytest.mark.parametrize(
    ("axis", "told"),
    [
        ("task_seed = [-1]", "task_seed: expected an integer >= 0, got -1"),
        ("settings.task_seed = [1]", "this axis is called 'task_seed'"),
        ("[axes.maml]\ntask_seed = [1]", "methods are compared on the same tasks; put it in [axes]"),
    ],
)
def test_a_stream_that_cannot_be_is_told(tmp_path, axis, told):
    file = tmp_path / "streams.toml"
    file.write_text(f'extends = "sine"\n[axes]\n{axis}\n')
    with pytest.raises(UsageError, match=re.escape(told)):
        find_experiment(str(file))


QUICK = """
extends = "sine"
methods = ["turtle"]
[axes]
shots = [1, 5]
[axes.turtle]
options.hidden = [[4], [4, 4]]
[scale.smoke]
test_tasks = 10
settings = { tasks = 4, validation_interval = 4, validation_tasks = 4 }
"""


def test_a_folder_of_another_grid_is_noticed_by_key_with_both_values(metalearn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = ("run", "mine.toml", "--scale", "smoke", "--workers", 1, "--out", "o")
    Path("mine.toml").write_text(QUICK)
    assert metalearn(*run)[0] == 0
    held = {path: path.read_bytes() for path in Path("o").rglob("*.json")}
    for old, new, told in (
        ("tasks = 4, v", "tasks = 6, v", "settings.tasks is 4 in mine/sine-1-shot/turtle,hidden=_4,4_/0"),
        ("[axes.turtle]", "[settings]\nouter_lr = 0.1\n[axes.turtle]", "outer_lr is 0.001 in mine/sine-1"),
        ("shots = [1, 5]", "shots = [5]\n[family]\noptions.query = 9", "family.options.query is 50 in mine"),
    ):  # fmt: skip
        assert old in QUICK
        Path("mine.toml").write_text(QUICK.replace(old, new))
        code, _, err = metalearn(*run)
        assert (code, err.count("\n")) == (2, 1)
        assert told in err
    Path("mine.toml").write_text(QUICK.replace("[4, 4]]", "[4, 4], [3]]"))  # only more of the same
    code, out, _ = metalearn(*run)
    assert (code, out.count("already done")) == (0, 4)
    assert held.items() < {path: path.read_bytes() for path in Path("o").rglob("*.json")}.items()


WIDE = QUICK.replace("shots = [1, 5]", "learner.hidden = [[4], [5]]").replace("[[4], [4, 4]]", "[[4, 4]]")


def test_no_folder_is_a_pattern_and_those_of_earlier_versions_are_kept(metalearn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = ("run", "mine.toml", "--scale", "smoke", "--workers", 1)
    Path("mine.toml").write_text(WIDE)
    assert metalearn(*run, "--out", "o")[0] == 0
    results = sorted(Path("o").rglob("result.json"))
    assert len(results) == 2
    assert [Path(found) for path in results for found in glob.glob(str(path))] == results
    rows = {(record.setting, record.method) for record in read_records(Path("o"))}
    assert {(cell.setting, cell.name) for cell in runs(find_experiment("mine.toml"))} == rows
    assert ("sine-5-shot,hidden=[5]", "turtle,hidden=[4,4]") in rows

    before = Path("before")
    for path in results:  # as earlier versions named them
        *_, setting, method, seed, _ = path.parts
        names = (re.sub("_([0-9,]+)_", r"[\1]", name) for name in (setting, method))
        shutil.copytree(path.parent, before.joinpath("mine", *names, seed))
    assert sum("[" in path.name for path in before.rglob("*")) == 4
    assert {(record.setting, record.method) for record in read_records(before)} == rows
    code, out, _ = metalearn(*run, "--out", before)
    assert (code, out.count("already done")) == (0, 2)
    assert metalearn(*run, "--out", before, "--seeds", 2)[0] == 0
    assert len([*before.rglob("result.json")]) == 4
    assert not [path for path in before.rglob("*") if path.is_dir() and "_" in path.name]

    assert metalearn("archive", before, "--out", "a/mine.records.tar.xz")[0] == 0
    with tarfile.open("a/mine.records.tar.xz") as packed:
        assert not [name for name in packed.getnames() if "[" in name]
    code, out, _ = metalearn(*run, "--out", "a")
    assert (code, out.count("already done")) == (0, 2)
    code, _, err = metalearn(*run, "--out", before, "--tasks", 6)
    assert (code, "settings.tasks is 4 in mine/" in err) == (2, True)


def test_the_same_row_of_two_settings_is_two_jobs(metalearn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(QUICK)
    run = (
        "run",
        "mine.toml",
        "--scale",
        "smoke",
        "--seeds",
        2,
        "--together",
        2,
        "--workers",
        1,
        "--out",
        "o",
    )
    code, _, err = metalearn(*run)
    assert code == 0, err
    found = sorted(Path("o").rglob("experiment.toml"))
    assert len(found) == 8
    for path in found:
        asked = tomllib.loads(path.read_text())
        assert asked["seeds_together"] == [0, 1]
        assert asked["family"]["options"]["support"] == (1 if asked["setting"] == "sine-1-shot" else 5)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["figure-3.2", "figure-3.3", "glyphs", "sine", "table-3.4"])
def test_shipped_experiments_run_at_smoke_scale(metalearn, tmp_path, name, prepared):
    """Those on large images with some of their methods: the others share their programs."""
    chosen = ["maml", "turtle", "baseline++", "nearest-centroid"] if name == "table-3.4" else []
    asked = [part for method in chosen for part in ("-m", method)]
    code, _, err = metalearn("run", name, "--scale", "smoke", "--workers", 1, *asked, "--out", tmp_path)
    assert (code, err) == (0, "")
    assert len(list(tmp_path.rglob("result.json"))) == len(runs(find_experiment(name), methods=chosen))


# --- what holds in some settings alone


def methods_of(found, scale="small", **overrides):
    return {cell.row: cell.method for cell in runs(found, scale, **overrides)}


def test_the_documented_outer_rate_rises_and_falls(written):
    (text,) = re.findall(r"## An outer learning rate that changes.*?```toml\n(.*?)```", FORMAT, re.DOTALL)
    found = methods_of(written(text))
    given = found["sine-5-shot", "maml-cosine"].settings
    settings = Settings(outer_lr=given["outer_lr"], tasks=1000, meta_batch=1)
    rates = [settings.outer_lr_at(position) for position in (0, 24, 50, 999)]
    assert rates == pytest.approx([0.00002, 0.0005, 0.001, 0.00001], rel=1e-3)
    assert "outer_lr" not in found["sine-5-shot", "maml"].settings


def test_the_documented_condition_holds_where_it_says(written):
    *_, text = re.findall(r"```toml\n(.*?)```", FORMAT, re.DOTALL)
    found = methods_of(written(text))
    assert set(found) == {(f"sine-{k}-shot", m) for k in (1, 5) for m in ("maml", "turtle")}
    one, five = found["sine-1-shot", "maml"].settings, found["sine-5-shot", "maml"].settings
    assert (one["meta_batch"], one["steps"], one["tasks"]) == (4, 8, 4000)
    assert (five["meta_batch"], five["steps"], five["tasks"]) == (1, 5, 2000)
    turtle = found["sine-1-shot", "turtle"].settings
    assert (turtle["meta_batch"], turtle["steps"], turtle["tasks"]) == (1, 5, 4000)


CONDITIONS = """
extends = "sine"
title = "x"
methods = ["maml"]
axes.shots = [1, 5]
axes.steps = [5, 1]
"""


def test_the_later_condition_is_over_the_earlier_and_axes_are_over_both(written):
    found = written(
        f"""{CONDITIONS}
        [[where]]
        shots = [1, 5]
        method.maml = {{ options = {{ inner_lr = 0.5 }}, settings = {{ meta_batch = 2 }} }}
        [[where]]
        family = ["sine"]
        shots = [5]
        method.maml = {{ options = {{ inner_lr = 0.1 }}, settings = {{ order = "first" }} }}
        """
    )
    of = methods_of(found)
    rows = {f"sine-{k}-shot": {"maml", "maml,steps=1"} for k in (1, 5)}
    assert set(of) == {(setting, name) for setting, names in rows.items() for name in names}
    assert of["sine-5-shot", "maml"].settings["order"] == "first"
    assert of["sine-1-shot", "maml"].settings["order"] == "second"
    assert {m.settings["meta_batch"] for m in of.values()} == {2}
    assert of["sine-1-shot", "maml"].options["inner_lr"] == 0.5
    assert of["sine-5-shot", "maml,steps=1"].options["inner_lr"] == 0.1
    assert methods_of(found, tasks=3)["sine-1-shot", "maml"].settings["tasks"] == 3


@pytest.mark.parametrize(
    ("condition", "complaint"),
    [
        ("shots = [3]\nmethod.maml.settings = { steps = 1 }",
         "[[where]] shots = 3: no setting is like that; there are sine, shots = 1; sine, shots = 5"),
        ("family = ['sin']\nmethod.maml.settings = { steps = 1 }", "[[where]] family = sin: no setting"),
        ("method.maml.settings = { steps = 1 }", "key 'where.0': it is for no family, ways or shots"),
        ("shots = [1]", "key 'where.0': it changes no method and no scale"),
        ("shots = [1]\nmethod.mamal.settings = { steps = 1 }", "did you mean 'maml'?"),
        ("shots = [1]\nscale.smal.settings = { tasks = 1 }", "did you mean 'small'?"),
        ("shots = ['1']\nscale.small.settings = { tasks = 1 }", "key 'where.0.shots': expected int, got '1'"),
        ("shots = [1]\nmethod.maml.rule = 'lstm'", "unknown key 'where.0.method.maml.rule'"),
    ],
)  # fmt: skip
def test_conditions_that_cannot_be_meant_are_refused(written, condition, complaint):
    with pytest.raises(UsageError) as error:
        runs(written(f"{CONDITIONS}\n[[where]]\n{condition}"))
    assert complaint in str(error.value)


def test_what_else_is_tested_on_has_the_options_of_the_family_trained_on(written):
    found = written(f'{CONDITIONS}also_tested_on = ["cosine", "sine"]')
    for cell in runs(found):
        (other,) = cell.also_tested_on
        assert (other.name, other.options) == ("cosine", cell.family.options)
