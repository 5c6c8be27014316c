"""The φ at which a general rule is a special one.

Each function takes the special and the general rule and returns φ of the general one. A function of limits
also takes `closeness`, and the smaller that is, the nearer are both rules. `subsumptions` makes claims of
the functions.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metalearn_core import UpdateRule

Phi = dict[str, Tensor]


def nothing(special: Any, *, closeness: float = 0.0) -> Mapping[str, Tensor]:
    """No φ: the options say it all."""
    return {}


def the_same(special: UpdateRule) -> Phi:
    """The special rule's own φ."""
    return {name: parameter.detach() for name, parameter in special.named_parameters()}


def one_alpha_each(special: Any, general: Any) -> Phi:
    """α of the special rule for every coordinate."""
    alpha = torch.as_tensor(special.alpha, dtype=general.inner_lr.dtype)
    return {"inner_lr": alpha.detach().expand_as(general.inner_lr)}


def constant_schedule(special: Any, general: Any) -> Phi:
    """αₜ = α."""
    return {"inner_lrs": torch.full_like(general.inner_lrs, special.alpha)}


def gates(special: Any, general: Any, decay: float, closeness: float = 0.0) -> Phi:
    """W_f = W_i = 0, σ(b_f) = 1 − αλ (or 1 − closeness) and b_i = −ln((1 − α)/α): the proof of Theorem 1.

    The proof prints b_f in the last place, where b_i is meant. At σ(b_f) = 1, b_f is infinite: in
    floating point that is any bias from which σ rounds to 1 (36.7 in float64, 16.6 in float32).
    """
    # the candidate is the gradient times candidate_scale, so that the gate makes up for it
    alpha = torch.tensor(special.alpha / general.candidate_scale, dtype=torch.float64)
    away = torch.tensor(decay + closeness, dtype=torch.float64)
    forget = torch.log1p(-away) - torch.log(away)
    forget = torch.where(away == 0, torch.tensor(100.0, dtype=torch.float64), forget)
    step = -torch.log((1 - alpha) / alpha)
    weights = {f"{gate}.weight": torch.zeros_like(getattr(general, gate).weight) for gate in GATES}
    return {**weights, "forget_gate.bias": forget.reshape(1), "input_gate.bias": step.reshape(1)}


GATES = ("forget_gate", "input_gate")


def saturated_gates(special: Any, general: Any) -> Phi:
    """Gradient descent, with a forget gate that is 1 in floating point."""
    return gates(special, general, 0.0)


def nearly_open_gates(special: Any, general: Any, *, closeness: float) -> Phi:
    """Gradient descent in the limit: ε = 1 − σ(b_f) = closeness."""
    return gates(special, general, 0.0, closeness)


def decaying_gates(special: Any, general: Any) -> Phi:
    """Weight decay: f = 1 − αλ, i = α, since θ − α(∇ + λθ) = (1 − αλ)θ − α∇."""
    return gates(special, general, special.alpha * special.weight_decay)


def linear_layers(network: nn.Module) -> list[tuple[str, nn.Linear]]:
    """The linear maps of a rule's network, with the names of their modules."""
    return [
        (f"network.{name}", part) for name, part in network.named_children() if isinstance(part, nn.Linear)
    ]


def zeroed(network: nn.Module) -> Phi:
    """φ of a network that proposes nothing."""
    return {
        f"network.{name}": torch.zeros_like(p, dtype=torch.float64) for name, p in network.named_parameters()
    }


def carried(network: nn.Module, first: Sequence[float], last: float, bias: float = 0.0) -> Phi:
    """Last · ⟨first, I⟩ + bias: z = ⟨first, I⟩ is carried as a difference of two activations.

    With ReLU z = relu(z) − relu(−z), with GELU z = gelu(z) − gelu(−z), since Φ(z) + Φ(−z) = 1.
    """
    phi, layers = zeroed(network), linear_layers(network)
    ends = torch.tensor([1.0, -1.0], dtype=torch.float64)
    for position, (name, _) in enumerate(layers):
        incoming = torch.tensor(first, dtype=torch.float64) if position == 0 else ends
        outgoing = ends if position < len(layers) - 1 else torch.tensor([last], dtype=torch.float64)
        phi[f"{name}.weight"][: len(outgoing), : len(incoming)] = outgoing[:, None] * incoming
    phi[f"{layers[-1][0]}.bias"][:] = bias
    return phi


def carried_gradient(special: Any, general: Any) -> Phi:
    """−α∇."""
    return carried(general.network, [1.0], -special.alpha)


def carried_line(special: Any, general: Any) -> Phi:
    """A linear map of the gradient: w∇ + b."""
    line = special.network[0]
    return carried(general.network, [1.0], float(line.weight), float(line.bias))


def carried_with_alpha(special: Any, general: Any) -> Phi:
    """Meta-SGD: the network says −∇, α ∈ Rⁿ does the rest."""
    return {**carried(general.network, [1.0], -1.0), "alpha": special.inner_lr.detach()}


def carried_decay(special: Any, general: Any) -> Phi:
    """−α(∇ + λθ), the columns being gradient and θ."""
    return carried(general.network, [1.0, special.weight_decay], -special.alpha)


def carried_average(special: Any, general: Any) -> Phi:
    """−α((1 − β)∇ + βh), the columns being gradient and history: h⁽ᵗ⁺¹⁾ of Equation 3.6."""
    beta = special.beta
    return carried(general.network, [1 - beta, beta], -special.inner_lr)


def carried_momentum(special: Any, general: Any) -> Phi:
    """−αv with v = h⁽ᵗ⁺¹⁾/(1 − β): momentum is Equation 3.6 but for a factor."""
    beta = special.momentum
    return carried(general.network, [1.0, beta / (1 - beta)], -special.alpha)


def carried_nesterov(special: Any, general: Any) -> Phi:
    """−α(∇ + βv), v = ∇ + βh/(1 − β)."""
    beta = special.momentum
    return carried(general.network, [1 + beta, beta**2 / (1 - beta)], -special.alpha)


def carried_history(special: Any, general: Any) -> Phi:
    """−αh, the program's history having the present gradient in it."""
    return carried(general.network, [0.0, 1.0], -special.alpha)


def carried_last_update(special: Any, general: Any) -> Phi:
    """U = βu₋ − α(∇ + λθ): with β = 0 in Equation 3.6 the history of updates is the last update."""
    alpha = special.alpha
    return carried(general.network, [-alpha, -alpha * special.weight_decay, special.momentum], 1.0)


def carried_nesterov_update(special: Any, general: Any) -> Phi:
    """U = −α(1 + β)∇ + β²h: with β/(1 + β) in Equation 3.6, h⁽ᵗ⁺¹⁾ is −α times the velocity."""
    beta = special.momentum
    return carried(general.network, [-special.alpha * (1 + beta), 0.0, beta**2], 1.0)


def gated_schedule(special: Any, general: Any, bound: float, line: Sequence[float] = (1.0,)) -> Phi:
    """Σₖ −αₖ(relu(z − M|t − k|) − relu(−z − M|t − k|)): where |z| <= M only k = t lets it pass.

    z is ⟨line, I⟩ over the columns before the step: the gradient, unless said otherwise.
    """
    phi, alphas = zeroed(general.network), special.inner_lrs.detach().double()
    (first, _), (second, _), *middle, (last, _) = linear_layers(general.network)
    steps = len(alphas)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    phi[f"{first}.weight"][:2, : len(line)] = signs[:, None] * torch.tensor(line, dtype=torch.float64)
    for k in range(steps):
        rows, columns = slice(2 * k, 2 * k + 2), slice(2 + 2 * k, 4 + 2 * k)
        phi[f"{first}.weight"][columns, len(line)] = signs
        phi[f"{first}.bias"][columns] = -k * signs
        phi[f"{second}.weight"][rows, :2] = signs[:, None] * signs
        phi[f"{second}.weight"][rows, columns] = -bound
    for name, _ in middle:
        phi[f"{name}.weight"][: 2 * steps, : 2 * steps] = torch.eye(2 * steps, dtype=torch.float64)
    phi[f"{last}.weight"][0, : 2 * steps] = torch.repeat_interleave(-alphas, 2) * signs.repeat(steps)
    return phi


def schedule_within(special: Any, general: Any, *, closeness: float) -> Phi:
    """A schedule on gradients up to M = 1 / closeness."""
    return gated_schedule(special, general, 1 / closeness)


def schedule_within_ten(special: Any, general: Any) -> Phi:
    """A schedule on gradients clipped to 10."""
    return gated_schedule(special, general, 10.0)


def small_signal(special: Any, general: Any, *, closeness: float) -> Phi:
    """−α·tanh(…tanh(s∇)…)/s with s = closeness: near 0, tanh is the identity."""
    phi = zeroed(general.network)
    for name, _ in linear_layers(general.network):
        phi[f"{name}.weight"][0, 0] = 1.0
    first, *_, last = (name for name, _ in linear_layers(general.network))
    phi[f"{first}.weight"][0, 0] = closeness
    phi[f"{last}.weight"][0, 0] = -special.alpha / closeness
    return phi


def small_sigmoid_signal(special: Any, general: Any, *, closeness: float) -> Phi:
    """The same with 4(σ(y) − ½) for tanh(y)."""
    phi = small_signal(special, general, closeness=closeness)
    for name, _ in linear_layers(general.network)[1:]:
        phi[f"{name}.weight"] *= 4
        phi[f"{name}.bias"][0] = -phi[f"{name}.weight"][0, 0] / 2
    return phi


def large_signal(special: Any, general: Any, *, closeness: float) -> Phi:
    """−α·c·(elu(∇/c) − elu(−∇/c)), c = closeness: far from 0, one of the two is the identity."""
    return carried(general.network, [1 / closeness], -special.alpha * closeness)


def embedded(special: Any, general: Any) -> Phi:
    """The same network with weights of 0 for the columns that the special rule does not see."""
    theirs, ours = columns(special), columns(general)
    phi = {name: value for name, value in the_same(special).items() if name.startswith("network.")}
    narrow = phi["network.0.weight"]
    wide = narrow.new_zeros(len(narrow), len(ours))
    wide[:, [ours.index(name) for name in theirs]] = narrow
    phi["network.0.weight"] = wide
    if hasattr(general, "alpha"):
        phi["alpha"] = getattr(special, "alpha", torch.ones_like(general.alpha)).detach()
    return phi


def columns(rule: Any) -> list[str]:
    """What the columns of a feed-forward rule's input are."""
    names = [name for name in ("grad", "loss", "theta") if name in rule.inputs]
    names += ["history"] * (rule.history != "none") + ["step"] * ("step" in rule.inputs)
    twice = ("grad", "loss", "history") if rule.log else ()
    return list(itertools.chain.from_iterable([n, f"{n}'"] if n in twice else [n] for n in names))
