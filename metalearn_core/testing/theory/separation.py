"""One rule does not contain another: an invariant that every φ of it keeps, and that the other one breaks.

That something cannot be done is no matter of samples alone: the invariant is a theorem about the rule,
its property is checked over drawn φ, and the witness is one rule on one task. To state a separation needs no
hypothesis, to check it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import torch
from torch import Tensor, nn

from metalearn_core.errors import UsageError
from metalearn_core.inner_loop import trajectory
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import UpdateRule
from metalearn_core.task import Batch
from metalearn_core.testing.arguments import require_function, require_known, require_maker, require_options
from metalearn_core.testing.theory.making import draw_value, load_phi, make_seeded_rule, run_property
from metalearn_core.testing.theory.reports import phi, reference, short, title
from metalearn_core.testing.theory.statement import Maker

if TYPE_CHECKING:
    from hypothesis import strategies as st


@attrs.frozen
class Probe:
    """What an invariant is tried on, in plain numbers: n coordinates, T, a seed, and the size of φ."""

    n: int = 3
    steps: int = 1
    seed: int = 0
    spread: float = 1.0

    def normal(self, *shape: int, salt: int = 0) -> Tensor:
        """Normal numbers in float64, the same for the same probe and salt."""
        generator = torch.Generator().manual_seed(self.seed + 7919 * salt)
        return torch.randn(shape, generator=generator, dtype=torch.float64)


Invariant: TypeAlias = Callable[[UpdateRule, Probe], float]
"""How far a rule breaks it, 0 where it holds, as a part of the numbers that it is about."""


@attrs.frozen
class Separation:
    """The claim that `general` does not contain `special`; see `assert_separates`, which checks one."""

    general: Maker
    special: Maker
    invariant: Invariant
    general_options: Mapping[str, Any] = attrs.field(factory=dict)
    special_options: Mapping[str, Any] = attrs.field(factory=dict)
    special_phi: Mapping[str, Any] = attrs.field(factory=dict)
    witness: Probe = attrs.field(factory=lambda: Probe(steps=2))
    tolerance: float = 1e-9
    margin: float = 1e-3
    address: str = ""

    def __attrs_post_init__(self) -> None:
        for name in ("general", "special"):
            require_maker(name, getattr(self, name))
            require_options(f"{name}_options", getattr(self, f"{name}_options"))
        require_function("invariant", self.invariant, 2, 2, "invariant(rule, probe)")

    def check(self, *, examples: int | None = None) -> None:
        """AssertionError where the invariant does not hold, or where the witness keeps it."""
        self.check_witness()
        self.check_property(examples=examples)

    def check_property(self, *, examples: int | None = None) -> None:
        """The general rule keeps the invariant, on drawn probes, options and φ."""
        import hypothesis

        @hypothesis.given(self._cases())
        def holds(case: tuple[Probe, dict[str, Any]]) -> None:
            self.check_invariant(*case)

        run_property(holds, examples)

    def check_witness(self) -> None:
        """The special rule breaks the invariant."""
        rule = make_seeded_rule(
            self.special, slope_learner(self.witness.n), self.special_options, self.witness.seed
        )
        with torch.no_grad():
            load_phi(rule, {k: torch.as_tensor(v, dtype=torch.float64) for k, v in self.special_phi.items()})
        broken = self._broken(rule, self.witness)
        if not self.margin <= broken < math.inf:  # what is not a number is no witness
            raise AssertionError(
                f"{title(self.special)} keeps {title(self.invariant)} on {self.witness} ({broken:.3g}):"
                f" it does not tell it from {title(self.general)}"
            )

    def _broken(self, rule: UpdateRule, probe: Probe) -> float:
        found = self.invariant(rule, probe)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise UsageError(f"invariant: expected a number, 0 where it holds, got {found!r:.60}")
        return float(found)

    def check_invariant(self, probe: Probe, options: Mapping[str, Any]) -> None:
        """The general rule keeps it, at a φ drawn from normal numbers of size `probe.spread`."""
        rule = make_seeded_rule(self.general, slope_learner(probe.n), options, probe.seed)
        with torch.no_grad():
            for salt, parameter in enumerate(rule.parameters(), start=100):
                parameter.copy_(probe.spread * probe.normal(*parameter.shape, salt=salt))
        if not (broken := self._broken(rule, probe)) <= self.tolerance:
            told = (
                f"{title(self.general)} with {dict(options)} breaks {title(self.invariant)} by {broken:.3g}"
                f" on {short(probe)}\n{phi('general', rule)}"
            )
            raise AssertionError(f"{told}\nto run it again:\n\n{self._snippet(probe, options)}")

    def _snippet(self, probe: Probe, options: Mapping[str, Any]) -> str:
        """Code that tries the invariant once more."""
        if self.address:
            module, claim = self.address.split(":")
            imports = ["from metalearn_core.testing import Probe", f"from {module} import {claim}"]
        else:
            imports = ["from metalearn_core.testing import Probe, Separation"]
            given = [
                reference(name, getattr(self, name), imports) for name in ("general", "special", "invariant")
            ]
            claim = f"Separation({', '.join(given)}, tolerance={self.tolerance})"
        return "\n".join([*imports, "", f"{claim}.check_invariant({short(probe)}, {dict(options)!r})", ""])

    def _cases(self) -> st.SearchStrategy[tuple[Probe, dict[str, Any]]]:
        from hypothesis import strategies as st

        from metalearn_core.testing import strategies

        @st.composite
        def draw_case(draw: st.DrawFn) -> tuple[Probe, dict[str, Any]]:
            probe = Probe(
                draw(st.integers(2, 5)),
                draw(st.integers(1, 4)),
                draw(strategies.seeds()),
                draw(st.sampled_from([0.1, 0.3, 1.0])),
            )
            return probe, {name: draw_value(draw, value) for name, value in self.general_options.items()}

        return draw_case()


def assert_separates(
    general: Maker, special: Maker, invariant: Invariant, *, examples: int | None = None, **claim: Any
) -> None:
    """Check that `general` does not contain `special`.

    Args:
        general, special: as in `assert_subsumes`.
        invariant: `invariant(rule, probe)` says how far a rule breaks it, 0 where it holds.
        general_options: options, each a value or a strategy.
        special_options, special_phi: the witness.
        witness: the probe that it is tried on.
        tolerance: up to which the general rule keeps the invariant, at every φ.
        margin: from which the special rule breaks it.
        examples: how many; by default as many as the hypothesis profile says.

    Raises:
        AssertionError: with the φ that breaks the invariant, or where the witness keeps it.
        UsageError: for an argument that does not fit.
    """
    require_known(claim, [field.name for field in attrs.fields(Separation)])
    Separation(general, special, invariant, **claim).check(examples=examples)


class _Slope(nn.Module):
    """⟨x, θ⟩, θ in two tensors: all coordinates but the last, and the last."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.first, self.last = nn.Parameter(torch.zeros(n - 1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x @ torch.cat([self.first, self.last])


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).mean()


def slope_learner(n: int) -> BaseLearner:
    """A learner whose loss is linear: on `slope(g)` its gradient is g at every θ."""
    return BaseLearner(_Slope(n).double(), _difference)


def slope(grad: Tensor) -> Batch:
    """The support set on which `slope_learner`'s loss is ⟨grad, θ⟩."""
    return Batch(grad.unsqueeze(0), torch.zeros(1, dtype=grad.dtype))


def path(rule: UpdateRule, theta: Tensor, grad: Tensor, steps: int) -> list[Tensor]:
    """θ⁽⁰⁾ … θ⁽ᵀ⁾ on the task whose support gradient is `grad` everywhere."""
    learner = slope_learner(len(theta))
    with torch.no_grad():
        return [now for now, _ in trajectory(rule, learner, theta, slope(grad), steps=steps)]
