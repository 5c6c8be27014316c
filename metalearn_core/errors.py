"""Errors that a user can mend, and advice for what torch refuses, in one line each. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class UsageError(ValueError):
    """A mistake of the caller.

    The message names who refuses, what was expected, what came instead, and what to do about it.

    Example:
        >>> from metalearn_core import Settings, UsageError
        >>> try:
        ...     Settings(meta_batch=0)
        ... except UsageError as error:
        ...     print(error)
        Settings: meta_batch must be an integer >= 1, got 0
    """


class RuleError(UsageError):
    """The own code of a rule, or of a base-learner, failed: its author will want the traceback too."""


class WriteError(UsageError):
    """A full disk or a folder that is read-only: no other run that writes there would fare better."""


class TrainingWarning(UserWarning):
    """A training that ends, but not as its user would expect: it diverged, learns nothing, or is slow."""


class DivergenceWarning(TrainingWarning):
    """A loss or a gradient was not finite, and training stopped there."""


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


def require_kinds(who: str, **given: tuple[object, type | tuple[type, ...]]) -> None:
    """UsageError, by name, for a value that is of none of its kinds: `name=(value, kind or kinds)`."""
    for name, (value, kind) in given.items():
        if not isinstance(value, kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            wanted = " or a ".join(one.__name__ for one in kinds).replace("a NoneType", "None")
            raise UsageError(f"{who}: {name} must be a {wanted}, got a {type(value).__name__}")


def require_count(who: str, name: str, value: object, least: int = 0) -> None:
    """UsageError, naming the argument, for what is no integer from `least` on; True is none."""
    if type(value) is not int or value < least:
        raise UsageError(f"{who}: {name} must be an integer >= {least}, got {value!r:.60}")


def require_callables(who: str, *, optional: bool = False, **given: object) -> None:
    """UsageError, naming the argument, for what cannot be called; `optional`: it may be None."""
    for name, value in given.items():
        if not callable(value) and not (optional and value is None):
            wanted = "a function, or None" if optional else "a function"
            raise UsageError(f"{who}: {name} must be {wanted}, got a {type(value).__name__}")


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Make the error for a name that does not exist: it offers the nearest name and lists all of them.

    Args:
        kind: what the name was looked up as, such as `"option"`.
        name: the name that was not found.
        known: the names that exist.

    Returns:
        The error, for the caller to raise.

    Example:
        >>> from metalearn_core import unknown
        >>> print(unknown("optimizer", "adan", ["adam", "sgd"]))
        unknown optimizer 'adan': did you mean 'adam'? there are adam, sgd
    """
    name, names = str(name), sorted(map(str, known))
    close = _nearest(name, names)
    hint = f"did you mean {close!r}? " if close else ""
    return UsageError(f"unknown {kind} {name!r}: {hint}there are {', '.join(names) or 'none'}")


def _nearest(name: str, known: Iterable[str]) -> str:
    """The name that was most likely meant, empty where none is near: a slip of the keys, or a beginning."""
    typed = name.casefold()
    allowed = min(3, (len(typed) + 1) // 4)  # one slip in four keys
    near = [other for other in known if abs(len(other) - len(typed)) <= allowed]
    slips, best = min(((_slips(typed, other.casefold()), other) for other in near), default=(allowed + 1, ""))
    if slips <= allowed:
        return best
    begun = [other for other in known if len(typed) > 2 and other.casefold().startswith(typed)]
    return begun[0] if len(begun) == 1 else ""


def _slips(one: str, other: str) -> int:
    """Letters left out, put in, replaced, or exchanged with the next one, between two words."""
    before, last = list(range(len(other) + 1)), list[int]()
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b)))
            if i > 1 and j > 1 and (a, one[i - 2]) == (other[j - 2], b):
                row[j] = min(row[j], last[j - 2] + 1)
        last, before = before, row
    return before[-1]


NUMPY = "stay with torch's functions: NumPy knows neither batches of tasks, nor gradients, nor compiled runs"

READ_OUT = "do not read a tensor out (.item(), float(), if): keep it a tensor, choose with torch.where"

NEW_TENSOR = "compute a new tensor instead of writing in place (x = x + y, not x += y)"

TWICE = 'torch cannot differentiate it a second time: take the first order (order="first")'

NO_GRADIENT = (
    "take no gradient of your own in update: signal.grad is there, of either order, and"
    " signal.support.gradient(function, theta) for any other; elsewhere begin with"
    " theta.detach().requires_grad_()"
)

NOT_BATCHED = (
    "torch cannot batch it over tasks: write it in simpler operations, a recurrent network with nn.Linear, or"
    " set learner.use_vmap = False"
)

REMEDIES = {
    "data-dependent control flow": "choose with torch.where, not with if: tasks differ",
    ".item()": READ_OUT,
    "_local_scalar_dense": READ_OUT,
    "data-dependent": READ_OUT,
    "SymBool": READ_OUT,
    "SymFloat": READ_OUT,
    "SymInt": READ_OUT,
    "numpy": NUMPY,
    "data pointer": NUMPY,
    "accessing `data`": "use theta, signal.grad and the state as they are: no .data and no detach()",
    "Batching rule not implemented": NOT_BATCHED,
    "dynamic shape": "choose with torch.where, not with a mask in brackets, or set learner.use_vmap = False",
    "do not yet support": NOT_BATCHED,
    "randomness": "draw what is random in __init__, and .eval() what drops out: the same arguments must give"
    " the same answer; a rule that declares uses_noise may take signal.noise(shape)",
    "scaled_dot_product": "attention's default kernel has no second derivative: put"
    " torch.nn.attention.sdpa_kernel(SDPBackend.MATH) around it, or take the first order",
    "_transformer_encoder_layer_fwd": "the fused encoder of .eval() has no derivative: keep it in .train(),"
    " built with dropout=0, or call torch.backends.mha.set_fastpath_enabled(False)",
    "_backward is not implemented": TWICE,
    "_backward' is not implemented": TWICE,
    "once_differentiable": TWICE,
    "running_mean": "give batch norm no running statistics: those of the batch are taken, as in the paper",
    "CuDNN RNNs": "cuDNN's recurrent networks have no second derivative: put"
    " torch.backends.cudnn.flags(enabled=False) around it, or take the first order",
    "same dtype": "make constants with zeros_like and full_like, so that they follow theta's dtype, and"
    " register a tensor that the rule holds with register_buffer",
    "in-place": NEW_TENSOR,
    "written-to tensor": NEW_TENSOR,
    "inplace": NEW_TENSOR,
    "setup_context": "give the autograd.Function a static setup_context, and generate_vmap_rule = True",
    "generate_vmap_rule": "give the autograd.Function generate_vmap_rule = True, or a static method vmap",
    "a second time": "compute what depends on a parameter in update, not once in __init__, and keep nothing"
    " of one update for the next but in the state that it returns",
    "escaped": "keep nothing of one update for the next but in the state that it returns",
    "is not implemented": "torch has no derivative of it: write it in simpler operations",
    "device-side assert": "on a GPU this is most often a label out of range: labels are 0 ... outputs - 1;"
    " run it on the CPU, which says which",
    "does not require grad": NO_GRADIENT,
    "requires_grad_()": NO_GRADIENT,
}
"""By words of torch's messages, the more particular first."""


def remedy(error: BaseException) -> str:
    """What to do about an error in a rule; empty where that is not known."""
    said = " ".join(str(error).split())
    return next((remedy for sign, remedy in REMEDIES.items() if sign in said), "")


def describe_error(error: BaseException) -> str:
    """The kind of the error, what it says, and what to do where that is known; a UsageError says it all."""
    if isinstance(error, UsageError):
        return str(error)
    said, advice = " ".join(str(error).split()), remedy(error)
    # torch goes on about itself where a rule's author cannot follow
    return f"{type(error).__name__}: {said.partition('. ')[0]:.200}{'; ' if advice else ''}{advice}"


@contextmanager
def user_code(whose: str, what: str, why: Callable[[Exception], str] = lambda error: "") -> Iterator[None]:
    """In it somebody's own code runs: what that raises becomes a RuleError that names it and what to do.

    `why`: called with the error, says what was wrong with what the code was given, or nothing.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's own; it is not imported here
            raise
        reason = ""
        with suppress(Exception):  # there are tensors whose values cannot be read: those of a tracer
            reason = why(error)
        told = f"failed: {reason}" if reason else f"raised {describe_error(error)}"
        raise RuleError(f"{whose}: {what} {told}") from error
