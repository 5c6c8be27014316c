"""`metalearn plugins check`: check that a rule keeps the laws of update rules."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Any

import click

from metalearn_benchmarks.cli.support.completion import complete_rule
from metalearn_benchmarks.cli.support.options import JSON, examples, toml_option
from metalearn_benchmarks.host.exit_codes import EXIT_FAILED
from metalearn_benchmarks.host.terminal import echo, print_json, print_table


@click.command("check", epilog=examples("metalearn plugins check lstm --option hidden=0"))
@click.argument("rule", shell_complete=complete_rule)
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
        print_json({"rule": rule, "options": options, **versions, "results": rows})
    else:
        print_table(rows, as_json)
        summary = ", ".join(f"{counts[status]} {status}" for status in ("passed", "failed", "skipped"))
        made_with = ", ".join(f"{key} {value}" for key, value in versions.items())
        echo(f"\n{rule}: {summary}  ({made_with})")
    if counts["failed"]:
        sys.exit(EXIT_FAILED)
