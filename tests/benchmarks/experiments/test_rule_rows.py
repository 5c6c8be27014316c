"""A rule without a method is trained under the conditions of the gradient-descent method beside it."""

from __future__ import annotations

import json

from metalearn_benchmarks.experiments.catalogue import Overrides, cells, find_experiment

CLIPPED_BY_VALUE = {"by": "value", "limit": 10.0}


def settings_of(experiment, **overrides):
    found = cells(*find_experiment(experiment), "smoke", Overrides(rules=[("lslr", {})], **overrides))
    return next(cell.method.settings for cell in found if cell.name.startswith("lslr"))


def test_a_rule_that_is_gradient_descent_gets_mamls_numbers(metalearn, tmp_path):
    """The same rule with and without a method: one bit that differs would be a condition that differs."""
    arguments = ("run", "sine", "--scale", "smoke", "--tasks", 20, "--workers", 1, "--out", tmp_path)
    rule = ("--rule", "gradient-descent", "--option", "inner_lr=0.01")
    code, out, _ = metalearn(*arguments, "-m", "maml", *rule)
    assert code == 0
    assert "trained as MAML is (clipping, T, outer learning rate, meta-batch)." in " ".join(out.split())
    maml, alone = (
        json.loads((tmp_path / f"sine/sine-5-shot/{name}/0/result.json").read_text())["scores"]
        for name in ("maml", "gradient-descent,inner_lr=0.01")
    )
    assert maml == alone


def test_the_conditions_are_those_of_the_method_beside_it(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'extends = "sine"\ntitle = "Mine"\nmethods = ["lstm", "fo-maml", "maml"]\n'
        '[method.maml]\nextends = "maml"\n'
        "settings = { outer_lr = 0.01, meta_batch = 3, steps = 2, inner_clip = { limit = 1.0 } }"
    )
    assert settings_of("sine")["inner_clip"] == CLIPPED_BY_VALUE
    assert settings_of("sine")["outer_clip"] == CLIPPED_BY_VALUE
    mine = settings_of(str(path))
    assert [mine[key] for key in ("outer_lr", "meta_batch", "steps")] == [0.01, 3, 2]
    assert mine["inner_clip"] == {"by": "value", "limit": 1.0}
    assert settings_of(str(path), methods=["lstm"])["outer_lr"] == 0.01
    assert "outer_lr" not in settings_of(str(path), methods=["fo-maml"])


def test_the_command_line_is_over_the_conditions_and_the_order_is_the_rules_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'extends = "sine"\ntitle = "Mine"\n[method.maml]\nextends = "maml"\nsettings = { steps = 2 }'
    )
    assert settings_of(str(path), steps=7, methods=["maml"])["steps"] == 7
    assert "order" not in settings_of("sine", methods=["fo-maml"])
    assert settings_of("sine", order="first", methods=["fo-maml"])["order"] == "first"
