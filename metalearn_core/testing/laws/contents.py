"""What tensors hold, what hangs on a rule, and what its functions reach beyond it: to see who writes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metalearn_core.rule import UpdateRule


def contents(value: object) -> list[tuple[str, int]]:
    """The values of every tensor in `value`, and how often each was written to."""
    leaves = pytree.tree_leaves(value)
    return [(str(x.tolist()), x._version) for x in leaves if isinstance(x, Tensor)]


def same(ours: object, theirs: object) -> bool:
    """Bit for bit."""
    return [values for values, _ in contents(ours)] == [values for values, _ in contents(theirs)]


def reachable(rule: UpdateRule) -> dict[str, object]:
    """Everything that hangs on the rule, on its class, or that its functions name; by its path."""
    seen: set[int] = set()
    found = dict(_walk(rule, "self", seen))
    for path, value in (*_of_classes(rule), *_named_by_functions(rule)):
        found |= dict(_walk(value, path, seen))
    return found


_HOLDS = (Tensor, list, dict, set, int, float)
"""What a function can remember something in."""


def _of_classes(rule: UpdateRule) -> Iterator[tuple[str, Any]]:
    for owner in _classes(rule):
        for name, value in vars(owner).items():
            if isinstance(value, _HOLDS) and not name.startswith(("__", "_abc_")):
                yield f"{owner.__name__}.{name}", value


def _named_by_functions(rule: UpdateRule) -> Iterator[tuple[str, Any]]:
    """Closures and globals of the rule's methods, and of the functions of their module that they call."""
    left = [f for owner in _classes(rule) for f in vars(owner).values() if inspect.isfunction(f)]
    seen: set[int] = set()
    while left:
        function = left.pop()
        seen.add(id(function))
        named: dict[str, Any] = {}
        with suppress(ValueError):  # a closure that is not filled yet
            variables = inspect.getclosurevars(function)
            named = {**variables.globals, **variables.nonlocals}
        for name, value in named.items():
            if isinstance(value, _HOLDS):
                yield name, value
            elif inspect.isfunction(value) and value.__module__ == function.__module__:
                left += [value] if id(value) not in seen else []


def _classes(rule: UpdateRule) -> list[type]:
    """The rule's class and its bases, up to the interface."""
    return [c for c in type(rule).__mro__ if issubclass(c, UpdateRule) and c is not UpdateRule]


def _walk(thing: Any, path: str, seen: set[int]) -> Iterator[tuple[str, object]]:
    if isinstance(thing, Tensor):
        yield path, contents(thing)
    elif id(thing) not in seen:
        # what is small is kept as it prints; a number may share its id with another
        inner: dict[str, Any] = {}
        if isinstance(thing, Mapping):
            inner = {f"{path}[{key!r}]": value for key, value in thing.items()}
        elif isinstance(thing, list | tuple | set):
            inner = {f"{path}[{i}]": value for i, value in enumerate(thing)}
        elif isinstance(thing, nn.Module) or (hasattr(thing, "__dict__") and not callable(thing)):
            inner = {f"{path}.{key}": value for key, value in vars(thing).items()}
        else:
            yield path, repr(thing)
            return
        seen.add(id(thing))
        for where, value in inner.items():
            yield from _walk(value, where, seen)
