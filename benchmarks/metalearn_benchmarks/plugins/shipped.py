"""The harness as a plugin: its families, base-learners and observers, registered as any plugin's are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from metalearn_benchmarks.experiments.method import BACKPROPAGATION
from metalearn_benchmarks.learners.images.conv4 import conv_4
from metalearn_benchmarks.learners.images.resnet12 import resnet_12
from metalearn_benchmarks.learners.perceptron import multilayer_perceptron
from metalearn_benchmarks.learners.transformer import transformer
from metalearn_benchmarks.runs.observers.shipped import JsonLines, TensorBoard
from metalearn_benchmarks.tasks.images.families import image_families
from metalearn_benchmarks.tasks.sequences import InContextSine
from metalearn_benchmarks.tasks.sine import SineFamily
from metalearn_core import hookimpl, meta_gradient


@hookimpl
def metalearn_task_families() -> Mapping[str, Callable[..., Any]]:
    """Return the task families by name."""
    return {"sine": SineFamily, "in-context-sine": InContextSine, **image_families()}


@hookimpl
def metalearn_base_learners() -> Mapping[str, Callable[..., Any]]:
    """Return the base-learners by name."""
    return {
        "mlp": multilayer_perceptron, "conv-4": conv_4, "resnet-12": resnet_12, "transformer": transformer,
    }  # fmt: skip


@hookimpl
def metalearn_meta_gradients() -> Mapping[str, Callable[..., Any]]:
    """Return the outer gradient that the core has, by its name."""
    return {BACKPROPAGATION: meta_gradient}


@hookimpl
def metalearn_observers() -> Mapping[str, Callable[..., Any]]:
    """Return the observers by name."""
    return {"json-lines": JsonLines, "tensorboard": TensorBoard}
