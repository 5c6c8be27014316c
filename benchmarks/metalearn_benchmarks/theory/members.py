"""Any member of a node of the map: its options, drawn as the node's `options`, `varies` and `free` say.

A law is a statement about whole nodes, so that its property is tried on members of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

from metalearn_benchmarks.theory.references import Schedule
from metalearn_core import ParameterLayout, UpdateRule, make_rule
from metalearn_core.testing import strategies as draws

REFERENCES: Mapping[str, Callable[..., UpdateRule]] = {"schedule": Schedule}
"""The rules among the members that no plugin ships."""

RATES = st.floats(0.01, 2.0)
BETAS = st.floats(0.0, 0.95)
SQUARES = st.floats(0.0, 0.999)
EPSILONS = st.sampled_from([1e-8, 1e-3, 1.0])
ONE_RATE = st.sampled_from(["none", "scalar"])
WIDTHS = draws.widths()
INPUTS = ("grad", "loss", "theta", "step")


def _descent(optimizer: str, **options: Any) -> tuple[str, dict[str, Any]]:
    rates = {} if optimizer in ("rprop", "asgd") else {"learn_lr": ONE_RATE}
    return "gradient-descent", {"optimizer": optimizer, "inner_lr": RATES, **rates, **options}


def _network(*inputs: str, **options: Any) -> tuple[str, dict[str, Any]]:
    return "feed-forward", {"hidden": WIDTHS, "inputs": list(inputs), **options}


def _any_network(*inputs: str, **options: Any) -> tuple[str, dict[str, Any]]:
    """A network of any activation, preprocessing and α, with any of these inputs."""
    free = {
        "hidden": st.lists(st.integers(1, 8), max_size=3),
        "activation": st.sampled_from(["relu", "tanh", "sigmoid", "elu", "gelu"]),
        "preprocess": st.sampled_from(["none", "log"]),
        "inputs": st.lists(st.sampled_from(inputs), min_size=1, unique=True),
        "learn_lr": st.sampled_from(["none", "parameter"]),
    }
    return "feed-forward", {**free, **options}


def _gates(hidden: int) -> tuple[str, dict[str, Any]]:
    return "lstm", {
        "hidden": hidden,
        "inputs": st.sampled_from([["grad", "loss"], ["grad"], ["loss"]]),
        "preprocess": st.sampled_from(["none", "log"]),
        "previous_gate": st.sampled_from(["sigmoid", "logit"]),
    }


AVERAGED = {
    "history": st.sampled_from(["none", "grad", "update"]),
    "history_timing": st.sampled_from(["equation", "program"]),
    "beta": st.floats(0.0, 1.0),
}
MOMENTS = {"betas": st.tuples(BETAS, SQUARES), "eps": EPSILONS}

MEMBERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "gradient-descent": _descent("sgd"),
    "per-tensor": _descent("sgd", learn_lr="tensor"),
    "meta-sgd": _descent("sgd", learn_lr="parameter"),
    "momentum": _descent("sgd", momentum=BETAS),
    "nesterov": _descent("sgd", momentum=st.floats(0.01, 0.95), nesterov=True),
    "damped-momentum": _descent("sgd", momentum=(damped := st.shared(BETAS, key="β")), dampening=damped),
    "momentum-weight-decay": _descent("sgd", momentum=BETAS, weight_decay=st.floats(0.0, 1.0)),
    "schedule": ("schedule", {}),
    "adam": _descent("adam", **MOMENTS),
    "adamax": _descent("adamax", **MOMENTS),
    "rmsprop": _descent("rmsprop", alpha=SQUARES, eps=EPSILONS),
    "adagrad": _descent("adagrad", eps=EPSILONS),
    "adadelta": _descent("adadelta", rho=SQUARES, eps=st.sampled_from([1e-6, 1e-3, 1.0])),
    "asgd": _descent("asgd", lambd=st.floats(0.0, 1.0), alpha=st.floats(0.0, 2.0)),
    "rprop": _descent("rprop", etas=st.tuples(st.floats(0.1, 0.9), st.floats(1.1, 2.0))),
    "lstm": _gates(0),
    "lstm-hidden": _gates(20),
    "feed-forward-linear": ("feed-forward", {"hidden": [], "inputs": ["grad"]}),
    "feed-forward-alpha": _network("grad", learn_lr="parameter"),
    "feed-forward-theta": _network("grad", "theta"),
    "feed-forward-step": _network("grad", "step"),
    "feed-forward-history": _network("grad", history="grad", beta=st.floats(0.0, 1.0)),
    "feed-forward-program": _network(
        "grad", history="grad", history_timing="program", beta=st.floats(0.0, 1.0)
    ),
    "feed-forward-updates": _network("grad", "theta", history="update", beta=st.floats(0.0, 1.0)),
    "feed-forward-log": _network("grad", preprocess="log"),
    "feed-forward-tanh": _network("grad", activation="tanh"),
    "feed-forward-sigmoid": _network("grad", activation="sigmoid"),
    "feed-forward-present": _any_network("grad", "loss", "theta"),
    "feed-forward-shared": _any_network(*INPUTS, **AVERAGED, learn_lr="none"),
    "feed-forward-blind": _any_network("grad", "loss", "step", **AVERAGED),
    "feed-forward-any": _any_network(*INPUTS, **AVERAGED),
}
"""The rule of a node and its options, each a value or a strategy."""


def any_of(nodes: tuple[str, ...]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    """Draw a member of any of these nodes, as the name of its rule and its options."""
    return st.one_of(*[st.tuples(st.just(MEMBERS[node][0]), _drawn(MEMBERS[node][1])) for node in nodes])


def _drawn(options: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    strategies = {k: v if isinstance(v, st.SearchStrategy) else st.just(v) for k, v in options.items()}
    return st.fixed_dictionaries(strategies)


def member(layout: ParameterLayout, drawn: tuple[str, Mapping[str, Any]]) -> UpdateRule:
    """Make a member that `any_of` has drawn."""
    rule, options = drawn
    return REFERENCES[rule](layout, **options) if rule in REFERENCES else make_rule(rule, layout, **options)
