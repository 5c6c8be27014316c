"""The layers hold: who may import whom, read from the sources, and how long things may be."""

from __future__ import annotations

import ast
import functools
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import metalearn_core

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = {path.stem for path in ROOT.glob("plugins/*/metalearn_*.py")}
CORE_MAY = {
    *("torch", "higher", "pluggy", "attrs", "attr", "triton", "metalearn_core"),
    *sys.stdlib_module_names,
}
OWNERS = {
    "higher": "optimizers/differentiable",
    "pluggy": "registration/hooks",
    "triton": "kernels/coordinatewise_triton",
}
"""What one file of the core alone imports."""
RANKS = (
    {"errors", "training/noise", "trees", "kernels/sources", "kernels/coordinatewise_triton",
     "registration/hooks", "training/events"},
    {"safeguards/losses", "safeguards/modules", "safeguards/writes", "safeguards/locks",
     "safeguards/pure_forward", "safeguards/embeddings"},
    {"many_steps/calls"}, {"many_steps/entries"},
    {"kernels/coordinatewise_gpu", "kernels/products", "task", "training/files", "training/parameters"},
    {"signal", "settings", "kernels/operators", "training/processes"},
    {"rule"},
    {"training/task_stream", "learner", "optimizers/differentiable", "kernels/coordinatewise",
     "optimizers/groups"},
    {"safeguards/wrong_part", "safeguards/trials"}, {"safeguards/same_alone", "safeguards/stacked_rule"},
    {"inner_loop", "optimizers/state_by_parameter", "optimizers/torch_twins", "training/fingerprint",
     "training/snapshot", "kernels/pieces"},
    {"training/checkpoint", "training/meta_gradient", "optimizers/stepping"},
    {"kernels/by_steps", "optimizers/learned", "outer_gradient", "training/trained"},
    {"kernels/programs", "evaluation", "training/seed_run", "safeguards/training_warnings"},
    {"kernels/outer_step", "kernels/scores", "many_steps/pace"}, {"kernels/engine"}, {"outer_loop"},
    {"registration/entries"}, {"registry"},
)  # fmt: skip
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
PROCESSES = "metalearn_core/training/processes.py"
"""How processes that share a run speak to each other: of use to those alone who have several."""
TOOLBOX = "metalearn_core.testing."
HARNESS = (
    "host", "experiments", "records", "statistics", "plotting", "tasks", "learners", "theory", "rule_map",
    "artifacts", "claims", "report", "runs", "speed", "plugins", "cli",
)  # fmt: skip
"""The harness's packages, bottom up: each imports itself and those before it."""
FACE = {"__init__", "__main__"}
"""What stands beside the packages: the public names, and `python -m`."""
READ_FIRST = ("task", "learner", "rule", "inner_loop", "outer_loop")
"""The files of the core that a newcomer reads, in this order."""
LONGEST_FUNCTION, LONGEST_FILE, LARGEST_FOLDER = 45, 250, 12
SPEED_AND_TESTS = ("testing", "kernels", "many_steps")
"""Packages of the core that no number depends on: what makes it fast, and what checks it."""
LARGEST_CORE, LARGEST_READING = 3_450, 900

Sources = dict[str, str]
"""Path in the checkout to source."""


def checkout() -> Sources:
    paths = [*ROOT.glob("metalearn_core/**/*.py"), *ROOT.glob("plugins/*/*.py")]
    paths += ROOT.glob("benchmarks/metalearn_benchmarks/**/*.py")
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(paths)}


@functools.cache
def imported(path: str, source: str) -> list[tuple[str, str]]:
    """Every import as (module, name), name "" for a whole module, wherever in the file it stands."""
    package, found = path.removeprefix("benchmarks/").split("/")[:-1], []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            found += [(module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__")
            constants = [a.value for a in node.args[:1] if called and isinstance(a, ast.Constant)]
            found += [(value, "") for value in constants]
    return found


def tops(path: str, source: str) -> set[str]:
    return {module.split(".")[0] for module, _ in imported(path, source)}


def part_of_core(path: str) -> str:
    return path.removeprefix("metalearn_core/").removesuffix(".py")


def violations(sources: Sources) -> list[str]:
    """Every import that goes against the layers, one line each."""
    core = {p: s for p, s in sources.items() if p.startswith("metalearn_core/")}
    found = []
    for name, owner in OWNERS.items():
        users = sorted(part_of_core(path) for path, source in core.items() if name in tops(path, source))
        if users != [owner]:
            found.append(f"{name} is imported by {users}, not by {owner} alone")
    for path, source in sources.items():
        if path in core:
            found += core_violations(path, source)
        else:
            found += client_violations(path, source)
        if path.startswith("benchmarks/"):
            found += harness_violations(path, source)
    return found


def harness_violations(path: str, source: str) -> Iterator[str]:
    """Of a file of the harness: its package comes after all that it imports."""
    package = path.split("/")[2].removesuffix(".py")
    if package in FACE:
        return
    if package not in HARNESS:
        yield f"{path} is in no package of the harness"
        return
    for module, name in imported(path, source):
        whole = f"{module}.{name}" if module == "metalearn_benchmarks" else module
        if not whole.startswith("metalearn_benchmarks."):
            continue
        other = whole.split(".")[1]
        if other not in HARNESS or HARNESS.index(other) > HARNESS.index(package):
            yield f"{path} imports {whole}, which is above it"


def files_imported(path: str, source: str, sources: Sources) -> set[str]:
    """The files of the checkout that a file imports, wherever in it the import stands."""
    found = set()
    for module, name in imported(path, source):
        folder = ("benchmarks/" if module.startswith("metalearn_benchmarks") else "") + module.replace(
            ".", "/"
        )
        candidates = (
            f"{folder}/{name}.py",
            f"{folder}/{name}/__init__.py",
            f"{folder}.py",
            f"{folder}/__init__.py",
        )
        found |= set([c for c in candidates if c in sources][:1])
    return found - {path}


def circles(sources: Sources) -> list[list[str]]:
    """Every set of files that import each other, directly or through others."""
    graph = {path: files_imported(path, source, sources) for path, source in sources.items()}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(path: str) -> None:  # Tarjan's strongly connected components
        index[path] = low[path] = len(index)
        stack.append(path)
        for other in sorted(graph[path]):
            if other not in index:
                visit(other)
                low[path] = min(low[path], low[other])
            elif other in stack:
                low[path] = min(low[path], index[other])
        if low[path] == index[path]:
            start = stack.index(path)
            if len(stack) - start > 1:
                found.append(sorted(stack[start:]))
            del stack[start:]

    for path in sorted(graph):
        if path not in index:
            visit(path)
    return found


def crowded(sources: Sources) -> list[str]:
    """Every folder with more modules than one looks over, its `__init__` not counted."""
    folders: dict[str, int] = {}
    for path in sources:
        folder, _, name = path.rpartition("/")
        folders[folder] = folders.get(folder, 0) + (name != "__init__.py")
    return [f"{folder}: {count}" for folder, count in folders.items() if count > LARGEST_FOLDER]


def core_violations(path: str, source: str) -> Iterator[str]:
    part = part_of_core(path)
    testing = part.startswith("testing")
    for top in sorted(tops(path, source) - CORE_MAY - ({"hypothesis", "pytest"} if testing else set())):
        yield f"{path} imports {top}"
    if testing or part.endswith("__init__"):
        return
    if part not in RANK:
        yield f"{path} has no place in the order of the core"
        return
    for module, name in imported(path, source):
        if module == "metalearn_core":
            module = f"metalearn_core.{name}"
        if not module.startswith("metalearn_core."):
            continue
        other = "/".join(module.split(".")[1:])
        if RANK.get(other, len(RANK)) >= RANK[part]:
            yield f"{path} imports {other}, which comes no earlier"


def client_violations(path: str, source: str) -> Iterator[str]:
    """Of a plugin, or of the benchmarks: the core's public names, and nobody's plugin."""
    plugin = path.startswith("plugins/")
    forbidden = {*PLUGINS, "metalearn_benchmarks"} if plugin else PLUGINS
    # a peer that is timed is no part of the engine
    allowed = {"higher"} if "/speed/peers/" in path else set()
    for top in sorted(tops(path, source) & {*forbidden, "higher", "pluggy"} - allowed):
        yield f"{path} imports {top}"
    for module, name in imported(path, source):
        light = module == "metalearn_core.errors" and not plugin
        if module.split(".")[0] != "metalearn_core" or light or f"{module}.".startswith(TOOLBOX):
            continue
        if module != "metalearn_core" or name not in metalearn_core.__all__:
            yield f"{path} imports {name or 'all'} of {module}"


def docstring_lines(node: ast.AST) -> set[int]:
    """The lines of a string that stands alone: a docstring, or what documents a name."""
    body = getattr(node, "body", [])
    strings = [
        part
        for part in (body if isinstance(body, list) else [])
        if isinstance(part, ast.Expr)
        and isinstance(part.value, ast.Constant)
        and isinstance(part.value.value, str)
    ]
    return {line for part in strings for line in range(part.lineno, part.end_lineno + 1)}


def lines_of_code(source: str) -> int:
    """Lines that hold a token other than a comment, a line's end or a documenting string."""
    skipped = {line for node in ast.walk(ast.parse(source)) for line in docstring_lines(node)}
    empty = {
        *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT),
        *(tokenize.DEDENT, tokenize.ENDMARKER, tokenize.ENCODING),
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in empty:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - skipped)


def lines_of_imports(source: str) -> int:
    """Lines of imports: a file that is split says some of them twice, and is no harder to read."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    return sum(node.end_lineno - node.lineno + 1 for node in nodes)


def long_functions(sources: Sources) -> list[str]:
    """Every function longer than allowed, its docstring not counted."""
    return [
        f"{path}:{node.lineno} {node.name}: {length} lines"
        for path, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := node.end_lineno - node.lineno + 1 - len(docstring_lines(node))) > LONGEST_FUNCTION
    ]


def test_imports_go_down_the_layers():
    sources = checkout()
    assert {"metalearn_core/task.py", "benchmarks/metalearn_benchmarks/tasks/sine.py"} <= set(sources)
    assert {"metalearn_gradient_descent", "metalearn_lstm", "metalearn_feed_forward"} <= PLUGINS
    assert {"metalearn_alfa", "metalearn_alfa_map", "metalearn_lslr", "metalearn_meta_curvature"} <= PLUGINS
    assert {"metalearn_lstm_optimizer", "metalearn_mlp_optimizer", "metalearn_partial"} <= PLUGINS
    assert {"metalearn_evolution", "metalearn_hessian_free"} <= PLUGINS
    assert {"metalearn_implicit", "metalearn_reptile"} <= PLUGINS
    assert {"metalearn_cavia", "metalearn_ml3", "metalearn_newton_cg", "metalearn_proto_maml"} <= PLUGINS
    assert violations(sources) == []


def test_every_part_of_the_order_is_there():
    assert {f"metalearn_core/{name}.py" for name in RANK} <= set(checkout())


def test_the_core_can_be_read_in_one_sitting():
    core = {
        path: lines_of_code(source) - lines_of_imports(source)
        for path, source in checkout().items()
        if path.startswith("metalearn_core/")
        and not path.startswith(
            ("metalearn_core/testing", "metalearn_core/kernels", "metalearn_core/many_steps", PROCESSES)
        )
    }
    assert sum(core.values()) <= LARGEST_CORE, core


def test_what_is_read_first_is_short():
    sources = checkout()
    lines = {name: lines_of_code(sources[f"metalearn_core/{name}.py"]) for name in READ_FIRST}
    assert sum(lines.values()) < LARGEST_READING, lines


def test_no_function_is_long():
    assert long_functions(checkout()) == []


def test_no_file_is_long():
    lengths = {path: lines_of_code(source) for path, source in checkout().items()}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_folder_is_crowded():
    assert crowded(checkout()) == []
    assert crowded({f"a/b/{i}.py": "" for i in range(13)} | {"a/b/__init__.py": ""}) == ["a/b: 13"]


def test_no_files_import_each_other():
    assert circles(checkout()) == []


def test_the_search_for_circles_finds_one():
    base = "benchmarks/metalearn_benchmarks/tasks/"
    sources = {
        f"{base}a.py": "from metalearn_benchmarks.tasks import b",
        f"{base}b.py": "def f():\n    from metalearn_benchmarks.tasks.c import x",
        f"{base}c.py": "from .a import y",
        f"{base}d.py": "from . import a",
    }
    assert circles(sources) == [[f"{base}a.py", f"{base}b.py", f"{base}c.py"]]


OFFENCES = [
    (
        "metalearn_core/task.py",
        "import higher",
        "higher is imported by ['optimizers/differentiable', 'task']",
    ),
    ("metalearn_core/task.py", "def f():\n    from higher.optim import x", "higher is imported by"),
    ("metalearn_core/task.py", "import importlib\nimportlib.import_module('higher')", "higher is imp"),
    ("metalearn_core/rule.py", "from pluggy import HookimplMarker", "pluggy is imported by"),
    ("metalearn_core/optimizers/differentiable.py", "import torch", "higher is imported by []"),
    ("metalearn_core/task.py", "import numpy.random as r", "metalearn_core/task.py imports numpy"),
    ("metalearn_core/rule.py", "import metalearn_lstm", "imports metalearn_lstm"),
    ("metalearn_core/rule.py", "from metalearn_benchmarks import sine", "imports metalearn_benchmarks"),
    ("metalearn_core/rule.py", "import hypothesis", "imports hypothesis"),
    ("metalearn_core/testing/laws.py", "import numpy", "imports numpy"),
    ("metalearn_core/task.py", "from metalearn_core.learner import BaseLearner", "imports learner"),
    ("metalearn_core/task.py", "from metalearn_core import learner", "imports learner"),
    ("metalearn_core/task.py", "from . import learner", "imports learner"),
    ("metalearn_core/task.py", "from .learner import BaseLearner", "imports learner"),
    ("metalearn_core/task.py", "from metalearn_core import BaseLearner", "imports BaseLearner"),
    (
        "metalearn_core/training/task_stream.py",
        "from metalearn_core.learner import BaseLearner",
        "imports learner",
    ),
    ("metalearn_core/outer_loop.py", "import metalearn_core.registry", "imports registry"),
    ("metalearn_core/extra.py", "x = 1", "metalearn_core/extra.py has no place"),
    ("plugins/lstm/metalearn_lstm.py", "import higher", "imports higher"),
    ("plugins/lstm/metalearn_lstm.py", "import pluggy", "imports pluggy"),
    ("plugins/lstm/metalearn_lstm.py", "import metalearn_feed_forward", "metalearn_feed_forward"),
    ("plugins/lstm/metalearn_lstm.py", "import metalearn_benchmarks.tasks.sine", "metalearn_benchmarks"),
    ("plugins/lslr/metalearn_lslr_map.py", "import metalearn_lslr", "imports metalearn_lslr"),
    ("plugins/lstm/metalearn_lstm.py", "from metalearn_core.rule import Signal", "Signal of metalearn_c"),
    ("plugins/lstm/metalearn_lstm.py", "from metalearn_core.errors import unknown", "unknown of metal"),
    ("plugins/lstm/metalearn_lstm.py", "from metalearn_core import rule", "rule of metalearn_core"),
    ("plugins/lstm/metalearn_lstm.py", "import metalearn_core", "all of metalearn_core"),
    ("benchmarks/metalearn_benchmarks/tasks/x.py", "import metalearn_lstm", "imports metalearn_lstm"),
    ("benchmarks/metalearn_benchmarks/tasks/x.py", "import higher", "imports higher"),
    (
        "benchmarks/metalearn_benchmarks/tasks/x.py",
        "from metalearn_core.rule import Signal",
        "Signal of metal",
    ),
    ("benchmarks/metalearn_benchmarks/x.py", "x = 1", "metalearn_benchmarks/x.py is in no package"),
    (
        "benchmarks/metalearn_benchmarks/tasks/x.py",
        "from metalearn_benchmarks import runs",
        "which is above it",
    ),
    (
        "benchmarks/metalearn_benchmarks/tasks/x.py",
        "def f():\n    from ..runs.job import Job",
        "which is above it",
    ),
    (
        "benchmarks/metalearn_benchmarks/tasks/x.py",
        "from metalearn_benchmarks import load_rule",
        "is above it",
    ),
]


@pytest.mark.parametrize(("path", "source", "complaint"), OFFENCES)
def test_the_checker_sees_an_offence(path, source, complaint):
    found = violations(checkout() | {path: source})
    assert any(complaint in line for line in found), found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("metalearn_core/testing/laws.py", "import hypothesis, pytest, metalearn_core.registry"),
        ("metalearn_core/outer_loop.py", "from metalearn_core.task import Task\nimport attrs, math"),
        ("plugins/lstm/metalearn_lstm.py", "from metalearn_core import Signal\nimport torch, scipy"),
        ("benchmarks/metalearn_benchmarks/tasks/x.py", "from metalearn_core.errors import unknown"),
        ("benchmarks/metalearn_benchmarks/tasks/x.py", "from .sine import SineFamily\nimport numpy"),
        ("plugins/lstm/metalearn_lstm.py", "from metalearn_core.testing.strategies import problems"),
    ],
)
def test_the_checker_lets_the_rest_pass(path, source):
    assert violations(checkout() | {path: source}) == []


def test_the_counters_count():
    source = '"""Doc\n\nstring."""\n\n# comment\nx = """a\nb"""  # two\n"""Of x."""\n\n\n'
    function = 'def f(\n    a,\n):\n    """Doc\n    string."""\n\n    return a\n'
    assert lines_of_code(source) == 2
    assert lines_of_code(source + function) == 2 + 4
    assert lines_of_imports("import a\nfrom b import (\n    c,\n)\nx = 1\n") == 4
    body = "\n".join("    x = 1" for _ in range(LONGEST_FUNCTION - 1))
    assert long_functions({"a": f'def f():\n    """Doc."""\n{body}\n'}) == []
    assert long_functions({"a": f"class A:\n  def f():\n{body}\n    x = 1\n"}) == ["a:2 f: 46 lines"]


def test_one_file_speaks_to_other_processes():
    users = {
        path
        for path, source in checkout().items()
        for module, name in imported(path, source)
        if f"{module}.{name}.".startswith("torch.distributed.")
    }
    assert users == {PROCESSES}
