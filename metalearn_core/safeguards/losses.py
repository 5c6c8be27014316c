"""What a base-learner's loss is given and returns: shapes before, and why it failed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from metalearn_core.errors import UsageError


def one_number(who: str, name: str, value: object) -> Tensor:
    """The value of a loss or a score; UsageError unless it is a tensor without axes."""
    if not isinstance(value, Tensor) or value.ndim:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.60}"
        raise UsageError(
            f"{who}: {name} must return one number, a mean over all elements as a tensor, got {got}"
        )
    return value


ELEMENTWISE = {
    "sub", "rsub", "__sub__", "__rsub__", "subtract", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div", "poisson_nll_loss",
}  # fmt: skip
"""What compares a prediction with its target element by element, and stretches the smaller of them."""

IGNORED = -100
"""The label that torch's losses leave out."""


class _Comparing(TorchFunctionMode):
    """In it, a prediction and targets of different shapes are not compared element by element."""

    def __init__(self, prediction: Tensor, targets: Tensor) -> None:
        super().__init__()
        self.like = [prediction], [targets]  # and what is made of one of them alone, in its shape

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        given = [*args, *(kwargs or {}).values()]
        used = [like for like in self.like if any(x is one for x in given for one in like)]
        if len(used) == 2 and getattr(func, "__name__", "") in ELEMENTWISE:
            raise unlike(*(like[0] for like in self.like))
        answer = func(*args, **(kwargs or {}))
        if len(used) == 1 and isinstance(answer, Tensor) and answer.shape == used[0][0].shape:
            used[0].append(answer)
        return answer


def unlike(prediction: Tensor, targets: Tensor) -> UsageError:
    """The error for a prediction and targets that would be stretched to each other's shape in silence."""
    return UsageError(f"BaseLearner: {unlike_shapes(prediction, targets)}")


def unlike_shapes(prediction: Tensor, targets: Tensor) -> str:
    """What is wrong with a prediction and targets of different shapes, and what to do."""
    shapes = f"prediction has shape {tuple(prediction.shape)} and targets {tuple(targets.shape)}"
    return f"{shapes}; give them the same shape"


@contextmanager
def comparing(prediction: object, targets: object) -> Iterator[None]:
    """In it a loss is computed: UsageError where shapes that differ would be stretched to one in silence."""
    watched: Any = nullcontext()
    if isinstance(prediction, Tensor) and isinstance(targets, Tensor):
        # a [n] target beside an [n, 1] prediction would be stretched to [n, n]
        stretched = prediction.shape != targets.shape and _can_be_stretched(prediction, targets)
        watched = _Comparing(prediction, targets) if stretched else nullcontext()
    with watched:
        yield


def _can_be_stretched(prediction: Tensor, targets: Tensor) -> bool:
    pairs = zip(reversed(prediction.shape), reversed(targets.shape), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


def why_loss_failed(prediction: object, targets: object, error: Exception) -> str:
    """What is wrong with what a loss or score was given, where that is known; else empty. It reads labels."""
    if not isinstance(prediction, Tensor):
        if isinstance(error, RuntimeError):  # torch's own words, of what was taken from it
            return ""
        keys = f" with {', '.join(map(str, prediction))}" if isinstance(prediction, Mapping) else ""
        return f"the module returns a {type(prediction).__name__}{keys}: take from it what is compared"
    if not isinstance(targets, Tensor) or not isinstance(
        error, RuntimeError | IndexError | ValueError | UserWarning
    ):
        return ""
    if not targets.is_floating_point() and targets.shape == (*prediction.shape[:-1], 1):
        return (
            f"targets have shape {tuple(targets.shape)}: labels have no axis for it; use targets.squeeze(-1)"
        )
    if targets.shape != (*prediction.shape[:1], *prediction.shape[2:]) or not targets.numel():
        compared = targets.is_floating_point() and prediction.shape != targets.shape
        return unlike_shapes(prediction, targets) if compared else ""
    labels = f"labels are integers, 0 ... {prediction.shape[1] - 1}"
    if targets.is_floating_point() or targets.dtype == torch.bool:
        return f"targets are {targets.dtype}: {labels}; use targets.long()"
    return _label_outside(targets[targets != IGNORED], prediction.shape[1])


def _label_outside(labels: Tensor, outputs: int) -> str:
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < outputs:
        return ""
    end = f"go up to {high}" if high >= outputs else f"go down to {low}"
    return f"targets {end}, the network has {outputs} outputs: labels are 0 ... {outputs - 1}"
