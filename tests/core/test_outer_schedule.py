"""The outer learning rate as a table: against the formula, and against `torch.optim.Adam` set by hand."""

from __future__ import annotations

import functools
import math
from contextlib import suppress

import attrs
import pytest
import torch

from metalearn_core import (
    OuterSchedule,
    Settings,
    TaskStream,
    UsageError,
    make_rule,
    meta_gradient,
    meta_train,
)
from metalearn_core.kernels import engine
from metalearn_core.kernels.outer_step import OuterStep, Packed
from metalearn_core.testing import TinySines, tiny_learner
from metalearn_core.training.trained import Trained

LEARNER, FAMILY = tiny_learner().to("cpu", torch.float64), TinySines()
TABLES = {
    "cosine": {"start": 0.02, "schedule": "cosine", "end": 0.001, "warm_up": 0.25},
    "steps": {"start": 0.02, "schedule": "steps", "at": [0.5, 0.75], "factor": 0.3},
    "constant": {"start": 0.02, "warm_up": 0.5},
}
RATES = {
    "cosine": [0.02 / 4, 0.02 * 3 / 4, *(0.001 + 0.019 * (1 + math.cos(math.pi * (i - 4) / 11)) / 2
                                          for i in (4, 6, 8, 10, 12, 14))],
    "steps": [0.02] * 4 + [0.006] * 2 + [0.0018] * 2,
    "constant": [0.02 * i / 8 for i in (1, 3, 5, 7)] + [0.02] * 4,
}  # fmt: skip
"""At positions 0, 2, ... 14 of 16 tasks."""
close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)
table = pytest.mark.parametrize("name", TABLES)


def settings_of(name, **changes):
    given = {"tasks": 16, "meta_batch": 2, "steps": 1, "validation_tasks": 2, "engine": "eager"}
    return Settings(outer_lr=TABLES[name], **given | changes)


def rule():
    return make_rule("gradient-descent", LEARNER.layout, learn_lr="scalar").double()


@table
def test_rates_are_those_of_the_formula(name):
    settings = settings_of(name)
    assert [settings.outer_lr_at(2 * i) for i in range(8)] == pytest.approx(RATES[name], rel=1e-12)
    assert settings == settings_of(name)
    assert attrs.evolve(settings, steps=3).outer_lr == settings.outer_lr


def by_hand(name):
    """The outer loop with Adam, whose rate is written in before each step."""
    theta = LEARNER.initial(torch.Generator().manual_seed(0)).requires_grad_()
    ours = rule()
    adam = torch.optim.Adam([theta, *ours.parameters()], lr=1.0)
    stream = TaskStream(FAMILY, "train", 0, torch.device("cpu"), torch.float64)
    for step, rate in enumerate(RATES[name]):
        _, theta.grad, of_phi = meta_gradient(ours, LEARNER, theta, stream.take(2 * step, 2), steps=1)
        ours.inner_lr.grad = of_phi["inner_lr"]
        adam.param_groups[0]["lr"] = rate
        adam.step()
    return theta.detach(), ours.inner_lr.detach()


@table
def test_training_takes_the_steps_of_adam_with_these_rates(name):
    generator = torch.Generator().manual_seed(0)
    trained = meta_train(rule(), LEARNER, FAMILY, settings_of(name), generator=generator)
    close((trained.theta.detach(), trained.rule.inner_lr.detach()), by_hand(name))


@table
def test_the_program_takes_the_same_steps(name):
    settings = settings_of(name)
    member, other = (
        Trained.begin(rule(), LEARNER, settings, torch.Generator().manual_seed(0), FAMILY) for _ in range(2)
    )
    pack, step = Packed([member]), OuterStep(member.rule, LEARNER, settings)
    step._programs = lambda name, function, arguments, eager_first=True: function(*arguments)
    task = FAMILY.sample("train", 2, torch.Generator().manual_seed(1)).to("cpu", torch.float64)
    for position in (0, 4, 14):
        step(pack, task, torch.tensor([True]), position)
        engine.eager_step(other, LEARNER, settings, task, position=position)
        close(member.theta, other.theta)


def test_a_resumed_run_goes_on_with_its_rates(tmp_path):
    settings = settings_of("cosine")

    def stop(event):
        if event.kind == "step" and event.position >= 6:
            raise KeyboardInterrupt

    def train(**more):
        generator = torch.Generator().manual_seed(0)
        return meta_train(rule(), LEARNER, FAMILY, settings, generator=generator, **more)

    with suppress(KeyboardInterrupt):
        train(checkpoint=tmp_path / "c.pt", observers=[stop])
    assert torch.equal(train(checkpoint=tmp_path / "c.pt").theta, train().theta)


REFUSED = [
    ({"schedule": "cosine"}, "a table needs start"),
    ({"start": 0.1, "shedule": "cosine"}, "unknown key of outer_lr 'shedule': did you mean 'schedule'"),
    ({"start": 0.1, "schedule": "linear"}, "schedule must be one of constant, cosine, steps, got 'linear'"),
    ({"start": 0.0}, "outer_lr: start must be a number > 0"),
    ({"start": 0.1, "schedule": "steps"}, "outer_lr: at must be parts of the tasks"),
    ({"start": 0.1, "schedule": "steps", "at": [0.7, 0.2]}, "outer_lr: at must be parts of the tasks"),
    ({"start": 0.1, "warm_up": 1.0}, "warm_up must be a number >= 0 and < 1, got 1.0"),
    ("fast", "outer_lr must be a number > 0"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_makes_no_sense_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        Settings(outer_lr=given)


def test_a_number_stays_a_number():
    assert Settings(outer_lr=0.5).outer_lr == 0.5
    assert Settings(outer_lr=0.5).outer_lr_at(7) == 0.5
    assert OuterSchedule(start=0.5).at_position(3, of=10) == 0.5
