"""One run, or several seeds of it together: from cells to their records."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs
import torch

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.files import CHECKPOINT, METRICS
from metalearn_benchmarks.records.metrics_log import MetricsLog
from metalearn_benchmarks.runs.components import Components, device_of, resolved
from metalearn_benchmarks.runs.evaluation import Evaluation
from metalearn_benchmarks.runs.observers.dispatch import ObserverGroup
from metalearn_benchmarks.runs.results.provenance import begin_peak
from metalearn_benchmarks.runs.results.result import observer_values, result_of
from metalearn_benchmarks.tasks.minibatches import FlatFamily
from metalearn_core import Event, Observer, Processes, Settings, TaskFamily, Trained, meta_train_seeds

HELD_OUT = 10
"""Of the training data of a method with a new head, one example in so many is for validation."""


def run_cells(
    cells: Sequence[Cell],
    directory: Path,
    watchers: Sequence[Observer],
    together: Sequence[int] = (),
    installed: bool = True,
    processes: Processes | None = None,
) -> None:
    """Train cells that differ in their seed alone as one program, then test and record each of them.

    What was begun is finished. Several cells are trained together by a method with `start = "meta"` only.

    Args:
        watchers: told of every event of every cell, and of its test.
        together: the seeds of the program, where others than those of the cells are among them: these
            keep their places in it, and nothing of theirs is touched.
        installed: whether the installed observers are told, too.
        processes: those that share each meta-batch, this the first; the others are in `follow_cells`.

    Raises:
        UsageError: for anything that is wrong with a cell or its folder.
        CheckpointError: for a checkpoint that must not be gone on from.
        LostProcessError: where another process has ended or failed.
    """
    torch.set_num_threads(cells[0].threads)
    processes = processes or Processes()
    begin_peak(device_of(cells[0].device))
    seeds, parts = list(together) or [cell.seed for cell in cells], Components.of(cells[0])
    with ExitStack() as audiences:
        runs = {}
        for cell in cells:
            runs[cell.seed] = Run.prepare(cell, directory, seeds, parts, watchers, installed)
            audiences.enter_context(runs[cell.seed].audience)
        processes.of_first(lambda: (list(cells), seeds))
        trained = _train(cells, parts, seeds, runs, watchers, processes)
        times = {seed: run.clock.seconds for seed, run in runs.items()}  # others' tests are not its own time
        for seed, run in runs.items():
            run.record(trained[seed], times[seed], watchers, processes)


def follow_cells(
    cells: Sequence[Cell], seeds: Sequence[int], watchers: Sequence[Observer], processes: Processes
) -> None:
    """Take this process's share of what process 0 trains and tests in `run_cells`; write nothing.

    Args:
        seeds: those of the program.
        watchers: told of every event of every cell's training.
    """
    torch.set_num_threads(cells[0].threads)
    parts = Components.of(cells[0])
    trained = _train(cells, parts, seeds, {}, watchers, processes)
    for cell in cells:
        Evaluation.of(cell, parts.with_seed(cell, cell.seed), trained[cell.seed]).scores(
            cell.test_tasks, processes
        )


@attrs.frozen(eq=False)
class Run:
    """A cell under way: what it is made of, where it is kept, and who is told of it."""

    cell: Cell
    folder: Path
    parts: Components
    clock: MetricsLog
    audience: ObserverGroup
    together: list[int]

    @classmethod
    def prepare(
        cls, cell: Cell, directory: Path, together: list[int], parts: Components,
        watchers: Sequence[Observer], installed: bool,
    ) -> Run:  # fmt: skip
        """Write down what is asked for, and the seeds that train together with it."""
        folder = directory / cell.folder
        plain = {**resolved(cell), "seeds_together": together}
        record.write_cell(folder, plain)
        clock, own = MetricsLog(folder / METRICS), parts.with_seed(cell, cell.seed)

        def report(event: Event) -> None:
            for watch in watchers:
                watch(event)

        audience = ObserverGroup(
            {**plain, "folder": str(folder)}, cell.observe if installed else None, report
        )
        return cls(cell, folder, own, clock, audience, together)

    def record(
        self, trained: Trained, seconds: float, watchers: Sequence[Observer], processes: Processes
    ) -> None:
        """Test the best state and write the result; `seconds`: what training took."""
        cell, since = self.cell, time.monotonic()
        self.clock.complete(trained.validations, self.parts.learner.higher_is_better)
        tested = Evaluation.of(cell, self.parts, trained)
        total = cell.test_tasks * len(tested.families)
        self.audience(Event("testing", trained.position))

        def tell(done: int) -> None:
            for watch in watchers:
                watch(Event("testing", trained.position, {"done": done, "of": total}))

        scores = tested.scores(cell.test_tasks, processes, tell)
        result = result_of(cell, trained, tested, scores, self.together)
        result["seconds"] = seconds + time.monotonic() - since
        record.write_result(self.folder, result)
        self.audience(Event("result", trained.position, observer_values(result)))


def _train(
    cells: Sequence[Cell], parts: Components, seeds: Sequence[int], runs: Mapping[int, Run],
    watchers: Sequence[Observer], processes: Processes,
) -> dict[int, Trained]:  # fmt: skip
    """Obtain θ⁰ (and φ) of every seed: by meta-training, by pretraining, or at random.

    Args:
        cells: those of the `seeds` that are trained; the others only keep their places.
        runs: where the cells are kept, by seed, and who is told of them; none where another process does it.
    """
    family, settings = _trained_on(cells[0], parts)
    trained_seeds, kept = {cell.seed for cell in cells}, [runs.get(seed) for seed in seeds]
    members = [
        run.parts if run else parts.with_seed(cells[0], seed) for seed, run in zip(seeds, kept, strict=True)
    ]
    trained = meta_train_seeds(
        [member.rule for member in members], parts.learner, family, settings,
        generators=[member.generator for member in members],
        checkpoints=[run.folder / CHECKPOINT if run else None for run in kept],
        observers=[[*((run.clock, run.audience) if run else ()), *watchers] for run in kept],
        idle=[index for index, seed in enumerate(seeds) if seed not in trained_seeds],
        processes=processes,
    )  # fmt: skip
    return dict(zip(seeds, trained, strict=True))


def _trained_on(cell: Cell, parts: Components) -> tuple[TaskFamily, Settings]:
    """What the outer loop is given: tasks, minibatches as tasks, or nothing to train on."""
    family, settings = parts.family, parts.settings
    if not cell.method.trains:
        settings = attrs.evolve(settings, tasks=0)
    if cell.method.start == "pretrained":
        # classes of other splits have no place in a head over the training classes
        held_out = HELD_OUT if parts.has_new_head else None
        family = FlatFamily(family, cell.method.minibatch, held_out)
        settings = attrs.evolve(settings, steps=0, test_steps=None, outer_clip=None)
    return family, settings


def open_checkpoint(cell: Cell, checkpoint: Path) -> tuple[Components, Trained]:
    """What a run's checkpoint holds, to be read and not trained further; UsageError where it does not fit."""
    parts = Components.of(cell)
    family, settings = _trained_on(cell, parts)
    trained = Trained.begin(parts.rule, parts.learner, settings, parts.generator, family)
    trained.restore(checkpoint, ignoring={"origin", "tasks"})
    return parts, trained
