"""Evaluation as compiled programs: one inner step and the query scores after it, for every step."""

from __future__ import annotations

import torch
from torch import Tensor

from metalearn_core.inner_loop import per_task
from metalearn_core.kernels.by_steps import BySteps, Function, query_of, query_tensors
from metalearn_core.kernels.programs import Programs, require_one_step_for_all
from metalearn_core.learner import BaseLearner
from metalearn_core.rule import UpdateRule
from metalearn_core.settings import Settings
from metalearn_core.task import Task


class CompiledScores:
    """Query scores of a meta-batch after each inner step, compiled once for each shape.

    Args:
        learner, settings: as in `metalearn_core.evaluate`.
        programs: where what is compiled is kept.
    """

    def __init__(self, learner: BaseLearner, settings: Settings, programs: Programs | None = None) -> None:
        self._learner, self._settings = learner, settings
        self._programs = Programs() if programs is None else programs

    def __call__(self, rule: UpdateRule, theta: Tensor, task: Task) -> Tensor:
        """`[tasks, T + 1]` for θ `[n]`. Rules differ between calls in φ alone. Raises CompilationError."""
        require_one_step_for_all(rule, self._learner)
        steps = self._settings.evaluation_steps
        clip = self._settings.inner_clip
        path = BySteps(rule, self._learner, steps, "second", clip, run=self._programs)
        phi = {name: parameter.detach() for name, parameter in rule.named_parameters()}
        values, support = list(phi.values()), task.support.tensors
        query = query_tensors(self._learner, task)
        width, score = len(query), self._scores(task)
        start = theta.detach().expand(len(task), -1).contiguous()
        now = path.begin(phi, start, task)
        scores = [*self._programs("scores", score, [now[0], *query])]
        step = path.step(phi, 0, task)

        def step_and_scores(*tensors: Tensor) -> list[Tensor]:
            after = step(*tensors[:-width])
            return [*after, *score(after[0], *tensors[-width:])]

        for _ in range(steps):
            *now, found = self._programs("step", step_and_scores, [*now, *values, *support, *query])
            scores.append(found)
        return torch.stack(scores, 1)

    def _scores(self, task: Task) -> Function:
        def score(theta: Tensor, *tensors: Tensor) -> list[Tensor]:
            query, context = query_of(self._learner, task, tensors)
            return [per_task(self._learner.score, theta, query, *context)]

        return score
