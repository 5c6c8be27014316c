"""`metalearn speed`: peers do the same work, the one that does not is not timed."""

import json
import subprocess
import sys

import pytest
import torch

from metalearn_benchmarks.speed import measure, peers
from metalearn_benchmarks.speed.work import Work


def installed(name):
    try:
        __import__({"jax": "jax"}.get(name, "torch"))
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("rule", ["maml", "turtle", "lstm"])
@pytest.mark.parametrize("peer", ["higher loop", "torch.func", "jax"])
def test_peers_have_the_same_meta_gradient(peer, rule, order):
    if not installed(peer):
        pytest.skip(f"needs {peer}, which is not installed")
    work = Work.of(rule, 3, 2, order)
    ours = [measure._plain(x) for x in peers.eager(work)()]
    theirs = [measure._plain(x) for x in peers.PEERS[peer](work)()]
    assert [x.shape for x in ours] == [x.shape for x in theirs]
    assert measure._distance(theirs, ours) < 1e-4


def timed(peer_names, **changes):
    setting = {"rule": "maml", "tasks": 1, "steps": 1, "order": "second", "threads": 1, "seconds": 0.0}
    return list(measure.measure(**{**setting, **changes}, peers=peer_names))


def test_a_peer_with_another_gradient_is_not_timed(monkeypatch):
    def first_order(work):
        return peers.eager(Work.of(work.name, len(work.task), work.steps, "first"))

    monkeypatch.setitem(measure.PEERS, "wrong", first_order)
    wrong, eager = sorted(timed(["eager", "wrong"]), key=lambda t: t.peer == "eager")
    assert wrong.median is None
    assert "off: not timed" in wrong.note
    assert eager.median > 0
    assert eager.rounds >= 5
    assert eager.quartiles[0] <= eager.median <= eager.quartiles[1]
    assert eager.ratio == 1
    assert 0 < eager.share_of_peak < 1


def test_a_peer_that_is_not_installed_is_said(monkeypatch):
    def absent(work):
        raise ImportError("no", name="jax")

    monkeypatch.setitem(measure.PEERS, "jax", absent)
    (found,) = (timing for timing in timed(["eager", "jax"]) if timing.peer == "jax")
    assert (found.median, found.note) == (None, "not installed (jax)")


def test_operations_grow_with_tasks_steps_and_order():
    sizes = [
        Work.of("turtle", tasks, steps, order).operations
        for tasks, steps, order in ((1, 1, "first"), (2, 1, "first"), (1, 2, "first"), (1, 2, "second"))
    ]
    assert sizes[1] == 2 * sizes[0]
    assert sizes[0] < sizes[2] < sizes[3]
    # 5 hidden layers of 20: 1,640 weights for each of 1,761 coordinates, forward and twice that backward
    assert sizes[0] == pytest.approx(6 * 1_640 * 1_761, rel=0.05)


def metalearn(*arguments):
    command = [sys.executable, "-m", "metalearn_benchmarks", "speed", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command():
    setting = ["-r", "maml", "--tasks", "1", "--steps", "1", "--seconds", "0", "--json"]
    done = metalearn(*setting, "-p", "eager", "-p", "higher loop")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["peer"] for row in rows] == ["eager", "higher loop"]
    assert all(row["median"] > 0 for row in rows)


def test_an_unknown_peer_is_one_line():
    done = metalearn("-p", "jaxx")
    assert done.returncode == 2
    assert done.stderr.startswith("metalearn: unknown peer 'jaxx': did you mean 'jax'?")
    assert done.stderr.count("\n") == 1


def test_threads_are_those_asked_for():
    timed(["eager"], threads=1)
    assert torch.get_num_threads() == 1
