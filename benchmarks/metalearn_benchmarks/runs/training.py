"""The training, the test and the record of a cell, or of several seeds of it together."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch

from metalearn_benchmarks.experiments.catalogue import Cell
from metalearn_benchmarks.records import record
from metalearn_benchmarks.records.cell_file import write_cell
from metalearn_benchmarks.records.files import CHECKPOINT, METRICS
from metalearn_benchmarks.records.metrics_log import MetricsLog
from metalearn_benchmarks.runs.components import Components, usable_device
from metalearn_benchmarks.runs.evaluation import Evaluation
from metalearn_benchmarks.runs.observers.description import described_run
from metalearn_benchmarks.runs.observers.dispatch import ObserverGroup, selected_observers
from metalearn_benchmarks.runs.resolution import resolve_cell
from metalearn_benchmarks.runs.results.provenance import reset_peak
from metalearn_benchmarks.runs.results.result import make_result, observer_values
from metalearn_benchmarks.tasks.minibatches import FlatFamily
from metalearn_core import Event, Observer, Processes, Settings, TaskFamily, Trained, meta_train_seeds
from metalearn_core.errors import DivergenceWarning, TrainingWarning

HOLD_OUT_EVERY = 10
"""Where tasks have a new head, one training example in this many is held out for validation."""


def run_cells(
    cells: Sequence[Cell],
    directory: Path,
    observers: Sequence[Observer],
    seeds_together: Sequence[int] = (),
    notify_installed: bool = True,
    processes: Processes | None = None,
) -> None:
    """Train cells that differ only in their seed as one program, then test and record each of them.

    Training continues from a checkpoint where there is one. Several cells need a meta-trained method.

    Args:
        cells: The cells.
        directory: DIR.
        observers: Called with every event of every cell, also during its test.
        seeds_together: All seeds of the program, where it was started with more than those of the cells. The
            others keep their places in it, and their files are not touched.
        notify_installed: Whether the installed observers are called, too.
        processes: The processes that share each meta-batch, of which this is the first. The others run
            `follow_cells`.

    Raises:
        UsageError: Something is wrong with a cell or its folder.
        CheckpointError: The training cannot continue from a checkpoint.
        LostProcessError: Another process has ended or failed.
    """
    torch.set_num_threads(cells[0].threads)
    processes = processes or Processes()
    reset_peak(usable_device(cells[0].device))
    seeds, components = list(seeds_together) or [cell.seed for cell in cells], Components.build(cells[0])
    with ExitStack() as groups:
        runs = {}
        for cell in cells:
            runs[cell.seed] = CellRun.prepare(cell, directory, seeds, components, observers, notify_installed)
            groups.enter_context(runs[cell.seed].observer_group)
        processes.of_first(lambda: (list(cells), seeds))
        trained = _train(cells, components, seeds, runs, observers, processes)
        times = {
            seed: run.metrics_log.seconds for seed, run in runs.items()
        }  # others' tests are not its own time
        for seed, run in runs.items():
            run.test_and_record(trained[seed], times[seed], observers, processes)


def follow_cells(
    cells: Sequence[Cell], seeds: Sequence[int], observers: Sequence[Observer], processes: Processes
) -> None:
    """Take this process's share of the training and the test in `run_cells`. Writes nothing.

    Args:
        cells: The cells.
        seeds: All seeds of the program.
        observers: Called with every event of every cell's training.
        processes: The processes that share each meta-batch.
    """
    torch.set_num_threads(cells[0].threads)
    components = Components.build(cells[0])
    trained = _train(cells, components, seeds, {}, observers, processes)
    for cell in cells:
        Evaluation.build(cell, components.with_seed(cell, cell.seed), trained[cell.seed]).scores(
            cell.test_tasks, processes
        )


@attrs.frozen(eq=False)
class CellRun:
    """A cell that is being run.

    Args:
        cell: The cell.
        folder: The folder of its record.
        components: Its components.
        metrics_log: The log of its validations, which also measures its time.
        observer_group: The installed observers of the run.
        seeds_together: All seeds of the program that it is part of.
    """

    cell: Cell
    folder: Path
    components: Components
    metrics_log: MetricsLog
    observer_group: ObserverGroup
    seeds_together: list[int]

    @classmethod
    def prepare(
        cls, cell: Cell, directory: Path, seeds_together: list[int], components: Components,
        observers: Sequence[Observer], notify_installed: bool,
    ) -> CellRun:  # fmt: skip
        """Write the cell's `experiment.toml` and open its log; `components` may be of another seed."""
        folder = cell.folder_in(directory)
        plain = {**resolve_cell(cell), "seeds_together": seeds_together}
        write_cell(folder, plain)
        names: dict[str, str | int] = {
            "experiment": cell.experiment, "setting": cell.setting, "method": cell.name, "seed": cell.seed,
        }  # fmt: skip
        metrics_log, own = MetricsLog(folder / METRICS, names), components.with_seed(cell, cell.seed)

        def report(event: Event) -> None:
            for observer in observers:
                observer(event)

        asked = cell.observe if notify_installed else None
        told = described_run(cell, metrics_log) if selected_observers(asked) else {}
        observer_group = ObserverGroup(
            {**plain, "folder": str(folder), **told}, asked, report, own.settings.outer_lr_at
        )
        return cls(cell, folder, own, metrics_log, observer_group, seeds_together)

    def test_and_record(
        self, trained: Trained, seconds: float, observers: Sequence[Observer], processes: Processes
    ) -> None:
        """Test the best state and write the result.

        Args:
            trained: The training of the cell.
            seconds: How long the training took.
            observers: Called with the progress of the test.
            processes: The processes that share the test.
        """
        cell, since = self.cell, time.monotonic()
        self.metrics_log.complete(trained.validations, self.components.learner.higher_is_better)
        evaluation = Evaluation.build(cell, self.components, trained)
        total = cell.test_tasks * len(evaluation.families)
        self.observer_group(Event("testing", trained.position))

        def report_progress(done: int) -> None:
            for observer in observers:
                observer(Event("testing", trained.position, {"done": done, "of": total}))

        scores = evaluation.scores(cell.test_tasks, processes, report_progress)
        result = make_result(cell, trained, evaluation, scores, self.seeds_together)
        result["seconds"] = seconds + time.monotonic() - since
        record.write_result(self.folder, result)
        self.observer_group(Event("result", trained.position, observer_values(result)))


def _train(
    cells: Sequence[Cell], components: Components, seeds: Sequence[int], runs: Mapping[int, CellRun],
    observers: Sequence[Observer], processes: Processes,
) -> dict[int, Trained]:  # fmt: skip
    """Obtain θ⁰ and φ of every seed: by meta-training, by pretraining, or at random.

    Args:
        seeds: All seeds of the program. Those without a cell only keep their places.
        runs: The runs by seed. Empty where another process writes the records.
    """
    family, settings = _outer_loop_inputs(cells[0], components)
    trained_seeds, own_runs = {cell.seed for cell in cells}, [runs.get(seed) for seed in seeds]
    members = [
        run.components if run else components.with_seed(cells[0], seed)
        for seed, run in zip(seeds, own_runs, strict=True)
    ]
    watchers = [[*((run.metrics_log, run.observer_group) if run else ()), *observers] for run in own_runs]
    with _warnings_as_events(observers):
        trained = meta_train_seeds(
            [member.rule for member in members], components.learner, family, settings,
            generators=[member.generator for member in members],
            checkpoints=[run.folder / CHECKPOINT if run else None for run in own_runs],
            observers=watchers,
            idle=[index for index, seed in enumerate(seeds) if seed not in trained_seeds],
            processes=processes,
            meta_gradient=components.meta_gradient,
        )  # fmt: skip
    return dict(zip(seeds, trained, strict=True))


@contextmanager
def _warnings_as_events(observers: Sequence[Observer]) -> Iterator[None]:
    """In it, what a training warns of comes as an event of kind `warning`, with its `message`."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, TrainingWarning):
            shown(message, category, *where, **more)
            return
        for observer in observers:
            observer(Event("warning", 0, {"message": str(message).removeprefix("meta_train: ")}))

    with warnings.catch_warnings():
        warnings.simplefilter("always", TrainingWarning)
        warnings.simplefilter("ignore", DivergenceWarning)  # the record and the command's last lines tell it
        warnings.showwarning = show
        yield


def _outer_loop_inputs(cell: Cell, components: Components) -> tuple[TaskFamily, Settings]:
    """Return family and settings of the outer loop: tasks, minibatches in place of tasks, or no tasks."""
    family, settings = components.family, components.settings
    if not cell.method.trains:
        settings = attrs.evolve(settings, tasks=0)
    if cell.method.start == "pretrained":
        # classes of other splits have no place in a head over the training classes
        held_out = HOLD_OUT_EVERY if components.has_new_head else None
        family = FlatFamily(family, cell.method.minibatch, held_out)
        settings = attrs.evolve(settings, steps=0, test_steps=None, outer_clip=None)
    return family, settings


def open_checkpoint(cell: Cell, checkpoint: Path) -> tuple[Components, Trained]:
    """Read the checkpoint of a run, without training further.

    Args:
        cell: The cell of the run.
        checkpoint: The file.

    Returns:
        The components of the cell, and its training.

    Raises:
        UsageError: The checkpoint belongs to another cell.
    """
    components = Components.build(cell)
    family, settings = _outer_loop_inputs(cell, components)
    trained = Trained.begin(components.rule, components.learner, settings, components.generator, family)
    trained.restore(checkpoint, ignoring={"origin", "tasks"})
    return components, trained
