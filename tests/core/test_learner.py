"""A module as a pure function of one vector: layout, initialisation, prediction, loss and score."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

from metalearn_core import BaseLearner, Batch, ParameterLayout, UsageError, forked_rng

SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), max_size=5).map(tuple)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def data(n: int = 4) -> Batch:
    return Batch(torch.rand(n, 2, generator=seeded(1)), torch.rand(n, 1, generator=seeded(2)))


def one_line(*parts: str):
    return pytest.raises(UsageError, match=r"\A[^\n]*" + r"[^\n]*".join(parts) + r"[^\n]*\Z")


@given(SHAPES, st.lists(st.integers(1, 3), max_size=2))
def test_flatten_and_unflatten_undo_each_other(shapes, lead):
    layout = ParameterLayout(tuple(f"p{i}" for i in range(len(shapes))), shapes)
    assert layout.size == sum(math.prod(shape) for shape in shapes)
    theta = torch.rand(*lead, layout.size)
    parts = layout.unflatten(theta)
    assert {name: tuple(part.shape) for name, part in parts.items()} == {
        name: (*lead, *shape) for name, shape in zip(layout.names, shapes, strict=True)
    }
    joined = [theta[..., :0], *(part.reshape(*lead, -1) for part in parts.values() if part.numel())]
    assert torch.equal(torch.cat(joined, -1), theta)  # in order, every coordinate once
    if not lead:
        backwards = dict(reversed(parts.items()))  # by name, in whatever order they come
        assert torch.equal(layout.flatten(backwards), theta)


def test_layout_is_the_trainable_parameters_in_the_modules_order():
    module = network()
    module[0].bias.requires_grad_(False)
    module.register_buffer("scale", torch.ones(5))
    layout = ParameterLayout.of(module)
    assert layout == ParameterLayout(("0.weight", "2.weight", "2.bias"), ((3, 2), (1, 3), (1,)))
    assert (layout.size, layout.sizes) == (10, [6, 3, 1])


def test_every_coordinate_has_an_owner():
    layout = ParameterLayout(("a", "none", "b", "c"), ((2, 2), (0,), (), (3,)))
    assert layout.owner.tolist() == [0] * 4 + [2] + [3] * 3
    assert ParameterLayout((), ()).owner.shape == (0,)


def test_unflatten_differentiates():
    layout = ParameterLayout(("a", "b"), ((2,), ()))
    theta = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    parts = layout.unflatten(theta)
    (grad,) = torch.autograd.grad((parts["a"] ** 2).sum() * parts["b"], theta)
    assert torch.equal(grad, torch.tensor([6.0, 12.0, 5.0]))


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"a": torch.zeros(2)}, [r"expected .*'a': .*'b':", r"got {'a': \(2,\)}"]),
        ({"a": torch.zeros(2), "b": torch.zeros(()), "c": torch.zeros(1)}, ["'c'"]),
        ({"a": torch.zeros(3), "b": torch.zeros(())}, [r"expected .*'a': \(2,\)", r"got .*'a': \(3,\)"]),
        (torch.zeros(4), ["3 coordinates", r"\(4,\)"]),
        (torch.zeros(3, 2), ["3 coordinates", r"\(3, 2\)"]),
        (torch.zeros(()), ["3 coordinates", r"\(\)"]),
    ],
)
def test_what_does_not_fit_the_layout_is_refused(given, parts):
    layout = ParameterLayout(("a", "b"), ((2,), ()))
    with one_line("ParameterLayout", *parts):
        (layout.flatten if isinstance(given, dict) else layout.unflatten)(given)


class Affine(nn.Module):
    """A scalar weight to adapt, a frozen offset, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.offset = nn.Parameter(torch.tensor([3.0]), requires_grad=False)
        self.register_buffer("scale", torch.tensor([5.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * (self.weight * x + self.offset)


def test_frozen_parameters_and_buffers_are_constants_outside_theta():
    learner = BaseLearner(Affine(), mse_loss)
    assert learner.layout == ParameterLayout(("weight",), ((),))
    theta = torch.tensor([7.0], requires_grad=True)
    prediction = learner.predict(theta, torch.tensor([[1.0], [2.0]]))
    assert torch.equal(prediction, torch.tensor([[50.0], [85.0]]))
    (grad,) = torch.autograd.grad(prediction.sum(), theta)
    assert torch.equal(grad, torch.tensor([15.0]))
    assert torch.equal(learner.initial(seeded()), torch.tensor([2.0]))  # nothing to reset


def test_predict_is_the_module_with_its_parameters_loaded():
    learner, other, inputs = BaseLearner(network(), mse_loss), network(), data().inputs
    theta = learner.layout.flatten({k: v.detach() for k, v in other.named_parameters()})
    assert torch.equal(learner.predict(theta, inputs), other(inputs))
    assert torch.equal(learner.module_at(theta)(inputs), other(inputs))
    halves = torch.stack([theta, theta / 2])
    together = torch.func.vmap(learner.predict, (0, None))(halves, inputs)
    for one, row in zip(halves, together, strict=True):
        torch.testing.assert_close(row, learner.module_at(one)(inputs))


def test_the_module_passed_in_is_never_written_to_nor_read_again():
    module = network()
    module[2].bias.requires_grad_(False)
    before, state = [p.grad for p in module.parameters()], copy.deepcopy(module.state_dict())
    learner = BaseLearner(module, mse_loss, initialise=lambda m: nn.init.ones_(m[0].weight))
    theta = learner.initial(seeded()).requires_grad_()
    value = learner.loss(theta, data())
    value.backward()
    learner.module_at(theta)[0].weight.data.zero_()
    learner.to("cpu", torch.float64).initial(seeded())
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    assert [p.grad for p in module.parameters()] == before
    module[0].weight.data.zero_()
    module[2].bias.data.add_(1)
    module[2].weight.requires_grad_(False)
    assert torch.equal(learner.loss(theta, data()), value)
    assert learner.layout.names == ("0.weight", "0.bias", "2.weight")


def test_module_at_is_a_copy_of_its_own():
    learner = BaseLearner(network(), mse_loss)
    theta = torch.arange(learner.layout.size).float()
    first, second = learner.module_at(theta), learner.module_at(theta)
    first[0].weight.data.zero_()
    named = {k: v.detach() for k, v in second.named_parameters()}
    assert torch.equal(learner.layout.flatten(named), theta)
    assert torch.equal(theta, torch.arange(learner.layout.size).float())


def test_initial_is_decided_by_the_generator_alone():
    learner, before = BaseLearner(network(), mse_loss), torch.get_rng_state()
    first = learner.initial(seeded(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(learner.initial(seeded(3)), first)
    assert torch.equal(BaseLearner(network(), mse_loss).initial(seeded(3)), first)
    assert not torch.equal(learner.initial(seeded(4)), first)
    stream = seeded(3)
    assert torch.equal(learner.initial(stream), first)
    assert not torch.equal(learner.initial(stream), first)  # it moves on


def test_forked_rng_puts_the_global_generator_back_even_after_an_error():
    drawn, before = [], torch.get_rng_state()

    def draw_and_fail() -> None:
        with forked_rng(seeded()):
            drawn.append(torch.rand(3))
            raise ArithmeticError

    for _ in range(2):
        with pytest.raises(ArithmeticError):
            draw_and_fail()
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*drawn)


def test_initial_draws_every_reset_parameters_or_calls_initialise():
    bound = 1 / math.sqrt(2)
    theta = BaseLearner(network(), mse_loss).initial(seeded())
    assert theta[:9].abs().max() <= bound  # nn.Linear(2, 3), as torch draws it
    assert len(theta.unique()) == len(theta)

    def fill(module: nn.Module) -> None:
        for parameter in module.parameters():
            nn.init.constant_(parameter, 0.25)

    learner = BaseLearner(network(), mse_loss, initialise=fill)
    assert torch.equal(learner.initial(seeded()), torch.full((13,), 0.25))
    again = learner.with_module(nn.Linear(2, 1)).to("cpu", torch.float64).initial(seeded())
    assert torch.equal(again, torch.full((3,), 0.25, dtype=torch.float64))


def accuracy(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (prediction.argmax(-1) == target).float().mean()


def mean_absolute(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (prediction - target).abs().mean()


mean_absolute.higher_is_better = False


def test_loss_and_score_are_means_over_a_batch():
    learner = BaseLearner(nn.Linear(1, 1), mse_loss, mean_absolute)
    theta = torch.tensor([2.0, 1.0])
    batch = Batch(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [0.0]]))
    assert float(learner.loss(theta, batch)) == (1 + 9) / 2
    assert float(learner.score(theta, batch)) == (1 + 3) / 2
    assert learner.loss(theta, batch).shape == ()


@pytest.mark.parametrize(
    ("score", "higher"), [(None, False), (mse_loss, False), (accuracy, True), (mean_absolute, False)]
)
def test_higher_is_better(score, higher):
    learner = BaseLearner(network(), mse_loss, score)
    copies = (learner.to("cpu", torch.float64), learner.with_module(nn.Linear(2, 1)))
    assert [one.higher_is_better for one in (learner, *copies)] == [higher] * 3
    if score is None:
        theta = learner.initial(seeded())
        assert torch.equal(learner.score(theta, data()), learner.loss(theta, data()))


def test_class_labels_beside_scores():
    learner = BaseLearner(nn.Linear(2, 3), nn.functional.cross_entropy, accuracy)
    theta = learner.initial(seeded())
    batch = Batch(data().inputs, torch.tensor([0, 1, 2, 1]))
    expected = accuracy(learner.module_at(theta)(batch.inputs), batch.targets)
    assert torch.equal(learner.score(theta, batch), expected)
    assert learner.loss(theta, batch).ndim == 0


@pytest.mark.parametrize(("outputs", "targets"), [(1, (4,)), (4, (4, 2, 2)), (1, (4, 1, 1))])
def test_targets_that_would_broadcast_in_silence_are_refused(outputs, targets):
    learner = BaseLearner(nn.Linear(2, outputs), mse_loss)
    batch = Batch(data().inputs, torch.zeros(targets))
    for criterion in (learner.loss, learner.score):
        with one_line(rf"\(4, {outputs}\)", str(targets).replace("(", r"\(").replace(")", r"\)")):
            criterion(learner.initial(seeded()), batch)


@pytest.mark.parametrize("name", ["loss", "score"])
def test_a_criterion_that_is_no_mean_is_refused(name):
    each = nn.MSELoss(reduction="none")
    learner = BaseLearner(network(), each) if name == "loss" else BaseLearner(network(), mse_loss, each)
    with one_line(name, "one number", r"\(4, 1\)"):
        getattr(learner, name)(learner.initial(seeded()), data())


@pytest.mark.parametrize("number", [1.0, None])
def test_a_criterion_that_is_no_tensor_is_refused(number):
    learner = BaseLearner(network(), lambda prediction, target: number)
    with one_line("loss must return one number", f"got {number}"):
        learner.loss(learner.initial(seeded()), data())


def test_what_is_no_module_is_refused():
    with one_line("BaseLearner: module must be a Module, got a function"):
        BaseLearner(mse_loss, mse_loss)


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout2d, nn.AlphaDropout])
def test_dropout_is_refused_with_the_remedy(kind):
    with one_line(f"{kind.__name__} '1'", r"\.eval\(\)"):
        BaseLearner(normalised(kind()), mse_loss)
    BaseLearner(normalised(kind(p=0)), mse_loss)
    BaseLearner(normalised(kind()).eval(), mse_loss)


def normalised(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 3, 1), norm)


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.SyncBatchNorm, nn.InstanceNorm1d])
def test_running_statistics_are_refused_with_the_remedy(kind):
    module = normalised(kind(3, track_running_stats=True))
    with one_line(f"{kind.__name__} '1'", r"track_running_stats=False", r"\.eval\(\)"):
        BaseLearner(module, mse_loss)
    with one_line(kind.__name__):
        BaseLearner(nn.Conv1d(1, 3, 1), mse_loss).with_module(module)


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.InstanceNorm1d])
@pytest.mark.parametrize("mode", ["batch statistics", "eval"])
def test_norms_that_keep_nothing_work_under_vmap(kind, mode):
    norm = kind(3, track_running_stats=mode == "eval", affine=True)
    if mode == "eval":
        norm.running_mean.fill_(2.0)
    module = normalised(norm).train()
    if mode == "eval":
        norm.eval()
    learner = BaseLearner(module, mse_loss)
    thetas = torch.stack([learner.initial(seeded(i)) for i in range(2)])
    inputs = torch.rand(5, 1, 4, generator=seeded())
    together = torch.func.vmap(learner.predict, (0, None))(thetas, inputs)
    for theta, row in zip(thetas, together, strict=True):
        torch.testing.assert_close(row, learner.module_at(theta)(inputs))
    assert torch.equal(learner.predict(thetas[0], inputs), learner.predict(thetas[0], inputs))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(torch.tanh(self.encode(x)))


@pytest.mark.parametrize("frozen", [False, True])
def test_tied_weights_are_one_and_stay_tied(frozen):
    module = nn.Sequential(Tied(), nn.Linear(2, 1))
    module[0].encode.weight.requires_grad_(not frozen)
    learner = BaseLearner(module, mse_loss)
    assert learner.layout.size == 3 + (0 if frozen else 4)
    theta = torch.arange(1.0, learner.layout.size + 1, requires_grad=True)
    inputs = data().inputs
    at = learner.module_at(theta)
    assert at[0].decode.weight is at[0].encode.weight
    torch.testing.assert_close(learner.predict(theta, inputs), at(inputs))
    (grad,) = torch.autograd.grad(learner.loss(theta, data()), theta)
    mse_loss(at(inputs), data().targets).backward()
    expected = [p.grad.flatten() for p in at.parameters() if p.requires_grad]
    torch.testing.assert_close(grad, torch.cat(expected))


def test_to_changes_type_and_nothing_else():
    learner = BaseLearner(network(), mse_loss, mean_absolute)
    double = learner.to("cpu", torch.float64)
    assert (learner.dtype, double.dtype, double.device.type) == (torch.float32, torch.float64, "cpu")
    assert double.layout == learner.layout
    theta = learner.initial(seeded()).double()
    batch = Batch(data().inputs.double(), data().targets.double())
    torch.testing.assert_close(double.loss(theta, batch).float(), learner.loss(theta.float(), data()))


def test_a_module_without_parameters_is_a_learner_of_size_zero():
    learner = BaseLearner(nn.Identity(), mse_loss)
    theta = learner.initial(seeded())
    assert (learner.layout.size, theta.shape, learner.device.type) == (0, (0,), "cpu")
    assert torch.equal(learner.predict(theta, torch.ones(2, 1)), torch.ones(2, 1))
