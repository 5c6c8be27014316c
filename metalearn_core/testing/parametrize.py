"""The laws as tests of pytest, one for each rule and law."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from metalearn_core.errors import UsageError, remedy

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

        try:
            reason = self.law(self.make_rule)
        except Exception as error:
            if not isinstance(error, UsageError) and (advice := remedy(error)):
                error.add_note(advice)  # an error of the core says it already
            raise
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
        UsageError: for no rule at all, for one that is not installed, or a law that there is not.
    """
    import pytest

    from metalearn_core.testing.arguments import require_laws
    from metalearn_core.testing.kit import all_laws, maker

    laws, expected = all_laws(slow), expected_failures or {}
    if not rules:
        raise UsageError("parametrize_with_laws: give it a rule: a class, or the name of an installed one")
    require_laws((), expected, laws)
    cases = []
    for rule in rules:
        title, make = _title(rule), maker(rule)
        for name, law in laws.items():
            marks = [pytest.mark.xfail(reason=expected[name], strict=True)] if name in expected else []
            cases.append(pytest.param(LawOfRule(make, law), id=f"{title}-{name}", marks=marks))
    return pytest.mark.parametrize("law", cases)


def _title(rule: str | MakeRule) -> str:
    if isinstance(rule, str):
        return rule
    inner: Any = rule.func if isinstance(rule, functools.partial) else rule
    return getattr(inner, "__name__", type(inner).__name__)
