"""One rule contains another: for every choice of the special rule's parameters there is a φ of the
general one with which it takes the same path, or one as close as is asked for.

`assert_subsumes` is the property. A failure prints the smallest counterexample that hypothesis found,
as code that runs. To state a claim needs no hypothesis, so that a map can be shown without; to check it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from metalearn_core.errors import RuleError, UsageError, in_one_line, unknown
from metalearn_core.inner_loop import per_task, trajectory
from metalearn_core.learner import BaseLearner, ParameterLayout, forked_rng
from metalearn_core.registry import make_rule
from metalearn_core.rule import Signal, State, Undeclared, UpdateRule
from metalearn_core.settings import ORDERS, Clipping, Order
from metalearn_core.task import Task
from metalearn_core.testing.arguments import (
    positional,
    require_function,
    require_known,
    require_maker,
    require_options,
    require_strategy,
    takes_closeness,
)
from metalearn_core.testing.problems import SMOOTH, Problem
from metalearn_core.testing.theory.reports import counterexample, title

if TYPE_CHECKING:
    from hypothesis import strategies as st

Maker: TypeAlias = str | Callable[..., UpdateRule]
"""A rule's registered name, its class, or any `make(layout, **options)`."""

Gap: TypeAlias = Callable[[UpdateRule, float, Tensor, Sequence[Tensor]], Tensor]
"""`gap(special, closeness, theta, grads) -> [..., n]`: how far one step of the general rule at θ,
`[..., n]`, may end from that of the special one; `grads` are all gradients so far."""


@attrs.frozen
class Example:
    """One case of a claim, in plain numbers: `seed` is that of what both rules draw."""

    problem: Problem
    special: Mapping[str, Any] = attrs.field(factory=dict)
    general: Mapping[str, Any] = attrs.field(factory=dict)
    seed: int = 0
    closeness: float = 0.0
    order: Order = "second"


@attrs.frozen
class Subsumption:
    """The claim that `general` contains `special`; see `assert_subsumes`, which checks one."""

    general: Maker
    special: Maker
    parameterise: Callable[..., Mapping[str, Tensor]]
    general_options: Mapping[str, Any] = attrs.field(factory=dict)
    special_options: Mapping[str, Any] = attrs.field(factory=dict)
    draw_phi: Callable[[UpdateRule, torch.Generator], None] | None = None
    gap: Gap | None = None
    bitwise: bool = False
    cancellation: float = 0.0
    clip: Clipping | None = None
    problems: st.SearchStrategy[Problem] | None = None
    closeness: st.SearchStrategy[float] | None = None
    address: str = ""

    def __attrs_post_init__(self) -> None:
        for name in ("general", "special"):
            require_maker(name, getattr(self, name))
            require_options(f"{name}_options", getattr(self, f"{name}_options"))
        require_function(
            "parameterise", self.parameterise, 1, 2, "parameterise(special) or parameterise(special, general)"
        )
        for name in ("problems", "closeness"):
            if getattr(self, name) is not None:
                require_strategy(name, getattr(self, name))
        if self.gap is not None:
            require_function("gap", self.gap, 4, 4, "gap(special, closeness, theta, grads)")
            if not takes_closeness(self.parameterise):
                raise UsageError("parameterise: with a gap it must take the keyword closeness")

    def check(self, *, examples: int | None = None, example: Example | None = None) -> None:
        """AssertionError with the smallest counterexample found, or for the one given."""
        if example is not None:
            if not isinstance(example, Example):
                raise UsageError(f"example: expected an Example, got a {type(example).__name__}")
            self._check(example)
            return

        import hypothesis

        compared = []

        @hypothesis.given(self._examples())
        def holds(example: Example) -> None:
            try:
                self._check(example)
            except NothingToCompareError:
                hypothesis.reject()
            compared.append(example.problem.steps)

        run(holds, examples)
        if not any(compared):
            raise AssertionError(
                f"{title(self.special)} leaves the numbers on every example that takes a step:"
                " nothing was compared"
            )

    def _examples(self) -> st.SearchStrategy[Example]:
        from hypothesis import strategies as st

        from metalearn_core.testing import strategies

        problems = strategies.problems() if self.problems is None else self.problems
        near = strategies.closeness() if self.closeness is None else self.closeness

        @st.composite
        def draw_example(draw: st.DrawFn) -> Example:
            problem = draw(problems)
            special = {name: drawn(draw, value) for name, value in self.special_options.items()}
            closeness = draw(near) if self.gap else 0.0
            general = {name: drawn(draw, value) for name, value in self.general_options.items()}
            computed = {n: v for n, v in general.items() if callable(v) and not isinstance(v, type)}
            general |= {name: v(*(special, closeness)[: positional(v)]) for name, v in computed.items()}
            seed, order = draw(strategies.seeds()), draw(st.sampled_from(ORDERS[::-1]))
            return Example(problem, special, general, seed, closeness, order)

        return draw_example()

    def _special(self, example: Example) -> UpdateRule:
        rule = made(self.special, example.problem.learner, example.special, example.seed)
        if self.draw_phi is not None:
            with torch.no_grad():
                self.draw_phi(rule, torch.Generator().manual_seed(example.seed))
        return rule

    def pair(self, example: Example) -> tuple[UpdateRule, UpdateRule]:
        """The special rule, and the general one at the φ that `parameterise` gives."""
        special = self._special(example)
        general = made(self.general, example.problem.learner, example.general, example.seed + 1)
        given = [special, general][: positional(self.parameterise)]
        near = {"closeness": example.closeness} if self.gap else {}
        with torch.no_grad():
            phi = self.parameterise(*given, **near)
            if not isinstance(phi, Mapping):
                raise UsageError(
                    f"parameterise: expected {{name: tensor or number}}, got a {type(phi).__name__}"
                )
            load_phi(general, phi)
        return special, general

    def _check(self, example: Example) -> None:
        special, general = self.pair(example)
        differences = self._deviations if self.gap is None else self._gaps
        try:
            complaint = next(differences(special, general, example), None)
        except NothingToCompareError:
            raise
        except Exception as error:  # a rule's own, or a gap's
            if isinstance(error, UsageError) and not isinstance(error, RuleError):
                raise
            complaint = in_one_line(error)
            raise AssertionError(counterexample(self, example, special, general, complaint)) from error
        if complaint:
            raise AssertionError(counterexample(self, example, special, general, complaint))

    def _deviations(self, special: UpdateRule, general: UpdateRule, example: Example) -> Iterator[str]:
        """Where an exact edge is not one: along the trajectory, then in the meta-gradients for θ⁰."""
        problem = example.problem
        starts, task = self._starts(problem)
        (theirs, their_gradient), (ours, our_gradient) = (
            self._followed(rule, problem, starts, task, example.order) for rule in (special, general)
        )
        for t, (their_theta, our_theta) in enumerate(zip(theirs, ours, strict=True)):
            if not torch.isfinite(their_theta).all():
                raise NothingToCompareError(f"θ of the special rule is not finite after {t} steps")
            if found := self._differs(our_theta, their_theta, problem.tasks):
                yield f"θ after {t} of {problem.steps} steps differs: {found}"
        if not torch.isfinite(their_gradient).all():
            raise NothingToCompareError("the meta-gradient of the special rule is not finite")
        if found := self._differs(our_gradient, their_gradient, problem.tasks):
            yield f"the {example.order}-order meta-gradient for θ⁰ differs: {found}"

    def _followed(
        self, rule: UpdateRule, problem: Problem, starts: Tensor, task: Task, order: Order
    ) -> tuple[list[Tensor], Tensor]:
        """θ⁽⁰⁾ … θ⁽ᵀ⁾, and what `meta_gradient` gives for the starts, from one unroll."""
        starts = starts.detach().requires_grad_()
        now = trajectory(
            rule, problem.learner, starts, task.support, steps=problem.steps, order=order, clip=self.clip
        )
        thetas = [theta for theta, _ in now]
        judged = per_task(problem.learner.loss, thetas[-1], task.query, *problem.learner.context(task))
        loss = judged.mean() + 0 * starts.sum()
        (gradient,) = torch.autograd.grad(loss, starts)
        return [theta.detach() for theta in thetas], gradient

    def _starts(self, problem: Problem) -> tuple[Tensor, Task]:
        """θ⁰ for every task and, unless bits are compared, both sides of it: a ruler for rounding."""
        theta = problem.theta.expand(problem.tasks, -1)
        if self.bitwise:
            return theta, problem.task
        signs = torch.ones_like(theta)
        signs[..., ::2] = -1
        nudge = NUDGE * torch.finfo(theta.dtype).eps * (1 + theta.abs()) * signs
        starts = torch.cat([theta, theta + nudge, theta - nudge])
        return starts, problem.task.map(lambda x: torch.cat([x] * 3))

    def _differs(self, ours: Tensor, theirs: Tensor, tasks: int) -> str:
        """Empty where both are equal: to the bit, or as far as rounding goes that the steps amplified.

        How far it grows is seen on the special rule itself, from starts that are a nudge away.
        """
        if self.bitwise:
            bound = torch.zeros(())
        else:
            exact, *nudged = torch.split(theirs, tasks)
            amplified = torch.stack([(x - exact).abs().max() for x in nudged]).max()
            bound = 10 * amplified + ROUNDING * torch.finfo(theirs.dtype).eps * (1 + exact.abs().max())
            ours, theirs = ours[:tasks], exact
        error = (ours - theirs).abs()
        if bool((error <= bound).all()):  # a NaN is not
            return ""
        row, column = divmod(int(error.nan_to_num(torch.inf).argmax()), error.shape[-1])
        return (
            f"task {row}, coordinate {column}: {float(theirs[row, column])!r} by the special rule,"
            f" {float(ours[row, column])!r} by the general one (allowed: {float(bound):.3g})"
        )

    def _gaps(self, special: UpdateRule, general: UpdateRule, example: Example) -> Iterator[str]:
        """Where an edge in the limit is not one: in one step, and in all of them together."""
        assert self.gap is not None
        problem, close = example.problem, example.closeness
        both, arguments = SideBySide(general, special), (problem.learner, problem.theta, problem.task.support)
        settings: dict[str, Any] = {"steps": problem.steps, "clip": self.clip}
        path = [(x.detach(), s) for x, s in trajectory(both, *arguments, **settings)]
        target = [theta.detach() for theta, _ in trajectory(special, *arguments, **settings)]
        grads: list[Tensor] = []
        error, accumulates = (
            torch.zeros(problem.tasks, dtype=problem.theta.dtype),
            _accumulates(special, problem),
        )
        for t, ((theta, _), (after, state)) in enumerate(pairwise(path)):
            grads.append(state.grad.detach())
            if not bool((state.other.abs() + grads[-1].abs() < HUGE).all()):
                raise NothingToCompareError(f"the special rule goes beyond {HUGE:g} after {t + 1} steps")
            gap = torch.as_tensor(self.gap(special, close, theta, grads)).expand_as(theta)
            eps = torch.finfo(theta.dtype).eps
            rounding = 64 * eps * (theta.abs() + (after - theta).abs())
            rounding = rounding + self.cancellation * eps / close
            strayed = (after - state.other.detach()).abs()
            if not bool((strayed <= gap + rounding).all()):
                excess = float((strayed - gap - rounding).max())
                yield f"step {t} strays by {float(strayed.max()):.3g}, {excess:.3g} more than its bound"
            limit = torch.as_tensor(self.gap(special, VANISHING * close, theta, grads))
            if not bool((limit <= rounding + 1e-9 * (1 + theta.abs() + grads[-1].abs())).all()):
                yield f"the bound at step {t} does not go to 0 with closeness"
            if not accumulates:
                continue
            growth = _growth(special, problem, t, target[t], theta, self.clip)
            error = (gap + rounding).norm(dim=-1) + growth * error
            distance = (after - target[t + 1]).norm(dim=-1)
            if not bool((distance <= error * (1 + 1e-9) + 64 * eps * target[t + 1].norm(dim=-1)).all()):
                yield f"after step {t} θ is {distance.tolist()} away, the bound is {error.tolist()}"


class NothingToCompareError(Exception):
    """The special rule has left the numbers: there is nothing to follow."""


HUGE, VANISHING = 1e30, 1e-100
"""From where on nothing is compared in the limit, and the closeness at which every bound must be about 0."""

NUDGE, ROUNDING = 500, 5e4
"""In units in the last place: how far away rounding is measured from, and what is always allowed."""


def assert_subsumes(
    general: Maker,
    special: Maker,
    parameterise: Callable[..., Mapping[str, Tensor]],
    *,
    examples: int | None = None,
    example: Example | None = None,
    **claim: Any,
) -> None:
    """Check that `general` contains `special`, on drawn problems and drawn special rules.

    Args:
        general, special: registered names, classes, or `make(layout, **options)`.
        parameterise: `parameterise(special)` or `parameterise(special, general)` gives the general
            rule's φ as `{name: tensor or number}`; what it leaves out stays as it was drawn. Where `gap` is
            given it also takes the keyword `closeness`.
        general_options, special_options: options, each a value, a strategy to draw it from, or (for
            the general rule) a function of the special rule's options, and of closeness if it takes two.
        draw_phi: `draw_phi(special, generator)` draws the special rule's own φ in place; by default it
            is as the factory drew it.
        gap: makes it a claim in the limit: a bound on one step (see `Gap`), which must go to 0 with
            closeness. Asserted of every step on the general rule's own path and, on smooth networks,
            of the whole path through e⁽ᵗ⁺¹⁾ <= gap + Λe⁽ᵗ⁾, Λ the largest norm of the special
            step's Jacobian at nine points between the paths, and 5 % more.
        cancellation: of an edge in the limit, the errors of rounding that grow as 1 / closeness, in
            units in the last place.
        bitwise: the trajectory and the meta-gradients must be equal to the bit, not to rounding.
        clip: of the inner gradients, for both rules.
        problems: a strategy of problems; by default all of `strategies.problems()`.
        closeness: a strategy; by default 2⁻ᵏ for k = 1 ... 60.
        examples: how many; by default as many as the hypothesis profile says.
        example: check this one alone.

    Raises:
        AssertionError: with the smallest counterexample found, as a snippet.
        UsageError: where `parameterise` gives a φ that the general rule does not have.
    """
    require_known(claim, [field.name for field in attrs.fields(Subsumption)])
    Subsumption(general, special, parameterise, **claim).check(examples=examples, example=example)


def run(holds: Callable[[], None], examples: int | None) -> None:
    """Run a property as the profile says, or on so many examples; how long one takes says nothing."""
    import hypothesis

    profile = hypothesis.settings()
    settings = hypothesis.settings(
        profile,
        max_examples=profile.max_examples if examples is None else examples,
        deadline=None,
        suppress_health_check=[*profile.suppress_health_check, hypothesis.HealthCheck.too_slow],
    )
    settings(holds)()


def made(maker: Maker, learner: BaseLearner, options: Mapping[str, Any], seed: int) -> UpdateRule:
    """A rule for a learner, what it draws seeded, in the learner's dtype."""
    layout: ParameterLayout = learner.layout
    with forked_rng(torch.Generator().manual_seed(seed)):
        rule = make_rule(maker, layout, **options) if isinstance(maker, str) else maker(layout, **options)
    return rule.to(learner.dtype)


def load_phi(rule: UpdateRule, phi: Mapping[str, Any]) -> None:
    """Write φ into a rule. Raises UsageError for a name or a shape that it does not have."""
    parameters = dict(rule.named_parameters())
    for name, value in phi.items():
        if name not in parameters:
            raise unknown("meta-parameter", name, parameters)
        given = torch.as_tensor(value, dtype=parameters[name].dtype)
        if given.shape != parameters[name].shape:
            raise UsageError(
                f"parameterise: {name} of {rule.label} has shape {tuple(parameters[name].shape)},"
                f" got {tuple(given.shape)}"
            )
        parameters[name].copy_(given)


@attrs.frozen
class _Both:
    general: State
    special: State
    other: Tensor
    grad: Tensor


pytree.register_pytree_node(
    _Both, lambda b: ([b.general, b.special, b.other, b.grad], None), lambda parts, _: _Both(*parts)
)


class SideBySide(UpdateRule):
    """Follows the general rule, and remembers where the special one would have gone from the same θ."""

    def __init__(self, general: UpdateRule, special: UpdateRule) -> None:
        super().__init__()
        self.general, self.special = general, special
        self.uses_loss = general.uses_loss or special.uses_loss
        self.uses_step = general.uses_step or special.uses_step
        self.elementwise = general.elementwise and special.elementwise

    def init_state(self, theta: Tensor) -> _Both:
        states = self.general.init_state(theta), self.special.init_state(theta)
        return _Both(*states, torch.zeros_like(theta), torch.zeros_like(theta))

    def update(self, theta: Tensor, signal: Signal, state: _Both) -> tuple[Tensor, _Both]:
        after, general = self.general.update(theta, signal, state.general)
        other, special = self.special.update(theta, signal, state.special)
        return after, _Both(general, special, other, signal.grad)


def _accumulates(special: UpdateRule, problem: Problem) -> bool:
    """Whether all steps together are bounded as well: one task of a smooth network, a rule without state."""
    stateless = not pytree.tree_leaves(special.init_state(problem.theta))
    return stateless and problem.tasks == 1 and problem.architecture.activation in SMOOTH


def _growth(
    special: UpdateRule, problem: Problem, step: int, ours: Tensor, theirs: Tensor, clip: Clipping | None
) -> float:
    """Λ: the largest ‖∂(special step)/∂θ‖ at nine points between two vectors; a clipped one grows less."""
    support = problem.task[0].support

    def moved(theta: Tensor) -> Tensor:
        grad, loss = torch.func.grad_and_value(problem.learner.loss)(theta, support)
        grad = grad if clip is None else clip(grad)
        signal = Signal(
            grad,
            loss if special.uses_loss else Undeclared(special.label),
            step if special.uses_step else Undeclared(special.label),
        )
        return special.update(theta, signal, special.init_state(theta))[0]

    weights = torch.linspace(0, 1, 9, dtype=ours.dtype).unsqueeze(-1)
    jacobians = torch.func.vmap(torch.func.jacrev(moved))(ours[0] + weights * (theirs[0] - ours[0]))
    return 1.05 * float(torch.linalg.matrix_norm(jacobians.detach(), 2).max())


def drawn(draw: st.DrawFn, value: Any) -> Any:
    """An option's value, where it is a strategy drawn from it."""
    from hypothesis import strategies as st

    return draw(value) if isinstance(value, st.SearchStrategy) else value
