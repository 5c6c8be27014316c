"""Running the cell of a record again, from its `experiment.toml` alone. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
from click.core import ParameterSource

from metalearn_benchmarks.experiments.axes import require_folder_name
from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.experiments.toml_tables import structure_tables
from metalearn_benchmarks.host.data_files import MAX_TOML_BYTES, parse_toml, read_file
from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.files import EXPERIMENT
from metalearn_core.errors import UsageError

CELL_KEYS = {"experiment", "setting", "name", "seed"}
"""The keys that tell a resolved cell from an experiment."""
ALLOWED_OPTIONS = {"experiment", "out", "workers", "address", "observe", "as_json"}
"""Parameters of `metalearn run` that the file does not settle: where to write and run, whom to tell, how."""


def read_recorded_cell(path: str) -> tuple[Cell, tuple[int, ...], dict[str, str]] | None:
    """Read the cell of a record.

    Args:
        path: A TOML file, or anything else that can be given as an experiment.

    Returns:
        The cell, the seeds that trained with it, and the checksums of its data. None for any other file.

    Raises:
        UsageError: The cell cannot be run as it is written, or its record was changed.
    """
    try:
        data = parse_toml(read_file(Path(path), MAX_TOML_BYTES)) if path.endswith(".toml") else {}
    except (OSError, ValueError):
        return None  # whoever takes it for an experiment says what is wrong
    if not data.keys() >= CELL_KEYS:
        return None
    if Path(path).name == EXPERIMENT and record.is_finished(Path(path).parent):
        record.read_record(Path(path).parent)
    seeds, checksums = data.pop("seeds_together", [data["seed"]]), data.pop("data", {})
    cell: Cell = structure_tables(data, Cell, path)
    if not isinstance(seeds, list) or cell.seed not in seeds or any(type(seed) is not int for seed in seeds):
        raise UsageError(
            f"{path}: seeds_together must be a list of seeds with {cell.seed} in it, got {seeds!r}"
        )
    for kind, plain in (("experiment", cell.experiment), ("setting", cell.setting), ("method", cell.name)):
        require_folder_name(kind, plain)
    return cell, tuple(seeds), checksums


def require_processes(cell: Cell, path: str, processes: int) -> None:
    """Check that as many processes share the meta-batches as in the recorded run.

    Args:
        cell: The recorded cell.
        path: Its file, for the message.
        processes: How many processes there are.

    Raises:
        UsageError: There are more or fewer.
    """
    if cell.processes == processes:
        return
    how = "without torchrun"
    if cell.processes > 1:
        how = f"with torchrun --nproc-per-node {cell.processes} -m metalearn_benchmarks run {path}"
    raise UsageError(
        f"{path}: its meta-batches were shared by {cell.processes} process(es), and here there are"
        f" {processes}: run it {how}"
    )


def require_data(cell: Cell, path: str, checksums: Mapping[str, str]) -> None:
    """Check that the data here are those of the recorded run.

    Args:
        cell: The recorded cell.
        path: Its file, for the message.
        checksums: The recorded checksum of each family's data.

    Raises:
        UsageError: A checksum differs.
    """
    if not checksums:
        return
    from metalearn_benchmarks.runs.components import Components

    here = Components.build(cell).checksums(cell)
    for name, wanted in checksums.items():
        if here.get(name) != wanted:
            raise UsageError(
                f"{path}: it saw the data of {name} with checksum {wanted}, here they have {here.get(name)};"
                " prepare them from what they were made of"
            )


def require_no_other_options(context: click.Context, path: str) -> None:
    """Raise UsageError for an option of the command line that would change the recorded run."""
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name not in ALLOWED_OPTIONS
        and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]
    rules, outer = context.obj or ((), None)
    given += ["--rule"] if rules else []
    given += ["--meta-gradient"] if outer else []
    if given:
        raise UsageError(f"{given[0]}: {path} says all of one run, as it was; leave {given[0]} out")
