"""The command `metalearn` and its entry point; all commands are registered here.

A command imports what it needs when it runs, so that `--help` is fast and imports no torch.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from metalearn_benchmarks.cli.claims import claims
from metalearn_benchmarks.cli.data import data
from metalearn_benchmarks.cli.demo import demo
from metalearn_benchmarks.cli.experiments import experiments
from metalearn_benchmarks.cli.export import export
from metalearn_benchmarks.cli.families import families
from metalearn_benchmarks.cli.map import rule_map
from metalearn_benchmarks.cli.methods import methods
from metalearn_benchmarks.cli.plugins import plugins
from metalearn_benchmarks.cli.records.archive import archive
from metalearn_benchmarks.cli.records.table import records
from metalearn_benchmarks.cli.report import report
from metalearn_benchmarks.cli.run import run
from metalearn_benchmarks.cli.speed import speed
from metalearn_benchmarks.cli.support.groups import CommandGroup
from metalearn_benchmarks.cli.support.versions import show_versions
from metalearn_benchmarks.cli.zoo import zoo
from metalearn_benchmarks.host.escape import visible
from metalearn_benchmarks.host.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from metalearn_benchmarks.host.interrupts import watched_interrupts
from metalearn_benchmarks.host.terminal import OutputError, discard_output, echo, guarded_output
from metalearn_core.errors import UsageError, unknown

SECTIONS = {
    "Run": (demo, run, experiments, methods, families),
    "Read what came out": (report, claims, archive, records),
    "Trained rules": (zoo, export),
    "Rules and data": (plugins, rule_map, data, speed),
}
"""The commands by the heading under which the help has them."""


@click.group(
    cls=CommandGroup, sections={heading: [str(each.name) for each in of] for heading, of in SECTIONS.items()},
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_versions,
    help="The versions of metalearn, torch and every plugin.",
)  # fmt: skip
@click.option("--no-plugins", is_flag=True, help="Load no plugin, as METALEARN_LOAD_PLUGINS='' does.")
def metalearn(no_plugins: bool) -> None:
    """Learned update rules: run the paper's experiments, compare rules, read what came out."""
    if no_plugins:
        os.environ["METALEARN_LOAD_PLUGINS"] = ""


for command in [command for commands in SECTIONS.values() for command in commands]:
    metalearn.add_command(command)


def main() -> None:
    """Run the command in this process, and exit with its code.

    A user's mistake is one line on standard error and exit code 2; Ctrl-C is exit code 130 wherever it comes.
    """
    with watched_interrupts() as interrupts:
        try:
            with guarded_output():
                code = _run_command()
        except OutputError as error:
            code = _without_output(error)
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
        if interrupts.pressed:
            code = EXIT_INTERRUPTED
    if code:
        sys.exit(code)


def _run_command() -> int:
    """Run the command and return its exit code."""
    try:
        code = metalearn(prog_name="metalearn", standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_FAILED
    except OutputError:
        raise
    except UsageError as error:
        return _refuse(str(error))
    except click.UsageError as error:
        return _refuse_words(error)
    except click.ClickException as error:
        return _refuse(error.format_message())
    except click.Abort:
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def _refuse_words(error: click.UsageError) -> int:
    """Answer what click refuses: a group without a command is a question for its help."""
    context = error.ctx
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        echo(context.get_help())
        return 0
    if context is not None and isinstance(error, click.NoSuchOption):
        options = {word for each in context.command.params for word in each.opts if word.startswith("--")}
        return _refuse(str(unknown("option", error.option_name, options)))
    return _refuse(error.format_message())


def _refuse(message: str) -> int:
    # the other processes that torchrun started on this machine would say the same
    if os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")) == "0":
        echo(visible(f"metalearn: {' '.join(message.split())}"), err=True)
    return EXIT_USAGE


def _without_output(error: OutputError) -> int:
    """End where the output cannot be written; a reader that has seen enough, such as `head`, is no error."""
    if not error.reader_left:
        with suppress(OSError):
            echo(f"metalearn: {error}", err=True)
    discard_output()
    return EXIT_FAILED if error.reader_left else EXIT_USAGE
