"""Meta-training against a plain loop; validation, the best state, resumption, divergence, observers."""

from __future__ import annotations

import functools
import io
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import types
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from metalearn_core import (
    BaseLearner,
    Clipping,
    Event,
    Settings,
    Task,
    Trained,
    UpdateRule,
    UsageError,
    evaluate,
    forked_rng,
    make_rule,
    meta_test,
    meta_train,
    seeded_generator,
)

# several of these trainings diverge on purpose
pytestmark = pytest.mark.filterwarnings("ignore::metalearn_core.errors.TrainingWarning")

HELPERS = Path(__file__).parents[1] / "helpers"

torch.set_num_threads(1)
F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@attrs.frozen
class Waves:
    """y = b + sin ax; a support set of 3, a query set of 4. Task `bad` of split train has huge targets."""

    bad: int | None = None
    where: str = "support"
    splits = ("train", "validation", "test")
    asked: list[tuple[str, int]] = attrs.field(factory=list)

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        self.asked.append((split, count))
        a, b = torch.randn(2, count, 1, 1, generator=generator)
        x = 4 * torch.rand(count, 7, 1, generator=generator) - 2
        y = b + torch.sin(a * x)
        if split == "train" and self.bad is not None:
            columns = slice(0, 3) if self.where == "support" else slice(3, 7)
            y[self.bad, columns] = 1e30 if self.where == "query" else 1e10
        return Task.of([x[:, :3], y[:, :3], x[:, 3:], y[:, 3:]], stacked=True)


def learner_of(score=None, dtype: torch.dtype = torch.float32) -> BaseLearner:
    module = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    return BaseLearner(module, mse_loss, score).to("cpu", dtype)


SMALL = {
    **{"tasks": 7, "meta_batch": 2, "steps": 2, "outer_lr": 0.01, "validation_interval": 3},
    **{"validation_tasks": 3, "checkpoint_seconds": 1e9},
}
RULES = {
    "gradient-descent": {"inner_lr": 0.05, "learn_lr": "parameter"},
    "lstm": {"hidden": 3, "preprocess": "log"},
    "feed-forward": {"hidden": [4], "inputs": ["grad", "loss", "step"], "history": "grad"},
}


def rule_of(name: str = "gradient-descent", learner: BaseLearner | None = None, **options) -> UpdateRule:
    layout = (learner or learner_of()).layout
    with forked_rng(seeded(99)):
        return make_rule(name, layout, **(RULES.get(name, {}) | options))


def train(
    rule: UpdateRule | str = "gradient-descent", learner: BaseLearner | None = None, *,
    family: object = None, seed: int = 0, checkpoint: Path | None = None, observers=(), **settings,
) -> Trained:  # fmt: skip
    return meta_train(
        rule_of(rule) if isinstance(rule, str) else rule, learner or learner_of(), family or Waves(),
        Settings(**SMALL | settings), generator=seeded(seed), checkpoint=checkpoint, observers=observers,
    )  # fmt: skip


def state(trained: Trained) -> dict:
    """Everything that two runs may differ in."""
    return {
        "theta": trained.theta.detach(),
        "phi": dict(trained.rule.state_dict()),
        "optimizer": trained.optimizer.state_dict(),
        "generator": trained.generator.get_state(),
        "best": attrs.asdict(trained.best, recurse=False),
        "position": trained.position,
        "validations": trained.validations,
        "diverged": trained.diverged,
        "scores": meta_test(trained, Waves(), tasks=5),
    }


def differing(a: object, b: object, path: str = "") -> list[str]:
    """Where two states differ, by any bit; NaN is the same as NaN."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        keys = [] if set(a) == set(b) else [f"{path}: {sorted(map(str, set(a) ^ set(b)))}"]
        return keys + [d for key in set(a) & set(b) for d in differing(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        short = [] if len(a) == len(b) else [f"{path}: {len(a)} and {len(b)}"]
        pairs = enumerate(zip(a, b, strict=False))
        return short + [d for i, (x, y) in pairs for d in differing(x, y, f"{path}[{i}]")]
    if isinstance(a, torch.Tensor):
        same = a.dtype == b.dtype and torch.equal(a.nan_to_num(1e33), b.nan_to_num(1e33))
        return [] if same else [path]
    return [] if a == b or (a != a and b != b) else [f"{path}: {a!r} and {b!r}"]


def test_differing_sees_a_bit():
    one, other = (state(train(outer_lr=lr)) for lr in (0.01, 0.01 * (1 + 1e-6)))
    assert differing(one, one) == []
    assert {".theta", ".phi.inner_lr", ".best.theta", ".scores"} <= set(differing(one, other))


# --- against a plain loop


def plain_loss(theta: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    w1, b1, w2, b2 = theta[0:4].reshape(4, 1), theta[4:8], theta[8:12].reshape(1, 4), theta[12:13]
    return ((torch.tanh(x @ w1.T + b1) @ w2.T + b2 - y) ** 2).mean()


def plain_clip(clip: Clipping | None, grads: list[torch.Tensor]) -> list[torch.Tensor]:
    if clip is None:
        return grads
    if clip.by == "value":
        return [g.clamp(-clip.limit, clip.limit) for g in grads]
    norm = torch.cat([g.flatten() for g in grads]).norm()
    return [g * (clip.limit / (norm + 1e-6)).clamp(max=1.0) for g in grads]


def plain_adapt(theta, alpha, task: Task, settings: Settings, steps: int) -> list[torch.Tensor]:
    path = [theta]
    for _ in range(steps):
        now = path[-1]
        loss = plain_loss(now, task.support.inputs, task.support.targets)
        (grad,) = torch.autograd.grad(loss, now, create_graph=True)
        grad = grad.detach() if settings.order == "first" else grad
        path.append(now - alpha * plain_clip(settings.inner_clip, [grad])[0])
    return path


def plain_tasks(split: str, total: int) -> list[Task]:
    block = Waves().sample(split, 100, seeded_generator(0, split, 0)).to("cpu", F64)
    return [block[i] for i in range(total)]


def plain_train(theta: torch.Tensor, alpha: torch.Tensor, settings: Settings) -> list[torch.Tensor]:
    """Algorithm 9 task by task, and Adam from its formula (Kingma and Ba, 2015, Algorithm 1)."""
    values, tasks = [theta.clone(), alpha.clone()], plain_tasks("train", settings.tasks)
    first, second = ([torch.zeros_like(v) for v in values] for _ in range(2))
    for k, start in enumerate(range(0, settings.tasks, settings.meta_batch), 1):
        values = [v.detach().requires_grad_() for v in values]
        losses = []
        for task in tasks[start : start + settings.meta_batch]:
            adapted = plain_adapt(*values, task, settings, settings.steps)[-1]
            losses.append(plain_loss(adapted, task.query.inputs, task.query.targets))
        total = sum(losses) / (len(losses) if settings.outer_loss == "mean" else 1)
        total = total + 0 * values[1].sum()  # α has no part in T = 0
        grads = list(torch.autograd.grad(total, values))
        clipped = 1 if settings.outer_clip_scope == "initialisation" else 2
        grads[:clipped] = plain_clip(settings.outer_clip, grads[:clipped])
        for i, g in enumerate(grads):
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g**2
            m, v = first[i] / (1 - 0.9**k), second[i] / (1 - 0.999**k)
            values[i] = values[i].detach() - settings.outer_lr * m / (v.sqrt() + 1e-8)
    return values


NORM, VALUE = Clipping("norm", 0.05), Clipping("value", 0.02)
PLAIN = {
    "one task": {"tasks": 20, "meta_batch": 1},
    "one task, first order": {"tasks": 20, "meta_batch": 1, "order": "first"},
    "three, the last alone": {},
    "first order": {"order": "first"},
    "sum": {"outer_loss": "sum"},
    "T = 0": {"steps": 0},
    "norm": {"outer_clip": NORM},
    "norm of θ": {"outer_clip": NORM, "outer_clip_scope": "initialisation"},
    "norm of θ, sum": {
        "outer_clip": NORM,
        "outer_clip_scope": "initialisation",
        "outer_loss": "sum",
    },
    "value": {"outer_clip": VALUE},
    "value of θ": {"outer_clip": VALUE, "outer_clip_scope": "initialisation"},
    "value, sum": {"outer_clip": VALUE, "outer_loss": "sum"},
    "inner norm": {"inner_clip": Clipping("norm", 0.5), "outer_loss": "sum", "outer_clip": NORM},
    "inner value": {"inner_clip": Clipping("value", 0.2)},
}
LONG = {**SMALL, "tasks": 58, "meta_batch": 3, "validation_interval": 1000, "validation_tasks": 1}


@pytest.mark.parametrize("case", PLAIN)
def test_meta_training_is_the_plain_loop(case):
    learner, settings = learner_of(dtype=F64), Settings(**LONG | PLAIN[case])
    rule = rule_of().double()
    trained = meta_train(rule, learner, Waves(), settings, generator=seeded(5))
    start, alpha = learner.initial(seeded(5)), rule.inner_lr.detach()
    theta, learned = plain_train(start, alpha, settings)
    assert (theta - start).abs().max() > 0.01
    torch.testing.assert_close(trained.theta.detach(), theta, rtol=0, atol=1e-9)
    torch.testing.assert_close(trained.rule.inner_lr.detach(), learned, rtol=0, atol=1e-9)
    if PLAIN[case]:  # the case is told apart from its neighbour
        neighbour, _ = plain_train(start, alpha, Settings(**LONG))
        assert (neighbour - theta).abs().max() > 1e-6
    assert trained.position == settings.tasks


def test_evaluation_is_the_plain_loop():
    learner, settings = learner_of(dtype=F64), Settings(**SMALL | {"test_steps": 4, "steps": 1})
    rule, theta = rule_of().double(), learner.initial(seeded(5))
    scores = evaluate(rule, learner, theta, Waves(), settings, split="test", tasks=6)
    expected = [
        [plain_loss(now, task.query.inputs, task.query.targets).detach() for now in path]
        for task in plain_tasks("test", 6)
        for path in [plain_adapt(theta.requires_grad_(), rule.inner_lr, task, settings, 4)]
    ]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=F64), rtol=0, atol=1e-12)


# --- validation and the best state


@pytest.mark.parametrize(
    ("tasks", "meta_batch", "interval", "expected"),
    [
        (7, 2, 3, [0, 4, 6, 7]),
        (6, 2, 3, [0, 4, 6]),
        (9, 3, 3, [0, 3, 6, 9]),
        (9, 4, 2, [0, 4, 8, 9]),
        (5, 1, 100, [0, 5]),
        (3, 8, 2, [0, 3]),
        (4, 1, 1, [0, 1, 2, 3, 4]),
    ],
)
def test_validation_is_at_0_at_each_multiple_passed_and_at_the_end(tasks, meta_batch, interval, expected):
    events: list[Event] = []
    trained = train(
        tasks=tasks, meta_batch=meta_batch, validation_interval=interval, observers=[events.append]
    )
    assert [position for position, _ in trained.validations] == expected
    told = [(event.position, event.values["score"]) for event in events if event.kind == "validation"]
    assert told == trained.validations


def test_validation_is_the_mean_score_after_T_steps_on_the_same_tasks():
    trained = train(test_steps=3, tasks=2, validation_tasks=5)
    first = train(tasks=0)
    for (_, score), (rule, theta) in zip(
        trained.validations, [(rule_of(), first.theta), (trained.rule, trained.theta)], strict=True
    ):
        settings = trained.settings
        scores = evaluate(rule, learner_of(), theta, Waves(), settings, split="validation", tasks=5)
        assert score == float(scores[:, 3].double().mean())


class Script:
    """A score that says at the i-th validation what the script says, and the observer that turns pages."""

    def __init__(self, *scores: float, higher_is_better: bool = False) -> None:
        self.scores, self.page, self.higher_is_better = [*scores, 0.0], 0, higher_is_better

    def __call__(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return 0 * prediction.sum() + self.scores[self.page]

    def turn(self, event: Event) -> None:
        self.page += event.kind == "validation"


NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "higher", "best"),
    [
        ([4, 3, 2, 1], False, 7),
        ([1, 2, 3, 4], False, 0),
        ([1, 3, 2, 1], True, 4),
        ([3, 1, 1, 2], False, 4),  # a tie keeps the earlier
        ([1, 3, 3, 3], True, 4),
        ([NAN, 5, NAN, 6], False, 4),
        ([NAN, 5, 6, NAN], True, 6),
        ([2, NAN, NAN, NAN], False, 0),
        ([math.inf, NAN, 7, 8], False, 6),
        ([-math.inf, -5, NAN, -9], True, 4),
    ],
)
def test_the_best_state_is_the_whole_state_at_the_best_validation(scores, higher, best):
    script = Script(*scores, higher_is_better=higher)
    trained = train(learner=learner_of(script), observers=[script.turn])
    assert [position for position, _ in trained.validations] == [0, 4, 6, 7]
    assert trained.best.position == best
    assert trained.best.score == scores[[0, 4, 6, 7].index(best)]
    stopped = train(tasks=best) if best else None
    if stopped is not None:
        theta, phi, adam = stopped.theta, stopped.rule.state_dict(), stopped.optimizer.state_dict()
        assert differing(dict(trained.best.optimizer), adam) == []
    else:
        theta, phi = learner_of().initial(seeded()), rule_of().state_dict()
        assert trained.best.optimizer["state"] == {}
    assert torch.equal(trained.best.theta, theta)
    assert differing(trained.best.phi, dict(phi)) == []
    assert not trained.best.theta.requires_grad
    rule, at = trained.at_best()
    assert differing(dict(rule.state_dict()), trained.best.phi) == []
    assert torch.equal(at, trained.best.theta)


def test_nothing_but_nan_leaves_the_start_as_best():
    script = Script(NAN, NAN, NAN, NAN)
    trained = train(learner=learner_of(script), observers=[script.turn])
    assert trained.best.position == 0
    assert math.isnan(trained.best.score)
    assert torch.equal(trained.best.theta, learner_of().initial(seeded()))


def test_at_best_hands_out_copies():
    trained = train()
    before = state(trained)
    rule, theta = trained.at_best()
    theta.zero_()
    for value in rule.state_dict().values():
        value.zero_()
    assert differing(state(trained), before) == []


def test_meta_test_uses_the_best_state_and_its_own_steps():
    script = Script(9, 1, 5, 7)  # best at 4, while the run goes on to 7
    learner = learner_of(script)
    trained = train(learner=learner, test_steps=3, observers=[script.turn])
    stopped = train(tasks=4, test_steps=3)
    trained.learner = stopped.learner = learner_of()
    stopped.best = stopped.snapshot(0.0)
    for steps, columns in ((None, 4), (5, 6), (0, 1)):
        scores = meta_test(trained, Waves(), tasks=5, steps=steps)
        assert scores.shape == (5, columns)
        assert scores.device.type == "cpu"
        assert torch.equal(scores, meta_test(stopped, Waves(), tasks=5, steps=steps))
    assert trained.settings.test_steps == 3
    assert torch.equal(meta_test(trained, Waves(), tasks=5), meta_test(trained, Waves(), tasks=9)[:5])
    validation = meta_test(trained, Waves(), tasks=5, split="validation")
    assert not torch.equal(validation, meta_test(trained, Waves(), tasks=5))


# --- what a run depends on


def test_what_is_passed_in_is_left_as_it_was():
    rule, learner, before = rule_of(), learner_of(), torch.get_rng_state()
    module = {k: v.clone() for k, v in learner.module.state_dict().items()}
    trained = train(rule, learner)
    assert torch.equal(torch.get_rng_state(), before)
    assert differing(dict(rule.state_dict()), dict(rule_of().state_dict())) == []
    assert differing(dict(learner.module.state_dict()), module) == []
    assert all(p.grad is None for p in (*rule.parameters(), *learner.module.parameters()))
    assert trained.rule is not rule
    assert not torch.equal(trained.rule.inner_lr, rule.inner_lr)


@pytest.mark.parametrize("rule", RULES)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(rule):
    one, again, other = (state(train(rule, seed=seed)) for seed in (1, 1, 2))
    assert differing(one, again) == []
    assert {".theta", ".scores"} <= set(differing(one, other))


@pytest.mark.parametrize("rule", RULES)
def test_zero_tasks_train_nothing(rule):
    trained = train(rule, tasks=0)
    assert torch.equal(trained.theta, learner_of().initial(seeded()))
    assert differing(dict(trained.rule.state_dict()), dict(rule_of(rule).state_dict())) == []
    assert (trained.position, trained.validations, trained.best.position) == (0, [], 0)
    assert meta_test(trained, Waves(), tasks=2).shape == (2, 3)


def test_tasks_depend_on_the_task_seed_alone():
    def given(split: str, **options) -> list:
        class Recorded(Waves):
            def sample(self, name, count, generator):
                task = super().sample(name, count, generator)
                kept.extend(task.tensors if name == split else [])
                return task

        kept: list[torch.Tensor] = []
        train(family=Recorded(), tasks=230, meta_batch=100, **options)
        return kept

    one = given("train")
    assert len(one) == 12
    assert differing(one, given("train", seed=3)) == []
    assert differing(one, given("train", rule="lstm", steps=1, outer_lr=1.0)) == []
    assert differing(one, given("train", task_seed=1)) == [f"[{i}]" for i in range(12)]
    assert differing(given("validation")[:4], given("validation", seed=3)[:4]) == []


def test_frozen_meta_parameters_and_buffers_stay():
    rule = rule_of("feed-forward")
    rule.network[0].weight.requires_grad_(False)
    trained = train(rule)
    assert torch.equal(trained.rule.network[0].weight, rule.network[0].weight)
    assert not torch.equal(trained.rule.network[2].weight, rule.network[2].weight)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (F64, 1e-12)])
@pytest.mark.parametrize("rule", RULES)
def test_the_evaluation_batch_is_for_speed_alone(rule, dtype, tolerance):
    learner, built = learner_of(dtype=dtype), rule_of(rule).to(dtype)
    theta = learner.initial(seeded())
    scores = [
        evaluate(built, learner, theta, Waves(), settings, split="test", tasks=9)
        for settings in (Settings(steps=3, evaluation_batch=size) for size in (100, 9, 4, 1))
    ]
    assert {score.dtype for score in scores} == {dtype}
    for other in scores[1:]:
        torch.testing.assert_close(other, scores[0], rtol=tolerance, atol=tolerance)


class Spy(UpdateRule):
    """Tells whether a graph is being built."""

    def __init__(self, layout=None) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.1))
        self.seen = []

    def update(self, theta, signal, state):
        after = theta - self.rate * signal.grad
        self.seen.append(torch.is_grad_enabled() or signal.grad.requires_grad or after.requires_grad)
        return after, state


def test_evaluation_builds_no_graph():
    rule, learner = Spy(), learner_of()
    theta = learner.initial(seeded()).requires_grad_()
    scores = evaluate(rule, learner, theta, Waves(), Settings(steps=2), split="test", tasks=3)
    assert rule.seen == [False, False]
    assert not scores.requires_grad
    assert theta.grad is None
    assert torch.is_grad_enabled()


# --- interruption and resumption


class Stop:
    """An observer that raises at the n-th event (of a kind)."""

    def __init__(self, at: int, error: type[BaseException] = KeyboardInterrupt, kind: str = "") -> None:
        self.at, self.error, self.kind, self.seen = at, error, kind, 0

    def __call__(self, event: Event) -> None:
        if self.kind in ("", event.kind):
            self.seen += 1
            if self.seen == self.at:
                raise self.error


class Crash(BaseException):
    """As a SIGKILL between two bytecodes: nobody catches it."""


@pytest.mark.parametrize(
    ("error", "seconds"),
    [  # it saves at the end, where it can; or it has saved before, whenever there was time
        (KeyboardInterrupt, 1e9), (Crash, 0),
        pytest.param(KeyboardInterrupt, 0, marks=pytest.mark.nightly),
        pytest.param(Crash, 1e9, marks=pytest.mark.nightly),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rule", RULES)
def test_a_run_cut_off_at_any_event_goes_on_to_the_same_bits(rule, error, seconds, tmp_path):
    events: list[Event] = []
    whole = state(train(rule, observers=[events.append]))
    assert len([event for event in events if event.kind == "step"]) == 4
    path, at = tmp_path / "run.pt", 0
    while True:
        path.unlink(missing_ok=True)
        stop, at = Stop(at + 1, error), at + 1
        try:
            train(rule, checkpoint=path, checkpoint_seconds=seconds, observers=[stop])
        except error:
            resumed = train(rule, checkpoint=path, checkpoint_seconds=seconds)
            assert differing(state(resumed), whole) == [], f"cut off at event {at}"
        else:
            break
    assert at > len(events)  # checkpoints are events too


@pytest.mark.parametrize("rule", RULES)
def test_a_run_cut_off_at_every_outer_step_loses_none(rule, tmp_path):
    path, steps = tmp_path / "run.pt", []
    for _ in range(5):
        note = lambda event: steps.append(event.position) if event.kind == "step" else None  # noqa: E731
        try:
            trained = train(rule, checkpoint=path, observers=[note, Stop(1, kind="step")])
        except KeyboardInterrupt:
            continue
    assert steps == [2, 4, 6, 7]  # none twice
    assert differing(state(trained), state(train(rule))) == []


def test_a_finished_run_is_read_and_not_run_again(tmp_path):
    path, events = tmp_path / "run.pt", []
    first = state(train(checkpoint=path))
    again = train(checkpoint=path, observers=[events.append], checkpoint_seconds=3)
    assert differing(state(again), first) == []
    assert {event.kind for event in events} == {"start", "checkpoint", "end"}
    assert os.listdir(tmp_path) == ["run.pt"]
    with refused("another run", "origin is"):
        train(checkpoint=path, seed=77)


def test_an_interrupt_without_a_checkpoint_ends_the_run():
    with pytest.raises(KeyboardInterrupt):
        train(observers=[Stop(3)])


SCRIPT = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
import torch
from test_outer_loop import state, train

def tell(event):
    print(event.kind, event.position, flush=True)

for _ in sys.stdin:  # a run for each line, in a process of its own that need not import again
    child = os.fork()
    if not child:
        print(os.getpid(), flush=True)
        trained = train(
            "feed-forward", tasks=90, validation_interval=25, checkpoint=Path(sys.argv[2]),
            checkpoint_seconds=0, observers=[tell],
        )
        torch.save(state(trained), sys.argv[3])
        os._exit(0)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


def test_a_run_killed_at_random_moments_goes_on_to_the_same_bits(tmp_path):
    checkpoint, result, chance = tmp_path / "run.pt", tmp_path / "result.pt", random.Random(7)
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        f"{HELPERS}:{Path(__file__).parent}",
        str(checkpoint),
        str(result),
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, **pipes) as runs:
        for kill in (True,) * 5 + (False,):
            runs.stdin.write("go\n")
            pid = int(runs.stdout.readline())
            if kill:
                for _ in range(chance.randint(3, 15)):
                    assert runs.stdout.readline()
                time.sleep(chance.random() * 0.02)
                os.kill(pid, signal.SIGKILL)
            while (line := runs.stdout.readline()) != "gone\n":
                assert line, "the run ended by itself"
            assert result.exists() is not kill
        runs.stdin.close()
    whole = train("feed-forward", tasks=90, validation_interval=25)
    assert differing(torch.load(result, weights_only=True), state(whole)) == []


# --- checkpoints that cannot be used


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("finished") / "run.pt"
    train(checkpoint=path)
    return path.read_bytes()


class Mischief:
    """Unpickling it makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def saved(payload: object) -> bytes:
    file = io.BytesIO()
    torch.save(payload, file)
    return file.getvalue()


FOREIGN = {
    "empty": lambda whole, marker: b"",
    "text": lambda whole, marker: b"position = 3\n",
    "noise": lambda whole, marker: random.Random(3).randbytes(5000),
    "zip": lambda whole, marker: b"PK\x03\x04" + b"\0" * 100,
    "cut to a byte": lambda whole, marker: whole[:1],
    "cut in half": lambda whole, marker: whole[: len(whole) // 2],
    "cut by a byte": lambda whole, marker: whole[:-1],
    "pickle": lambda whole, marker: pickle.dumps({"format": 1}, protocol=2),
    "pickle, protocol 4": lambda whole, marker: pickle.dumps({"format": 1}, protocol=4),
    "pickled code": lambda whole, marker: pickle.dumps(Mischief(marker), protocol=2),
    "saved code": lambda whole, marker: saved({"format": 1, "now": Mischief(marker)}),
    "weights": lambda whole, marker: saved(nn.Linear(1, 1).state_dict()),
    "a list": lambda whole, marker: saved([1, 2]),
    "newer": lambda whole, marker: saved({"format": 2}),
    "no contents": lambda whole, marker: saved({"format": 1}),
}


def refused(*parts: str):
    return pytest.raises(UsageError, match=r"\A[^\n]*" + r"[^\n]*".join(parts) + r"[^\n]*\Z")


@pytest.mark.parametrize("case", FOREIGN)
def test_a_file_that_is_no_checkpoint_is_refused_and_left(case, finished, tmp_path):
    path, marker = tmp_path / "run.pt", tmp_path / "marker"
    path.write_bytes(content := FOREIGN[case](finished, str(marker)))
    with refused("checkpoint", r"run\.pt", "move it away") as error:
        train(checkpoint=path)
    assert "weights_only" not in str(error.value)  # torch advises to trust the file
    assert "torch.load" not in str(error.value)
    assert not marker.exists()
    assert path.read_bytes() == content


def test_a_file_cut_anywhere_is_refused(finished, tmp_path):
    path, chance = tmp_path / "run.pt", random.Random(1)
    for length in sorted(chance.sample(range(len(finished)), 40)):
        path.write_bytes(finished[:length])
        with refused(r"run\.pt", "move it away"):
            train(checkpoint=path)


def test_a_file_that_is_damaged_is_refused_or_does_no_harm(finished, tmp_path):
    path, chance, whole = tmp_path / "run.pt", random.Random(2), state(train())
    wrong: list[str] = []
    for _ in range(60):
        damaged = bytearray(finished)
        at = chance.randrange(len(damaged))
        damaged[at : at + 8] = chance.randbytes(len(damaged[at : at + 8]))
        path.write_bytes(damaged)
        try:
            wrong += differing(state(train(checkpoint=path)), whole)
        except UsageError as error:
            wrong += [str(error)] if "\n" in str(error) else []
        except Exception as error:
            wrong.append(repr(error))
    assert wrong == []


def test_a_folder_is_no_checkpoint(tmp_path):
    with refused("checkpoint", "it is no regular file; move it away to start anew"):
        train(checkpoint=tmp_path)


class Namesake(UpdateRule):
    """Has the φ of another rule."""

    def __init__(self) -> None:
        super().__init__()
        self.inner_lr = nn.Parameter(torch.full((13,), 0.05))

    def update(self, theta, signal, state):
        return theta + self.inner_lr * signal.grad, state


def over(loss, bias: bool = False) -> BaseLearner:
    """The usual learner, with a buffer on request."""
    learner = learner_of()
    if bias:
        learner.module.register_buffer("bias", torch.ones(1))
    return BaseLearner(learner.module, loss)


WIDE = BaseLearner(nn.Linear(1, 1), mse_loss)


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (lambda: {"outer_lr": 0.02}, r"settings\.outer_lr is 0\.01 there and 0\.02 here"),
        (lambda: {"tasks": 8}, r"settings\.tasks is 7 there and 8 here"),
        (lambda: {"steps": 3}, r"settings\.steps"),
        (lambda: {"order": "first"}, r"settings\.order"),
        (lambda: {"inner_clip": NORM}, r"settings\.inner_clip is None"),
        (lambda: {"task_seed": 1}, r"settings\.task_seed"),
        (lambda: {"rule": "lstm"}, "rule|meta-parameters"),
        (lambda: {"rule": Namesake()}, r"rule is GradientDescent .* there and Namesake"),
        (lambda: {"rule": rule_of(learn_lr="scalar")}, "meta-parameters"),
        (lambda: {"rule": rule_of(learner=WIDE), "learner": WIDE}, "layout"),
        (lambda: {"rule": rule_of(optimizer="adamax")}, "options is .* there and .*adamax .*betas"),
        (lambda: {"rule": rule_of(momentum=0.5)}, "options is .* there and .*'momentum': 0.5"),
        (lambda: {"learner": over(mse_loss, bias=True)}, "what is frozen in the learner"),
        (
            lambda: {"learner": over(functools.partial(mse_loss, reduction="sum"))},
            "learner is .*mse_loss.*sum",
        ),
        (lambda: {"family": Waves(where="query")}, "tasks is Waves .*support.* there and Waves .*query"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_the_key_that_differs(other, key, finished, tmp_path):
    path = tmp_path / "run.pt"
    path.write_bytes(finished)
    with refused("checkpoint", "another run", key, "move it away"):
        train(**other(), checkpoint=path)
    assert path.read_bytes() == finished


def test_a_module_within_a_rule_is_part_of_what_it_is(tmp_path):
    train(rule_of("feed-forward", activation="tanh"), checkpoint=tmp_path / "run.pt")
    with refused("another run", "parts is .*Tanh.* there and .*Sigmoid"):
        train(rule_of("feed-forward", activation="sigmoid"), checkpoint=tmp_path / "run.pt")


def test_a_rule_with_options_of_every_kind_goes_on(tmp_path):
    """Sets have an order of their own in each process, objects an address, φ other values later on."""

    def rule() -> UpdateRule:
        made = rule_of()
        made.seen, made.act, made.about = {"b", "a"}, torch.tanh, types.SimpleNamespace(where=object())
        made.listed, made.table = [made.inner_lr], torch.arange(3)
        return made

    path = tmp_path / "run.pt"
    ours = train(rule(), checkpoint=path)
    assert differing(state(ours), state(train(rule(), checkpoint=path))) == []
    other = rule()
    other.table = torch.arange(1, 4)
    with refused("another run", "options is"):
        train(other, checkpoint=path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"settings": SMALL}, "meta_train: settings must be a Settings, got a dict"),
        ({"learner": nn.Linear(1, 1)}, "learner must be a BaseLearner, got a Linear"),
        ({"rule": None}, "rule must be a UpdateRule, got a NoneType"),
        ({"generator": 0}, "generator must be a Generator, got a int"),
        ({"family": SMALL}, "family must have splits and sample, got a dict"),
    ],
)
def test_an_argument_of_another_kind_is_refused_by_its_name(changed, said):
    given = {"rule": rule_of(), "learner": learner_of(), "family": Waves(), "settings": Settings(**SMALL)}
    with refused(said):
        meta_train(**{**given, "generator": seeded(), **changed})


def fail(*_args: object) -> None:
    raise OSError(28, "No space left on device")


def half_written(payload: object, file: io.BufferedWriter) -> None:
    file.write(b"half")
    fail()


@pytest.mark.parametrize(
    ("where", "name", "failing"), [(os, "replace", fail), (os, "fsync", fail), (torch, "save", half_written)]
)
def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(where, name, failing, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=path, observers=[Stop(2, kind="step")])
    old = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(where, name, failing)
        with refused(r"run\.pt", "cannot be written", "No space left"):
            train(checkpoint=path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["run.pt"]
    assert differing(state(train(checkpoint=path)), state(train())) == []


def test_a_checkpoint_in_no_folder_is_refused(tmp_path):
    with refused("checkpoint", "cannot be written"):
        train(checkpoint=tmp_path / "no" / "run.pt")


# --- divergence


class Cliff(UpdateRule):
    """Plain descent, but a gradient above 1e6 throws θ off at its second step."""

    uses_step = True

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.01))

    def update(self, theta, signal, state):
        kick = torch.relu(signal.grad.abs() - 1e6) * (1e38 if signal.step == 1 else 0.0)
        return theta - self.rate * signal.grad.clamp(-1, 1) + kick, state


class Edge(Spy):
    """Its loss is finite, its meta-gradient is not: √φ at φ = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.0))

    def update(self, theta, signal, state):
        return theta - self.rate.sqrt() * signal.grad, state


DIVERGING = {
    "inner": (Cliff, Waves(bad=5), 4, ["outer step 3", "training task 5", "inner step 2"]),
    "inner, the first of a meta-batch": (Cliff, Waves(bad=4), 4, ["outer step 3", "training task 4"]),
    "inner, at once": (Cliff, Waves(bad=1), 0, ["outer step 1", "training task 1", "inner step 2"]),
    "query": (rule_of, Waves(bad=4, where="query"), 4, ["outer step 3", "4 to 5", "query loss"]),
    "last": (Cliff, Waves(bad=6), 6, ["outer step 4", "training task 6", "inner step 2"]),
    "meta-gradient": (Edge, Waves(), 0, ["outer step 1", "0 to 1", "meta-gradient"]),
}


@pytest.mark.parametrize("case", DIVERGING)
def test_divergence_is_told_and_the_last_good_state_kept(case, tmp_path):
    make, family, position, parts = DIVERGING[case]
    path, events = tmp_path / "run.pt", []
    settings = {"steps": 3, "validation_interval": 2, "checkpoint_seconds": 0}
    diverged = train(make(), family=family, checkpoint=path, observers=[events.append], **settings)
    assert "\n" not in diverged.diverged
    assert all(part in diverged.diverged for part in parts), diverged.diverged
    assert diverged.position == position
    good = train(make(), tasks=position, **settings)
    same = {"theta", "phi", "validations", "best", "optimizer"} if position else {"theta", "phi"}
    now, then = state(diverged), state(good)
    assert differing({key: now[key] for key in same}, {key: then[key] for key in same}) == []
    assert bool(torch.isfinite(diverged.theta).all())
    kinds = [event.kind for event in events]
    at = kinds.index("diverged")
    assert events[at].values == {"message": diverged.diverged}
    assert (set(kinds[at + 1 : -1]), kinds[-1]) == ({"checkpoint"}, "end")
    assert bool(torch.isfinite(meta_test(diverged, Waves(), tasks=3)).all())
    events.clear()
    again = train(make(), family=family, checkpoint=path, observers=[events.append], **settings)
    assert differing(state(again), now) == []
    assert {event.kind for event in events} == {"start", "checkpoint", "end"}


def test_an_interrupt_while_divergence_is_told_resumes_as_diverged(tmp_path):
    options = {"family": Waves(bad=4), "steps": 3, "checkpoint": tmp_path / "run.pt"}
    with pytest.raises(KeyboardInterrupt):
        train(Cliff(), observers=[Stop(1, kind="diverged")], **options)
    assert "training task 4" in train(Cliff(), **options).diverged


def test_a_phi_that_is_no_number_is_refused_before_training():
    learner = BaseLearner(nn.Linear(1, 1), mse_loss)
    rule = make_rule("gradient-descent", learner.layout, inner_lr=0.1, learn_lr="parameter")
    with torch.no_grad():
        rule.inner_lr[1] = math.nan
    with pytest.raises(UsageError, match=r"rule GradientDescent .*: inner_lr is nan before training"):
        meta_train(rule, learner, Waves(), Settings(tasks=2, validation_tasks=1), generator=seeded())


def test_a_broken_training_task_is_a_mistake_and_no_divergence():
    class Broken(Waves):
        def sample(self, split, count, generator):
            task = super().sample(split, count, generator)
            task.query.targets[37] = NAN if split == "train" else 0
            return task

    with refused("Broken", "train", "task 37"):
        train(family=Broken())


# --- observers


def test_events_come_in_order(tmp_path):
    events: list[Event] = []
    train(checkpoint=tmp_path / "run.pt", observers=[events.append], checkpoint_seconds=0, tasks=4)
    validation = ["evaluating", "validation", "checkpoint"]
    step = ["step", "checkpoint"]
    assert [event.kind for event in events] == [
        *("start", *validation, "engine", *step, *step, *validation, "checkpoint", "end"),
    ]
    assert [event.position for event in events] == [0, 0, 0, 0, 2, 2, 2, 4, 4, 4, 4, 4, 4, 4]
    assert events[1].values == {"done": 0, "of": 3}
    assert events[4].values == {"engine": "eager", "note": ""}
    assert events[0].values == {"tasks": 4}
    assert all(math.isfinite(e.values["loss"]) for e in events if e.kind == "step")
    assert [set(e.values) for e in events if e.kind == "validation"] == [{"score", "best"}] * 2


@pytest.mark.parametrize("error", [RuntimeError("disk"), SystemError(), AssertionError()])
def test_an_observer_that_fails_is_named_and_dropped(error):
    calls, others = [], []

    def unreliable_logger(event: Event) -> None:
        calls.append(event)
        if event.kind == "step":
            raise error

    with pytest.warns(UserWarning, match="unreliable_logger.*dropped") as caught:
        trained = train(observers=[unreliable_logger, others.append])
    assert len(caught) == 1
    assert repr(error) in str(caught[0].message)
    assert [event.kind for event in calls] == ["start", "evaluating", "validation", "engine", "step"]
    assert [event.kind for event in others][-1] == "end"
    assert differing(state(trained), state(train())) == []


def test_the_list_of_observers_is_the_callers():
    def bad(event: Event) -> None:
        raise RuntimeError

    given = [bad]
    with pytest.warns(UserWarning, match="bad"):
        train(observers=given)
    assert given == [bad]


# --- settings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, -1) for name in ("tasks", "meta_batch", "steps", "test_steps", "task_seed")),
        *((name, 0) for name in ("meta_batch", "validation_interval", "validation_tasks")),
        *((name, value) for name in ("tasks", "meta_batch", "steps") for value in (True, 1.5, "1", None)),
        *(("test_steps", value) for value in (True, 1.5)),
        *(("evaluation_batch", value) for value in (0, True, 2.0)),
        *(("outer_lr", value) for value in (0, -1e-3, NAN, math.inf, "0.1", None)),
        *(("checkpoint_seconds", value) for value in (-1, NAN, "1")),
        *(("order", "third"), ("order", 2), ("outer_loss", "median"), ("engine", "warp")),
        *(("outer_clip_scope", "φ"), ("inner_clip", 5.0), ("outer_clip", "norm")),
    ],
)
def test_a_bad_setting_is_refused_by_its_name(field, value):
    with pytest.raises((TypeError, ValueError), match=field):
        Settings(**{field: value})


@pytest.mark.parametrize("value", [("sum", 1.0), ("norm", 0), ("value", -1), ("norm", NAN), ("norm", "1")])
def test_a_bad_clipping_is_refused_by_its_name(value):
    with pytest.raises((TypeError, ValueError), match="by" if value[0] == "sum" else "limit"):
        Clipping(*value)


def test_settings_take_names_alone_and_know_no_others():
    with pytest.raises(TypeError):
        Settings(3)
    with pytest.raises(TypeError, match="inner_steps"):
        Settings(inner_steps=3)
    assert Settings(steps=3).evaluation_steps == 3
    assert Settings(steps=3, test_steps=0).evaluation_steps == 0


def test_a_family_without_a_split_is_refused_by_name():
    family = types.SimpleNamespace(splits=("train",), sample=Waves().sample)
    with refused("split", "'validation'", "train"):
        train(family=family)
    with refused("split", "'tests'", "'test'"):
        meta_test(train(), Waves(), split="tests", tasks=1)
