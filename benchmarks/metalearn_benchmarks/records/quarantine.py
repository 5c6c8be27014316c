"""What cannot be trusted is named and set aside: never gone on from, never overwritten. Imports no torch."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import click

from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.files import CHECKPOINT, EXPERIMENT, METRICS, RESULT, DamagedError
from metalearn_core.errors import UsageError, writing

OF_A_RUN = (EXPERIMENT, RESULT, CHECKPOINT, METRICS)


def quarantine(path: Path, reason: str, kind: str = "damaged") -> None:
    """Rename a file to `NAME.KIND-1`, or the first number that is free, and say so in one line on stderr.

    Whoever calls it holds the folder's lock.
    """
    for number in itertools.count(1):
        target = path.with_name(f"{path.name}.{kind}-{number}")
        if not os.path.lexists(target):
            break
    with writing(path):
        os.rename(path, target)
    told = " ".join(f"metalearn: {path}: {reason}; set aside as {target.name}, and made anew".split())
    click.echo(told, err=True)


def quarantine_damaged(folder: Path) -> None:
    """Set aside what is damaged in a run's folder. A record that a newer version wrote is left alone.

    A damaged result is made anew from the checkpoint. Without its `experiment.toml` nobody can tell what a
    checkpoint is of, or which seeds it trained with: then nothing in the folder can be gone on from.
    """
    there = [folder / name for name in OF_A_RUN if (folder / name).exists()]
    if not there:
        return
    try:
        if record.is_finished(folder) and not record.is_sealed(folder):
            record.read_record(folder)
    except DamagedError as error:
        if error.path.name == RESULT:
            quarantine(error.path, error.reason)
            there.remove(error.path)
    except UsageError:
        return
    try:
        record.require_whole(folder)
    except DamagedError as error:
        for path in there:
            own = path == error.path
            quarantine(path, error.reason if own else f"nobody can tell what it is of: {error}")
