"""A traced meta-step held against the eager one, for other values than it was traced with."""

from __future__ import annotations

import functools

import attrs
import torch

from metalearn_core import CompiledMetaGradient, meta_gradient
from metalearn_core.kernels.programs import traced


def assert_traced_is_eager(rule, problem, **close):
    step = CompiledMetaGradient(rule, problem.learner, steps=2)
    program = traced(
        functools.partial(step._traced, problem.task),
        [problem.theta, *map(torch.detach, rule.parameters()), *problem.task.tensors],
    )
    other = attrs.evolve(problem, seed=7)
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter.mul_(1.1)
        ours = program(other.theta, *map(torch.detach, rule.parameters()), *other.task.tensors)
    loss, grad, phi = meta_gradient(rule, other.learner, other.theta, other.task, steps=2)
    for one, another in zip(ours, (loss, grad, *phi.values()), strict=True):
        torch.testing.assert_close(one, another, **close)
