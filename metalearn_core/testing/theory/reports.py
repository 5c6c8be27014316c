"""How a counterexample is printed: what went wrong, the φ it went wrong with, and code that runs it again."""

from __future__ import annotations

import keyword
import sys
from collections.abc import Callable
from typing import Any

import attrs

from metalearn_core.rule import UpdateRule
from metalearn_core.testing.theory.statement import Example, Statement


def counterexample(
    claim: Statement, example: Example, special: UpdateRule, general: UpdateRule, complaint: str
) -> str:
    """The whole message."""
    lines = [f"{title(claim.general)} does not follow {title(claim.special)}: {complaint}"]
    lines += [phi("special", special), phi("general", general), "to run it again:", ""]
    return "\n".join([*lines, snippet(claim, example)])


def snippet(claim: Statement, example: Example) -> str:
    """Code that checks one example of a claim; what cannot be imported is named in a comment."""
    records = sorted({"Example", "Problem", type(example.problem.architecture).__name__})
    shown = f"example={short(example)}"
    if claim.address:
        module, name = claim.address.split(":")
        imports = [f"from metalearn_core.testing import {', '.join(records)}", f"from {module} import {name}"]
        return "\n".join([*imports, "", f"{name}.check({shown})", ""])
    imports = [f"from metalearn_core.testing import {', '.join([*records, 'assert_subsumes'])}"]
    given = [
        reference(name, getattr(claim, name), imports) for name in ("general", "special", "parameterise")
    ]
    for field in attrs.fields(type(claim)):
        value = getattr(claim, field.name)
        if field.name in ("draw_phi", "gap", "cancellation", "clip", "bitwise") and value != field.default:
            given.append(f"{field.name}={reference(field.name, value, imports)}")
    arguments = "".join(f"    {argument},\n" for argument in [*given, shown])
    return "\n".join([*imports, "", f"assert_subsumes(\n{arguments})", ""])


def short(value: Any) -> str:
    """The repr of a record without the fields that are as they are by default."""
    if not attrs.has(type(value)):
        return repr(value)
    fields = [
        f"{field.name}={short(getattr(value, field.name))}"
        for field in attrs.fields(type(value))
        if field.default is attrs.NOTHING or getattr(value, field.name) not in (field.default, {})
    ]
    return f"{type(value).__name__}({', '.join(fields)})"


def reference(role: str, value: Any, imports: list[str]) -> str:
    """How code names a value; a function is imported from where it was defined."""
    if not callable(value):
        if attrs.has(type(value)):
            imports.append(f"from metalearn_core import {type(value).__name__}")
        return repr(value)
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", role)
    found = getattr(sys.modules.get(module), name, None) is value
    if found and module != "__main__" and name.isidentifier() and not keyword.iskeyword(name):
        imports.append(f"from {module} import {name}")
        return name
    imports.append(f"# {role} is {name} of {module}, which cannot be imported: define it here")
    return role


def title(maker: str | Callable[..., Any]) -> str:
    """A rule's registered name, or its class's."""
    return maker if isinstance(maker, str) else getattr(maker, "__name__", repr(maker))


def phi(which: str, rule: UpdateRule) -> str:
    """The meta-parameters of a rule, long ones cut short."""
    values = {
        name: p.tolist() if p.numel() <= 8 else f"{p.flatten()[:6].tolist()} ... {tuple(p.shape)}"
        for name, p in ((name, p.detach()) for name, p in rule.named_parameters())
    }
    return f"φ of the {which} rule: {values or 'none'}"
