"""What a record says of a trained rule: against closed forms."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from metalearn_benchmarks.runs.results.provenance import describe_batch_norm
from metalearn_benchmarks.runs.results.rule_response import gradient_grid, rule_response, shown_steps
from metalearn_core import BaseLearner, Clipping, ParameterLayout, UpdateRule, make_rule, task_families


@pytest.fixture
def problem():
    learner = BaseLearner(nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1)), nn.functional.mse_loss)
    tasks = task_families()["sine"]().sample("test", 3, torch.Generator().manual_seed(0))
    return learner, learner.initial(torch.Generator().manual_seed(1)), tasks


def respond(problem, name, steps=3, clip=None, **options):
    learner, theta, tasks = problem
    return rule_response(make_rule(name, learner.layout, **options), learner, theta, tasks, steps, clip)


def test_gradient_descent_answers_with_its_rate(problem):
    found = respond(problem, "gradient-descent", inner_lr=0.3)
    response, path = found["response"], found["path"]
    assert response["steps"] == [0, 1, 2]
    assert response["gradients"] == gradient_grid() == sorted(-g for g in gradient_grid())
    for (curve,) in response["updates"]:
        assert curve == pytest.approx([-0.3 * g for g in gradient_grid()], rel=1e-3)
    ratios = [u / g for u, g in zip(path["update"], path["gradient"], strict=True)]
    assert ratios == pytest.approx([0.3] * 3, rel=1e-3)
    assert path["alignment"] == pytest.approx([1.0] * 3, abs=1e-3)


def test_momentum_answers_with_the_sum_of_its_past(problem):
    found = respond(problem, "gradient-descent", inner_lr=0.1, optimizer="sgd", momentum=0.5)["response"]
    for step, (curve,) in zip(found["steps"], found["updates"], strict=True):
        # v = g (1 + β + ... + βᵗ) where g stays as it is
        rate = 0.1 * (1 - 0.5 ** (step + 1)) / (1 - 0.5)
        assert curve == pytest.approx([-rate * g for g in gradient_grid()], rel=2e-3, abs=1e-7)


def test_rates_of_each_coordinate_are_told_by_their_quantiles(problem):
    learner, theta, tasks = problem
    rule = make_rule("gradient-descent", learner.layout, learn_lr="parameter")
    with torch.no_grad():
        rule.inner_lr.copy_(torch.linspace(0, 1, learner.layout.size))
    found = rule_response(rule, learner, theta, tasks, 2, None)["response"]
    assert found["quantiles"] == [0.1, 0.5, 0.9]
    at = found["gradients"].index(-1.0)
    assert [curve[at] for curve in found["updates"][0]] == pytest.approx([0.1, 0.5, 0.9], rel=1e-3)


def test_a_rule_that_mixes_coordinates_has_a_path_and_no_curve(problem):
    learner, theta, tasks = problem

    class Normalised(UpdateRule):
        def __init__(self, layout: ParameterLayout) -> None:
            super().__init__()

        def update(self, theta, signal, state):
            return theta - 0.1 * signal.grad / signal.grad.norm(), state

    found = rule_response(Normalised(learner.layout), learner, theta, tasks, 4, None)
    assert found["response"] is None
    size = 0.1 / learner.layout.size**0.5
    assert found["path"]["update"] == pytest.approx([size] * 4, rel=1e-3)
    assert found["path"]["alignment"] == pytest.approx([1.0] * 4, abs=1e-3)


def test_the_path_shows_the_gradient_that_the_rule_sees(problem):
    found = respond(problem, "gradient-descent", inner_lr=0.01, clip=Clipping("norm", 1e-3))["path"]
    size = 1e-3 / problem[0].layout.size ** 0.5
    assert found["gradient"] == pytest.approx([size] * 3, rel=1e-2)
    assert found["update"] == pytest.approx([0.01 * size] * 3, rel=2e-2)


def test_a_network_smaller_than_the_grid_is_asked_in_rows():
    learner = BaseLearner(nn.Linear(1, 1), nn.functional.mse_loss)
    tasks = task_families()["sine"]().sample("test", 2, torch.Generator().manual_seed(0))
    rule = make_rule("gradient-descent", learner.layout, inner_lr=0.5)
    found = rule_response(rule, learner, torch.zeros(2), tasks, 1, None)
    assert found["response"]["updates"][0][0] == pytest.approx([-0.5 * g for g in gradient_grid()], rel=1e-3)


@pytest.mark.parametrize(("rule", "options"), [("lstm", {"hidden": 20}), ("feed-forward", {"hidden": [20]})])
def test_it_is_small_and_sees_the_loss(problem, rule, options):
    found = respond(problem, rule, steps=100, inputs=["grad", "loss"], **options)
    assert len(json.dumps(found)) < 6_000
    assert found["response"]["steps"] == shown_steps(100) == [0, 1, 3, 6, 13, 26, 51, 99]
    assert found["response"]["loss"] > 0


def test_without_a_step_there_is_nothing_to_tell(problem):
    assert respond(problem, "gradient-descent", steps=0) is None


def test_the_mode_of_batch_norm_is_told():
    def mode(part: nn.Module) -> str:
        return describe_batch_norm(BaseLearner(nn.Sequential(nn.Linear(1, 2), part), nn.functional.mse_loss))

    assert mode(nn.ReLU()).startswith("none")
    assert mode(nn.BatchNorm1d(2, track_running_stats=False)).startswith("statistics of each batch")
    assert mode(nn.BatchNorm1d(2).eval()).startswith("constants")


def test_a_real_record_has_it(finished):
    for path in finished.rglob("result.json"):
        result = json.loads(path.read_text())
        assert result["rule_response"]["path"]["steps"][0] == 0
        assert result["batch_norm"].startswith("none")
