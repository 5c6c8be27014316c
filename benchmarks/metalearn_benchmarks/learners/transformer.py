"""A small transformer (Vaswani et al., 2017), with layer norm before each part, for numbers or for tokens.

It is written in matrix products, softmax and layer norm, which torch differentiates as often as is asked. So
its meta-gradients are exact under both orders, and its tasks and seeds are batched and compiled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metalearn_benchmarks.learners.images.classifier import accuracy, cross_entropy, require_integers
from metalearn_benchmarks.learners.perceptron import MAX_PARAMETERS, mean_squared_error
from metalearn_core import BaseLearner, UsageError, unknown

POOLINGS = ("last", "mean")
LOSSES = ("squared", "cross-entropy")


class Attention(nn.Module):
    """softmax(QKᵀ/√d) V, several heads side by side.

    Args:
        width: Features of a position.
        heads: Heads, each of `width / heads` features.
        causal: Whether a position attends to itself and those before it alone.
    """

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, present: Tensor | None) -> Tensor:
        """Attend: `[n, length, width]`; `present` `[n, length]` tells positions from padding."""
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(-2, -3)
            for part in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        least = torch.finfo(scores.dtype).min  # minus infinity would have no gradient where all are hidden
        if self.causal:
            past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).tril()
            scores = scores.masked_fill(~past, least)
        if present is not None:
            scores = scores.masked_fill(~present[:, None, None, :], least)
        joined: Tensor = self.out((scores.softmax(-1) @ value).transpose(-2, -3).flatten(-2))
        return joined


class Block(nn.Module):
    """x + attention(norm(x)), then x + network(norm(x)) with a hidden layer four times as wide."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width, heads, causal)
        self.network_norm = nn.LayerNorm(width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, present: Tensor | None) -> Tensor:
        """`[n, length, width]` to the same."""
        x = x + self.attention(self.attention_norm(x), present)
        moved: Tensor = x + self.network(self.network_norm(x))
        return moved


class Positions(nn.Module):
    """A learned vector for each position, added to what stands there."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, length, width]` to the same."""
        return x + self.weight[: x.shape[-2]]


class Transformer(nn.Module):
    """Sequences to one output each.

    Args:
        embedding: From what stands at a position to `width` features.
        positions: What tells positions apart.
        blocks: The layers.
        head: From the features of one position to the output.
        pooling: `"last"` or `"mean"`.
        like: The shape of a sequence, for messages: `[length]` tokens, or `[length, features]` numbers.
    """

    def __init__(
        self, embedding: nn.Module, positions: Positions, blocks: list[Block], head: nn.Linear, pooling: str,
        like: tuple[int, ...],
    ) -> None:  # fmt: skip
        super().__init__()
        self.embedding, self.positions, self.blocks = embedding, positions, nn.ModuleList(blocks)
        self.norm, self.head = nn.LayerNorm(head.in_features), head
        self.pooling, self.like = pooling, like

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Compute `[n, outputs]`.

        Args:
            inputs: Numbers `[n, length, features]` or tokens `[n, length]`. Or a dict with these as
                `sequence`, and `present`, booleans `[n, length]` that are False where a sequence is padded.

        Raises:
            UsageError: The sequences are longer, or of another kind, than those that it was made for.
        """
        present = None if isinstance(inputs, Tensor) else inputs["present"]
        sequence = inputs if isinstance(inputs, Tensor) else inputs["sequence"]
        self._require(sequence)
        x = self.positions(self.embedding(sequence))
        for block in self.blocks:
            x = block(x, present)
        output: Tensor = self.head(self._pooled(self.norm(x), present))
        return output

    def _pooled(self, x: Tensor, present: Tensor | None) -> Tensor:
        """One position's features for each sequence, `[n, width]`."""
        if present is None:
            return x[:, -1] if self.pooling == "last" else x.mean(1)
        counted = present.cumsum(-1)
        if self.pooling == "last":
            weights = (present & (counted == counted[:, -1:])).to(x.dtype)
        else:
            weights = present.to(x.dtype) / counted[:, -1:].clamp(min=1)
        return (weights.unsqueeze(-1) * x).sum(1)

    def _require(self, sequence: Tensor) -> None:
        kind = "tokens (int64)" if len(self.like) == 1 else "numbers"
        fits = sequence.is_floating_point() == (len(self.like) == 2)
        if not fits or sequence.ndim != 1 + len(self.like) or sequence.shape[2:] != self.like[1:]:
            raise UsageError(
                f"a transformer made for {kind} [n, {', '.join(map(str, self.like))}] got {sequence.dtype}"
                f" {list(sequence.shape)}; give its features, or its tokens, those of the family"
            )
        if sequence.shape[1] > self.like[0]:
            raise UsageError(
                f"a transformer made for sequences of {self.like[0]} positions got one of"
                f" {sequence.shape[1]}; give it a larger length"
            )


def transformer(
    features: int = 1, length: int = 16, outputs: int = 1, tokens: int = 0, width: int = 32, heads: int = 4,
    layers: int = 2, causal: bool = False, pooling: str = "last", loss: str = "squared",
) -> BaseLearner:  # fmt: skip
    """Build a small transformer, under the mean squared error or under cross entropy, scored by accuracy.

    Inputs are sequences of numbers `[n, length, features]`, or of tokens, int64 `[n, length]`; targets are
    `[n, outputs]`, or classes, int64 `[n]`. Inputs may also be a dict: see `Transformer.forward`.

    Args:
        features: Numbers at a position.
        length: Positions of the longest sequence.
        outputs: Features of an output, or classes.
        tokens: How many tokens there are; 0 for sequences of numbers.
        width: Features of a position inside.
        heads: Heads of attention; they divide the width.
        layers: Blocks of attention and of a network.
        causal: Whether a position attends to itself and those before it alone.
        pooling: What the output is computed from: "last", the last position, or "mean", the mean of all.
        loss: "squared" or "cross-entropy".

    Raises:
        UsageError: An option makes no sense.
    """
    given = {"features": features, "length": length, "outputs": outputs, "width": width}
    require_integers({**given, "heads": heads, "layers": layers}, {})
    require_integers({"tokens": tokens}, {"tokens": 0})
    for name, value, known in (("pooling", pooling, POOLINGS), ("loss", loss, LOSSES)):
        if value not in known:
            raise unknown(name, str(value), known)
    if width % heads:
        raise UsageError(f"heads must divide the width, got {heads} heads and a width of {width}")
    size = 12 * layers * width**2 + (tokens + features + length + outputs) * width
    if size > MAX_PARAMETERS:
        raise UsageError(f"these options make about {size:,} parameters, and the most is {MAX_PARAMETERS:,}")
    module = Transformer(
        nn.Embedding(tokens, width) if tokens else nn.Linear(features, width),
        Positions(length, width),
        [Block(width, heads, causal) for _ in range(layers)],
        nn.Linear(width, outputs),
        pooling,
        (length,) if tokens else (length, features),
    )
    if loss == "squared":
        return BaseLearner(module, mean_squared_error)
    return BaseLearner(module, cross_entropy, accuracy)
