"""The command `metalearn`: one module for each command, one package for each group of commands.

`app` registers them all and holds the entry point, `main`. `support` holds what several commands share.
"""

from metalearn_benchmarks.cli.app import main

__all__ = ["main"]
