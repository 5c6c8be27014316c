"""The parameters of a module as one vector θ: where each lies in it, and how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from metalearn_core.errors import UsageError, require_kinds
from metalearn_core.safeguards.locks import GLOBAL_GENERATOR


@attrs.frozen
class ParameterLayout:
    """Where each trainable parameter of a module lies in one vector θ ∈ Rⁿ.

    Args:
        names: the names of the parameters, in their order in θ.
        shapes: the shape of each.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from metalearn_core import ParameterLayout
        >>> layout = ParameterLayout.of(nn.Linear(2, 1))
        >>> layout.names, layout.size
        (('weight', 'bias'), 3)
        >>> layout.unflatten(torch.tensor([1.0, 2.0, 3.0]))
        {'weight': tensor([[1., 2.]]), 'bias': tensor([3.])}
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def __attrs_post_init__(self) -> None:
        whole = isinstance(self.names, tuple) and all(isinstance(name, str) for name in self.names)
        if not whole or len(set(self.names)) < len(self.names):
            raise UsageError(
                f"ParameterLayout: names must be a tuple of different names, got {self.names!r:.60}"
            )
        if not isinstance(self.shapes, tuple) or not all(map(_is_shape, self.shapes)):
            raise UsageError(f"ParameterLayout: shapes must be a tuple of shapes, got {self.shapes!r:.60}")
        if len(self.names) != len(self.shapes):
            raise UsageError(
                f"ParameterLayout: there must be one shape for each name, got {len(self.names)} names and"
                f" {len(self.shapes)} shapes"
            )

    @classmethod
    def of(cls, module: nn.Module) -> ParameterLayout:
        """The layout of the parameters with `requires_grad`, in the module's order."""
        require_kinds("ParameterLayout", module=(module, nn.Module))
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        return cls(tuple(name for name, _ in named), tuple(tuple(p.shape) for _, p in named))

    @property
    def sizes(self) -> list[int]:
        """Number of coordinates of each parameter."""
        return [math.prod(shape) for shape in self.shapes]

    @property
    def size(self) -> int:
        """n, the number of coordinates of θ."""
        return sum(self.sizes)

    @property
    def owner(self) -> Tensor:
        """Of each coordinate the index of its parameter, `[n]`: for what a rule has one of for each."""
        return torch.arange(len(self.names)).repeat_interleave(torch.tensor(self.sizes).long())

    def flatten(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """`{name: tensor}` to `[n]`. Raises UsageError where a name or a shape does not fit."""
        require_kinds("ParameterLayout", parameters=(parameters, Mapping))
        for tensor in parameters.values():
            require_kinds("ParameterLayout", parameter=(tensor, Tensor))
        expected = dict(zip(self.names, self.shapes, strict=True))
        given = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
        if given != expected:
            raise UsageError(f"ParameterLayout: expected parameters {expected}, got {given}")
        if not self.names:
            return torch.empty(0)
        return torch.cat([parameters[name].reshape(-1) for name in self.names])

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """`[..., n]` to `{name: [..., *shape]}`. Raises UsageError where n is another."""
        require_kinds("ParameterLayout", theta=(theta, Tensor))
        if theta.ndim < 1 or theta.shape[-1] != self.size:
            raise UsageError(
                f"ParameterLayout: expected a vector of {self.size} coordinates,"
                f" got shape {tuple(theta.shape)}"
            )
        # split, not slicing: its backward is one concatenation instead of one padded sum per parameter
        parts = torch.split(theta, self.sizes, dim=-1)
        return {
            name: part.reshape((*theta.shape[:-1], *shape))
            for name, shape, part in zip(self.names, self.shapes, parts, strict=True)
        }


def _is_shape(shape: object) -> bool:
    return isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)


@contextmanager
def forked_rng(generator: torch.Generator) -> Iterator[None]:
    """Seed torch's global CPU generator from another one, and put it back as it was afterwards.

    Of several threads one at a time is in it. What another thread draws meanwhile from torch's global
    generator, outside of it, comes from the same seed: give such a thread a generator of its own.

    Args:
        generator: gives the seed, and moves on by one draw.

    Example:
        >>> import torch
        >>> from metalearn_core import forked_rng
        >>> before = torch.get_rng_state()
        >>> with forked_rng(torch.Generator().manual_seed(0)):
        ...     first = torch.randn(3)
        >>> with forked_rng(torch.Generator().manual_seed(0)):
        ...     second = torch.randn(3)
        >>> torch.equal(first, second), torch.equal(before, torch.get_rng_state())
        (True, True)
    """
    require_kinds("forked_rng", generator=(generator, torch.Generator))
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with GLOBAL_GENERATOR.held(), torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which would seed every GPU as well, and leave it so
        torch.default_generator.manual_seed(seed)
        yield


def reset_every_parameter(module: nn.Module) -> None:
    """Call `reset_parameters` of every submodule that has one: torch's own initialisation."""
    for part in module.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            _reset_behind_parametrizations(part, reset)


def _reset_behind_parametrizations(part: nn.Module, reset: Callable[[], object]) -> None:
    """Reset it; what is drawn for a parametrized weight is handed on to the parameters behind it."""
    behind: Any = part.parametrizations if parametrize.is_parametrized(part) else ()
    names = list(behind)
    if not names:
        reset()
        return
    with parametrize.cached():  # so that there is one tensor to write to, not a new one at every look
        drawn = {name: getattr(part, name) for name in names}
        reset()
    for name, value in drawn.items():
        # one that cannot be turned round keeps what is behind it
        with torch.no_grad(), suppress(NotImplementedError, RuntimeError, ValueError):
            setattr(part, name, value.detach())


def keep_parameters(module: nn.Module) -> None:
    """Leave every parameter as it is: the `initialise` of a `BaseLearner` over a pretrained network.

    Args:
        module: the network; nothing is done to it.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from metalearn_core import BaseLearner, keep_parameters
        >>> network = nn.Linear(1, 1)
        >>> _ = nn.init.constant_(network.weight, 7.0), nn.init.constant_(network.bias, 1.0)
        >>> learner = BaseLearner(network, nn.functional.mse_loss, initialise=keep_parameters)
        >>> learner.initial(torch.Generator()).tolist()
        [7.0, 1.0]
    """
