"""A new plugin project, whole: its tests pass as they stand, and its wheel is found."""

from __future__ import annotations

import datetime
import keyword
import re
import shutil
import tempfile
from pathlib import Path

from metalearn_benchmarks.entry_points import installed
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


def write_project(name: str, parent: Path, author: str) -> Path:
    """The project `metalearn-NAME` as a folder of `parent`, all of it or none.

    Raises:
        UsageError: for a name that is no name of a rule, a folder that is there already, a full disk.
    """
    import jinja2

    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise UsageError(
            f"{name!r} is no name for a rule: expected small letters, digits and hyphens, such as my-rule"
        )
    if name in {plugin for plugin, _ in installed()}:
        raise UsageError(f"a plugin {name!r} is installed already; choose another name")
    folder = parent / f"metalearn-{name}"
    if folder.exists():
        raise UsageError(f"{folder} is there already; choose another name or another --to")
    words = name.split("-")
    known = {
        "name": name,
        "module": f"metalearn_{name.replace('-', '_')}",
        "class_name": "".join(word.capitalize() for word in words),
        "title": " ".join(words).capitalize(),
        "author": author,
        "year": datetime.datetime.now(tz=datetime.UTC).year,
    }
    loader = jinja2.PackageLoader("metalearn_benchmarks", "new_plugin")
    # no page for a browser: nothing is escaped
    templates = jinja2.Environment(
        loader=loader, autoescape=jinja2.select_autoescape(),  # that is pages alone, and there are none
        keep_trailing_newline=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    with writing(folder):
        parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=parent))
        try:
            for place, template in FILES.items():
                path = beside / place.format(module=known["module"], name=name.replace("-", "_"))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(templates.get_template(f"{template}.jinja").render(known), encoding="utf-8")
            beside.chmod(0o755)
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return folder
