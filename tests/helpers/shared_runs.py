"""Runs that several processes share. As a program: one of them, which leaves its results in a folder."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.functional import mse_loss

from metalearn_core import (
    BaseLearner,
    Clipping,
    Processes,
    Settings,
    Task,
    Trained,
    UpdateRule,
    evaluate,
    make_rule,
    meta_train_seeds,
    task_families,
)
from metalearn_core.kernels import programs
from metalearn_core.training.processes import ALONE

SETTINGS = Settings(
    tasks=400, meta_batch=4, steps=2, validation_interval=100, validation_tasks=30, evaluation_batch=8
)
STEP = attrs.evolve(SETTINGS, tasks=4)
FAMILY = task_families()["sine"](support=5, query=10)


class Brittle(UpdateRule):
    """Gradient descent that breaks at the first task whose support loss is large."""

    uses_loss = True

    def __init__(self, layout=None, limit: float = 18.0) -> None:
        super().__init__()
        self.limit, self.rate = limit, nn.Parameter(torch.tensor(0.01))

    def update(self, theta, signal, state):
        broken = torch.where(signal.loss > self.limit, torch.nan, 1.0)
        return theta - self.rate * broken * signal.grad, state


@attrs.frozen
class Case:
    """`tolerance`: relative, for two processes against one; `idle`: seeds that only keep their places."""

    rule: str
    settings: Settings
    dtype: torch.dtype = torch.float64
    tolerance: float = 1e-9
    seeds: int = 1
    options: dict = attrs.field(factory=dict)
    idle: tuple[int, ...] = ()


TURTLE = {"hidden": [5, 5], "learn_lr": "parameter"}
CASES = {
    "gradient descent, one step, float32": Case("gradient-descent", STEP, torch.float32, 1e-5),
    "feed-forward, one step, float32": Case("feed-forward", STEP, torch.float32, 1e-5, options=TURTLE),
    "gradient descent, 100 steps": Case("gradient-descent", SETTINGS),
    "feed-forward, 100 steps": Case("feed-forward", SETTINGS, options=TURTLE),
    "uneven shares, the last meta-batch a single task, sum and norms": Case(
        "feed-forward",
        attrs.evolve(SETTINGS, tasks=51, meta_batch=5, outer_loss="sum", order="first",
                     outer_clip=Clipping("norm", 0.3)),
        options=TURTLE,
    ),
    "in pieces, long unrolls, clipped by value": Case(
        "gradient-descent",
        attrs.evolve(SETTINGS, tasks=21, meta_batch=7, steps=3, tasks_at_once=2, checkpoint_every=1,
                     outer_clip=Clipping("value", 0.1), outer_clip_scope="initialisation"),
        options={"learn_lr": "scalar"},
    ),
    "a NaN in one share": Case("brittle", SETTINGS),
    "two seeds, one idle": Case("gradient-descent", attrs.evolve(SETTINGS, tasks=40), seeds=2, idle=(0,)),
    "compiled, two seeds": Case(
        "gradient-descent", attrs.evolve(SETTINGS, tasks=41, engine="compiled"), seeds=2,
        options={"learn_lr": "parameter"},
    ),
}  # fmt: skip


def learner_of(dtype: torch.dtype) -> BaseLearner:
    network = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    return BaseLearner(network, mse_loss).to("cpu", dtype)


def train(case: Case, processes: Processes = ALONE, **options) -> list[Trained]:
    """The case's seeds; θ⁰ and φ are those of process 0, and others draw other ones."""
    learner = learner_of(case.dtype)
    torch.manual_seed(7 + processes.rank)
    make = Brittle if case.rule == "brittle" else functools.partial(make_rule, case.rule)
    rules = [make(learner.layout, **case.options) for _ in range(case.seeds)]
    generators = [torch.Generator().manual_seed(seed + 100 * processes.rank) for seed in range(case.seeds)]
    every = meta_train_seeds(
        rules, learner, FAMILY, case.settings,
        generators=generators, idle=case.idle, processes=processes, **options,
    )  # fmt: skip
    return [trained for seed, trained in enumerate(every) if seed not in case.idle]


def scores_of(trained: Trained, processes: Processes = ALONE) -> torch.Tensor:
    rule, theta = trained.at_best()
    return evaluate(
        rule, trained.learner, theta, FAMILY, trained.settings, split="test", tasks=21, processes=processes
    )


def found(trained: Trained, scores: torch.Tensor) -> dict:
    """What came out, to be compared."""
    assert trained.engine == ("compiled" if trained.settings.engine == "compiled" else "eager")
    contents = trained.contents()
    return {**{key: contents[key] for key in ("now", "best", "validations", "diverged")}, "scores": scores}


def failures(processes: Processes) -> list[str]:
    """What each process hears where one of them cannot do its part; afterwards they are still in step."""

    def broken_at(rank: int) -> Any:
        def work(*_: object) -> Any:
            if processes.rank == rank:
                raise KeyError(rank)
            return torch.zeros(1)

        return work

    task = Task.of([torch.zeros(2, 1, 1)] * 4, stacked=True)
    heard = []
    for part in (
        lambda: processes.of_first(broken_at(0)),
        lambda: processes.each(broken_at(1), range(4)),
        lambda: processes.mean_over(task, lambda *share: [broken_at(0)()], [torch.zeros(1)]),
        lambda: processes.of_first(lambda: {"whole": torch.ones(2)}),
    ):
        try:
            heard.append(repr(part()))
        except Exception as error:
            heard.append(type(error).__name__)
    return heard


def compiled_in_one(processes: Processes) -> list[tuple[str | None, torch.Tensor]]:
    """The engine and θ⁰ of a run that one process cannot compile."""

    def refuse(function: Any, *_: object, **__: object) -> Any:
        if processes.rank == 1:
            raise programs.CompilationError("not here")
        return function

    before, programs.compiled = programs.compiled, refuse
    trained = train(CASES["compiled, two seeds"], processes)
    programs.compiled = before
    return [(one.engine, one.theta) for one in trained]


def meet_in(folder: Path) -> None:
    """Find the others by a file: the store that torch would begin listens on every interface."""
    rank, count = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
    torch.distributed.init_process_group = functools.partial(
        torch.distributed.init_process_group,
        store=torch.distributed.FileStore(str(folder / "store"), count), rank=rank, world_size=count,
    )  # fmt: skip


def main(folder: Path, compiling: bool) -> None:
    torch.set_num_threads(1)
    if not compiling:  # the same path, with the functions as they are for programs
        programs.compiled = lambda function, arguments, **_: function
    meet_in(folder)
    processes = Processes.joined(torch.device("cpu"))
    results = {
        name: [found(one, scores_of(one, processes)) for one in train(case, processes)]
        for name, case in CASES.items()
        if not compiling or case.settings.engine == "compiled"
    }
    if not compiling:
        results |= {"failures": failures(processes), "compiled in one": compiled_in_one(processes)}
    torch.save(results, folder / f"{processes.rank}.pt")
    processes.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), compiling="compiling" in sys.argv[2:])
