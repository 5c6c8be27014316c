"""Runs that are cut off: the same command goes on, to the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from command_runs import PROGRAM, scores
from waiting import LONG, wait_until

COMMAND = [
    *(sys.executable, "-c", PROGRAM),
    *("run", "sine", "--scale", "smoke", "--tasks", "150", "-m", "maml", "-m", "turtle", "-m", "finetuning"),
]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    subprocess.run([*COMMAND, "--workers", "1", "--out", directory], check=True, capture_output=True)
    found = scores(directory)
    assert len(found) == 3
    return found


def kill_until_done(directory, workers, kills, generator):
    """Kill the command `kills` times at random moments while it trains, then let it finish."""
    command = [*COMMAND, "--workers", str(workers), "--out", directory]
    for _ in range(kills):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        begun, deadline = len(list(directory.rglob("checkpoint.pt"))), time.monotonic() + LONG
        while len(list(directory.rglob("checkpoint.pt"))) == begun and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
            if begun and generator.random() < 0.02:
                break
        time.sleep(generator.uniform(0, 1))
        if workers == 1:
            process.kill()
        else:  # the parent alone: its workers must notice
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_killed_at_random_the_same_command_ends_in_the_same_bits(tmp_path, uninterrupted, workers):
    kill_until_done(tmp_path, workers, 3, random.Random(workers))
    assert scores(tmp_path) == uninterrupted
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """The bits of two seeds of each method, which do not depend on who trains with whom in eager code."""
    directory = tmp_path_factory.mktemp("two-seeds")
    subprocess.run([*COMMAND, *MANY, "--workers", "1", "--out", directory], check=True, capture_output=True)
    found = scores(directory)
    assert len(found) == 6
    return found


MANY = ("--seeds", "2", "--tasks", "400")


@pytest.mark.nightly
@pytest.mark.parametrize(("workers", "together"), [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")])
def test_killed_many_times(tmp_path, two_seeds, workers, together):
    """13 SIGKILLs at random moments, of the command alone or of its workers too; four times makes 52."""
    generator, killed, directory = random.Random(int(workers + together)), 0, tmp_path / "0"
    while killed < 13:
        command = [*COMMAND, *MANY, "--workers", workers, "--together", together, "--out", directory]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        begun = activity(directory)
        while activity(directory) == begun and process.poll() is None:
            time.sleep(0.02)
        time.sleep(generator.uniform(0, 2))
        if process.poll() is None:
            killed += 1
            kill = generator.choice([os.kill, os.killpg])
            kill(process.pid, signal.SIGKILL)
        assert process.wait() in (0, -signal.SIGKILL)
        if process.returncode == 0:  # the rest of the kills are for another folder
            assert scores(directory) == two_seeds
            directory = tmp_path / str(killed)
    subprocess.run([*command[:-1], directory], check=True, capture_output=True)
    assert scores(directory) == two_seeds
    assert not [*tmp_path.rglob("*.tmp"), *tmp_path.rglob("*-1")]  # nothing half-written, nothing damaged


def activity(directory):
    """What changes when a run is at work."""
    return {path: path.stat().st_mtime_ns for path in directory.rglob("metrics.jsonl")}


def test_a_worker_that_dies_takes_no_other_run_with_it(tmp_path, uninterrupted):
    """The job that it had fails, and goes on with the same command; those after it find a new worker."""
    command = [*COMMAND, "--workers", "2", "--out", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    found = wait_until(lambda: [path.parent for path in tmp_path.rglob("checkpoint.pt")])
    (victim,) = [child for child in children(process.pid) if holds(child, found[0] / ".lock")]
    os.kill(victim, signal.SIGKILL)
    _, err = process.communicate(timeout=LONG)
    assert (process.returncode, err.count("its worker process died")) == (1, 1)
    assert len(scores(tmp_path)) == 2
    subprocess.run(command, check=True, capture_output=True)
    assert scores(tmp_path) == uninterrupted


def test_workers_end_with_the_command(tmp_path):
    """Killed without a chance to tell them: those at work save what they have, and none waits for ever."""
    command = [*COMMAND, *("--seeds", "2", "--workers", "2", "--out", tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list(tmp_path.rglob("checkpoint.pt"))) >= 2)
    begun = children(process.pid)
    assert len(begun) >= 2
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(lives, begun)))


def lives(pid):
    """Whether there is such a process, and not what is left of one that nobody has asked for."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def children(parent):
    threads = Path(f"/proc/{parent}/task").iterdir()
    return [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]


def holds(pid, path):
    """Whether a process has a file open."""
    with suppress(FileNotFoundError):
        return any(link.resolve() == path.resolve() for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_interrupted_it_saves_says_so_and_goes_on(tmp_path, uninterrupted, workers):
    command = [*COMMAND, "--workers", str(workers), "--out", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: list(tmp_path.rglob("checkpoint.pt")))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert len(list(tmp_path.rglob("result.json"))) < 3
    subprocess.run(command, check=True, capture_output=True)
    assert scores(tmp_path) == uninterrupted


def test_two_commands_on_one_folder_do_not_mix(tmp_path, uninterrupted):
    command = [*COMMAND, "--workers", "1", "--out", tmp_path]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=LONG) for process in both] == [0, 0]
    assert scores(tmp_path) == uninterrupted
