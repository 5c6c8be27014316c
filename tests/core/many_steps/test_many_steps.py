"""Many outer steps in one call: the same bits as one by one, whatever ends a call."""

import cProfile
import os
import signal
import threading

import attrs
import pytest
import torch

from metalearn_core import Clipping, Settings, make_rule, meta_train, meta_train_seeds, task_families
from metalearn_core.many_steps import calls, pace
from metalearn_core.testing import Architecture

pytestmark = pytest.mark.filterwarnings("ignore::metalearn_core.errors.TrainingWarning")

FAMILY = task_families()["sine"](support=5, query=5)
LEARNER = Architecture((1, 3, 1)).learner()
SETTINGS = Settings(
    tasks=101, meta_batch=2, steps=1, outer_lr=0.05, outer_clip=Clipping("norm", 0.5),
    validation_interval=30, validation_tasks=2, engine="compiled",
)  # fmt: skip


def trained(seeds=2, settings=SETTINGS, family=FAMILY, observers=None, checkpoints=None):
    rules = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        rules.append(make_rule("gradient-descent", LEARNER.layout, learn_lr="parameter").double())
    return meta_train_seeds(
        rules, LEARNER, family, settings, observers=observers, checkpoints=checkpoints,
        generators=[torch.Generator().manual_seed(seed) for seed in range(seeds)],
    )  # fmt: skip


@pytest.fixture
def at_once(monkeypatch):
    """How many steps each call took, where calls are as long as may be."""
    monkeypatch.setattr(pace, "CALL_SECONDS", 1e9)
    taken, take = [], calls.take_steps

    def counted(entry, count, *rest):
        answers = take(entry, count, *rest)
        taken.append(len(answers[0]))
        return answers

    monkeypatch.setattr(calls, "take_steps", counted)
    return taken


def one_by_one(**how):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "MOST_TASKS", 1)
        return trained(**how)


def require_same_bits(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert one.position == other.position
        assert one.validations == other.validations
        assert one.diverged == other.diverged
        assert torch.equal(one.theta, other.theta)
        assert torch.equal(one.rule.inner_lr, other.rule.inner_lr)
        for mine, yours in zip(
            *(x.optimizer.state_dict()["state"].values() for x in (one, other)), strict=True
        ):
            assert all(torch.equal(mine[key], yours[key]) for key in yours)


def test_they_have_the_bits_of_steps_one_by_one(at_once):
    """Each call ends where a validation is due; the last meta-batch, a smaller one, comes by itself."""
    told, alone = [], []
    ours = trained(observers=[[told.append], []])
    assert max(at_once) > 8
    assert sum(at_once) > 40
    theirs = one_by_one(observers=[[alone.append], []])
    require_same_bits(ours, theirs)
    assert told == alone
    assert [position for position, _ in ours[0].validations] == [0, 30, 60, 90, 101]


def test_a_training_can_be_profiled():
    with cProfile.Profile():
        ours = trained(seeds=1)
    require_same_bits(ours, trained(seeds=1))


@pytest.mark.parametrize("position", [24, 30, 46])
def test_an_observer_stops_the_run_after_the_step_that_it_is_told_of(position, at_once, tmp_path):
    paths = [tmp_path / "0.pt", tmp_path / "1.pt"]

    def stop(event):
        if event.kind == "step" and event.position == position:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(observers=[[], [stop]], checkpoints=paths)
    stopped = torch.load(paths[0])
    assert stopped["now"]["position"] == position
    shorter = one_by_one(settings=attrs.evolve(SETTINGS, tasks=position))
    assert torch.equal(stopped["now"]["theta"], shorter[0].theta)
    require_same_bits(trained(checkpoints=paths), one_by_one())
    assert max(at_once) > 8


@attrs.frozen
class BrokenAt:
    """Sine waves, of which one is too large to square."""

    number: int
    splits = FAMILY.splits

    def sample(self, split, count, generator):
        task = FAMILY.sample(split, count, generator).map(torch.Tensor.double)
        if split == "train" and count == 100:
            task.query.targets[self.number] = 1e200
        return task


def test_a_seed_that_diverges_ends_a_call_and_names_its_task(at_once):
    with pytest.warns(match="outer step 13, training task"):
        ours = trained(family=BrokenAt(25))
    assert ours[0].position == 24
    require_same_bits(ours, one_by_one(family=BrokenAt(25)))


def test_a_warm_up_ends_a_call(at_once):
    settings = attrs.evolve(SETTINGS, steps=2, warm_up=0.5)
    require_same_bits(trained(settings=settings), one_by_one(settings=settings))
    assert max(at_once) > 4


def killed_in_a_call(settings, paths):
    """Train, and die in the middle of a long call: another thread kills the process while C++ takes steps."""
    take = calls.take_steps

    def deadly(entry, count, *rest):
        if count > 100 and all(path.exists() for path in paths):
            threading.Timer(0.002, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return take(entry, count, *rest)

    calls.take_steps = deadly
    trained(settings=settings, checkpoints=paths)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of processes with threads; they are idle
def test_a_run_killed_in_the_middle_of_a_call_goes_on_to_the_same_bits(at_once, tmp_path):
    settings = attrs.evolve(SETTINGS, tasks=60_001, validation_interval=10_000, checkpoint_seconds=0.2)
    whole = trained(settings=settings)
    assert max(at_once) > 100
    paths = [tmp_path / "0.pt", tmp_path / "1.pt"]
    if not (child := os.fork()):
        try:
            killed_in_a_call(settings, paths)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert 0 < torch.load(paths[0])["now"]["position"] < settings.tasks
    require_same_bits(trained(settings=settings, checkpoints=paths), whole)


def test_a_checkpoint_that_is_due_at_every_step_is_written_at_every_step(tmp_path):
    told = []
    settings = attrs.evolve(SETTINGS, tasks=20, checkpoint_seconds=0)
    rule = make_rule("gradient-descent", LEARNER.layout).double()
    meta_train(
        rule, LEARNER, FAMILY, settings, generator=torch.Generator().manual_seed(0),
        checkpoint=tmp_path / "0.pt", observers=[told.append],
    )  # fmt: skip
    assert {2, 4, 12, 14} <= {event.position for event in told if event.kind == "checkpoint"}


def test_what_fails_in_a_call_is_said():
    values = torch.zeros(1, 2)
    wrong = calls.Entry(0, 5)
    with pytest.raises(RuntimeError, match="no program"):
        calls.take_steps(wrong, 1, 1.0, [values, values, values, torch.ones(2), torch.ones(1)], [0] * 5)
