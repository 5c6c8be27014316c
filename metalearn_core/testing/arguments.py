"""What a claim is made of, looked at before anything is drawn: one line for what does not fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from metalearn_core.errors import UsageError, unknown
from metalearn_core.rule import UpdateRule


def require_known(given: Collection[str], known: Collection[str]) -> None:
    """UsageError for the first argument that there is not."""
    for name in given:
        if name not in known:
            raise unknown("argument", name, known)


def require_maker(name: str, value: object) -> None:
    """UsageError unless it is a registered name or makes rules."""
    if isinstance(value, UpdateRule) or not (isinstance(value, str) or callable(value)):
        raise UsageError(
            f"{name}: expected a rule's registered name, its class or make(layout, **options),"
            f" got a {type(value).__name__}"
        )


def require_laws(skip: object, expected_failures: object, laws: Collection[str]) -> None:
    """UsageError for names that are no law's, and for an expected failure without its reason."""
    if isinstance(skip, str) or not isinstance(skip, Collection):
        raise UsageError(f"skip: expected a collection of names of laws, got {skip!r}; write [{skip!r}]")
    if not isinstance(expected_failures, Mapping):
        raise UsageError(
            "expected_failures: expected {law: reason}, the reason why the rule breaks it,"
            f" got a {type(expected_failures).__name__}"
        )
    for name in (*skip, *expected_failures):
        if name not in laws:
            raise unknown("law", str(name), laws)
    for name, reason in expected_failures.items():
        if not (isinstance(reason, str) and reason.strip()):
            raise UsageError(f"expected_failures: law {name!r} needs a reason why the rule breaks it")


def require_options(name: str, value: object) -> None:
    """UsageError unless it is a mapping of options."""
    if not isinstance(value, Mapping):
        raise UsageError(
            f"{name}: expected a mapping of options, each a value or a strategy, got a {type(value).__name__}"
        )


def require_strategy(name: str, value: object) -> None:
    """UsageError unless it is a strategy."""
    from hypothesis import strategies as st

    if not isinstance(value, st.SearchStrategy):
        raise UsageError(
            f"{name}: expected a hypothesis strategy, got a {type(value).__name__}; st.just(...) makes one"
        )


def require_function(name: str, value: object, least: int, most: int, says: str) -> None:
    """UsageError unless it can be called with so many arguments by position."""
    if not callable(value):
        raise UsageError(f"{name}: expected {says}, got a {type(value).__name__}")
    count = positional(value)
    parameters = inspect.signature(value).parameters.values()
    if least == most and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return
    if not least <= count <= most:
        raise UsageError(f"{name}: expected {says}, got a function of {count} argument(s)")


def positional(function: Callable[..., Any]) -> int:
    """How many arguments a function must be given by position; a `parameterise` has closeness by name."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    named = {"closeness"} if len(parameters) <= 3 else set()
    return sum(p.kind in kinds and p.default is p.empty for p in parameters if p.name not in named)


def takes_closeness(function: Callable[..., Any]) -> bool:
    """Whether a function can be given `closeness=`."""
    parameters = inspect.signature(function).parameters
    return "closeness" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
