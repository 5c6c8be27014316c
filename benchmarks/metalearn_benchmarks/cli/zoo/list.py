"""`metalearn zoo list`: the trained rules that are shipped."""

from __future__ import annotations

import click

from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host.terminal import print_table


@click.command("list", epilog=examples("metalearn zoo list"))
@JSON
def list_command(as_json: bool) -> None:
    """The trained rules that are shipped, one line each."""
    from metalearn_benchmarks.artifacts.zoo import shipped_card, zoo

    rows = []
    for name in zoo():
        card = shipped_card(name)
        training, scores = card["training"], card["scores"]
        rows.append(
            {
                "name": name,
                "method": training["title"],
                "family": training["family"]["name"],
                "tasks": training["settings"]["tasks"],
                f"test {scores['score']}": round(scores["test"]["mean"], 3),
            }
        )
    print_table(rows, as_json, ("method", "family"))
