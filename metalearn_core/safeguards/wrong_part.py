"""Which part of a module torch batches wrongly: each by itself, on the inputs that it has in the whole."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils import _pytree as pytree

from metalearn_core.learner import BaseLearner
from metalearn_core.safeguards.pure_forward import kind_and_path

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""


def wrong_part(learner: BaseLearner, thetas: Tensor, data: Sequence[Any]) -> str | None:
    """The innermost part, the first one called, that differs together and alone; None where none does.

    Args:
        learner: the base-learner.
        thetas: `[tasks, n]`.
        data: inputs, targets and context, leading with `[tasks]`.
    """
    modules = [learner.module_at(theta) for theta in thetas]
    inputs, _, *support = data
    calls = []
    for task, module in enumerate(modules):
        own = [pytree.tree_map_only(Tensor, lambda x: x[task].clone(), part) for part in (inputs, *support)]  # noqa: B023
        calls.append(_calls(module, own))
    for path in calls[0]:  # in the order in which they have answered
        parts = [module.get_submodule(path) for module in modules]
        with suppress(Exception):  # such as of arguments that are no tensors
            if not _agree(parts, [found[path] for found in calls]):
                return kind_and_path(modules[0], path)
    return None


def _calls(module: nn.Module, arguments: Sequence[Any]) -> dict[str, Call]:
    """What each part is called with, the last time, in the order in which they answer."""
    found: dict[str, Call] = {}
    handles = []
    for path, part in module.named_modules():

        def keep(_: nn.Module, positional: Any, named: Any, __: object, path: str = path) -> None:
            found[path] = pytree.tree_map_only(Tensor, lambda x: x.detach().clone(), (positional, named))

        handles.append(part.register_forward_hook(keep, with_kwargs=True))
    module(*arguments)
    for handle in handles:
        handle.remove()
    return found


def _agree(parts: Sequence[nn.Module], calls: Sequence[Call]) -> bool:
    """Whether values and gradients of a part are the same for all tasks together and for each alone."""
    leaves, structures = zip(*(pytree.tree_flatten(call) for call in calls), strict=True)
    given = [torch.stack(column) for column in zip(*leaves, strict=True)]
    values = [torch.stack(column) for column in zip(*(part.parameters() for part in parts), strict=True)]
    names = [name for name, _ in parts[0].named_parameters()]
    wanted = [x.detach().requires_grad_(x.is_floating_point()) for x in (*values, *given)]

    def total(*tensors: Tensor) -> Tensor:
        own = dict(zip(names, tensors, strict=False))
        positional, named = pytree.tree_unflatten(list(tensors[len(names) :]), structures[0])
        answer = functional_call(parts[0], own, positional, named)
        found = [x for x in pytree.tree_leaves(answer) if isinstance(x, Tensor)]
        terms = [(x * torch.arange(x.numel()).cos().to(x).view(x.shape)).sum() for x in found]
        return torch.stack(terms).sum()

    alone = torch.stack([total(*(x[task] for x in wanted)) for task in range(len(parts))])
    together = vmap(total)(*wanted)
    grads = [
        torch.autograd.grad(found.sum(), [x for x in wanted if x.requires_grad], allow_unused=True)
        for found in (alone, together)
    ]
    pairs = [(alone.detach(), together.detach()), *zip(*grads, strict=True)]
    return all(x is y or torch.allclose(x, y, rtol=1e-3, atol=1e-3 * float(x.abs().max())) for x, y in pairs)
