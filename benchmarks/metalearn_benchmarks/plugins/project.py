"""The project of a new plugin, written from templates; its tests pass as they stand."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import keyword
import re
import shutil
import tempfile
from pathlib import Path

from metalearn_benchmarks.experiments.catalogue import methods
from metalearn_benchmarks.plugins.entry_points import installed_plugins
from metalearn_core.errors import UsageError, writing

FILES = {
    "pyproject.toml": "pyproject.toml",
    "{module}.py": "rule.py",
    "tests/test_{name}.py": "test_rule.py",
    "README.md": "README.md",
    "LICENSE": "LICENSE",
    ".github/workflows/ci.yml": "ci.yml",
}
"""Where each file goes, and its template."""
OURS = (
    *("core", "benchmarks", "gradient-descent", "lstm", "feed-forward"),
    *("alfa", "lslr", "lstm-optimizer", "meta-curvature", "mlp-optimizer", "partial"),
    *("cavia", "ml3", "newton-cg", "proto-maml"),
    *("evolution", "hessian-free", "implicit", "reptile"),
)
"""What stands after `metalearn-` in the names of this project's own distributions."""
LONGEST = 64


def write_project(name: str, parent: Path, author: str) -> Path:
    """Write the project `metalearn-NAME` as a folder of `parent`, all of it or nothing.

    Args:
        name: Name of the plugin and of its rule.
        parent: The folder to write into.
        author: Who holds the licence.

    Returns:
        The folder of the project.

    Raises:
        UsageError: The name is not valid or is taken, the folder exists, or the disk is full.
    """
    import jinja2

    module = f"metalearn_{name.replace('-', '_')}"
    _require_name(name)
    _require_free(name, module)
    folder = parent / f"metalearn-{name}"
    words = name.split("-")
    known = {
        "name": name,
        "module": module,
        "class_name": "".join(word.capitalize() for word in words),
        "title": " ".join(words).capitalize(),
        "author": author,
        "year": datetime.datetime.now(tz=datetime.UTC).year,
    }
    loader = jinja2.PackageLoader("metalearn_benchmarks.plugins", "new_plugin")
    # no page for a browser: nothing is escaped
    templates = jinja2.Environment(
        loader=loader, autoescape=jinja2.select_autoescape(),  # that is pages alone, and there are none
        keep_trailing_newline=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    with writing(folder, "--to"):
        if folder.exists():
            raise UsageError(f"{folder} is there already; choose another name or another --to")
        parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=parent))
        try:
            for place, template in FILES.items():
                path = beside / place.format(module=module, name=name.replace("-", "_"))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(templates.get_template(f"{template}.jinja").render(known), encoding="utf-8")
            beside.chmod(0o755)
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return folder


def _require_name(name: str) -> None:
    """UsageError unless it can be a rule's, a module's and a distribution's."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise UsageError(
            f"{name!r} is no name for a rule: expected small letters, digits and hyphens, such as my-rule"
        )
    if len(name) > LONGEST:
        raise UsageError(
            f"{name[:12]}... is too long for the name of a rule: expected at most {LONGEST} letters, got"
            f" {len(name)}"
        )


def _require_free(name: str, module: str) -> None:
    """UsageError where installing the project would replace something, or stand behind it."""
    distribution, advice = f"metalearn-{name}", "which yours would replace; choose another name"
    if name in {plugin for plugin, _ in installed_plugins()}:
        raise UsageError(f"a plugin {name!r} is installed already; choose another name")
    if name in methods():
        raise UsageError(f"{name!r} is the name of a method; choose another name for the rule")
    if name in OURS:
        raise UsageError(f"{distribution} is a distribution of metalearn itself, {advice}")
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        if importlib.util.find_spec(module) is not None:
            raise UsageError(f"a module {module} can be imported already, {advice}") from None
    else:
        raise UsageError(f"{distribution} {version} is installed already, {advice}")
