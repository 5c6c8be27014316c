"""`metalearn plugins check`: check that a rule, or an outer gradient, keeps the laws of its kind."""

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
    """Does the installed RULE keep the laws of update rules? Exit code 1 if it does not.

    RULE may be the name of an outer gradient, which is held against the laws of those.
    """
    from collections import Counter

    import attrs
    import torch

    from metalearn_core import UpdateRule, meta_gradients, rules
    from metalearn_core.testing import KIT_VERSION, check_meta_gradient

    options = dict(map(toml_option, given))
    torch.set_num_threads(1)  # the laws' tensors are tiny: threads would wait for each other
    with redirect_stdout(sys.stderr):  # what a rule prints
        if rule in meta_gradients() and rule not in rules():
            found = check_meta_gradient(rule, **options)
        else:
            found = _check_rule(rule, options, slow)
    rows = [attrs.asdict(result) for result in found]
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


def _check_rule(rule: str, options: dict[str, Any], slow: bool) -> list[Any]:
    """The results of a rule's laws. What cannot be made at all is the user's mistake, said in one line."""
    from metalearn_benchmarks.learners.perceptron import multilayer_perceptron
    from metalearn_core import UpdateRule, make_rule
    from metalearn_core.testing import check_update_rule

    def make(layout: Any) -> UpdateRule:
        return make_rule(rule, layout, **options)

    make(multilayer_perceptron().layout)
    return check_update_rule(make, slow=slow)
