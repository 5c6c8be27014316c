"""`metalearn zoo show`: what a shipped rule was trained on, where it lies, and how it is loaded."""

from __future__ import annotations

from typing import Any

import click

from metalearn_benchmarks.cli.support.completion import complete_trained_rule
from metalearn_benchmarks.cli.support.options import JSON, examples
from metalearn_benchmarks.host.terminal import echo, print_json


@click.command("show", epilog=examples("metalearn zoo show turtle-sine"))
@click.argument("name", shell_complete=complete_trained_rule)
@JSON
def show_command(name: str, as_json: bool) -> None:
    """What the trained rule NAME is, what it was trained on, and how it is loaded."""
    from metalearn_benchmarks.artifacts.zoo import shipped_card, shipped_folder

    card, folder = shipped_card(name), shipped_folder(name)
    if as_json:
        print_json({"name": name, "folder": str(folder), "card": card})
        return
    for key, text in _facts(card).items():
        echo(f"{key:<10}{text}")
    echo(f"{'folder':<10}{folder}")
    echo(f'{"load it":<10}from metalearn_benchmarks import load_rule; load_rule("{name}")')


def _facts(card: dict[str, Any]) -> dict[str, str]:
    rule, training, run = card["rule"], card["training"], card["run"]
    settings, test, scores = training["settings"], card["scores"]["test"], card["scores"]
    family = training["family"]
    options = ", ".join(f"{key} = {value}" for key, value in family["options"].items())
    low, high = test["ci95"]
    return {
        "method": f"{training['title']}: rule {rule['name']} of {rule['distribution']} {rule['version']}",
        "learner": f"{card['learner']['name']}, {card['layout']['size']:,} parameters in {card['dtype']}",
        "family": f"{family['name']} ({options})",
        "trained": f"{settings['tasks']:,} tasks, T = {settings['steps']}, {settings['order']} order; seed"
        f" {run['seed']} of experiment {run['experiment']}; the best state, of task {training['position']:,}",
        "score": f"{scores['score']} {test['mean']:.3f} [{low:.3f}, {high:.3f}] over {test['tasks']:,} test"
        f" tasks, median {test['median']:.3f}",
        "origin": f"commit {card['commit'][:12]}, torch {card['versions']['torch']}",
    }
