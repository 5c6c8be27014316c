"""Who is timed: each peer makes a function without arguments that returns the meta-gradient of the work."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metalearn_benchmarks.speed.work import RULES, Gradients, Work, task_loss
from metalearn_core import CompiledMetaGradient, meta_gradient

Step = Callable[[], Gradients]


def eager(work: Work) -> Step:
    """Our engine, eager."""

    def step() -> Gradients:
        loss, grad, phi = meta_gradient(
            work.rule, work.learner, work.theta, work.task, steps=work.steps, order=work.order
        )
        return [loss, grad, *phi.values()]

    return step


def compiled(work: Work) -> Step:
    """Our engine, compiled."""
    program = CompiledMetaGradient(work.rule, work.learner, steps=work.steps, order=work.order)

    def step() -> Gradients:
        loss, grad, phi = program(work.theta, work.task)
        return [loss, grad, *phi.values()]

    return step


class _Torch:
    """What the equations ask of an array library, by torch."""

    relu, sigmoid, tanh = staticmethod(torch.relu), staticmethod(torch.sigmoid), staticmethod(torch.tanh)
    stack, concatenate = staticmethod(torch.stack), staticmethod(torch.cat)

    @staticmethod
    def value_and_grad(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
        def both(*arguments: Tensor) -> tuple[Tensor, Tensor]:
            grad, value = torch.func.grad_and_value(function)(*arguments)
            return value, grad

        return both

    @staticmethod
    def split(x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return x.chunk(parts, -1)

    @staticmethod
    def stop_gradient(x: Tensor) -> Tensor:
        return x.detach()

    @staticmethod
    def zeros(shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape)


def torch_func(work: Work) -> Step:
    """`torch.func`: grad of vmap of grad."""
    one, phi, tensors = task_loss(_Torch, work), work.phi, work.task.tensors
    every = torch.func.vmap(one, in_dims=(None, None, 0, 0, 0, 0))
    both = torch.func.grad_and_value(lambda theta, phi: every(theta, phi, *tensors).mean(), argnums=(0, 1))

    def step() -> Gradients:
        (grad, phi_grads), loss = both(work.theta, phi)
        return [loss, grad, *phi_grads]

    return step


def higher_loop(work: Work) -> Step:
    """`higher` as its documentation has it: a loop over tasks, the module patched for each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import higher
    module, memory = work.learner.module_at(work.theta), dict[str, Any]()
    phi = [p.clone().requires_grad_() for p in work.phi]
    optimizer = _flat_optimizer(higher, work, phi, memory)(module.parameters())
    first = work.order == "first"

    def query_loss(i: int) -> Tensor:
        support, query = work.task[i].support, work.task[i].query
        with higher.innerloop_ctx(module, optimizer, copy_initial_weights=False) as (model, inner):
            memory["state"] = RULES[work.name][1](_Torch, work.theta)
            for _ in range(work.steps):
                loss = torch.nn.functional.mse_loss(model(support.inputs), support.targets)
                memory["loss"] = loss.detach() if first else loss
                inner.step(loss, grad_callback=_held if first else None)
            return torch.nn.functional.mse_loss(model(query.inputs), query.targets)

    def step() -> Gradients:
        loss = torch.stack([query_loss(i) for i in range(len(work.task))]).mean()
        found = torch.autograd.grad(loss, [*module.parameters(), *phi])
        count = len(found) - len(phi)
        theta = torch.cat([g.reshape(-1) for g in found[:count]])
        return [loss.detach(), theta, *found[count:]]

    return step


def _held(grads: list[Tensor]) -> list[Tensor]:
    return [g.detach() for g in grads]


def _flat_optimizer(higher: Any, work: Work, phi: list[Tensor], memory: dict[str, Any]) -> Any:
    """An optimiser whose differentiable form takes the work's update, on all parameters in one vector."""

    class Flat(torch.optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {})

    class DifferentiableFlat(higher.optim.DifferentiableOptimizer):  # type: ignore[misc]
        def _update(self, grouped_grads: list[list[Tensor]], **kwargs: Any) -> None:
            group = self.param_groups[0]
            shapes = [p.shape for p in group["params"]]
            theta, grad = (
                torch.cat([x.reshape(-1) for x in xs]) for xs in (group["params"], grouped_grads[0])
            )
            update = RULES[work.name][0]
            theta, memory["state"] = update(_Torch, phi, theta, grad, memory["loss"], memory["state"])
            parts = torch.split(theta, [shape.numel() for shape in shapes])
            group["params"] = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    higher.register_optim(Flat, DifferentiableFlat)
    return Flat


def jax_jit(work: Work) -> Step:
    """JAX: jit of value_and_grad of vmap."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    class Jax:
        relu, sigmoid, tanh = jax.nn.relu, jax.nn.sigmoid, jnp.tanh
        stack, concatenate, zeros = jnp.stack, jnp.concatenate, jnp.zeros
        value_and_grad, stop_gradient = jax.value_and_grad, jax.lax.stop_gradient

        @staticmethod
        def split(x: Any, parts: int) -> Any:
            return jnp.split(x, parts, -1)

    def array(x: Tensor) -> Any:
        return jnp.asarray(np.asarray(x))

    theta, phi = array(work.theta), [array(p) for p in work.phi]
    tensors = [array(x) for x in work.task.tensors]
    every = jax.vmap(task_loss(Jax, work), in_axes=(None, None, 0, 0, 0, 0))
    both = jax.jit(jax.value_and_grad(lambda theta, phi, *t: every(theta, phi, *t).mean(), argnums=(0, 1)))

    def step() -> Gradients:
        loss, (grad, phi_grads) = both(theta, phi, *tensors)
        return [x.block_until_ready() for x in (loss, grad, *phi_grads)]

    return step


PEERS: dict[str, Callable[[Work], Step]] = {
    "higher loop": higher_loop,
    "torch.func": torch_func,
    "eager": eager,
    "compiled": compiled,
    "jax": jax_jit,
}
"""By the name they have in the table; one whose package is not installed is left out."""
