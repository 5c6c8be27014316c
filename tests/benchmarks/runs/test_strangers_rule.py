"""Somebody else's rule is compiled and batched over tasks and seeds; where it cannot be, it runs eager."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from metalearn_core import Registry, UpdateRule, hookimpl, registry


class Stranger(UpdateRule):
    """v ← v + ∇L²;  θ ← θ − α∇L / (1 + v)½, written for one task: it declares nothing."""

    def __init__(self, layout):
        super().__init__()
        self.inner_lr = nn.Parameter(torch.tensor(0.01))

    def init_state(self, theta):
        return torch.zeros_like(theta)

    def update(self, theta, signal, state):
        state = state + signal.grad**2
        return theta - self.inner_lr * signal.grad / (1 + state).sqrt(), state


class Unread(Stranger):
    """Gradient descent that looks at a number on its way, which no program can."""

    elementwise = True

    def update(self, theta, signal, state):
        assert float(signal.grad.detach().abs().sum()) >= 0
        return super().update(theta, signal, state)


class Plugin:
    @hookimpl
    def metalearn_update_rules(self):
        return {"stranger": Stranger, "unread": Unread}


@pytest.fixture
def installed(monkeypatch):
    known = Registry()
    known.register(Plugin(), "metalearn-stranger")
    monkeypatch.setattr(registry, "default_registry", lambda: known)


def run(metalearn, folder, rule, *more):
    words = ("--scale", "smoke", "-m", "maml", "--rule", rule, "--tasks", 20, "--seeds", 2, "--workers", 1)
    code, out, err = metalearn("run", "sine", *words, "--out", folder, *more)
    assert code == 0, err
    results = [json.loads(path.read_text()) for path in sorted(folder.glob(f"sine/*/{rule}/*/result.json"))]
    assert len(results) == 2
    return results, out + err


@pytest.mark.nightly
def test_it_is_one_program_for_all_tasks_and_seeds_without_its_author_doing_anything(
    installed, metalearn, tmp_path
):
    compiled, _ = run(metalearn, tmp_path / "compiled", "stranger", "--engine", "compiled")
    assert [result["engine"] for result in compiled] == ["compiled", "compiled"]
    assert [result["seeds_together"] for result in compiled] == [[0, 1], [0, 1]]
    eager, _ = run(metalearn, tmp_path / "eager", "stranger", "--engine", "eager", "--together", 1)
    for ours, plain in zip(compiled, eager, strict=True):
        assert plain["engine"] == "eager"
        torch.testing.assert_close(
            torch.tensor(ours["scores"]["sine"]), torch.tensor(plain["scores"]["sine"]), rtol=1e-3, atol=1e-4
        )


def test_where_it_cannot_be_compiled_it_runs_eager_and_says_why(installed, metalearn, tmp_path):
    results, told = run(metalearn, tmp_path, "unread", "--engine", "compiled")
    assert [result["engine"] for result in results] == ["eager", "eager"]
    assert "unread" in told
    assert "eager" in told
