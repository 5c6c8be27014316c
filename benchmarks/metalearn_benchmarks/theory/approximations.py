"""The proofs of edges in the limit between networks: one that is wide enough comes as near as asked for.

Between two knots a network is followed by a straight line or by a step. It strays there by what the followed
network changes at most between two knots: its Lipschitz constant times their distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from metalearn_benchmarks.theory.parameterisations import Phi, gated_schedule, zeroed
from metalearn_benchmarks.theory.references import averaged_descent
from metalearn_benchmarks.theory.subsumptions import HIDDEN, draw_phi
from metalearn_core import log_and_sign
from metalearn_core.testing import Subsumption
from metalearn_core.testing import strategies as draws

EDGE = math.exp(-10)
"""Where the encoding of `log_and_sign` changes from x to log|x|."""


def follow_lines(special: Any, general: Any, *, closeness: float) -> Phi:
    """Σ bₖ relu(x − xₖ), bₖ by how much the slope changes at a knot; flat beyond the last ones.

    GELU and ELU are ReLU from afar: |gelu(sx)/s − relu(x)| and |elu(sx)/s − relu(x)| are at most 1/s.
    """
    x = knots(special.log, closeness)
    sharp = 1.0 if isinstance(general.network[1], nn.ReLU) else 32 * len(x) / closeness
    y = proposals(special, x)
    units = torch.full_like(x, sharp).unsqueeze(-1), -sharp * x, bends(x, y) / sharp
    return _one_layer(general, *units, start=y[0])


def follow_steps(special: Any, general: Any, *, closeness: float) -> Phi:
    """Σ (yₖ₊₁ − yₖ) σ(s(x − mₖ)), mₖ midway between two knots; σ(y) = (1 + tanh(y/2))/2.

    The steps are so steep that all N of them together are within e⁻⁴ of one step from where they should be.
    """
    x = knots(special.log, closeness)
    y, steep = proposals(special, x), 2 * (4 + math.log(len(x))) / x.diff()
    middle, rise = (x[1:] + x[:-1]) / 2, y.diff()
    start = y[0]
    if isinstance(general.network[1], nn.Tanh):
        steep, rise, start = steep / 2, rise / 2, start + rise.sum() / 2
    return _one_layer(general, steep.unsqueeze(-1), -steep * middle, rise, start=start)


def follow_codes(special: Any, general: Any, *, closeness: float) -> Phi:
    """The same lines over the encoding (a, b) of x: along b, and at b = ±1 along t = a + 1 = log|x|/10 + 1.

    relu(t − tₖ − B(1 ∓ b)) is relu(t − tₖ) on one of the two branches, and 0 elsewhere as long as t <= 2B.
    """
    inner, outer = _codes(closeness)
    t = outer.log() / 10 + 1
    middle = proposals(special, EDGE * inner)
    along_b = torch.stack([torch.zeros_like(inner), torch.ones_like(inner)], -1)
    parts = [(along_b, -inner, bends(inner, middle))]
    for side in (1.0, -1.0):
        bound = t[-1]
        weight = torch.stack([torch.ones_like(t), side * bound * torch.ones_like(t)], -1)
        parts.append((weight, 1 - t - bound, bends(t, proposals(special, side * outer))))
    return _one_layer(general, *(torch.cat(part) for part in zip(*parts, strict=True)), start=middle[0])


def knots(log: bool, closeness: float) -> Tensor:
    """From −R to R = 4/c, c apart; or so that the encodings of neighbours are c apart, or less."""
    reach = 4 / closeness
    if not log:
        return torch.linspace(-reach, reach, round(2 * reach / closeness) + 1, dtype=torch.float64)
    longest = math.log(reach) + 10
    branch = (
        EDGE * torch.linspace(0, longest, _pieces(longest / 10, closeness) + 1, dtype=torch.float64).exp()
    )
    middle = EDGE * torch.linspace(-1, 1, _pieces(2.0, closeness) + 1, dtype=torch.float64)
    return torch.cat([-branch.flip(0), middle[1:-1], branch])


def _codes(closeness: float) -> tuple[Tensor, Tensor]:
    """Knots of the sign where |x| <= e⁻¹⁰, and of |x| from there to 4/c, both c apart or less."""
    reach = 4 / closeness
    inner = torch.linspace(-1, 1, _pieces(2.0, closeness) + 1, dtype=torch.float64)
    return inner, torch.linspace(EDGE, reach, _pieces(reach, closeness) + 1, dtype=torch.float64)


def _pieces(length: float, closeness: float) -> int:
    return math.ceil(length / closeness)


def proposals(rule: Any, grad: Tensor) -> Tensor:
    """What a feed-forward rule of the gradient alone proposes, `[n]`."""
    (found,) = rule.network(log_and_sign(grad) if rule.log else [grad])
    return torch.as_tensor(found.detach())


def bends(x: Tensor, y: Tensor) -> Tensor:
    """By how much the slope of the line through the points (x, y) changes at each; 0 outside."""
    slopes = y.diff() / x.diff()
    return torch.cat([slopes[:1], slopes.diff(), -slopes[-1:]])


def _one_layer(general: Any, weight: Tensor, bias: Tensor, readout: Tensor, *, start: Tensor) -> Phi:
    """φ of a network of one hidden layer, `weight [units, columns]`, and readout·h + start."""
    phi = zeroed(general.network)
    phi["network.0.weight"], phi["network.0.bias"] = weight, bias
    phi["network.2.weight"], phi["network.2.bias"] = readout.unsqueeze(0), start.reshape(1)
    return phi


def _between_knots(special: Any, closeness: float, theta: Tensor, grads: Sequence[Tensor]) -> Tensor:
    """Up to R, K times the distance of two knots; beyond R, also K times how far away that is, twice."""
    reach, size = 4 / closeness, grads[-1].abs()
    beyond = (size / reach).clamp(min=1).log() / 10 if special.log else (size - reach).clamp(min=0)
    return _steepness(special) * (1.1 * closeness + 2 * beyond)


def _steepness(special: Any) -> float:
    """K: the product of the weights' norms, and 1.13 for each activation, the most that GELU's slope is."""
    norms = [float(p.detach().norm()) for name, p in special.network.named_parameters() if "weight" in name]
    return math.prod(norms) * 1.13 ** (len(norms) - 1)


SEVERAL = draws.problems(most_tasks=2).map(lambda p: attrs.evolve(p, tasks=p.tasks + 1))
"""Of several tasks single steps are compared: between two paths, K is not felt at nine points alone."""
NEAR = st.integers(1, 5).map(lambda k: 2.0**-k)
RELU = {"hidden": HIDDEN}


def _network(parameterise: Any, special: Mapping[str, Any], width: Any, **general: Any) -> Subsumption:
    return Subsumption(
        "feed-forward", "feed-forward", parameterise, {"hidden": width, **general}, special, draw_phi,
        gap=_between_knots, cancellation=1e6, problems=SEVERAL, closeness=NEAR,
    )  # fmt: skip


RELU_NEARS_OTHER_NETWORKS = _network(
    follow_lines,
    {
        **RELU,
        "activation": st.sampled_from(["relu", "tanh", "sigmoid", "elu", "gelu"]),
        "preprocess": st.sampled_from(["none", "log"]),
    },
    lambda s, c: [len(knots(s["preprocess"] == "log", c))],
)
GELU_AND_ELU_NEAR_RELU = _network(
    follow_lines, RELU, lambda s, c: [len(knots(False, c))], activation=st.sampled_from(["gelu", "elu"])
)
TANH_AND_SIGMOID_NEAR_RELU = _network(
    follow_steps,
    RELU,
    lambda s, c: [len(knots(False, c)) - 1],
    activation=st.sampled_from(["tanh", "sigmoid"]),
)
LOGARITHMS_NEAR_RELU = _network(
    follow_codes, RELU, lambda s, c: [len(_codes(c)[0]) + 2 * len(_codes(c)[1])], preprocess="log"
)


def through_a_first_layer(special: Any, general: Any, *, closeness: float) -> Phi:
    """Each column x through a unit of its own: tanh(tanh(cx))/c, its gates open, what it held forgotten."""
    phi: Phi = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in general.named_parameters()}
    hidden, open_gate = general.hidden, 50 - math.log(closeness)
    columns = special.forget_gate.weight.shape[-1] - 2
    # the rows are those of i, f, g, o
    for row, bias in enumerate((open_gate, -open_gate, 0.0, open_gate)):
        phi["input_map.bias"][row * hidden : (row + 1) * hidden] = bias
    candidate = phi["input_map.weight"][2 * hidden :]
    candidate[range(columns), range(columns)] = closeness
    for gate in ("forget_gate", "input_gate"):
        weight = getattr(special, gate).weight.detach()
        phi[f"{gate}.weight"][0, :columns] = weight[0, :-2] / closeness
        phi[f"{gate}.weight"][0, -2:] = weight[0, -2:]
        phi[f"{gate}.bias"] = getattr(special, gate).bias.detach()
    return phi


def _bent_twice(special: Any, closeness: float, theta: Tensor, grads: Sequence[Tensor]) -> Tensor:
    """σ is ¼-Lipschitz, |tanh(tanh(cx))/c − x| <= ⅔c²|x|³, plus what the gate before was off."""
    gap = torch.zeros_like(theta)
    for gate, size in ((special.forget_gate, theta), (special.input_gate, grads[-1])):
        weight, strayed = gate.weight.detach()[0].abs(), torch.zeros_like(theta)
        for grad in grads:
            columns = log_and_sign(grad) if special.log else [grad]
            bent = torch.stack([w * x.abs() ** 3 for w, x in zip(weight[:-2], columns, strict=True)]).sum(0)
            strayed = weight[-1] * strayed + 2 / 3 * closeness**2 * bent
        gap = gap + strayed * size.abs() / 4
    return gap


GATES: Mapping[str, Any] = {
    "inputs": st.just(["grad"]),
    "preprocess": st.sampled_from(["none", "log"]),
    "previous_gate": st.sampled_from(["sigmoid", "logit"]),
}
FIRST_LAYER_NEARS_NONE = Subsumption(
    "lstm", "lstm", through_a_first_layer,
    {"hidden": 20, **{name: (lambda s, name=name: s[name]) for name in GATES}}, GATES, draw_phi,
    gap=_bent_twice,
)  # fmt: skip


def averaged_within(special: Any, general: Any, *, closeness: float) -> Phi:
    """Averaged SGD: a schedule of its step sizes on ∇ + λθ, as far as that is at most 1/c."""
    return gated_schedule(special, general, 1 / closeness, [1.0, special.decay])


def _beyond_the_gates(special: Any, closeness: float, theta: Tensor, grads: Sequence[Tensor]) -> Tensor:
    past = ((grads[-1] + special.decay * theta).abs() - 1 / closeness).clamp(min=0)
    return torch.as_tensor(float(special.inner_lrs.sum()) * past)


WIDE = st.tuples(st.integers(12, 14), st.integers(10, 12)).map(list)
FEED_FORWARD_NEARS_AVERAGED_SGD = Subsumption(
    "feed-forward", averaged_descent, averaged_within,
    {"hidden": WIDE, "inputs": st.just(["grad", "theta", "step"])},
    {"inner_lr": draws.inner_lrs(), "lambd": st.floats(0.0, 1.0), "power": st.floats(0.0, 2.0)},
    gap=_beyond_the_gates,
)  # fmt: skip
