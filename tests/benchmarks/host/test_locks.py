"""Locks on files: a second process waits or is refused, and a killed one holds nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest

from metalearn_benchmarks.host import locks
from metalearn_benchmarks.host.locks import locked, try_lock
from metalearn_core.errors import UsageError

HOLDER = """
import sys, time
from pathlib import Path
from metalearn_benchmarks.host.locks import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
    Path(sys.argv[1] + ".order").write_text("first")
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


@pytest.fixture
def hold(path):
    """Start a process that holds the lock for so many seconds."""
    processes = []

    def start(seconds):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), str(seconds)], stdout=subprocess.PIPE
        )
        processes.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_refused_or_waits(path, hold):
    hold(1)
    assert try_lock(path) is None
    calls = []
    with locked(path, lambda: calls.append(time.monotonic())):
        assert path.with_name(".lock.order").read_text() == "first"
    assert len(calls) >= 2
    assert all(after - before >= locks.POLL_SECONDS for before, after in pairwise(calls))
    assert path.exists()  # whoever waits has this very file open


def test_who_waits_may_give_up(path, hold):
    holder = hold(600)

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), locked(path, interrupted):
        raise AssertionError
    assert holder.poll() is None


def test_a_killed_process_holds_nothing(path, hold):
    holder = hold(600)
    assert try_lock(path) is None
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    lock = try_lock(path)
    assert lock is not None
    lock.release()


def test_a_lock_is_released_after_an_error(path):
    with pytest.raises(ZeroDivisionError), locked(path):
        raise ZeroDivisionError if try_lock(path) is None else AssertionError
    with locked(path):
        pass


def nobody_holds_it():
    raise AssertionError("it waits")


@pytest.mark.parametrize("content", ["", "1\nelsewhere\n"])
def test_the_file_of_an_earlier_command_is_no_lock(path, content):
    path.write_text(content)
    with locked(path, nobody_holds_it):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("there", [True, False])
def test_a_file_system_without_locks_is_refused_in_a_line(path, monkeypatch, number, there):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    if there:
        path.touch()

    with pytest.raises(UsageError) as caught, locked(path, nobody_holds_it):
        raise AssertionError
    assert str(caught.value) == (
        f"{path}: cannot be locked ({os.strerror(number)}), and two commands could write at once;"
        " use a folder on another file system"
    )


def test_a_file_that_cannot_be_made_is_the_systems_own_error(path):
    path.touch()
    with pytest.raises(OSError, match="exists"):
        try_lock(path / "below")
    with pytest.raises(OSError, match="directory"):
        try_lock(path.parent)
