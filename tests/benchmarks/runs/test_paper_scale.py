"""The main job at the paper's scale: what seed 0 reaches. An hour of two cores; for nightly."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.nightly


def test_sine_at_the_papers_scale(metalearn, tmp_path):
    methods = [word for name in ("maml", "turtle", "fo-turtle") for word in ("-m", name)]
    arguments = ("run", "sine", "--scale", "paper", "--seeds", 1, *methods, "--out", tmp_path)
    assert metalearn(*arguments)[0] == 0
    error = {}
    for path in tmp_path.rglob("result.json"):
        result = json.loads(path.read_text())
        assert result["summary"]["tasks"] == 2000
        error[path.parent.parent.name] = result["summary"]["mean"]
    assert error["maml"] <= 0.45
    assert error["turtle"] <= 0.38
    assert error["fo-turtle"] > error["turtle"]
