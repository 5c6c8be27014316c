"""Trying out somebody's code: when that may be done, and how nothing of it is left behind."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metalearn_core.safeguards.locks import GLOBAL_GENERATOR

TASKS = 3
"""How many tasks are compared: what is wrong for a batch is often right for its first task."""

MOST_SHAPES = 16
"""Shapes that a learner or a rule is checked with: where each batch has its own, the first ones do."""


def is_traced(*data: object) -> bool:
    """Whether these are no tensors with values of their own, or somebody watches what is computed."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return True
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return any(x.is_meta for x in pytree.tree_leaves(data) if isinstance(x, Tensor))


@contextmanager
def streams_kept(device: torch.device) -> Iterator[None]:
    """In it, whatever is drawn at random is drawn again afterwards: Python's, NumPy's and torch's streams."""
    numpy, plain = sys.modules.get("numpy"), random.getstate()
    drawn = numpy.random.get_state() if numpy else None
    devices = [device] if device.type == "cuda" else []
    try:
        with GLOBAL_GENERATOR.held(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(plain)
        if numpy:
            numpy.random.set_state(drawn)
