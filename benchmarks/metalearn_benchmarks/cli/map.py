"""`metalearn map`: show, draw and check what each rule can express."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from metalearn_benchmarks.cli.support.completion import complete_rule
from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host import terminal
from metalearn_benchmarks.host.escape import visible
from metalearn_benchmarks.host.terminal import echo, print_json

EXIT_FAILED_CLAIMS = 1


class ExampleCount(click.IntRange):
    """A number of examples, where the next word may be meant as a RULE."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse a word that is no number, and say what to do."""
        if isinstance(value, str) and not value.lstrip("+-").isdigit():
            self.fail(f"{value!r} is no number; write RULE before --check, or --check N", param, ctx)
        return super().convert(value, param, ctx)


@click.command(
    "map",
    short_help="What each rule can express, and what it cannot.",
    epilog=examples("metalearn map lstm feed-forward", "metalearn map lstm --check 10"),
)
@click.argument("rules", shell_complete=complete_rule, metavar="[RULE]...", nargs=-1)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Also write the whole map there: SVG, PNG, text."
)
@click.option(
    "--check", "examples", type=ExampleCount(min=1), is_flag=False, flag_value=25, metavar="[N]",
    help="Try every claim shown on N drawn examples (25 unless said).",
)  # fmt: skip
@JSON
def rule_map(rules: tuple[str, ...], out: Path | None, examples: int | None, as_json: bool) -> None:
    """What each rule can express: what it contains and what it does not, of all rules or of each RULE."""
    from metalearn_benchmarks.rule_map import text
    from metalearn_benchmarks.rule_map.installed import installed_map, require_testing
    from metalearn_core import rules as installed_rules
    from metalearn_core.errors import UsageError, unknown

    if examples is not None:
        require_testing()
    whole_map, problems = installed_map()
    for line in problems:
        echo(visible(f"metalearn: {line}"), err=True)
    for rule in rules:
        if rule not in whole_map.nodes and rule in installed_rules():
            raise UsageError(
                f"the rule {rule!r} is installed and has no place on the map; a plugin gives it one with"
                " the hook metalearn_map, see docs/theory.md"
            )
        if rule not in whole_map.nodes:
            raise unknown("rule on the map", rule, whole_map.nodes)
    if out is not None:
        _draw_map(whole_map, out, as_json)
    if examples is not None:
        _check_map(whole_map, rules, examples, as_json)
    elif as_json:
        print_json(text.as_data(whole_map, rules))
    elif out is None or rules:
        echo(text.as_text(whole_map, rules, terminal.console().width), end="")


def _draw_map(whole_map: Any, out: Path, quiet: bool) -> None:
    """Write the map as text, and both figures as SVG and PNG."""
    from metalearn_benchmarks.plotting.rendering import render
    from metalearn_benchmarks.records.files import write_atomically
    from metalearn_benchmarks.rule_map.drawing import draw_map
    from metalearn_benchmarks.rule_map.matrix import draw_matrix
    from metalearn_benchmarks.rule_map.text import as_text

    files: dict[str, bytes | str] = {"map.txt": as_text(whole_map)}
    for stem, figure in (("map", draw_map(whole_map)), ("map-matrix", draw_matrix(whole_map))):
        for ending in ("svg", "png"):
            files[f"{stem}.{ending}"] = render(figure, ending, stem)
    for name, content in files.items():
        write_atomically(out / name, content)
    echo(f"map: {', '.join(str(out / name) for name in sorted(files))}", err=quiet)


def _check_map(whole_map: Any, rules: tuple[str, ...], examples: int, as_json: bool) -> None:
    """A line for each edge under a live bar, then the counterexamples; exit code 1 if there are any."""
    from rich.progress import Progress

    from metalearn_benchmarks.rule_map.installed import check_edges, edges_of

    edges, failed, rows = edges_of(whole_map, rules), [], []
    console = terminal.console()
    with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as bars:
        bar = bars.add_task("claims", total=len(edges))
        for outcome in check_edges(edges, examples):
            bars.advance(bar)
            rows.append(outcome.as_row())
            if outcome.problem:
                failed.append(outcome)
            if not as_json:
                console.print(visible(outcome.line), highlight=False, soft_wrap=True)
    if as_json:
        print_json(rows)
    for outcome in failed:
        echo(f"\n{outcome.line}\n{outcome.problem}", err=True)
    if failed:
        sys.exit(EXIT_FAILED_CLAIMS)
