"""Which seeds of a method train together, as one program; what was begun together goes on together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import torch

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.host import machine
from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.files import CHECKPOINT, DamagedError
from metalearn_benchmarks.runs.components import Components

MOST = 64
"""Seeds of one program, at most, unless a number is asked for: beyond, hardly any time is saved."""
Size = int | tuple[int, ...]
"""How many seeds are begun together; or the seeds of a program, in which those that are missing are run."""
SHARE = 0.25
"""Of the free memory, for all programs that run at the same time: the estimate of one is rough."""
VALUES_PER_COORDINATE = 128
"""What a rule keeps of one coordinate and inner step for the backward pass, about: its hidden layers."""


@attrs.frozen
class Group:
    """Cells of one method that run as one program, by seed.

    Args:
        seeds: those of the program: of the cells, and all that it was begun with, which keep their places.
    """

    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]

    def __iter__(self) -> Iterator[Cell]:
        return iter(self.cells)


def label(cells: Sequence[Cell]) -> str:
    """The name for people of cells that train together: `maml, seeds 0-29`, or one cell's own."""
    if len(cells) == 1:
        return cells[0].label
    seeds = [cell.seed for cell in cells]
    unbroken = seeds == list(range(seeds[0], seeds[-1] + 1))
    shown = f"{seeds[0]}-{seeds[-1]}" if unbroken else ", ".join(map(str, seeds))
    return f"{cells[0].prefix}{cells[0].name}, seeds {shown}"


def size_of(
    cell: Cell, parts: Components, together: int | None, programs: int,
    memory: Callable[[torch.device], int] | None = None,
) -> int:  # fmt: skip
    """How many seeds of the cell's method to train together.

    Args:
        together: what is asked for; None leaves it to what is compiled and fits in memory.
        programs: how many run at the same time and share the memory.
        memory: bytes that are free where they run, asked for only where it matters; None: here, now.
    """
    if cell.method.start != "meta":
        return 1
    if together is not None:
        return together
    if parts.settings.wanted_engine != "compiled":
        return 1
    free = (memory or free_memory)(parts.learner.device)
    fitting = SHARE * free / programs / bytes_per_seed(parts)
    return min(max(int(fitting), 1), MOST)


def bytes_per_seed(parts: Components) -> int:
    """About what one seed of a program needs.

    Its state is θ⁰ and φ, with a gradient and Adam's two moments of each. Of every task of the
    meta-batch and every inner step it keeps, for the backward pass, n values for each example and
    `VALUES_PER_COORDINATE` for the rule: more than a small network needs, less than a deep one may.
    """
    settings, n = parts.settings, parts.learner.layout.size
    task = parts.tasks("train").take(0, 1)
    phi = sum(parameter.numel() for parameter in parts.rule.parameters())
    examples = len(task.support) + len(task.query)
    kept = settings.meta_batch * (settings.steps + 1) * n * (examples + VALUES_PER_COORDINATE)
    return (4 * (n + phi) + kept) * parts.learner.dtype.itemsize


def free_memory(device: torch.device) -> int:
    """Bytes that are free where the training runs; of a CPU, what its system can give without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return machine.free_memory()


def form_groups(cells: Iterable[Cell], directory: Path, sizes: Mapping[tuple[str, str], Size]) -> list[Group]:
    """Every cell in one group, by its first cell: those begun together again, new ones by `sizes`.

    Args:
        cells: unfinished, of each row by seed.
        sizes: of each row.

    """
    groups: dict[tuple[tuple[str, str], tuple[int, ...] | int], list[Cell]] = {}
    new: dict[tuple[str, str], int] = {}
    for cell in cells:
        seeds, size = _begun_with(directory / cell.folder), sizes[cell.row]
        if seeds is None and isinstance(size, int):
            count = new.get(cell.row, 0)
            groups.setdefault((cell.row, count // size), []).append(cell)
            new[cell.row] = count + 1
        else:
            groups.setdefault((cell.row, seeds or size), []).append(cell)
    return [
        Group(tuple(members), begun if isinstance(begun, tuple) else tuple(cell.seed for cell in members))
        for (_, begun), members in groups.items()
    ]


def _begun_with(folder: Path) -> tuple[int, ...] | None:
    """The seeds that the training in `folder` was begun with; None where there is nothing to go on from.

    One that lost its checkpoint, or was cut off before its first, goes on with those that have one: it
    begins anew in its place of the same program, and has the numbers that it would have had.
    """
    try:
        seeds = record.seeds_together(folder)
    except DamagedError:  # set aside when its turn comes
        return None
    begun = (folder.with_name(str(seed)) / CHECKPOINT for seed in seeds)
    return seeds if any(path.exists() for path in begun) else None
