"""On a GPU the same functions give the same answers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metalearn_core import (
    BaseLearner,
    Batch,
    Coordinatewise,
    Settings,
    Task,
    make_rule,
    meta_gradient,
    meta_test,
    meta_train,
)  # fmt: skip
from metalearn_core.kernels.coordinatewise import fused_networks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, none is here")
RULES = [("gradient-descent", {"learn_lr": "parameter"}), ("lstm", {"hidden": 20}), ("feed-forward", {})]


class Lines:
    splits = ("train", "validation", "test")

    def sample(self, split, count, generator):
        slope, x = (
            torch.randn(count, 1, 1, generator=generator),
            torch.randn(count, 9, 1, generator=generator),
        )
        return Task(Batch(x[:, :4], slope * x[:, :4]), Batch(x[:, 4:], slope * x[:, 4:]), stacked=True)


def learner(device):
    network = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    return BaseLearner(network, nn.functional.mse_loss).to(device)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize(("name", "options"), RULES)
def test_meta_gradients_are_those_of_the_cpu(name, options, order):
    task = Lines().sample("train", 3, torch.Generator().manual_seed(1)).to("cpu", torch.float64)
    rule = make_rule(name, learner("cpu").layout, **options).double()
    answers = []
    for device in ("cpu", "cuda"):
        on = learner(device)
        theta = on.initial(torch.Generator().manual_seed(0))
        answers.append(meta_gradient(rule.to(device), on, theta, task.to(device), steps=3, order=order))
    (loss, grad, phi), (loss_there, grad_there, phi_there) = answers
    torch.testing.assert_close(loss_there.cpu(), loss)
    torch.testing.assert_close(grad_there.cpu(), grad)
    torch.testing.assert_close({k: g.cpu() for k, g in phi_there.items()}, phi)


def test_a_run_on_a_gpu_is_trained_saved_resumed_and_tested_there(tmp_path):
    settings = Settings(tasks=12, meta_batch=2, validation_interval=6, validation_tasks=5, steps=2)
    rule = make_rule("feed-forward", learner("cpu").layout, hidden=[4]).double()
    scores = []
    for _ in range(2):  # the second time everything comes out of the checkpoint
        trained = meta_train(
            rule, learner("cuda"), Lines(), settings,
            generator=torch.Generator().manual_seed(0), checkpoint=tmp_path / "run.pt",
        )  # fmt: skip
        assert trained.at_best()[1].device.type == "cuda"
        scores.append(meta_test(trained, Lines(), tasks=7))
    torch.testing.assert_close(*scores, rtol=0, atol=0)


def test_fused_networks_are_the_plain_ones():
    torch.manual_seed(0)
    network = Coordinatewise(2, [20, 20], activation=nn.Tanh).cuda()
    columns = [torch.randn(3, 700, device="cuda", requires_grad=True) for _ in range(2)]
    wanted = [*columns, *network.parameters()]

    def answers():
        (y,) = network(columns)
        return y, *torch.autograd.grad(y.square().sum(), wanted)

    plain = answers()
    with fused_networks():
        fused = answers()
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)
