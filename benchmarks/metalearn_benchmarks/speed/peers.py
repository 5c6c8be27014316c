"""Who is timed: each peer computes the meta-gradient of the work as its own documentation would.

A peer that stands on another package imports it when it is made, and raises ImportError where it is missing.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metalearn_benchmarks.speed.jax_peer import jax_jit
from metalearn_benchmarks.speed.peer import Peer
from metalearn_benchmarks.speed.work import INNER_LR, RULES, Gradients, Work, squared_error, task_loss
from metalearn_core import CompiledMetaGradient, Task, meta_gradient


def eager(work: Work) -> Peer:
    """Our engine, eager."""
    steps, order = work.setting.steps, work.setting.order

    def gradient(task: Task) -> Gradients:
        loss, grad, phi = meta_gradient(work.rule, work.learner, work.theta, task, steps=steps, order=order)
        return [loss, grad, *phi.values()]

    return Peer([work.theta, *work.rule.parameters()], gradient)


def compiled(work: Work) -> Peer:
    """Our engine, compiled."""
    setting = work.setting
    program = CompiledMetaGradient(work.rule, work.learner, steps=setting.steps, order=setting.order)

    def gradient(task: Task) -> Gradients:
        loss, grad, phi = program(work.theta, task)
        return [loss, grad, *phi.values()]

    return Peer([work.theta, *work.rule.parameters()], gradient)


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


def _own_copies(work: Work) -> list[Tensor]:
    """θ⁰ and φ, as tensors that an optimiser may change in place."""
    return [x.clone().requires_grad_() for x in (work.theta, *work.phi)]


def _over_tasks(work: Work, one: Callable[..., Tensor]) -> Peer:
    """`torch.func`'s grad of vmap of the loss of one task."""
    parameters = _own_copies(work)
    every = torch.func.vmap(one, in_dims=(None, None, 0, 0, 0, 0))
    both = torch.func.grad_and_value(lambda theta, phi, *t: every(theta, phi, *t).mean(), argnums=(0, 1))

    def gradient(task: Task) -> Gradients:
        theta, *phi = (x.detach() for x in parameters)
        (grad, phi_grads), loss = both(theta, phi, *task.tensors)
        return [loss, grad, *phi_grads]

    return Peer(parameters, gradient)


def torch_func(work: Work) -> Peer:
    """`torch.func`: grad of vmap of grad; on images vmap of grad of grad, and grouped convolutions.

    The gradient of a vmapped gradient of an affine batch norm is wrong in torch 2.13, by some per cent.
    """
    if work.setting.learner == "mlp":
        return _over_tasks(work, task_loss(_Torch, work))
    parameters = _own_copies(work)
    both = torch.func.grad_and_value(task_loss(_Torch, work), argnums=(0, 1))
    every = torch.func.vmap(both, in_dims=(None, None, 0, 0, 0, 0))

    def gradient(task: Task) -> Gradients:
        theta, *phi = (x.detach() for x in parameters)
        (grad, phi_grads), losses = every(theta, phi, *task.tensors)
        return [losses.mean(), grad.mean(0), *(g.mean(0) for g in phi_grads)]

    return Peer(parameters, gradient)


def torchopt_functional(work: Work) -> Peer:
    """TorchOpt's functional optimisers under vmap; a learned rule is a gradient transformation of our own."""
    import torchopt

    setting, form = work.setting, torchopt.base.GradientTransformation

    def support_loss(theta: Tensor, inputs: Tensor, targets: Tensor) -> Any:
        return squared_error(_Torch, setting.width, theta, inputs, targets)

    def query_loss(theta: Tensor, phi: Any, si: Tensor, st: Tensor, qi: Tensor, qt: Tensor) -> Any:
        optimizer = torchopt.sgd(INNER_LR) if setting.rule == "maml" else _transformation(form, work, phi)
        state = optimizer.init(theta)
        for _ in range(setting.steps):
            grad, loss = torch.func.grad_and_value(support_loss)(theta, si, st)
            if setting.order == "first":
                grad, loss = grad.detach(), loss.detach()
            if setting.rule != "maml":
                state = (loss, state[1])
            updates, state = optimizer.update(grad, state, params=theta, inplace=False)
            theta = torchopt.apply_updates(theta, updates, inplace=False)
        return support_loss(theta, qi, qt)

    return _over_tasks(work, query_loss)


def _transformation(form: Any, work: Work, phi: Any) -> Any:
    """The work's rule in TorchOpt's form; its state is (the loss, the rule's own)."""
    update, start = RULES[work.setting.rule]

    def change(grad: Tensor, state: Any, *, params: Any = None, inplace: bool = False) -> Any:
        theta, memory = update(_Torch, phi, params, grad, *state)
        return theta - params, (state[0], memory)

    return form(lambda theta: (None, start(_Torch, theta)), change)


def higher_loop(work: Work) -> Peer:
    """`higher` as its documentation has it: a loop over tasks, the module patched for each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import higher
    setting, module, memory = work.setting, work.plain(), dict[str, Any]()
    phi, criterion = _own_copies(work)[1:], work.criterion
    if (setting.learner, setting.rule) == ("conv-4", "maml"):
        optimizer: Any = torch.optim.SGD(module.parameters(), lr=INNER_LR)
    else:
        optimizer = _flat_optimizer(higher, work, phi, memory)(module.parameters())
    first = setting.order == "first"

    def query_loss(task: Task) -> Tensor:
        support, query = task.support, task.query
        with higher.innerloop_ctx(module, optimizer, copy_initial_weights=False) as (model, inner):
            memory["state"] = RULES[setting.rule][1](_Torch, work.theta)
            for _ in range(setting.steps):
                loss = criterion(model(support.inputs), support.targets)
                memory["loss"] = loss.detach() if first else loss
                inner.step(loss, grad_callback=_held if first else None)
            return criterion(model(query.inputs), query.targets)

    return _one_by_one([*module.parameters(), *phi], query_loss)


def clone_loop(work: Work) -> Peer:
    """learn2learn's style, by torch alone: each task has a clone of the module, and updates that.

    Its MAML does so: parameters are cloned within the graph, and each step puts new ones in their places.
    """
    setting, module, criterion = work.setting, work.plain(), work.criterion
    phi, (update, start) = _own_copies(work)[1:], RULES[setting.rule]
    first = setting.order == "first"

    def query_loss(task: Task) -> Tensor:
        clone, state = _clone(module), start(_Torch, work.theta)
        for _ in range(setting.steps):
            loss = criterion(clone(task.support.inputs), task.support.targets)
            places = [(part, name) for part in clone.modules() for name in part._parameters]
            values = [part._parameters[name] for part, name in places]
            grads = torch.autograd.grad(loss, values, create_graph=not first)
            if setting.rule == "maml":
                new = [p - INNER_LR * g for p, g in zip(values, grads, strict=True)]
            else:
                theta, grad = (torch.cat([x.reshape(-1) for x in xs]) for xs in (values, grads))
                shown = loss.detach() if first else loss
                theta, state = update(_Torch, phi, theta, grad, shown, state)
                parts = torch.split(theta, [p.numel() for p in values])
                new = [part.reshape(p.shape) for part, p in zip(parts, values, strict=True)]
            for (part, name), value in zip(places, new, strict=True):
                part._parameters[name] = value
        return criterion(clone(task.query.inputs), task.query.targets)

    return _one_by_one([*module.parameters(), *phi], query_loss)


def _clone(module: torch.nn.Module) -> Any:
    """A module that computes with copies of the parameters through which gradients flow."""
    clone: Any = copy.copy(module)
    clone._parameters = {name: None if p is None else p.clone() for name, p in module._parameters.items()}
    clone._modules = {name: _clone(part) for name, part in module._modules.items() if part is not None}
    return clone


def _one_by_one(parameters: list[Tensor], query_loss: Callable[[Task], Tensor]) -> Peer:
    """The mean over tasks and its gradient; a task's graph is gone before the next one's is made."""

    def gradient(tasks: Task) -> Gradients:
        losses, grads = [], [torch.zeros_like(p) for p in parameters]
        for i in range(len(tasks)):
            loss = query_loss(tasks[i]) / len(tasks)
            found = torch.autograd.grad(loss, parameters, materialize_grads=True)
            grads = [total + g for total, g in zip(grads, found, strict=True)]
            losses.append(loss.detach())
        return [torch.stack(losses).sum(), *grads]

    return Peer(parameters, gradient)


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
            update = RULES[work.setting.rule][0]
            theta, memory["state"] = update(_Torch, phi, theta, grad, memory["loss"], memory["state"])
            parts = torch.split(theta, [shape.numel() for shape in shapes])
            group["params"] = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    higher.register_optim(Flat, DifferentiableFlat)
    return Flat


PEERS: dict[str, Callable[[Work], Peer]] = {
    "higher loop": higher_loop,
    "clone loop": clone_loop,
    "torch.func": torch_func,
    "TorchOpt": torchopt_functional,
    "eager": eager,
    "compiled": compiled,
    "jax": jax_jit,
}
"""By the name they have in the table."""
