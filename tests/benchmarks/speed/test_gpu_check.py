"""The script for a GPU, rehearsed on the CPU: every part runs, and what it writes is whole."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import sys
from pathlib import Path

import pytest
import torch

from metalearn_benchmarks.speed.settings import Setting

FILE = Path(__file__).parents[3] / "benchmarks" / "gpu_check.py"


@pytest.fixture
def check(monkeypatch, tmp_path):
    """The script as a module, and a call of it; only the parts that are asked for, one small setting."""
    spec = importlib.util.spec_from_file_location("gpu_check", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SETTINGS", [Setting(rule="maml", tasks=1)])
    out = tmp_path / "found.json"

    def run(*parts, minutes=10.0):
        monkeypatch.setattr(module, "PARTS", {name: module.PARTS[name] for name in parts})
        arguments = ["--device", "cpu", "--seconds", "0.001", "--minutes", str(minutes), "--out", str(out)]
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", *arguments])
        return module.main(), json.loads(out.read_text())

    run.module = module
    return run


def test_kernels_and_machine_are_timed(check):
    code, found = check("machine", "tests", "kernels")
    assert code == 0
    assert found["machine"]["device"] == "CPU"
    assert found["tests"]["skipped"] >= 1  # they need a GPU
    names = [row["kernel"] for row in found["kernels"]]
    assert names == ["network", "network_vjp", "cell", "cell_vjp"]
    for row in found["kernels"]:
        assert row["milliseconds"] > 0
        assert row["operations_per_second"] / found["machine"]["operations_per_second"] < 10
        assert math.isfinite(row["bytes_per_second"])


def test_the_kernels_of_the_script_are_those_of_the_rules(check):
    """Its shapes and parameters: a network of plain layers gives what its kernel gives."""
    network = next(check.module.kernels("cpu"))
    generator = torch.Generator().manual_seed(0)
    widths, groups, n = check.module.TURTLE, check.module.GROUPS, check.module.COORDINATES
    x, _ = (torch.randn(groups, 1, 1, n, generator=generator) for _ in range(2))
    sizes = [after * before + after for before, after in itertools.pairwise(widths)]
    parameters = torch.randn(groups, sum(sizes), generator=generator)
    a = x[:, 0]
    for place, part in enumerate(parameters.split(sizes, 1)):
        before, after = widths[place], widths[place + 1]
        weight = part[:, : after * before].reshape(groups, after, before)
        a = weight @ a + part[:, after * before :, None]
        a = a.relu() if place < len(sizes) - 1 else a
    torch.testing.assert_close(network.call()[:, 0], a, rtol=1e-3, atol=1e-2)


def test_what_there_is_no_time_for_is_said_to_be_left_out(check):
    code, found = check("machine", "kernels", "tests", minutes=-1.0)
    assert code == 0
    assert found["kernels"] == found["tests"] == "left out: -1 minutes were over"


@pytest.mark.nightly
def test_outer_steps_are_timed(check):
    _, found = check("machine", "tests", "outer steps")
    (row,) = found["outer steps"]
    assert "error" not in row, row
    assert row["milliseconds"] > 0
