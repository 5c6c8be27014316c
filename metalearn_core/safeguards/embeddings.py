"""Embeddings: with a padding row right for several tasks at once, with `max_norm` refused."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from metalearn_core.errors import UsageError


class PaddedEmbedding(nn.Embedding):
    """The same layer. Torch itself spares the padding's row in the first task of a batch alone."""

    def _get_name(self) -> str:
        return nn.Embedding.__name__

    def forward(self, indices: Tensor) -> Tensor:
        """As `nn.Embedding` has it."""
        rows = torch.arange(self.num_embeddings, device=self.weight.device).unsqueeze(1)
        weight = torch.where(rows.eq(self.padding_idx or 0), self.weight.detach(), self.weight)
        return embedding(indices, weight, scale_grad_by_freq=self.scale_grad_by_freq, sparse=self.sparse)


def mend_embeddings(module: nn.Module) -> None:
    """Make every embedding with a padding row one that may be batched; subclasses stay as they are.

    Raises:
        UsageError: for one with `max_norm`, which writes into its own weights.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None:
            raise UsageError(
                f"BaseLearner: {type(part).__name__} {name!r} has max_norm, with which its forward writes"
                " into its own weights; build it without max_norm"
            )
        if type(part) is nn.Embedding and part.padding_idx is not None:
            part.__class__ = PaddedEmbedding
