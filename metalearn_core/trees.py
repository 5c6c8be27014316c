"""Functions over the first axis of every tensor in their arguments, in whatever structure those come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree


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
