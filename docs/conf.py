"""Sphinx: the documentation of metalearn. `tox run -e docs` builds it, warnings being errors."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from from_the_package import claims_table, deviations_text, laws_table, published_tables
from from_the_plan import plan_text
from from_the_records import pieces
from outer_gradients import outer_gradients
from plan_results import plan_results

import metalearn_core

project = "metalearn"
author = copyright = "the metalearn developers"  # noqa: A001
release = version = metalearn_core.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_generated"]
html_theme = "furo"
html_title = f"metalearn {release}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["metalearn.css"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Notebooks are kept without outputs and are run here; an error in one ends the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 1200

# The button copies commands and examples without their prompts.
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

# `python -m sphinx --builder linkcheck docs site` asks every external link.
linkcheck_timeout = 20
linkcheck_retries = 2

# single backticks in docstrings are code
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Class variables", "params_style")]


def _write_generated(app) -> None:
    """What the package knows by itself, or the records say, is not written down a second time."""
    folder = Path(app.srcdir, "_generated")
    folder.mkdir(exist_ok=True)
    made = {
        "claims": claims_table,
        "deviations": deviations_text,
        "laws": laws_table,
        "outer-gradients": outer_gradients,
        "plan": plan_text,
        "plan-results": plan_results,
        "tables": published_tables,
    }
    texts = {**{name: make() for name, make in made.items()}, **pieces(folder)}
    for name, text in texts.items():
        path = folder / f"{name}.md"
        # left alone where nothing changed, so that Sphinx need not read its page again
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _as_restructured_text(app, what, name, thing, options, lines) -> None:
    """Docstrings are written to be read in an editor: `code`s may have an ending, and |x| is a magnitude."""
    for index, line in enumerate(lines):
        parts = re.split(r"(`[^`]+`)", line)
        parts = [part if part.startswith("`") else part.replace("|", r"\|") for part in parts]
        lines[index] = re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", "".join(parts))


def setup(app) -> None:
    """Sphinx calls it once."""
    app.connect("autodoc-process-docstring", _as_restructured_text)
    app.connect("builder-inited", _write_generated)
