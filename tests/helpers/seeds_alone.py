"""Seeds that train together end where each ends alone, for any base-learner and family of tasks."""

from __future__ import annotations

import torch

from metalearn_core import BaseLearner, Settings, TaskFamily, make_rule, meta_train, meta_train_seeds


def check_seeds_together_are_each_alone(learner: BaseLearner, family: TaskFamily) -> None:
    """Gradient descent with a learned step size, eager, in float64."""
    settings = Settings(
        tasks=8, meta_batch=2, steps=2, validation_interval=4, validation_tasks=2, engine="eager"
    )
    rules = [make_rule("gradient-descent", learner.layout, learn_lr="scalar").double() for _ in range(4)]
    together = meta_train_seeds(
        rules[:2], learner, family, settings,
        generators=[torch.Generator().manual_seed(seed) for seed in range(2)],
    )  # fmt: skip
    for seed, one in enumerate(together):
        own = torch.Generator().manual_seed(seed)
        alone = meta_train(rules[2 + seed], learner, family, settings, generator=own)
        torch.testing.assert_close(one.theta, alone.theta, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(one.rule.inner_lr, alone.rule.inner_lr, rtol=1e-9, atol=1e-11)
        assert not torch.equal(one.theta, learner.initial(torch.Generator().manual_seed(seed)))
