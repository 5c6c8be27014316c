"""The LSTM optimiser: torch's own LSTM, one coordinate after another."""

import math

import pytest
import torch
from rule_paths import LAYOUT, gradients, rule_of, same, start, walked
from torch import nn

from metalearn_core import ParameterLayout, make_rule


def columns(x, log):
    """Appendix A, p = 10."""
    if not log:
        return [x]
    if abs(x) >= math.exp(-10):
        return [math.log(abs(x)) / 10, math.copysign(1, x)]
    return [-1.0, math.exp(10) * x]


@pytest.mark.parametrize(
    "options",
    [{}, {"layers": 1, "hidden": 3, "output_scale": 1.0}, {"layers": 3, "hidden": 4, "preprocess": "none"}],
    ids=str,
)
def test_its_equation_is_torchs_lstm(options):
    rule, grads = rule_of("lstm-optimizer", **options), gradients(4)
    log, hidden = options.get("preprocess", "log") == "log", options.get("hidden", 20)
    lstm = nn.LSTM(2 if log else 1, hidden, len(rule.cells)).double()
    with torch.no_grad():
        for layer, cell in enumerate(rule.cells):
            getattr(lstm, f"weight_ih_l{layer}").copy_(cell.weight[:, :-hidden])
            getattr(lstm, f"weight_hh_l{layer}").copy_(cell.weight[:, -hidden:])
            getattr(lstm, f"bias_ih_l{layer}").copy_(cell.bias)
            getattr(lstm, f"bias_hh_l{layer}").zero_()
    readout, scale, ends = rule.output.weight[0].tolist(), options.get("output_scale", 0.1), []
    for j, x in enumerate(start().tolist()):
        seen = torch.tensor([columns(g, log) for g in grads[:, j].tolist()], dtype=torch.float64)
        for h in lstm(seen.unsqueeze(1))[0][:, 0].tolist():
            x += scale * sum(w * v for w, v in zip(readout, h, strict=True))
        ends.append(x)
    same(walked(rule, grads, start()), ends)


@pytest.mark.parametrize("layout", [LAYOUT, ParameterLayout(("w",), ((70,),))], ids=["22", "70"])
def test_number_of_meta_parameters(layout):
    """4·20·(2 + 20 + 1) + 4·20·(20 + 20 + 1) + 20, whatever n is."""
    assert sum(p.numel() for p in make_rule("lstm-optimizer", layout).parameters()) == 5140


def test_it_starts_with_small_updates():
    moved = walked(rule_of("lstm-optimizer", spread=0.0), gradients(1), start()) - start()
    assert 0 < moved.abs().max() < 0.05
