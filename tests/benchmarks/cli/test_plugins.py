"""`metalearn plugins`: what is listed, shown, validated and checked, and what is said of broken ones."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from metalearn_benchmarks.cli import app
from metalearn_benchmarks.plugins.docstrings import arguments, description
from metalearn_core import registry
from metalearn_core.testing import KIT_VERSION

GOOD = """
import torch
from torch import nn
from metalearn_core import UpdateRule, hookimpl

class Rule(UpdateRule):
    '''θ ← θ − α∇L.

    Args:
        inner_lr: where α starts,
            and more of it.
    '''

    def __init__(self, layout, inner_lr=0.01):
        super().__init__()
        self.inner_lr = nn.Parameter(torch.tensor(inner_lr))

    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad, state

@hookimpl
def metalearn_update_rules():
    return {"NAME": Rule}
"""
ABSTRACT = """
from metalearn_core import UpdateRule, hookimpl

class Rule(UpdateRule):
    pass

@hookimpl
def metalearn_update_rules():
    return {"NAME": Rule}
"""
DETACHED = GOOD.replace("* signal.grad,", "* signal.grad.detach(),")
NEWER = GOOD.replace("    def __init__", "    api_version = 2\n\n    def __init__")
METADATA = (
    "Summary: x\nRequires-Python: >=3.11\nLicense-Expression: MIT\nRequires-Dist: metalearn-core>=0.1\n"
)
RUN = ("run", "sine", "--scale", "smoke", "-m", "maml", "--workers", 1, "--tasks", 4, "--out")
OURS = "gradient-descent,lstm,feed-forward,benchmarks"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A made-up site of distributions, and the registry to be made anew: `site(name, source)`."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("METALEARN_LOAD_PLUGINS")
    registry.default_registry.cache_clear()

    def install(name, source, metadata=METADATA, module=None):
        module = module or f"stranger_{name}".replace("-", "_")
        if source is not None:
            (tmp_path / f"{module}.py").write_text(source.replace("NAME", name))
        info = tmp_path / f"metalearn_{name.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        header = f"Metadata-Version: 2.1\nName: metalearn-{name}\nVersion: 1.5\n"
        (info / "METADATA").write_text(header + metadata)
        (info / "entry_points.txt").write_text(f"[metalearn]\n{name} = {module}\n")
        importlib.invalidate_caches()

    yield install
    for name in [name for name in sys.modules if name.startswith("stranger_")]:
        del sys.modules[name]
    registry.default_registry.cache_clear()


@pytest.fixture
def metalearn(monkeypatch, capsys):
    """The command, in this process: exit code, output, errors."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["metalearn", *map(str, words)])
        code = 0
        try:
            app.main()
        except SystemExit as stop:
            code = stop.code or 0
        return (code, *capsys.readouterr())

    return run


def listed(metalearn, *words):
    code, out, err = metalearn("plugins", "list", "--json", *words)
    return code, {row["plugin"]: row for row in json.loads(out)}, err


def test_a_plugin_is_listed_with_what_it_brings_and_where_it_lies(site, metalearn):
    site("mine", GOOD)
    code, rows, err = listed(metalearn)
    assert (code, err) == (0, "")
    row = rows["mine"]
    assert (row["brings"], row["distribution"], row["version"]) == ("rule mine", "metalearn-mine", "1.5")
    assert (row["api"], row["status"]) == (1, "loaded")
    assert row["source"].endswith("stranger_mine.py")
    assert "rule mine" in metalearn("plugins", "list")[1]


def test_of_two_versions_on_the_path_the_one_that_is_imported_is_told(site, metalearn, tmp_path, monkeypatch):
    site("mine", GOOD)
    later = tmp_path / "later"
    shutil.copytree(tmp_path / "metalearn_mine-1.5.dist-info", later / "Metalearn.Mine-2.0.dist-info")
    info = later / "Metalearn.Mine-2.0.dist-info/METADATA"
    info.write_text(info.read_text().replace("1.5", "2.0").replace("metalearn-mine", "Metalearn.Mine"))
    shutil.copy(tmp_path / "stranger_mine.py", later)
    monkeypatch.setattr(sys, "path", [*sys.path, str(later)])
    importlib.invalidate_caches()
    code, rows, _ = listed(metalearn)
    assert (code, rows["mine"]["version"], rows["mine"]["distribution"]) == (0, "1.5", "metalearn-mine")
    assert rows["mine"]["source"] == str(tmp_path / "stranger_mine.py")
    assert "of metalearn-mine 1.5 (" in metalearn("plugins", "show", "mine")[1]


def test_odd_names_steer_no_terminal(site, metalearn):
    site("odd", GOOD.replace("NAME", "[red]a\\x1b[2J"))
    _, rows, _ = listed(metalearn)
    assert rows["odd"]["brings"] == "rule [red]a\x1b[2J"
    code, out, _ = metalearn("plugins", "list")
    assert code == 0
    assert "[red]a\\x1b[2J" in out
    assert "\x1b" not in out
    assert "\x1b" not in metalearn("plugins", "show", "[red]a\x1b[2J")[1]


BROKEN = {
    "raises": ("1 / 0", ["ZeroDivisionError", "pip uninstall metalearn-raises"]),
    "checks": (
        "raise ModuleNotFoundError(\"No module named 'hypothesis'\")",
        ["ModuleNotFoundError", "pip install hypothesis pytest"],
    ),
    "misspelt": (GOOD.replace("rules()", "rulez()"), ["did you mean 'metalearn_update_rules'"]),
    "newer": (NEWER, ["rule 'newer' is written for API 2", "upgrade metalearn-core"]),
    "printing": ("print('here I am')\n1 / 0", ["ZeroDivisionError"]),
    "skips": ("import pytest\npytest.skip('no', allow_module_level=True)", ["failed to import: Skipped: no"]),
    "number": (GOOD.replace(": Rule}", ": int}"), ["rule 'number': expected an UpdateRule, got a int"]),
    "nameless": (GOOD.replace("NAME", ""), ["metalearn_update_rules must return a mapping of names"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_reported_with_its_remedy_and_the_others_work(site, metalearn, name):
    source, parts = BROKEN[name]
    site(name, source, module="stranger_broken")
    site("mine", GOOD)
    code, rows, err = listed(metalearn)
    assert code == 1
    assert len(err.replace("here I am\n", "").splitlines()) == 1
    for part in (f"plugin {name} of metalearn-{name} 1.5", *parts):
        assert part in err
    assert rows["mine"]["status"] == "loaded"
    assert rows["feed-forward"]["status"] == "loaded"
    assert metalearn("plugins", "show", "mine")[0] == 0


def test_a_name_with_two_owners_is_told_of_both_and_nobody_is_sent_away(site, metalearn):
    site("twin", GOOD.replace("NAME", "lstm"))
    code, rows, err = listed(metalearn)
    said = "rule 'lstm' is claimed by metalearn-lstm (plugin lstm) and metalearn-twin (plugin twin)"
    assert code == 1
    assert {name for name, row in rows.items() if row["status"] != "loaded"} == {"lstm", "twin"}
    assert rows["lstm"]["status"] == rows["twin"]["status"] == f"{said}; uninstall or rename one"
    for line, name in zip(err.splitlines(), ("lstm", "twin"), strict=True):
        assert line.startswith(f"plugin {name} of metalearn-{name} ")
        assert line.endswith(f"{said}; uninstall or rename one")
    for name in ("metalearn-twin", "metalearn-lstm"):
        code, found = findings(metalearn, name, "--imports")
        check = f"imports {name.removeprefix('metalearn-')}"
        assert (code, found[check]) == (1, ("failed", f"{said}; uninstall or rename one"))
    for command in ("show", "check"):
        code, _, err = metalearn("plugins", command, "lstm")
        assert (code, said in err) == (2, True)
    assert metalearn("plugins", "show", "feed-forward")[0] == 0


def test_two_entry_points_of_one_module_are_said_in_one_line(site, metalearn):
    site("mine", GOOD, module="stranger_shared")
    site("other", None, module="stranger_shared")
    code, rows, err = listed(metalearn)
    told = "registered already, as 'metalearn-mine: mine'; remove one of the two entry points"
    assert (code, rows["mine"]["status"], rows["other"]["status"]) == (1, "loaded", told)
    assert len(err.splitlines()) == 1


def test_a_rule_of_a_newer_core_is_said_alike_by_all(site, metalearn, tmp_path):
    site("future", NEWER)
    told = "rule 'future' is written for API 2, metalearn-core has API 1: upgrade metalearn-core"
    code, rows, err = listed(metalearn)
    assert (code, rows["future"]["api"], rows["lstm"]["api"]) == (1, 2, 1)
    assert told in err
    code, out, _ = metalearn("plugins", "show", "future")
    assert (code, told in out) == (1, True)
    (page,) = json.loads(metalearn("plugins", "show", "future", "--json")[1])
    assert page["problem"] == told
    for words in (("plugins", "check", "future"), (*RUN, tmp_path / "out", "--rule", "future")):
        code, _, err = metalearn(*words)
        assert code != 0
        assert told in err
        assert "Traceback" not in err


FAILING = {
    "headless": (
        GOOD.replace("        super().__init__()\n", ""),
        "rule 'headless': mend or upgrade metalearn-headless: AttributeError: cannot assign",
    ),
    "bare": (
        GOOD.replace("super().__init__()", "self.inner_lr = 0.1\n\n    def unused(self):"),
        "rule 'bare': __init__ of Rule must call super().__init__()",
    ),
    "raising": (
        GOOD.replace("super().__init__()", "print('so far'); raise RuntimeError('no\\nluck')"),
        "rule 'raising': mend or upgrade metalearn-raising: RuntimeError: no luck",
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_rule_that_cannot_be_made_is_said_in_one_line_wherever_it_is_asked_for(
    site, metalearn, tmp_path, name
):
    source, told = FAILING[name]
    site(name, source)
    code, out, _ = metalearn("plugins", "show", name, "--json")
    (page,) = json.loads(out)
    assert (code, page["problem"].startswith(told)) == (1, True)
    code, out, err = metalearn("plugins", "check", name, "--json")
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.replace("so far\n", "").splitlines()) == 1
    code, _, err = metalearn(*RUN, tmp_path / "out", "--rule", name)
    assert code != 0
    assert told in err
    assert "Traceback" not in err


def test_who_asks_for_a_rule_of_a_broken_plugin_is_told_of_it(site, metalearn):
    site("raises", "1 / 0")
    code, _, err = metalearn("plugins", "check", "raises")
    assert code == 2
    assert "unknown rule 'raises'" in err
    assert "not loaded, or not all of it: plugin raises" in err


def test_plugins_are_left_out_on_request(site, metalearn, monkeypatch):
    site("raises", "raise RuntimeError('it was imported')")
    monkeypatch.setenv("METALEARN_LOAD_PLUGINS", OURS)
    code, rows, err = listed(metalearn)
    assert code == 0
    assert set(rows) == set(OURS.split(","))
    assert "left out by METALEARN_LOAD_PLUGINS; --all shows them" in err
    rows = listed(metalearn, "--all")[1]
    assert (rows["raises"]["status"], rows["raises"]["api"]) == ("left out", None)
    assert rows["lstm"]["status"] == "loaded"
    lines = metalearn("--version")[1].splitlines()
    assert "  raises: metalearn-raises 1.5 (left out by METALEARN_LOAD_PLUGINS)" in lines
    assert not any("lstm:" in line and "left out" in line for line in lines)


@pytest.mark.parametrize("how", ["variable", "option"])
def test_none_at_all(site, metalearn, monkeypatch, how):
    monkeypatch.setenv("METALEARN_LOAD_PLUGINS", "" if how == "variable" else "lstm")
    option = ["--no-plugins"] if how == "option" else []
    code, out, err = metalearn(*option, "plugins", "list", "--json")
    assert (code, json.loads(out)) == (0, [])
    assert f"left out by {'METALEARN_LOAD_PLUGINS' if how == 'variable' else '--no-plugins'}; " in err
    code, _, err = metalearn(*option, "plugins", "check", "lstm")
    assert code == 2
    assert "unknown rule 'lstm'" in err
    assert "lstm" in err.partition("not loaded")[2]


def test_by_distribution_too_and_a_wrong_name_is_refused(site, metalearn, monkeypatch):
    monkeypatch.setenv("METALEARN_LOAD_PLUGINS", "metalearn-lstm")
    assert set(listed(metalearn)[1]) == {"lstm"}
    registry.default_registry.cache_clear()
    monkeypatch.setenv("METALEARN_LOAD_PLUGINS", "lstmm")
    code, _, err = metalearn("plugins", "list")
    assert code == 2
    assert "unknown plugin to load 'lstmm': did you mean 'lstm'" in err


def test_show_says_equation_options_and_phi(site, metalearn):
    site("mine", GOOD)
    code, out, _ = metalearn("plugins", "show", "mine", "--json")
    (page,) = json.loads(out)
    assert code == 0
    assert page["description"] == "θ ← θ − α∇L."
    assert page["options"] == [
        {"option": "inner_lr", "default": "0.01", "meaning": "where α starts, and more of it."}
    ]
    assert (page["phi"]["count"], page["phi"]["shapes"]) == (1, {"inner_lr": []})
    out = metalearn("plugins", "show", "mine")[1]
    for part in ("rule mine, of metalearn-mine 1.5", "θ ← θ − α∇L", "capabilities: none", ": 1 (inner_lr"):
        assert part in out


@pytest.mark.parametrize(
    "name", ["lstm", "sine", "conv-4", "json-lines", "alfa", "reptile", "backpropagation"]
)
def test_show_knows_every_kind(metalearn, name):
    code, out, _ = metalearn("plugins", "show", name)
    assert code == 0
    assert f" {name}, of metalearn-" in out


def test_every_option_of_the_shipped_rules_is_explained(metalearn):
    rules = (
        "feed-forward",
        "lstm",
        "lslr",
        "meta-curvature",
        "alfa",
        "lstm-optimizer",
        "mlp-optimizer",
        "partial",
    )
    for name in (*rules, "proximal", "reptile", "implicit", "evolution", "hessian-free"):
        pages = json.loads(metalearn("plugins", "show", name, "--json")[1])
        page = next(page for page in pages if page["kind"] in ("rule", "meta-gradient"))
        assert page["options"]
        assert [row["option"] for row in page["options"] if not row["meaning"]] == [], name


def test_show_says_what_is_needed_and_nothing_else(site, metalearn):
    site("abstract", ABSTRACT)
    site("wants", GOOD.replace("inner_lr=0.01", "inner_lr"))
    (page,) = json.loads(metalearn("plugins", "show", "gradient-descent", "--json")[1])
    defaults = {row["option"]: row["default"] for row in page["options"]}
    assert defaults["**options"] == "(none)"
    assert "(needed)" not in defaults.values()
    code, out, _ = metalearn("plugins", "show", "abstract", "--json")
    assert [row["option"] for row in json.loads(out)[0]["options"]] == ["**kwargs"]
    assert code == 1
    site("builtin", GOOD.replace(": Rule}", ": int}"))
    registry.default_registry.cache_clear()
    code, out, _ = metalearn("plugins", "show", "builtin")
    assert (code, "expected an UpdateRule, got a int; make it one" in out) == (1, True)
    code, out, _ = metalearn("plugins", "show", "wants")
    assert (code, "it cannot be made with its defaults" in out) == (0, True)


def test_show_of_what_is_not_there(metalearn):
    code, _, err = metalearn("plugins", "show", "lstmm")
    assert (code, "did you mean 'lstm" in err) == (2, True)


def findings(metalearn, *words):
    code, out, _ = metalearn("plugins", "validate", "--json", *words)
    return code, {row["check"]: (row["status"], row["message"]) for row in json.loads(out)}


def test_a_whole_distribution_is_valid_and_imported_on_request_alone(site, metalearn):
    site("mine", GOOD)
    code, found = findings(metalearn, "metalearn-mine")
    assert code == 0
    assert "stranger_mine" not in sys.modules
    assert found["imports"] == ("skipped", "say --imports to run its code")
    assert {status for check, (status, _) in found.items() if check != "imports"} == {"passed"}
    code, found = findings(metalearn, "metalearn-mine", "--imports")
    assert code == 0
    assert found["imports mine"] == found["docstring of rule mine"] == ("passed", "")


@pytest.mark.parametrize(
    ("source", "metadata", "check", "said"),
    [
        (None, METADATA, "module of mine", "stranger_mine is not installed"),
        (GOOD, METADATA.replace("metalearn-core", "torch"), "requires metalearn-core", "dependencies"),
        ("1 / 0", METADATA, "imports mine", "ZeroDivisionError"),
        (GOOD.replace("'''", "#", 1).replace("'''", "#", 1), METADATA, "imports mine", "failed to import"),
    ],
)
def test_what_is_not_in_order_is_named(site, metalearn, source, metadata, check, said):
    site("mine", source, metadata)
    code, found = findings(metalearn, "metalearn-mine", "--imports")
    assert code == 1
    assert found[check][0] == "failed"
    assert said in found[check][1]


def test_what_is_good_to_have_is_a_warning_and_hinders_nothing(site, metalearn):
    site("mine", GOOD.replace("'''", '"""').replace('"""θ', 'bare = """θ'), "Requires-Dist: metalearn-core\n")
    code, found = findings(metalearn, "metalearn-mine", "--imports")
    assert code == 0
    warnings = {check for check, (status, _) in found.items() if status == "warning"}
    assert warnings == {"description", "requires-python", "licence", "docstring of rule mine"}
    assert all("pyproject.toml" in found[check][1] for check in warnings if "docstring" not in check)
    assert found["imports mine"] == ("passed", "")
    assert "warning" in metalearn("plugins", "validate", "metalearn-mine")[1]


def test_an_import_is_diagnosed_whatever_else_is_wrong(site, metalearn):
    site("mine", "1 / 0", "")
    code, found = findings(metalearn, "metalearn-mine", "--imports")
    assert (code, found["requires metalearn-core"][0]) == (1, "failed")
    assert found["imports mine"] == ("failed", "failed to import: ZeroDivisionError: division by zero")


def test_a_distribution_without_plugins_and_one_that_is_not_there(metalearn):
    code, found = findings(metalearn, "pytest", "--imports")
    assert (code, found["entry points"][0]) == (1, "failed")
    assert found["imports"] == ("skipped", "there is no entry point to import")
    code, _, err = metalearn("plugins", "validate", "metalearn-lsmt")
    assert code == 2
    assert "did you mean 'metalearn-lstm'" in err
    code, _, err = metalearn("plugins", "validate", "")
    assert (code, "unknown distribution ''" in err) == (2, True)


def test_check_says_which_laws_hold(site, metalearn):
    site("mine", GOOD)
    code, out, _ = metalearn("plugins", "check", "mine", "-o", "inner_lr=0.5")
    assert code == 0
    assert f"mine: 15 passed, 0 failed, 3 skipped  (kit {KIT_VERSION}, api 1, torch" in out
    assert "the rule does not declare elementwise" in out


def test_check_of_a_rule_that_breaks_a_law(site, metalearn):
    site("mine", DETACHED)
    code, out, _ = metalearn("plugins", "check", "mine", "--json")
    answer = json.loads(out)
    assert (code, answer["rule"], answer["kit"], answer["api"]) == (1, "mine", KIT_VERSION, 1)
    failed = {row["law"]: row["message"] for row in answer["results"] if row["status"] == "failed"}
    assert "detach()" in failed["order"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mine", "-o", "inner_rl=1"], "unknown option 'inner_rl': did you mean 'inner_lr'"),
        (["mine", "-o", "inner_lr"], "expected key=value"),
        (["mien"], "unknown rule 'mien': did you mean 'mine'"),
    ],
)
def test_check_refuses_in_one_line(site, metalearn, words, said):
    site("mine", GOOD)
    code, _, err = metalearn("plugins", "check", *words)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert said in err


def test_version_names_plugins_and_imports_none(site, tmp_path):
    site("raises", "raise RuntimeError('it was imported')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "metalearn_benchmarks", "--version"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, *lines = done.stdout.splitlines()
    assert first.startswith("metalearn 0.1.0 (metalearn-core 0.1.0, torch ")
    assert "  raises: metalearn-raises 1.5" in lines
    assert any(line.startswith("  feed-forward: metalearn-feed-forward ") for line in lines)


def test_docstrings_are_read_by_argument():
    text = "It is.\n\nMore.\n\nArgs:\n    a, b: both\n        of them.\n    **c: the rest: all.\n\n"
    text += "Raises:\n    E: no."
    assert description(text) == "It is.\n\nMore."
    assert arguments(text) == {"a": "both of them.", "b": "both of them.", "**c": "the rest: all."}
    assert arguments("Nothing.") == {}


def test_check_takes_expected_failures_and_a_problem(metalearn, monkeypatch):
    from metalearn_core import testing

    asked = {}

    def check(make, **given):
        asked.update(given)
        return [testing.Result("order", "basic", "expected", "as known")]

    monkeypatch.setattr(testing, "check_update_rule", check)
    words = ("plugins", "check", "gradient-descent", "--expect", "order=it stops one", "--problem")
    code, out, told = metalearn(*words, "metalearn_core.testing:tiny_learner")
    assert code == 0, told
    assert asked["expected_failures"] == {"order": "it stops one"}
    assert asked["problem"] is testing.tiny_learner
    assert "0 passed, 0 failed, 1 expected, 0 skipped" in out
    code, _, told = metalearn(*words, "metalearn_core:nothing")
    assert code == 2
    assert "--problem: expected MODULE:NAME of what can be imported" in told
    code, _, told = metalearn("plugins", "check", "gradient-descent", "--expect", "order")
    assert code == 2
    assert "--expect: expected LAW=WHY" in told


def test_check_holds_an_outer_gradient_against_its_own_laws(metalearn):
    code, out, _ = metalearn("plugins", "check", "reptile", "--json")
    assert code == 0
    rows = json.loads(out)["results"]
    assert {row["status"] for row in rows} == {"passed"}
    assert "tasks-alone" in {row["law"] for row in rows}
    code, out, _ = metalearn("plugins", "check", "implicit")
    assert code == 1
    assert "take the rule proximal" in " ".join(out.split())
    assert metalearn("plugins", "check", "implicit", "-o", "regularisation=2.0")[0] == 0
