"""One rule contains another: for every choice of the special rule's parameters there is a φ of the
general one with which it takes the same path, or one as close as is asked for.

`assert_subsumes` is the property. A failure prints the smallest counterexample that hypothesis found,
as code that runs. To state a claim needs no hypothesis, so that a map can be shown without; to check it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from metalearn_core.errors import RuleError, UsageError, describe_error
from metalearn_core.rule import UpdateRule
from metalearn_core.settings import ORDERS
from metalearn_core.testing.arguments import (
    positional,
    require_known,
)

if TYPE_CHECKING:
    from hypothesis import strategies as st

from metalearn_core.testing.theory.exact import deviations
from metalearn_core.testing.theory.limit import gaps
from metalearn_core.testing.theory.making import draw_value, load_phi, make_seeded_rule, run_property
from metalearn_core.testing.theory.reports import counterexample, title
from metalearn_core.testing.theory.statement import Example, Maker, NothingToCompareError, Statement


@attrs.frozen
class Subsumption(Statement):
    """The claim that `general` contains `special`; see `assert_subsumes`, which checks one."""

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

        run_property(holds, examples)
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
            special = {name: draw_value(draw, value) for name, value in self.special_options.items()}
            closeness = draw(near) if self.gap else 0.0
            general = {name: draw_value(draw, value) for name, value in self.general_options.items()}
            computed = {n: v for n, v in general.items() if callable(v) and not isinstance(v, type)}
            general |= {name: v(*(special, closeness)[: positional(v)]) for name, v in computed.items()}
            seed, order = draw(strategies.seeds()), draw(st.sampled_from(ORDERS[::-1]))
            return Example(problem, special, general, seed, closeness, order)

        return draw_example()

    def _special(self, example: Example) -> UpdateRule:
        rule = make_seeded_rule(self.special, example.problem.learner, example.special, example.seed)
        if self.draw_phi is not None:
            with torch.no_grad():
                self.draw_phi(rule, torch.Generator().manual_seed(example.seed))
        return rule

    def pair(self, example: Example) -> tuple[UpdateRule, UpdateRule]:
        """The special rule, and the general one at the φ that `parameterise` gives."""
        special = self._special(example)
        general = make_seeded_rule(self.general, example.problem.learner, example.general, example.seed + 1)
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
        differences = deviations if self.gap is None else gaps
        try:
            complaint = next(differences(self, special, general, example), None)
        except NothingToCompareError:
            raise
        except Exception as error:  # a rule's own, or a gap's
            if isinstance(error, UsageError) and not isinstance(error, RuleError):
                raise
            complaint = describe_error(error)
            raise AssertionError(counterexample(self, example, special, general, complaint)) from error
        if complaint:
            raise AssertionError(counterexample(self, example, special, general, complaint))


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
