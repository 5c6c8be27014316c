"""A forward must leave what it is given as it was: tensors that it wrote to are found by their versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from metalearn_core.errors import UsageError

PURE = "must leave what it is given as it was; compute a new tensor instead (x = x - 1, not x.sub_(1))"


def versions(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """How often each tensor was written to; those of inference mode do not count it."""
    return {name: x._version for name, x in tensors.items() if not x.is_inference()}


def written(tensors: Mapping[str, Tensor], before: Mapping[str, int]) -> str:
    """The names of the tensors that were written to since `before`."""
    now = versions(tensors)
    return ", ".join(name for name in before if now[name] != before[name])


@contextmanager
def nothing_written(whose: str, **tensors: object) -> Iterator[None]:
    """In it somebody's code sees these tensors: UsageError, by name, for one that it has written to."""
    watched = {name: x for name, x in tensors.items() if isinstance(x, Tensor)}
    before = versions(watched)
    yield
    if names := written(watched, before):
        raise UsageError(f"{whose}: it writes to its {names}; it {PURE}")


def why_forward_failed(
    dtype: torch.dtype, inputs: object, buffers: Mapping[str, Tensor], before: Mapping[str, int],
    error: Exception,
) -> str:  # fmt: skip
    """What is wrong with a forward or with its inputs, where that is known; else empty."""
    if names := written(buffers, before):
        return writes_to_buffers(names)
    if not isinstance(inputs, Tensor) or "type" not in str(error):
        return ""
    if inputs.dtype != dtype:
        return f"inputs are {inputs.dtype} and the parameters {dtype}: convert one of them with .to"
    return ""


def writes_to_buffers(names: str) -> str:
    """What is wrong with a forward that writes to buffers, and what to do."""
    return (
        f"it writes to {names}, and the same θ must give the same answer every time; compute it from the"
        " inputs alone, or keep it constant, as .eval() does where forward looks at self.training"
    )
