"""Conv-4 and ResNet-12: against plain networks of torch's own layers, to second derivatives, in float64."""

from __future__ import annotations

import functools

import pytest
import torch
from plain_networks import Normalised, plain_conv_4, plain_resnet_12
from torch import nn
from torch.func import functional_call, vmap

from metalearn_benchmarks.learners.images.convolution import convolution
from metalearn_benchmarks.learners.images.moments import moments
from metalearn_benchmarks.learners.images.pooling import max_pool
from metalearn_benchmarks.runs.results.provenance import describe_batch_norm
from metalearn_core import (
    Batch,
    CompiledMetaGradient,
    Task,
    TaskStream,
    UsageError,
    adapt,
    base_learners,
    make_rule,
    meta_gradient,
)

close = functools.partial(torch.testing.assert_close, rtol=1e-8, atol=1e-10)
F = nn.functional


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The operators


@pytest.mark.parametrize(("kernel", "padding"), [(3, 0), (3, 1), (1, 0)])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_convolution_is_torchs_to_second_derivatives(channels, kernel, padding):
    x = drawn(3, 5, 6, channels).requires_grad_()
    weight = drawn(2, channels, kernel, kernel, seed=1).requires_grad_()
    close(
        convolution(x, weight, padding),
        F.conv2d(x.permute(0, 3, 1, 2), weight, padding=padding).permute(0, 2, 3, 1),
    )
    assert torch.autograd.gradcheck(lambda *given: convolution(*given, padding), (x, weight))
    assert torch.autograd.gradgradcheck(lambda *given: convolution(*given, padding), (x, weight))


@pytest.mark.parametrize("shared", [None, "images", "weights"])
def test_a_convolution_of_seeds_of_tasks_is_each_ones_own(shared):
    x, weight = drawn(2, 3, 4, 6, 6, 2), drawn(2, 3, 5, 2, 3, 3, seed=1)
    x, weight = (x[0, 0] if shared == "images" else x), (weight[0, 0] if shared == "weights" else weight)
    dims = (None if shared == "images" else 0, None if shared == "weights" else 0)
    given = [x.requires_grad_(), weight.requires_grad_()]

    def loss(x, weight):
        return convolution(x, weight, 1).sin().sum()

    values = vmap(vmap(loss, dims), dims)(*given)
    wanted = torch.stack([
        torch.stack([
            loss(x if shared == "images" else x[i, j], weight if shared == "weights" else weight[i, j])
            for j in range(3)
        ]) for i in range(2)
    ])  # fmt: skip
    close(values, wanted)
    for ours, theirs in zip(*(twice(v, given) for v in (values, wanted)), strict=True):
        close(ours, theirs)


def twice(values, given):
    """First derivatives, and those of a function of them."""
    first = torch.autograd.grad(values.pow(2).sum(), given, create_graph=True)
    return *first, *torch.autograd.grad(sum(g.cos().sum() for g in first), given)


def test_large_batches_are_taken_in_pieces(monkeypatch):
    x, weight = drawn(2, 7, 6, 6, 2), drawn(2, 5, 2, 3, 3, seed=1)
    every = vmap(lambda x, weight: convolution(x, weight, 1))
    whole = every(x, weight)
    gradient = torch.func.vjp(every, x, weight)[1](whole)
    monkeypatch.setattr("metalearn_benchmarks.learners.images.convolution.PIECE", 2 * 36 * 5)
    close(every(x, weight), whole)
    close(torch.func.vjp(every, x, weight)[1](whole), gradient)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7)])
def test_pooling_is_torchs_also_where_scales_are_negative(height, width):
    x = drawn(2, height, width, 3).requires_grad_()
    scale, shift = torch.tensor([1.5, -0.5, 0.25]).double(), drawn(3, seed=2)
    given = [x, scale.requires_grad_(), shift.requires_grad_()]
    ours = max_pool(*given)
    theirs = F.max_pool2d((x * scale + shift).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    close(ours, theirs)
    for mine, other in zip(twice(ours.sin(), given), twice(theirs.sin(), given), strict=True):
        close(mine, other)


def test_of_equal_values_the_first_one_counts():
    x = torch.ones(1, 2, 2, 1, requires_grad=True)
    max_pool(x, torch.ones(1), torch.zeros(1)).sum().backward()
    assert x.grad.flatten().tolist() == [1, 0, 0, 0]


def test_what_is_not_finite_is_not_lost():
    x = torch.zeros(1, 2, 4, 1)
    x[0, 1, 0, 0], x[0, 1, 2, 0] = float("nan"), float("inf")
    found = max_pool(x, torch.ones(1), torch.zeros(1)).flatten()
    assert found[0].isnan()
    assert found[1] == float("inf")


def test_moments_have_every_derivative():
    x = drawn(2, 2, 3, 2).requires_grad_()
    variance, mean = torch.var_mean(x, (0, 1, 2), correction=0)
    close(moments(x), (mean, variance))
    assert torch.autograd.gradcheck(moments, (x,))
    assert torch.autograd.gradgradcheck(moments, (x,))
    every = vmap(moments)(torch.stack([x, 2 * x]))
    close(every, (torch.stack([mean, 2 * mean]), torch.stack([variance, 4 * variance])))


# The networks


SMALL = {"ways": 3, "channels": 2, "size": 16, "width": 3}
CASES = {
    "padded": ("conv-4", SMALL, lambda: plain_conv_4(2, 16, 3, 1, 3)),
    "unpadded": ("conv-4", {**SMALL, "size": 47, "padding": 0}, lambda: plain_conv_4(2, 47, 3, 0, 3)),
    "one channel": ("conv-4", {**SMALL, "channels": 1, "size": 19}, lambda: plain_conv_4(1, 19, 3, 1, 3)),
    "cosine": ("conv-4", {**SMALL, "head": "cosine"}, lambda: plain_conv_4(2, 16, 3, 1, 3, "cosine")),
    "resnet": (
        "resnet-12",
        {"ways": 3, "channels": 2, "size": 17, "widths": [2, 3, 2, 3]},
        lambda: plain_resnet_12(2, 17, (2, 3, 2, 3), 3),
    ),
}


def case(name, **further):
    """The learner, a plain network, and names of the latter's parameters in the learner's order."""
    kind, options, plain = CASES[name]
    learner = base_learners()[kind](**options, **further).to("cpu", torch.float64)
    network = plain()
    return learner, network, [n for n, _ in network.named_parameters()]


def images(learner, *lead, seed=0):
    return drawn(*lead, *learner.module.image, seed=seed).abs()


def plain_loss(network, names, learner, theta, batch, support=None):
    """The same by `functional_call`, with batch norm in training mode."""
    shapes = {n: p.shape for n, p in network.named_parameters()}
    values = torch.split(theta, [shapes[n].numel() for n in names])
    given = {n: value.reshape(shapes[n]) for n, value in zip(names, values, strict=True)}
    count = None if support is None else len(support)
    for part in network.modules():
        if isinstance(part, Normalised):
            part.count = count
    inputs = batch.inputs if support is None else torch.cat([support, batch.inputs])
    return F.cross_entropy(functional_call(network, given, (inputs,))[count or 0 :], batch.targets)


@pytest.mark.parametrize("name", CASES)
def test_a_learner_is_the_plain_network_to_second_derivatives(name):
    learner, network, names = case(name)
    theta = learner.initial(torch.Generator().manual_seed(3))
    theta = (theta + 0.1 * drawn(len(theta), seed=4)).requires_grad_()
    batch, along = Batch(images(learner, 6), torch.arange(6) % 3), drawn(len(theta), seed=5)
    found = []
    for loss in (learner.loss(theta, batch), plain_loss(network, names, learner, theta, batch)):
        (first,) = torch.autograd.grad(loss, theta, create_graph=True)
        (second,) = torch.autograd.grad(first @ along, theta)
        found.append((loss, first, second))
    assert found[0][2].abs().max() > 1e-3
    close(*found, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("mode", ["batch", "support"])
@pytest.mark.parametrize("name", ["padded", "resnet"])
def test_a_meta_batch_is_a_plain_loop_over_tasks(name, mode, order):
    learner, network, names = case(name, batch_norm=mode)
    theta, task = learner.initial(torch.Generator().manual_seed(3)), meta_batch(learner)
    rule = make_rule("gradient-descent", learner.layout, inner_lr=0.125).double()
    rate = 0.125
    loss, grad, _ = meta_gradient(rule, learner, theta, task, steps=2, order=order)
    adapted = adapt(rule, learner, theta, task.support, steps=2)
    start, losses = theta.clone().requires_grad_(), []
    for i in range(len(task)):
        now = start
        for _ in range(2):
            value = plain_loss(network, names, learner, now, task[i].support)
            (g,) = torch.autograd.grad(value, now, create_graph=order == "second")
            now = now - rate * g
        close(adapted[i], now)
        support = task[i].support.inputs if mode == "support" else None
        losses.append(plain_loss(network, names, learner, now, task[i].query, support))
    mean = sum(losses) / len(losses)
    close(loss, mean.detach())
    close(grad, torch.autograd.grad(mean, start)[0], rtol=1e-7, atol=1e-9)


def meta_batch(learner, tasks=2, support=3, query=6):
    classes = [torch.arange(n).repeat(tasks, 1) % 3 for n in (support, query)]
    inputs = [images(learner, tasks, n, seed=n) for n in (support, query)]
    return Task.of([inputs[0], classes[0], inputs[1], classes[1]], stacked=True)


@pytest.mark.parametrize("mode", ["batch", "support"])
def test_the_transforms_of_torch_func_take_it(mode):
    learner, _, _ = case("padded", batch_norm=mode)
    theta, task = learner.initial(torch.Generator().manual_seed(3)), meta_batch(learner)[0]
    context = learner.context(task)
    leaf = theta.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(learner.loss(leaf, task.query, *context), leaf, create_graph=True)
    close(torch.func.grad(learner.loss)(theta, task.query, *context), wanted.detach())
    along = drawn(len(theta), seed=5)
    (curved,) = torch.autograd.grad(wanted @ along, leaf)
    twice = torch.func.grad(lambda theta: torch.func.grad(learner.loss)(theta, task.query, *context) @ along)
    close(twice(theta), curved, rtol=1e-7, atol=1e-9)
    every = vmap(torch.func.grad(lambda theta: learner.loss(theta, task.query, *context)))
    close(every(torch.stack([theta, -theta]))[0], wanted.detach(), rtol=1e-7, atol=1e-9)


@pytest.mark.nightly
@pytest.mark.parametrize("mode", ["batch", "support"])
def test_a_compiled_step_of_conv_4_is_the_eager_one(mode):
    learner, _, _ = case("padded", batch_norm=mode)
    theta, task = learner.initial(torch.Generator().manual_seed(3)), meta_batch(learner)
    rule = make_rule("gradient-descent", learner.layout, inner_lr=0.125).double()
    found = CompiledMetaGradient(rule, learner, steps=1)(theta, task)
    close(found, meta_gradient(rule, learner, theta, task, steps=1), rtol=1e-7, atol=1e-9)


def test_the_cosine_head_is_torchs_weight_norm():
    learner, _, _ = case("cosine")
    head = learner.module.head
    layer = nn.Linear(3, 3, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(head.direction)
    nn.utils.parametrizations.weight_norm(layer, dim=0)
    drawn_length = layer.parametrizations.weight.original0[:, 0]
    torch.testing.assert_close(head.magnitude, drawn_length, rtol=1e-6, atol=1e-6)
    head.magnitude.data *= 3
    layer.parametrizations.weight.original0.data = head.magnitude.data[:, None]
    x = drawn(4, 3)
    close(head(x), 2 * layer(x / (x.norm(dim=1, keepdim=True) + 1e-5)))


def test_the_authors_network_has_their_number_of_parameters():
    made = base_learners()
    assert made["conv-4"](padding=0).layout.size == 115_973
    assert made["conv-4"]().layout.size == 115_973 + (1_600 - 576) * 5
    assert made["conv-4"](size=28, channels=1).layout.size == 115_973 - 2 * 64 * 9 - (576 - 64) * 5
    assert made["resnet-12"]().layout.size == 12_424_320 + 16_000 * 5 + 5
    assert made["resnet-12"](average_pool=True).layout.size == 12_424_320 + 640 * 5 + 5


def test_a_start_is_drawn_as_the_authors_have_it():
    learner = base_learners()["conv-4"](padding=0)
    parts = learner.layout.unflatten(learner.initial(torch.Generator().manual_seed(0)))
    for index, fan_in in enumerate((27, 576, 576, 576)):
        block = f"blocks.{index}"
        for drawn_part in ("weight", "bias"):
            values = parts[f"{block}.convolution.{drawn_part}"]
            assert 0.9 < values.abs().max() * fan_in**0.5 <= 1
        assert (parts[f"{block}.norm.weight"] == 1).all()
        assert (parts[f"{block}.norm.bias"] == 0).all()
    assert (parts["head.bias"] == 0).all()
    assert parts["head.weight"].std() > 0


def test_a_bias_before_batch_norm_has_no_gradient_at_all():
    learner, _, _ = case("padded")
    theta = learner.initial(torch.Generator().manual_seed(3)).requires_grad_()
    loss = learner.loss(theta, Batch(images(learner, 6), torch.arange(6) % 3))
    parts = learner.layout.unflatten(torch.autograd.grad(loss, theta)[0])
    assert all((parts[f"blocks.{i}.convolution.bias"] == 0).all() for i in range(4))


def test_the_support_sets_statistics_make_a_query_independent_of_the_others():
    learner, _, _ = case("padded", batch_norm="support")
    theta, task = learner.initial(torch.Generator().manual_seed(3)), meta_batch(learner)[0]
    support, query = task.support.inputs, task.query.inputs
    whole = learner.predict(theta, query, support)
    close(learner.predict(theta, query[:1], support), whole[:1])
    close(learner.predict(theta, support, support), learner.predict(theta, support))
    transductive, _, _ = case("padded")
    alone, among = (transductive.predict(theta, q)[0] for q in (query[:1], query))
    assert not torch.allclose(alone, among, rtol=1e-2)


def test_the_mode_is_told_in_a_record():
    assert "transductive)" in describe_batch_norm(case("padded")[0])
    assert "support set" in describe_batch_norm(case("padded", batch_norm="support")[0])


def test_scores_are_accuracies_and_classes_stay_integers():
    learner, _, _ = case("padded")
    assert (learner.score_name, learner.higher_is_better) == ("accuracy", True)

    class Family:
        splits = ("train",)

        def sample(self, split, count, generator):
            return meta_batch(learner, tasks=count)

        def examples(self, split):
            raise NotImplementedError

    task = TaskStream(Family(), "train", 0, learner.device, torch.float32).take(0, 2)
    assert (task.support.inputs.dtype, task.query.targets.dtype) == (torch.float32, torch.int64)
    scored = Batch(task.query.inputs[0].double(), task.query.targets[0])
    theta = learner.initial(torch.Generator().manual_seed(3))
    right = learner.predict(theta, scored.inputs).argmax(1) == scored.targets
    assert learner.score(theta, scored) == right.double().mean()


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        (
            "conv-4",
            {"size": 28, "padding": 0},
            r"\(28, 13, 5, 1, 0\).* at least 46, or padding = 1",
        ),
        ("conv-4", {"size": 15}, "at least 16"),
        ("conv-4", {"padding": 2}, "padding must be 0 or 1, got 2"),
        ("conv-4", {"ways": 1}, "ways must be an integer >= 2, got 1"),
        ("conv-4", {"width": 1.5}, "width must be an integer >= 1, got 1.5"),
        ("conv-4", {"batch_norm": "suport"}, "batch_norm 'suport': did you mean 'support'"),
        ("conv-4", {"head": "cosin"}, "did you mean 'cosine'"),
        ("conv-4", {"scale": 0.0}, "scale must be a number > 0"),
        ("resnet-12", {"widths": [1, 2]}, r"widths must be four integers, got \[1, 2\]"),
        ("resnet-12", {"widths": [1, 2, 3, 0]}, r"widths\[3\] must be an integer >= 1, got 0"),
        ("resnet-12", {"size": 12}, "at least 16"),
        ("resnet-12", {"average_pool": 1}, "average_pool must be true or false"),
    ],
)
def test_options_that_make_no_sense_are_one_line(name, options, complaint):
    with pytest.raises(UsageError, match=rf"\A[^\n]*{complaint}[^\n]*\Z"):
        base_learners()[name](**options)


def test_images_of_another_size_are_one_line():
    learner = base_learners()["conv-4"](size=28)
    theta = learner.initial(torch.Generator().manual_seed(0))
    for inputs in (torch.zeros(2, 3, 29, 29), torch.zeros(2, 3, 28, 28, dtype=torch.uint8)):
        with pytest.raises(UsageError, match=r"\A[^\n]*float images \[n, 3, 28, 28\] got [^\n]*\Z"):
            learner.predict(theta, inputs)
