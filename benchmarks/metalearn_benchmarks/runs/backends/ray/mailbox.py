"""Between the command and its workers on a Ray cluster. Imports nothing: its process stays small."""

from __future__ import annotations


class Mailbox:
    """An actor: what workers tell, until the command takes it, and whether they are to stop.

    If its process dies Ray starts another, empty; the command says at every call what it wants.
    """

    def __init__(self) -> None:
        self._told: list[bytes] = []
        self._begun: list[int] = []
        self._stop = False

    def begin(self, job: int) -> bool:
        """A worker has the job in hand. Returns whether it should not begin."""
        self._begun.append(job)
        return self._stop

    def tell(self, told: bytes) -> bool:
        """Keep what a worker tells, pickled. Returns whether to stop."""
        self._told.append(told)
        return self._stop

    def take(self, stop: bool) -> tuple[list[int], list[bytes]]:
        """The jobs begun and all that was told since the last call; from now on, whether to stop."""
        self._stop = stop
        taken = self._begun, self._told
        self._begun, self._told = [], []
        return taken
