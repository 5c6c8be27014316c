"""What goes wrong in a rule's own code is said in one line: whose, what, and what to do instead."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import mse_loss

from metalearn_core import (
    BaseLearner,
    CompiledMetaGradient,
    Settings,
    UpdateRule,
    UsageError,
    adapt,
    make_rule,
    meta_gradient,
    meta_train,
    task_families,
)
from metalearn_core.errors import remedy
from metalearn_core.kernels.programs import CompilationError
from metalearn_core.testing import Architecture, Problem

PROBLEM = Problem(Architecture((1, 3, 1)), tasks=2, steps=2, seed=0)
FAMILY = task_families()["sine"](support=5, query=5)
LEARNER = Architecture((1, 3, 1)).learner()


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.square()

    @staticmethod
    def backward(ctx, g):
        return g


def read_out(grad):
    return grad * float(grad.sum().item() > 0)


def branch(grad):
    return grad if grad.sum() > 0 else -grad


def with_numpy(grad):
    return torch.as_tensor(np.sign(grad.detach().numpy()))


WAYS = {
    read_out: "do not read a tensor out",
    branch: "choose with torch.where",
    with_numpy: "NumPy",
    Square.apply: "setup_context",
    lambda grad: grad @ grad.new_zeros(3, 3): "Expected size",
}


def rule_that(way, elementwise):
    class Proposal(UpdateRule):
        def __init__(self, layout):
            super().__init__()
            self.inner_lr = torch.nn.Parameter(torch.tensor(0.01))

        def update(self, theta, signal, state):
            return theta - self.inner_lr * way(signal.grad), state

    Proposal.elementwise = elementwise
    Proposal.check_first_update = False  # it would be refused before anything else
    return Proposal


@pytest.mark.parametrize("way", WAYS)
def test_a_rule_that_cannot_be_batched_is_told_so_by_name(way):
    rule = rule_that(way, elementwise=False)(PROBLEM.learner.layout).double()
    with pytest.raises(UsageError, match=f"^rule .*Proposal.*: update raised .*({WAYS[way]})") as error:
        meta_gradient(rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, steps=2)
    assert "\n" not in str(error.value)
    assert "pytorch/issues" not in str(error.value)
    assert error.value.__cause__ is not None


def test_a_state_too():
    class Broken(rule_that(read_out, elementwise=False)):
        def init_state(self, theta):
            return torch.zeros(int(theta.sum().item()))

    with pytest.raises(UsageError, match=r"init_state raised .*do not read a tensor out"):
        adapt(
            Broken(PROBLEM.learner.layout).double(), PROBLEM.learner, PROBLEM.theta,
            PROBLEM.task.support, steps=1,
        )  # fmt: skip


class ForgetsTheState(UpdateRule):
    def update(self, theta, signal, state):
        return theta - signal.grad


def test_a_rule_that_returns_the_next_theta_alone_is_told_what_to_write():
    with pytest.raises(UsageError, match="it returned a tensor alone; write `return theta, state`"):
        adapt(ForgetsTheState(), PROBLEM.learner, PROBLEM.theta, PROBLEM.task.support, steps=1)


@pytest.mark.parametrize("way", [read_out, branch, with_numpy])
def test_a_value_that_is_read_never_becomes_a_constant_of_a_program(way):
    """Eager these work, elementwise as they claim; compiled they would repeat the first batch's values."""
    rule = rule_that(way, elementwise=True)(PROBLEM.learner.layout).double()
    meta_gradient(rule, PROBLEM.learner, PROBLEM.theta, PROBLEM.task, steps=2)
    with pytest.raises(CompilationError, match=WAYS[way]):
        CompiledMetaGradient(rule, PROBLEM.learner, steps=2)(PROBLEM.theta, PROBLEM.task)


@pytest.mark.parametrize("way", [read_out, branch, with_numpy])
def test_a_run_of_it_is_eager_and_says_why(way):
    said = []
    settings = Settings(
        tasks=3, meta_batch=1, steps=2, validation_interval=9, validation_tasks=2, engine="compiled"
    )
    trained = meta_train(
        rule_that(way, elementwise=True)(LEARNER.layout).double(), LEARNER, FAMILY, settings,
        generator=torch.Generator().manual_seed(0), observers=[said.append],
    )  # fmt: skip
    assert (trained.engine, trained.position) == ("eager", 3)
    (event,) = [event for event in said if event.kind == "engine"]
    assert WAYS[way] in event.values["note"]
    assert "cannot be compiled and runs eager: update raised" in event.values["note"]


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.project = torch.nn.Linear(1, 4)

    def forward(self, x):
        q = self.project(x.expand(len(x), 3)[..., None]).unsqueeze(1)
        return torch.nn.functional.scaled_dot_product_attention(q, q, q).mean((1, 2, 3)).unsqueeze(-1)


def read_out_loss(prediction, target):
    return torch.as_tensor((prediction - target).square().mean().item())


@pytest.mark.parametrize(
    ("module", "loss", "said"),
    [
        (Attention(), mse_loss, r"meta_gradient: the backward pass .*sdpa_kernel\(SDPBackend\.MATH\)"),
        (torch.nn.Linear(7, 1), mse_loss, "base-learner Linear: forward raised RuntimeError"),
        (torch.nn.Linear(1, 1), read_out_loss, r"Linear: (loss|score) raised .*do not read a tensor out"),
    ],
)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("steps", [2, 17])
def test_a_base_learner_that_cannot_be_used_is_told_so(module, loss, said, steps):
    learner = BaseLearner(module, loss)
    rule = make_rule("gradient-descent", learner.layout)
    settings = Settings(tasks=2, steps=steps, validation_interval=9, validation_tasks=2, engine="eager")
    with pytest.raises(UsageError, match=said) as error:
        meta_train(rule, learner, FAMILY, settings, generator=torch.Generator().manual_seed(0))
    assert "\n" not in str(error.value)


def test_the_remedy_for_attention_is_one():
    learner, task = BaseLearner(Attention(), mse_loss), FAMILY.sample("train", 2, torch.Generator())
    rule, theta = make_rule("gradient-descent", learner.layout), learner.initial(torch.Generator())
    with sdpa_kernel(SDPBackend.MATH):
        _, grad, _ = meta_gradient(rule, learner, theta, task, steps=2)
    assert grad.isfinite().all()


@pytest.mark.parametrize(
    ("torch_says", "advice"),
    [
        (
            "Double backwards is not supported for CuDNN RNNs due to limitations in the CuDNN API.",
            "cudnn.flags",
        ),
        ("Batching rule not implemented for aten::_cudnn_rnn. We could not generate a fallback.", "simpler"),
        ("derivative for aten::_scaled_dot_product_efficient_attention_backward is not", "sdpa_kernel"),
    ],
)
def test_what_only_a_gpu_can_raise_has_its_remedy_too(torch_says, advice):
    assert advice in remedy(RuntimeError(torch_says))


class RunningStatistics(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x):
        return torch.nn.functional.batch_norm(self.linear(x), self.mean, self.mean, training=True)


def test_running_statistics_in_a_function_have_their_remedy():
    learner, task = BaseLearner(RunningStatistics(), mse_loss), FAMILY.sample("train", 2, torch.Generator())
    rule, theta = make_rule("gradient-descent", learner.layout), learner.initial(torch.Generator())
    with pytest.raises(UsageError, match=r"RunningStatistics changes its .*no running statistics"):
        meta_gradient(rule, learner, theta, task, steps=1)


def test_higher_warns_of_nothing_that_it_would_say_when_it_is_compiled(tmp_path):
    """Installers need not compile what they install."""
    code = (
        "import sys, warnings, torch, attrs\n"
        f"sys.pycache_prefix = {str(tmp_path)!r}\n"
        "warnings.simplefilter('error')\n"
        "import metalearn_core.optimizers.differentiable\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
