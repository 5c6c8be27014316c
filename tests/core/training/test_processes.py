"""Several processes that train one run end where one ends alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import torch
from shared_runs import CASES, found, scores_of, train

from metalearn_core import Processes, Task

# several of these trainings diverge on purpose
pytestmark = pytest.mark.filterwarnings("ignore::metalearn_core.errors.TrainingWarning")

HELPERS = Path(__file__).parents[2] / "helpers"

COUNT = 2


def run_in_processes(*arguments, count=COUNT):
    """Start Python `count` times with what torchrun tells of rank and number; all must succeed."""
    common = {**os.environ, "WORLD_SIZE": str(count), "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen(
            [sys.executable, *arguments], env={**common, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(count)
    ]
    errors = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [0] * count, "\n".join(errors)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What each process has in the end, by case."""
    folder = tmp_path_factory.mktemp("shared")
    run_in_processes(HELPERS / "shared_runs.py", folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(COUNT)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_where_one_ends(shared, name):
    case = CASES[name]
    require_what_one_has(case, shared[0][name])


def require_what_one_has(case, results):
    alone = train(attrs.evolve(case, settings=attrs.evolve(case.settings, engine="eager")))
    assert len(alone) == case.seeds - len(case.idle)
    for ours, trained in zip(results, alone, strict=True):
        assert trained.position == case.settings.tasks or case.rule == "brittle"
        close(ours, found(trained, scores_of(trained)), case.tolerance)


def close(ours, theirs, tolerance):
    ours, theirs = dict(ours), dict(theirs)
    assert ours.pop("diverged") == theirs.pop("diverged")
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.nightly
def test_two_processes_that_compile_end_where_one_ends(tmp_path):
    run_in_processes(HELPERS / "shared_runs.py", tmp_path, "compiling")
    results = torch.load(tmp_path / "0.pt")
    assert len(results) == 1
    for name, result in results.items():
        require_what_one_has(CASES[name], result)


@pytest.mark.parametrize("name", CASES)
def test_all_processes_have_the_same_bits(shared, name):
    for ours, theirs in zip(shared[0][name], shared[1][name], strict=True):
        close(ours, theirs, 0)


def test_a_nan_in_one_share_ends_the_run_in_all_processes(shared):
    """The first loss above the limit is far into the run, of one task."""
    for results in shared:
        (result,) = results["a NaN in one share"]
        assert "θ is not finite after inner step 1" in result["diverged"]
        assert 0 < result["now"]["position"] < CASES["a NaN in one share"].settings.tasks


def test_what_one_cannot_do_all_hear_of_and_stay_in_step(shared):
    whole = "{'whole': tensor([1., 1.])}"
    assert shared[0]["failures"] == ["KeyError", "FailedElsewhereError", "KeyError", whole]
    assert shared[1]["failures"] == [*("FailedElsewhereError", "KeyError", "FailedElsewhereError"), whole]


def test_what_one_cannot_compile_all_run_eager(shared):
    case = CASES["compiled, two seeds"]
    alone = train(attrs.evolve(case, settings=attrs.evolve(case.settings, engine="eager")))
    for results in shared:
        for (engine, theta), trained in zip(results["compiled in one"], alone, strict=True):
            assert engine == "eager"
            torch.testing.assert_close(theta, trained.theta, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("tasks", [1, 4, 5, 9])
def test_shares_are_a_partition_and_the_weighted_mean_is_the_mean(monkeypatch, count, tasks):
    """All ranks played one after the other; each process's sum is looked at before it is spoken."""
    values = torch.arange(2.0, 2.0 + tasks, dtype=torch.float64).reshape(tasks, 1, 1)
    task = Task.of([values] * 4, stacked=True)
    spoken, seen = [], []
    monkeypatch.setattr("torch.distributed.all_reduce", lambda flat: spoken.append(flat.clone()))

    def mean(task, first):
        seen.extend(task.support.inputs.flatten().tolist())
        return [task.support.inputs.mean()]

    for rank in range(count):
        Processes(rank, count).mean_over(task, mean, [torch.zeros((), dtype=torch.float64)])
    if count == 1:
        assert spoken == []
        return
    assert seen == values.flatten().tolist()
    assert float(sum(spoken)[0]) == pytest.approx(float(values.mean()), rel=1e-14)


def test_alone_nothing_is_spoken_and_nothing_changes():
    """No process group is there: an exchange would be an error."""
    alone, like = Processes(), [torch.zeros(2)]
    answer = [torch.ones(2)]
    task = Task.of([torch.zeros(3, 1, 1)] * 4, stacked=True)
    assert alone.mean_over(task, lambda given, first: answer if given is task else [], like) is answer
    assert alone.of_first(lambda: answer) is answer
    assert alone.each([answer[0], like[0]].__getitem__, range(2)) == [answer[0], like[0]]
    alone.leave()
