"""One run, or several seeds of it together: from cells to their records."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from metalearn_benchmarks import records
from metalearn_benchmarks.audience import Audience
from metalearn_benchmarks.catalogue import Cell
from metalearn_benchmarks.metrics import MetricsLog
from metalearn_benchmarks.pretrain import FlatFamily, Head
from metalearn_benchmarks.provenance import batch_norm, provenance
from metalearn_benchmarks.response import rule_response
from metalearn_benchmarks.statistics import summary
from metalearn_core import (
    BaseLearner,
    Clipping,
    Event,
    Observer,
    Processes,
    Registered,
    Settings,
    Task,
    TaskFamily,
    TaskStream,
    Trained,
    UpdateRule,
    UsageError,
    base_learners,
    evaluate,
    forked_rng,
    make_rule,
    meta_train_seeds,
    rules,
    seeded_generator,
    task_families,
    trajectory,
    unknown,
)


def settings_of(cell: Cell) -> Settings:
    """The cell's settings as the core takes them; UsageError names what it does not know."""
    given = dict(cell.method.settings)
    known = {field.name for field in attrs.fields(Settings)}
    for key in given:
        if key not in known:
            raise UsageError(f"method {cell.name!r}: {unknown('setting', key, known)}")
    try:
        for key in {"inner_clip", "outer_clip"} & set(given):
            given[key] = Clipping(**given[key])
        return Settings(**given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"settings of method {cell.name!r}: {str(error).splitlines()[0]}") from error


def device_of(name: str) -> torch.device:
    """A device that this machine has; UsageError for another."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


@attrs.frozen(eq=False)
class Parts:
    """What a cell is made of, built: this is where bad options show."""

    family: TaskFamily
    learner: BaseLearner
    rule: UpdateRule
    generator: torch.Generator
    settings: Settings

    @classmethod
    def of(cls, cell: Cell) -> Parts:
        """Build the parts. The seed decides θ⁰, the same for every method, and φ."""
        family = task_families()[cell.family.name](**cell.family.options)
        learner = base_learners()[cell.learner.name](**cell.learner.options)
        if not isinstance(family, TaskFamily) or not isinstance(learner, BaseLearner):
            made = {cell.family.name: family, cell.learner.name: learner}
            raise UsageError(
                "expected a TaskFamily and a BaseLearner, got "
                + " and ".join(f"a {type(thing).__name__} from {name!r}" for name, thing in made.items())
            )
        learner = learner.to(device_of(cell.device))
        return cls(family, learner, *_drawn(cell, learner, cell.seed), settings_of(cell))

    def with_seed(self, cell: Cell, seed: int) -> Parts:
        """The parts of the same cell but for its seed."""
        rule, generator = _drawn(cell, self.learner, seed)
        return attrs.evolve(self, rule=rule, generator=generator)

    def tasks(self, split: str) -> TaskStream:
        """The tasks of a split, the same for every method and seed."""
        device, dtype = self.learner.device, self.learner.dtype
        return TaskStream(self.family, split, self.settings.task_seed, device, dtype)


def _drawn(cell: Cell, learner: BaseLearner, seed: int) -> tuple[UpdateRule, torch.Generator]:
    """The rule with the φ of a seed, and the generator that θ⁰ comes from."""
    generator = seeded_generator("weights", seed)
    tested = learner
    if cell.method.adapts == "head":
        tested, _ = Head(learner).alone(learner.initial(seeded_generator("unused")))
    with forked_rng(generator):
        rule = make_rule(cell.method.rule, tested.layout, **cell.method.options)
    return rule.to(learner.device), generator


def resolved(cell: Cell) -> dict[str, Any]:
    """The cell as its `experiment.toml` says it: every setting and option, nothing left to a default."""
    plain = cell.as_toml()
    settings = attrs.asdict(settings_of(cell))
    plain["method"]["settings"] = {k: v for k, v in settings.items() if v is not None}
    for part, entry in used(cell).items():
        holder = plain["method"] if part == "rule" else plain[part]
        holder["options"] = {**_defaults(entry), **holder["options"]}
    return plain


def used(cell: Cell) -> dict[str, Registered]:
    """What is installed and makes the cell's parts."""
    return {
        "rule": rules()[cell.method.rule],
        "family": task_families()[cell.family.name],
        "learner": base_learners()[cell.learner.name],
    }


def _defaults(entry: Registered) -> dict[str, Any]:
    """The options that a factory leaves to their defaults, as far as TOML can say them."""
    given = {name: parameter.default for name, parameter in entry.options().items()}
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
    return {k: v for k, v in plain.items() if isinstance(v, bool | int | float | str | list)}


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
    seeds, parts = list(together) or [cell.seed for cell in cells], Parts.of(cells[0])
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
    parts = Parts.of(cells[0])
    trained = _train(cells, parts, seeds, {}, watchers, processes)
    for cell in cells:
        best = tested(cell, parts, trained[cell.seed])
        evaluate(
            *best, parts.family, parts.settings, split="test", tasks=cell.test_tasks, processes=processes
        )


@attrs.frozen(eq=False)
class Run:
    """A cell under way: what it is made of, where it is kept, and who is told of it."""

    cell: Cell
    folder: Path
    parts: Parts
    clock: MetricsLog
    audience: Audience
    together: list[int]

    @classmethod
    def prepare(
        cls, cell: Cell, directory: Path, together: list[int], parts: Parts,
        watchers: Sequence[Observer], installed: bool,
    ) -> Run:  # fmt: skip
        """Write down what is asked for, and the seeds that train together with it."""
        folder = directory / cell.folder
        plain = {**resolved(cell), "seeds_together": together}
        records.write_cell(folder, plain)
        clock, own = MetricsLog(folder / records.METRICS), parts.with_seed(cell, cell.seed)

        def report(event: Event) -> None:
            for watch in watchers:
                watch(event)

        audience = Audience({**plain, "folder": str(folder)}, cell.observe if installed else None, report)
        return cls(cell, folder, own, clock, audience, together)

    def record(
        self, trained: Trained, seconds: float, watchers: Sequence[Observer], processes: Processes
    ) -> None:
        """Test the best state and write the result; `seconds`: what training took."""
        cell, parts, since = self.cell, self.parts, time.monotonic()
        self.clock.complete(trained.validations, parts.learner.higher_is_better)
        rule, learner, theta = tested(cell, parts, trained)
        settings, tasks = parts.settings, cell.test_tasks
        steps, clip = settings.evaluation_steps, settings.inner_clip
        distributions = {entry.distribution for entry in used(cell).values()}
        self.audience(Event("testing", trained.position))

        def tell(done: int) -> None:
            for watch in watchers:
                watch(Event("testing", trained.position, {"done": done, "of": tasks}))

        scores = evaluate(
            rule, learner, theta, parts.family, settings,
            split="test", tasks=tasks, watch=tell, processes=processes,
        )  # fmt: skip
        first, engine = parts.tasks("test").take(0, 20), trained.engine or "eager"
        result = {
            "score": learner.score_name.replace("_", " "),
            "higher_is_better": learner.higher_is_better,
            "scores": {cell.family.name: [[_rounded(x) for x in row] for row in scores.tolist()]},
            "summary": summary(scores[:, -1].double().numpy()),
            "validations": trained.validations,
            "best_position": trained.best.position,
            "diverged": trained.diverged,
            "curves": _curves(rule, learner, theta, _telling(first), steps, clip),
            "rule_response": rule_response(rule, learner, theta, first, steps, clip),
            "batch_norm": batch_norm(learner),
            "meta_parameters": sum(p.numel() for p in rule.parameters()),
            "parameters": learner.layout.size,
            "seconds": seconds + time.monotonic() - since,
            **provenance(cell, learner.device, engine, distributions, self.together),
        }
        records.write_result(self.folder, result)
        self.audience(Event("result", trained.position, _told(result)))


def _told(result: dict[str, Any]) -> dict[str, float]:
    """Of a result, what observers are told."""
    summary = result["summary"]
    low, high = summary["ci95"]
    told = {key: summary[key] for key in ("mean", "median", "tasks")}
    return {**told, "ci95_low": low, "ci95_high": high, "seconds": result["seconds"]}


def _train(
    cells: Sequence[Cell], parts: Parts, seeds: Sequence[int], runs: Mapping[int, Run],
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
        checkpoints=[run.folder / records.CHECKPOINT if run else None for run in kept],
        observers=[[*((run.clock, run.audience) if run else ()), *watchers] for run in kept],
        idle=[index for index, seed in enumerate(seeds) if seed not in trained_seeds],
        processes=processes,
    )  # fmt: skip
    return dict(zip(seeds, trained, strict=True))


def _trained_on(cell: Cell, parts: Parts) -> tuple[TaskFamily, Settings]:
    """What the outer loop is given: tasks, minibatches as tasks, or nothing to train on."""
    family, settings = parts.family, parts.settings
    if cell.method.start == "random":
        settings = attrs.evolve(settings, tasks=0)
    if cell.method.start == "pretrained":
        family = FlatFamily(family, cell.method.minibatch)
        settings = attrs.evolve(settings, steps=0, test_steps=None, outer_clip=None)
    return family, settings


def begun(cell: Cell, checkpoint: Path) -> tuple[Parts, Trained]:
    """What a run's checkpoint holds, to be read and not trained further; UsageError where it does not fit."""
    parts = Parts.of(cell)
    _, settings = _trained_on(cell, parts)
    trained = Trained.begin(parts.rule, parts.learner, settings, parts.generator)
    trained.restore(checkpoint, ignoring={"origin"})
    return parts, trained


def tested(cell: Cell, parts: Parts, trained: Trained) -> tuple[UpdateRule, BaseLearner, Tensor]:
    """What is tested: the best state, or only the head of it."""
    rule, theta = trained.at_best()
    if cell.method.adapts == "head":
        return rule, *Head(parts.learner).alone(theta)
    return rule, parts.learner, theta


def _telling(tasks: Task) -> Task:
    """The one of the tasks whose query targets vary most: chosen by the data alone."""
    spread = tasks.query.targets.to(torch.get_default_dtype()).reshape(len(tasks), -1).std(1)
    return tasks[int(spread.argmax())]


@torch.no_grad()
def _curves(
    rule: UpdateRule,
    learner: BaseLearner,
    theta: Tensor,
    task: Task,
    steps: int,
    clip: Clipping | None,
) -> dict[str, Any] | None:
    """What the method predicts on one unseen task after 0, 1 and T steps, where inputs are scalars."""
    if task.query.inputs.shape[1:] != (1,) or task.query.targets.shape[1:] != (1,):
        return None
    order = task.query.inputs.flatten().argsort()
    inputs = task.query.inputs[order]
    path = trajectory(rule, learner, theta, task.support, steps=steps, clip=clip)
    predictions = {
        str(t): learner.predict(now, inputs).flatten().tolist()
        for t, (now, _) in enumerate(path)
        if t in (0, 1, steps)
    }
    return {
        "support": [
            task.support.inputs.flatten().tolist(),
            task.support.targets.flatten().tolist(),
        ],
        "query": [inputs.flatten().tolist(), task.query.targets[order].flatten().tolist()],
        "predictions": predictions,
    }


def _rounded(value: float) -> float:
    """A float32 in as few digits as tell it apart."""
    return float(f"{value:.9g}")
