"""Gradient descent: every optimiser against torch's own, and derivatives where gradients are 0."""

import functools

import pytest
import torch
from torch import nn

from metalearn_core import BaseLearner, Batch, Task, UsageError, adapt, make_rule, meta_gradient, trajectory

double = functools.partial(torch.tensor, dtype=torch.float64)

OPTIMIZERS = {
    "sgd": (torch.optim.SGD, [{}, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
                              {"momentum": 0.8, "nesterov": True}, {"weight_decay": 0.2}]),
    "adam": (torch.optim.Adam, [{}, {"betas": [0.8, 0.9], "eps": 1e-3, "weight_decay": 0.1},
                                {"amsgrad": True}]),
    "adamax": (torch.optim.Adamax, [{}, {"betas": [0.8, 0.9], "eps": 1e-3, "weight_decay": 0.1}]),
    "rmsprop": (torch.optim.RMSprop, [{}, {"alpha": 0.8, "momentum": 0.9, "weight_decay": 0.1},
                                      {"centered": True}, {"centered": True, "momentum": 0.5}]),
    "rprop": (torch.optim.Rprop, [{}, {"etas": [0.4, 1.5], "step_sizes": [1e-3, 0.05]}]),
    "adagrad": (torch.optim.Adagrad, [{}, {"lr_decay": 0.1, "weight_decay": 0.1, "eps": 1e-3},
                                      {"initial_accumulator_value": 0.5}]),
    "adadelta": (torch.optim.Adadelta, [{}, {"rho": 0.7, "eps": 1e-3, "weight_decay": 0.1}]),
    "asgd": (torch.optim.ASGD, [{}, {"lambd": 0.1, "alpha": 0.6, "weight_decay": 0.1, "t0": 2}]),
}  # fmt: skip
CASES = [(name, options) for name, (_, rows) in OPTIMIZERS.items() for options in rows]


def ids(value):
    return "-".join(map(str, value)) or "plain" if isinstance(value, dict) else str(value)


every_optimizer = pytest.mark.parametrize(("optimizer", "options"), CASES, ids=ids)


def network(dead=False):
    """A learner, tasks, and a start. With a last layer of 0, the gradients of the first layer are
    exactly 0 at first and not later; with `dead` units, some are 0 for ever."""
    activation = nn.ReLU() if dead else nn.Tanh()
    module = nn.Sequential(nn.Linear(2, 4), activation, nn.Linear(4, 1)).double()
    learner = BaseLearner(module, nn.functional.mse_loss)
    generator = torch.Generator().manual_seed(3)
    start = learner.layout.unflatten(learner.initial(generator))
    if dead:
        start["0.bias"] = double([-100.0, 0.3, -100.0, 0.5])
    else:
        start["2.weight"] = torch.zeros(1, 4).double()
    tensors = [torch.randn(2, 6, width, generator=generator, dtype=torch.float64) for width in (2, 1, 2, 1)]
    return learner, learner.layout.flatten(start), Task.of(tensors, stacked=True)


@pytest.fixture
def double_scalars():
    """ASGD keeps its step size as a scalar of torch's default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def torchs_own_steps(optimizer, options, learner, theta, support, steps, lr):
    module = learner.module_at(theta)
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    theirs = OPTIMIZERS[optimizer][0](module.parameters(), lr=lr, **kwargs)
    yield theta
    for _ in range(steps):
        theirs.zero_grad()
        nn.functional.mse_loss(module(support.inputs), support.targets).backward()
        theirs.step()
        yield learner.layout.flatten(dict(module.named_parameters())).detach()


@every_optimizer
@pytest.mark.usefixtures("double_scalars")
def test_steps_are_those_of_torch(optimizer, options):
    learner, theta, task = network()
    lr = 1.0 if optimizer == "adadelta" else 0.02
    rule = make_rule("gradient-descent", learner.layout, inner_lr=lr, optimizer=optimizer, **options)
    path = [now for now, _ in trajectory(rule, learner, theta, task.support, steps=6)]
    for i in range(len(task)):
        theirs = torchs_own_steps(optimizer, options, learner, theta, task[i].support, 6, lr)
        ours = (now[i] for now in path)
        torch.testing.assert_close(list(ours), list(theirs), rtol=1e-12, atol=1e-12)
    moved = (path[1][0] != path[0][0])[:12]  # the first layer, whose gradients are 0 at first
    assert not moved.any() or "weight_decay" in options or optimizer == "asgd"
    assert (path[2][0] != path[1][0])[:12].all()


class ComplexScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5 + 0.3j, -0.2 + 1j, 0.1 - 0.4j], dtype=torch.complex128))

    def forward(self, x):
        return x @ self.scale[:, None]


def squared_distance(prediction, target):
    return (prediction - target).abs().square().mean()


@every_optimizer
@pytest.mark.usefixtures("double_scalars")
def test_steps_with_complex_parameters_are_those_of_torch(optimizer, options):
    """Torch updates the real and the imaginary part each for itself."""
    learner = BaseLearner(ComplexScale(), squared_distance)
    theta, generator = learner.initial(torch.Generator()), torch.Generator().manual_seed(0)
    inputs, targets = (torch.randn(4, width, generator=generator, dtype=torch.complex128) for width in (3, 1))
    rule = make_rule("gradient-descent", learner.layout, inner_lr=0.02, optimizer=optimizer, **options)
    ours = [now for now, _ in trajectory(rule, learner, theta, Batch(inputs, targets), steps=4)]
    module = learner.module_at(theta)
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    torchs = OPTIMIZERS[optimizer][0](module.parameters(), lr=0.02, **kwargs)
    for now in ours:
        torch.testing.assert_close(now, module.scale.detach(), rtol=1e-12, atol=1e-12)
        torchs.zero_grad()
        squared_distance(module(inputs), targets).backward()
        torchs.step()


@every_optimizer
@pytest.mark.parametrize("dead", [True, False])
@pytest.mark.parametrize("order", ["first", "second"])
def test_meta_gradients_are_finite_where_support_gradients_are_zero(optimizer, options, dead, order):
    learner, theta, task = network(dead)
    rule = make_rule("gradient-descent", learner.layout, optimizer=optimizer, **options)
    _, grad, _ = meta_gradient(rule, learner, theta, task, steps=3, order=order)
    assert torch.isfinite(grad).all()
    assert grad.any()


SMOOTH_AT_ZERO = [
    ("sgd", {"momentum": 0.9}), ("adam", {"eps": 0.1}), ("adam", {"eps": 0.1, "amsgrad": True}),
    ("adamax", {"eps": 0.1}), ("rmsprop", {"eps": 0.1}),
    ("rmsprop", {"eps": 0.1, "centered": True}), ("adagrad", {"eps": 0.1}),
    ("adadelta", {"eps": 0.1}),
]  # fmt: skip


@pytest.mark.parametrize(("optimizer", "options"), SMOOTH_AT_ZERO, ids=ids)
def test_one_step_from_where_the_gradient_is_zero_has_the_true_derivative(optimizer, options):
    """g/(√v + ε) has the derivative 1/ε at g = 0, though √v has none there."""
    learner = BaseLearner(nn.Linear(2, 1, bias=False).double(), nn.functional.mse_loss)
    x, y = torch.eye(2).double(), double([[1.0], [2.0]])
    theta = double([1.0, 0.5])  # the gradient of the first coordinate is exactly 0
    task = Task.of((x, y, x, y + 1), stacked=False)
    rule = make_rule("gradient-descent", learner.layout, inner_lr=0.1, optimizer=optimizer, **options)

    def outer(start):
        return float(meta_gradient(rule, learner, start, task, steps=1)[0])

    grad, h = meta_gradient(rule, learner, theta, task, steps=1)[1], 1e-7
    for i, e in enumerate(h * torch.eye(2).double()):
        slope = (outer(theta + e) - outer(theta - e)) / (2 * h)
        assert grad[i] == pytest.approx(slope, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("optimizer", [o for o in OPTIMIZERS if o not in ("rprop", "asgd")])
@pytest.mark.parametrize("learn_lr", ["scalar", "tensor", "parameter"])
def test_learned_rates_are_reached(learn_lr, optimizer):
    learner, theta, task = network()
    rule = make_rule(
        "gradient-descent", learner.layout, inner_lr=0.1, learn_lr=learn_lr, optimizer=optimizer
    ).double()
    _, _, phi = meta_gradient(rule, learner, theta, task, steps=3)
    assert {name: tuple(g.shape) for name, g in phi.items()} == {
        "inner_lr": {"scalar": (), "tensor": (4,), "parameter": (17,)}[learn_lr]
    }
    assert torch.isfinite(phi["inner_lr"]).all()
    assert (phi["inner_lr"] != 0).all()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_each_learned_rate_belongs_to_its_parameters(optimizer):
    learner, theta, task = network()

    def moved(learn_lr, rates):
        rule = make_rule("gradient-descent", learner.layout, learn_lr=learn_lr, optimizer=optimizer).double()
        rule.inner_lr.data = rates
        return adapt(rule, learner, theta, task.support, steps=1) - theta

    tensors = double([1.0, 2.0, 3.0, 4.0])
    by_name = {
        name: torch.full(shape, rate).double()
        for name, shape, rate in zip(
            learner.layout.names, learner.layout.shapes, (1.0, 2.0, 3.0, 4.0), strict=True
        )
    }
    coordinates = learner.layout.flatten(by_name)
    once = moved("scalar", torch.ones(()).double())
    torch.testing.assert_close(moved("tensor", tensors), coordinates * once)
    torch.testing.assert_close(moved("parameter", coordinates), coordinates * once)


def test_the_rule_starts_at_the_given_rate():
    layout = network()[0].layout
    for learn_lr in ("scalar", "tensor", "parameter"):
        rule = make_rule("gradient-descent", layout, inner_lr=0.25, learn_lr=learn_lr)
        assert (rule.inner_lr == 0.25).all()
    assert not list(make_rule("gradient-descent", layout, inner_lr=0.25).parameters())
    # a whole number is a rate like any other
    whole = make_rule("gradient-descent", layout, inner_lr=1, learn_lr="scalar")
    assert whole.inner_lr.is_floating_point()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"inner_rl": 0.1}, ["inner_rl"]),
        ({"learn_lr": "tensors"}, ["learn_lr", "'tensors'", "did you mean 'tensor'"]),
        ({"optimizer": "adan"}, ["optimizer", "'adan'", "did you mean 'adam'"]),
        ({"optimizer": "lbfgs"}, ["'lbfgs'", "rprop"]),
        ({"optimizer": "adam", "momentum": 0.9}, ["'adam'", "'momentum'", "amsgrad"]),
        ({"optimizer": "adam", "lr": 0.9}, ["unknown option 'lr': did you mean 'inner_lr'?"]),
        ({"optimizer": "sgd", "maximize": True}, ["'maximize'"]),
        ({"optimizer": "sgd", "fused": True}, ["'fused'"]),
        ({"optimizer": "adam", "betas": [1.5, 0.9]}, ["'adam'", "1.5"]),
        ({"optimizer": "adam", "betas": 0.9}, ["'adam'"]),
        ({"optimizer": "adam", "betas": [0.9]}, ["'adam'"]),
        ({"optimizer": "sgd", "nesterov": True}, ["'sgd'", "momentum"]),
        ({"inner_lr": -0.1}, ["inner_lr", "-0.1"]),
        ({"inner_lr": float("nan")}, ["inner_lr", "nan"]),
        ({"inner_lr": "fast"}, ["inner_lr", "fast"]),
        ({"optimizer": "rprop", "learn_lr": "scalar"}, ["'rprop'", "'scalar'"]),
        ({"optimizer": "asgd", "learn_lr": "parameter"}, ["'asgd'", "'parameter'"]),
    ],
    ids=lambda x: str(x)[:40],
)
def test_a_mistake_is_named(options, said):
    with pytest.raises(UsageError) as error:
        make_rule("gradient-descent", network()[0].layout, **options)
    for part in ("gradient-descent", *said):
        assert part in str(error.value)
