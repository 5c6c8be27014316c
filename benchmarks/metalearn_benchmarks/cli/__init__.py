"""The command `metalearn`: one module for each command, one package for each group of commands.

`app` registers them all and runs one. `support` holds what several commands share.
"""

from __future__ import annotations

import signal

from metalearn_benchmarks.cli import app

__all__ = ["main"]


def main() -> None:
    """Run the command as a process of its own."""
    try:
        app.main()
    finally:
        # while Python ends, Ctrl-C would be printed as an exception and change no exit code
        signal.signal(signal.SIGINT, signal.SIG_DFL)
