"""`metalearn zoo`: the group of commands on the trained rules that are shipped."""

import click

from metalearn_benchmarks.cli.support.groups import CommandGroup
from metalearn_benchmarks.cli.zoo.list import list_command
from metalearn_benchmarks.cli.zoo.show import show_command


@click.group(cls=CommandGroup, short_help="The trained rules that are shipped.")
def zoo() -> None:
    """Trained rules that are shipped: which there are, and what each was trained on."""


for command in (list_command, show_command):
    zoo.add_command(command)
