"""A rule as a `torch.optim.Optimizer`: against torch's own, against `adapt`, and inside `higher`."""

from __future__ import annotations

import copy
import functools
import io
import pickle
import warnings

import pytest
import torch
from plain_loop import RULES, networks, rule_of, seeded
from torch import nn
from torch.utils import _pytree as pytree

from metalearn_core import (
    Clipping,
    LearnedOptimizer,
    ParameterLayout,
    UpdateRule,
    UsageError,
    adapt,
    make_rule,
    meta_gradient,
)

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message='"is" with', category=SyntaxWarning)
    import higher

NET = networks()["tanh"]
FROZEN = networks()["frozen"]
close = functools.partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)
both_orders = pytest.mark.parametrize("order", ["first", "second"])


def module_of(net, theta=None):
    """The network as people have it: a module whose parameters are θ⁰."""
    return net.learner.module_at(net.theta if theta is None else theta)


def drive(optimizer, module, net, batch, steps, closed=True):
    """An ordinary training loop."""
    for _ in range(steps):

        def closure():
            optimizer.zero_grad()
            loss = net.loss(module(batch.inputs), batch.targets)
            loss.backward()
            return loss

        if closed:
            told = optimizer.step(closure)
            assert told.requires_grad
        else:
            closure()
            assert optimizer.step() is None


def flat(net, module):
    named = dict(module.named_parameters())
    return net.learner.layout.flatten({name: named[name].detach() for name in net.learner.layout.names})


def descent(module, inner_lr=0.0625, **options):
    return make_rule("gradient-descent", ParameterLayout.of(module), inner_lr=inner_lr, **options)


# --- an ordinary loop


@pytest.mark.parametrize("closed", [True, False])
def test_gradient_descent_is_torchs_sgd_bit_for_bit(closed):
    # α is a power of 2, so that it does not matter whether α·g is rounded before it is subtracted
    task = NET.task(count=1)[0]
    ours, theirs = module_of(NET), module_of(NET)
    optimizer = LearnedOptimizer(ours.parameters(), descent(ours))
    drive(optimizer, ours, NET, task.support, 20, closed)
    drive(torch.optim.SGD(theirs.parameters(), lr=0.0625), theirs, NET, task.support, 20)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
        assert not torch.equal(mine, torch.zeros_like(mine))


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_a_rule_with_memory_is_torchs_own_optimiser(name):
    task = NET.task(count=1)[0]
    ours, theirs = module_of(NET), module_of(NET)
    rule = descent(ours, 0.01, optimizer=name)
    drive(LearnedOptimizer(ours.parameters(), rule), ours, NET, task.support, 20)
    twin = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[name]
    drive(twin(theirs.parameters(), lr=0.01), theirs, NET, task.support, 20)
    close(flat(NET, ours), flat(NET, theirs), rtol=1e-7)


@pytest.mark.parametrize("name", RULES)
def test_its_steps_are_those_of_adapt(name):
    task, rule = NET.task(count=1)[0], rule_of(name, NET.learner)
    module = module_of(NET)
    drive(LearnedOptimizer(module.parameters(), rule), module, NET, task.support, 4)
    with torch.no_grad():
        close(flat(NET, module), adapt(rule, NET.learner, NET.theta, task.support, steps=4))


def test_frozen_parameters_stay_outside_and_clipping_is_the_methods():
    task, module = FROZEN.task(count=1)[0], module_of(FROZEN)
    before = copy.deepcopy(module)
    rule, clip = rule_of("lstm-program", FROZEN.learner), Clipping("value", 0.01)
    optimizer = LearnedOptimizer(module.named_parameters(), rule, clip=clip)
    assert optimizer.layout == FROZEN.learner.layout  # the names too
    drive(optimizer, module, FROZEN, task.support, 3)
    arguments = (rule, FROZEN.learner, FROZEN.theta, task.support)
    with torch.no_grad():
        close(flat(FROZEN, module), adapt(*arguments, steps=3, clip=clip))
        assert not torch.allclose(flat(FROZEN, module), adapt(*arguments, steps=3), rtol=1e-6)
    assert torch.equal(module[0].weight, before[0].weight)


class Momentum(UpdateRule):
    """Not elementwise: it is called under vmap; its state is a dict, and one leaf of it an integer."""

    def init_state(self, theta):
        return {"velocity": torch.zeros_like(theta), "taken": torch.zeros((), dtype=torch.int64)}

    def update(self, theta, signal, state):
        velocity = 0.5 * state["velocity"] + signal.grad
        return theta - 0.125 * velocity, {"velocity": velocity, "taken": state["taken"] + 1}


def test_a_rule_for_one_task_that_is_vmapped():
    task = NET.task(count=1)[0]
    ours, theirs = module_of(NET), module_of(NET)
    drive(LearnedOptimizer(ours.parameters(), Momentum()), ours, NET, task.support, 5)
    drive(torch.optim.SGD(theirs.parameters(), lr=0.125, momentum=0.5), theirs, NET, task.support, 5)
    close(flat(NET, ours), flat(NET, theirs))


def test_a_gradient_that_is_none_counts_as_zeros_and_a_step_without_any_does_nothing():
    class Decay(UpdateRule):
        def update(self, theta, signal, state):
            return 0.5 * theta - signal.grad, state

    first, second = (nn.Parameter(torch.tensor([2.0, 4.0])) for _ in range(2))
    optimizer = LearnedOptimizer([first, second], Decay())
    optimizer.step()
    assert first.tolist() == second.tolist() == [2.0, 4.0]
    assert optimizer.state_dict()["state"] == {}
    first.grad = torch.tensor([1.0, 0.0])
    optimizer.step()
    assert (first.tolist(), second.tolist()) == ([0.0, 2.0], [1.0, 2.0])


def test_sparse_gradients_are_those_of_the_dense_layer():
    tables = [nn.Embedding(5, 3, sparse=sparse) for sparse in (True, False)]
    tables[1].load_state_dict(tables[0].state_dict())
    for table in tables:
        optimizer = LearnedOptimizer(table.parameters(), descent(table, optimizer="adam"))
        for row in (1, 4, 4):
            optimizer.zero_grad()
            table(torch.tensor([row])).square().sum().backward()
            assert table.weight.grad.is_sparse == table.sparse
            optimizer.step()
    assert torch.equal(tables[0].weight, tables[1].weight)
    assert tables[0].weight.grad is not None
    optimizer.zero_grad()
    assert tables[1].weight.grad is None


# --- its state


@pytest.mark.parametrize("name", ["lstm-program", "gradient-descent-adam", "momentum"])
def test_it_goes_on_from_its_state_dict_to_the_same_bits(name):
    rule = Momentum() if name == "momentum" else rule_of(name, NET.learner)
    task, module = NET.task(count=1)[0], module_of(NET)
    optimizer = LearnedOptimizer(module.parameters(), rule)
    drive(optimizer, module, NET, task.support, 3)
    file = io.BytesIO()
    torch.save({"module": module.state_dict(), "optimizer": optimizer.state_dict()}, file)
    drive(optimizer, module, NET, task.support, 3)
    file.seek(0)
    held = torch.load(file, weights_only=True)  # plain containers, whatever the rule's state is made of
    again = module_of(NET)
    again.load_state_dict(held["module"])
    other = LearnedOptimizer(again.parameters(), copy.deepcopy(rule))
    other.load_state_dict(held["optimizer"])
    drive(other, again, NET, task.support, 3)
    assert torch.equal(flat(NET, again), flat(NET, module))
    fresh = module_of(NET)
    fresh.load_state_dict(held["module"])
    drive(LearnedOptimizer(fresh.parameters(), rule), fresh, NET, task.support, 3)
    assert not torch.equal(flat(NET, fresh), flat(NET, module))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_has_a_rule_and_a_state_of_its_own(copied):
    task, module = NET.task(count=1)[0], module_of(NET)
    optimizer = LearnedOptimizer(module.parameters(), rule_of("lstm-program", NET.learner))
    drive(optimizer, module, NET, task.support, 2)
    again, twin = copied((module, optimizer))
    drive(optimizer, module, NET, task.support, 2)
    drive(twin, again, NET, task.support, 2)
    assert torch.equal(flat(NET, again), flat(NET, module))
    assert twin.rule is not optimizer.rule


def test_a_state_that_does_not_fit_is_refused_by_name():
    module, task = module_of(NET), NET.task(count=1)[0]
    optimizer = LearnedOptimizer(module.parameters(), rule_of("lstm-program", NET.learner))
    drive(optimizer, module, NET, task.support, 1)
    held = optimizer.state_dict()
    other = LearnedOptimizer(module.parameters(), Momentum())
    with pytest.raises(UsageError, match=r"state is of rule LSTM .*, this is an optimizer of Momentum"):
        other.load_state_dict(held)
    wider = make_rule("lstm", NET.learner.layout, hidden=3).double()
    with pytest.raises(UsageError, match="state is of other parameters or options"):
        LearnedOptimizer(module.parameters(), wider).load_state_dict(held)
    adam = torch.optim.Adam(module.parameters())
    drive(adam, module, NET, task.support, 1)
    with pytest.raises(UsageError, match="it is another optimizer's"):
        other.load_state_dict(adam.state_dict())
    assert other.state_dict()["state"] == {}


# --- what is refused

A, B = (nn.Parameter(torch.zeros(2)) for _ in range(2))


@pytest.mark.parametrize(
    ("params", "rule", "options", "told"),
    [
        ([{"params": [A], "inner_lr": 0.1}], Momentum(), {}, "a group has no option 'inner_lr'"),
        ([{"params": [A], "maximize": True}], Momentum(), {}, "'maximize', got True; negate the loss"),
        ([{"params": [A], "weight_decay": 0.1}], Momentum(), {}, "add it to the loss"),
        ([{"params": [A], "lr": -0.1}], Momentum(), {}, "lr must be a number >= 0, got -0.1"),
        ([A], Momentum(), {"lr": float("nan")}, "lr must be a number >= 0, got nan"),
        ([A], Momentum(), {"lr": "fast"}, "lr must be a number >= 0, got 'fast'"),
        ([A], Momentum(), {"lr": torch.ones(2)}, r"Tensor lr must be 1-element, got shape \(2,\)"),
        ([A], Momentum(), {"lr": torch.ones((), requires_grad=True)}, "a step size that is learned"),
        ([A], nn.Linear(1, 1), {}, "expected an UpdateRule, got a Linear"),
        ([A], Momentum(), {"order": "third"}, "unknown order 'third'"),
        ([nn.Parameter(A.detach(), requires_grad=False)], Momentum(), {}, "require a gradient"),
        ([A, nn.Parameter(B.detach().double())], Momentum(), {}, "torch.float32 on cpu and torch.float64"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(params, rule, options, told):
    with pytest.raises(UsageError, match=told) as caught:
        LearnedOptimizer(params, rule, **options)
    assert "\n" not in str(caught.value)


def test_a_rule_of_another_size_or_dtype_is_refused_at_once():
    meta_sgd = make_rule("gradient-descent", ParameterLayout(("a",), ((3,),)), learn_lr="parameter")
    with pytest.raises(UsageError, match=r"GradientDescent .* cannot update these 2 coordinates"):
        LearnedOptimizer([A], meta_sgd)
    with pytest.raises(UsageError, match="make it for their layout and dtype"):
        LearnedOptimizer([A], make_rule("lstm", ParameterLayout(("a",), ((2,),)), hidden=2).double())


def test_a_rule_that_reads_the_loss_wants_a_closure_that_returns_it():
    rule = make_rule("lstm", ParameterLayout(("a",), ((2,),)))
    optimizer = LearnedOptimizer([A], rule)
    A.grad = torch.ones(2)
    for arguments in ((), (lambda: None,)):
        with pytest.raises(UsageError, match=r"reads the loss; call step\(closure\)"):
            optimizer.step(*arguments)
    with pytest.raises(UsageError, match=r"must return one number, got shape \(2,\)"):
        optimizer.step(lambda: torch.ones(2))
    assert A.tolist() == [0.0, 0.0]
    assert optimizer.step(lambda: 3.0) == 3.0
    assert A.tolist() != [0.0, 0.0]


# --- inside higher


def by_higher(rule, net, task, steps, order, **options):
    """Query loss and its gradients, by the loop that people who use `higher` have."""
    module = module_of(net)
    optimizer = LearnedOptimizer(module.parameters(), rule, order=order, **options)
    with higher.innerloop_ctx(module, optimizer, copy_initial_weights=False) as (patched, diffopt):
        for _ in range(steps):
            diffopt.step(net.loss(patched(task.support.inputs), task.support.targets))
        loss = net.loss(patched(task.query.inputs), task.query.targets)
    starts = [parameter for parameter in module.parameters() if parameter.requires_grad]
    phi = dict(rule.named_parameters())
    found = torch.autograd.grad(loss, [*starts, *phi.values()])  # none is unused
    names = net.learner.layout.names
    theta = net.learner.layout.flatten(dict(zip(names, found[: len(names)], strict=True)))
    return loss.detach(), theta, dict(zip(phi, found[len(names) :], strict=True))


LEARNED = (
    "gradient-descent-parameter", "gradient-descent-fixed", "lstm-equation", "lstm-program",
    "feed-forward-linear-all", "feed-forward-tanh-all", "feed-forward-sigmoid", "feed-forward-history-update",
)  # fmt: skip


@both_orders
@pytest.mark.parametrize("name", LEARNED)
def test_the_meta_gradient_in_higher_is_that_of_the_library(name, order):
    task = NET.task(count=1)[0]
    rule = rule_of(name, NET.learner)
    ours = by_higher(rule, NET, task, 3, order)
    close(ours, meta_gradient(rule, NET.learner, NET.theta, task, steps=3, order=order))
    for phi, grad in ours[2].items():
        assert grad.abs().sum() > 0, phi  # φ is not a copy that stands aside


def test_the_orders_differ_and_clipping_reaches_higher():
    task, rule = FROZEN.task(count=1)[0], rule_of("lstm-program", FROZEN.learner)
    clip = Clipping("value", 0.01)
    found = {}
    for order in ("first", "second"):
        found[order] = by_higher(rule, FROZEN, task, 3, order, clip=clip)
        arguments = (rule, FROZEN.learner, FROZEN.theta, task)
        close(found[order], meta_gradient(*arguments, steps=3, order=order, clip=clip))
    assert not torch.allclose(found["first"][1], found["second"][1], rtol=1e-6)


def test_an_outer_loop_by_higher_trains_the_rule():
    task, module = NET.task(count=1)[0], module_of(NET)
    rule = rule_of("feed-forward-tanh-all", NET.learner)
    before = [parameter.detach().clone() for parameter in rule.parameters()]
    outer = torch.optim.Adam(rule.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer = LearnedOptimizer(module.parameters(), rule)
        with higher.innerloop_ctx(module, optimizer) as (patched, diffopt):
            for _ in range(2):
                diffopt.step(NET.loss(patched(task.support.inputs), task.support.targets))
            loss = NET.loss(patched(task.query.inputs), task.query.targets)
        outer.zero_grad()
        loss.backward()
        outer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    moved = [not torch.equal(a, b) for a, b in zip(before, rule.parameters(), strict=True)]
    assert all(moved)


def test_it_goes_on_in_higher_from_where_it_stands_and_is_left_as_it_was():
    task, rule = NET.task(count=1)[0], rule_of("lstm-program", NET.learner)
    module = module_of(NET)
    optimizer = LearnedOptimizer(module.parameters(), rule)
    drive(optimizer, module, NET, task.support, 2)
    held = copy.deepcopy(optimizer.state_dict()["state"])
    with higher.innerloop_ctx(module, optimizer, track_higher_grads=False) as (patched, diffopt):
        for _ in range(2):
            diffopt.step(NET.loss(patched(task.support.inputs), task.support.targets))
        ends = [parameter.detach() for parameter in patched.parameters()]
        # no graph through the steps, neither by θ nor by the rule's state
        memory = pytree.tree_leaves(diffopt._advance.state)
        assert len(memory) == 4
        assert not any(held.grad_fn for held in (*patched.parameters(), *memory))
    still = optimizer.state_dict()["state"]
    assert still[0]["step"] == held[0]["step"] == 2
    torch.testing.assert_close(still, held, rtol=0, atol=0)
    drive(optimizer, module, NET, task.support, 2)
    close(ends, [parameter.detach() for parameter in module.parameters()])


def test_an_override_which_nothing_would_read_is_refused():
    module = module_of(NET)
    optimizer = LearnedOptimizer(module.parameters(), descent(module))
    override = {"lr": [torch.tensor(0.1)]}
    with pytest.raises(UsageError, match="nothing to override"):
        higher.get_diff_optim(optimizer, module.parameters(), override=override)
    twin = higher.get_diff_optim(optimizer, module.parameters(), track_higher_grads=False)
    with pytest.raises(UsageError, match="nothing to override"):
        twin.step(module(seeded(1, 3, seed=0)).sum(), params=module.parameters(), override=override)
