"""Time the methods of Figure 3.4 in turns, and write the seconds of a task to a file."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from metalearn_benchmarks.host.machine import processor
from metalearn_benchmarks.records.files import write_atomically
from metalearn_benchmarks.runs.results.provenance import commit, versions
from metalearn_benchmarks.speed.paper_times.timing import ENGINE, TimedMethod, timed_cells

TURNS = 5
THREADS = 1


def facts() -> dict[str, Any]:
    """Return where and by what the times are taken."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "commit": commit(),
        "processor": processor(), "device": "cpu", "threads": THREADS, "engine": ENGINE,
        "versions": versions(()),
    }  # fmt: skip


def timed_turns(methods: Sequence[TimedMethod], path: Path, about: dict[str, Any]) -> None:
    """Time every method once in each turn, and write the file anew after each turn.

    Args:
        methods: The methods.
        path: The file.
        about: What the file says besides.
    """
    timings: list[dict[str, Any]] = []
    for turn in range(TURNS):
        for one in methods:
            shots = one.cell.family.options["shots"]
            click.echo(f"turn {turn + 1} of {TURNS}: {one.cell.name}, {shots}-shot", err=True)
            timings.append(
                {
                    "method": one.cell.name, "shots": shots, "turn": turn,
                    "training": one.training_seconds(), "test": one.test_seconds(),
                }
            )  # fmt: skip
        write_atomically(path, json.dumps({**about, "timings": timings}, indent=1) + "\n")


def main(path: str) -> None:
    """Warm up, time all methods on one thread, and write the file."""
    torch.set_num_threads(THREADS)
    methods = [TimedMethod.of(cell) for cell in timed_cells()]
    for one in methods[:: len(methods) // 2]:  # one of each number of shots
        one.training_seconds()
        one.test_seconds()
    timed_turns(methods, Path(path), facts())


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m metalearn_benchmarks.speed.paper_times", description=__doc__)
    parser.add_argument("file", help="the JSON file to write, anew after each turn")
    main(parser.parse_args().file)
