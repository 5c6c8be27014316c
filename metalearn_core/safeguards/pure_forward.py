"""Whether a module only computes: its forward writes into no input and changes nothing that it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metalearn_core.errors import UsageError

State = dict[tuple[str, str], object]
"""What a module keeps, by the path of the submodule and the name of the attribute."""

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def require_pure(
    module: nn.Module, fresh: nn.Module, arguments: Sequence[Any], others: tuple[Sequence[Any], Sequence[Any]]
) -> None:
    """Call a module with some arguments and then with others, and a fresh copy with the others alone.

    What both keep then is the same, unless an answer depends on the calls before it. A module that fails is
    left to the run, which calls it too and tells that in its own words.

    Args:
        module: a copy of the module.
        fresh: another copy, with the parameters that the second call is made with.
        arguments: what the module is called with first; they may be written to.
        others: two copies of the arguments of the second call.

    Raises:
        UsageError: naming the submodule that writes into the arguments, or that keeps something.
    """
    try:
        with _writers(module, arguments) as writers:
            module(*arguments)
        with torch.no_grad():
            for own, other in zip(module.parameters(), fresh.parameters(), strict=True):
                own.copy_(other)
        module(*others[0])
        fresh(*others[1])
    except Exception:  # a stranger's code raises what it likes
        return
    who = f"base-learner {type(module).__name__}"
    if writers:
        raise UsageError(
            f"{who}: {kind_and_path(module, writers[0])} writes into its inputs, which are the caller's own"
            f" tensors; {_instead_of_writing(module.get_submodule(writers[0]))}"
        )
    for path, attribute in changed_names(kept_state(fresh), kept_state(module))[:1]:
        raise UsageError(
            f"{who}: {kind_and_path(module, path)} changes its {attribute!r} in forward, so that an answer"
            f" depends on the calls before; {_instead_of_changing(module.get_submodule(path))}"
        )


def kind_and_path(module: nn.Module, path: str) -> str:
    """The class of a submodule, and where it is: `Embedding '0'`."""
    kind = type(module.get_submodule(path)).__name__
    return f"{kind} {path!r}" if path else kind


def _instead_of_writing(module: nn.Module) -> str:
    if getattr(module, "inplace", False):
        return "build it with inplace=False"
    return "compute a new tensor (x = x - 1, not x -= 1 or x.sub_(1))"


def _instead_of_changing(module: nn.Module) -> str:
    if type(module).__module__.startswith("torch."):
        return "call .eval() on it, then it keeps what it has"
    return (
        "keep no running statistics and no counts, or change them only `if self.training` and call .eval() on"
        " the module"
    )


@contextmanager
def _writers(module: nn.Module, arguments: Sequence[Any]) -> Iterator[list[str]]:
    """In it, the paths of the submodules that write into the arguments; the innermost comes first."""
    tensors = [x for x in pytree.tree_leaves(list(arguments)) if isinstance(x, Tensor)]
    found: list[str] = []
    before: dict[str, list[tuple[int, Tensor]]] = {}

    def enter(path: str) -> Callable[..., None]:
        def look(*_: object) -> None:
            before[path] = [(x._version, x.clone()) for x in tensors]

        return look

    def leave(path: str) -> Callable[..., None]:
        def look(*_: object) -> None:
            for x, (version, value) in zip(tensors, before[path], strict=True):
                # what is written through .data raises no version
                if x._version != version or not same_bits(x, value):
                    found.append(path)

        return look

    handles = [
        handle
        for path, part in module.named_modules()
        for handle in (part.register_forward_pre_hook(enter(path)), part.register_forward_hook(leave(path)))
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, a NaN to a NaN."""
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())


def kept_state(thing: nn.Module) -> State:
    """Buffers and own attributes of all submodules: values, not references."""
    kept = {
        (path, name): _value(value)
        for path, part in thing.named_modules()
        for name, value in vars(part).items()
        if name not in _OF_EVERY_MODULE
    }
    # a buffer is a constant: one that is written is not, even where the same value is written again
    buffers = {
        (path, name): [buffer._version, _value(buffer)]
        for path, part in thing.named_modules()
        for name, buffer in part._buffers.items()
        if buffer is not None
    }
    return {**kept, **buffers}


def _value(value: Any, depth: int = 3) -> object:
    """Something to compare later: tensors are copied, containers taken apart, unknown objects left out."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, torch.Generator):
        return value.get_state()
    if depth and isinstance(value, dict):
        return [(repr(key), _value(x, depth - 1)) for key, x in value.items()]
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_value(x, depth - 1) for x in value]
    return len(value) if hasattr(value, "__len__") and not isinstance(value, nn.Module) else None


def changed_names(before: State, after: State) -> list[tuple[str, str]]:
    """Where two states differ."""
    return [key for key in {**before, **after} if not _same(before.get(key), after.get(key))]


def _same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return same_bits(one, other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other or one != one)
