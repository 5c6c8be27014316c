"""Our own engine as two peers, eager and compiled."""

from __future__ import annotations

from metalearn_benchmarks.speed.peers.base import Peer
from metalearn_benchmarks.speed.work import Gradients, Work
from metalearn_core import CompiledMetaGradient, Task, meta_gradient


def eager(work: Work) -> Peer:
    """Return the eager engine: `meta_gradient`."""
    steps, order = work.setting.steps, work.setting.order

    def gradient(task: Task) -> Gradients:
        loss, grad, phi = meta_gradient(work.rule, work.learner, work.theta, task, steps=steps, order=order)
        return [loss, grad, *phi.values()]

    return Peer([work.theta, *work.rule.parameters()], gradient)


def compiled(work: Work) -> Peer:
    """Return the compiled engine: `CompiledMetaGradient`."""
    setting = work.setting
    program = CompiledMetaGradient(work.rule, work.learner, steps=setting.steps, order=setting.order)

    def gradient(task: Task) -> Gradients:
        loss, grad, phi = program(work.theta, task)
        return [loss, grad, *phi.values()]

    return Peer([work.theta, *work.rule.parameters()], gradient)
