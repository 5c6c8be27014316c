"""The table of all peers, by the name that each has in the results."""

from __future__ import annotations

from collections.abc import Callable

from metalearn_benchmarks.speed.peers.base import Peer
from metalearn_benchmarks.speed.peers.engine import compiled, eager
from metalearn_benchmarks.speed.peers.functional import torch_func, torchopt_functional
from metalearn_benchmarks.speed.peers.jax_program import jax_jit
from metalearn_benchmarks.speed.peers.loops import clone_loop, higher_loop
from metalearn_benchmarks.speed.work import Work

PEERS: dict[str, Callable[[Work], Peer]] = {
    "higher loop": higher_loop,
    "clone loop": clone_loop,
    "torch.func": torch_func,
    "TorchOpt": torchopt_functional,
    "eager": eager,
    "compiled": compiled,
    "jax": jax_jit,
    "jax scan": jax_jit,
}
"""A function for each peer that prepares it for some work. `jax scan` is `jax`, but for its outer steps."""
