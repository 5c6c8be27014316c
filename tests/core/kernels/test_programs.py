"""Compiled meta-steps: equal to eager ones for every rule, chosen as the settings say, never a surprise."""

import functools

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_loop import FACTORIES

from metalearn_core import (
    Clipping,
    Settings,
    UpdateRule,
    UsageError,
    make_rule,
    meta_gradient,
    meta_train,
    task_families,
)
from metalearn_core.evaluation import scores
from metalearn_core.kernels import engine as engine_module
from metalearn_core.kernels import operators, programs, sources
from metalearn_core.kernels.engine import Engine
from metalearn_core.kernels.programs import CompilationError, CompiledMetaGradient, traced
from metalearn_core.kernels.scores import CompiledScores
from metalearn_core.settings import LONG_RUN
from metalearn_core.testing import Architecture, Problem
from metalearn_core.testing.strategies import inner_steps, problems


def flat(answer):
    loss, grad, phi = answer
    return [loss, grad, *phi.values()]


def furthest(ours, theirs):
    """The largest difference, as a part of the largest element of each tensor."""
    return max(
        float((a - b).abs().max() / (1e-300 + b.abs().max()))
        for a, b in zip(ours, theirs, strict=True)
        if b.numel() and b.abs().max() > 0
    )


def arguments_of(rule, problem):
    return [problem.theta, *(p.detach() for p in rule.parameters()), *problem.task.tensors]


def test_a_single_task_is_a_meta_batch_of_one():
    problem = Problem(Architecture((1, 3, 1)), tasks=1, steps=2, seed=3)
    rule = FACTORIES["feed-forward-default"](problem.learner.layout).double()
    step = CompiledMetaGradient(rule, problem.learner, steps=2)
    step._programs = lambda name, function, arguments: function(*arguments)  # as it is traced
    ours = flat(step(problem.theta, problem.task[0]))
    theirs = flat(meta_gradient(rule, problem.learner, problem.theta, problem.task[0], steps=2))
    assert furthest(ours, theirs) < 1e-12


WRONG = {"order": "frist", "truncate": 0, "outer_decay": 2}


@pytest.mark.parametrize(
    "how",
    [{"steps": -1}, *({"steps": 20, key: value} for key, value in WRONG.items())],
)
def test_an_unroll_that_there_is_not_is_refused_at_once(how):
    learner = Architecture((1, 3, 1)).learner()
    rule = make_rule("gradient-descent", learner.layout)
    with pytest.raises(UsageError, match=next(reversed(how))):
        CompiledMetaGradient(rule, learner, **how)


def test_step_by_step_a_start_of_each_task_is_refused():
    problem = Problem(Architecture((1, 3, 1)), tasks=2, steps=1, seed=3)
    rule = FACTORIES["gradient-descent-fixed"](problem.learner.layout).double()
    with pytest.raises(UsageError, match=r"theta must be \[10\] .*got \[2, 10\]"):
        CompiledMetaGradient(rule, problem.learner, steps=17)(problem.theta.expand(2, -1), problem.task)


@settings(max_examples=30)
@given(
    name=st.sampled_from(sorted(FACTORIES)),
    order=st.sampled_from(["first", "second"]),
    problem=problems(steps=inner_steps(2)),
    clip=st.sampled_from([None, Clipping("value", 0.1), Clipping("norm", 0.1)]),
)
def test_the_traced_program_is_the_eager_step(name, order, problem, clip):
    """For other values than it was traced with: nothing of them is in it."""
    rule = FACTORIES[name](problem.learner.layout).double()
    step = CompiledMetaGradient(rule, problem.learner, steps=problem.steps, order=order, clip=clip)
    arguments = arguments_of(rule, problem)
    program = traced(functools.partial(step._traced, problem.task), arguments)
    other = attrs.evolve(problem, seed=problem.seed + 17)
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter.mul_(1.1)
        ours = program(*arguments_of(rule, other))
    theirs = flat(
        meta_gradient(
            rule, other.learner, other.theta, other.task, steps=problem.steps, order=order, clip=clip
        )
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


FIXED = {
    "maml": ("gradient-descent-fixed", "second"),
    "fo-maml": ("gradient-descent-fixed", "first"),
    "adam": ("gradient-descent-adam", "second"),
    "lstm": ("lstm-program", "second"),
    "turtle": ("feed-forward-program", "second"),
    "turtle, first order": ("feed-forward-program", "first"),
}
PROBLEM = Problem(Architecture((1, 8, 1)), tasks=3, steps=2, seed=1)


@pytest.mark.parametrize("row", FIXED)
def test_the_compiled_program_is_the_eager_step(row):
    """In float64 to 1e-10; `feed-forward-program` reads the step, and every t is right."""
    name, order = FIXED[row]
    torch.manual_seed(0)
    rule = FACTORIES[name](PROBLEM.learner.layout).double()
    step = CompiledMetaGradient(rule, PROBLEM.learner, steps=2, order=order)
    for seed in (1, 2):
        problem = attrs.evolve(PROBLEM, seed=seed)
        theirs = meta_gradient(rule, problem.learner, problem.theta, problem.task, steps=2, order=order)
        ours = step(problem.theta, problem.task)
        assert list(ours[2]) == list(theirs[2])
        assert furthest(flat(ours), flat(theirs)) < 1e-10
        with torch.no_grad():
            for parameter in rule.parameters():
                parameter.mul_(0.9)
    assert len(step._programs) == 1


@pytest.mark.parametrize("name", ["gradient-descent-fixed", "feed-forward-default"])
def test_in_float32_it_errs_as_eager_code_does(name):
    torch.manual_seed(0)
    exact_rule = FACTORIES[name](PROBLEM.learner.layout).double()
    exact = flat(meta_gradient(exact_rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, steps=2))
    learner = PROBLEM.learner.to("cpu", torch.float32)
    rule, theta, task = exact_rule.float(), PROBLEM.theta.float(), PROBLEM.task.to("cpu", torch.float32)
    eager = [x.double() for x in flat(meta_gradient(rule, learner, theta, task, steps=2))]
    ours = [x.double() for x in flat(CompiledMetaGradient(rule, learner, steps=2)(theta, task))]
    # an error of eager code may by luck be less than one rounding
    assert furthest(ours, exact) <= 4 * max(furthest(eager, exact), 1e-7)


class Peeks(UpdateRule):
    """Asks for a tensor's value, which no program of shapes has."""

    def __init__(self, layout):
        super().__init__()
        self.inner_lr = torch.nn.Parameter(torch.tensor(0.1))

    elementwise = True

    def update(self, theta, signal, state):
        scale = 1.0 if float(signal.grad.detach().sum()) > 1e9 else self.inner_lr
        return theta - scale * signal.grad, state


FAMILY = task_families()["sine"](support=5, query=5)
SMALL = Settings(tasks=6, meta_batch=2, steps=1, validation_interval=6, validation_tasks=2, engine="compiled")


def small_learner():
    return Architecture((1, 3, 1)).learner()


def trained_with(rule, told=None, **changes):
    observers = [] if told is None else [told.append]
    return meta_train(
        rule, small_learner(), FAMILY, attrs.evolve(SMALL, **changes),
        generator=torch.Generator().manual_seed(0), observers=observers,
    )  # fmt: skip


def test_a_rule_that_cannot_be_compiled_runs_eager_and_says_so():
    layout, told = small_learner().layout, []
    ours = trained_with(Peeks(layout), told)
    theirs = trained_with(Peeks(layout), engine="eager")
    assert torch.equal(ours.theta, theirs.theta)
    assert (ours.engine, theirs.engine) == ("eager", "eager")
    (event,) = [event for event in told if event.kind == "engine"]
    assert event.values["engine"] == "eager"
    assert str(event.values["note"]).startswith("rule Peeks (test_programs) cannot be compiled")
    assert "\n" not in str(event.values["note"])


def test_a_mistake_in_a_rule_is_told_in_its_own_words():
    class Mistaken(Peeks):
        def update(self, theta, signal, state):
            return theta - signal.loss, state

    with pytest.raises(UsageError, match="without having declared it"):
        trained_with(Mistaken(small_learner().layout))


def test_without_a_compiler_everything_runs_eager(monkeypatch):
    monkeypatch.setattr(engine_module.shutil, "which", lambda name: None)
    told = []
    trained = trained_with(make_rule("gradient-descent", small_learner().layout), told)
    assert trained.engine == "eager"
    (event,) = [event for event in told if event.kind == "engine"]
    assert event.values["note"] == "runs eager: no C++ compiler is installed"


@pytest.mark.parametrize("rule", ["gradient-descent", "feed-forward", "lstm"])
def test_with_a_compiler_that_fails_everything_runs_eager(rule, monkeypatch):
    def broken(*_arguments, **_options):
        raise RuntimeError("fatal error: 'omp.h' file not found")

    monkeypatch.setattr(torch._inductor, "compile", broken)
    monkeypatch.setattr(sources, "loaded", broken)
    told = []
    ours = trained_with(make_rule(rule, small_learner().layout), told)
    assert ours.engine == "eager"
    (event,) = [event for event in told if event.kind == "engine"]
    assert "cannot be compiled and runs eager: RuntimeError: fatal error: 'omp.h'" in event.values["note"]


def test_long_runs_are_compiled_and_short_ones_not():
    member = trained_with(make_rule("gradient-descent", small_learner().layout), tasks=0)
    automatic = attrs.evolve(SMALL, engine="auto")

    def chosen(settings, *before):
        return Engine([member], small_learner(), settings, *before).name

    assert chosen(automatic) == "eager"
    assert chosen(attrs.evolve(automatic, tasks=2 * LONG_RUN)) == "compiled"
    assert chosen(SMALL) == "compiled"
    assert chosen(SMALL, "eager") == "eager"


def test_a_whole_run_is_that_of_eager_code_in_float64():
    """The last meta-batch, which is smaller, included."""
    rule = make_rule("gradient-descent", small_learner().layout, learn_lr="parameter")
    ours, theirs = (trained_with(rule, tasks=7, engine=engine) for engine in ("compiled", "eager"))
    assert (ours.engine, theirs.engine) == ("compiled", "eager")
    torch.testing.assert_close(ours.theta, theirs.theta, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours.rule.inner_lr, theirs.rule.inner_lr, rtol=1e-10, atol=1e-12)
    scores = [[score for _, score in trained.validations] for trained in (ours, theirs)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-9)


def test_a_compiled_run_goes_on_with_the_same_bits(tmp_path):
    rule = make_rule("gradient-descent", small_learner().layout, learn_lr="scalar")

    class Stop(KeyboardInterrupt):
        pass

    def stop(event):
        if event.kind == "step" and event.position == 4:
            raise Stop

    def run(*observers, checkpoint=None):
        return meta_train(
            rule, small_learner(), FAMILY, attrs.evolve(SMALL, tasks=8),
            generator=torch.Generator().manual_seed(0), checkpoint=checkpoint, observers=observers,
        )  # fmt: skip

    whole = run()
    with pytest.raises(Stop):
        run(stop, checkpoint=tmp_path / "c.pt")
    again = run(checkpoint=tmp_path / "c.pt")
    assert again.engine == "compiled"
    assert torch.equal(again.theta, whole.theta)
    assert torch.equal(again.rule.inner_lr, whole.rule.inner_lr)


def test_an_error_says_what_and_why_in_one_line():
    rule = Peeks(PROBLEM.learner.layout).double()
    with pytest.raises(CompilationError) as error:
        CompiledMetaGradient(rule, PROBLEM.learner, steps=1)(PROBLEM.theta, PROBLEM.task)
    assert "\n" not in str(error.value)
    # and the rule has its own parameters back
    assert isinstance(rule.inner_lr, torch.nn.Parameter)


@pytest.mark.parametrize("name", ["gradient-descent-adam", "feed-forward-default", "lstm-program"])
def test_compiled_scores_are_those_of_eager_code(name):
    """After every step, for other parameters and tasks than they were compiled with; Adam reads the step."""
    settings = Settings(steps=1, test_steps=3, inner_clip=Clipping("norm", 0.5))
    rule = FACTORIES[name](PROBLEM.learner.layout).double()
    compiled = CompiledScores(PROBLEM.learner, settings)
    if rule.uses_step:
        with pytest.raises(CompilationError, match="reads the step"):
            compiled(rule, PROBLEM.theta, PROBLEM.task)
        return
    for seed in (1, 2):
        problem = attrs.evolve(PROBLEM, seed=seed)
        ours = compiled(rule, problem.theta, problem.task)
        theirs = scores(rule, problem.learner, problem.theta, problem.task, settings)
        assert ours.shape == (3, 4)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        with torch.no_grad():
            for parameter in rule.parameters():
                parameter.mul_(0.9)
    assert len(compiled._programs) == 3


def test_validation_is_compiled_with_the_rest(monkeypatch):
    """And what cannot be is left to eager code, with the same scores."""
    calls = []
    real = CompiledScores.__call__

    def watched(self, *arguments):
        calls.append(1)
        return real(self, *arguments)

    monkeypatch.setattr(CompiledScores, "__call__", watched)
    rules = [
        make_rule("gradient-descent", small_learner().layout, optimizer=name) for name in ("sgd", "adam")
    ]
    for rule, times in zip(rules, (2, 1), strict=True):
        calls.clear()
        ours = trained_with(rule)
        theirs = trained_with(rule, engine="eager")
        assert len(calls) == times
        found = [[score for _, score in trained.validations] for trained in (ours, theirs)]
        assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_a_program_is_found_again_on_disk():
    from torch._dynamo.utils import counters

    rule = FACTORIES["gradient-descent-fixed"](PROBLEM.learner.layout).double()
    for _ in range(2):
        counters.clear()
        CompiledMetaGradient(rule, PROBLEM.learner, steps=1)(PROBLEM.theta, PROBLEM.task)
    assert counters["aot_autograd"]["autograd_cache_hit"] + counters["inductor"]["fxgraph_cache_hit"] >= 1


def refuse_compiler(patch):
    patch.setattr(engine_module.shutil, "which", lambda name: None)


def refuse_programs(patch):
    def broken(*_arguments, **_options):
        raise CompilationError("not here")

    patch.setattr(programs, "compiled", broken)


@pytest.mark.parametrize("refuse", [refuse_compiler, refuse_programs])
def test_a_training_that_was_begun_compiled_never_goes_on_eager(tmp_path, monkeypatch, refuse):
    """Rounding differs between engines, and after some hundred steps so do all digits."""

    def stop(event):
        if event.kind == "step" and event.position == 2:
            raise KeyboardInterrupt

    def go_on(*observers):
        rule = make_rule("gradient-descent", small_learner().layout)
        return meta_train(
            rule, small_learner(), FAMILY, SMALL, generator=torch.Generator().manual_seed(0),
            checkpoint=tmp_path / "checkpoint.pt", observers=observers,
        )  # fmt: skip

    monkeypatch.setattr(programs, "compiled", lambda function, arguments, **_: function)  # in no time
    with pytest.raises(KeyboardInterrupt):
        go_on(stop)
    held = torch.load(tmp_path / "checkpoint.pt")
    assert (held["engine"], held["now"]["position"]) == ("compiled", 2)
    with monkeypatch.context() as patch:
        refuse(patch)
        with pytest.raises(UsageError, match="begun compiled and cannot go on so here"):
            go_on()
    assert torch.load(tmp_path / "checkpoint.pt")["now"]["position"] == 2
    assert (go_on().engine, go_on().position) == ("compiled", 6)
    refuse_compiler(monkeypatch)
    assert go_on().position == 6  # nothing is left to train


@pytest.mark.parametrize(
    "name", ["feed-forward-default", pytest.param("lstm-program", marks=pytest.mark.nightly)]
)
def test_a_program_that_calls_networks_itself_is_the_eager_step(name):
    """One task: its rows are long enough to be taken as they lie."""
    problem = Problem(Architecture((1, 6, 1)), tasks=1, steps=2, seed=1)
    torch.manual_seed(0)
    rule = FACTORIES[name](problem.learner.layout).double()
    step = CompiledMetaGradient(rule, problem.learner, steps=2)
    assert (
        len(
            operators.shims(
                traced(functools.partial(step._traced, problem.task), arguments_of(rule, problem)).graph
            )
        )
        > 1
    )
    theirs = meta_gradient(rule, problem.learner, problem.theta, problem.task, steps=2)
    assert furthest(flat(step(problem.theta, problem.task)), flat(theirs)) < 1e-10
