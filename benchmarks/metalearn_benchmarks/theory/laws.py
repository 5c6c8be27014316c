"""The proofs of the map's crossed-out edges: for each law of `laws.toml` its invariant and its witnesses.

A law with its invariant and one special rule that breaks it makes a claim, a `Separation`: its property is
tried on members of all the law's general rules. `AFFINE` and `rprop` make `AFFINE_BROKEN_BY_RPROP`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from metalearn_benchmarks.theory import claim_of, law_facts, memories, responses
from metalearn_benchmarks.theory import invariants as keeps
from metalearn_benchmarks.theory.members import REFERENCES, any_of, member
from metalearn_benchmarks.theory.witnesses import BUMP, GATES_OF_THE_GRADIENT, WITNESSES, Witness
from metalearn_core.testing import Probe, Separation
from metalearn_core.testing.theory.invariants import treats_a_tensor_alike
from metalearn_core.testing.theory.separation import Invariant


@attrs.frozen
class Law:
    """An invariant, and how it is tried.

    Args:
        keeps: The invariant.
        witnesses: The special rules that break it, where others than those of `WITNESSES` do.
        probe: What the witnesses are tried on.
        tolerance: Up to which the general rules keep it.
        margin: From which the witnesses break it.
    """

    keeps: Invariant
    witnesses: Mapping[str, Witness] = attrs.field(factory=dict)
    probe: Probe = attrs.field(factory=lambda: Probe(steps=2))
    tolerance: float = 1e-9
    margin: float = 1e-3


def _descent(phi: Mapping[str, Any] | None = None, **options: Any) -> Witness:
    return Witness("gradient-descent", options, phi or {})


GROWING: Mapping[str, Any] = {"tolerance": 1e-4, "margin": 1e-2}
"""What tends to 0 is not 0 yet at 10⁹."""
NO_FIRST_AVERAGE = {
    "adam": _descent(optimizer="adam", inner_lr=0.1, betas=[0.0, 0.9]),
    "adamax": _descent(optimizer="adamax", inner_lr=0.1, betas=[0.0, 0.9]),
}
"""Without it, the past shows in what they divide by, and there alone."""

LAWS: Mapping[str, Law] = {
    "REACH": Law(
        keeps.reaches_no_further,
        {
            "gradient-descent": _descent(inner_lr=2.0),
            "rprop": _descent(optimizer="rprop", inner_lr=5.0),
        },
        Probe(seed=2),
    ),
    "DECAY": Law(keeps.decays_at_zero, tolerance=0.5),
    "MONOTONE_GATE": Law(responses.has_a_monotone_input_gate, BUMP),
    "ALIKE": Law(keeps.treats_coordinates_alike),
    "ALIKE_IN_A_TENSOR": Law(treats_a_tensor_alike),
    "BLIND": Law(keeps.is_blind_to_theta),
    "MOVED_BY_GRADIENTS": Law(keeps.is_moved_by_gradients_alone),
    "LOSS_BLIND": Law(responses.is_blind_to_the_loss),
    "NEW_LOOP": Law(keeps.can_be_restarted, margin=1e-4),
    "THETA_AND_TIME": Law(responses.carries_theta_and_time_alone),
    "AFFINE": Law(keeps.is_affine),
    "STANDS_STILL": Law(keeps.stands_still_at_zero),
    "ZERO": Law(responses.stays_at_zero),
    "NEW_AFTER_ZEROS": Law(responses.is_new_after_zeros),
    "NO_LONGER_AFTER_ZEROS": Law(responses.is_no_longer_after_zeros, probe=Probe()),
    "REPEATS": Law(responses.repeats_a_step),
    "SHRINKS": Law(responses.shrinks),
    "GROWS": Law(responses.grows_at_first),
    "ROOTS_OF_TIME": Law(responses.divides_by_roots_of_the_time, tolerance=1e-6),
    "SIGNS_AVERAGED": Law(responses.averages_signs),
    "MAXIMUM": Law(responses.is_affine_in_a_smaller_gradient),
    "ROOTS_OF_SQUARES": Law(responses.divides_by_roots_of_squares),
    "IMPULSE": Law(responses.answers_as_momentum),
    "NESTEROV_IMPULSE": Law(responses.answers_as_nesterov),
    "AVERAGE_OF_GRADIENTS": Law(memories.knows_one_average_of_gradients, NO_FIRST_AVERAGE),
    "ONE_AVERAGE": Law(memories.knows_one_average, NO_FIRST_AVERAGE),
    "NEW_WHERE_NOTHING_MOVED": Law(memories.is_new_where_nothing_moved),
    "STILL_NEW_WHERE_NOTHING_MOVED": Law(memories.is_new_where_nothing_moved),
    "CONTINUOUS": Law(responses.is_continuous_at_zero),
    "SIGNS_ALONE": Law(keeps.sees_signs_alone),
    "LIPSCHITZ_IN_THETA": Law(keeps.bends_little_in_theta, GATES_OF_THE_GRADIENT, **GROWING),
    "LIPSCHITZ_IN_TIME": Law(keeps.bends_little_in_time, **GROWING),
    "LOGARITHMS": Law(keeps.grows_slower_than_gradients, **GROWING),
    "BOUNDED": Law(keeps.grows_slower_than_gradients, **GROWING),
}


def _claims_of(name: str, law: Law) -> dict[str, Separation]:
    """The claims of a law, by their names; they share the options, of which the property is tried once."""
    facts = law_facts()[name]
    options = {"drawn": any_of(tuple(facts["generals"]))}
    claims = {}
    for special in facts["breaks"]:
        witness = {**WITNESSES, **law.witnesses}[special]
        maker = REFERENCES.get(witness.rule, witness.rule)
        claims[claim_of(name, special)] = Separation(
            member, maker, law.keeps, options, witness.options, witness.phi,
            law.probe, law.tolerance, law.margin,
        )  # fmt: skip
    return claims


# as names of this module, so that the code of a counterexample can import them
for _name, _law in LAWS.items():
    globals().update(_claims_of(_name, _law))
