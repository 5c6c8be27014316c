"""`metalearn plugins`: what is installed, what is wrong with it, and whether rules keep the laws."""

from __future__ import annotations

import itertools
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from metalearn_benchmarks.host.terminal import JSON, console, print_table, table, toml_option
from metalearn_benchmarks.plugins.entry_points import LOAD_PLUGINS
from metalearn_core.errors import unknown

EXIT_FAILED = 1
NEEDED = "(needed)"
"""In place of a default."""


@click.group()
def plugins() -> None:
    """What is installed and whether it is in order: list it, show one, check a rule, begin your own."""


@plugins.command("list")
@click.option("--all", "everything", is_flag=True, help="Those too that METALEARN_LOAD_PLUGINS leaves out.")
@JSON
@click.pass_context
def list_plugins(context: click.Context, everything: bool, as_json: bool) -> None:
    """Every plugin, what it brings, and what is wrong with it; exit code 1 if anything is."""
    from metalearn_core import default_registry

    registry = default_registry()
    rows = [_row(report) for report in registry.reports if everything or not report.left_out]
    if as_json:
        print_table(rows, as_json)
    else:
        # where it lies is long, and `show` and --json say it
        print_table([{k: v for k, v in row.items() if k != "source"} for row in rows], as_json)
    away = sum(report.left_out for report in registry.reports)
    if away and not everything:
        by = "--no-plugins" if context.find_root().params.get("no_plugins") else LOAD_PLUGINS
        click.echo(f"{away} left out by {by}; --all shows them", err=True)
    faulty = [report for report in registry.reports if report.error]
    for report in faulty:
        click.echo(_remedy(report), err=True)
    if faulty:
        sys.exit(EXIT_FAILED)


def _row(report: Any) -> dict[str, Any]:
    from metalearn_core import default_registry

    brought = [
        entry
        for catalogue in default_registry().catalogues.values()
        for entry in catalogue.values()
        if (entry.plugin, entry.distribution) == (report.name, report.distribution)
    ]
    return {
        "plugin": report.name,
        "brings": ", ".join(f"{entry.kind} {entry.name}" for entry in brought),
        "distribution": report.distribution,
        "version": report.version,
        "api": _api(brought),
        "source": report.source,
        "status": report.error or ("left out" if report.left_out else "loaded"),
    }


def _api(brought: list[Any]) -> Any:
    """What a plugin is written for: this core's API, or another that a rule of it is for."""
    from metalearn_core import UpdateRule

    ours = UpdateRule.api_version
    found = [getattr(entry.factory, "api_version", ours) for entry in brought if entry.kind == "rule"]
    api = next((theirs for theirs in found if theirs != ours), ours if brought else None)
    return api if api is None or isinstance(api, int) else str(api)


def _remedy(report: Any) -> str:
    """Which plugin, what is wrong with it, and what to do, in one line."""
    from metalearn_core import default_registry

    told = f"plugin {report.name} of {report.distribution} {report.version} ({report.source}): {report.error}"
    contested = [c.contested.values() for c in default_registry().catalogues.values()]
    if any((report.distribution, report.name) in owners for owners in itertools.chain(*contested)):
        return told  # which says what to do, and it need not be this one that goes
    if "No module named 'hypothesis'" in report.error:
        return f'{told}. It checks rules: pip install "metalearn-core[testing]"'
    return f"{told}. Mend or upgrade it, or go on without it: pip uninstall {report.distribution}"


@plugins.command()
@click.argument("name")
@JSON
def show(name: str, as_json: bool) -> None:
    """What NAME is (a rule, a family, a base-learner, an observer, a placement): its equation and options."""
    from metalearn_core import default_registry

    catalogues = default_registry().catalogues.values()
    found = [catalogue[name] for catalogue in catalogues if name in catalogue]
    clashes = [catalogue.clash(name) for catalogue in catalogues if name in catalogue.contested]
    if clashes:
        raise click.ClickException("; ".join(clashes))
    if not found:
        raise unknown("name", name, {n for catalogue in catalogues for n in catalogue})
    with redirect_stdout(sys.stderr):  # what a rule prints
        pages = [_page(entry) for entry in found]
    if as_json:
        import json

        click.echo(json.dumps(pages, indent=1, ensure_ascii=False))
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
    capabilities = ("uses_loss", "uses_step", "elementwise", "coordinatewise", "starts_as_descent")
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
    click.echo(f"{page['kind']} {page['name']}, of {page['distribution']} ({page['source']})\n")
    click.echo(f"{page['description']}\n")
    if page["options"]:
        console().print(table(page["options"]))
    if "problem" in page:
        click.echo(f"\nit cannot be made with its defaults: {page['problem']}")
    elif "phi" in page:
        shapes = ", ".join(f"{key} {shape}" for key, shape in page["phi"]["shapes"].items()) or "none"
        click.echo(f"\ncapabilities: {', '.join(page['capabilities']) or 'none declared'}")
        click.echo(f"φ for a network of {page['phi']['theta']} parameters: {page['phi']['count']} ({shapes})")


@plugins.command("validate")
@click.argument("distribution")
@click.option("--imports", is_flag=True, help="Import it too, which runs its code.")
@JSON
def validate_command(distribution: str, imports: bool, as_json: bool) -> None:
    """Is DISTRIBUTION a plugin as it should be? By what it declares; exit code 1 if it is not."""
    import attrs

    from metalearn_benchmarks.plugins.validation import validate

    findings = validate(distribution, imports)
    print_table([attrs.asdict(finding) for finding in findings], as_json)
    if any(finding.status == "failed" for finding in findings):
        sys.exit(EXIT_FAILED)


@plugins.command("check")
@click.argument("rule")
@click.option("--option", "-o", "given", metavar="K=V", multiple=True, help="An option of it; V is TOML.")
@click.option("--slow", is_flag=True, help="The laws too that train, compile and resume: a minute or two.")
@JSON
def check_command(rule: str, given: tuple[str, ...], slow: bool, as_json: bool) -> None:
    """Does the installed RULE keep the laws of update rules? Exit code 1 if it does not."""
    from collections import Counter

    import attrs
    import torch

    from metalearn_benchmarks.learners.perceptron import multilayer_perceptron
    from metalearn_core import UpdateRule, make_rule
    from metalearn_core.testing import KIT_VERSION, check_update_rule

    options = dict(map(toml_option, given))

    def make(layout: Any) -> UpdateRule:
        return make_rule(rule, layout, **options)

    torch.set_num_threads(1)  # the laws' tensors are tiny: threads would wait for each other
    # what cannot be made at all is the user's mistake, said in one line
    with redirect_stdout(sys.stderr):  # what a rule prints
        make(multilayer_perceptron().layout)
        rows = [attrs.asdict(result) for result in check_update_rule(make, slow=slow)]
    versions = {"kit": KIT_VERSION, "api": UpdateRule.api_version, "torch": torch.__version__}
    counts = Counter(row["status"] for row in rows)
    if as_json:
        import json

        click.echo(json.dumps({"rule": rule, "options": options, **versions, "results": rows}, indent=1))
    else:
        print_table(rows, as_json)
        told = ", ".join(f"{counts[status]} {status}" for status in ("passed", "failed", "skipped"))
        made_with = ", ".join(f"{key} {value}" for key, value in versions.items())
        click.echo(f"\n{rule}: {told}  ({made_with})")
    if counts["failed"]:
        sys.exit(EXIT_FAILED)


@plugins.command("new")
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path), default=".", help="Where it goes. [default: here]")
@click.option("--author", help="Whose it is, for the licence. [default: as git or the system knows you]")
def new_command(name: str, to: Path, author: str | None) -> None:
    """Begin a plugin of your own: the project metalearn-NAME with a rule, its tests and its packaging."""
    from metalearn_benchmarks.plugins.project import write_project

    folder = write_project(name, to, author or _user())
    click.echo(
        f"{folder}: write your equation into it, then\n"
        f"  pip install -e '{folder}[test]' && pytest {folder} && metalearn plugins check {name}"
    )


def _user() -> str:
    import getpass
    import subprocess

    try:
        asked = subprocess.run(  # the user's own git
            ["git", "config", "user.name"],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return getpass.getuser()
    return asked.stdout.strip() or getpass.getuser()


def show_versions(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    """`--version`: of the program, of torch, and of each installed plugin, which are not imported for it."""
    if not wanted or context.resilient_parsing:
        return
    from importlib.metadata import version

    from metalearn_benchmarks.plugins.entry_points import installed, left_out

    core, torch = version("metalearn-core"), version("torch")
    click.echo(f"metalearn {version('metalearn-benchmarks')} (metalearn-core {core}, torch {torch})")
    lines = []
    for name, owner in sorted(installed(), key=lambda each: each[0]):
        away = f" (left out by {LOAD_PLUGINS})" if left_out(name, owner) else ""
        lines.append(f"  {name}: {owner.metadata['Name']} {owner.version}{away}")
    click.echo("plugins installed (`metalearn plugins list` says which of them work):")
    click.echo("\n".join(lines or ["  none"]))
    context.exit()
