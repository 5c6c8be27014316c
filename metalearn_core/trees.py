"""Functions over the first axis of every tensor in their arguments, in whatever structure those come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree


def shapes_of(tree: Any) -> str:
    """Its structure in one line, a tensor as `float32[5, 1]`, all else as the name of its type."""

    def told(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return None if leaf is None else _Word(type(leaf).__name__)
        return _Word(f"{leaf.dtype}{list(leaf.shape)}".removeprefix("torch."))

    return " ".join(repr(pytree.tree_map(told, tree)).split())


class _Word(str):
    """Told without quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def over_first_axis(function: Callable[..., Any], *, at_once: bool = True) -> Callable[..., Any]:
    """The function for every index of the first axis of all tensors among its arguments.

    Args:
        function: its arguments are tensors, any pytree of them, and whatever else, which it gets as it is.
        at_once: by `vmap`; False takes one index after the other.
    """

    def every(*arguments: Any) -> Any:
        leaves, structure = pytree.tree_flatten(arguments)
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

        def one(*own: Tensor) -> Any:
            given = list(leaves)
            for place, tensor in zip(places, own, strict=True):
                given[place] = tensor
            return function(*pytree.tree_unflatten(given, structure))

        tensors = [leaves[place] for place in places]
        if at_once:
            return vmap(one)(*tensors)
        found = [one(*own) for own in zip(*tensors, strict=True)]
        return pytree.tree_map(lambda *own: torch.stack(own), *found)

    return every
