"""Conv-4: four blocks of convolution, batch norm, ReLU and pooling (Vinyals et al., 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from metalearn_benchmarks.learners.images.classifier import classifier, pooled, require_counts
from metalearn_benchmarks.learners.images.layers import BatchNorm, Convolution
from metalearn_benchmarks.learners.images.pooling import max_pool
from metalearn_core import BaseLearner, UsageError


class Block(nn.Module):
    """3×3 convolution, batch norm, ReLU, 2×2 max-pool."""

    def __init__(self, channels: int, width: int, margin: int) -> None:
        super().__init__()
        self.convolution = Convolution(channels, width, 3, margin, bias=True)
        self.norm = BatchNorm(width)

    def forward(self, x: Tensor, count: int | None) -> Tensor:
        x = self.convolution(x)
        # ReLU of the maximum is the maximum of ReLUs, and takes a quarter of the work
        return max_pool(x, *self.norm.scaling(x, count)).relu()


def conv_4(
    ways: int = 5, channels: int = 3, size: int = 84, width: int = 64, padding: int = 1,
    batch_norm: str = "batch", head: str = "linear", scale: float = 2.0,
) -> BaseLearner:  # fmt: skip
    """Conv-4 under cross entropy, scored by accuracy.

    Inputs are float images in [0, 1], `[n, channels, size, size]`; targets are classes, int64 `[n]`.
    Convolutions are drawn as torch draws them, γ = 1, β = 0, the head's bias 0, as in the authors' program.

    Args:
        ways: classes.
        channels, size: of an image, which is a square.
        width: channels of every block.
        padding: 1, the usual form (1,600 features at 84); or 0, that of the authors' program (576 at 84,
            115,973 parameters for 5 classes).
        batch_norm: `"batch"`, statistics of the examples that are evaluated, at test the query set
            (transductive; the paper's); or `"support"`, those of the task's support set, for its query too.
        head: `"linear"`, or `"cosine"` for Baseline++, with its factor `scale`.

    Raises:
        UsageError: for an option that makes no sense, and for images too small for four poolings.
    """
    given = {"ways": ways, "channels": channels, "size": size, "width": width}
    require_counts(given, {"ways": 2})
    if padding not in (0, 1) or isinstance(padding, bool):
        raise UsageError(f"padding must be 0 or 1, got {padding!r}")
    side = pooled(size, 4, 2 - 2 * padding)
    blocks = [Block(before, width, padding) for before in (channels, width, width, width)]
    features, image = width * side**2, (channels, size, size)
    return classifier(
        blocks, features, image, ways=ways, batch_norm=batch_norm, head=head, scale=scale
    )  # fmt: skip
