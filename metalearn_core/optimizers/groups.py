"""What a group of a `LearnedOptimizer` may hold, and in which order its parameters must come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from metalearn_core.errors import UsageError
from metalearn_core.rule import UpdateRule
from metalearn_core.training.parameters import ParameterLayout

KNOWN = {
    *("params", "param_names", "lr", "name"),
    # schedulers keep their own numbers in a group
    *("initial_lr", "max_lr", "min_lr", "swa_lr", "lr_scale"),
}
"""The keys that a group may have, whatever their values."""
REFUSED = {
    "maximize": "negate the loss",
    "weight_decay": "add it to the loss",
    "differentiable": "differentiate through the steps with higher.innerloop_ctx, or with adapt",
    **dict.fromkeys(("foreach", "fused"), "leave it out: the whole of θ is updated at once anyway"),
    "capturable": "leave it out: a step cannot be captured in a CUDA graph",
    **dict.fromkeys(
        ("momentum", "dampening", "nesterov", "betas", "eps", "alpha", "amsgrad"),
        "give it to the rule, where that has such an option",
    ),
}
"""torch's options that a group cannot have, but that it may switch off; and what to do instead."""


def require_options(group: Mapping[str, Any]) -> None:
    """UsageError for an option of a group that nothing would read, and for an `lr` that is no factor."""
    for option in sorted(group.keys() - KNOWN):
        if option not in REFUSED:
            raise UsageError(f"LearnedOptimizer: a group has no option {option!r}; the rule has its own")
        if group[option]:
            raise UsageError(
                f"LearnedOptimizer: a group has no option {option!r}, got {group[option]!r:.40};"
                f" {REFUSED[option]}"
            )
    rate = group.get("lr", 1.0)
    if isinstance(rate, Tensor):
        if rate.numel() != 1:
            raise UsageError(f"LearnedOptimizer: Tensor lr must be 1-element, got shape {tuple(rate.shape)}")
        if rate.requires_grad:
            raise UsageError(
                "LearnedOptimizer: lr is a constant; a step size that is learned belongs to the rule"
            )
        rate = rate.item()
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not number or not 0 <= rate < math.inf:
        raise UsageError(
            f"LearnedOptimizer: lr must be a number >= 0, got {rate!r:.40}; a factor on the rule's step,"
            " of which 1.0 takes the whole"
        )


def plain_name(name: str) -> str:
    """The name of a parameter without what DistributedDataParallel and torch.compile put before it."""
    for wrapper in ("_orig_mod.", "module."):
        name = name.removeprefix(wrapper)
    return name


def require_same_parameters(
    what: str, wanted: ParameterLayout, found: ParameterLayout, *, named: bool, remedy: str
) -> None:
    """UsageError, with the first difference, unless two layouts agree in order; `named`: by name too."""
    pairs: Sequence[Sequence[tuple[str, tuple[int, ...]]]] = [
        [(plain_name(n) if named else "", s) for n, s in zip(layout.names, layout.shapes, strict=True)]
        for layout in (wanted, found)
    ]
    if pairs[0] == pairs[1]:
        return
    if len(pairs[0]) != len(pairs[1]):
        told = f"{len(pairs[0])} parameters, and there are {len(pairs[1])}"
    else:
        place = next(i for i, (a, b) in enumerate(zip(*pairs, strict=True)) if a != b)
        (name, shape), (other, got) = pairs[0][place], pairs[1][place]
        told = f"{name} {list(shape)} in place {place}, and {other} {list(got)} is there".replace("  ", " ")
    raise UsageError(f"LearnedOptimizer: {what} {told.strip()}; {remedy}")


def require_made_for(rule: UpdateRule, layout: ParameterLayout, *, named: bool) -> None:
    """UsageError where a rule that depends on its layout was made for another one, as far as is known."""
    if rule.coordinatewise or rule.made_for is None:
        return
    require_same_parameters(
        f"rule {rule.label} was made for", rule.made_for, layout, named=named,
        remedy="give the parameters in the order of its layout, or make the rule for these"
        + ("; without names, shapes alone are compared" if named else ""),
    )  # fmt: skip


def require_one_kind(params: Sequence[Tensor]) -> None:
    """UsageError unless the parameters can be one vector."""
    kinds = sorted({f"{p.dtype} on {p.device}" for p in params})
    if len(kinds) != 1:
        raise UsageError(
            "LearnedOptimizer: it needs parameters that require a gradient, of one dtype on one device,"
            f" got {' and '.join(kinds) or 'none'}"
        )
    if any(hasattr(parameter, "device_mesh") for parameter in params):
        raise UsageError(
            "LearnedOptimizer: these parameters are sharded (DTensor), and a rule sees the whole of θ; use"
            " DistributedDataParallel"
        )
