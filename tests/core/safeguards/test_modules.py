"""Modules that no base-learner can be made of are named with a remedy, and every remedy is one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.utils import parametrizations, parametrize

from metalearn_core import (
    BaseLearner,
    Settings,
    UsageError,
    keep_parameters,
    make_rule,
    meta_gradient,
    meta_train,
)
from metalearn_core.testing import TinySines

TASK = TinySines().sample("train", 2, torch.Generator().manual_seed(0))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gradient(module, order="second"):
    learner = BaseLearner(module, mse_loss)
    rule = make_rule("gradient-descent", learner.layout)
    return meta_gradient(rule, learner, learner.initial(seeded()), TASK, steps=1, order=order)[1]


def encoder(**options):
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, **options)
    return nn.Sequential(nn.Linear(1, 8), nn.Unflatten(1, (2, 4)), layer, nn.Flatten(), nn.Linear(8, 1))


def part_in_eval(module, path):
    module.get_submodule(path).eval()
    return module


WITHOUT_DROPOUT = encoder(dropout=0.0)


REFUSED = {
    "dropout": (
        lambda: nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)),
        r"Dropout '1' would draw another mask.*p=0, or call \.eval\(\) on it alone",
        lambda: part_in_eval(nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)), "1"),
    ),
    "attention": (
        encoder,
        r"MultiheadAttention '2\.self_attn' would draw another mask.*with dropout=0",
        lambda: WITHOUT_DROPOUT,
    ),
    "recurrent": (lambda: nn.LSTM(1, 1, 2, dropout=0.5), r"LSTM '' would draw .*with dropout=0", None),
    "old weight norm": (
        lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(1, 1))),
        r"Linear '0' has the old torch\.nn\.utils\.weight_norm.*torch\.nn\.utils\.parametrizations\.weight",
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(1, 1))),
    ),
    "old spectral norm": (
        lambda: nn.utils.spectral_norm(nn.Linear(1, 1)),
        r"Linear '' has the old torch\.nn\.utils\.spectral_norm.*parametrizations\.spectral_norm, and.*eval",
        lambda: parametrizations.spectral_norm(nn.Linear(1, 1)).eval(),
    ),
    "spectral norm": (
        lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(1, 1))),
        r"_SpectralNorm '0\.parametrizations\.weight\.0' would go on with its power iteration.*\.eval\(\)",
        lambda: part_in_eval(
            nn.Sequential(parametrizations.spectral_norm(nn.Linear(1, 1))), "0.parametrizations.weight.0"
        ),
    ),
    "no shape": (
        lambda: nn.Sequential(nn.LazyLinear(1)),
        r"parameter '0\.weight' has no shape yet; call the module once on example inputs",
        None,
    ),
    "two dtypes": (
        lambda: nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1).double()),
        r"the parameters must have one dtype.*0\.weight' of torch\.float32 and '1\.weight' of torch\.float64",
        None,
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:There is a performance drop")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_named_and_the_remedy_works(case):
    wrong, said, right = REFUSED[case]
    with pytest.raises(UsageError, match=f"^BaseLearner: {said}") as error:
        BaseLearner(wrong(), mse_loss)
    assert "\n" not in str(error.value)
    if right is not None:
        assert gradient(right(), order="first").isfinite().all()


def test_a_module_that_cannot_be_copied_is_named():
    module = nn.Linear(1, 1)
    module.scale = module.weight * 2  # a tensor that somebody computed
    with pytest.raises(
        UsageError, match=r"^BaseLearner: Linear: a copy of it raised RuntimeError: Only Tens"
    ):
        BaseLearner(module, mse_loss)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_an_encoder_whose_fused_form_has_no_derivative_says_so_and_two_remedies_work():
    fused = encoder().eval()
    with pytest.raises(UsageError, match=r"Sequential: the support gradient raised .*dropout=0.*fastpath"):
        gradient(fused, order="first")
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        plain = gradient(fused, order="first")
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    fused.train()
    for part in fused.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    torch.testing.assert_close(plain, gradient(fused, order="first"))


def test_the_weights_behind_a_parametrization_are_drawn_as_well():
    """A seed draws what it draws for the plain layer."""
    learner = BaseLearner(parametrizations.weight_norm(nn.Linear(3, 3)), mse_loss)
    assert parametrize.is_parametrized(learner.module)
    plain = BaseLearner(nn.Linear(3, 3), mse_loss)
    for seed in (0, 1):
        ours, theirs = (one.module_at(one.initial(seeded(seed))) for one in (learner, plain))
        torch.testing.assert_close(ours.weight, theirs.weight)


def test_a_parametrization_that_cannot_be_turned_round_keeps_what_is_behind_it():
    learner = BaseLearner(parametrizations.orthogonal(nn.Linear(3, 3), use_trivialization=False), mse_loss)
    weight = learner.module_at(learner.initial(seeded())).weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(3))


def test_the_dtype_is_that_of_what_is_adapted():
    module = nn.Sequential(nn.Linear(1, 1).half().requires_grad_(False), nn.Linear(1, 1))
    learner = BaseLearner(module, mse_loss)
    assert learner.dtype == learner.initial(seeded()).dtype == torch.float32


def test_a_pretrained_network_is_drawn_anew_or_kept():
    network = nn.Linear(1, 1)
    nn.init.constant_(network.weight, 7.0)
    assert BaseLearner(network, mse_loss).initial(seeded())[0] != 7.0
    learner = BaseLearner(network, mse_loss, initialise=keep_parameters)
    kept = torch.cat([network.weight.detach().flatten(), network.bias.detach()])
    for copy in (learner, learner.to("cpu", torch.float64)):
        assert torch.equal(copy.initial(seeded()), kept.to(copy.dtype))


def test_meta_training_starts_from_a_network_that_is_kept():
    network = nn.Linear(1, 1)
    learner = BaseLearner(network, mse_loss, initialise=keep_parameters)
    settings = Settings(tasks=2, meta_batch=2, steps=1, validation_tasks=2, outer_lr=1e-3, engine="eager")
    rule = make_rule("gradient-descent", learner.layout)
    trained = meta_train(rule, learner, TinySines(), settings, generator=seeded())
    kept = learner.layout.flatten(dict(network.named_parameters())).detach()
    moved = (trained.theta.detach() - kept).abs()
    torch.testing.assert_close(moved, torch.full((2,), 1e-3), rtol=1e-3, atol=1e-6)  # the first step of Adam


def test_an_initialise_that_fails_is_named():
    learner = BaseLearner(nn.Linear(1, 1), mse_loss, initialise=lambda module: module.there_is_none())
    with pytest.raises(UsageError, match=r"^base-learner Linear: initialise raised AttributeError"):
        learner.initial(seeded())
