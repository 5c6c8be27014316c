"""The laws of what a rule declares: elementwise, coordinatewise, a start as gradient descent."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from metalearn_core.rule import UpdateRule
from metalearn_core.testing.laws.problems import (
    STEPS,
    MakeRule,
    arguments,
    as_made_and_moved,
    close,
    layout,
    make,
    randn,
    require,
    signal,
    two_updates,
)


def law_coordinatewise(make_rule: MakeRule) -> str | None:
    """`coordinatewise`: permuting the coordinates permutes the answer."""
    rule = make(make_rule, layout())
    if not rule.coordinatewise:
        return "the rule does not declare coordinatewise"
    theta, grad, loss = arguments(layout().size)
    order = torch.randperm(len(theta), generator=torch.Generator().manual_seed(5))
    for one in as_made_and_moved(make_rule, layout()):
        straight = two_updates(one, theta, grad, loss)
        permuted = two_updates(one, theta[order], grad[order], loss)
        require(
            close(straight[order], permuted),
            "permuting theta and grad does not permute the answer, though the rule declares"
            " coordinatewise; set coordinatewise = False, or use no parameter and no position of one"
            " coordinate alone",
        )
    return None


def law_elementwise(make_rule: MakeRule) -> str | None:
    """`elementwise`: a stack with leading axes gives each row's own answer, coordinate by coordinate."""
    rule = make(make_rule, layout())
    if not rule.elementwise:
        return "the rule does not declare elementwise"
    for one in as_made_and_moved(make_rule, layout()):
        for lead in ((3,), (2, 3)):
            _require_rows_apart(one, lead)
        _require_coordinates_apart(one)
    return None


_NOT_ELEMENTWISE = "; set elementwise = False to have update called under vmap"


def _require_rows_apart(rule: UpdateRule, lead: tuple[int, ...]) -> None:
    theta, grad, loss = arguments(layout().size, lead)
    leaves = pytree.tree_leaves(rule.init_state(theta))
    require(
        all(leaf.shape[: len(lead)] == lead for leaf in leaves),
        f"every tensor of the state must lead with the axes of theta, {lead}{_NOT_ELEMENTWISE}",
    )
    # tasks may differ by orders of magnitude
    grad = grad * torch.tensor([1, 1e3, 1e-3], dtype=grad.dtype).unsqueeze(-1)
    rows = zip(theta.flatten(0, -2), grad.flatten(0, -2), loss.flatten(), strict=True)
    alone = [two_updates(rule, *row) for row in rows]
    stacked = two_updates(rule, theta, grad, loss)
    require(
        all(map(close, stacked.flatten(0, -2), alone)),
        f"on a stack {(*lead, 'n')} the answer is not that of the rows one by one{_NOT_ELEMENTWISE}",
    )
    _require_no_branches(rule, theta, grad, loss)


def _require_coordinates_apart(rule: UpdateRule) -> None:
    theta, grad, loss = arguments(layout().size, (layout().size,))
    own = torch.eye(layout().size, dtype=theta.dtype)
    change = two_updates(rule, theta, grad + 10 * own, loss) - two_updates(rule, theta, grad, loss)
    require(
        close(change * (1 - own), torch.zeros_like(change)),
        f"the gradient of one coordinate changes the answer for another{_NOT_ELEMENTWISE}",
    )


def _require_no_branches(rule: UpdateRule, *stack: Tensor) -> None:
    """Whether the rule branches or reads a number out on a stack, `vmap` sees, under which neither goes."""
    try:
        vmap(lambda *row: two_updates(rule, *row))(*stack)
    except RuntimeError as error:
        # an operator that cannot be batched is no fault here: only several seeds at once are beyond it
        require(
            ".item()" not in str(error) and "data-dependent control flow" not in str(error),
            "update decides on the value of a tensor (if, .item(), float()), which on a stack is that of all"
            " tasks together; choose with torch.where, coordinate by coordinate",
        )


def law_starts_as_descent(make_rule: MakeRule) -> str | None:
    """`starts_as_descent`: a rule as it is made is θ ← θ − αg, with one α > 0, step after step."""
    rule = make(make_rule, layout())
    if not rule.starts_as_descent:
        return "the rule does not declare starts_as_descent"
    theta, grad, loss = arguments(layout().size)
    state, alpha = rule.init_state(theta), 0.0
    for step in range(STEPS):
        seen = grad + step * randn(layout().size, seed=6)  # another gradient at every step
        moved, state = rule.update(theta, signal(rule, seen, loss, step), state)
        if step == 0:
            alpha = float(((theta - moved) @ seen / (seen @ seen)).detach())
        require(
            alpha > 0 and close(moved, theta - alpha * seen, 1e-6),
            f"step {step} of a new rule is not θ − αg (α = {alpha:g} at the first); set"
            " starts_as_descent = False, or begin with what makes the proposed update −αg",
        )
        theta = moved.detach()
    return None
