"""The laws of `update` as a function: what it returns, reads, writes and remembers, and what it declares."""

from __future__ import annotations

import io

import attrs
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metalearn_core.errors import UsageError
from metalearn_core.rule import State, UpdateRule
from metalearn_core.signal import Noise, Signal, SupportSet
from metalearn_core.testing.laws.contents import contents, reachable, same
from metalearn_core.testing.laws.problems import (
    STEPS,
    MakeRule,
    arguments,
    as_made_and_moved,
    is_given,
    layout,
    make,
    randn,
    require,
    signal,
    two_updates,
)
from metalearn_core.training.parameters import ParameterLayout
from metalearn_core.trees import shapes_of

_UNSEEN_LAYOUT = ParameterLayout(("weight", "bias"), ((3, 5), (2,)))
"""Of a size that no other law has: what is remembered by size is empty still."""

_WARM_UP = 10
"""Steps in which a rule must have read what it declares."""


def law_structure(make_rule: MakeRule) -> None:
    """θ and state come back in the structure, shapes and dtypes they were given in."""
    for dtype in (torch.float32, torch.float64):
        rule = make(make_rule, layout(), dtype=dtype)
        theta, grad, loss = arguments(layout().size, dtype=dtype)
        state = rule.init_state(theta)
        require(
            all(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(state)),
            f"init_state must return tensors in tuples, named tuples or dicts, got {state!r:.80}",
        )
        for step in range(2):
            given, answer = (theta, state), rule.update(theta, signal(rule, grad, loss, step), state)
            require(
                isinstance(answer, tuple) and len(answer) == 2,
                f"update must return (theta, state), got {type(answer).__name__}",
            )
            expected, got = shapes_of(given), shapes_of(answer)
            require(
                expected == got,
                f"update must return theta and state as it was given them: given {expected},"
                f" returned {got}; make constants with zeros_like/full_like, and give the state its"
                " final shape in init_state",
            )
            theta, state = answer


def law_declares(make_rule: MakeRule) -> None:
    """`update` reads what the class says that it reads of the signal, and only that."""
    rule = make(make_rule, layout())
    declared = {name for name in ("loss", "step", "support", "noise") if getattr(rule, f"uses_{name}")}
    theta, grad, loss = arguments(layout().size)
    state, read = rule.init_state(theta), set[str]()
    for step in range(_WARM_UP):
        if step >= 2 and read == declared:
            return
        given = signal(rule, grad, loss, step)
        watched = _Watched(
            given.grad, given._loss, given._step, given._support, given._steps, given._noise, read
        )
        try:
            theta, state = rule.update(theta, watched, state)
        except UsageError as error:
            raise AssertionError(str(error)) from error
        except IndexError:
            if step < STEPS:
                raise
            break  # it has parameters for so many steps alone
    costs = {
        "step": "a step is then compiled for each t", "loss": "its derivatives are then kept",
        "support": "it is then never called on a stack, and start has its support set without it",
        "noise": "it is then made at every step",
    }  # fmt: skip
    for name in sorted(declared - read):
        raise AssertionError(f"declares uses_{name} and never reads it: {costs[name]}; leave it out")


@attrs.frozen(eq=False, slots=False)
class _Watched(Signal):
    """A signal that notes what is read of it."""

    read: set[str]

    @property
    def loss(self) -> Tensor:
        self.read.add("loss")
        return super().loss

    @property
    def step(self) -> int:
        self.read.add("step")
        return super().step

    @property
    def steps(self) -> int:
        self.read.add("step")
        return super().steps

    @property
    def support(self) -> SupportSet:
        self.read.add("support")
        return super().support

    @property
    def noise(self) -> Noise:
        self.read.add("noise")
        return super().noise


def law_no_writes(make_rule: MakeRule) -> None:
    """`init_state` and `update` write to none of their arguments, and to nothing that outlives the call."""
    rule = make(make_rule, (layout() if is_given() else _UNSEEN_LAYOUT))
    before = reachable(rule)
    theta, grad, loss = arguments((layout() if is_given() else _UNSEEN_LAYOUT).size)
    state = rule.init_state(theta)
    for step in range(2):
        given = {"theta": theta, "signal.grad": grad, "signal.loss": loss, "state": state}
        leaves = {name: pytree.tree_leaves(value) for name, value in given.items()}
        kept = {name: contents(value) for name, value in leaves.items()}
        new_theta, new_state = rule.update(theta, signal(rule, grad, loss, step), state)
        written = [name for name, value in leaves.items() if contents(value) != kept[name]]
        require(
            not written,
            f"update writes to {', '.join(written)}; compute a new tensor instead of writing in place"
            " (x = x + y, not x += y or x.add_(y))",
        )
        require(
            list(map(id, pytree.tree_leaves(state))) == list(map(id, leaves["state"])),
            "update puts other tensors into the state that it was given; leave that as it is and return a new"
            " dict or list, such as {**state, 'velocity': velocity}",
        )
        theta, state = new_theta.detach(), pytree.tree_map(torch.detach, new_state)
    after = reachable(rule)
    changed = sorted(k for k in {**before, **after} if before.get(k) != after.get(k))
    require(
        not changed,
        f"update writes to {', '.join(changed)}, which outlives the call; what is remembered from step to"
        " step belongs in the state: make it in init_state, return it from update",
    )


def law_deterministic(make_rule: MakeRule) -> None:
    """The same call gives the same answer, whatever was called before, and draws no random numbers."""
    rule, fresh = make(make_rule, layout()), make(make_rule, layout())
    fresh.load_state_dict(rule.state_dict())
    theta, grad, loss = arguments(layout().size)
    other = (randn(layout().size, seed=3), 2 * randn(layout().size, seed=4), 3 * loss)
    drawn = torch.get_rng_state()
    first, between, again = (_update(rule, *x) for x in ((theta, grad, loss), other, (theta, grad, loss)))
    require(
        torch.equal(drawn, torch.get_rng_state()) and same(first, again),
        "update gives another answer, or draws random numbers, when it is called again with the same"
        " arguments; draw what is random in __init__, and keep no memory outside the state",
    )
    require(
        same(between, _update(fresh, *other)),
        "update gives another answer than a new rule with the same parameters, for it remembers an earlier"
        " call; keep no memory outside the state: no cache of what the first call saw",
    )
    require(
        torch.equal(*(_first_of(rule, others) for others in (0, 1))),
        "two adaptations whose steps are taken in turns disturb each other; what is remembered from step to"
        " step belongs in the state, not in an object, a default argument or a global that the rule reaches",
    )


def _first_of(rule: UpdateRule, others: int) -> Tensor:
    """θ of one adaptation, its steps taken in turns with those of so many others."""
    thetas = [randn(layout().size, seed=i) for i in range(1 + others)]
    states = [rule.init_state(theta) for theta in thetas]
    for step in range(STEPS):
        for i, theta in enumerate(thetas):
            given = signal(rule, randn(layout().size, seed=10 * i + step), theta.square().sum(), step)
            new_theta, state = rule.update(theta, given, states[i])
            thetas[i], states[i] = new_theta.detach(), pytree.tree_map(torch.detach, state)
    return thetas[0]


def _update(rule: UpdateRule, theta: Tensor, grad: Tensor, loss: Tensor) -> tuple[Tensor, State]:
    return rule.update(theta, signal(rule, grad, loss, 0), rule.init_state(theta))


def law_state_dict(make_rule: MakeRule) -> None:
    """`state_dict` holds all that makes one draw of the rule differ from another."""
    given = arguments(layout().size)
    for ours in as_made_and_moved(make_rule, layout()):
        theirs = make(make_rule, layout(), seed=1)
        file = io.BytesIO()
        torch.save(ours.state_dict(), file)
        file.seek(0)
        theirs.load_state_dict(torch.load(file, weights_only=True))
        require(
            torch.equal(two_updates(ours, *given), two_updates(theirs, *given)),
            "a rule that another one's state_dict was loaded into answers differently; register every"
            " tensor that is drawn or learned as nn.Parameter or with register_buffer",
        )


def law_extremes(make_rule: MakeRule) -> None:
    """Gradients that are 0, tiny or huge have finite updates with finite derivatives, in float32 too."""
    for dtype in (torch.float64, torch.float32):
        rule = make(make_rule, layout(), dtype=dtype)
        phi = [p for p in rule.parameters() if p.requires_grad]
        for size in (0.0, 1e-30, 1e-12, 1e12):
            theta, grad, loss = arguments(layout().size, dtype=dtype)
            given = [theta.requires_grad_(), (grad * size).requires_grad_(), (loss * size).requires_grad_()]
            state, moved = rule.init_state(theta), theta
            for step in range(2):
                moved, state = rule.update(moved, signal(rule, given[1], given[2], step), state)
            slopes = torch.autograd.grad(moved.sum(), [*given, *phi], allow_unused=True)
            require(
                all(bool(torch.isfinite(x).all()) for x in (moved, *slopes) if x is not None),
                f"where gradients are {f'about {size:g}' if size else 'all 0'} in {str(dtype)[6:]}, update or"
                " its derivative is not finite; look for exp, powers, √x and divisions, and scale or clamp"
                " what goes into them",
            )
