"""The norm of each meta-gradient, for the observers that ask for it, against a plain loop with Adam."""

import pytest
import torch

from metalearn_core import (
    Clipping,
    Settings,
    TaskStream,
    make_rule,
    meta_train,
    seeded_generator,
    task_families,
)
from metalearn_core.many_steps import calls, pace
from metalearn_core.testing import Architecture

FAMILY = task_families()["sine"](support=5, query=5)
LEARNER = Architecture((1, 3, 1)).learner()


class Watch:
    def __init__(self, asks):
        self.gradient_norm, self.steps = asks, []

    def __call__(self, event):
        if event.kind == "step":
            self.steps.append(dict(event.values))


def settings_with(clip=None, scope="all", engine="eager", tasks=12):
    return Settings(
        tasks=tasks, meta_batch=2, steps=2, outer_lr=0.05, outer_clip=clip, outer_clip_scope=scope,
        validation_interval=100, validation_tasks=2, engine=engine,
    )  # fmt: skip


def watched(settings, *asks):
    rule = make_rule("gradient-descent", LEARNER.layout, inner_lr=0.1, learn_lr="scalar").double()
    watchers = [Watch(one) for one in asks]
    trained = meta_train(
        rule, LEARNER, FAMILY, settings, generator=seeded_generator("weights", 0), observers=watchers
    )
    return trained, watchers


def norms_by_hand(settings):
    """Two inner steps and Adam, written out."""
    theta = LEARNER.initial(seeded_generator("weights", 0)).requires_grad_()
    rate = torch.tensor(0.1).double().requires_grad_()  # as the rule has it
    adam = torch.optim.Adam([theta, rate], lr=settings.outer_lr)
    stream = TaskStream(FAMILY, "train", settings.task_seed, LEARNER.device, LEARNER.dtype)
    norms = []
    for position in range(0, settings.tasks, settings.meta_batch):
        losses = []
        for task in (stream.take(position + k, 1)[0] for k in range(settings.meta_batch)):
            adapted = theta
            for _ in range(settings.steps):
                (grad,) = torch.autograd.grad(LEARNER.loss(adapted, task.support), adapted, create_graph=True)
                adapted = adapted - rate * grad
            losses.append(LEARNER.loss(adapted, task.query))
        adam.zero_grad()
        torch.stack(losses).mean().backward()
        clipped = [theta, rate] if settings.outer_clip_scope == "all" else [theta]
        if settings.outer_clip and settings.outer_clip.by == "value":
            torch.nn.utils.clip_grad_value_(clipped, settings.outer_clip.limit)
        elif settings.outer_clip:
            torch.nn.utils.clip_grad_norm_(clipped, settings.outer_clip.limit)
        norms.append(float(torch.cat([theta.grad, rate.grad.reshape(1)]).norm()))
        adam.step()
    return norms


@pytest.mark.parametrize(
    ("clip", "scope"),
    [
        (None, "all"),
        (Clipping("value", 0.3), "all"),
        (Clipping("norm", 0.5), "all"),
        (Clipping("norm", 0.5), "initialisation"),
    ],
)
def test_it_is_that_of_the_gradient_that_adam_takes(clip, scope):
    settings = settings_with(clip, scope)
    _, (watch,) = watched(settings, True)
    assert [step["gradient_norm"] for step in watch.steps] == pytest.approx(norms_by_hand(settings), rel=1e-9)


def test_a_compiled_training_tells_it_too_and_has_the_bits_that_it_has_unwatched(monkeypatch):
    monkeypatch.setattr(pace, "CALL_SECONDS", 1e9)
    settings = settings_with(Clipping("norm", 0.5), engine="compiled", tasks=40)
    asked, (watch, beside) = watched(settings, True, False)
    assert [step["gradient_norm"] for step in watch.steps] == pytest.approx(norms_by_hand(settings), rel=1e-6)
    assert beside.steps == watch.steps
    in_calls, take = [], calls.take_steps
    monkeypatch.setattr(calls, "take_steps", lambda *given: in_calls.append(given) or take(*given))
    plain, (silent,) = watched(settings, False)
    assert in_calls, "steps go on in one call where nobody asks"
    assert {*silent.steps[0]} == {"loss"}
    assert torch.equal(plain.theta, asked.theta)
