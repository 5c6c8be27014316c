"""`metalearn data`: the group of commands on datasets of images."""

import click

from metalearn_benchmarks.cli.data.list import list_command
from metalearn_benchmarks.cli.data.prepare import prepare_command
from metalearn_benchmarks.cli.data.verify import verify_command
from metalearn_benchmarks.cli.support.groups import CommandGroup


@click.group(cls=CommandGroup, short_help="Datasets of images on this machine.")
def data() -> None:
    """Datasets of images on this machine: prepare one from what you have, check it, list what is there."""


for command in (prepare_command, verify_command, list_command):
    data.add_command(command)
