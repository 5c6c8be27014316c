"""The laws of update rules: what the two loops rely on, each as one small function.

A law takes `make_rule(layout) -> UpdateRule` and raises AssertionError where the rule breaks it, with
a message that says what to change. It returns None, or why there was nothing to check.
"""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metalearn_core.errors import UsageError
from metalearn_core.inner_loop import adapt, meta_gradient
from metalearn_core.learner import BaseLearner, ParameterLayout, forked_rng
from metalearn_core.rule import Signal, State, Undeclared, UpdateRule
from metalearn_core.settings import ORDERS, Order
from metalearn_core.task import Batch, Task

MakeRule: TypeAlias = Callable[[ParameterLayout], UpdateRule]
Law: TypeAlias = Callable[[MakeRule], str | None]


def law_structure(make_rule: MakeRule) -> None:
    """θ and state come back in the structure, shapes and dtypes they were given in."""
    for dtype in (torch.float32, torch.float64):
        rule = _make(make_rule, _LAYOUT, dtype=dtype)
        theta, grad, loss = _arguments(_LAYOUT.size, dtype=dtype)
        state = rule.init_state(theta)
        _require(
            all(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(state)),
            f"init_state must return tensors in tuples, named tuples or dicts, got {state!r:.80}",
        )
        for step in range(2):
            given, answer = (theta, state), rule.update(theta, _signal(rule, grad, loss, step), state)
            _require(
                isinstance(answer, tuple) and len(answer) == 2,
                f"update must return (theta, state), got {type(answer).__name__}",
            )
            expected, got = _facts(given), _facts(answer)
            _require(
                expected == got,
                f"update must return theta and state as it was given them: given {expected},"
                f" returned {got}; make constants with zeros_like/full_like, and give the state its"
                " final shape in init_state",
            )
            theta, state = answer


def law_declares(make_rule: MakeRule) -> None:
    """`update` reads `signal.loss` and `signal.step` only where the class says so."""
    rule = _make(make_rule, _LAYOUT)
    theta, grad, loss = _arguments(_LAYOUT.size)
    state = rule.init_state(theta)
    try:
        for step in range(2):
            theta, state = rule.update(theta, _signal(rule, grad, loss, step), state)
    except UsageError as error:
        raise AssertionError(str(error)) from error


def law_no_writes(make_rule: MakeRule) -> None:
    """`init_state` and `update` write to none of their arguments and to nothing on the rule."""
    rule = _make(make_rule, _LAYOUT)
    before = _attributes(rule)
    theta, grad, loss = _arguments(_LAYOUT.size)
    state = rule.init_state(theta)
    for step in range(2):
        given = {"theta": theta, "signal.grad": grad, "signal.loss": loss, "state": state}
        kept = {name: _contents(value) for name, value in given.items()}
        new_theta, new_state = rule.update(theta, _signal(rule, grad, loss, step), state)
        written = [name for name, value in given.items() if _contents(value) != kept[name]]
        _require(
            not written,
            f"update writes to {', '.join(written)}; compute a new tensor instead of writing in place"
            " (x = x + y, not x += y or x.add_(y))",
        )
        theta, state = new_theta.detach(), pytree.tree_map(torch.detach, new_state)
    after = _attributes(rule)
    changed = sorted(k for k in {**before, **after} if before.get(k) != after.get(k))
    _require(
        not changed,
        f"update writes to {', '.join(changed)} of the rule; what is remembered from step to step"
        " belongs in the state: make it in init_state, return it from update",
    )


def law_deterministic(make_rule: MakeRule) -> None:
    """The same call gives the same answer, and draws no random numbers."""
    rule = _make(make_rule, _LAYOUT)
    theta, grad, loss = _arguments(_LAYOUT.size)
    state, drawn = rule.init_state(theta), torch.get_rng_state()
    answers = [rule.update(theta, _signal(rule, grad, loss, 0), state) for _ in range(2)]
    _require(
        torch.equal(drawn, torch.get_rng_state()) and _same(*answers),
        "update gives another answer, or draws random numbers, when it is called again with the same"
        " arguments; draw what is random in __init__, and keep no memory outside the state",
    )


def law_meta_gradients(make_rule: MakeRule) -> None:
    """Meta-gradients of θ⁰ and of every φ are finite and reach them, under both orders.

    Some support gradients are exactly 0, as those behind a dead ReLU are.
    """
    learner, theta, task = _problem()
    for order in ORDERS:
        reached: set[str] = set()
        for seed in range(4):
            rule = _make(make_rule, learner.layout, seed=seed)
            _, grad, phi = meta_gradient(rule, learner, theta, task, steps=2, order=order)
            for name, g in {"theta0": grad, **phi}.items():
                _require(
                    bool(torch.isfinite(g).all()),
                    f"the {order}-order meta-gradient for {name} is not finite; look for √x, |x|ᵖ,"
                    " log x or a division at x = 0 (torch.where alone does not help: clamp x first)",
                )
                reached |= {name} if g.abs().max() > 0 else set()
        names = {name for name, p in rule.named_parameters() if p.requires_grad and p.numel()}
        lost = sorted({"theta0", *names} - reached)
        _require(
            not lost,
            f"the {order}-order meta-gradient never reaches {', '.join(lost)}; use it in update"
            " without detach(), .data, .item() or no_grad(), or freeze it (requires_grad=False)",
        )


def law_zero_steps(make_rule: MakeRule) -> None:
    """Zero inner steps leave θ as it is."""
    learner, theta, task = _problem()
    rule, kept = _make(make_rule, learner.layout), theta.clone()
    adapted = adapt(rule, learner, theta, task[0].support, steps=0)
    _require(
        torch.equal(adapted, kept) and torch.equal(theta, kept),
        "T = 0 must leave theta as it is; init_state must only read it",
    )


def law_precision(make_rule: MakeRule) -> None:
    """float32 and float64 agree, as far as float32 goes."""
    learner, theta, task = _problem()
    wide, narrow = (
        adapt(
            _make(make_rule, learner.layout, dtype=dtype),
            learner.to("cpu", dtype),
            theta.to(dtype),
            task.to("cpu", dtype).support,
            steps=3,
        )
        for dtype in (torch.float64, torch.float32)
    )
    _require(
        _close(narrow.double(), wide, 1e-3),
        "float32 and float64 answers differ by more than rounding; look for differences of nearly"
        " equal numbers, for an epsilon below 1e-7 inside a root, and for tensors that are neither"
        " nn.Parameter nor buffer and so do not follow .to(dtype)",
    )


def law_batch(make_rule: MakeRule) -> None:
    """A meta-batch gives what its tasks give one by one, whatever their order."""
    learner, theta, task = _problem()
    rule = _make(make_rule, learner.layout)
    starts = theta + 0.1 * _randn(len(task), len(theta), seed=3)
    together = adapt(rule, learner, starts, task.support, steps=2)
    alone = [adapt(rule, learner, start, task[i].support, steps=2) for i, start in enumerate(starts)]
    _require(
        _close(together, torch.stack(alone)),
        "a meta-batch gives another answer than its tasks one by one; update is written for one task"
        " and theta [n], or (elementwise = True) must take leading axes: reduce over dim=-1 alone",
    )
    backwards = adapt(rule, learner, starts.flip(0), task.map(lambda x: x.flip(0)).support, steps=2)
    _require(
        _close(backwards.flip(0), together),
        "the order of the tasks changes their answers; one task must not see another",
    )


def law_steps(make_rule: MakeRule) -> None:
    """T steps are T calls of `update`, state and step number passed on."""
    learner, theta, task = _problem()
    rule = _make(make_rule, learner.layout)
    for steps in (1, 3):
        at_once = adapt(rule, learner, theta, task[0].support, steps=steps)
        by_hand = _adapt_by_hand(rule, learner, theta, task[0].support, steps)
        _require(
            _close(at_once, by_hand),
            f"T = {steps} differs from {steps} calls of update with the state passed on; everything"
            " that a step hands to the next must be in the state",
        )


def law_coordinatewise(make_rule: MakeRule) -> str | None:
    """`coordinatewise`: permuting the coordinates permutes the answer."""
    rule = _make(make_rule, _LAYOUT)
    if not rule.coordinatewise:
        return "the rule does not declare coordinatewise"
    theta, grad, loss = _arguments(_LAYOUT.size)
    order = torch.randperm(len(theta), generator=torch.Generator().manual_seed(5))
    straight = _two_updates(rule, theta, grad, loss)
    permuted = _two_updates(rule, theta[order], grad[order], loss)
    _require(
        _close(straight[order], permuted),
        "permuting theta and grad does not permute the answer, though the rule declares"
        " coordinatewise; set coordinatewise = False, or use no parameter and no position of one"
        " coordinate alone",
    )
    return None


def law_elementwise(make_rule: MakeRule) -> str | None:
    """`elementwise`: a stack with leading axes gives each row's own answer, coordinate by coordinate."""
    rule = _make(make_rule, _LAYOUT)
    if not rule.elementwise:
        return "the rule does not declare elementwise"
    remedy = "; set elementwise = False to have update called under vmap"
    for lead in ((3,), (2, 3)):
        theta, grad, loss = _arguments(_LAYOUT.size, lead)
        leaves = pytree.tree_leaves(rule.init_state(theta))
        _require(
            all(leaf.shape[: len(lead)] == lead for leaf in leaves),
            f"every tensor of the state must lead with the axes of theta, {lead}{remedy}",
        )
        rows = zip(theta.flatten(0, -2), grad.flatten(0, -2), loss.flatten(), strict=True)
        alone = torch.stack([_two_updates(rule, *row) for row in rows])
        _require(
            _close(_two_updates(rule, theta, grad, loss), alone.reshape(theta.shape)),
            f"on a stack {(*lead, 'n')} the answer is not that of the rows one by one{remedy}",
        )
    theta, grad, loss = _arguments(_LAYOUT.size)
    moved = _two_updates(rule, theta, grad + 10 * torch.eye(len(grad), dtype=grad.dtype)[0], loss)
    _require(
        _close(moved[1:], _two_updates(rule, theta, grad, loss)[1:]),
        f"the gradient of one coordinate changes the answer for another{remedy}",
    )
    return None


def law_state_dict(make_rule: MakeRule) -> None:
    """`state_dict` holds all that makes one draw of the rule differ from another."""
    ours, theirs = (_make(make_rule, _LAYOUT, seed=seed) for seed in (0, 1))
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    theirs.load_state_dict(torch.load(file, weights_only=True))
    arguments = _arguments(_LAYOUT.size)
    _require(
        torch.equal(_two_updates(ours, *arguments), _two_updates(theirs, *arguments)),
        "a rule that another one's state_dict was loaded into answers differently; register every"
        " tensor that is drawn or learned as nn.Parameter or with register_buffer",
    )


def law_order(make_rule: MakeRule) -> None:
    """On a quadratic, T = 1, the orders differ by what flows through the support signal, and by no more.

    Second minus first order is H·∂(q·θ′)/∂∇ + ∇·∂(q·θ′)/∂L for θ⁰, with the derivatives of `update`
    taken by finite differences, H the Hessian and q the query gradient at θ′; for φ it is 0.
    """
    learner, theta, task = _quadratic()
    rule = _make(make_rule, learner.layout)
    (_, first, phi_first), (_, second, phi_second) = (
        meta_gradient(rule, learner, theta, task, steps=1, order=order) for order in ORDERS
    )
    for name, g in phi_first.items():
        _require(
            _close(g, phi_second[name]),
            f"at T = 1 the order changes the meta-gradient for {name}; the core decides the order, so"
            " update must not differentiate anything itself",
        )
    loss, grad = _loss_and_gradient(learner, theta, task.support)
    adapted = rule.update(theta, _signal(rule, grad, loss, 0), rule.init_state(theta))[0].detach()
    _, query = _loss_and_gradient(learner, adapted, task.query)

    def answer(grad: Tensor, loss: Tensor) -> Tensor:
        moved = rule.update(theta, _signal(rule, grad, loss, 0), rule.init_state(theta))[0]
        return (query @ moved).detach()

    h = 1e-5
    steps = h * torch.eye(len(grad), dtype=grad.dtype)
    slopes = [(answer(grad + e, loss) - answer(grad - e, loss)) / (2 * h) for e in steps]
    slope = (answer(grad, loss + h) - answer(grad, loss - h)) / (2 * h)
    hessian = task.support.inputs.T @ task.support.inputs
    _require(
        _close(second - first, hessian @ torch.stack(slopes) + grad * slope, 1e-4, 1e-7),
        "the second-order meta-gradient for theta0 lacks what flows through signal.grad and"
        " signal.loss; use both as they are: no detach(), .data or no_grad() in update",
    )


def law_unrolled(make_rule: MakeRule) -> None:
    """`meta_gradient` is the derivative of the T steps written out, task after task, under both orders."""
    learner, start, task = _problem()
    rule = _make(make_rule, learner.layout)
    phi = {name: p for name, p in rule.named_parameters() if p.requires_grad}
    for order in ORDERS:
        _, for_theta, for_phi = meta_gradient(rule, learner, start, task, steps=2, order=order)
        theta = start.clone().requires_grad_()
        loss = sum(
            learner.loss(_unroll(rule, learner, theta, one.support, order), one.query)
            for one in (task[i] for i in range(len(task)))
        ) / len(task)
        assert isinstance(loss, Tensor)
        grads = torch.autograd.grad(loss, [theta, *phi.values()], allow_unused=True)
        for name, mine, plain in zip(("theta0", *phi), (for_theta, *for_phi.values()), grads, strict=True):
            _require(
                _close(mine, torch.zeros_like(mine) if plain is None else plain),
                f"the {order}-order meta-gradient for {name} is not that of the same steps written out in"
                " plain PyTorch; look for what update does under vmap alone, and for custom derivatives",
            )


def law_extremes(make_rule: MakeRule) -> None:
    """Tiny and huge gradients have finite updates with finite derivatives."""
    rule = _make(make_rule, _LAYOUT)
    phi = [p for p in rule.parameters() if p.requires_grad]
    for size in (1e-30, 1e-12, 1e12):
        theta, grad, loss = _arguments(_LAYOUT.size)
        given = [theta.requires_grad_(), (grad * size).requires_grad_(), (loss * size).requires_grad_()]
        state, moved = rule.init_state(theta), theta
        for step in range(2):
            moved, state = rule.update(moved, _signal(rule, given[1], given[2], step), state)
        slopes = torch.autograd.grad(moved.sum(), [*given, *phi], allow_unused=True)
        _require(
            all(bool(torch.isfinite(x).all()) for x in (moved, *slopes) if x is not None),
            f"where gradients are about {size:g}, update or its derivative is not finite; look for exp,"
            " powers, √x and divisions, and scale or clamp what goes into them",
        )


def law_memory(make_rule: MakeRule) -> None:
    """Nothing is kept from one adaptation to the next."""
    learner, theta, task = _problem()
    rule = _make(make_rule, learner.layout)
    counts = []
    frozen = gc.get_freeze_count()
    gc.freeze()  # what is there already is not looked through, four times
    try:
        for _ in range(4):
            adapt(rule, learner, theta, task.support, steps=2)
            gc.collect()
            counts.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
    finally:
        if not frozen:
            gc.unfreeze()
    _require(
        not counts[1] < counts[2] < counts[3],
        f"every adaptation leaves tensors behind ({counts[3] - counts[2]} at the last); keep nothing outside"
        " the state: no list, no cache, no attribute of the class",
    )


def law_starts_as_descent(make_rule: MakeRule) -> str | None:
    """`starts_as_descent`: a rule as it is made is θ ← θ − αg, with one α > 0."""
    rule = _make(make_rule, _LAYOUT)
    if not rule.starts_as_descent:
        return "the rule does not declare starts_as_descent"
    theta, grad, loss = _arguments(_LAYOUT.size)
    moved, _ = rule.update(theta, _signal(rule, grad, loss, 0), rule.init_state(theta))
    alpha = float(((theta - moved) @ grad / (grad @ grad)).detach())
    by_hand = theta - 2 * alpha * grad
    _require(
        alpha > 0 and _close(_two_updates(rule, theta, grad, loss), by_hand, 1e-6),
        f"two steps of a new rule are not θ − 2αg (α = {alpha:g} at the first); set"
        " starts_as_descent = False, or begin with what makes the proposed update −αg",
    )
    return None


LAWS: dict[str, Law] = {
    "structure": law_structure,
    "declares": law_declares,
    "no-writes": law_no_writes,
    "deterministic": law_deterministic,
    "meta-gradients": law_meta_gradients,
    "zero-steps": law_zero_steps,
    "precision": law_precision,
    "batch": law_batch,
    "steps": law_steps,
    "coordinatewise": law_coordinatewise,
    "elementwise": law_elementwise,
    "state-dict": law_state_dict,
    "order": law_order,
    "unrolled": law_unrolled,
    "extremes": law_extremes,
    "memory": law_memory,
    "starts-as-descent": law_starts_as_descent,
}
"""Every law by its name."""

_LAYOUT = ParameterLayout(("weight", "bias"), ((2, 3), (2,)))


def _require(holds: bool, message: str) -> None:
    """What `assert` says, under `python -O` as well."""
    if not holds:
        raise AssertionError(message)


def _make(
    make_rule: MakeRule, layout: ParameterLayout, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> UpdateRule:
    """The rule, its draws seeded."""
    with forked_rng(torch.Generator().manual_seed(seed)):
        return make_rule(layout).to(dtype)


def _randn(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _arguments(
    n: int, lead: tuple[int, ...] = (), *, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """θ and ∇, `[*lead, n]`, and L, `[*lead]`; the last coordinate of ∇ is exactly 0."""
    theta, grad = _randn(*lead, n, seed=0), _randn(*lead, n, seed=1)
    loss = _randn(*lead, 1, seed=2).squeeze(-1)
    grad[..., -1] = 0
    return theta.to(dtype), grad.to(dtype), loss.abs().to(dtype)


def _signal(rule: UpdateRule, grad: Tensor, loss: Tensor, step: int) -> Signal:
    """The signal as the inner loop gives it: what is not declared cannot be read."""
    hidden = Undeclared(rule.label)
    return Signal(grad, loss if rule.uses_loss else hidden, step if rule.uses_step else hidden)


def _two_updates(rule: UpdateRule, theta: Tensor, grad: Tensor, loss: Tensor) -> Tensor:
    state = rule.init_state(theta)
    for step in range(2):
        theta, state = rule.update(theta, _signal(rule, grad, loss, step), state)
    return theta.detach()


def _problem() -> tuple[BaseLearner, Tensor, Task]:
    """A small network, a start and three tasks; the last input is 0, and so its gradients."""
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    tensors = [_randn(3, 5, columns, seed=seed) for seed, columns in enumerate((3, 1, 3, 1))]
    for inputs in tensors[::2]:
        inputs[..., -1] = 0
    learner = BaseLearner(network, nn.functional.mse_loss)
    return learner, 0.5 * _randn(learner.layout.size, seed=9), Task.of(tensors, stacked=True)


def _half_square(prediction: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (prediction - target).square().sum()


def _quadratic() -> tuple[BaseLearner, Tensor, Task]:
    """L(θ) = ½‖Aθ − b‖², so that the Hessian is AᵀA; A and b are the inputs and targets."""
    learner = BaseLearner(nn.Linear(3, 1, bias=False).double(), _half_square)
    tensors = [_randn(4, columns, seed=seed) for seed, columns in enumerate((3, 1, 3, 1))]
    return learner, _randn(3, seed=9), Task.of(tensors, stacked=False)


def _loss_and_gradient(learner: BaseLearner, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    theta = theta.detach().requires_grad_()
    loss = learner.loss(theta, batch)
    return loss.detach(), torch.autograd.grad(loss, theta)[0]


def _adapt_by_hand(
    rule: UpdateRule, learner: BaseLearner, theta: Tensor, support: Batch, steps: int
) -> Tensor:
    state = rule.init_state(theta)
    for step in range(steps):
        loss, grad = _loss_and_gradient(learner, theta, support)
        theta, state = rule.update(theta, _signal(rule, grad, loss, step), state)
        theta, state = theta.detach(), pytree.tree_map(torch.detach, state)
    return theta


def _unroll(rule: UpdateRule, learner: BaseLearner, theta: Tensor, support: Batch, order: Order) -> Tensor:
    """Two steps for one task, derivatives kept; the first order takes gradient and loss as numbers."""
    state = rule.init_state(theta)
    for step in range(2):
        at = theta if theta.requires_grad else theta.detach().requires_grad_()
        loss = learner.loss(at, support)
        (grad,) = torch.autograd.grad(loss, at, create_graph=order == "second", retain_graph=True)
        if order == "first":
            loss = loss.detach()
        theta, state = rule.update(theta, _signal(rule, grad, loss, step), state)
    return theta


def _close(ours: Tensor, theirs: Tensor, rtol: float = 1e-9, atol: float | None = None) -> bool:
    """Equal up to `rtol` of the largest element, and finite."""
    ours, theirs = ours.detach(), theirs.detach()
    scale = float(theirs.abs().max()) if theirs.numel() else 0.0
    bound = rtol * scale + (rtol if atol is None else atol)
    return bool(torch.isfinite(theirs).all() and ((ours - theirs).abs() <= bound).all())


def _facts(value: tuple[Tensor, State]) -> tuple[object, list[object]]:
    leaves, structure = pytree.tree_flatten(value)
    return structure, [
        (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves
    ]


def _same(ours: object, theirs: object) -> bool:
    """Bit for bit."""
    return [values for values, _ in _contents(ours)] == [values for values, _ in _contents(theirs)]


def _contents(value: object) -> list[tuple[str, int]]:
    """The values of every tensor in `value`, and how often each was written to."""
    leaves = pytree.tree_leaves(value)
    return [(str(x.tolist()), x._version) for x in leaves if isinstance(x, Tensor)]


def _attributes(rule: UpdateRule) -> dict[str, object]:
    """Everything that hangs on the rule, by its path."""
    return dict(_walk(rule, "self", set()))


def _walk(thing: Any, path: str, seen: set[int]) -> Iterator[tuple[str, object]]:
    if isinstance(thing, Tensor):
        yield path, _contents(thing)
    elif id(thing) not in seen:
        # what is small is kept as it prints; a number may share its id with another
        inner: dict[str, Any] = {}
        if isinstance(thing, Mapping):
            inner = {f"{path}[{key!r}]": value for key, value in thing.items()}
        elif isinstance(thing, list | tuple | set):
            inner = {f"{path}[{i}]": value for i, value in enumerate(thing)}
        elif isinstance(thing, nn.Module) or (hasattr(thing, "__dict__") and not callable(thing)):
            inner = {f"{path}.{key}": value for key, value in vars(thing).items()}
        else:
            yield path, repr(thing)
            return
        seen.add(id(thing))
        for where, value in inner.items():
            yield from _walk(value, where, seen)
