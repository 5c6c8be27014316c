"""`metalearn plugins check`: check that a rule, or an outer gradient, keeps the laws of its kind."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

import click

from metalearn_benchmarks.cli.support.completion import complete_rule
from metalearn_benchmarks.cli.support.options import JSON, examples, toml_option
from metalearn_benchmarks.host.exit_codes import EXIT_FAILED
from metalearn_benchmarks.host.terminal import echo, print_json, print_table
from metalearn_core.errors import UsageError

STATUSES = ("passed", "failed", "expected", "skipped")


def _expectation(text: str) -> tuple[str, str]:
    """`law=why`; UsageError for what lacks one of them."""
    law, _, why = text.partition("=")
    if not law.strip() or not why.strip():
        raise UsageError(f"--expect: expected LAW=WHY, the law and why the rule breaks it, got {text!r}")
    return law.strip(), why.strip()


def _imported(place: str) -> Any:
    """What `module:name` names; UsageError where there is no such thing."""
    module, _, name = place.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"--problem: expected MODULE:NAME of what can be imported, got {place!r} ({error})"
        ) from error


@click.command("check", epilog=examples("metalearn plugins check lstm --option hidden=0"))
@click.argument("rule", shell_complete=complete_rule)
@click.option("--option", "-o", "given", metavar="K=V", multiple=True, help="An option of it; V is TOML.")
@click.option("--slow", is_flag=True, help="The laws too that train, compile and resume: a minute or two.")
@click.option(
    "--expect",
    "expected",
    metavar="LAW=WHY",
    multiple=True,
    help="A law that the rule is known to break, and why: it fails the check where it holds after all.",
)
@click.option(
    "--problem",
    metavar="MODULE:NAME",
    help="What the rule is looked at on, where it needs a learner of its own.",
)
@JSON
def check_command(
    rule: str, given: tuple[str, ...], slow: bool, expected: tuple[str, ...], problem: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Does the installed RULE keep the laws of update rules? Exit code 1 if it does not.

    RULE may be the name of an outer gradient, which is held against the laws of those.
    """
    from collections import Counter

    import attrs
    import torch

    from metalearn_core import UpdateRule, meta_gradients, rules
    from metalearn_core.testing import KIT_VERSION, check_meta_gradient

    options, own = dict(map(toml_option, given)), _imported(problem) if problem else None
    reasons = dict(_expectation(text) for text in expected)
    torch.set_num_threads(1)  # the laws' tensors are tiny: threads would wait for each other
    with redirect_stdout(sys.stderr):  # what a rule prints
        if rule in meta_gradients() and rule not in rules():
            if reasons or own is not None:
                raise UsageError(f"--expect and --problem are for rules, and {rule!r} is an outer gradient")
            found = check_meta_gradient(rule, **options)
        else:
            found = _check_rule(rule, options, slow=slow, expected_failures=reasons, problem=own)
    rows = [attrs.asdict(result) for result in found]
    versions = {"kit": KIT_VERSION, "api": UpdateRule.api_version, "torch": torch.__version__}
    counts = Counter(row["status"] for row in rows)
    if as_json:
        print_json({"rule": rule, "options": options, **versions, "results": rows})
    else:
        print_table(rows, as_json)
        summary = ", ".join(
            f"{counts[status]} {status}" for status in STATUSES if counts[status] or status != "expected"
        )
        made_with = ", ".join(f"{key} {value}" for key, value in versions.items())
        echo(f"\n{rule}: {summary}  ({made_with})")
    if counts["failed"]:
        sys.exit(EXIT_FAILED)


def _check_rule(rule: str, options: dict[str, Any], **how: Any) -> list[Any]:
    """The results of a rule's laws. What cannot be made at all is the user's mistake, said in one line."""
    from metalearn_benchmarks.learners.perceptron import multilayer_perceptron
    from metalearn_core import UpdateRule, make_rule
    from metalearn_core.testing import check_update_rule

    def make(layout: Any) -> UpdateRule:
        return make_rule(rule, layout, **options)

    if how["problem"] is None:
        make(multilayer_perceptron().layout)
    return check_update_rule(make, **how)
