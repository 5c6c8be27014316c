"""The rules from the literature: how they start, for many seeds, compiled, by name, and on the map."""

from __future__ import annotations

import copy
from pathlib import Path

import attrs
import pytest
import torch
from rule_paths import LAYOUT, rule_of
from torch import nn
from traced_step import assert_traced_is_eager

from metalearn_benchmarks.cli import app
from metalearn_benchmarks.rule_map.installed import check_edges, edges_of, installed_map
from metalearn_core import (
    BaseLearner,
    Clipping,
    Settings,
    UsageError,
    adapt,
    evaluate,
    make_rule,
    meta_gradient,
    meta_train,
    meta_train_seeds,
    task_families,
)
from metalearn_core.testing import Architecture, Problem
from metalearn_core.training.meta_gradient import meta_gradients

RULES = ["alfa", "lslr", "lstm-optimizer", "meta-curvature", "mlp-optimizer"]
DESCENT = ["alfa", "lslr", "meta-curvature"]
FAMILY = task_families()["sine"](support=5, query=10)
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", RULES)
def test_it_is_short(name):
    """The rule as its author writes it, packaging, tests and its place on the map apart."""
    folder = name.replace("-", "_")
    source = (ROOT / f"plugins/{folder}/metalearn_{folder}.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) < 80


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("name", DESCENT)
def test_it_starts_as_gradient_descent_to_the_bit(name, order, dtype):
    """At its inner learning rate: θ after more steps than it has rates for, and the meta-gradient."""
    problem = Problem(Architecture((1, 8, 8, 1)), tasks=3, support=5, query=5, steps=7, seed=3, dtype=dtype)
    ours, theirs = (
        make_rule(rule, problem.learner.layout, inner_lr=0.0625).to(problem.learner.dtype)
        for rule in (name, "gradient-descent")
    )
    given = problem.learner, problem.theta, problem.task
    for steps in (1, 7):
        ends = [adapt(r, *given[:2], problem.task.support, steps=steps, order=order) for r in (ours, theirs)]
        assert not torch.equal(ends[0][0], problem.theta)
        assert torch.equal(*ends)
        grads = [meta_gradient(r, *given, steps=steps, order=order)[1] for r in (ours, theirs)]
        assert torch.equal(*grads)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("name", RULES)
def test_seeds_and_tasks_together_are_each_alone(name, order):
    problem = Problem(Architecture((1, 4, 1)), tasks=3, support=4, query=4, steps=3)
    rules = [rule_of(name, layout=problem.learner.layout, spread=0.1 * (1 + seed)) for seed in range(2)]
    named = [dict(rule.named_parameters()) for rule in rules]
    phi = {key: torch.stack([each[key].detach() for each in named]) for key in named[0]}
    theta = torch.stack([problem.theta, -problem.theta])
    losses, grad, grads = meta_gradients(
        rules[0], problem.learner, theta, phi, problem.task, steps=3, order=order
    )
    for seed, rule in enumerate(rules):
        alone = [
            meta_gradient(rule, problem.learner, theta[seed], problem.task[i], steps=3, order=order)
            for i in range(len(problem.task))
        ]
        close = {"rtol": 1e-10, "atol": 1e-12}
        torch.testing.assert_close(losses[seed], sum(a[0] for a in alone) / 3, **close)
        torch.testing.assert_close(grad[seed], sum(a[1] for a in alone) / 3, **close)
        for key, of_seeds in grads.items():
            torch.testing.assert_close(of_seeds[seed], sum(a[2][key] for a in alone) / 3, **close)


@pytest.mark.parametrize("name", RULES)
def test_what_is_compiled_is_the_eager_step(name):
    """The program, as it is traced, for other values than it was traced with."""
    problem = Problem(Architecture((1, 4, 1)), tasks=2, steps=2)
    rule = rule_of(name, layout=problem.learner.layout)
    assert_traced_is_eager(rule, problem, rtol=1e-10, atol=1e-12)


@pytest.mark.nightly
@pytest.mark.parametrize("name", RULES)
def test_compiled_for_two_seeds_is_eager_for_each(name):
    """Whole runs in float64: training and validation."""
    learner = Architecture((1, 4, 1)).learner()
    settings = Settings(tasks=4, meta_batch=2, steps=2, validation_interval=2, validation_tasks=2)

    def begin():
        rules = [rule_of(name, layout=learner.layout, spread=0.1 * seed) for seed in range(2)]
        return rules, [torch.Generator().manual_seed(seed) for seed in range(2)]

    rules, generators = begin()
    compiled, eager = (attrs.evolve(settings, engine=engine) for engine in ("compiled", "eager"))
    together = meta_train_seeds(rules, learner, FAMILY, compiled, generators=generators)
    for ours, rule, generator in zip(together, *begin(), strict=True):
        theirs = meta_train(rule, learner, FAMILY, eager, generator=generator)
        assert (ours.engine, theirs.engine) == ("compiled", "eager")
        pairs = zip(
            (ours.theta, *ours.rule.parameters()), (theirs.theta, *theirs.rule.parameters()), strict=True
        )
        for one, another in pairs:
            torch.testing.assert_close(one, another, rtol=1e-8, atol=1e-10)
        scores = [score for _, score in ours.validations]
        assert scores == pytest.approx([score for _, score in theirs.validations], rel=1e-8)


SHORT = """
extends = "sine"
methods = ["maml", "alfa", "lstm-optimizer"]
[settings]
steps = 2
[scale.smoke]
seeds = 1
test_tasks = 3
settings = { tasks = 4, validation_interval = 4, validation_tasks = 2 }
"""


def test_they_run_by_name(tmp_path, monkeypatch, capsys):
    """As methods where there are, else with --rule; all beside MAML."""
    (tmp_path / "short.toml").write_text(SHORT)
    bare = ["lslr", "meta-curvature", "mlp-optimizer"]
    rows = [part for name in bare for part in ("--rule", name)]
    argv = ["metalearn", "run", str(tmp_path / "short.toml"), "--scale", "smoke", "--workers", "1", *rows]
    monkeypatch.setattr("sys.argv", [*argv, "--out", str(tmp_path / "out")])
    app.main()
    told = capsys.readouterr().out
    assert [name for name in ("MAML", "ALFA", "LSTM optimiser", *bare) if name not in told] == []
    assert len(list(tmp_path.rglob("result.json"))) == 6


@pytest.mark.nightly
@pytest.mark.parametrize("name", RULES)
def test_it_learns_to_learn(name):
    """On unseen sines, less than two thirds of the error of rule and network as they were drawn."""
    network = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
    learner = BaseLearner(network, nn.functional.mse_loss)
    settings = Settings(
        tasks=4_000, meta_batch=4, steps=5, validation_interval=1_000, validation_tasks=100,
        inner_clip=Clipping("value", 10.0), outer_clip=Clipping("norm", 10.0), engine="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    rule = make_rule(name, learner.layout)
    at_first, generator = copy.deepcopy(rule), torch.Generator().manual_seed(0)
    start = learner.initial(torch.Generator().manual_seed(0))

    def error(rule, theta):
        return float(evaluate(rule, learner, theta, FAMILY, settings, split="test", tasks=500)[:, -1].mean())

    trained = meta_train(rule, learner, FAMILY, settings, generator=generator)
    assert not trained.diverged
    before, after = error(at_first, start), error(*trained.at_best())
    assert after < 2 / 3 * before, (before, after)


@pytest.mark.parametrize("name", RULES)
def test_its_place_on_the_map(name):
    rule_map, problems = installed_map()
    assert [problem for problem in problems if name in problem] == []
    outcomes = list(check_edges(edges_of(rule_map, [name]), 15))
    assert outcomes
    assert [outcome.line for outcome in outcomes if outcome.problem] == []
    expected = "exact" if name in DESCENT else "not"
    assert rule_map.relation("gradient-descent-below-1", name).verdict == expected
    assert rule_map.relation("gradient-descent", name).verdict == expected
    assert list(rule_map.contradictions()) == []


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        *((name, {"hiden": 3}, ["unknown option 'hiden'"]) for name in RULES),
        ("alfa", {"inner_lr": -1.0}, ["inner_lr", "-1.0"]),
        ("alfa", {"weight_decay": "much"}, ["weight_decay", "'much'"]),
        ("alfa", {"steps": 0}, ["steps", "0"]),
        ("alfa", {"hidden": 2.5}, ["hidden", "2.5"]),
        ("lslr", {"inner_lr": True}, ["inner_lr", "True"]),
        ("lslr", {"inner_lr": float("nan")}, ["inner_lr", "nan"]),
        ("lslr", {"steps": 1.5}, ["steps", "1.5"]),
        ("meta-curvature", {"inner_lr": 0}, ["inner_lr", "> 0", "0"]),
        ("lstm-optimizer", {"layers": 0}, ["layers", "0"]),
        ("lstm-optimizer", {"hidden": "wide"}, ["hidden", "'wide'"]),
        ("lstm-optimizer", {"preprocess": "logs"}, ["preprocess", "'logs'", "log"]),
        ("lstm-optimizer", {"output_scale": 0}, ["output_scale", "0"]),
        ("mlp-optimizer", {"hidden": [0]}, ["hidden", "[0]"]),
        ("mlp-optimizer", {"betas": [1.0]}, ["betas", "[1.0]"]),
        ("mlp-optimizer", {"betas": 0.9}, ["betas", "0.9"]),
        ("mlp-optimizer", {"step_scale": -1}, ["step_scale", "-1"]),
        ("mlp-optimizer", {"exp_scale": None}, ["exp_scale", "None"]),
    ],
    ids=str,
)
def test_a_mistake_is_named(name, options, said):
    with pytest.raises(UsageError) as error:
        make_rule(name, LAYOUT, **options)
    for part in (name, *said):
        assert part in str(error.value)
