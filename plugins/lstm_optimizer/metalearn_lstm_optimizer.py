"""The LSTM optimiser: an LSTM, the same for every coordinate, proposes the update.

Andrychowicz et al., "Learning to learn by gradient descent by gradient descent" (2016), Section 2: θ⁽ᵗ⁺¹⁾ =
θ⁽ᵗ⁾ + g⁽ᵗ⁾ and [g⁽ᵗ⁾, h⁽ᵗ⁺¹⁾] = m(∇⁽ᵗ⁾, h⁽ᵗ⁾, φ), their Equation 3; coordinatewise as in Section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from metalearn_core import (
    ParameterLayout,
    Signal,
    State,
    UpdateRule,
    UsageError,
    coordinatewise_cell,
    hookimpl,
    log_and_sign,
    unknown,
)


class LSTMOptimizer(UpdateRule):
    """θ⁽ᵗ⁺¹⁾ = θ⁽ᵗ⁾ + s w·h⁽ᵗ⁺¹⁾, h the output of stacked LSTM cells that read ∇L(θ⁽ᵗ⁾)   (Eq. 3).

    φ: `cells.0`, `cells.1`, ... (weight and bias of the gates i, f, g, o) and `output` (w). It starts with
    small updates. The paper trains it to the first order, on the sum of the losses along the path.

    Args:
        hidden: the width of each LSTM layer.
        layers: how many there are.
        preprocess: `"log"` gives the gradient two columns, log-magnitude and sign (Appendix A, p = 10);
            `"none"` feeds it as it is.
        output_scale: s.
    """

    elementwise, coordinatewise = True, True

    def __init__(
        self, layout: ParameterLayout, hidden: int = 20, layers: int = 2,
        preprocess: Literal["log", "none"] = "log", output_scale: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        for name, count in (("hidden", hidden), ("layers", layers)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise UsageError(f"{name} must be an integer >= 1, got {count!r}")
        if preprocess not in ("log", "none"):
            raise unknown("preprocess", str(preprocess), ("log", "none"))
        if not isinstance(output_scale, int | float) or not 0 < output_scale < math.inf:
            raise UsageError(f"output_scale must be a number > 0, got {output_scale!r}")
        self.hidden, self.log, self.output_scale = hidden, preprocess == "log", float(output_scale)
        inputs = [2 if self.log else 1, *[hidden] * (layers - 1)]
        self.cells: Any = nn.ModuleList(nn.Linear(columns + hidden, 4 * hidden) for columns in inputs)
        self.output = nn.Linear(hidden, 1, bias=False)

    def init_state(self, theta: Tensor) -> State:
        wide = theta.unsqueeze(-2).expand(*theta.shape[:-1], self.hidden, theta.shape[-1])
        return tuple((torch.zeros_like(wide), torch.zeros_like(wide)) for _ in self.cells)

    def update(self, theta: Tensor, signal: Signal, state: State) -> tuple[Tensor, State]:
        columns, memories = log_and_sign(signal.grad) if self.log else [signal.grad], []
        for cell, (h, c) in zip(self.cells, state, strict=True):
            # every layer's output is read out; only the last one's counts
            (proposed,), h, c = coordinatewise_cell(columns, h, c, cell.weight, cell.bias, self.output.weight)
            memories.append((h, c))
            columns = list(h.unbind(-2))
        return theta + self.output_scale * proposed, tuple(memories)


@hookimpl
def metalearn_update_rules() -> Mapping[str, type[UpdateRule]]:
    """The rule, by its name."""
    return {"lstm-optimizer": LSTMOptimizer}
