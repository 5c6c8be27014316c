"""What the harness brings as a plugin, with no privilege over anybody else's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from metalearn_core import hookimpl

from metalearn_benchmarks.networks import multilayer_perceptron
from metalearn_benchmarks.sine import SineFamily


@hookimpl
def metalearn_task_families() -> Mapping[str, Callable[..., Any]]:
    return {"sine": SineFamily}


@hookimpl
def metalearn_base_learners() -> Mapping[str, Callable[..., Any]]:
    return {"mlp": multilayer_perceptron}
