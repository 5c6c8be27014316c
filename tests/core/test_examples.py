"""Every public name of the core shows an example, and every example does what it says."""

from __future__ import annotations

import doctest
import re

import pytest

import metalearn_core

WITHOUT = {"Observer", "Order", "State", "TWINS", "hookimpl"}
"""Aliases of types, and constants: they have no docstring of their own."""
NAMES = sorted(set(metalearn_core.__all__) - WITHOUT)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples_of(name: str, thing: object) -> list[doctest.DocTest]:
    """The examples in the docstring of a public thing, and in those of its methods."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(thing, name, module=False, globs={}) if test.examples]


def shows_an_example(thing: object) -> bool:
    """Whether its own docstring, not one that it inherits, has a section that holds an example."""
    doc = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
    return re.search(r"^ *Example:\n\s+>>> ", doc or "", flags=re.MULTILINE) is not None


def failures(tests: list[doctest.DocTest]) -> str:
    """What the examples print in the place of what they say, empty where that is the same."""
    runner, output = doctest.DocTestRunner(optionflags=OPTIONS), []
    for test in tests:
        runner.run(test, out=output.append)
    return "".join(output)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of(name):
    thing = getattr(metalearn_core, name)
    assert shows_an_example(thing), f"{name} has no `Example:` section with a `>>>` in it"
    assert failures(examples_of(name, thing)) == ""


def test_only_public_names_go_without():
    assert set(metalearn_core.__all__) >= WITHOUT


def test_a_wrong_example_is_found():
    def wrong():
        """Add.

        Example:
            >>> 1 + 1
            3
        """

    assert shows_an_example(wrong)
    assert "Expected:\n    3\nGot:\n    2" in failures(examples_of("wrong", wrong))


def test_a_missing_example_is_found():
    def without():
        """Add.

        Returns:
            Nothing that says Example: in a section of its own.
        """

    class Inherits(metalearn_core.UpdateRule):
        pass

    assert not shows_an_example(without)
    assert not shows_an_example(Inherits)
