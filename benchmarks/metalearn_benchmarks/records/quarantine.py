"""Quarantine: damaged files are renamed and reported, and neither used nor overwritten. Imports no torch."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from metalearn_benchmarks.host.escape import visible
from metalearn_benchmarks.host.terminal import echo
from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.cell_file import require_own_cell
from metalearn_benchmarks.records.files import CHECKPOINT, EXPERIMENT, METRICS, RESULT, DamagedError
from metalearn_benchmarks.records.seal import changed_files
from metalearn_core.errors import UsageError, writing

RUN_FILES = (EXPERIMENT, RESULT, CHECKPOINT, METRICS)
"""The files of a run that can be damaged."""


def quarantine(path: Path, reason: str, kind: str = "damaged", then: str = "made anew") -> None:
    """Rename a file to `NAME.KIND-N`, with the first number that is free, and report it on standard error.

    The caller holds the lock of the folder.

    Args:
        path: The file.
        reason: What is wrong with it.
        kind: The word that is appended to its name.
        then: What becomes of it besides, for the message.
    """
    for number in itertools.count(1):
        target = path.with_name(f"{path.name}.{kind}-{number}")
        if not os.path.lexists(target):
            break
    with writing(path):
        os.rename(path, target)
    message = " ".join(f"metalearn: {path}: {reason}; set aside as {target.name}, and {then}".split())
    echo(visible(message), err=True)


def quarantine_damaged(folder: Path) -> None:
    """Quarantine the damaged files in a run's folder. Records of newer versions are left alone.

    A damaged result is computed again from the checkpoint. A whole one stands without its checkpoint and its
    log. Without a valid `experiment.toml` nobody can say
    which run, and which seeds, a checkpoint belongs to: then every file of the run is moved aside.
    """
    there = [folder / name for name in RUN_FILES if (folder / name).exists()]
    if not there:
        return
    try:
        if record.is_finished(folder):
            record.read_record(folder)
            for changed in changed_files(folder):
                quarantine(changed.path, changed.reason, then=f"the {RESULT} beside it stands")
    except DamagedError as error:
        if error.path.name == EXPERIMENT:
            return _quarantine_all(there, error)
        quarantine(error.path, error.reason)
        there.remove(error.path)
    except UsageError:
        return None
    try:
        require_own_cell(folder)
    except DamagedError as error:
        _quarantine_all(there, error)


def _quarantine_all(paths: list[Path], error: DamagedError) -> None:
    for path in paths:
        own = path == error.path
        quarantine(path, error.reason if own else f"nobody can tell what it is of: {error}")
