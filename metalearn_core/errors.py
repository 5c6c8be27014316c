"""What a user can mend, said in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class UsageError(ValueError):
    """A mistake of the caller: the message says who, what was expected, what came, what to do."""


class RuleError(UsageError):
    """The own code of a rule, or of a base-learner, failed: its author will want the traceback too."""


class WriteError(UsageError):
    """A full disk or a folder that is read-only: no other run that writes there would fare better."""


class CheckpointError(UsageError):
    """A checkpoint that must not be gone on from: `path`, and whether it is `damaged` or of another run."""

    def __init__(self, path: Path, reason: str, damaged: bool = True) -> None:
        super().__init__(f"checkpoint {path}: {reason}; move it away to start anew")
        self.path, self.reason, self.damaged = path, reason, damaged


@contextmanager
def writing(path: Path, option: str = "--out") -> Iterator[None]:
    """In it, what the system refuses is a WriteError that names `path` and the option to give another."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{path}: cannot be written ({error.strerror or error}); what was there is kept: mend that and"
            f" give the same command again, or use another {option}"
        ) from error


def require_kinds(who: str, **given: tuple[object, type]) -> None:
    """UsageError, naming the argument, for a value that is not of its kind: `name=(value, kind)`."""
    for name, (value, kind) in given.items():
        if not isinstance(value, kind):
            raise UsageError(f"{who}: {name} must be a {kind.__name__}, got a {type(value).__name__}")


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not there: it offers the nearest one and lists the others."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UsageError(f"unknown {kind} {name!r}: {hint}there are {', '.join(names) or 'none'}")
