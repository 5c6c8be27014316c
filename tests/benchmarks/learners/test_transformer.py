"""The transformer: against torch's own encoder with the same weights, to second derivatives, in float64."""

from __future__ import annotations

import functools

import plain_loop
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from metalearn_benchmarks.learners.transformer import Attention
from metalearn_core import (
    Batch,
    CompiledMetaGradient,
    Task,
    UsageError,
    adapt,
    base_learners,
    make_rule,
    meta_gradient,
    task_families,
)
from metalearn_core.kernels.programs import traced
from metalearn_core.training.meta_gradient import meta_gradients

close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)
SMALL = {"features": 3, "length": 4, "width": 8, "heads": 2, "layers": 2}


def made(seed=0, **options):
    learner = base_learners()["transformer"](**{**SMALL, **options}).to("cpu", torch.float64)
    return learner, learner.initial(torch.Generator().manual_seed(seed))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Twin(nn.Module):
    """The same network of torch's own layers, with the weights that `take` gives it."""

    def __init__(self, causal):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(8), enable_nested_tensor=False)
        self.embedding, self.head, self.causal = nn.Linear(3, 8), nn.Linear(8, 1), causal
        self.positions = nn.Parameter(torch.zeros(4, 8))

    def take(self, ours):
        own = {
            "embedding": ours.embedding, "head": ours.head, "encoder.norm": ours.norm,
            **{
                f"encoder.layers.{i}.{theirs}": part
                for i, block in enumerate(ours.blocks)
                for theirs, part in {
                    "self_attn.out_proj": block.attention.out, "norm1": block.attention_norm,
                    "norm2": block.network_norm, "linear1": block.network[0], "linear2": block.network[2],
                }.items()
            },
        }  # fmt: skip
        state = {f"{at}.{name}": x for at, part in own.items() for name, x in part.state_dict().items()}
        for i, block in enumerate(ours.blocks):
            parts = [block.attention.query, block.attention.key, block.attention.value]
            for name in ("weight", "bias"):
                joined = torch.cat([getattr(part, name) for part in parts])
                state[f"encoder.layers.{i}.self_attn.in_proj_{name}"] = joined
        self.load_state_dict({**state, "positions": ours.positions.weight})

    def forward(self, x, present=None):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        hidden = None if present is None else torch.zeros(present.shape, dtype=x.dtype).masked_fill(
            ~present, -torch.inf
        )  # fmt: skip
        with sdpa_kernel(SDPBackend.MATH):
            return self.encoder(
                self.embedding(x) + self.positions[: x.shape[1]], mask if self.causal else None, hidden
            )


def twin(learner, theta, causal):
    module = Twin(causal).double()
    module.take(learner.module_at(theta))
    return module


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [4, 3])
def test_it_is_torchs_encoder(length, causal, pooling):
    learner, theta = made(causal=causal, pooling=pooling)
    x, theirs = drawn(5, length, 3), twin(learner, theta, causal)
    states = theirs(x)
    close(learner.predict(theta, x), theirs.head(states[:, -1] if pooling == "last" else states.mean(1)))


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("causal", [False, True])
def test_padding_is_not_looked_at(causal, pooling):
    """As torch's own padding mask has it, and as the sequence alone, whatever stands in the padding."""
    learner, theta = made(causal=causal, pooling=pooling)
    x, present = drawn(3, 4, 3), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]).bool()
    found = learner.module_at(theta)({"sequence": x, "present": present})
    states = twin(learner, theta, causal)(x, present)
    for row, kept in enumerate(present.sum(1).tolist()):
        alone = learner.predict(theta, x[row : row + 1, :kept])
        close(found[row : row + 1], alone)
        read = states[row, kept - 1] if pooling == "last" else states[row, :kept].mean(0)
        close(found[row], learner.module_at(theta).head(read))
    other = torch.where(present.unsqueeze(-1), x, 9.0)
    close(learner.module_at(theta)({"sequence": other, "present": present}), found)


@pytest.mark.parametrize("present", [None, torch.tensor([[True, True, False], [True, True, True]])])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_has_exact_second_derivatives(causal, present):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attention = Attention(4, 2, causal).double()
    names, weights = zip(*attention.named_parameters(), strict=True)

    def answer(x, *values):
        return torch.func.functional_call(attention, dict(zip(names, values, strict=True)), (x, present))

    given = (drawn(2, 3, 4).requires_grad_(), *(w.detach().requires_grad_() for w in weights))
    assert torch.autograd.gradcheck(answer, given)
    assert torch.autograd.gradgradcheck(answer, given)


def test_the_whole_has_exact_second_derivatives():
    learner, theta = made(width=4, layers=1)
    x = drawn(2, 4, 3)
    assert torch.autograd.gradgradcheck(lambda theta: learner.predict(theta, x), theta.requires_grad_())


@pytest.mark.parametrize("order", ["first", "second"])
def test_its_meta_gradients_are_those_of_a_plain_loop(order):
    learner, theta = made()
    net = plain_loop.Net(learner.module, nn.functional.mse_loss, (4, 3))
    rule = make_rule("gradient-descent", learner.layout, inner_lr=0.1, learn_lr="tensor").double()
    found = meta_gradient(rule, learner, theta, net.task(), steps=2, order=order)
    close(found, plain_loop.meta_gradient(rule, net, theta, net.task(), 2, order))
    ends = adapt(rule, learner, theta, net.task().support, steps=2, order=order)
    for end, task in zip(ends, net.task(), strict=True):
        close(end, plain_loop.adapted(rule, net, theta, *task.tensors[:2], 2, order))


def test_seeds_together_are_each_alone():
    learner, theta = made()
    task = plain_loop.Net(learner.module, nn.functional.mse_loss, (4, 3)).task()
    rule = make_rule("gradient-descent", learner.layout, inner_lr=0.1, learn_lr="scalar").double()
    thetas, rates = torch.stack([theta, made(1)[1]]), torch.tensor([0.1, 0.2], dtype=torch.float64)
    losses, grads, phi = meta_gradients(rule, learner, thetas, {"inner_lr": rates}, task, steps=2)
    for seed in range(2):
        with torch.no_grad():
            rule.inner_lr.copy_(rates[seed])
        alone = meta_gradient(rule, learner, thetas[seed], task, steps=2)
        close((losses[seed], grads[seed], {"inner_lr": phi["inner_lr"][seed]}), alone)


def test_what_is_compiled_is_the_eager_step():
    learner, theta = made(layers=1)
    task = plain_loop.Net(learner.module, nn.functional.mse_loss, (4, 3)).task()
    rule = make_rule("partial", learner.layout, inner_lr=0.1, learn_lr="scalar").double()
    step = CompiledMetaGradient(rule, learner, steps=1)
    given = [next(rule.parameters()).detach(), *task.tensors]
    program = traced(functools.partial(step._traced, task), [torch.zeros_like(theta), *given])
    loss, grad, phi = meta_gradient(rule, learner, theta, task, steps=1)
    for one, another in zip(program(theta, *given), (loss, grad, *phi.values()), strict=True):
        close(one, another)


def test_it_reads_tokens():
    """A class for each sequence; a token's vector is all that is known of it."""
    learner, theta = made(tokens=7, outputs=3, loss="cross-entropy")
    tokens = torch.tensor([[1, 2, 3, 4], [6, 0, 0, 5]])
    prediction = learner.predict(theta, tokens)
    assert prediction.shape == (2, 3)
    parts = learner.layout.unflatten(theta)
    swapped = parts["embedding.weight"].clone()
    swapped[[1, 6]] = swapped[[6, 1]]
    renamed = learner.layout.flatten({**parts, "embedding.weight": swapped})
    close(learner.predict(renamed, torch.tensor([[6, 2, 3, 4], [1, 0, 0, 5]])), prediction)
    assert learner.score_name == "accuracy"
    assert learner.higher_is_better


def test_padded_sequences_in_a_meta_batch_are_each_task_alone_without_its_padding():
    """Tasks whose sequences are all of one length, another one in each task."""
    learner, theta = made(tokens=7, outputs=3, loss="cross-entropy", causal=True)
    rule = make_rule("gradient-descent", learner.layout, inner_lr=0.1).double()
    tokens = torch.randint(7, (2, 9, 4), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(18).reshape(2, 9) % 3
    lengths = (2, 3)
    present = torch.stack([(torch.arange(4) < length).expand(9, 4) for length in lengths])

    def part(which):
        return Batch({"sequence": tokens[:, which], "present": present[:, which]}, labels[:, which])

    together = Task(part(slice(4)), part(slice(4, 9)), stacked=True)
    found = meta_gradient(rule, learner, theta, together, steps=2)
    alone = []
    for index, length in enumerate(lengths):
        cut = [(tokens[index, which, :length], labels[index, which]) for which in (slice(4), slice(4, 9))]
        task = Task(*(Batch(*each) for each in cut))
        alone.append(meta_gradient(rule, learner, theta, task, steps=2))
    close(found[0], (alone[0][0] + alone[1][0]) / 2)
    close(found[1], (alone[0][1] + alone[1][1]) / 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": 3}, "heads must divide the width, got 3 heads and a width of 8"),
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"tokens": -1}, "tokens must be an integer >= 0, got -1"),
        ({"pooling": "max"}, "unknown pooling 'max'"),
        ({"loss": "absolute"}, "unknown loss 'absolute'"),
        ({"width": 100_000}, "and the most is 1,000,000,000"),
        ({"hidden": 3}, "unknown option 'hidden'"),
    ],
    ids=str,
)
def test_a_mistake_is_named(options, said):
    with pytest.raises(UsageError, match=said):
        made(**options)


@pytest.mark.parametrize(
    ("options", "inputs", "said"),
    [
        (
            {},
            torch.zeros(2, 5, 3),
            r"made for sequences of 4 positions got one of 5; give it a larger length",
        ),
        ({}, torch.zeros(2, 4, 2), r"made for numbers \[n, 4, 3\] got torch.float64 \[2, 4, 2\]"),
        ({}, torch.zeros(2, 4), r"made for numbers \[n, 4, 3\] got torch.float64 \[2, 4\]"),
        ({"tokens": 7}, torch.zeros(2, 4), r"made for tokens \(int64\) \[n, 4\] got torch.float64 \[2, 4\]"),
    ],
    ids=["longer", "features", "flat", "numbers"],
)
def test_sequences_that_do_not_fit_are_named(options, inputs, said):
    learner, theta = made(**options)
    with pytest.raises(UsageError, match=said):
        learner.predict(theta, inputs.double())


# The family of sequences


def test_the_sequences_of_a_task_share_its_frequency_and_nothing_else():
    """Where ω is right, A sin(ωx) + B cos(ωx) goes through all points of each sequence, the target too."""
    family = task_families()["in-context-sine"](support=3, query=2, context=6)
    task = family.sample("train", 4, torch.Generator().manual_seed(0))
    assert task.support.inputs.shape == (4, 3, 7, 3)
    assert task.query.targets.shape == (4, 2, 1)
    inputs = torch.cat([task.support.inputs, task.query.inputs], 1).double()
    targets = torch.cat([task.support.targets, task.query.targets], 1).double()
    x, y, asked = inputs.unbind(-1)
    assert torch.equal(asked, torch.tensor([0.0] * 6 + [1.0]).double().expand(4, 5, 7))
    assert not y[..., -1].any()
    y = torch.cat([y[..., :-1], targets], -1)
    frequencies = torch.linspace(0.5, 2.5, 2001, dtype=torch.float64)
    waves = torch.stack([f(frequencies[:, None, None, None] * x) for f in (torch.sin, torch.cos)], -1)
    found = torch.linalg.lstsq(waves, y.unsqueeze(-1).expand(2001, 4, 5, 7, 1)).solution
    away = (waves @ found - y.unsqueeze(-1)).abs().amax((-2, -1))  # [frequencies, tasks, sequences]
    best = frequencies[away.amax(-1).argmin(0)]
    assert away.amax(-1).amin(0).max() < 5e-3
    assert best.unique().numel() == 4
    amplitudes = found.squeeze(-1).norm(dim=-1)[away.amax(-1).argmin(0), torch.arange(4)]
    assert (amplitudes > 0.45).all()
    assert (amplitudes < 2.05).all()
    assert amplitudes.std(1).min() > 0.1


def test_the_family_is_one_like_any_other():
    family = task_families()["in-context-sine"](support=3, query=2, context=6, example_tasks=10)
    draws = [family.sample("test", 2, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert all(map(torch.equal, *(draw.tensors for draw in draws)))
    assert family.examples("train").inputs.shape == (50, 7, 3)
    assert not torch.equal(family.examples("train").inputs, family.examples("test").inputs)
    with pytest.raises(UsageError, match="unknown split"):
        family.sample("dev", 1, torch.Generator())
    with pytest.raises(UsageError, match="context must be an integer >= 1, got 0"):
        task_families()["in-context-sine"](context=0)
