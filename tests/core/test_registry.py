"""Plugins: found by entry point, named when broken, and never in each other's way."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

import metalearn_core
from metalearn_core import ParameterLayout, Registry, UpdateRule, UsageError, hookimpl

LAYOUT = ParameterLayout(("w",), ((3,),))
HOOKS = {
    "metalearn_update_rules": "rule",
    "metalearn_task_families": "task family",
    "metalearn_base_learners": "base-learner",
    "metalearn_meta_gradients": "meta-gradient",
    "metalearn_observers": "observer",
    "metalearn_map": "placement",
}


class Still(UpdateRule):
    """θ stays."""

    def __init__(self, layout: ParameterLayout, pace: float = 1.0, *, mode: str = "on") -> None:
        super().__init__()
        if pace < 0:
            raise UsageError(f"pace must be >= 0, got {pace}")
        self.pace, self.mode, self.size = float(pace), mode, layout.size

    def update(self, theta, signal, state):
        return theta, state


def plugin(**hooks: object) -> types.ModuleType:
    """A module with hooks; each answers with the value given, or by being called."""
    module = types.ModuleType("fake")
    for name, answer in hooks.items():

        def hook(answer=answer):
            return answer() if isinstance(answer, types.FunctionType) else answer

        hook.__name__ = name
        # pluggy reads a default argument as none at all
        setattr(module, name, hookimpl(hook))
    return module


def rules_of(registry: Registry) -> dict:
    return registry.catalogues["metalearn_update_rules"]


def registered(*plugins: tuple[object, str, str]) -> Registry:
    registry = Registry(discover=False)
    for module, name, distribution in plugins:
        registry.register(module, name, distribution, "1.0")
    return registry


GOOD = plugin(metalearn_update_rules={"still": Still})
OTHER = plugin(metalearn_update_rules={"unmoved": Still})


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_fills_its_own_catalogue(hook):
    factory = lambda **options: options  # noqa: E731
    registry = registered((plugin(**{hook: {"x": factory}}), "fake", "dist-a"))
    entry = registry.catalogues[hook]["x"]
    assert entry(a=1) == {"a": 1}
    assert (entry.kind, entry.plugin, entry.distribution) == (HOOKS[hook], "fake", "dist-a")
    assert [list(registry.catalogues[other]) for other in HOOKS if other != hook] == [[]] * (len(HOOKS) - 1)
    (report,) = registry.reports
    assert (report.name, report.distribution, report.version) == ("fake", "dist-a", "1.0")
    assert report.error is None


def test_a_rule_is_made_by_name_with_its_options():
    rule = registered((GOOD, "g", "d")).make_rule("still", LAYOUT, pace=2, mode="off")
    assert (type(rule), rule.pace, rule.mode, rule.size) == (Still, 2.0, "off", 3)
    assert set(rules_of(registered((GOOD, "g", "d")))["still"].options()) == {"pace", "mode"}


def one_line(*parts: str):
    return pytest.raises(UsageError, match=r"\A[^\n]*" + r"[^\n]*".join(parts) + r"[^\n]*\Z")


class Newer(Still):
    api_version = 2


class Older(Still):
    api_version = 0


class Headless(Still):
    def __init__(self, layout):
        self.inner_lr = nn.Parameter(torch.tensor(0.1))


class Bare(Still):
    def __init__(self, layout):
        self.size = layout.size


def takes_anything(layout, **options):
    raise ValueError(f"width must be even, got {options['width']}\nand a second line")


CASES = {
    "unknown rule": ("stil", {}, ["unknown rule 'stil'", "did you mean 'still'", "newer", "number"]),
    "unknown rule, none near": ("qqq", {}, ["unknown rule 'qqq': there are", "still"]),
    "unknown option": ("still", {"pase": 1}, ["rule 'still'", "option 'pase'", "'pace'", "mode"]),
    "value refused": ("still", {"pace": -1}, ["rule 'still': pace must be >= 0, got -1"]),
    "value of the wrong type": ("still", {"pace": None}, ["rule 'still'", "NoneType"]),
    "value refused in two lines": ("any", {"width": 3}, ["rule 'any'", "width must be even, got 3"]),
    "newer API": ("newer", {}, ["rule 'newer'", "API 2", "has API 1", "upgrade metalearn-core"]),
    "newer API, by a function": ("made newer", {}, ["'made newer'", "API 2", "upgrade metalearn-core"]),
    "older API": ("older", {}, ["rule 'older'", "API 0", "has API 1", "upgrade d"]),
    "a module, no rule": ("linear", {}, ["rule 'linear'", "expected an UpdateRule, got a Linear"]),
    "a number": ("number", {}, ["rule 'number'", "UpdateRule", "int"]),
    "a class that is none": ("none", {}, ["rule 'none'", "expected an UpdateRule, got a Path"]),
    "no super().__init__()": ("headless", {}, ["rule 'headless'", "mend or upgrade d: AttributeError"]),
    "nor a parameter": ("bare", {}, ["rule 'bare'", "Bare must call super\\(\\).__init__\\(\\)"]),
    "it exits": ("exits", {}, ["rule 'exits'", "mend or upgrade d: SystemExit: 3"]),
    "nobody knows its options": ("type", {}, ["rule 'type'", "signature"]),
    "it raises": ("raises", {}, ["rule 'raises'", "mend or upgrade d: RuntimeError: no such luck"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_rule_that_cannot_be_made_says_why(case):
    name, options, parts = CASES[case]
    factories = {
        "still": Still,
        "newer": Newer,
        "made newer": lambda layout: Newer(layout),
        "older": Older,
        "none": Path,
        "headless": Headless,
        "bare": Bare,
        "raises": lambda layout: _fails(),
        "exits": lambda layout: sys.exit(3),
        "type": max,
        "any": takes_anything,
        "linear": lambda layout: nn.Linear(layout.size, 1),
        "number": lambda layout: layout.size,
    }
    registry = registered((plugin(metalearn_update_rules=factories), "p", "d"))
    with one_line(*parts):
        registry.make_rule(name, LAYOUT, **options)


def _fails() -> None:
    raise RuntimeError("no such luck")


def misread(hook: str, *names: str) -> types.ModuleType:
    module = types.ModuleType("fake")
    exec(f"def {hook}({', '.join(names)}): return {{}}", module.__dict__)
    hookimpl(getattr(module, hook))
    return module


class Unreadable(dict):
    def items(self):
        _fails()


BROKEN = {
    "misspelt": (
        plugin(metalearn_update_rule={"a": Still}),
        ["metalearn_update_rule'", "did you mean 'metalearn_update_rules'"],
    ),
    "misspelt beside a good one": (
        plugin(metalearn_update_rules={"a": Still}, metalearn_task_familys={"b": Still}),
        ["metalearn_task_familys", "metalearn_task_families"],
    ),
    "no mapping": (
        plugin(metalearn_update_rules=[Still]),
        ["metalearn_update_rules must return", "got"],
    ),
    "nothing": (plugin(metalearn_update_rules=None), ["metalearn_update_rules must return", "None"]),
    "factory not callable": (
        plugin(metalearn_update_rules={"a": Still, "b": 3}),
        ["metalearn_update_rules", "callable", "3"],
    ),
    "name empty": (plugin(metalearn_update_rules={" ": Still}), ["metalearn_update_rules", "names", "' '"]),
    "name no string": (plugin(metalearn_update_rules={3: Still}), ["metalearn_update_rules", "name"]),
    "hook that raises": (
        plugin(metalearn_update_rules=_fails),
        ["metalearn_update_rules failed: RuntimeError: no such luck"],
    ),
    "hook that exits": (plugin(metalearn_update_rules=lambda: sys.exit(3)), ["rules failed: SystemExit: 3"]),
    "no hook": (types.ModuleType("fake"), ["no hook", "hookimpl"]),
    "hook not marked": (
        types.SimpleNamespace(metalearn_update_rules=lambda: {"a": Still}),
        ["no hook", "hookimpl"],
    ),
    "hook with an argument": (misread("metalearn_update_rules", "layout"), ["{'layout'} are declared"]),
    "mapping that raises": (plugin(metalearn_update_rules=Unreadable(a=Still)), ["no such luck"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_reported_and_the_others_load(case):
    module, parts = BROKEN[case]
    after = plugin(metalearn_update_rules={"moving": Still})
    registry = registered((GOOD, "g", "dist-g"), (module, "bad", "dist-bad"), (after, "h", "dist-h"))
    good, bad, last = registry.reports
    assert (good.error, last.error) == (None, None)
    assert (bad.name, bad.distribution) == ("bad", "dist-bad")
    for part in parts:
        assert part in bad.error
    assert len(bad.error.splitlines()) == 1
    assert len(bad.error) < 400
    assert set(rules_of(registry)) == {"still", "moving"}
    assert not any(registry.catalogues[hook] for hook in HOOKS if hook != "metalearn_update_rules")
    registry.make_rule("still", LAYOUT)


def test_a_name_with_two_owners_belongs_to_neither():
    twice = plugin(metalearn_update_rules={"still": Still, "other": Still})
    third = plugin(metalearn_update_rules={"still": Still}, metalearn_task_families={"still": Still})
    registry = registered((GOOD, "a", "dist-a"), (twice, "b", "dist-b"), (OTHER, "d", "dist-d"))
    assert set(rules_of(registry)) == {"other", "unmoved"}
    parts = ["rule 'still'", r"dist-a \(plugin a\)", r"dist-b \(plugin b\)"]
    with one_line(*parts):
        registry.make_rule("still", LAYOUT)
    registry.register(third, "c", "dist-c")
    with one_line(*parts, r"dist-c \(plugin c\)"):
        registry.make_rule("still", LAYOUT)
    first, second, innocent, last = registry.reports
    assert innocent.error is None
    said = registry.catalogues["metalearn_update_rules"].clash("still")
    assert {first.error, second.error, last.error} == {said}
    assert isinstance(registry.make_rule("other", LAYOUT), Still)
    assert set(registry.catalogues["metalearn_task_families"]) == {"still"}  # names of another kind


def test_two_entry_points_of_one_name_and_rule_name_both_distributions():
    mine, theirs = (plugin(metalearn_update_rules={"still": Still}) for _ in range(2))
    registry = registered((mine, "still", "dist-a"), (theirs, "still", "dist-b"))
    assert all("dist-a" in report.error and "dist-b" in report.error for report in registry.reports)
    with one_line("rule 'still'", "dist-a", "dist-b"):
        registry.make_rule("still", LAYOUT)


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_same_plugin_twice_keeps_the_first(name):
    registry = registered((GOOD, "a", "dist-a"), (GOOD, name, "dist-a"))
    first, second = registry.reports
    assert first.error is None
    assert second.error == "registered already, as 'dist-a: a'; remove one of the two entry points"
    assert list(rules_of(registry)) == ["still"]


MODULE = """
from metalearn_core import UpdateRule, hookimpl

class Rule(UpdateRule):
    def __init__(self, layout, pace=1.0):
        super().__init__()
    def update(self, theta, signal, state):
        return theta, state

@hookimpl
def metalearn_update_rules():
    return {"NAME": Rule}
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a made-up distribution on the path: `install(distribution, module, source)`."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(distribution: str, module: str, source: str, target: str = "") -> None:
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{distribution.replace('-', '_')}-2.5.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n"
        (info / "METADATA").write_text(metadata)
        points = f"[metalearn]\n{module} = {module}{target}\n\n[other]\n{module} = nothing\n"
        (info / "entry_points.txt").write_text(points)
        importlib.invalidate_caches()
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, module)

    return put


def report_of(registry: Registry, name: str):
    (report,) = [report for report in registry.reports if report.name == name]
    return report


def test_an_installed_plugin_is_found(install):
    install("fake-dist", "fake_found", MODULE.replace("NAME", "found"))
    registry = Registry()
    entry = rules_of(registry)["found"]
    assert (entry.plugin, entry.distribution) == ("fake_found", "fake-dist")
    assert isinstance(registry.make_rule("found", LAYOUT, pace=2.0), UpdateRule)
    report = report_of(registry, "fake_found")
    assert (report.distribution, report.version, report.error) == ("fake-dist", "2.5", None)
    assert report.source.endswith("fake_found.py")
    assert {"gradient-descent", "lstm", "feed-forward"} <= set(rules_of(registry))
    assert "found" not in rules_of(Registry(discover=False))
    assert not Registry(discover=False).reports


@pytest.mark.parametrize(
    ("source", "target", "parts"),
    [
        ("import no_such_module", "", ["ModuleNotFoundError", "no_such_module"]),
        ("1 / 0", "", ["ZeroDivisionError", "division by zero"]),
        ("def broken(:", "", ["SyntaxError"]),
        ("raise SystemExit('bye')", "", ["SystemExit", "bye"]),
        ("class Worse(BaseException): pass\nraise Worse('bye\\nbye')", "", ["import: Worse: bye bye"]),
        (MODULE, ":nothing", ["AttributeError", "nothing"]),
        (MODULE.replace("rules()", "rulez()"), "", ["metalearn_update_rulez", "metalearn_update_rules"]),
        ("x = 1", "", ["no hook"]),
        (MODULE.replace("return {", "return 3, {"), "", ["mapping"]),
    ],
)
def test_a_plugin_that_does_not_load_is_named_with_its_cause(install, source, target, parts):
    install("bad-dist", "fake_bad", source, target)
    install("good-dist", "fake_good", MODULE.replace("NAME", "found"))
    registry = Registry()
    report = report_of(registry, "fake_bad")
    assert (report.distribution, report.version) == ("bad-dist", "2.5")
    for part in parts:
        assert part in report.error
    assert {"found", "gradient-descent", "lstm", "feed-forward"} <= set(rules_of(registry))
    assert {r.name for r in registry.reports if r.error} == {"fake_bad"}


def test_a_rule_of_two_distributions_is_usable_from_neither(install):
    for letter in "ab":
        install(f"dist-{letter}", f"fake_{letter}", MODULE.replace("NAME", "lstm" if letter == "a" else "x"))
    registry = Registry()
    with one_line("rule 'lstm'", "dist-a", "metalearn-lstm"):
        registry.make_rule("lstm", LAYOUT)
    assert {"x", "gradient-descent", "feed-forward"} <= set(rules_of(registry))
    assert {report.name for report in registry.reports if report.error} == {"fake_a", "lstm"}


def test_who_stops_the_import_of_a_plugin_stops_the_program(install):
    install("dist-a", "fake_a", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Registry()


def test_what_a_plugin_prints_when_it_is_loaded_goes_to_standard_error(install, capsys):
    source = MODULE.replace("NAME", "found").replace("    return {", "    print('asked')\n    return {")
    install("dist-a", "fake_a", f"print('imported')\n{source}")
    assert "found" in rules_of(Registry())
    assert capsys.readouterr() == ("", "imported\nasked\n")


def test_arguments_without_a_name_are_no_options():
    module = plugin(metalearn_update_rules={"a": lambda layout, *args: 0})
    assert rules_of(registered((module, "p", "d")))["a"].options() == {}


SURFACE = {  # what the design promises; more is allowed
    *("Batch", "Task", "TaskFamily", "ParameterLayout", "BaseLearner", "Signal", "UpdateRule", "Trained"),
    *("adapt", "trajectory", "meta_gradient", "meta_train", "meta_test", "make_rule", "hookimpl"),
    *("rules", "task_families", "base_learners", "observers", "placements"),
}


def test_every_public_name_resolves_and_says_what_it_is():
    assert set(metalearn_core.__all__) >= SURFACE
    assert set(metalearn_core.__all__) <= set(dir(metalearn_core))
    for name in metalearn_core.__all__:
        thing = getattr(metalearn_core, name)
        if name not in ("TWINS", "State", "Order", "Observer"):
            assert thing.__doc__, name
            assert not thing.__doc__.startswith("Method generated by attrs"), name
    with pytest.raises(AttributeError, match="no attribute 'Tasks'"):
        metalearn_core.Tasks  # noqa: B018


def test_names_for_type_checkers_are_those_that_load():
    source = Path(metalearn_core.__file__).with_suffix(".pyi").read_text()
    typed = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign):
            continue
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.name == alias.asname  # the spelling that re-exports
            typed[alias.name] = node.module
    loaded = {name: f"metalearn_core.{home}" for name, home in metalearn_core._HOME.items()}
    assert typed == loaded


@pytest.mark.parametrize(
    "statement", ["import metalearn_core", "from metalearn_core import UsageError, unknown"]
)
def test_records_and_names_need_no_torch(statement):
    check = f"import sys; {statement}; print(sorted({{'torch', 'higher', 'pluggy'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_version_is_that_of_the_distribution():
    assert metalearn_core.__version__ == importlib.metadata.version("metalearn-core")


def test_the_functions_read_the_installed_plugins(monkeypatch):
    assert {"gradient-descent", "lstm", "feed-forward"} <= set(metalearn_core.rules())
    assert "sine" in metalearn_core.task_families()
    assert "mlp" in metalearn_core.base_learners()
    assert isinstance(metalearn_core.observers(), dict)
    assert metalearn_core.default_registry() is metalearn_core.default_registry()
    assert isinstance(metalearn_core.make_rule("lstm", LAYOUT), metalearn_core.UpdateRule)
    with one_line("unknown rule 'gradient-decent'", "did you mean 'gradient-descent'"):
        metalearn_core.make_rule("gradient-decent", LAYOUT)
