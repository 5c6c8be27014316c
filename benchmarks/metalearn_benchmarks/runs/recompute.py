"""A record run again: the `experiment.toml` inside it says everything. Imports no torch."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import click
from click.core import ParameterSource

from metalearn_benchmarks.experiments.axes import require_folder_name
from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.experiments.toml_tables import structured
from metalearn_core.errors import UsageError

OF_A_CELL = {"experiment", "setting", "name", "seed"}
"""The keys by which a resolved cell is known from an experiment."""
FREE = {"experiment", "out", "workers", "address", "observe"}
"""Parameters of `metalearn run` that may still be given: where, on which machines, and who is told."""


def recorded(path: str) -> tuple[Cell, tuple[int, ...], dict[str, str]] | None:
    """The cell that a record's `experiment.toml` tells of, the seeds that trained with it, its data's sums.

    None for anything else. Raises UsageError for a cell that cannot be run as it is told.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8")) if path.endswith(".toml") else {}
    except (OSError, ValueError):
        return None  # whoever takes it for an experiment says what is wrong
    if not data.keys() >= OF_A_CELL:
        return None
    seeds, sums = data.pop("seeds_together", [data["seed"]]), data.pop("data", {})
    cell: Cell = structured(data, Cell, path)
    if not isinstance(seeds, list) or cell.seed not in seeds or any(type(seed) is not int for seed in seeds):
        raise UsageError(
            f"{path}: seeds_together must be a list of seeds with {cell.seed} in it, got {seeds!r}"
        )
    for kind, plain in (("experiment", cell.experiment), ("setting", cell.setting), ("method", cell.name)):
        require_folder_name(kind, plain)
    return cell, tuple(seeds), sums


def require_processes(cell: Cell, path: str, processes: int) -> None:
    """UsageError unless there are as many processes as shared the meta-batches of the run in the file."""
    if cell.processes == processes:
        return
    how = "without torchrun"
    if cell.processes > 1:
        how = f"with torchrun --nproc-per-node {cell.processes} -m metalearn_benchmarks run {path}"
    raise UsageError(
        f"{path}: its meta-batches were shared by {cell.processes} process(es), and here there are"
        f" {processes}: run it {how}"
    )


def require_data(cell: Cell, path: str, sums: Mapping[str, str]) -> None:
    """UsageError unless the data here are those that the run in the file saw."""
    if not sums:
        return
    from metalearn_benchmarks.runs.components import Components

    here = Components.of(cell).data(cell)
    for name, wanted in sums.items():
        if here.get(name) != wanted:
            raise UsageError(
                f"{path}: it saw the data of {name} with checksum {wanted}, here they have {here.get(name)};"
                " prepare them from what they were made of"
            )


def require_no_other(context: click.Context, path: str) -> None:
    """Refuse options that would make it another run than the one in the file; UsageError."""
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name not in FREE
        and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]
    given += ["--rule"] if context.obj else []
    if given:
        raise UsageError(f"{given[0]}: {path} says all of one run, as it was; leave {given[0]} out")
