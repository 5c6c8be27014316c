"""The most bytes of tensors alive at one time: what a computation needs, whatever the allocator does."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that counts the tensors made in it.

    Attributes:
        most: the most bytes that were alive at one time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.most = 0, 0
        self.seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operator, and count what it returns."""
        if function is torch.ops.aten._efficientzerotensor.default:
            # forward mode's zeros without a storage: torch 2.13 dies of them under any mode of this kind
            function = torch.ops.aten.zeros.default
        answer = function(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(answer):
            if isinstance(tensor, torch.Tensor):
                self._keep(tensor.untyped_storage())
        return answer

    def _keep(self, storage: torch.UntypedStorage) -> None:
        if storage not in self.seen:
            self.seen.add(storage)
            size = storage.nbytes()
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._drop, size)

    def _drop(self, size: int) -> None:
        self.now -= size
