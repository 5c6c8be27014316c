"""What no base-learner can be made of: modules that change with every call, or that cannot be copied."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from metalearn_core.errors import UsageError

ANOTHER_MASK = "would draw another mask in every inner step"


def refuse_unusable_modules(module: nn.Module) -> None:
    """UsageError, by name, for a module whose answer at the same θ changes, or that cannot be copied."""
    for name, part in module.named_modules():
        for wrong in (*_wrong_hooks(part), *_wrong_part(part)):
            raise UsageError(f"BaseLearner: {type(part).__name__} {name!r} {wrong}")
    dtypes: dict[object, str] = {}
    for name, parameter in module.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise UsageError(
                f"BaseLearner: parameter {name!r} has no shape yet; call the module once on example inputs"
            )
        if parameter.requires_grad:
            dtypes.setdefault(parameter.dtype, name)
    if len(dtypes) > 1:
        given = " and ".join(f"{name!r} of {dtype}" for dtype, name in dtypes.items())
        raise UsageError(
            f"BaseLearner: the parameters must have one dtype, as they are one vector; got {given}; convert"
            " them with .to, or freeze some of them"
        )


def _wrong_part(part: nn.Module) -> Iterator[str]:
    """What is wrong with one part, and what to do."""
    if not part.training:
        return
    if isinstance(part, nn.modules.dropout._DropoutNd) and part.p:
        yield f"{ANOTHER_MASK}; leave it out, give it p=0, or call .eval() on it alone"
    if isinstance(part, nn.MultiheadAttention | nn.RNNBase) and part.dropout:
        yield f"{ANOTHER_MASK}; build it, or the layer that it is in, with dropout=0"
    if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:  # instance norm, too
        yield (
            "would update running statistics inside the inner loop; build it with track_running_stats=False"
            " (batch statistics, as the paper has it) or call .eval() on it"
        )
    if isinstance(part, _SpectralNorm):
        yield "would go on with its power iteration inside the inner loop; call .eval() on it"


def _wrong_hooks(part: nn.Module) -> Iterator[str]:
    """The two norms that torch has replaced: they write a tensor to the module at every call."""
    for hook in part._forward_pre_hooks.values():
        for kind, name in ((WeightNorm, "weight_norm"), (SpectralNorm, "spectral_norm")):
            if isinstance(hook, kind):
                yield (
                    f"has the old torch.nn.utils.{name}, which writes to the module at every call; use"
                    f" torch.nn.utils.parametrizations.{name}"
                    + (", and call .eval() on it" if kind is SpectralNorm else "")
                )
