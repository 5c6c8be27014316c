"""One job on a node of a Ray cluster: the place is looked at, then it is run as everywhere."""

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
from metalearn_benchmarks.runs.job import TOLD_SECONDS, CellOutcome, Job, run_job
from metalearn_core import Event, UsageError

VARIABLES = ("METALEARN_DATA", "METALEARN_LOAD_PLUGINS")
SEEN_SECONDS = 5.0
"""A shared file system may take this long to show a new file to another machine."""


def versions() -> dict[str, str]:
    """What must be the same on every node, without what only says for which processor it was built."""
    packages = ("metalearn-benchmarks", "metalearn-core", "torch")
    return {package: version(package).partition("+")[0] for package in packages}


def environment() -> dict[str, str]:
    """Those of `VARIABLES` that are set here."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


@attrs.frozen
class Workplace:
    """What a worker must find as it is where the command runs.

    Args:
        directory: DIR, absolute.
        sign: a new file in it.
        current: the folder that the command runs in, for paths in an experiment; absolute.
        versions: of the packages that decide the numbers.
        environment: variables that say where data lie and which plugins are loaded.
    """

    directory: Path
    sign: Path
    current: Path
    versions: dict[str, str]
    environment: dict[str, str]

    def problem(self) -> str | None:
        """One line on what is not as it should be here, or None."""
        here = f"node {socket.gethostname()}"
        deadline = time.monotonic() + SEEN_SECONDS
        while not self.sign.exists():
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
class Link:
    """A worker's line to the mailbox: it tells, and learns with the answers whether to stop."""

    mailbox: Any
    stopped: bool = False
    at_once: bool = False
    asked: Any = None
    told_at: float = 0.0

    def is_set(self) -> bool:
        """Whether to stop, as far as has been heard."""
        if self.asked is not None and ray.wait([self.asked], timeout=0)[0]:
            self.stopped, self.asked = self._answer(self.asked), None
        return self.stopped

    def tell(self, label: str, event: Event) -> None:
        """Tell of an event; waits for nobody."""
        if event.kind != "step" or time.monotonic() - self.told_at >= TOLD_SECONDS:
            self.told_at = time.monotonic()
            self.say(label, event)

    def say(self, label: str, told: Event | str) -> None:
        """Tell of anything."""
        answer = self.mailbox.tell.remote(pickle.dumps((label, told)))
        self.asked = answer if self.asked is None else self.asked

    def begin(self, job: int) -> bool:
        """Whether the job may begin."""
        self.stopped = self._answer(self.mailbox.begin.remote(job))
        return not self.stopped

    def _answer(self, reply: Any) -> bool:
        try:
            return bool(ray.get(reply))
        except ray.exceptions.RayError:  # work is worth more than being heard
            return self.stopped


def work(job: Job, number: int, place: Workplace, mailbox: Any) -> list[CellOutcome] | str:
    """Run a job of the command; a string says in one line why this node cannot."""
    if problem := place.problem():
        return problem
    if place.current.is_dir():
        os.chdir(place.current)
    os.environ.update(place.environment)
    link = Link(mailbox)
    if not link.begin(number):
        return [CellOutcome(cell.label) for cell in job]
    with _warnings_told(link, seed_groups.label(job.cells)):
        try:
            return run_job(job, place.directory, link.tell, link)
        except UsageError as error:  # no other would go on either
            return str(error)


@contextmanager
def _warnings_told(link: Link, label: str) -> Iterator[None]:
    """Pass on what an observer, say, is warned of: a worker's own output goes to a file of Ray's."""

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, UserWarning):
            link.say(label, str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
