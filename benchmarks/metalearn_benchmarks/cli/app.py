"""The command `metalearn` and its entry point; all commands are registered here.

A command imports what it needs when it runs, so that `--help` is fast and imports no torch.
"""

from __future__ import annotations

import os
import sys

import click

from metalearn_benchmarks.cli.archive import archive
from metalearn_benchmarks.cli.claims import claims
from metalearn_benchmarks.cli.data import data
from metalearn_benchmarks.cli.experiments import experiments
from metalearn_benchmarks.cli.export import export
from metalearn_benchmarks.cli.families import families
from metalearn_benchmarks.cli.map import rule_map
from metalearn_benchmarks.cli.methods import methods
from metalearn_benchmarks.cli.plugins import plugins
from metalearn_benchmarks.cli.report import report
from metalearn_benchmarks.cli.run import run
from metalearn_benchmarks.cli.speed import speed
from metalearn_benchmarks.cli.support.versions import show_versions
from metalearn_benchmarks.host.exit_codes import EXIT_INTERRUPTED, EXIT_USAGE
from metalearn_core.errors import UsageError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_versions,
    help="The versions of metalearn, torch and every plugin.",
)  # fmt: skip
@click.option("--no-plugins", is_flag=True, help="Load no plugin, as METALEARN_LOAD_PLUGINS='' does.")
def metalearn(no_plugins: bool) -> None:
    """Learned update rules: run the paper's experiments, compare rules, read what came out."""
    if no_plugins:
        os.environ["METALEARN_LOAD_PLUGINS"] = ""


COMMANDS = (
    run,
    report,
    claims,
    archive,
    export,
    rule_map,
    speed,
    plugins,
    data,
    families,
    methods,
    experiments,
)

for command in COMMANDS:
    metalearn.add_command(command)


def main() -> None:
    """Run the command; a user's mistake is one line on standard error and exit code 2."""
    try:
        metalearn(standalone_mode=False)
    except UsageError as error:
        _refuse(str(error))
    except click.ClickException as error:
        _refuse(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        sys.exit(EXIT_INTERRUPTED)


def _refuse(message: str) -> None:
    # the other processes that torchrun started on this machine would say the same
    if os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")) == "0":
        click.echo(f"metalearn: {' '.join(message.split())}", err=True)
    sys.exit(EXIT_USAGE)
