"""`metalearn plugins`: the group of commands on plugins."""

import click

from metalearn_benchmarks.cli.plugins.check import check_command
from metalearn_benchmarks.cli.plugins.list import list_command
from metalearn_benchmarks.cli.plugins.new import new_command
from metalearn_benchmarks.cli.plugins.show import show_command
from metalearn_benchmarks.cli.plugins.validate import validate_command
from metalearn_benchmarks.cli.support.groups import CommandGroup


@click.group(cls=CommandGroup, short_help="What is installed; check a rule, begin a plugin.")
def plugins() -> None:
    """What is installed and whether it is in order: list it, show one, check a rule, begin your own."""


for command in (list_command, show_command, check_command, validate_command, new_command):
    plugins.add_command(command)
