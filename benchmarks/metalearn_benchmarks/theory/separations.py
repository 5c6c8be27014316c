"""The proofs of the map's crossed-out edges: an invariant of one rule, a witness of the other."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from metalearn_benchmarks.theory import invariants as keeps
from metalearn_benchmarks.theory.references import Schedule, descent
from metalearn_benchmarks.theory.subsumptions import BETA, HIDDEN
from metalearn_benchmarks.theory.subsumptions import GATED as SCALED
from metalearn_core.testing import Probe, Separation
from metalearn_core.testing.theory.invariants import treats_a_tensor_alike

_one_of = st.sampled_from
# Equation 3.3 itself, its candidate the negative gradient
GATED = {**SCALED, "candidate_scale": 1.0}
ANY_NETWORK: Mapping[str, Any] = {
    "hidden": st.lists(st.integers(1, 8), max_size=3),
    "activation": _one_of(["relu", "tanh", "sigmoid", "elu", "gelu"]),
    "preprocess": _one_of(["none", "log"]),
}
PRESENT = {
    **ANY_NETWORK,
    "inputs": st.lists(_one_of(["grad", "loss", "theta"]), min_size=1, unique=True),
    "learn_lr": _one_of(["none", "parameter"]),
}
BLIND = {
    **ANY_NETWORK,
    "inputs": st.lists(_one_of(["grad", "loss", "step"]), min_size=1, unique=True),
    "history": _one_of(["none", "grad", "update"]),
    "history_timing": _one_of(["equation", "program"]),
    "beta": BETA,
    "learn_lr": _one_of(["none", "parameter"]),
}
ANY = {**BLIND, "inputs": st.lists(_one_of(["grad", "loss", "theta", "step"]), min_size=1, unique=True)}
SHARED = {**ANY, "learn_lr": "none"}
LINEAR_METHODS: Mapping[str, Any] = {
    "momentum": _one_of([0.0, 0.5, 0.9]),
    "weight_decay": _one_of([0.0, 0.1, 1.0]),
    "learn_lr": _one_of(["none", "scalar", "tensor", "parameter"]),
}
FIXED = {"inner_lr": 0.1}


def _adaptive(optimizer: str) -> dict[str, Any]:
    return {"optimizer": optimizer, "inner_lr": 1.0 if optimizer == "adadelta" else 0.1}


def _without(invariant: Any, general: Any, general_options: Mapping[str, Any], **claim: Any) -> Any:
    """Separations of one rule from several witnesses."""

    def separation(special: Any, special_options: Mapping[str, Any], **more: Any) -> Separation:
        return Separation(general, special, invariant, general_options, special_options, **{**claim, **more})

    return separation


_no_lstm = _without(keeps.reaches_no_further, "lstm", GATED, witness=Probe(seed=2))
LSTM_HAS_NO_LONG_STEPS = _no_lstm("gradient-descent", {"inner_lr": 2.0})
LSTM_NEEDS_GRADIENTS_OF_SOME_SIZE = _no_lstm("gradient-descent", {"optimizer": "rprop", "inner_lr": 5.0})
LSTM_TREATS_COORDINATES_ALIKE = Separation(
    "lstm", "gradient-descent", keeps.treats_coordinates_alike, GATED,
    {"learn_lr": "tensor"}, {"inner_lr": [0.1, 0.9]},
)  # fmt: skip
LSTM_DECAYS = Separation(
    "lstm",
    "gradient-descent",
    keeps.decays_at_zero,
    GATED,
    FIXED,
    tolerance=0.5,
)

_no_shared = _without(keeps.treats_coordinates_alike, "feed-forward", SHARED)
SHARED_TREATS_COORDINATES_ALIKE = _no_shared(
    "gradient-descent", {"learn_lr": "tensor"}, special_phi={"inner_lr": [0.1, 0.9]}
)
PER_TENSOR_TREATS_TENSORS_ALIKE = Separation(
    "gradient-descent", "gradient-descent", treats_a_tensor_alike, {"learn_lr": "tensor"},
    {"learn_lr": "parameter"}, {"inner_lr": [0.1, 0.9, 0.1]},
)  # fmt: skip
GRADIENT_DESCENT_TREATS_TENSORS_ALIKE = Separation(
    "gradient-descent", "gradient-descent", keeps.treats_coordinates_alike,
    {"learn_lr": _one_of(["none", "scalar"])}, {"learn_lr": "tensor"}, {"inner_lr": [0.1, 0.9]},
)  # fmt: skip

BLIND_TO_THETA = Separation(
    "feed-forward", "gradient-descent", keeps.is_blind_to_theta, BLIND, {**FIXED, "weight_decay": 0.5}
)
MOMENTUM_IS_MOVED_BY_GRADIENTS = Separation(
    "gradient-descent", "gradient-descent", keeps.is_moved_by_gradients_alone,
    {"momentum": _one_of([0.3, 0.9]), "nesterov": st.booleans()}, {**FIXED, "weight_decay": 0.5},
)  # fmt: skip

_no_present = _without(keeps.can_be_restarted, "feed-forward", PRESENT)
PRESENT_HAS_NO_SCHEDULE = _no_present(Schedule, {}, special_phi={"inner_lrs": [0.1, 0.5, 0.1, 0.1, 0.1]})
PRESENT_HAS_NO_MOMENTUM = _no_present("gradient-descent", {**FIXED, "momentum": 0.9})
PRESENT_HAS_NO_NESTEROV = _no_present("gradient-descent", {**FIXED, "momentum": 0.9, "nesterov": True})
PRESENT_HAS_NO_DAMPED_MOMENTUM = _no_present("gradient-descent", {**FIXED, "momentum": 0.9, "dampening": 0.9})
PRESENT_HAS_NO_ADAM = _no_present("gradient-descent", _adaptive("adam"))
PRESENT_HAS_NO_ADAMAX = _no_present("gradient-descent", {**_adaptive("adamax"), "betas": [0.5, 0.9]})
PRESENT_HAS_NO_RMSPROP = _no_present("gradient-descent", _adaptive("rmsprop"))
PRESENT_HAS_NO_ADAGRAD = _no_present("gradient-descent", _adaptive("adagrad"))
PRESENT_HAS_NO_ADADELTA = _no_present("gradient-descent", {**_adaptive("adadelta"), "eps": 1e-2})
PRESENT_HAS_NO_RPROP = _no_present("gradient-descent", _adaptive("rprop"))
PRESENT_HAS_NO_ASGD = _no_present(
    "gradient-descent", {"optimizer": "asgd", "inner_lr": 0.5, "lambd": 0.5}, margin=1e-4
)
PRESENT_HAS_NO_GATES = _no_present("lstm", {"weight_range": 3.0})

_not_affine = _without(keeps.is_affine, descent, {"inner_lr": st.floats(0.0, 2.0), **LINEAR_METHODS})
LINEAR_METHODS_HAVE_NO_KINKS = _not_affine("feed-forward", {})
LINEAR_METHODS_HAVE_NO_GATES = _not_affine("lstm", {"weight_range": 3.0})
LINEAR_METHODS_HAVE_NO_ADAM = _not_affine("gradient-descent", _adaptive("adam"))
LINEAR_METHODS_HAVE_NO_ADAMAX = _not_affine("gradient-descent", _adaptive("adamax"))
LINEAR_METHODS_HAVE_NO_RMSPROP = _not_affine("gradient-descent", _adaptive("rmsprop"))
LINEAR_METHODS_HAVE_NO_ADAGRAD = _not_affine("gradient-descent", _adaptive("adagrad"))
LINEAR_METHODS_HAVE_NO_ADADELTA = _not_affine("gradient-descent", {**_adaptive("adadelta"), "eps": 1e-2})
LINEAR_METHODS_HAVE_NO_RPROP = _not_affine("gradient-descent", _adaptive("rprop"))
SCHEDULES_HAVE_NO_KINKS = Separation(Schedule, "feed-forward", keeps.is_affine)
SCHEDULES_STAND_STILL = Separation(
    Schedule, "gradient-descent", keeps.stands_still_at_zero, {}, {**FIXED, "momentum": 0.9}
)
META_SGD_STANDS_STILL = Separation(
    "gradient-descent", "gradient-descent", keeps.stands_still_at_zero,
    {"learn_lr": _one_of(["scalar", "tensor", "parameter"])}, {**FIXED, "weight_decay": 0.5},
)  # fmt: skip

_only_an_average = _without(
    keeps.remembers_an_average_alone, "feed-forward",
    {**ANY_NETWORK, "history": "grad", "inputs": ANY["inputs"], "beta": BETA},
)  # fmt: skip
HISTORY_HAS_NO_ADAM = _only_an_average("gradient-descent", _adaptive("adam"))
HISTORY_HAS_NO_ADAMAX = _only_an_average("gradient-descent", _adaptive("adamax"))
HISTORY_HAS_NO_RMSPROP = _only_an_average("gradient-descent", _adaptive("rmsprop"))
HISTORY_HAS_NO_ADAGRAD = _only_an_average("gradient-descent", _adaptive("adagrad"))
HISTORY_HAS_NO_ADADELTA = _only_an_average("gradient-descent", {**_adaptive("adadelta"), "eps": 1e-2})

RPROP_SEES_SIGNS = Separation(
    "gradient-descent", "gradient-descent", keeps.sees_signs_alone, {"optimizer": "rprop"}, FIXED
)

# what tends to 0 is not 0 yet at 10⁹
_growing = functools.partial(Separation, tolerance=1e-4, margin=1e-2)
NETWORKS_BEND_LITTLE_IN_THETA = _growing(
    "feed-forward", "lstm", keeps.bends_little_in_theta, ANY,
    {"inputs": ["grad"]}, {"input_gate.weight": [[0.0, 0.0, 0.0]], "forget_gate.weight": [[1.0, 0.0, 0.0]]},
    )  # fmt: skip
NETWORKS_BEND_LITTLE_IN_TIME = _growing(
    "feed-forward", Schedule, keeps.bends_little_in_time,
    {**PRESENT, "inputs": st.just(["grad", "step"])}, {},
    {"inner_lrs": [0.1, 0.5, 0.1, 0.1, 0.1]}, )  # fmt: skip
LOGARITHMS_GROW_SLOWLY = _growing(
    "feed-forward", "gradient-descent", keeps.grows_slower_than_gradients,
    {**ANY_NETWORK, "preprocess": "log", "learn_lr": _one_of(["none", "parameter"])}, FIXED, )  # fmt: skip
BOUNDED_NETWORKS_STAY_BOUNDED = _growing(
    "feed-forward", "gradient-descent", keeps.grows_slower_than_gradients,
    {**PRESENT, "inputs": st.just(["grad"]), "hidden": HIDDEN, "activation": _one_of(["tanh", "sigmoid"])},
    FIXED,
)  # fmt: skip

FIRST_LAYER = {"hidden": 20, "weight_range": 3.0}
PRESENT_HAS_NO_GATES_WITH_A_FIRST_LAYER = _no_present("lstm", FIRST_LAYER)
LINEAR_METHODS_HAVE_NO_GATES_WITH_A_FIRST_LAYER = _not_affine("lstm", FIRST_LAYER)
NETWORKS_BEND_LITTLE_IN_THETA_WITH_A_FIRST_LAYER = _growing(
    "feed-forward", "lstm", keeps.bends_little_in_theta, ANY, {"inputs": ["grad"], "hidden": 20},
    {"input_gate.weight": [[0.0] * 22], "forget_gate.weight": [[10.0] * 20 + [0.0, 0.0]]},
)  # fmt: skip

OPTIMISERS = {"optimizer": _one_of(["adam", "adamax", "rmsprop", "adagrad", "adadelta", "rprop"])}
WITH_MOMENTUM: Mapping[str, Any] = {"momentum": _one_of([0.3, 0.9]), "dampening": _one_of([0.0, 0.3])}
NESTEROV: Mapping[str, Any] = {"momentum": _one_of([0.3, 0.9]), "nesterov": True}  # torch damps none of it
OPTIMISERS_TREAT_COORDINATES_ALIKE = Separation(
    "gradient-descent", "gradient-descent", keeps.treats_coordinates_alike,
    {"optimizer": _one_of(["adam", "adamax", "rmsprop", "adagrad", "adadelta", "rprop", "asgd"])},
    {"learn_lr": "tensor"}, {"inner_lr": [0.1, 0.9]},
)  # fmt: skip
_alike = functools.partial(
    Separation, "gradient-descent", "gradient-descent", keeps.treats_coordinates_alike,
    special_options={"learn_lr": "tensor"}, special_phi={"inner_lr": [0.1, 0.9]},
)  # fmt: skip
MOMENTUM_TREATS_COORDINATES_ALIKE = _alike({**WITH_MOMENTUM, "weight_decay": _one_of([0.0, 0.5])})
NESTEROV_TREATS_COORDINATES_ALIKE = _alike(NESTEROV)
A_BIAS: Mapping[str, Any] = {"special_phi": {"network.0.bias": [0.5]}}
_no_bias = functools.partial(
    Separation, "gradient-descent", "feed-forward", keeps.stands_still_without_gradients,
    special_options={"hidden": []}, **A_BIAS,
)  # fmt: skip
OPTIMISERS_STAND_STILL_WITHOUT_GRADIENTS = _no_bias(general_options=OPTIMISERS)
MOMENTUM_STANDS_STILL_WITHOUT_GRADIENTS = _no_bias(general_options=WITH_MOMENTUM)
NESTEROV_STANDS_STILL_WITHOUT_GRADIENTS = _no_bias(general_options=NESTEROV)
META_SGD_STANDS_STILL_WITHOUT_GRADIENTS = _no_bias(general_options={"learn_lr": "parameter"})
