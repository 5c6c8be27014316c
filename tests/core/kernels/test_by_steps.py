"""Long unrolls by recomputation: the gradients of the unroll, in little memory, one step compiled for all."""

from __future__ import annotations

import weakref

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_loop import FACTORIES, Remembers, Tied

from metalearn_core import (
    Clipping,
    CompiledMetaGradient,
    Settings,
    UsageError,
    make_rule,
    meta_gradient,
    meta_train,
    task_families,
)
from metalearn_core.kernels.by_steps import UNROLLED, BySteps, run_eagerly
from metalearn_core.testing import Architecture, Problem
from metalearn_core.testing.strategies import inner_steps, problems
from metalearn_core.training.meta_gradient import meta_gradients

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


RULES = {**FACTORIES, "remembers": Remembers, "tied": Tied}


def same(ours, theirs):
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
    assert list(ours[2]) == list(theirs[2])
    for name, grad in theirs[2].items():
        torch.testing.assert_close(ours[2][name], grad, **CLOSE)


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(RULES)),
    order=st.sampled_from(["first", "second"]),
    problem=problems(steps=inner_steps(5)),
    clip=st.sampled_from([None, Clipping("value", 0.1), Clipping("norm", 0.1)]),
    every=st.sampled_from([None, 1, 2, 3, 7]),
)
def test_its_gradients_are_those_of_the_unroll(name, order, problem, clip, every):
    rule = RULES[name](problem.learner.layout).double()
    theirs = meta_gradient(
        rule, problem.learner, problem.theta, problem.task, steps=problem.steps, order=order, clip=clip
    )
    by_steps = BySteps(rule, problem.learner, problem.steps, order, clip, checkpoint_every=every)
    task = problem.task
    same(by_steps(problem.theta, dict(rule.named_parameters()), task), theirs)


PROBLEM = Problem(Architecture((1, 6, 1)), tasks=3, steps=4, seed=1)


@settings(max_examples=15)
@given(order=st.sampled_from(["first", "second"]), problem=problems(steps=inner_steps(4)))
def test_a_weight_in_two_places_is_one(order, problem):
    rule, how = Tied(problem.learner.layout).double(), {"steps": problem.steps, "order": order}
    theirs = meta_gradient(rule, problem.learner, problem.theta, problem.task, **how)
    same(
        BySteps(rule, problem.learner, **how)(problem.theta, dict(rule.named_parameters()), problem.task),
        theirs,
    )
    arguments = [problem.theta, *rule.parameters(), *problem.task.tensors]
    loss, *grads = CompiledMetaGradient(rule, problem.learner, **how)._traced(problem.task, *arguments)
    same((loss, grads[0], dict(zip(theirs[2], grads[1:], strict=True))), theirs)


@pytest.mark.parametrize(
    "name", ["gradient-descent-adam", "feed-forward-program", "lstm-program", "remembers", "tied"]
)
def test_of_several_seeds_too(name):
    rule, learner = RULES[name](PROBLEM.learner.layout).double(), PROBLEM.learner
    theta = torch.stack([PROBLEM.theta, PROBLEM.theta * 0.9])
    phi = {key: torch.stack([p.detach(), p.detach() * 1.1]) for key, p in rule.named_parameters()}
    theirs = meta_gradients(rule, learner, theta, phi, PROBLEM.task, steps=4)
    same(
        BySteps(rule, learner, 4, "second", seeds=True, checkpoint_every=3)(theta, phi, PROBLEM.task), theirs
    )


def test_what_is_not_learned_has_gradients_of_zeros():
    rule = RULES["lstm-program"](PROBLEM.learner.layout).double()
    rule.forget_gate.bias.requires_grad_(False)
    phi = dict(rule.named_parameters())
    _, _, grads = BySteps(rule, PROBLEM.learner, 2, "second")(PROBLEM.theta, phi, PROBLEM.task)
    assert {name for name, grad in grads.items() if not grad.any()} == {"forget_gate.bias"}


@pytest.mark.parametrize(
    ("steps", "every", "most"), [(20, 1, 20), (20, 5, 9), (20, 7, 10), (20, None, 20), (99, None, 51)]
)
def test_as_much_of_the_path_is_kept_as_was_said(steps, every, most):
    """θ at most at so many steps at once, besides the one in hand."""
    alive, peak = [], []

    def run(key, function, arguments):
        answers = run_eagerly(key, function, arguments)
        if key == "step":
            alive[:] = [r for r in alive if r() is not None] + [weakref.ref(answers[0])]
            peak.append(len(alive))
        return answers

    rule = RULES["gradient-descent-fixed"](PROBLEM.learner.layout).double()
    by_steps = BySteps(rule, PROBLEM.learner, steps, "second", checkpoint_every=every, run=run)
    by_steps(PROBLEM.theta, dict(rule.named_parameters()), PROBLEM.task)
    assert most - 2 <= max(peak) <= most + 1


IN_CI = ("feed-forward-default", "lstm-equation")


@pytest.mark.parametrize(
    "name",
    [name if name in IN_CI else pytest.param(name, marks=pytest.mark.nightly) for name in sorted(RULES)],
)
def test_compiled_it_is_one_step_for_all(name):
    """More steps need no more programs, and the gradient is that of the unroll."""
    rule = RULES[name](PROBLEM.learner.layout).double()
    if rule.uses_step:
        pytest.skip("a rule that reads the step is not compiled for so many")
    phi = dict(rule.named_parameters())
    step = CompiledMetaGradient(rule, PROBLEM.learner, steps=UNROLLED + 4)
    ours = step(PROBLEM.theta, PROBLEM.task)
    theirs = meta_gradient(rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, steps=UNROLLED + 4)
    same((ours[0], ours[1], {key: ours[2][key] for key in phi}), theirs)
    assert len(step._programs) == 5


def test_a_long_run_takes_it_by_itself(tmp_path):
    """Eager, T = 18 in a whole run; the same as the unroll, forced by no setting."""
    learner, family = Architecture((1, 3, 1)).learner(), task_families()["sine"](support=5, query=5)
    rule = make_rule("gradient-descent", learner.layout, learn_lr="scalar", inner_lr=0.001)
    base = Settings(
        tasks=4, meta_batch=2, steps=18, validation_interval=9, validation_tasks=1, engine="eager"
    )
    ends = []
    for changes in ({}, {"checkpoint_every": 4}):
        trained = meta_train(
            rule, learner, family, attrs.evolve(base, **changes), generator=torch.Generator().manual_seed(0)
        )
        ends.append(trained.theta.detach())
    torch.testing.assert_close(*ends, **CLOSE)


def test_a_rule_that_reads_the_step_is_not_compiled_for_so_many():
    learner, family, told = Architecture((1, 3, 1)).learner(), task_families()["sine"](support=5, query=5), []
    rule = make_rule("feed-forward", learner.layout, hidden=[2], inputs=["grad", "step"])
    settings = Settings(
        tasks=2, meta_batch=1, steps=17, validation_interval=9, validation_tasks=1, engine="compiled"
    )
    trained = meta_train(
        rule, learner, family, settings, generator=torch.Generator().manual_seed(0), observers=[told.append]
    )
    assert trained.engine == "eager"
    (event,) = [event for event in told if event.kind == "engine"]
    assert "reads the step" in str(event.values["note"])


def test_a_senseless_interval_is_refused():
    with pytest.raises(UsageError, match="checkpoint_every must be an integer >= 1, got 0"):
        Settings(checkpoint_every=0)
