"""The mailbox between the command and its workers on a Ray cluster.

It imports nothing, so that its process stays small.
"""

from __future__ import annotations


class Mailbox:
    """Ray actor that keeps the workers' messages until the command takes them, and whether to stop.

    If its process dies, Ray starts another, which is empty. The command repeats its wish with every call.
    """

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._started_jobs: list[int] = []
        self._stop = False

    def begin(self, job: int) -> bool:
        """Note that a worker has a job. Returns whether it should not start it."""
        self._started_jobs.append(job)
        return self._stop

    def send(self, message: bytes) -> bool:
        """Keep a pickled message of a worker. Returns whether to stop."""
        self._messages.append(message)
        return self._stop

    def take(self, stop: bool) -> tuple[list[int], list[bytes]]:
        """Return the jobs that started and the messages since the last call.

        Args:
            stop: Whether workers are to stop from now on.
        """
        self._stop = stop
        taken = self._started_jobs, self._messages
        self._started_jobs, self._messages = [], []
        return taken
