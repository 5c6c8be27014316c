"""ANIL and BOIL, by name: what adapts on sine waves and on images, and what their records say."""

from __future__ import annotations

import tomllib

import pytest
import torch

from metalearn_benchmarks.experiments.catalogue import methods
from metalearn_benchmarks.learners.head import Head
from metalearn_core import Batch, adapt, base_learners, make_rule

SHORT = """
extends = "EXPERIMENT"
[settings]
steps = 2
engine = "eager"
[family]
name = "NAME"
[scale.smoke]
seeds = 1
test_tasks = 3
settings = { tasks = 4, validation_interval = 4, validation_tasks = 2 }
"""


@pytest.mark.parametrize("experiment", ["sine", pytest.param("glyphs", marks=pytest.mark.nightly)])
def test_they_run_beside_maml(experiment, tmp_path, metalearn):
    name, setting = {
        "sine": ("sine", "sine-5-shot"),
        "glyphs": ("glyphs-print", "glyphs-print-5-way-1-shot"),
    }[experiment]
    short = SHORT.replace("EXPERIMENT", experiment).replace("NAME", name)
    (tmp_path / "short.toml").write_text(short)
    rows = [part for method in ("maml", "anil", "boil") for part in ("-m", method)]
    out = tmp_path / "out"
    code, told, said = metalearn(
        "run",
        tmp_path / "short.toml",
        "--scale",
        "smoke",
        "--workers",
        "1",
        *rows,
        "--only",
        f"{setting}/*",
        "--out",
        out,
    )
    assert (code, said) == (0, "")
    assert [title for title in ("MAML", "ANIL", "BOIL") if title not in told] == []
    assert len(list(out.rglob("result.json"))) == 3
    told = [tomllib.loads(path.read_text())["method"] for path in out.rglob("experiment.toml")]
    rules = {method["title"]: method["options"].get("adapts") for method in told}
    assert rules == {"MAML": None, "ANIL": "head", "BOIL": "body"}


@pytest.mark.parametrize(
    "network", [{"name": "mlp"}, {"name": "conv-4", "size": 16, "width": 2, "channels": 1}]
)
@pytest.mark.parametrize("method", ["anil", "boil"])
def test_the_head_is_that_of_the_transfer_methods(method, network):
    """What finetuning adapts alone, ANIL adapts alone, and BOIL adapts all but that."""
    options = dict(network)
    learner = base_learners()[options.pop("name")](**options)
    rule = make_rule(methods()[method].rule, learner.layout, **methods()[method].options)
    theta = learner.initial(torch.Generator().manual_seed(0))
    if network["name"] == "mlp":
        support = Batch(torch.randn(4, 1), torch.randn(4, 1))
    else:
        support = Batch(torch.rand(10, 1, 16, 16), torch.arange(10) % 5)
    moved = learner.layout.unflatten(adapt(rule, learner, theta, support, steps=1) - theta)
    head = Head(learner)
    assert {name for name, by in moved.items() if by.abs().max() > 0} <= {
        name for name in moved if head.owns(name) == (method == "anil")
    }
    assert all(
        bool(by.abs().max() > 0)
        for name, by in moved.items()
        if name.endswith("weight") and head.owns(name) == (method == "anil")
    )
