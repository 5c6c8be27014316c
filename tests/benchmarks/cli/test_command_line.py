"""The command as a user meets it: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command_runs import SMALL_EXPERIMENT

from metalearn_core import Registry, UpdateRule, hookimpl, registry

SMOKE = ("run", "sine", "--scale", "smoke", "--workers", 1)
QUICK = (*SMOKE, "--tasks", 20)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "sin"], "unknown experiment 'sin': did you mean 'sine'?"),
        ([*SMOKE, "-m", "mmal"], "unknown method 'mmal': did you mean 'maml'?"),
        ([*SMOKE, "-m", "lslr"], "'lslr' is a rule and no method: say --rule lslr"),
        (
            [*SMOKE, "-m", "finetuning", "--order", "first"],
            "--order first: no method of these is meta-trained",
        ),
        ([*SMOKE, "-m", "maml", "-m", "fo-maml", "--order", "first"], "are the same method; leave one out"),
        ([*SMOKE, "--rule", "lst"], "unknown rule 'lst': did you mean 'lstm'?"),
        ([*SMOKE, "--rule", "lstm", "--option", "hiden=1"], "rule 'lstm': unknown option 'hiden'"),
        ([*SMOKE, "--rule", "lstm", "--option", "hidden=-1"], "hidden must be an integer >= 0, got -1"),
        ([*SMOKE, "--rule", "lstm", "--option", "hidden"], "expected key=value with a word or a TOML value"),
        ([*SMOKE, "--rule", "lstm", "--option", "hidden=[x"], "expected key=value with a word or a TOML"),
        ([*SMOKE, "--rule", "lstm", "--option", "hidden=x"], "hidden must be an integer >= 0, got 'x'"),
        ([*SMOKE, "--rule", "partial", "--option", "rule=alfaa"], "did you mean 'alfa'?"),
        ([*SMOKE, "--rule", "gradient-descent", "--option", "optimizer='adm'"], "did you mean 'adam'?"),
        ([*SMOKE, "--rule", "gradient-descent", "--option", "momentun=0.9"], "did you mean 'momentum'?"),
        ([*SMOKE, "--rule", "lstm", "--option", 'inputs=["gard"]'], "did you mean 'grad'?"),
        ([*SMOKE, "--option", "hidden=1"], "say --rule NAME or --meta-gradient NAME before it"),
        ([*SMOKE, "--rule"], "--rule needs a value"),
        ([*SMOKE, "--device", "cdua"], "device 'cdua' cannot be used here"),
        ([*SMOKE, "--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
        ([*SMOKE, "--steps", "-1"], "-1 is not in the range"),
        ([*SMOKE, "--seeds", "0"], "0 is not in the range"),
        ([*SMOKE, "--order", "third"], "'third' is not one of"),
        (["run", "sine", "--scale", "huge"], "'huge' is not one of"),
        ([*SMOKE, "--nonsense"], "--nonsense"),
        (["run", "missing.toml"], "missing.toml: cannot be read"),
        (["claims", "."], "no finished run is in it (0 begun)"),
        (["report", "nowhere"], "nowhere: there is no such folder"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_a_users_mistake_is_one_clear_line_and_nothing_is_written(
    metalearn, tmp_path, monkeypatch, arguments, told
):
    monkeypatch.chdir(tmp_path)
    code, out, err = metalearn(*arguments)
    assert code == 2
    assert told in err
    assert err.count("\n") == 1
    assert not out
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("title = 3", "key 'title': expected str, got 3"),
        ("titel = 'x'", "titel"),
        ("title = 'x'", "is missing"),
        ("title = [", "not TOML"),
    ],
)
def test_a_broken_experiment_file_is_refused_by_its_key(metalearn, tmp_path, text, told):
    (tmp_path / "mine.toml").write_text(text)
    code, _, err = metalearn("run", tmp_path / "mine.toml", "--out", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert told in err


def test_an_experiment_of_ones_own_with_a_method_of_its_own(metalearn, tmp_path):
    (tmp_path / "mine.toml").write_text(SMALL_EXPERIMENT)
    arguments = ("run", tmp_path / "mine.toml", "--scale", "smoke", "--workers", 1, "--out", tmp_path / "o")
    code, out, _ = metalearn(*arguments)
    assert code == 0
    assert "A small TURTLE" in out
    result = json.loads((tmp_path / "o/mine/sine-3-shot/two-layer/0/result.json").read_text())
    assert len(result["scores"]["sine"]) == 30
    assert result["parameters"] == 8 + 8 + 8 + 1
    assert result["meta_parameters"] == (4 + 4) + (16 + 4) + (4 + 1) + 25


def test_a_methods_own_option_of_the_base_learner_stands_beside_the_experiments(metalearn, tmp_path):
    """Both say how wide the network is; what the methods share is what the experiment says."""
    own = 'rule = "feed-forward"\nlearner = { hidden = [4] }'
    (tmp_path / "mine.toml").write_text(SMALL_EXPERIMENT.replace('rule = "feed-forward"', own))
    arguments = ("run", tmp_path / "mine.toml", "--scale", "smoke", "--workers", 1, "--out", tmp_path / "o")
    assert [metalearn(*arguments)[0] for _ in range(2)] == [0, 0]
    parameters = {
        name: json.loads((tmp_path / f"o/mine/sine-3-shot/{name}/0/result.json").read_text())["parameters"]
        for name in ("maml", "two-layer")
    }
    assert parameters == {"maml": 25, "two-layer": 13}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            'start = "meta"',
            'start = "meta"\nadapts = "head"',
            "method 'two-layer': what is meta-trained adapts all parameters; adapts = \"head\" is for",
        ),
        (
            "options = { hidden = [8] }",
            "options = { hidden = [8], inputs = 3 }",
            "method 'maml': base-learner 'mlp' cannot be tested on tasks of 'sine': ",
        ),
    ],
)
def test_what_cannot_be_trained_or_tested_is_refused_before_anything_runs(
    metalearn, tmp_path, old, new, told
):
    (tmp_path / "mine.toml").write_text(SMALL_EXPERIMENT.replace(old, new))
    code, _, err = metalearn("run", tmp_path / "mine.toml", "--scale", "smoke", "--out", tmp_path / "o")
    assert (code, err.count("\n")) == (2, 1)
    assert told in err
    assert not list(tmp_path.rglob("checkpoint.pt"))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("settings = { meta_bach = 2 }", "unknown setting 'meta_bach': did you mean 'meta_batch'?"),
        ("settings = { meta_batch = 0 }", "meta_batch must be an integer >= 1, got 0"),
        ('settings = { order = "third" }', "order must be one of first, second"),
        ('settings = { inner_clip = { by = "size", limit = 1.0 } }', "by must be one of value, norm"),
        ("settings = { inner_clip = 3 }", "two-layer"),
    ],
)
def test_a_bad_setting_is_refused_by_method_and_name(metalearn, tmp_path, line, told):
    (tmp_path / "mine.toml").write_text(
        SMALL_EXPERIMENT.replace("settings = { meta_batch = 2, outer_lr = 0.01 }", line)
    )
    arguments = ("run", tmp_path / "mine.toml", "--scale", "smoke", "--out", tmp_path / "o")
    code, _, err = metalearn(*arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert "two-layer" in err
    assert told in err
    assert not list((tmp_path / "o").rglob("*.toml"))


def test_a_run_leaves_a_whole_record_and_the_same_command_finds_it_done(metalearn, tmp_path):
    code, out, _ = metalearn(*QUICK, "-m", "maml", "--out", tmp_path)
    assert code == 0
    folder = tmp_path / "sine/sine-5-shot/maml/0"
    assert {"experiment.toml", "metrics.jsonl", "checkpoint.pt", "result.json"} <= {
        path.name for path in folder.iterdir()
    }
    result = json.loads((folder / "result.json").read_text())
    assert {len(row) for row in result["scores"]["sine"]} == {6}
    assert result["summary"]["tasks"] == len(result["scores"]["sine"]) == 100
    low, high = result["summary"]["ci95"]
    assert low < result["summary"]["mean"] < high
    assert [position for position, _ in result["validations"]] == [0, 20]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["position"] for line in lines] == [0, 20]
    assert set(result["curves"]["predictions"]) == {"0", "1", "5"}
    for key in ("versions", "device", "engine", "threads", "seeds_together", "seconds", "peak_memory_bytes"):
        assert result[key], key
    assert "metalearn-gradient-descent" in result["versions"]
    asked = tomllib.loads((folder / "experiment.toml").read_text())
    assert asked["method"]["options"] == {"inner_lr": 0.01, "learn_lr": "none", "optimizer": "sgd"}
    assert asked["family"]["options"] == {"support": 5, "query": 50, "example_tasks": 10_000}
    assert asked["learner"]["options"] == {"hidden": [40, 40], "inputs": 1, "outputs": 1}
    assert asked["method"]["settings"]["outer_lr"] == 0.001
    stamp = (folder / "result.json").stat().st_mtime_ns
    code, again, _ = metalearn(*QUICK, "-m", "maml", "--out", tmp_path)
    assert code == 0
    assert "already done" in again
    assert stamp == (folder / "result.json").stat().st_mtime_ns
    assert out.splitlines()[-1] == again.splitlines()[-1]


def test_overrides_make_a_row_of_their_own_named_after_them(metalearn, tmp_path):
    arguments = ("-m", "maml", "--rule", "feed-forward", "--option", "hidden=[3]", "--rule", "lstm")
    code, _, err = metalearn(*QUICK, *arguments, "--steps", 2, "--order", "first", "--out", tmp_path)
    assert code == 0, err
    rows = {path.name for path in (tmp_path / "sine/sine-5-shot").iterdir()}
    changed = "steps=2,order=first"
    assert rows == {f"maml,{changed}", f"feed-forward,hidden=_3_,{changed}", f"lstm,{changed}"}
    from metalearn_benchmarks.records.reading import read_records

    for record in read_records(tmp_path):
        assert record.steps == 2
        assert record.cell["method"]["settings"]["order"] == "first"


def test_one_row_is_run_and_the_whole_goes_on_from_it(metalearn, tmp_path):
    experiment = tmp_path / "two.toml"
    experiment.write_text('extends = "sine"\nmethods = ["maml"]\n[axes]\nsteps = [1, 2]\nshots = [2, 5]\n')
    size = ("run", experiment, "--scale", "smoke", "--tasks", 4, "--out", tmp_path / "results")
    code, _, err = metalearn(*size, "--only", "sine-2-shot/maml,steps=2")
    assert (code, err) == (0, "")
    folder = tmp_path / "results/two"
    assert {path.parent.relative_to(folder) for path in folder.glob("*/*/*")} == {
        Path("sine-2-shot/maml,steps=2")
    }
    code, out, _ = metalearn(*size, "--only", "*,steps=2")
    assert (code, out.count("already done")) == (0, 1)
    assert len(list(folder.glob("*/*/*"))) == 2
    code, _, err = metalearn(*size, "--only", "maml,steps=3")
    told = "metalearn: experiment 'two': unknown row 'maml,steps=3': did you mean"
    assert (code, err.startswith(told)) == (2, True), err


def test_seeds_change_the_weights_and_nothing_else(metalearn, tmp_path):
    assert metalearn(*QUICK, "-m", "maml", "-m", "turtle", "--seeds", 2, "--out", tmp_path)[0] == 0
    from metalearn_benchmarks.records.reading import read_records

    maml0, maml1, turtle0, turtle1 = read_records(tmp_path)
    truth = [r.result["curves"]["query"] for r in (maml0, maml1, turtle0, turtle1)]
    assert all(one == truth[0] for one in truth)
    before = [r.by_step[0] for r in (maml0, maml1)]
    assert before[0] != before[1]


@pytest.mark.parametrize(
    ("arguments", "key"),
    [(["--tasks", 30], "settings.tasks"), (["--scale", "small", "--tasks", 20], "scale")],
)
def test_a_folder_that_holds_another_experiment_is_refused(metalearn, tmp_path, arguments, key):
    assert metalearn(*QUICK, "-m", "maml", "--out", tmp_path)[0] == 0
    held = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, _, err = metalearn(*QUICK, *arguments, "-m", "turtle", "--out", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "it holds another experiment" in err
    assert key in err
    assert held == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "rate",
    [
        '{ start = 0.01, schedule = "cosine" }',
        '{ start = 0.01, schedule = "steps", at = [0.25, 0.5], factor = 0.1 }',
    ],
)
def test_an_experiment_whose_rate_changes_takes_more_seeds_and_is_done_when_run_again(
    metalearn, tmp_path, rate
):
    """Its record has lists where its settings have tuples: that is no other experiment."""
    file = tmp_path / "falling.toml"
    file.write_text(
        f'extends = "sine"\nmethods = ["maml"]\n[scale.smoke]\nsettings = {{ outer_lr = {rate} }}\n'
    )
    quick = ["run", file, "--tasks", "8", "--engine", "eager", "--scale", "smoke", "--out", tmp_path / "out"]
    for seeds, done in ((1, 0), (2, 1), (2, 2)):
        code, out, err = metalearn(*quick, "--seeds", seeds)
        assert (code, err, out.count("already done")) == (0, "", done)


def test_a_folder_that_cannot_be_written_is_refused(metalearn, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nowhere"):
        code, _, err = metalearn(*QUICK, "-m", "maml", "--out", place)
        assert (code, err.count("\n")) == (2, 1)
        assert "cannot be written" in err


def test_a_run_that_diverges_says_where_keeps_its_best_state_and_lets_the_others_go_on(metalearn, tmp_path):
    arguments = ("--rule", "gradient-descent", "--option", "inner_lr=1e12", "-m", "maml")
    code, out, err = metalearn(*QUICK, *arguments, "--out", tmp_path)
    assert code == 1
    assert "outer step 1, training task 0" in err
    assert "its best state is tested" in err
    assert "maml, seed 0: median error" in out
    label = "gradient-descent,inner_lr=1000000000000.0"
    text = (tmp_path / f"sine/sine-5-shot/{label}/0/result.json").read_text()
    assert "outer step 1" in json.loads(text)["diverged"]
    assert "NaN" not in text  # which is no JSON
    assert "Infinity" not in text
    assert "1 of 1 runs diverged" in out


def test_a_cell_that_fails_does_not_keep_the_others_from_running(metalearn, tmp_path, monkeypatch):
    class Broken(UpdateRule):
        def __init__(self, layout):
            super().__init__()

        def update(self, theta, signal, state):
            raise RuntimeError("as broken as can be")

    class Plugin:
        __file__ = "broken.py"

        @hookimpl
        def metalearn_update_rules(self):
            return {"broken": Broken}

    fresh = Registry()
    fresh.register(Plugin(), "broken", "broken-distribution")
    monkeypatch.setattr(registry, "default_registry", lambda: fresh)
    code, out, err = metalearn(*QUICK, "--rule", "broken", "-m", "maml", "--out", tmp_path)
    assert code == 1
    assert (
        "broken, seed 0: rule Broken (test_command_line): update raised RuntimeError: as broken as can be"
        in err
    )
    assert "(the traceback is in" in err
    assert "in update" in (tmp_path / "sine/sine-5-shot/broken/0/error.txt").read_text()
    assert "maml, seed 0: median error" in out
    assert not (tmp_path / "sine/sine-5-shot/broken/0/result.json").exists()


def test_a_nan_in_a_task_is_refused_before_anything_runs(metalearn, tmp_path, monkeypatch):
    from metalearn_benchmarks.tasks.sine import SineFamily

    class Torn(SineFamily):
        def sample(self, split, count, generator):
            task = super().sample(split, count, generator)
            if split == "test":
                task.query.targets[3, 0] = float("nan")
            return task

    class Plugin:
        @hookimpl
        def metalearn_task_families(self):
            return {"torn": Torn}

    fresh = Registry()
    fresh.register(Plugin(), "torn", "torn-distribution")
    monkeypatch.setattr(registry, "default_registry", lambda: fresh)
    (tmp_path / "mine.toml").write_text(SMALL_EXPERIMENT.replace('name = "sine"', 'name = "torn"'))
    out = tmp_path / "out"
    code, _, err = metalearn("run", tmp_path / "mine.toml", "--scale", "smoke", "--out", out)
    assert (code, err.count("\n")) == (2, 1)
    assert "Torn.sample('test'): task 3 holds a NaN" in err
    assert not list(out.rglob("*.toml"))


def test_a_rule_is_a_row_beside_the_experiments_own_methods(metalearn, tmp_path):
    (tmp_path / "mine.toml").write_text(SMALL_EXPERIMENT)
    arguments = ("--scale", "smoke", "--workers", 1, "--rule", "lstm", "--out", tmp_path / "o")
    assert metalearn("run", tmp_path / "mine.toml", *arguments)[0] == 0
    rows = {path.name for path in (tmp_path / "o/mine/sine-3-shot").iterdir()}
    assert rows == {"maml", "two-layer", "lstm"}


def test_two_rows_of_one_name_are_refused(metalearn, tmp_path):
    code, _, err = metalearn(*QUICK, "-m", "lstm", "--rule", "lstm", "--out", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "two rows would be called 'lstm'" in err


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('setting = "sine-3-shot"', 'setting = "../out"', "setting '../out' names a folder"),
        ('setting = "sine-3-shot"', 'setting = ".."', "setting '..' names a folder"),
        ("two-layer", "maml", "method 'maml' is a shipped one"),
        ("test_tasks = 30", "test_tasks = 0", "key 'scale.smoke': test_tasks must be an integer >= 1, got 0"),
        ("[scale.smoke]", "[scale.tiny]", "unknown scale 'tiny': there are paper, small, smoke"),
    ],
)
def test_what_would_lose_or_misplace_a_record_is_refused(metalearn, tmp_path, old, new, told):
    (tmp_path / "mine.toml").write_text(SMALL_EXPERIMENT.replace(old, new))
    code, _, err = metalearn("run", tmp_path / "mine.toml", "--scale", "smoke", "--out", tmp_path / "o")
    assert (code, err.count("\n")) == (2, 1)
    assert told in err
    assert not list(tmp_path.rglob("experiment.toml"))


def test_titles_are_text_and_never_markup(metalearn, tmp_path):
    (tmp_path / "mine.toml").write_text(SMALL_EXPERIMENT.replace("A small TURTLE", "50 % & [/red] | [bold]x"))
    arguments = ("--scale", "smoke", "--workers", 1, "--out", tmp_path / "o")
    code, out, _ = metalearn("run", tmp_path / "mine.toml", *arguments)
    assert code == 0
    assert "50 % & [/red] | [bold]x" in out
    report = tmp_path / "o/report"
    assert "50 \\% \\& [/red] | [bold]x\n& " in next(report.glob("*.tex")).read_text()
    assert r"50 % & [/red] \| [bold]x |" in next(report.glob("*.md")).read_text()
    assert "50 % &amp; [/red]" in (report / "report.html").read_text()


def test_what_there_is(metalearn):
    code, out, _ = metalearn("methods", "--json")
    names = [row["method"] for row in json.loads(out)]
    wanted = "maml fo-maml lstm lstm-enhanced turtle fo-turtle train-from-scratch finetuning baseline++"
    wanted += (
        " anil boil alfa lstm-optimizer nearest-centroid logistic-regression reptile imaml hf-maml es-maml"
    )
    assert (code, sorted(names)) == (0, sorted(wanted.split()))
    assert "Few-shot sine regression" in metalearn("experiments")[1]
    assert "sine" in metalearn("families")[1]
    plugins = json.loads(metalearn("plugins", "list", "--json")[1])
    assert {row["plugin"] for row in plugins} >= {"lstm", "feed-forward", "gradient-descent", "benchmarks"}
    assert {row["status"] for row in plugins} == {"loaded"}


def test_help_and_reports_need_no_torch(finished):
    """Nor does help need anything else that takes time: both take under 0.1 s where nothing else runs."""
    program = (
        "import sys\nfrom metalearn_benchmarks import cli\n"
        "heavy = set(sys.argv.pop().split(','))\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "found = heavy & {name.partition('.')[0] for name in sys.modules}\n"
        "assert not found, f'{found} imported'"
    )
    heavy = "torch,higher,numpy,scipy,matplotlib,rich,jinja2,cattrs,attrs,pluggy,safetensors,tensorboard"
    for arguments, unwanted in (
        (["--help"], heavy), (["run", "--help"], heavy), (["export", "--help"], heavy),
        (["methods"], "torch"), (["report", str(finished)], "torch"),
    ):  # fmt: skip
        command = [sys.executable, "-c", program, *arguments, unwanted]
        subprocess.run(command, check=True, capture_output=True)
