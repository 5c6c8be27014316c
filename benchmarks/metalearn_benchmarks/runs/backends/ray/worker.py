"""A job on a node of a Ray cluster: the node is checked, and then the job is run as everywhere."""

from __future__ import annotations

import os
import pickle
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs
import ray

from metalearn_benchmarks.runs import seed_groups
from metalearn_benchmarks.runs.job import STEP_REPORT_SECONDS, CellOutcome, Job, run_job
from metalearn_core import Event, UsageError

VARIABLES = ("METALEARN_DATA", "METALEARN_LOAD_PLUGINS")
"""Environment variables that workers take over from the command."""
SHARED_FILE_TIMEOUT = 5.0
"""Seconds that a shared file system may take to show a new file to another machine."""


def versions() -> dict[str, str]:
    """Return the versions that must be the same on every node, without the suffix of the processor."""
    packages = ("metalearn-benchmarks", "metalearn-core", "torch")
    return {package: version(package).partition("+")[0] for package in packages}


def environment() -> dict[str, str]:
    """Return those of `VARIABLES` that are set here."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


@attrs.frozen
class WorkerEnvironment:
    """What a worker must find on its node.

    Args:
        directory: DIR, absolute.
        marker: A new file in it.
        working_directory: The folder that the command runs in, for paths in an experiment; absolute.
        versions: The versions of the packages that decide the numbers.
        environment: Variables that say where data lie and which plugins are loaded.
    """

    directory: Path
    marker: Path
    working_directory: Path
    versions: dict[str, str]
    environment: dict[str, str]

    def problem(self) -> str | None:
        """Return one line about what this node lacks, or None."""
        here = f"node {socket.gethostname()}"
        deadline = time.monotonic() + SHARED_FILE_TIMEOUT
        while not self.marker.exists():
            if time.monotonic() > deadline:
                return (
                    f"{here} does not see {self.directory} as this machine does;"
                    " give --out on a file system that all nodes share"
                )
            time.sleep(0.1)
        found = versions()
        for package, wanted in self.versions.items():
            if found[package] != wanted:
                return (
                    f"{here} has {package} {found[package]}, and this machine has {wanted};"
                    " install the same version on every node"
                )
        return None


@attrs.define
class MailboxClient:
    """A worker's connection to the mailbox: it sends messages, and the answers say whether to stop.

    Args:
        mailbox: The handle of the mailbox.
        stopped: Whether to stop, as far as is known.
        interruptible: Whether a KeyboardInterrupt may be raised at any moment.
        pending_answer: The answer that has not arrived yet.
        reported_at: When the last event was sent.
    """

    mailbox: Any
    stopped: bool = False
    interruptible: bool = False
    pending_answer: Any = None
    reported_at: float = 0.0

    def is_set(self) -> bool:
        """Return whether to stop, as far as is known."""
        if self.pending_answer is not None and ray.wait([self.pending_answer], timeout=0)[0]:
            self.stopped, self.pending_answer = self._answer(self.pending_answer), None
        return self.stopped

    def tell(self, label: str, event: Event) -> None:
        """Send an event, without waiting. Steps are sent at most every `STEP_REPORT_SECONDS`."""
        if event.kind != "step" or time.monotonic() - self.reported_at >= STEP_REPORT_SECONDS:
            self.reported_at = time.monotonic()
            self.send(label, event)

    def send(self, label: str, message: Event | str) -> None:
        """Send an event or a line of text, without waiting."""
        answer = self.mailbox.send.remote(pickle.dumps((label, message)))
        self.pending_answer = answer if self.pending_answer is None else self.pending_answer

    def begin(self, job: int) -> bool:
        """Announce a job and return whether it may start."""
        self.stopped = self._answer(self.mailbox.begin.remote(job))
        return not self.stopped

    def _answer(self, reply: Any) -> bool:
        try:
            return bool(ray.get(reply))
        except ray.exceptions.RayError:  # work is worth more than being heard
            return self.stopped


def work(job: Job, number: int, wanted: WorkerEnvironment, mailbox: Any) -> list[CellOutcome] | str:
    """Run a job of the command on this node. Ray shows its process as `ray::work`.

    Args:
        job: The job.
        number: Its number.
        wanted: What this node must have.
        mailbox: The handle of the mailbox.

    Returns:
        The outcomes of its cells; or one line that says why this node cannot run it.
    """
    if problem := wanted.problem():
        return problem
    if wanted.working_directory.is_dir():
        os.chdir(wanted.working_directory)
    os.environ.update(wanted.environment)
    client = MailboxClient(mailbox)
    if not client.begin(number):
        return [CellOutcome(cell.label) for cell in job]
    with _warnings_forwarded(client, seed_groups.group_label(job.cells)):
        try:
            return run_job(job, wanted.directory, client.tell, client)
        except UsageError as error:  # no other would go on either
            return str(error)


@contextmanager
def _warnings_forwarded(client: MailboxClient, label: str) -> Iterator[None]:
    """Send warnings, as of an observer, to the command: a worker's own output goes to a file of Ray."""

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, UserWarning):
            client.send(label, str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
