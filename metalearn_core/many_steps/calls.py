"""Many outer steps in one call: a loop in C++ around the program of one step (`many_steps.cpp`).

A step of MAML on one task takes a tenth of a millisecond, less than the Python around it. So tasks are laid
ready as one block, and the compiled step is called again and again without a way back to Python. Each step is
the same function of the same numbers as when it is called alone, so that the results have the same bits.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from metalearn_core.kernels.sources import loaded

STATE = 3
"""How many of a program's first arguments a step moves: values and Adam's two averages."""
ROOM = 1024


@attrs.frozen
class Entry:
    """The C++ function behind a compiled program.

    Args:
        address: of the function.
        arguments: how many tensors it takes.
    """

    address: int
    arguments: int


@attrs.define(eq=False)
class ManySteps:
    """Steps that are taken in one call, and can be taken back to fewer.

    Args:
        entry: the step's.
        count: how many at most.
        arguments: as in `take_steps`.
        rows: as in `take_steps`.
        adam_steps: how many steps Adam has taken, `[seeds, tensors]`; moved in place, too.
        done: how many have been taken.
    """

    entry: Entry
    count: int
    arguments: Sequence[Tensor]
    rows: Sequence[int]
    adam_steps: Tensor
    done: int = attrs.field(default=0, init=False)
    _before: list[Tensor] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._before = [x.clone() for x in (*self.arguments[:STATE], self.adam_steps)]

    def take(self, seconds: float = math.inf) -> tuple[Tensor, Tensor]:
        """What `take_steps` returns."""
        with torch.no_grad():
            losses, taken = take_steps(self.entry, self.count, seconds, self.arguments, self.rows)
            self.adam_steps += taken.sum(0).to(self.adam_steps).unsqueeze(1)
        self.done = len(taken)
        return losses, taken

    def take_back(self, count: int) -> None:
        """Have only the first `count` steps taken: from the start, once more."""
        if count >= self.done:
            return
        with torch.no_grad():
            for now, before in zip((*self.arguments[:STATE], self.adam_steps), self._before, strict=True):
                now.copy_(before)
        self.count = count
        self.take()


def take_steps(
    entry: Entry, count: int, seconds: float, arguments: Sequence[Tensor], rows: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Up to `count` steps; none after `seconds`, and none after a seed that is alive took none.

    Args:
        entry: the step's.
        count: at least 1.
        seconds: when to stop.
        arguments: those of the program, contiguous; the state, which is first, is moved in place.
        rows: how many rows of each argument belong to one step, and the next ones to the next; 0 where all
            steps have the same.

    Returns:
        The losses and whether a step was taken, `[steps, seeds]`.
    """
    values, alive = arguments[0], arguments[STATE + 1]
    losses = values.new_empty(count, len(values))
    taken = torch.empty(count, len(values), dtype=torch.bool)
    pointers = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(list(arguments))
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    handles = (ctypes.c_void_p * len(arguments))(*(get(pointer, None) for pointer in pointers))
    error = ctypes.create_string_buffer(ROOM)
    function = _library().metalearn_many_steps
    function.restype = ctypes.c_int64
    done = function(
        ctypes.c_void_p(entry.address), ctypes.c_int64(count), ctypes.c_double(seconds),
        ctypes.c_int64(len(arguments)), handles, (ctypes.c_int64 * len(rows))(*rows),
        ctypes.c_int64(len(values)), ctypes.c_int64(values.element_size()), ctypes.c_void_p(alive.data_ptr()),
        ctypes.c_void_p(losses.data_ptr()), ctypes.c_void_p(taken.data_ptr()), error, ctypes.c_int64(ROOM),
    )  # fmt: skip
    if done < 0:
        raise RuntimeError(error.value.decode(errors="replace"))
    return losses[:done], taken[:done]


@functools.cache
def _library() -> ctypes.PyDLL:
    """The loop, called with Python's lock held: a program gives it up and takes it again by itself."""
    return ctypes.PyDLL(loaded("many_steps.cpp", __package__)._name)
