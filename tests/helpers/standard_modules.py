"""Standard layers and losses of torch, each small and with what it is tried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn import functional as F


class Affine(nn.Module):
    """A scale and a shift, so that a layer without parameters has something to adapt before it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(0.9)), nn.Parameter(torch.tensor(0.1))

    def forward(self, x):
        return self.scale * x + self.shift


class First(nn.Module):
    """The first of what a layer returns: the outputs of a recurrent layer, of attention, of a pooling."""

    def __init__(self, layer, *, repeat: int = 1) -> None:
        super().__init__()
        self.layer, self.repeat = layer, repeat

    def forward(self, x):
        answer = self.layer(*[x] * self.repeat)
        return answer[0] if isinstance(answer, tuple) else answer


class Two(nn.Module):
    """A layer with two inputs."""

    def __init__(self, layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x, x.flip(0))


class Unpooled(nn.Module):
    def __init__(self, pool, unpool) -> None:
        super().__init__()
        self.before, self.pool, self.unpool = Affine(), pool, unpool

    def forward(self, x):
        return self.unpool(*self.pool(self.before(x)))


@attrs.frozen
class Case:
    """A module, the shape of its inputs `[examples, *shape]`, and a loss."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (4,)
    loss: Callable[..., Any] = F.mse_loss
    target: str = "like"
    tokens: int | None = None
    positive: bool = False


def after(layer: nn.Module) -> nn.Module:
    return nn.Sequential(Affine(), layer)


def _layers() -> dict[str, Case]:
    found = {
        "Linear": Case(lambda: nn.Linear(4, 3)),
        "Linear-no-bias": Case(lambda: nn.Linear(4, 3, bias=False)),
        "Bilinear": Case(lambda: Two(nn.Bilinear(4, 4, 3))),
        "Identity": Case(lambda: after(nn.Identity())),
        "Flatten": Case(lambda: after(nn.Flatten()), (2, 3)),
        "Unflatten": Case(lambda: after(nn.Unflatten(1, (2, 2)))),
        "Embedding": Case(lambda: nn.Embedding(7, 3), (3,), tokens=7),
        "Embedding-padding": Case(lambda: nn.Embedding(7, 3, padding_idx=2), (3,), tokens=7),
        "Embedding-scaled": Case(lambda: nn.Embedding(7, 3, scale_grad_by_freq=True), (3,), tokens=7),
        "Embedding-max-norm": Case(lambda: nn.Embedding(7, 3, max_norm=1.0), (3,), tokens=7),
        "EmbeddingBag-mean": Case(lambda: nn.EmbeddingBag(7, 3), (3,), tokens=7),
        "EmbeddingBag-sum": Case(lambda: nn.EmbeddingBag(7, 3, mode="sum"), (3,), tokens=7),
        "EmbeddingBag-max": Case(lambda: nn.EmbeddingBag(7, 3, mode="max"), (3,), tokens=7),
        "EmbeddingBag-padding": Case(
            lambda: nn.EmbeddingBag(7, 3, mode="sum", padding_idx=2), (3,), tokens=7
        ),
        "CosineSimilarity": Case(lambda: nn.Sequential(Affine(), Two(nn.CosineSimilarity()))),
        "PairwiseDistance": Case(lambda: nn.Sequential(Affine(), Two(nn.PairwiseDistance()))),
        "Dropout-0": Case(lambda: after(nn.Dropout(0.0))),
        "Dropout-eval": Case(lambda: after(nn.Dropout(0.5)).eval()),
        "PixelShuffle": Case(lambda: after(nn.PixelShuffle(2)), (4, 2, 2)),
        "PixelUnshuffle": Case(lambda: after(nn.PixelUnshuffle(2)), (1, 4, 4)),
        "ChannelShuffle": Case(lambda: after(nn.ChannelShuffle(2)), (4, 2, 2)),
        "Fold": Case(lambda: after(nn.Fold((3, 3), (2, 2))), (4, 4)),
        "Unfold": Case(lambda: after(nn.Unfold((2, 2))), (1, 3, 3)),
        "weight_norm": Case(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))),
        "orthogonal": Case(lambda: nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)), (3,)),
        "spectral_norm": Case(lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))),
    }
    for n, size in ((1, (5,)), (2, (4, 4)), (3, (3, 3, 3))):
        shape = (2, *size)

        def case(kind, *args, shape=shape, n=n, **options):
            return Case(lambda: getattr(nn, f"{kind}{n}d")(*args, **options), shape)

        def wrapped(kind, *args, shape=shape, n=n, **options):
            return Case(lambda: after(getattr(nn, f"{kind}{n}d")(*args, **options)), shape)

        found |= {
            f"Conv{n}d": case("Conv", 2, 3, 2),
            f"Conv{n}d-groups-stride": case("Conv", 2, 4, 2, groups=2, stride=2, padding=1),
            f"ConvTranspose{n}d": case("ConvTranspose", 2, 3, 2, stride=2),
            f"MaxPool{n}d": wrapped("MaxPool", 2),
            f"AvgPool{n}d": wrapped("AvgPool", 2),
            f"AdaptiveAvgPool{n}d": wrapped("AdaptiveAvgPool", 2),
            f"AdaptiveMaxPool{n}d": wrapped("AdaptiveMaxPool", 2),
            f"LPPool{n}d": Case(lambda n=n: after(getattr(nn, f"LPPool{n}d")(2, 2)), shape, positive=True),
            f"ZeroPad{n}d": wrapped("ZeroPad", 1),
            f"ConstantPad{n}d": wrapped("ConstantPad", 1, 0.5),
            f"ReflectionPad{n}d": wrapped("ReflectionPad", 1),
            f"ReplicationPad{n}d": wrapped("ReplicationPad", 1),
            f"CircularPad{n}d": wrapped("CircularPad", 1),
            f"BatchNorm{n}d-batch": case("BatchNorm", 2, track_running_stats=False),
            f"BatchNorm{n}d-eval": Case(
                lambda n=n: nn.Sequential(getattr(nn, f"BatchNorm{n}d")(2)).eval(), shape
            ),
            f"BatchNorm{n}d-running": case("BatchNorm", 2),
            f"InstanceNorm{n}d": case("InstanceNorm", 2, affine=True),
            f"MaxUnpool{n}d": Case(
                lambda n=n: Unpooled(
                    getattr(nn, f"MaxPool{n}d")(2, return_indices=True), getattr(nn, f"MaxUnpool{n}d")(2)
                ),
                (2, *(4,) * n),
            ),
            f"Dropout{n}d-0": Case(lambda n=n: after(getattr(nn, f"Dropout{n}d")(0.0)), shape),
        }
    for mode, n in (("nearest", 1), ("linear", 1), ("bilinear", 2), ("bicubic", 2), ("trilinear", 3)):
        found[f"Upsample-{mode}"] = Case(
            lambda mode=mode: after(nn.Upsample(scale_factor=2, mode=mode)), (2, *(3,) * n)
        )
    found |= {
        "FractionalMaxPool2d": Case(lambda: after(nn.FractionalMaxPool2d(2, output_size=2)), (2, 4, 4)),
        "LayerNorm": Case(lambda: nn.LayerNorm(4)),
        "GroupNorm": Case(lambda: nn.GroupNorm(2, 4), (4, 3)),
        "RMSNorm": Case(lambda: nn.RMSNorm(4)),
        "LocalResponseNorm": Case(lambda: after(nn.LocalResponseNorm(2)), (4, 3)),
        "CrossMapLRN2d": Case(lambda: after(nn.CrossMapLRN2d(2)), (4, 3, 3)),
        "RNNCell": Case(lambda: nn.RNNCell(4, 3)),
        "LSTMCell": Case(lambda: First(nn.LSTMCell(4, 3))),
        "GRUCell": Case(lambda: nn.GRUCell(4, 3)),
        "RNN": Case(lambda: First(nn.RNN(4, 3, batch_first=True)), (3, 4)),
        "LSTM": Case(lambda: First(nn.LSTM(4, 3, batch_first=True)), (3, 4)),
        "GRU": Case(lambda: First(nn.GRU(4, 3, batch_first=True)), (3, 4)),
        "LSTM-two-layers": Case(lambda: First(nn.LSTM(4, 3, num_layers=2, batch_first=True)), (3, 4)),
        "MultiheadAttention": Case(
            lambda: First(nn.MultiheadAttention(4, 2, batch_first=True), repeat=3), (3, 4)
        ),
        "TransformerEncoderLayer": Case(
            lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), (3, 4)
        ),
        "TransformerEncoder": Case(
            lambda: nn.TransformerEncoder(
                nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), 2,
                enable_nested_tensor=False,
            ),
            (3, 4),
        ),
        "TransformerDecoderLayer": Case(
            lambda: First(nn.TransformerDecoderLayer(4, 2, 8, dropout=0.0, batch_first=True), repeat=2),
            (3, 4),
        ),
    }  # fmt: skip
    return found


ACTIVATIONS = (
    "CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid",
    "Mish", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softshrink", "Softsign", "Tanh",
    "Tanhshrink",
)  # fmt: skip


def _activations() -> dict[str, Case]:
    found = {name: Case(lambda name=name: after(getattr(nn, name)())) for name in ACTIVATIONS}
    return found | {
        "PReLU": Case(lambda: nn.Sequential(nn.Linear(4, 4), nn.PReLU(4))),
        "RReLU-eval": Case(lambda: after(nn.RReLU()).eval()),
        "RReLU": Case(lambda: after(nn.RReLU())),
        "GLU": Case(lambda: after(nn.GLU())),
        "Threshold": Case(lambda: after(nn.Threshold(0.1, 0.2))),
        "Softmax": Case(lambda: after(nn.Softmax(1))),
        "Softmin": Case(lambda: after(nn.Softmin(1))),
        "Softmax2d": Case(lambda: after(nn.Softmax2d()), (2, 3, 3)),
        "LogSoftmax": Case(lambda: after(nn.LogSoftmax(1))),
        "ReLU-inplace-on-inputs": Case(lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3))),
        "ReLU-inplace": Case(lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))),
    }


def _losses() -> dict[str, Case]:
    linear = lambda: nn.Linear(4, 3)  # noqa: E731
    classes = {
        "CrossEntropyLoss": nn.CrossEntropyLoss(),
        "CrossEntropyLoss-smoothing": nn.CrossEntropyLoss(label_smoothing=0.1),
        "CrossEntropyLoss-ignore": nn.CrossEntropyLoss(ignore_index=1),
        "CrossEntropyLoss-weight": nn.CrossEntropyLoss(
            weight=torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
        ),
        "MultiMarginLoss": nn.MultiMarginLoss(),
    }
    real = {
        "MSELoss": nn.MSELoss(), "L1Loss": nn.L1Loss(), "SmoothL1Loss": nn.SmoothL1Loss(),
        "HuberLoss": nn.HuberLoss(),
    }  # fmt: skip
    binary = {
        "BCEWithLogitsLoss": nn.BCEWithLogitsLoss(),
        "MultiLabelSoftMarginLoss": nn.MultiLabelSoftMarginLoss(),
    }
    signs = {"SoftMarginLoss": nn.SoftMarginLoss(), "HingeEmbeddingLoss": nn.HingeEmbeddingLoss()}
    found = {name: Case(linear, loss=loss, target="classes") for name, loss in classes.items()}
    found |= {name: Case(linear, loss=loss) for name, loss in real.items()}
    found |= {name: Case(linear, loss=loss, target="binary") for name, loss in binary.items()}
    found |= {name: Case(linear, loss=loss, target="signs") for name, loss in signs.items()}
    log_softmax = lambda: nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1))  # noqa: E731
    two = lambda how: lambda p, t: how(p, t, torch.ones_like(p[:, 0]))  # noqa: E731
    return found | {
        "NLLLoss": Case(log_softmax, loss=nn.NLLLoss(), target="classes"),
        "KLDivLoss": Case(log_softmax, loss=nn.KLDivLoss(reduction="batchmean"), target="positive"),
        "BCELoss": Case(
            lambda: nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()), loss=nn.BCELoss(), target="binary"
        ),
        "PoissonNLLLoss": Case(linear, loss=nn.PoissonNLLLoss(), target="positive"),
        "GaussianNLLLoss": Case(linear, loss=lambda p, t: F.gaussian_nll_loss(p, t, torch.ones_like(p))),
        "CosineEmbeddingLoss": Case(linear, loss=two(F.cosine_embedding_loss)),
        "MarginRankingLoss": Case(
            linear, loss=lambda p, t: F.margin_ranking_loss(p, t, torch.ones_like(p), margin=0.3)
        ),
        "TripletMarginLoss": Case(linear, loss=lambda p, t: F.triplet_margin_loss(p, t, t.flip(0))),
        "MultiLabelMarginLoss": Case(linear, loss=nn.MultiLabelMarginLoss(), target="labels"),
        "CTCLoss": Case(
            lambda: nn.Sequential(nn.Linear(4, 5), nn.LogSoftmax(-1)),
            (6, 4),
            loss=lambda p, t: F.ctc_loss(
                p.transpose(0, 1), t, torch.full((len(t),), 6), torch.full((len(t),), 2)
            ),
            target="sequences",
        ),
    }


CASES = {**_layers(), **_activations(), **_losses()}
