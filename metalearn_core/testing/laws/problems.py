"""What the laws look at a rule on: small arguments, networks and tasks in float64, always the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from metalearn_core.learner import BaseLearner
from metalearn_core.rule import UpdateRule
from metalearn_core.signal import Noise, Signal, SupportSet, UndeclaredField, noise_keys
from metalearn_core.task import Batch, Task
from metalearn_core.training.parameters import ParameterLayout, forked_rng

MakeRule: TypeAlias = Callable[[ParameterLayout], UpdateRule]
Law: TypeAlias = Callable[[MakeRule], str | None]

LAYOUT = ParameterLayout(("kernel", "weight", "bias"), ((2, 1, 2, 2), (2, 3), (2,)))
"""A convolution's weight, a linear layer's and a bias."""

Given: TypeAlias = tuple[BaseLearner, Tensor, Task]
"""A base-learner, θ⁰ `[n]` and a stacked meta-batch, all in float64."""

_GIVEN: ContextVar[Given | None] = ContextVar("given", default=None)


@contextmanager
def looking_at(given: Given | None) -> Iterator[None]:
    """In it laws look at a rule on this problem, where there is one."""
    token = _GIVEN.set(given)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def is_given() -> bool:
    """Whether a rule is looked at on a problem of its own."""
    return _GIVEN.get() is not None


def layout() -> ParameterLayout:
    """What most laws make a rule for."""
    given = _GIVEN.get()
    return LAYOUT if given is None else given[0].layout


STEPS = 3
"""How far most laws go: a rule with parameters for so many steps alone can be looked at."""


def require(holds: bool, message: str) -> None:
    """What `assert` says, under `python -O` as well."""
    if not holds:
        raise AssertionError(message)


def close(ours: Tensor, theirs: Tensor, rtol: float = 1e-9, atol: float | None = None) -> bool:
    """Equal up to `rtol` of the largest element, and finite."""
    ours, theirs = ours.detach(), theirs.detach()
    scale = float(theirs.abs().max()) if theirs.numel() else 0.0
    bound = rtol * scale + (rtol if atol is None else atol)
    return bool(torch.isfinite(theirs).all() and ((ours - theirs).abs() <= bound).all())


def make(
    make_rule: MakeRule, layout: ParameterLayout, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> UpdateRule:
    """The rule, its draws seeded; whether it mixes tasks is for the laws to say."""
    with forked_rng(torch.Generator().manual_seed(seed)):
        rule = make_rule(layout).to(dtype)
    rule.check_first_update = False
    return rule


def nudged(rule: UpdateRule, seed: int) -> UpdateRule:
    """The same rule with every learned φ a little elsewhere, of the sign it had: no weight is 0.

    A layer that begins at 0 hides those before it, and a bias of 0 puts a ReLU on its kink.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in rule.parameters():
            if p.requires_grad:
                drawn = torch.rand(p.shape, generator=generator, dtype=torch.float64).to(p)
                p.copy_(torch.where(p == 0, 0.01 + 0.01 * drawn, p * (0.9 + 0.2 * drawn)))
    return rule


def as_made_and_moved(make_rule: MakeRule, layout: ParameterLayout) -> Iterator[UpdateRule]:
    """The rule as it is made, then elsewhere: rates that are alike, maps that are the identity, gains of 0
    hide at the start what they do as soon as they are trained.
    """
    yield make(make_rule, layout)
    yield nudged(make(make_rule, layout), 1)


def randn(*shape: int, seed: int) -> Tensor:
    """Normal numbers in float64, the same for every seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def arguments(
    n: int, lead: tuple[int, ...] = (), *, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """θ and ∇, `[*lead, n]`, and L, `[*lead]`; the last coordinate of ∇ is exactly 0."""
    theta, grad = randn(*lead, n, seed=0), randn(*lead, n, seed=1)
    loss = randn(*lead, 1, seed=2).squeeze(-1)
    grad[..., -1] = 0
    return theta.to(dtype), grad.to(dtype), loss.abs().to(dtype)


def signal(
    rule: UpdateRule, grad: Tensor, loss: Tensor, step: int,
    support: SupportSet | None = None, steps: int = STEPS, key: int = 0,
) -> Signal:  # fmt: skip
    """The signal as the inner loop gives it: what is not declared cannot be read.

    `support`: None makes one up, of linear regression on θ. `key`: that of the noise.
    """
    hidden, given = UndeclaredField(rule.label), _GIVEN.get()
    if support is None and given is not None and rule.uses_support:
        support = support_of(given[0].to("cpu", grad.dtype), given[2][0].to("cpu", grad.dtype).support)
    return Signal(
        grad,
        loss if rule.uses_loss else hidden,
        step if rule.uses_step else hidden,
        (support or _regression(grad.shape[-1], grad.dtype)) if rule.uses_support else hidden,
        steps if rule.uses_step else hidden,
        Noise(torch.full(grad.shape[:-1], key, dtype=torch.int64), grad) if rule.uses_noise else hidden,
    )


def _regression(n: int, dtype: torch.dtype) -> SupportSet:
    inputs, targets = randn(4, n, seed=7).to(dtype), randn(4, 1, seed=8).to(dtype)

    def predict(theta: Tensor) -> Tensor:
        return (inputs @ theta).unsqueeze(-1)

    return SupportSet(
        Batch(inputs, targets), lambda theta: (predict(theta) - targets).square().mean(), predict
    )


def noise_key(rule: UpdateRule, batch: Batch, step: int) -> int:
    """What the noise of one task is made from, as in the inner loop."""
    if not rule.uses_noise:
        return 0
    stacked = batch.like([x.unsqueeze(0) for x in batch.tensors], stacked=True)
    return int(noise_keys(stacked, rule.seed_of_noise, step))


def support_of(learner: BaseLearner, batch: Batch, order: str = "second", step: int = 0) -> SupportSet:
    """The support set of a task, as the inner loop shows it under an order in step t."""
    constant = order == "first"
    return SupportSet(
        batch,
        lambda theta: learner.support_loss(theta, batch, step),
        lambda theta: learner.predict(theta, batch.inputs),
        torch.detach if constant else lambda grad: grad,
        constant,
    )


def two_updates(rule: UpdateRule, theta: Tensor, grad: Tensor, loss: Tensor) -> Tensor:
    """θ⁽²⁾ under a gradient and a loss that stay as they are."""
    state = rule.init_state(theta)
    for step in range(2):
        theta, state = rule.update(theta, signal(rule, grad, loss, step), state)
    return theta.detach()


class Network(nn.Module):
    """3 → 4 → 1, a weight of four axes first; a buffer, a frozen parameter, one that nothing reads."""

    offset: Tensor

    def __init__(self, unused: bool) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.tensor([1.0, -0.7, 1.3]), requires_grad=False)
        self.register_buffer("offset", torch.tensor([0.2, -0.1, 0.0]))
        self.kernel = nn.Parameter(torch.zeros(4, 1, 1, 3))
        self.unused = nn.Parameter(torch.zeros(2), requires_grad=unused)
        self.weight = nn.Parameter(torch.zeros(1, 4))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = linear(inputs * self.frozen + self.offset, self.kernel.flatten(1)).tanh()
        return linear(hidden, self.weight, self.bias)


def problem(*, unused: bool = True, size: float = 1.0) -> tuple[BaseLearner, Tensor, Task]:
    """A small network, a start and three tasks; the last input is 0, and so its gradients.

    `unused`: the parameter that nothing reads is one of θ's. `size`: of the targets.
    """
    given = _GIVEN.get()
    if given is not None:
        return given
    tensors = [randn(3, 5, columns, seed=seed) for seed, columns in enumerate((3, 1, 3, 1))]
    for inputs, targets in zip(tensors[::2], tensors[1::2], strict=True):
        inputs[..., -1] = 0
        targets *= size
    learner = BaseLearner(Network(unused).double(), nn.functional.mse_loss)
    return learner, 0.5 * randn(learner.layout.size, seed=9), Task.of(tensors, stacked=True)


def loss_and_gradient(
    learner: BaseLearner, theta: Tensor, batch: Batch, step: int = 0
) -> tuple[Tensor, Tensor]:
    """The support loss L(θ) in step t, `[]`, and ∇L(θ), `[n]`, as numbers."""
    theta = theta.detach().requires_grad_()
    loss = learner.support_loss(theta, batch, step)
    return loss.detach(), torch.autograd.grad(loss, theta)[0]


class _Narrowing(TorchFunctionMode):
    """Notices what makes float32 of float64."""

    found: str | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        given = {x.dtype for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        made = {x.dtype for x in pytree.tree_leaves(answer) if isinstance(x, Tensor)}
        narrow = any(dtype.is_floating_point and dtype != torch.float64 for dtype in made)
        if torch.float64 in given and narrow and self.found is None:
            self.found = getattr(func, "__name__", str(func))
        return answer


def require_float64(make_rule: MakeRule) -> None:
    """AssertionError where a rule in float64 works in less: to 1e-7 no derivative can be compared."""
    rule = make(make_rule, layout())
    theta, grad, loss = arguments(layout().size)
    with torch.no_grad(), _Narrowing() as seen:
        rule.update(theta, signal(rule, grad, loss, 0), rule.init_state(theta))
    require(
        seen.found is None,
        f"given float64, update computes in a narrower type ({seen.found}); keep to the dtype of theta: no"
        " .float() or .to(torch.float32), and register a tensor that the rule holds as nn.Parameter or with"
        " register_buffer, so that it follows .to(dtype)",
    )
