"""Runs that are cut off: the same command goes on, to the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

COMMAND = [
    *(sys.executable, "-c", "from metalearn_benchmarks.cli import main; main()"),
    *("run", "sine", "--scale", "smoke", "--tasks", "150", "-m", "maml", "-m", "turtle", "-m", "finetuning"),
]


def scores(directory):
    """Everything that came out, without what depends on when and how fast it ran."""
    found = {}
    for path in sorted(directory.rglob("result.json")):
        result = json.loads(path.read_text())
        kept = ("scores", "summary", "validations", "best_position", "curves")
        found[str(path.relative_to(directory))] = {key: result[key] for key in kept}
        lines = path.with_name("metrics.jsonl").read_text().splitlines()
        positions = [json.loads(line)["position"] for line in lines]
        assert positions == [position for position, _ in result["validations"]]
    return found


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
        begun, deadline = len(list(directory.rglob("checkpoint.pt"))), time.monotonic() + 60
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


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_the_same_command_ends_in_the_same_bits(tmp_path, uninterrupted, workers):
    kill_until_done(tmp_path, workers, 3, random.Random(workers))
    assert scores(tmp_path) == uninterrupted
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.nightly
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_many_times(tmp_path, uninterrupted, workers):
    for attempt in range(10):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        kill_until_done(directory, workers, 4, random.Random(100 * workers + attempt))
        assert scores(directory) == uninterrupted


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_it_saves_says_so_and_goes_on(tmp_path, uninterrupted, workers):
    command = [*COMMAND, "--workers", str(workers), "--out", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("checkpoint.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert len(list(tmp_path.rglob("result.json"))) < 3
    subprocess.run(command, check=True, capture_output=True)
    assert scores(tmp_path) == uninterrupted


def test_two_commands_on_one_folder_do_not_mix(tmp_path, uninterrupted):
    command = [*COMMAND, "--workers", "1", "--out", tmp_path]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert scores(tmp_path) == uninterrupted
