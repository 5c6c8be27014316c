"""Whatever is handed to a public name of the core is looked at: another kind is one line that names it."""

from __future__ import annotations

import functools
import re

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from metalearn_core import (
    BaseLearner,
    Batch,
    Clipping,
    CompiledMetaGradient,
    Coordinatewise,
    ParameterLayout,
    Settings,
    Task,
    TaskStream,
    TwinOptimizer,
    UsageError,
    adapt,
    evaluate,
    forked_rng,
    log_and_sign,
    make_rule,
    meta_gradient,
    meta_test,
    meta_train,
    meta_train_seeds,
    trajectory,
)
from metalearn_core.testing import TinySines

LEARNER = BaseLearner(nn.Linear(1, 1), mse_loss)
RULE = make_rule("gradient-descent", LEARNER.layout)
TASK = TinySines().sample("train", 2, torch.Generator().manual_seed(0))
SMALL = Settings(tasks=1, steps=1, validation_tasks=1, engine="eager")


@functools.cache
def trained():
    return meta_train(RULE, LEARNER, TinySines(), SMALL, generator=torch.Generator())


THINGS = {
    "None": None, "text": "text", "a number": 1.5, "NaN": float("nan"), "infinity": float("inf"), "-1": -1,
    "0": 0, "True": True, "a list": [1], "a dict": {"a": 1}, "an object": object(),
    "a tensor": torch.zeros(3), "a module": nn.Identity(), "a function": print,
    "a list of None": [None], "a class": int, "a set": {2},
}  # fmt: skip
"""What is handed in where something else was meant."""


def all_but(*right: str) -> tuple[str, ...]:
    return tuple(name for name in THINGS if name not in right)


class Fits:
    """A public name, arguments that fit it, and for each of them what does not."""

    def __init__(self, function, given, wrong, who=None):
        self.function, self.given, self.wrong = function, given, wrong
        self.who = who or getattr(function, "__name__", "")


LOOP = {"rule": RULE, "learner": LEARNER, "theta": torch.zeros(2), "steps": 1}
WRONG_LOOP = {
    "rule": all_but(), "learner": all_but(), "theta": all_but("a tensor"), "steps": all_but("0"),
    "order": all_but(), "clip": all_but("None"),
}  # fmt: skip
TRAIN = {
    "rule": RULE,
    "learner": LEARNER,
    "family": TinySines(),
    "settings": SMALL,
    "generator": torch.Generator(),
}
COUNT = all_but("0")
POSITIVE = all_but("None")
CASES = {
    "adapt": Fits(
        adapt, {**LOOP, "support": TASK.support}, {**WRONG_LOOP, "support": all_but()}, "adapt|unknown order"
    ),
    "trajectory": Fits(
        trajectory,
        {**LOOP, "support": TASK.support},
        {**WRONG_LOOP, "support": all_but(), "truncate": all_but("None")},
        "adapt|meta_gradient|unknown order",
    ),
    "meta_gradient": Fits(
        meta_gradient,
        {**LOOP, "task": TASK},
        {**WRONG_LOOP, "task": all_but(), "truncate": all_but("None"), "outer_decay": all_but("None")},
        "adapt|meta_gradient|unknown order",
    ),
    "CompiledMetaGradient": Fits(
        CompiledMetaGradient,
        {"rule": RULE, "learner": LEARNER, "steps": 1},
        {"rule": all_but(), "learner": all_but(), "steps": COUNT, "checkpoint_every": POSITIVE},
        "CompiledMetaGradient|adapt",
    ),
    "meta_train": Fits(
        meta_train,
        TRAIN,
        {
            **dict.fromkeys(("rule", "learner", "family", "settings", "generator", "processes"), all_but()),
            "checkpoint": all_but("None", "text"),
            "observers": all_but("a list", "a list of None"),
        },
    ),
    "meta_train_seeds": Fits(
        meta_train_seeds,
        {**{k: v for k, v in TRAIN.items() if k not in ("rule", "generator")},
         "rules": [RULE], "generators": [torch.Generator()]},
        {"rules": all_but("a list", "a list of None"), "generators": all_but("a list", "a list of None"),
         "checkpoints": all_but("None", "a list", "a list of None"), "observers": all_but("None", "a list")},
        "meta_train_seeds|meta_train",
    ),
    "evaluate": Fits(
        evaluate,
        {"rule": RULE, "learner": LEARNER, "theta": torch.zeros(2), "family": TinySines(), "settings": SMALL,
         "split": "test", "tasks": 1},
        {**dict.fromkeys(("rule", "learner", "family", "settings", "split", "processes"), all_but()),
         "theta": all_but("a tensor"), "tasks": all_but(),
         "scored": all_but("None", "a function", "a module", "a class"),
         "watch": all_but("None", "a function", "a module", "a class")},
        "evaluate|TaskStream|.*split",
    ),
    "meta_test": Fits(
        lambda **given: meta_test(**{"trained": trained(), **given}),
        {"family": TinySines()},
        {"trained": all_but(), "family": all_but(), "tasks": all_but(), "split": all_but(),
         "steps": all_but("None", "0")},
        "meta_test|TaskStream|Settings|.*split",
    ),
    "BaseLearner": Fits(
        BaseLearner,
        {"module": nn.Linear(1, 1), "loss": mse_loss},
        {"module": all_but("a module"), "loss": all_but("a function", "a module", "a class"),
         "score": all_but("None", "a function", "a module", "a class"),
         "initialise": all_but("None", "a function", "a module", "a class")},
    ),
    "initial": Fits(
        LEARNER.initial, {"generator": torch.Generator()}, {"generator": all_but()}, "base-learner"
    ),
    "loss": Fits(
        LEARNER.loss, {"theta": torch.zeros(2), "batch": TASK[0].support},
        {"theta": all_but(), "batch": all_but()}, "base-learner|ParameterLayout",
    ),
    "Batch": Fits(
        Batch, {"inputs": torch.zeros(3, 1), "targets": torch.zeros(3, 1)},
        {"inputs": all_but("a tensor"), "targets": all_but("a tensor", "None"), "stacked": all_but("True")},
    ),
    "Task": Fits(
        Task, {"support": TASK[0].support, "query": TASK[0].query},
        {"support": all_but(), "query": all_but(), "stacked": all_but("True")},
    ),
    "Task.stack": Fits(Task.stack, {"tasks": [TASK[0]]}, {"tasks": all_but()}, r"Task\.stack"),
    "Task.to": Fits(
        TASK.to, {"device": "cpu"}, {"device": all_but("text"), "dtype": all_but("None")}, r"Task\.to"
    ),
    "ParameterLayout": Fits(
        ParameterLayout, {"names": ("a",), "shapes": ((1,),)}, {"names": all_but(), "shapes": all_but()}
    ),
    "ParameterLayout.of": Fits(
        ParameterLayout.of, {"module": nn.Linear(1, 1)}, {"module": all_but("a module")}, "ParameterLayout"
    ),
    "flatten": Fits(
        LEARNER.layout.flatten, {"parameters": LEARNER.layout.unflatten(torch.zeros(2))},
        {"parameters": all_but()}, "ParameterLayout",
    ),
    "unflatten": Fits(
        LEARNER.layout.unflatten, {"theta": torch.zeros(2)}, {"theta": all_but()}, "ParameterLayout"
    ),
    "TaskStream": Fits(
        TaskStream,
        {"family": TinySines(), "split": "train", "seed": 0, "device": torch.device("cpu"),
         "dtype": torch.float32},
        {"family": all_but(), "split": all_but(), "seed": COUNT, "device": all_but("text"),
         "dtype": all_but()},
        "TaskStream|.*split",
    ),
    "Clipping": Fits(
        Clipping, {"by": "norm", "limit": 1.0},
        {"by": all_but(), "limit": all_but("a number", "infinity")},
    ),
    "Settings": Fits(
        Settings, {},
        {
            **dict.fromkeys(("tasks", "steps", "task_seed"), COUNT),
            **dict.fromkeys(("meta_batch", "validation_interval", "evaluation_batch"), all_but()),
            **dict.fromkeys(("truncate", "tasks_at_once", "checkpoint_every"), POSITIVE),
            **dict.fromkeys(("outer_decay", "warm_up", "inner_clip", "outer_clip"), all_but("None")),
            **dict.fromkeys(("order", "outer_loss", "outer_clip_scope", "engine"), all_but()),
            "outer_lr": all_but("a number"), "checkpoint_seconds": all_but("a number", "0"),
        },
        "Settings|unknown key of outer_lr",
    ),
    "make_rule": Fits(
        make_rule, {"name": "gradient-descent", "layout": LEARNER.layout},
        {"name": all_but(), "layout": all_but()}, "make_rule|unknown",
    ),
    "TwinOptimizer": Fits(
        TwinOptimizer, {"name": "sgd", "options": {}}, {"name": all_but(), "options": all_but()},
        "TwinOptimizer|unknown|optimizer",
    ),
    "Coordinatewise": Fits(
        Coordinatewise, {"columns": 1, "hidden": [2]},
        {"columns": all_but("True"), "hidden": all_but("a list"), "outputs": all_but(),
         "activation": all_but("a class")},
    ),
    "log_and_sign": Fits(
        log_and_sign, {"x": torch.zeros(2)}, {"x": all_but("a tensor"), "p": all_but("a number")}
    ),
    "forked_rng": Fits(
        lambda generator: forked_rng(generator).__enter__(), {"generator": torch.Generator()},
        {"generator": all_but()}, "forked_rng",
    ),
}  # fmt: skip
WRONG = [
    (name, argument, thing)
    for name, case in CASES.items()
    for argument, things in case.wrong.items()
    for thing in things
]


def test_there_are_many_of_them():
    assert len(WRONG) >= 150
    assert {case for case, _, _ in WRONG} == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_what_fits_is_taken(name):
    """Else what is refused below might be refused for another reason."""
    CASES[name].function(**CASES[name].given)


@pytest.mark.parametrize("name", CASES)
def test_another_kind_is_one_line_that_names_what_was_expected(name):
    case, wrong = CASES[name], []
    for argument, things in case.wrong.items():
        for thing in things:
            try:
                case.function(**{**case.given, argument: THINGS[thing]})
            except UsageError as error:
                said = str(error)
                told = re.match(case.who, said) and "\n" not in said and len(said) < 400
                if told and "vmap" not in said and " raised " not in said:
                    continue
                wrong.append(f"{argument} = {thing}: {said}")
            except Exception as error:
                wrong.append(f"{argument} = {thing}: {type(error).__name__}: {error}")
            else:
                wrong.append(f"{argument} = {thing}: taken")
    assert wrong == []
