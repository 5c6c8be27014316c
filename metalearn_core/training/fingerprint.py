"""What a run is about, in words and hashes, so that a checkpoint of another run is recognised."""

from __future__ import annotations

import ctypes
import hashlib
from typing import Any

import attrs
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metalearn_core.learner import BaseLearner, one_line_repr
from metalearn_core.rule import UpdateRule
from metalearn_core.task import TaskFamily


def digest(*tensors: Tensor) -> str:
    """A hash of the tensors' bytes; numpy, which torch can do without, is not asked for them."""
    found = hashlib.sha256()
    for tensor in (x.detach().cpu().contiguous() for x in tensors if x.numel()):
        found.update(ctypes.string_at(tensor.data_ptr(), tensor.nbytes))
    return found.hexdigest()


def describe_run(rule: UpdateRule, learner: BaseLearner, family: TaskFamily) -> dict[str, str]:
    """Rule, learner and tasks in words that another process has too."""
    layout, parts = learner.layout, dict(rule.named_modules())
    kinds = {path: type(part).__qualname__ for path, part in parts.items() if path}
    options = {
        f"{path}.{k}".lstrip("."): _describe(v) for path, p in parts.items() for k, v in _public_attributes(p)
    }
    # what a family keeps in containers may be what it has drawn so far
    tasks = [(k, _describe(v)) for k, v in _public_attributes(family) if not isinstance(v, list | dict | set)]
    return {
        "rule": rule.label,
        "layout": repr(list(zip(layout.names, layout.shapes, strict=True))),
        "learner": f"{learner.describe()}, {learner.dtype}",
        "what is frozen in the learner": digest(*learner.constants.values()),
        "meta-parameters": repr({k: (*v.shape, v.requires_grad) for k, v in rule.named_parameters()}),
        "parts": repr(kinds),
        "options": repr(options),
        **{f"buffer {name}": digest(buffer) for name, buffer in rule.named_buffers()},
        "tasks": f"{type(family).__qualname__} {tasks}",
    }


def _public_attributes(thing: object) -> list[tuple[str, Any]]:
    """Its attributes by name, in order; `training` says nothing of a rule."""
    made = type(thing)
    fields = attrs.fields_dict(made) if attrs.has(made) else getattr(thing, "__dict__", {})
    names = sorted(name for name in fields if not name.startswith("_") and name != "training")
    return [(name, getattr(thing, name)) for name in names]


def _describe(value: object) -> str:
    """A value in one line: sets in order, a φ by its shape, another tensor by its bytes."""
    value = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
    plain = pytree.tree_map_only(
        Tensor, lambda x: tuple(x.shape) if isinstance(x, nn.Parameter) else digest(x), value
    )
    return one_line_repr(plain)
