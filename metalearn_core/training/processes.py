"""Several processes that train one run: each has its share of every meta-batch and the whole of all else.

Meta-gradients, means over a share, are summed weighted by its tasks, so all processes clip and move the same
numbers and stay alike to the bit. This is the one file that speaks to `torch.distributed`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import attrs
import torch
import torch.distributed as dist
from torch import Tensor

from metalearn_core.task import Task

PATIENCE = timedelta(days=1)
"""The first process may have to wait for somebody; that another has died is noticed at once."""


class LostProcessError(Exception):
    """Another process of the run has ended or failed.

    Example:
        >>> from metalearn_core import FailedElsewhereError, LostProcessError
        >>> try:
        ...     raise FailedElsewhereError("another process of this run could not do its part")
        ... except LostProcessError as error:  # both are caught
        ...     print(error)
        another process of this run could not do its part
    """


class FailedElsewhereError(LostProcessError):
    """Another process of the run could not do its part, and is still there.

    Example:
        >>> from metalearn_core import FailedElsewhereError, LostProcessError
        >>> issubclass(FailedElsewhereError, LostProcessError)
        True
    """


class State(Protocol):
    """What all processes must have alike: a `Trained`."""

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint."""

    def contents(self) -> Mapping[str, Any]:
        """All that a checkpoint holds."""

    def take(self, contents: Mapping[str, Any], path: Path, ignoring: Sequence[str]) -> None:
        """Go on from `contents()`, of another in all but what is named in `ignoring`."""


@attrs.define(eq=False)
class Processes:
    """One process among those that train a run; by default it is alone and exchanges nothing.

    Every method raises LostProcessError where another process has ended, and FailedElsewhereError where
    another one could not do its part of what the method is for. An error of its own is raised as it is.

    Args:
        rank: its number; process 0 writes the files and reports.
        count: the number of processes.
        stop: whether it wants all to stop after the next step; may be set at any time.
        stopping: whether one of them wanted so and all know it: their observers may raise KeyboardInterrupt.

    Example:
        >>> import torch
        >>> from metalearn_core import Processes
        >>> alone = Processes()
        >>> alone.each(lambda piece: torch.tensor(piece * 10), range(3))
        [tensor(0), tensor(10), tensor(20)]
    """

    rank: int = 0
    count: int = 1
    stop: bool = False
    stopping: bool = attrs.field(default=False, init=False)

    @classmethod
    def joined(cls, device: torch.device) -> Processes:
        """Meet the others as the environment says (`torchrun` sets it): gloo, and NCCL for CUDA."""
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        _exchange(lambda: dist.init_process_group(backend, timeout=PATIENCE))
        return cls(dist.get_rank(), dist.get_world_size())

    def leave(self) -> None:
        """Part in peace: to be called by all, or by none."""
        if self.count > 1:
            dist.destroy_process_group()

    def mean_over(
        self, task: Task, gradients: Callable[[Task, int], Sequence[Tensor]], like: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """What `gradients`, means over tasks, are for the whole meta-batch; each process takes its share.

        `gradients` gets a share and the place of its first task in the meta-batch.
        `like`: tensors of the shapes that come back, for a process without a share.
        """
        if self.count == 1:
            return gradients(task, 0)
        first, last = (rank * len(task) // self.count for rank in (self.rank, self.rank + 1))
        found, failure = [torch.zeros_like(x) for x in like], None
        if first < last:
            try:
                weight = (last - first) / len(task)
                found = [x.detach() * weight for x in gradients(task[first:last], first)]
            except Exception as error:  # the others wait: they are told first
                failure = error
        signs = found[0].new_tensor([float(failure is not None), float(self.stop)])
        flat = torch.cat([*(x.reshape(-1) for x in found), signs])
        _exchange(lambda: dist.all_reduce(flat))
        *parts, failed, stopping = torch.split(flat, [*(x.numel() for x in found), 1, 1])
        self.stopping = bool(stopping)
        _require_done(failure, bool(failed))
        return [part.view(x.shape) for part, x in zip(parts, like, strict=True)]

    def each(self, work: Callable[[int], Tensor], pieces: Sequence[int]) -> list[Tensor]:
        """What `work` gives for every piece, tensors on the CPU; the pieces go round the processes."""
        if self.count == 1:
            return [work(piece) for piece in pieces]
        own: list[Tensor] | None = None
        failure = None
        try:
            own = [work(piece) for piece in pieces[self.rank :: self.count]]
        except Exception as error:  # the others wait: they are told first
            failure = error
        found: list[Any] = [None] * self.count
        _exchange(lambda: dist.all_gather_object(found, own))
        _require_done(failure, any(parts is None for parts in found))
        return [found[number % self.count][number // self.count] for number in range(len(pieces))]

    def of_first(self, make: Callable[[], Any]) -> Any:
        """What process 0 makes, tensors on the CPU; the others make nothing."""
        if self.count == 1:
            return make()
        held, made, failure = io.BytesIO(), None, None
        if self.rank == 0:
            try:
                made = make()
                torch.save(made, held)
            except Exception as error:  # the others wait: they are told first
                held, failure = io.BytesIO(), error
        box = [held.getvalue()]
        _exchange(lambda: dist.broadcast_object_list(box, 0))
        _require_done(failure, not box[0])
        # what is read was written by this same program
        return torch.load(io.BytesIO(box[0]), map_location="cpu", weights_only=False) if self.rank else made

    def begin(self, state: State, path: Path | None) -> None:
        """Process 0 goes on from a checkpoint, if there is one; all then have the state that it has."""

        def state_of_first() -> Mapping[str, Any]:
            if path is not None and path.exists():
                state.restore(path)
            return state.contents() if self.count > 1 else {}

        contents = self.of_first(state_of_first)
        if self.rank > 0:  # another machine may draw another origin from the same seed
            state.take(contents, Path("of process 0"), ["origin"])


def mean_over_replicas(loss: Tensor, group: Any = None) -> Tensor:
    """The mean of a loss, `[]`, over the processes of a group; None takes all that there are."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
        return loss
    # the sum of many half-precision losses could overflow
    total = loss.to(torch.promote_types(loss.dtype, torch.float32), copy=True)
    _exchange(lambda: dist.all_reduce(total, group=group))
    return (total / dist.get_world_size(group)).to(loss.dtype)


ALONE = Processes()


def _require_done(own: Exception | None, failed: bool) -> None:
    if own is not None:
        raise own
    if failed:
        raise FailedElsewhereError("another process of this run could not do its part")


def _exchange(exchange: Callable[[], object]) -> None:
    try:
        exchange()
    except (RuntimeError, ValueError) as error:  # a connection that is closed
        raise LostProcessError("another process of this run has ended; the same command goes on") from error
