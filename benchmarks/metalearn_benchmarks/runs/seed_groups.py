"""Seed groups: which seeds of a method train together, as one program.

Seeds that were started together also continue together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import torch

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.experiments.method import BACKPROPAGATION
from metalearn_benchmarks.host import machine
from metalearn_benchmarks.records.cell_file import read_seeds_together
from metalearn_benchmarks.records.files import CHECKPOINT, DamagedError
from metalearn_benchmarks.runs.components import Components

MAX_SEEDS = 64
"""Seeds of one program, at most, unless a number is asked for. More hardly save any time."""
GroupSize = int | tuple[int, ...]
"""How many seeds start together; or all seeds of a program, of which the missing ones are run."""
MEMORY_SHARE = 0.25
"""The part of the free memory that all concurrent programs may use; the estimate of one is rough."""
VALUES_PER_COORDINATE = 128
"""Values that a rule keeps for each coordinate and inner step for the backward pass, roughly."""


@attrs.frozen
class SeedGroup:
    """Cells of one method that run as one program.

    Args:
        cells: The cells to run, by seed.
        seeds: All seeds that the program was started with, which keep their places in it.
    """

    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]

    def __iter__(self) -> Iterator[Cell]:
        return iter(self.cells)


def group_label(cells: Sequence[Cell]) -> str:
    """Return the name of a group in messages: `maml, seeds 0-29`, or the label of a single cell."""
    if len(cells) == 1:
        return cells[0].label
    seeds = [cell.seed for cell in cells]
    unbroken = seeds == list(range(seeds[0], seeds[-1] + 1))
    shown = f"{seeds[0]}-{seeds[-1]}" if unbroken else ", ".join(map(str, seeds))
    return f"{cells[0].prefix}{cells[0].name}, seeds {shown}"


def group_size(
    cell: Cell, components: Components, seeds_per_program: int | None, programs: int,
    memory: Callable[[torch.device], int] | None = None,
) -> int:  # fmt: skip
    """Return how many seeds of the cell's method train together.

    Args:
        cell: A cell of the method.
        components: Its components.
        seeds_per_program: What was asked for. None: as many as are compiled together and fit in memory.
        programs: How many programs run at the same time and share the memory.
        memory: Returns the bytes that are free on a device. None: those of this machine.
    """
    if cell.method.start != "meta":
        return 1
    if seeds_per_program is not None:
        return seeds_per_program
    if components.settings.wanted_engine != "compiled" or cell.method.meta_gradient != BACKPROPAGATION:
        return 1  # another outer gradient takes one seed at a time
    free = (memory or free_memory)(components.learner.device)
    fitting = MEMORY_SHARE * free / programs / bytes_per_seed(components)
    return min(max(int(fitting), 1), MAX_SEEDS)


def bytes_per_seed(components: Components) -> int:
    """Return roughly how many bytes one seed of a program needs.

    Its state is θ⁰ and φ, each with a gradient and two moments of Adam. For the backward pass it keeps values
    for each task of the meta-batch and each inner step: n values for each example, and for the
    rule `VALUES_PER_COORDINATE`. A small network needs less, and a deep one may need more.
    """
    settings, n = components.settings, components.learner.layout.size
    task = components.tasks("train").take(0, 1)
    phi = sum(parameter.numel() for parameter in components.rule.parameters())
    examples = len(task.support) + len(task.query)
    kept = settings.meta_batch * (settings.steps + 1) * n * (examples + VALUES_PER_COORDINATE)
    return (4 * (n + phi) + kept) * components.learner.dtype.itemsize


def free_memory(device: torch.device) -> int:
    """Return the free bytes of a device; for a CPU, what the system can give without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return machine.free_memory()


def form_groups(
    cells: Iterable[Cell], directory: Path, sizes: Mapping[tuple[str, str], GroupSize]
) -> list[SeedGroup]:
    """Divide cells into groups, ordered by their first cells.

    Cells that were started together form a group again. New cells form groups of the given sizes.

    Args:
        cells: Unfinished cells, of each row by seed.
        directory: DIR.
        sizes: The size of the groups of each row.
    """
    groups: dict[tuple[tuple[str, str], tuple[int, ...] | int], list[Cell]] = {}
    new: dict[tuple[str, str], int] = {}
    for cell in cells:
        seeds, size = _checkpointed_seeds(cell.folder_in(directory)), sizes[cell.row]
        if seeds is None and isinstance(size, int):
            count = new.get(cell.row, 0)
            groups.setdefault((cell.row, count // size), []).append(cell)
            new[cell.row] = count + 1
        else:
            groups.setdefault((cell.row, seeds or size), []).append(cell)
    return [
        SeedGroup(tuple(members), key if isinstance(key, tuple) else tuple(cell.seed for cell in members))
        for (_, key), members in groups.items()
    ]


def _checkpointed_seeds(folder: Path) -> tuple[int, ...] | None:
    """Return the seeds that the training in `folder` was started with, or None without any checkpoint.

    A seed that lost its checkpoint, or never wrote one, is grouped with those that have one: it starts anew
    in its place of the same program, and gets the same numbers.
    """
    try:
        seeds = read_seeds_together(folder)
    except DamagedError:  # its job quarantines it
        return None
    checkpoints = (folder.with_name(str(seed)) / CHECKPOINT for seed in seeds)
    return seeds if any(path.exists() for path in checkpoints) else None
