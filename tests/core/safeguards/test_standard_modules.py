"""Torch's standard layers and losses as base-learners: equal to plain autograd task by task, or refused."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from standard_modules import CASES, Case
from torch.func import functional_call

from metalearn_core import BaseLearner, Task, UsageError, forked_rng, make_rule, meta_gradient
from metalearn_core.errors import TrainingWarning

TASKS, SUPPORT, QUERY, STEPS, INNER_LR = 3, 4, 5, 2, 0.1

BATCHED_BY_TORCH = "set learner.use_vmap = False"
"""The remedy of what torch cannot batch, or batches wrongly."""


def draw(case: Case, module: torch.nn.Module, generator: torch.Generator) -> Task:
    """A meta-batch whose targets fit what the module returns."""
    tensors = []
    for count in (SUPPORT, QUERY):
        shape = (TASKS, count, *case.shape)
        if case.tokens:
            inputs = torch.randint(case.tokens, shape, generator=generator)
        else:
            inputs = torch.randn(shape, generator=generator, dtype=torch.float64)
            inputs = inputs.abs() + 0.1 if case.positive else inputs
        with torch.no_grad(), forked_rng(torch.Generator()):
            out = module(inputs[0].clone()).shape[1:]
        like = torch.randn((TASKS, count, *out), generator=generator, dtype=torch.float64)
        labels = torch.randint(3, (TASKS, count), generator=generator)
        tensors += [
            inputs,
            {
                "like": like,
                "positive": like.abs().softmax(-1),
                "binary": (like > 0).double(),
                "signs": (like > 0).double() * 2 - 1,
                "classes": labels,
                "labels": torch.stack([labels, *[torch.full_like(labels, -1)] * 2], -1),
                "sequences": torch.randint(1, 5, (TASKS, count, 2), generator=generator),
            }[case.target],
        ]
    return Task.of(tensors, stacked=True)


def plain_meta_gradient(case, module, parameters, task, order):
    """Two steps of gradient descent and the query loss, one task at a time, by autograd alone."""
    start = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
    losses = []
    for one in range(TASKS):
        inputs, targets, query_inputs, query_targets = (x.clone() for x in task[one].tensors)
        now = start
        for _ in range(STEPS):
            loss = case.loss(functional_call(module, now, (inputs,)), targets)
            grads = torch.autograd.grad(
                loss, list(now.values()), create_graph=order == "second", allow_unused=True
            )
            now = {
                name: value if grad is None else value - INNER_LR * grad
                for (name, value), grad in zip(now.items(), grads, strict=True)
            }
        losses.append(case.loss(functional_call(module, now, (query_inputs,)), query_targets))
    loss = torch.stack(losses).mean()
    grads = torch.autograd.grad(loss, list(start.values()), allow_unused=True)
    flat = [
        (torch.zeros_like(p) if g is None else g).flatten()
        for g, p in zip(grads, start.values(), strict=True)
    ]
    return loss.detach(), torch.cat(flat)


def made(name):
    case, generator = CASES[name], torch.Generator().manual_seed(3)
    with forked_rng(generator):
        module = case.make().double()
    learner = BaseLearner(module, case.loss)
    return case, module, learner, draw(case, module, generator)


def both(case, module, learner, task, order):
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    theta = learner.layout.flatten({name: p.detach() for name, p in parameters.items()})
    rule = make_rule("gradient-descent", learner.layout, inner_lr=INNER_LR).double()
    before = [x.clone() for x in task.tensors]
    found = meta_gradient(rule, learner, theta, task, steps=STEPS, order=order)[:2]
    assert all(map(torch.equal, task.tensors, before))
    return found, plain_meta_gradient(case, module, parameters, task, order)


RUNNING = [f"BatchNorm{n}d-running" for n in (1, 2, 3)]
IN_TURN = ["LSTMCell", "RNN", "LSTM", "GRU", "LSTM-two-layers", "RReLU-eval"]
"""What torch cannot batch, so that the tasks are taken one after the other by themselves."""
NOT_BATCHED = ["GaussianNLLLoss"]
NO_SECOND_ORDER = {
    "EmbeddingBag-mean": "_embedding_bag_backward",
    "EmbeddingBag-sum": "_embedding_bag_backward",
    "EmbeddingBag-max": "_embedding_bag_backward",
    "EmbeddingBag-padding": "_embedding_bag_backward",
    "TransformerEncoderLayer": "sdpa_kernel",
    "TransformerEncoder": "sdpa_kernel",
    "TransformerDecoderLayer": "sdpa_kernel",
    "Hardsigmoid": "hardsigmoid_backward",
    "MultiMarginLoss": "multi_margin_loss_backward",
    "MultiLabelMarginLoss": "multilabel_margin_loss_backward",
    "CTCLoss": "_ctc_loss_backward",
}
REFUSED = [
    *RUNNING, *NOT_BATCHED, "spectral_norm", "ReLU-inplace-on-inputs", "RReLU", "CrossMapLRN2d",
    "Embedding-max-norm", "FractionalMaxPool2d",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _slow_is_not_wrong():
    with warnings.catch_warnings():
        # torch batches a few operations by a loop of its own
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield


def require_equal(case, module, learner, task, order):
    found, expected = both(case, module, learner, task, order)
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)


def refusal(name, order):
    with pytest.raises(UsageError) as caught:
        both(*made(name), order)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_there_are_a_hundred_and_more():
    assert len(CASES) >= 100
    assert {*REFUSED, *NO_SECOND_ORDER} <= CASES.keys()


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("name", [name for name in CASES if name not in (*REFUSED, *IN_TURN)])
def test_equal_to_autograd_task_by_task(name, order):
    if order == "second" and name in NO_SECOND_ORDER:
        assert NO_SECOND_ORDER[name] in refusal(name, order)  # the remedy is the first order, the other case
    else:
        require_equal(*made(name), order)


@pytest.mark.parametrize("name", [n for n, sign in NO_SECOND_ORDER.items() if sign == "sdpa_kernel"])
def test_attention_has_a_second_order_with_the_kernel_that_is_named(name):
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        require_equal(*made(name), "second")


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("name", IN_TURN)
def test_what_torch_cannot_batch_is_taken_task_after_task_by_itself(name, order):
    """One line says so, once; what comes later is as silent as ever."""
    case, module, learner, task = made(name)
    with pytest.warns(TrainingWarning) as told:
        require_equal(case, module, learner, task, order)
    assert len(told) == 1
    assert "cannot batch aten::" in str(told[0].message)
    assert "\n" not in str(told[0].message)
    assert not learner.use_vmap
    require_equal(case, module, learner, task, order)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("name", NOT_BATCHED)
def test_what_is_wrong_in_a_batch_alone_is_right_task_after_task(name, order):
    told = refusal(name, order)
    assert BATCHED_BY_TORCH in told or "data-dependent" in told
    case, module, learner, task = made(name)
    learner.use_vmap = False
    require_equal(case, module, learner, task, order)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize(
    ("name", "who", "advice", "remedy"),
    [
        *((name, name.split("-")[0], ".eval()", torch.nn.Module.eval) for name in RUNNING),
        ("spectral_norm", "_SpectralNorm", ".eval()", torch.nn.Module.eval),
        (
            "ReLU-inplace-on-inputs",
            "ReLU '0'",
            "inplace=False",
            lambda module: torch.nn.Sequential(torch.nn.ReLU(), module[1]),
        ),
        ("Embedding-max-norm", "Embedding", "max_norm", lambda module: torch.nn.Embedding(7, 3).double()),
    ],
)
def test_what_is_not_pure_is_refused_with_a_remedy_that_works(name, who, advice, remedy, order):
    told = refusal(name, order)
    assert who in told
    assert advice in told
    case = CASES[name]
    with forked_rng(torch.Generator()):
        module = remedy(case.make().double())
    learner, generator = BaseLearner(module, case.loss), torch.Generator().manual_seed(3)
    require_equal(case, module, learner, draw(case, module, generator), order)


@pytest.mark.parametrize("name", ["RReLU", "FractionalMaxPool2d", "CrossMapLRN2d"])
def test_what_is_random_or_has_no_derivative_in_torch_is_refused(name):
    assert re.search("random|rrelu|autograd.Function", refusal(name, "first"))


def test_a_module_that_draws_random_numbers_is_refused_task_after_task_as_well():
    case, module, learner, task = made("RReLU")
    learner.use_vmap = False
    with pytest.raises(UsageError, match=r"asked twice .* random numbers"):
        both(case, module, learner, task, "first")
