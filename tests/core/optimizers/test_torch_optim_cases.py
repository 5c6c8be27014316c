"""Cases that torch tries its own optimisers with (`common_optimizers`): what passes, what is refused.

The cases' names are those of torch's tests. docs/optimizer.md has the same table.
"""

from __future__ import annotations

import copy
import functools
import warnings

import pytest
import torch
from torch import nn

from metalearn_core import LearnedOptimizer, UpdateRule, UsageError

cases = pytest.importorskip(
    "torch.testing._internal.common_optimizers",
    reason="torch's own cases need the package expecttest",
    exc_type=ImportError,
)

SGD = next(info for info in cases.optim_db if info.optim_cls is torch.optim.SGD)
close = functools.partial(torch.testing.assert_close, rtol=1e-6, atol=1e-7)


class Descent(UpdateRule):
    """θ − g: with it, lr is SGD's own."""

    coordinatewise = elementwise = True

    def update(self, theta, signal, state):
        return theta - signal.grad, state


def learned(params, lr=1e-3, **options):
    """As the cases make an optimiser: `cls(params, **kwargs)`, options in the groups."""
    if options:
        params = [{"params": params, **options}]
    return LearnedOptimizer(params, Descent(), lr=lr)


def problem(make, dtype=torch.float32, shape=(10, 5)):
    torch.manual_seed(0)
    weight, bias = (nn.Parameter(torch.randn(*s, dtype=dtype)) for s in (shape, shape[:1]))
    inputs = torch.randn(5, dtype=dtype)
    optimizer = make([weight, bias])

    def closure():
        optimizer.zero_grad()
        loss = (weight.mv(inputs) + bias).abs().square().sum()
        loss.backward()
        return loss

    return optimizer, closure, (weight, bias)


REFUSED = {
    "non-zero weight_decay": "add it to the loss",
    "momentum": "give it to the rule",
    "maximize": "negate the loss",
    "dampening": "give it to the rule",
    "weight_decay w/ momentum": "give it to the rule",
    "nesterov": "give it to the rule",
}
"""Of SGD's inputs, by their description, and the advice; all others pass."""


@pytest.mark.parametrize("case", SGD.optim_inputs_func(device="cpu"), ids=lambda case: case.desc)
def test_the_inputs_of_sgd(case):
    if case.desc in REFUSED:
        with pytest.raises(UsageError, match=REFUSED[case.desc]):
            learned([nn.Parameter(torch.zeros(2))], **case.kwargs)
        return
    ends = []
    for make in (learned, torch.optim.SGD):
        optimizer, closure, params = problem(functools.partial(make, **case.kwargs))
        first = closure().item()
        for _ in range(20):
            optimizer.step(closure)
        assert closure().item() < first
        ends.append([p.detach() for p in params])
    close(*ends)


@pytest.mark.parametrize("option", ["foreach", "fused", "differentiable", "capturable"])
def test_the_flags_of_implementations(option):
    for off in (None, False):
        learned([nn.Parameter(torch.zeros(2))], **{option: off})
    with pytest.raises(UsageError, match=f"a group has no option '{option}'"):
        learned([nn.Parameter(torch.zeros(2))], **{option: True})


@pytest.mark.parametrize(
    "case",
    cases.get_error_inputs_for_all_optims("cpu", torch.float32),
    ids=lambda case: case.optimizer_error_input.desc,
)
def test_errors(case):
    given = case.optimizer_error_input
    params = [nn.Parameter(torch.zeros(1))] if given.params is None else given.params
    if issubclass(case.error_type, Warning):
        with pytest.warns(case.error_type, match=case.error_regex):
            learned(params, **given.kwargs)
    else:
        with pytest.raises(case.error_type, match=case.error_regex):
            learned(params, **given.kwargs)


@pytest.mark.parametrize("number", range(len(SGD.scheduler_inputs)))
def test_forloop_goes_right_direction(number):
    ends = []
    for make in (learned, torch.optim.SGD):
        optimizer, closure, params = problem(functools.partial(make, lr=0.01))
        schedulers = [scheduler(optimizer) for scheduler in SGD.scheduler_inputs[number]]
        first = closure().item()
        for _ in range(20):
            optimizer.step(closure)
            for scheduler in schedulers:
                plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
                scheduler.step(*([closure().detach()] if plateau else []))
        assert closure().item() < first
        ends.append([p.detach() for p in params])
    close(*ends)


def test_complex():
    ends = []
    for make in (learned, torch.optim.SGD):
        optimizer, closure, params = problem(functools.partial(make, lr=0.01), torch.complex64)
        for _ in range(5):
            optimizer.step(closure)
        ends.append([p.detach() for p in params])
    close(*ends)


def test_param_groups_lr():
    ends = []
    for make in (learned, torch.optim.SGD):
        optimizer, closure, params = problem(
            lambda pair, make=make: make([{"params": [pair[0]]}, {"params": [pair[1]], "lr": 0.1}], lr=0.0)
        )
        start = params[0].detach().clone()
        for _ in range(5):
            optimizer.step(closure)
        assert torch.equal(params[0], start)
        ends.append(params[1].detach())
    close(*ends)


def test_step_is_noop_when_params_have_no_grad():
    optimizer, _, params = problem(learned)
    before = [p.detach().clone() for p in params]
    assert optimizer.step() is None
    assert all(map(torch.equal, before, params))


def test_step_is_noop_for_zero_grads():
    optimizer, _, params = problem(learned)
    before = [p.detach().clone() for p in params]
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert all(map(torch.equal, before, params))


def test_can_load_older_state_dict_and_deepcopy_has_all_public_attributes():
    optimizer, closure, _ = problem(learned)
    optimizer.step(closure)
    held = copy.deepcopy(optimizer.state_dict())
    for group in held["param_groups"]:
        assert not group.keys() & {"maximize", "foreach", "fused", "differentiable", "capturable"}
    optimizer.load_state_dict(held)
    optimizer.step(closure)
    twin = copy.deepcopy(optimizer)
    public = [{name for name in vars(each) if not name.startswith("_")} for each in (optimizer, twin)]
    assert public[0] == public[1]


def test_hooks():
    optimizer, closure, _ = problem(learned)
    seen = []
    before = optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.step(closure)
    before.remove()
    optimizer.step(closure)
    assert seen == ["before", "after", "after"]


def test_non_empty_state_and_step_is_kept():
    optimizer, closure, params = problem(learned)
    for _ in range(3):
        optimizer.step(closure)
    assert [optimizer.state[p]["step"] for p in params] == [3, 3]


def test_non_contiguous_parameters():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weight = nn.Parameter(torch.randn(4, 3, 2)[..., 0])
        assert not weight.is_contiguous()
        expected = weight.detach() - 0.5
        optimizer = learned([weight], lr=0.5)
        weight.sum().backward()
        optimizer.step()
    close(weight.detach(), expected)


def test_parameters_of_several_dtypes_are_refused():
    pair = [nn.Parameter(torch.zeros(2, dtype=dtype)) for dtype in (torch.float32, torch.float64)]
    with pytest.raises(UsageError, match="of one dtype on one device"):
        learned(pair)
