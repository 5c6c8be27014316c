"""`metalearn plugins show`: show a rule, a family or an observer, with its options."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Any

import click

from metalearn_benchmarks.cli.support.completion import complete_rule
from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host.exit_codes import EXIT_FAILED
from metalearn_benchmarks.host.terminal import console, echo, print_json, table
from metalearn_core.errors import unknown

NEEDED = "(needed)"
"""What stands in place of the default of an option that must be given."""


@click.command("show", epilog=examples("metalearn plugins show feed-forward"))
@click.argument("name", shell_complete=complete_rule)
@JSON
def show_command(name: str, as_json: bool) -> None:
    """What NAME is (a rule, a family, a base-learner, an observer, a placement): its equation and options."""
    from metalearn_core import default_registry

    catalogues = default_registry().catalogues.values()
    entries = [catalogue[name] for catalogue in catalogues if name in catalogue]
    clashes = [catalogue.clash(name) for catalogue in catalogues if name in catalogue.contested]
    if clashes:
        raise click.ClickException("; ".join(clashes))
    if not entries:
        raise unknown("name", name, {n for catalogue in catalogues for n in catalogue})
    with redirect_stdout(sys.stderr):  # what a rule prints
        pages = [_page(entry) for entry in entries]
    if as_json:
        print_json(pages)
    else:
        for page in pages:
            _print_page(page)
    if any(page.get("problem") and not _needs_options(page) for page in pages):
        sys.exit(EXIT_FAILED)


def _needs_options(page: dict[str, Any]) -> bool:
    return any(row["default"] == NEEDED for row in page["options"])


def _page(entry: Any) -> dict[str, Any]:
    import inspect

    from metalearn_benchmarks.plugins.docstrings import arguments, description
    from metalearn_core import default_registry

    text = inspect.getdoc(entry.factory) or ""
    meanings = arguments(text)
    report = next(
        report
        for report in default_registry().reports
        if (report.name, report.distribution) == (entry.plugin, entry.distribution)
    )
    page = {
        "name": entry.name,
        "kind": entry.kind,
        "description": description(text),
        "distribution": f"{entry.distribution} {report.version}".strip(),
        "source": report.source,
        "options": [
            {"option": option, "default": _default(given), "meaning": meanings.get(option, "")}
            for option, given in _options(entry).items()
        ],
    }
    return page | (_rule_facts(entry.name) if entry.kind == "rule" else {})


def _options(entry: Any) -> dict[str, Any]:
    try:
        options: dict[str, Any] = entry.options()
    except (TypeError, ValueError):  # a builtin may have no signature
        return {}
    return options


def _default(given: Any) -> str:
    if given.kind is given.VAR_KEYWORD:
        return "(none)"  # others may be given, and need not be
    return NEEDED if given.default is given.empty else repr(given.default)


def _rule_facts(name: str) -> dict[str, Any]:
    """Capabilities and φ, of the rule with its defaults for the network of the sine experiment."""
    from metalearn_benchmarks.learners.perceptron import multilayer_perceptron
    from metalearn_core import UsageError, make_rule

    layout = multilayer_perceptron().layout
    try:
        rule = make_rule(name, layout)
    except UsageError as error:
        return {"capabilities": None, "phi": None, "problem": str(error)}
    capabilities = (
        *("uses_loss", "uses_step", "uses_support", "uses_noise", "has_start"),
        *("elementwise", "coordinatewise", "starts_as_descent"),
    )
    shapes = {key: list(phi.shape) for key, phi in rule.named_parameters()}
    return {
        "capabilities": [key for key in capabilities if getattr(rule, key)],
        "phi": {
            "count": sum(phi.numel() for phi in rule.parameters()),
            "theta": layout.size,
            "shapes": shapes,
        },
    }


def _print_page(page: dict[str, Any]) -> None:
    echo(f"{page['kind']} {page['name']}, of {page['distribution']} ({page['source']})\n")
    echo(f"{page['description']}\n")
    if page["options"]:
        console().print(table(page["options"]))
    if "problem" in page:
        echo(f"\nit cannot be made with its defaults: {page['problem']}")
    elif "phi" in page:
        shapes = ", ".join(f"{key} {shape}" for key, shape in page["phi"]["shapes"].items()) or "none"
        echo(f"\ncapabilities: {', '.join(page['capabilities']) or 'none declared'}")
        echo(f"φ for a network of {page['phi']['theta']} parameters: {page['phi']['count']} ({shapes})")
