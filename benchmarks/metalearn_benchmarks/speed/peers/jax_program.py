"""JAX as a peer: jit of value_and_grad of vmap; outer steps with Adam, one or many in one program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from metalearn_benchmarks.speed.peers.base import Peer
from metalearn_benchmarks.speed.work import OUTER_LR, Gradients, Work, task_loss, weights
from metalearn_core import Task

BETAS, EPSILON = (0.9, 0.999), 1e-8


def jax_jit(work: Work) -> Peer:
    """Return JAX as a peer: jit of value_and_grad of vmap.

    Raises:
        ImportError: JAX is not installed.
    """
    import jax

    parameters, both = _parameters(work), jax.jit(_value_and_grad(work))

    def gradient(tensors: Any) -> Gradients:
        loss, grads = both(parameters, tensors)
        return [x.block_until_ready() for x in (loss, *grads)]

    return Peer(parameters, gradient, _arrays)


def jax_outer_step(work: Work) -> Callable[[Task], float]:
    """Return a function that takes one outer step on a meta-batch and returns its loss.

    The step is one program, to which its state is donated.

    Raises:
        ImportError: JAX is not installed.
    """
    import jax

    program, state = jax.jit(_step(work), donate_argnums=0), _state(work)

    def outer(task: Task) -> float:
        nonlocal state
        loss, state = program(state, _arrays(task))
        return float(loss)

    return outer


def jax_scanned_steps(work: Work, count: int) -> Callable[[Task], list[float]]:
    """Return a function that takes `count` outer steps in one call and returns their losses.

    The steps are one `lax.scan`, without a way back to Python between them. The function's argument holds
    their meta-batches, one after the other. Seeds are trained together, by one `vmap` of the step; the losses
    are the first one's.

    Raises:
        ImportError: JAX is not installed.
    """
    import jax

    alone = work.setting.seeds == 1  # one seed is spared an axis that XLA would have to see through
    step, state = (_step(work), _state(work)) if alone else (_step_of_all(work), _states(work))
    program = jax.jit(lambda state, tensors: jax.lax.scan(_swapped(step), state, tensors), donate_argnums=0)

    def steps(task: Task) -> list[float]:
        nonlocal state
        tensors = [x.reshape(count, -1, *x.shape[1:]) for x in _arrays(task)]
        state, losses = program(state, tensors)
        return [float(loss) for loss in np.asarray(losses).reshape(count, -1)[:, 0]]

    return steps


def _swapped(step: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[Any, Any], tuple[Any, Any]]:
    """The step as a scan has it: the state comes first."""

    def swapped(state: Any, tensors: Any) -> tuple[Any, Any]:
        loss, state = step(state, tensors)
        return state, loss

    return swapped


def _step(work: Work) -> Callable[[Any, Any], tuple[Any, Any]]:
    """An outer step: from the state and a meta-batch's tensors to the loss and the next state."""
    both, (first, second) = _value_and_grad(work), BETAS

    def step(state: Any, tensors: Any) -> Any:
        count, parameters, means, squares = state
        loss, grads = both(parameters, tensors)
        count = count + 1
        means = [first * m + (1 - first) * g for m, g in zip(means, grads, strict=True)]
        squares = [second * s + (1 - second) * g * g for s, g in zip(squares, grads, strict=True)]
        parameters = [
            p - OUTER_LR * m / (1 - first**count) / ((s / (1 - second**count)) ** 0.5 + EPSILON)
            for p, m, s in zip(parameters, means, squares, strict=True)
        ]
        return loss, (count, parameters, means, squares)

    return step


def _step_of_all(work: Work) -> Callable[[Any, Any], tuple[Any, Any]]:
    """An outer step of every seed on the same meta-batch."""
    import jax

    step: Callable[[Any, Any], tuple[Any, Any]] = jax.vmap(_step(work), in_axes=(0, None))
    return step


def _states(work: Work) -> Any:
    """The state of every seed, in arrays with an axis of seeds in front."""
    import jax
    import jax.numpy as jnp

    states = [_state(work, seed) for seed in range(work.setting.seeds)]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *states)


def _state(work: Work, seed: int = 0) -> Any:
    """Adam's steps so far, the parameters, and Adam's two averages."""
    import jax.numpy as jnp

    parameters = _parameters(work, seed)
    return jnp.zeros(()), parameters, *([0 * p for p in parameters] for _ in range(2))


def _parameters(work: Work, seed: int = 0) -> list[Any]:
    theta = work.learner.initial(weights(seed)) if seed else work.theta
    return [_array(x) for x in (theta, *work.phi)]


def _arrays(task: Task) -> list[Any]:
    return [_array(x) for x in task.tensors]


def _array(x: Tensor) -> Any:
    import jax.numpy as jnp

    return jnp.asarray(np.asarray(x))


def _value_and_grad(work: Work) -> Callable[..., Any]:
    """From `[θ, *φ]` and a meta-batch's tensors to the mean query loss and its gradients."""
    import jax
    import jax.numpy as jnp

    class Jax:
        relu, sigmoid, tanh = jax.nn.relu, jax.nn.sigmoid, jnp.tanh
        stack, concatenate, zeros = jnp.stack, jnp.concatenate, jnp.zeros
        value_and_grad, stop_gradient = jax.value_and_grad, jax.lax.stop_gradient

        @staticmethod
        def split(x: Any, parts: int) -> Any:
            return jnp.split(x, parts, -1)

    every = jax.vmap(task_loss(Jax, work), in_axes=(None, None, 0, 0, 0, 0))

    def mean_loss(parameters: Any, tensors: Any) -> Any:
        theta, *phi = parameters
        return every(theta, phi, *tensors).mean()

    function: Callable[..., Any] = jax.value_and_grad(mean_loss)
    return function
