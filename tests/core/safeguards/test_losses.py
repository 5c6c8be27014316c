"""What a loss is given: outputs of any kind, shapes that would be stretched, labels that do not fit."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from metalearn_core import BaseLearner, Batch, Task, UsageError, adapt, make_rule, meta_gradient
from metalearn_core.errors import remedy

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(5, 3, generator=GENERATOR)


def start(module, loss, score=None):
    learner = BaseLearner(module, loss, score)
    rule = make_rule("gradient-descent", learner.layout, inner_lr=0.1)
    return learner, rule, learner.initial(torch.Generator().manual_seed(0))


class Outputs(nn.Module):
    """A linear layer whose output comes in another container."""

    def __init__(self, wrap):
        super().__init__()
        self.layer, self.wrap = nn.Linear(3, 1), wrap

    def forward(self, x):
        return self.wrap(self.layer(x))


WRAPPED = {
    "dict": (lambda y: {"logits": y}, lambda out, target: F.mse_loss(out["logits"], target)),
    "tuple": (lambda y: (y, None), lambda out, target: F.mse_loss(out[0], target)),
    "nested": (lambda y: {"a": [y, y]}, lambda out, target: F.mse_loss(out["a"][1], target)),
}


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("kind", WRAPPED)
def test_an_output_of_any_kind_reaches_the_loss_as_it_is(kind, order):
    wrap, loss = WRAPPED[kind]
    learner, rule, theta = start(Outputs(wrap), loss)
    batch = Batch(INPUTS, INPUTS.sum(1, keepdim=True))
    ours = meta_gradient(rule, learner, theta, Task(batch, batch), steps=2, order=order)
    plain, rule, _ = start(nn.Linear(3, 1), F.mse_loss)
    theirs = meta_gradient(rule, plain, theta, Task(batch, batch), steps=2, order=order)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    torch.testing.assert_close(learner.score(theta, batch), plain.loss(theta, batch))


def test_a_loss_that_takes_a_tensor_is_told_what_the_module_returns():
    learner, rule, theta = start(Outputs(lambda y: {"logits": y}), F.mse_loss)
    batch = Batch(INPUTS, torch.zeros(5, 1))
    said = r"^base-learner Outputs: loss failed: the module returns a dict with logits: take from it"
    with pytest.raises(UsageError, match=said):
        adapt(rule, learner, theta, batch, steps=1)
    with pytest.raises(UsageError, match=r"Outputs: score failed: the module returns a tuple"):
        BaseLearner(Outputs(lambda y: (y,)), lambda out, y: out[0].sum(), F.mse_loss).score(theta, batch)


COMPARED = {
    "mse_loss": F.mse_loss,
    "by name": lambda p, y: F.mse_loss(input=p, target=y),
    "module": nn.L1Loss(),
    "minus": lambda p, y: (p - y).square().mean(),
    "minus, turned": lambda p, y: (y - p).square().mean(),
    "sub": lambda p, y: torch.sub(p, y).abs().mean(),
    "huber": F.huber_loss,
    "made of the prediction": lambda p, y: (p + 0 - y).square().mean(),
    "made of the targets": lambda p, y: (p - y.float().clamp(-1, 1)).square().mean(),
    "made of both": lambda p, y: F.mse_loss(p.sigmoid(), 1 - y.sigmoid()),
}


@pytest.mark.parametrize("compare", COMPARED)
@pytest.mark.parametrize(("outputs", "targets"), [(1, (5, 2)), (2, (5, 1)), (2, (5, 3, 2)), (5, (5,))])
@pytest.mark.parametrize("stacked", [False, True])
def test_what_would_be_stretched_in_silence_is_refused_with_both_shapes(compare, outputs, targets, stacked):
    if targets == (5, 3, 2):
        targets = (5, 1, 2)
    learner, rule, theta = start(nn.Linear(3, outputs), COMPARED[compare])
    batch = Batch(INPUTS, torch.zeros(targets))
    shapes = f"prediction has shape (5, {outputs}) and targets {targets};".replace("(", r"\(").replace(
        ")", r"\)"
    )
    go = functools.partial(adapt, rule, learner, theta, batch, steps=1)
    with pytest.raises(UsageError, match=shapes):
        go() if stacked else learner.loss(theta, batch)


def gaussian(prediction, target):
    """Mean and log-variance beside one target: shapes differ, and nothing is stretched."""
    mean, log_variance = prediction.split(1, -1)
    return ((mean - target).square() / log_variance.exp() + log_variance).mean()


def weighted(prediction, target):
    """A target and a weight beside one prediction."""
    return (target[:, 1:] * (prediction - target[:, :1]).square()).mean()


@pytest.mark.parametrize(("loss", "outputs", "targets"), [(gaussian, 2, 1), (weighted, 1, 2)])
def test_a_loss_that_takes_parts_of_them_may_have_other_shapes(loss, outputs, targets):
    learner, rule, theta = start(nn.Linear(3, outputs), loss)
    batch = Batch(INPUTS, torch.rand(5, targets, generator=GENERATOR))
    leaf = theta.clone().requires_grad_()
    loss(learner.predict(leaf, INPUTS), batch.targets).backward()
    moved = adapt(rule, learner, theta, batch, steps=1)
    torch.testing.assert_close(moved.detach(), theta - 0.1 * leaf.grad)


def labels(*values, dtype=torch.int64):
    return torch.tensor(values, dtype=dtype)


WRONG_LABELS = {
    "too high": (labels(1, 2, 3, 1, 1), "targets go up to 3, the network has 3 outputs: labels are 0 ... 2"),
    "more ways": (labels(0, 1, 2, 3, 4), "targets go up to 4, the network has 3 outputs"),
    "negative": (labels(-1, 0, 1, 2, 0), "targets go down to -1, the network has 3 outputs"),
    "float": (
        labels(0, 1, 2, 1, 0, dtype=torch.float32),
        "targets are torch.float32: labels are integers, 0",
    ),
    "a column": (labels([0], [1], [2], [0], [1]), "targets have shape (5, 1): labels have no axis for it"),
}


@pytest.mark.parametrize("case", WRONG_LABELS)
@pytest.mark.parametrize("way", ["loss", "adapt", "meta-batch"])
def test_labels_that_do_not_fit_are_told_with_what_does(case, way):
    targets, said = WRONG_LABELS[case]
    learner, rule, theta = start(nn.Linear(3, 3), F.cross_entropy)
    good, wrong = Batch(INPUTS, labels(0, 1, 2, 0, 1).to(targets.dtype)), Batch(INPUTS, targets)
    if case == "a column":
        good = wrong
    tasks = Task.stack([Task(good, good), Task(wrong, wrong)])  # the second task alone has them
    ways = {
        "loss": functools.partial(learner.loss, theta, wrong),
        "adapt": functools.partial(adapt, rule, learner, theta, wrong, steps=1),
        "meta-batch": functools.partial(meta_gradient, rule, learner, theta, tasks, steps=1),
    }
    with pytest.raises(UsageError) as error:
        ways[way]()
    assert f"base-learner Linear: loss failed: {said}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_label_that_torch_leaves_out_is_no_mistake():
    learner, rule, theta = start(nn.Linear(3, 3), F.cross_entropy)
    left_out = Batch(INPUTS, labels(0, 1, -100, 2, -100))
    kept = Batch(INPUTS[[0, 1, 3]], labels(0, 1, 2))
    of_both = [adapt(rule, learner, theta, batch, steps=2) for batch in (left_out, kept)]
    torch.testing.assert_close(*of_both)
    with pytest.raises(UsageError, match="targets go up to 3"):
        adapt(rule, learner, theta, Batch(INPUTS, labels(0, 1, -100, 3, -100)), steps=1)


def test_inputs_of_another_dtype_are_told_before_vmap_speaks():
    learner, rule, theta = start(nn.Linear(3, 3), F.cross_entropy)
    with pytest.raises(
        UsageError, match=r"forward failed: inputs are torch\.float64 and the parameters torch"
    ):
        adapt(rule, learner, theta, Batch(INPUTS.double(), labels(0, 1, 2, 0, 1)), steps=1)


class Layer(nn.Module):
    def __init__(self, function, width):
        super().__init__()
        self.layer, self.function = nn.Linear(3, width), function

    def forward(self, x):
        return self.function(self.layer(x))


class Doubled(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return 2 * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 2 * grad


def written_in_place(h):
    y = h.exp()
    squared = y * y
    y.add_(1)
    return squared


TWICE = {
    "cdist": Layer(lambda h: torch.cdist(h, h).mean(1, keepdim=True), 1),
    "ctc": Layer(
        lambda h: F.ctc_loss(
            h.log_softmax(-1).expand(3, 5, 4), labels([1], [1], [1], [1], [1]), (3,) * 5, (1,) * 5,
            reduction="none",
        ).unsqueeze(-1),
        4,
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("case", TWICE)
def test_what_has_no_second_derivative_is_told_to_take_the_first_order_which_works(case):
    batch = Batch(INPUTS, torch.zeros(5, 1))
    learner, rule, theta = start(TWICE[case], F.mse_loss)
    go = functools.partial(meta_gradient, rule, learner, theta, Task(batch, batch), steps=1)
    with pytest.raises(
        UsageError, match=r'the backward pass raised .*take the first order \(order="first"\)$'
    ):
        go(order="second")
    assert go(order="first")[1].isfinite().all()


def test_what_is_written_in_place_is_told_to_make_a_new_tensor():
    batch = Batch(INPUTS, torch.zeros(5, 1))
    learner, rule, theta = start(Layer(written_in_place, 1), F.mse_loss)
    with pytest.raises(UsageError, match=r"the support gradient raised .*inplace.*compute a new tensor"):
        adapt(rule, learner, theta, batch, steps=1)


def test_a_function_that_is_differentiable_once_is_told_the_first_order():
    x = torch.ones(1, requires_grad=True)
    (grad,) = torch.autograd.grad(Doubled.apply(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError) as error:
        grad.sum().backward()
    assert 'order="first"' in remedy(error.value)


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        (lambda p, t: F.mse_loss(p.squeeze(-1), t), 1, torch.randn(5, generator=GENERATOR)),
        (lambda p, t: F.mse_loss(p.view_as(t), t), 4, torch.randn(5, 2, 2, generator=GENERATOR)),
        (F.cross_entropy, 1, torch.zeros(5, dtype=torch.long)),
        (lambda p, t: (p.sigmoid()[:, 0] - t).square().mean(), 1, torch.randn(5, generator=GENERATOR)),
        (lambda p, t: (p - t.unsqueeze(0)).square().mean(), 1, torch.randn(5, generator=GENERATOR)),
        (lambda p, t: torch.cdist(p, t[:, None]).mean(), 1, torch.randn(5, generator=GENERATOR)),
        (lambda p, t: (p.exp() * t - p.mean()).mean(), 2, torch.rand(5, 1, generator=GENERATOR)),
    ],
    ids=["squeezed", "viewed", "one class", "a column", "pairs", "distances", "weights"],
)
def test_a_loss_that_gives_them_one_shape_itself_is_taken(loss, outputs, targets):
    learner, _, theta = start(nn.Linear(3, outputs), loss)
    module = learner.module_at(theta)
    torch.testing.assert_close(learner.loss(theta, Batch(INPUTS, targets)), loss(module(INPUTS), targets))


def test_a_loss_that_is_a_count_is_refused_by_its_kind():
    learner, _, theta = start(nn.Linear(3, 1), lambda p, t: (p > t).sum())
    with pytest.raises(UsageError, match=r"loss must return a floating-point number, got torch.int64"):
        learner.loss(theta, Batch(INPUTS, torch.zeros(5, 1)))


@pytest.mark.parametrize("away", ["theta", "inputs", "targets"])
def test_what_is_on_another_device_is_told_before_anything_is_computed(away):
    """On the meta device, torch itself computes with memory that nobody has written to."""
    learner, rule, theta = start(nn.Linear(3, 1), F.mse_loss)
    given = {"theta": theta, "inputs": INPUTS, "targets": torch.zeros(5, 1)}
    given[away] = given[away].to("meta")
    where = {"theta": r"meta and the examples on cpu", "inputs": "cpu and the examples on meta and cpu"}
    said = where.get(away, "cpu and the examples on cpu and meta")
    batch = Batch(given["inputs"], given["targets"])
    with pytest.raises(UsageError, match=rf"^adapt: theta is on {said}; move them with \.to$"):
        adapt(rule, learner, given["theta"], batch, steps=1)
    with pytest.raises(UsageError, match=r"^adapt: theta is on "):
        meta_gradient(rule, learner, given["theta"], Task(batch, batch), steps=0)
