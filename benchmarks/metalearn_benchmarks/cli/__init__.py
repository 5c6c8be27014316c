"""The command `metalearn`: a file for each command, a folder for each group of commands."""

from metalearn_benchmarks.cli.app import main as main

__all__ = ["main"]
