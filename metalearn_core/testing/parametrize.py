"""The laws as tests of pytest, one for each rule and law."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from metalearn_core.errors import UsageError, unknown

if TYPE_CHECKING:
    import pytest

    from metalearn_core.testing.laws import Law, MakeRule


@attrs.frozen
class LawOfRule:
    """One law of one rule, to be called: it passes, fails with what to change, or skips with the reason."""

    make_rule: MakeRule
    law: Law

    def __call__(self) -> None:
        """Check it, inside a test."""
        import pytest

        reason = self.law(self.make_rule)
        if reason:
            pytest.skip(reason)


def parametrize_with_laws(
    *rules: str | MakeRule,
    expected_failures: Mapping[str, str] | None = None,
    slow: bool = False,
) -> pytest.MarkDecorator:
    """Every law for every rule, as the argument `law` of a test whose body is `law()`.

    Args:
        rules: names of installed rules, rule classes, or any `make_rule(layout) -> UpdateRule`.
        expected_failures: laws that the rules are known to break, each with the reason; strict, so that
            one that holds after all fails its test.
        slow: the laws that train and compile too.

    Raises:
        UsageError: for no rule at all, or a law that there is not.
    """
    import pytest

    from metalearn_core.testing.kit import all_laws

    laws, expected = all_laws(slow), expected_failures or {}
    if not rules:
        raise UsageError("parametrize_with_laws: give it a rule: a class, or the name of an installed one")
    for name in expected:
        if name not in laws:
            raise unknown("law", name, laws)
    cases = []
    for rule in rules:
        title, make = _named(rule)
        for name, law in laws.items():
            marks = [pytest.mark.xfail(reason=expected[name], strict=True)] if name in expected else []
            cases.append(pytest.param(LawOfRule(make, law), id=f"{title}-{name}", marks=marks))
    return pytest.mark.parametrize("law", cases)


def _named(rule: str | MakeRule) -> tuple[str, MakeRule]:
    if isinstance(rule, str):
        from metalearn_core.registry import make_rule

        return rule, functools.partial(make_rule, rule)
    inner: Any = rule.func if isinstance(rule, functools.partial) else rule
    return getattr(inner, "__name__", type(inner).__name__), rule
