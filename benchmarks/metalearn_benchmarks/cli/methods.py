"""`metalearn methods`: list the shipped methods."""

from __future__ import annotations

from typing import Any

import click

from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host.terminal import console, print_json


@click.command(
    short_help="The methods, which are the rows of a table.", epilog=examples("metalearn methods --json")
)
@JSON
def methods(as_json: bool) -> None:
    """The shipped methods: their names, what they are, and the rule of each."""
    from metalearn_benchmarks.cli.support.entries import NamedEntry
    from metalearn_benchmarks.experiments import catalogue

    methods = catalogue.methods()
    if as_json:
        print_json(
            [
                {"method": name, "title": m.title, "start": m.start, "rule": m.rule, "source": m.source}
                for name, m in methods.items()
            ]
        )
        return
    for name, method in methods.items():
        console().print(NamedEntry(name, method.title, [method.source, _how_it_learns(method)]))


def _how_it_learns(method: Any) -> str:
    """The rule of a method, and where its start comes from."""
    starts = {"meta": "meta-trained", "pretrained": "pretrained", "random": "starts from random weights"}
    return f"rule {method.rule}; {starts[method.start]}" if method.start in starts else ""
