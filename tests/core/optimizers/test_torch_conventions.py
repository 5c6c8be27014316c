"""`LearnedOptimizer` where torch's own optimisers go: groups, schedulers, state dicts, replicas, AMP."""

from __future__ import annotations

import copy
import functools
import io
import os
import pickle

import pytest
import torch
from plain_loop import networks, rule_of
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import lr_scheduler

from metalearn_core import (
    LearnedOptimizer,
    ParameterLayout,
    Signal,
    UpdateRule,
    UsageError,
    make_rule,
)

NET = networks()["tanh"]
exact = functools.partial(torch.testing.assert_close, rtol=0, atol=0)
close = functools.partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)


class Momentum(UpdateRule):
    """Coordinatewise; its state has a tensor along θ and one, of integers, for θ as a whole."""

    coordinatewise = True

    def init_state(self, theta):
        return {"velocity": torch.zeros_like(theta), "taken": torch.zeros((), dtype=torch.int64)}

    def update(self, theta, signal, state):
        velocity = 0.5 * state["velocity"] + signal.grad
        return theta - 0.125 * velocity, {"velocity": velocity, "taken": state["taken"] + 1}


class ReadsLoss(UpdateRule):
    """A step as long as the loss says."""

    uses_loss = coordinatewise = True

    def update(self, theta, signal, state):
        return theta - 0.125 * signal.loss * signal.grad, state


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def data(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 3, generator=generator).double(), torch.randn(8, 2, generator=generator).double()


def backward(network, optimizer, seed=0):
    inputs, targets = data(seed)
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(network(inputs), targets)
    loss.backward()
    return loss.detach()


def values(network):
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


def reference(network, rule, rates, steps):
    """θ + lr (θ′ − θ) by a plain loop over one vector. `rates`: of step t, lr of every parameter."""
    network = copy.deepcopy(network)
    params = list(network.parameters())
    state = rule.init_state(values(network))
    for step in range(steps):
        for p in params:
            p.grad = None
        inputs, targets = data(step)
        loss = nn.functional.mse_loss(network(inputs), targets)
        loss.backward()
        theta, grad = values(network), torch.cat([p.grad.reshape(-1) for p in params])
        moved, state = rule.update(theta, Signal(grad, loss.detach(), step), state)
        rate = torch.cat(
            [torch.full_like(p, r).reshape(-1) for p, r in zip(params, rates(step), strict=True)]
        )
        theta = theta + rate * (moved - theta)
        with torch.no_grad():
            for p, part in zip(params, theta.split([p.numel() for p in params]), strict=True):
                p.copy_(part.reshape(p.shape))
    return values(network)


# --- lr


@pytest.mark.parametrize("name", ["gradient-descent-adam", "lstm-program", "feed-forward-tanh-all"])
def test_lr_is_a_factor_on_the_step(name):
    network = linear()
    learner_of = type("Learner", (), {"layout": ParameterLayout.of(network)})
    rule = rule_of(name, learner_of)
    expected = reference(network, rule, lambda step: [0.25, 0.25, 3.0, 3.0], 4)
    first, last = network[0], network[2]
    groups = [{"params": first.parameters(), "lr": 0.25}, {"params": last.parameters()}]
    optimizer = LearnedOptimizer(groups, rule, lr=3.0)
    for step in range(4):
        optimizer.step(backward(network, optimizer, step))
    close(values(network), expected)


def test_a_factor_of_nought_keeps_every_bit_and_the_state_goes_on():
    class Broken(Momentum):
        def update(self, theta, signal, state):
            theta, state = super().update(theta, signal, state)
            return theta / 0, state

    network = linear()
    before = values(network)
    optimizer = LearnedOptimizer(network.parameters(), Broken(), lr=torch.tensor(0.0))
    backward(network, optimizer)
    optimizer.step()
    exact(values(network), before)
    assert optimizer.state[network[0].weight]["step"] == 1


SCHEDULERS = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, gamma=0.5),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=2.0, total_steps=8, cycle_momentum=False),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=5),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, step_size_up=2, cycle_momentum=False),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.5)], milestones=[3]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.5)]
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_moves_it_as_it_moves_sgd(name):
    """The rule is θ − g, so that lr is SGD's own."""
    ours, theirs = linear(), linear()
    rule = make_rule("gradient-descent", ParameterLayout.of(ours), inner_lr=1.0)
    pairs = []
    for network, kind in ((ours, functools.partial(LearnedOptimizer, rule=rule)), (theirs, torch.optim.SGD)):
        groups = [{"params": network[0].parameters()}, {"params": network[2].parameters(), "lr": 0.05}]
        optimizer = kind(groups, lr=0.1)
        pairs.append((network, optimizer, SCHEDULERS[name](optimizer)))
    seen = []
    for step in range(7):
        for network, optimizer, scheduler in pairs:
            backward(network, optimizer, step)
            optimizer.step()
            scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
        rates = [[group["lr"] for group in optimizer.param_groups] for _, optimizer, _ in pairs]
        assert rates[0] == rates[1]
        seen.append(rates[0])
    assert len(set(map(tuple, seen))) > 1
    close(values(ours), values(theirs))


def test_one_cycle_without_its_own_option_is_refused_by_torch_in_words():
    optimizer = LearnedOptimizer(linear().parameters(), Momentum())
    with pytest.raises(ValueError, match="cycle_momentum"):
        lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=8)


# --- the loss


def test_step_takes_a_loss_as_well():
    networks = [linear() for _ in range(4)]
    for network, way in zip(networks, ("closure", "loss", "keyword", "number"), strict=True):
        optimizer = LearnedOptimizer(network.parameters(), ReadsLoss())
        loss = backward(network, optimizer)
        if way == "closure":
            assert optimizer.step(lambda found=loss: found) is loss
        elif way == "keyword":
            assert optimizer.step(loss=loss) is loss
        else:
            given = loss if way == "loss" else loss.item()
            assert optimizer.step(given) is given
    expected = reference(linear(), ReadsLoss(), lambda step: [1.0] * 4, 1)
    for network in networks:
        close(values(network), expected)
    with pytest.raises(UsageError, match=r"reads the loss; call step\(closure\).* or step\(loss\)"):
        optimizer.step()


def replica(rank, world, folder):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    network = linear()
    wrapped = nn.parallel.DistributedDataParallel(network)
    optimizer = LearnedOptimizer(network.parameters(), ReadsLoss())
    for step in range(5):
        optimizer.zero_grad()
        inputs, targets = data(step)
        share = slice(4 * rank, 4 * rank + 4)
        loss = nn.functional.mse_loss(wrapped(inputs[share]), targets[share])
        loss.backward()
        optimizer.step(lambda found=loss: found)
    torch.save(values(network), f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    os._exit(0)  # threads of gloo and of DistributedDataParallel sometimes wait for each other at the end


def test_replicas_see_the_mean_loss(tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=replica, args=(rank, 2, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0, 0]
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    exact(found[0], found[1])
    # two halves of one batch: the mean of their losses and gradients is that of the batch
    close(found[0], reference(linear(), ReadsLoss(), lambda step: [1.0] * 4, 5))


# --- which parameters


def test_another_order_than_the_rule_was_made_for_is_refused_by_name():
    network = linear()
    named = dict(network.named_parameters())
    rule = make_rule("gradient-descent", ParameterLayout.of(network), learn_lr="tensor").double()
    order = ["0.weight", "2.weight", "0.bias", "2.bias"]
    with pytest.raises(UsageError, match=r"was made for 0\.bias \[4\] in place 1, and 2\.weight \[2, 4\]"):
        LearnedOptimizer([(name, named[name]) for name in order], rule)
    with pytest.raises(UsageError, match=r"\[4\] in place 1, and \[2, 4\] is there"):
        LearnedOptimizer([named[name] for name in order], rule)
    swapped = [nn.Parameter(torch.zeros(n).double()) for n in (2, 2)]
    two = ParameterLayout(("a", "b"), ((2,), (2,)))
    by_name = type(rule)(two, learn_lr="tensor").double()  # made without the registry
    with pytest.raises(UsageError, match="was made for a"):
        LearnedOptimizer([("b", swapped[0]), ("a", swapped[1])], by_name)
    LearnedOptimizer([("module.a", swapped[0]), ("module.b", swapped[1])], copy.deepcopy(by_name))
    alike = make_rule("gradient-descent", two)  # the same for every coordinate
    LearnedOptimizer([("b", swapped[0]), ("a", swapped[1])], alike)


def test_a_parameter_that_is_unfrozen_joins_with_a_state_of_its_own():
    network = linear()
    network[0].requires_grad_(False)
    optimizer = LearnedOptimizer(network.parameters(), Momentum())
    for step in range(2):
        backward(network, optimizer, step)
        optimizer.step()
    assert network[0].weight not in optimizer.state
    network[0].requires_grad_(True)
    # torch's SGD begins the momentum of a parameter when it first has a gradient
    twin = copy.deepcopy(network)
    other = torch.optim.SGD(twin.parameters(), lr=0.125, momentum=0.5)
    for mine, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        if mine in optimizer.state:
            other.state[theirs]["momentum_buffer"] = optimizer.state[mine]["memory.0"].clone()
    for step in range(2, 5):
        for each, optim in ((network, optimizer), (twin, other)):
            backward(each, optim, step)
            optim.step()
    close(values(network), values(twin))
    assert optimizer.state[network[0].weight]["memory.1"] == 5


def test_a_rule_that_cannot_grow_says_so_at_every_step():
    class Alone(Momentum):
        coordinatewise = False

    network = linear()
    network[0].requires_grad_(False)
    optimizer = LearnedOptimizer(network.parameters(), Alone())
    backward(network, optimizer)
    optimizer.step()
    network[0].requires_grad_(True)
    for _ in range(2):
        backward(network, optimizer)
        with pytest.raises(UsageError, match=r"begun with 2 parameters and cannot go on with 4.*another opt"):
            optimizer.step()
    held = values(network)
    network[0].requires_grad_(False)
    backward(network, optimizer)
    optimizer.step()
    assert not torch.equal(values(network), held)


def test_a_parameter_that_is_frozen_later_stays_where_it_is():
    class Decay(UpdateRule):
        def update(self, theta, signal, state):
            return 0.5 * theta - signal.grad, state

    network = linear()
    optimizer = LearnedOptimizer(network.parameters(), Decay())
    network[0].requires_grad_(False)
    before = network[0].weight.clone(), network[2].weight.clone()
    backward(network, optimizer)
    optimizer.step()
    exact(network[0].weight.detach(), before[0])
    assert not torch.equal(network[2].weight, before[1])


def test_a_group_that_is_added_is_as_if_it_had_been_there():
    network, together = linear(), linear()
    whole = LearnedOptimizer(together.parameters(), Momentum())
    optimizer = LearnedOptimizer(network[0].parameters(), Momentum())
    optimizer.add_param_group({"params": network[2].parameters(), "lr": 1.0})
    for step in range(3):
        for each, optim in ((network, optimizer), (together, whole)):
            backward(each, optim, step)
            optim.step()
    exact(values(network), values(together))
    with pytest.raises(UsageError, match="float32"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    assert len(optimizer.param_groups) == 2
    backward(network, optimizer)
    optimizer.step()


# --- its state


def twin_of(network, optimizer, **options):
    """A second network at the same place, with an optimiser that has not begun."""
    again = linear(1)
    again.load_state_dict(network.state_dict())
    return again, LearnedOptimizer(again.parameters(), optimizer.rule, **options)


def begun(rule=None, **options):
    network = linear()
    optimizer = LearnedOptimizer(network.parameters(), rule or Momentum(), **options)
    for step in range(3):
        backward(network, optimizer, step)
        optimizer.step()
    return network, optimizer


def require_same_future(pairs):
    for step in range(3, 6):
        for network, optimizer in pairs:
            backward(network, optimizer, step)
            optimizer.step()
    exact(values(pairs[0][0]), values(pairs[1][0]))


def test_the_state_is_kept_by_parameter_as_torch_does():
    network, optimizer = begun(lr=0.5)
    assert set(optimizer.state) == set(network.parameters())
    for place, parameter in enumerate(network.parameters()):
        entry = optimizer.state[parameter]
        assert entry["step"] == 3
        assert entry["memory.0"].shape == parameter.shape
        assert ("memory.1" in entry) == (place == 0)  # of θ as a whole, so of the first
    held = optimizer.state_dict()
    assert set(held["state"]) == {0, 1, 2, 3}
    assert held["param_groups"] == [{"lr": 0.5, "params": [0, 1, 2, 3]}]


def test_a_whole_number_comes_back_as_it_was():
    network, optimizer = begun()
    first = next(network.parameters())
    optimizer.state[first]["memory.1"] = torch.tensor(2**53 + 1)  # no double holds it
    again, other = twin_of(network, optimizer)
    other.load_state_dict(optimizer.state_dict())
    assert other.state[next(again.parameters())]["memory.1"].item() == 2**53 + 1


def test_what_others_write_into_the_state_is_what_goes_on():
    network, optimizer = begun()
    again, other = copy.deepcopy((network, optimizer))
    for optim in (optimizer, other):
        for entry in optim.state.values():
            if optim is optimizer:
                entry["memory.0"].mul_(0.5)
            else:
                entry["memory.0"] = entry["memory.0"] * 0.5
    require_same_future([(network, optimizer), (again, other)])
    cleared = copy.deepcopy((network, optimizer))
    cleared[1].state.clear()
    fresh = twin_of(network, optimizer)
    require_same_future([cleared, fresh])


# both at once is what torch cannot read back, of its own optimisers neither
@pytest.mark.parametrize(("full", "flat"), [(False, False), (True, False), (False, True)])
def test_distributed_checkpoints_hold_it(full, flat):
    options = StateDictOptions(full_state_dict=full, flatten_optimizer_state_dict=flat)
    network, optimizer = begun(lr=0.5)
    held = get_optimizer_state_dict(network, optimizer, options=options)
    assert any("2.bias" in key for key in (held if flat else held["state"]))
    again, other = twin_of(network, optimizer)
    set_optimizer_state_dict(again, other, held, options=options)
    require_same_future([(network, optimizer), (again, other)])


def test_the_step_that_makes_a_state_for_a_checkpoint_is_none():
    rule = make_rule("lstm", ParameterLayout.of(linear()), hidden=2).double()  # it reads the loss
    network = linear()
    optimizer = LearnedOptimizer(network.parameters(), rule)
    before = values(network)
    held = get_optimizer_state_dict(network, optimizer)
    exact(values(network), before)
    assert {entry["step"] for entry in held["state"].values()} == {0}
    assert len(held["state"]["0.bias"]) > 1  # tensors that a checkpoint can be read into
    again = linear()
    other = LearnedOptimizer(again.parameters(), rule)
    for step in range(2):
        for each, optim in ((network, optimizer), (again, other)):
            optim.step(backward(each, optim, step))
    exact(values(network), values(again))


def written_by_version_0_1(rule, leaves, count=4):
    return {
        "state": {"rule": {"rule": rule.label, "step": 3, "memory": leaves}},
        "param_groups": [{"params": list(range(count))}],
    }


def test_a_state_dict_of_version_0_1_is_read_or_refused_by_name():
    network, optimizer = begun()
    params = list(network.parameters())
    velocity = torch.cat([optimizer.state[p]["memory.0"].reshape(-1) for p in params]).unsqueeze(0)
    leaves = [velocity, torch.tensor([3])]
    again, other = twin_of(network, optimizer)
    other.load_state_dict(written_by_version_0_1(optimizer.rule, leaves))
    assert other.param_groups[0]["lr"] == 1.0
    require_same_future([(network, optimizer), (again, other)])
    for bad, told in (
        (written_by_version_0_1(ReadsLoss(), leaves), "the state is of rule ReadsLoss"),
        (written_by_version_0_1(Momentum(), leaves[:1]), "of other parameters or options"),
        (
            written_by_version_0_1(Momentum(), leaves, count=3),
            "one group of 3 parameters, and here are 1 with 4",
        ),
    ):
        with pytest.raises(UsageError, match=told):
            other.load_state_dict(bad)


def test_a_state_of_other_parameters_is_refused_and_nothing_is_changed():
    rule = Momentum()
    pair = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    optimizer = LearnedOptimizer([("a", pair[0]), ("b", pair[1])], rule)
    for p in pair:
        p.grad = torch.ones(2)
    optimizer.step()
    held = optimizer.state_dict()
    turned = LearnedOptimizer([("b", pair[1]), ("a", pair[0])], rule, lr=0.5)
    with pytest.raises(UsageError, match=r"the state is of a \[2\] in place 0, and b \[2\] is there"):
        turned.load_state_dict(held)
    grouped = LearnedOptimizer([{"params": [pair[0]]}, {"params": [pair[1]]}], rule)
    with pytest.raises(UsageError, match=r"groups of \[2\] parameters, and here they are \[1, 1\]"):
        grouped.load_state_dict(held)
    shapes = LearnedOptimizer([nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(3))], rule)
    with pytest.raises(UsageError, match=r"the state is of \[2\] in place 0, and \[1\] is there"):
        shapes.load_state_dict(held)
    sgd = torch.optim.SGD(pair, lr=0.1)
    with pytest.raises(UsageError, match=r"dampening, .* it is another optimizer's"):
        turned.load_state_dict(sgd.state_dict())
    assert turned.state_dict()["state"] == {}
    assert turned.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_goes_on_alike_after_a_scheduler_has_wrapped_its_step(copied):
    network, optimizer = begun(lr=0.5)
    lr_scheduler.StepLR(optimizer, 1)
    again, other = copied((network, optimizer))
    require_same_future([(network, optimizer), (again, other)])
    other.add_param_group({"params": [nn.Parameter(torch.zeros(2).double())]})
    assert set(other.param_groups[1]) == {"params", "lr"}


def test_state_dicts_are_saved_as_plain_containers_and_hooks_see_them():
    network, optimizer = begun()
    seen = []
    optimizer.register_state_dict_post_hook(lambda _, held: seen.append(sorted(held)))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again, other = twin_of(network, optimizer)
    other.register_load_state_dict_pre_hook(lambda _, held: seen.append(sorted(held)))
    other.register_load_state_dict_post_hook(lambda optim: seen.append(len(optim.state)))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert seen == [["param_groups", "state"], ["param_groups", "rule", "state"], 4]
    require_same_future([(network, optimizer), (again, other)])


# --- around it


def test_hooks_run_around_a_step():
    network, seen = linear(), []
    optimizer = LearnedOptimizer(network.parameters(), ReadsLoss())
    optimizer.register_step_pre_hook(lambda _, args, kwargs: seen.append("before") or (args, {"loss": 2.0}))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    backward(network, optimizer)
    assert optimizer.step() == 2.0
    assert seen == ["before", "after"]


@pytest.mark.parametrize("overflows", [False, True])
def test_a_scaler_and_clipping_do_what_they_do_for_sgd(overflows):
    ours, theirs = linear(), linear()
    rule = make_rule("gradient-descent", ParameterLayout.of(ours), inner_lr=0.125)
    pairs = [
        (ours, LearnedOptimizer(ours.parameters(), rule)),
        (theirs, torch.optim.SGD(theirs.parameters(), lr=0.125)),
    ]
    before = values(ours)
    for network, optimizer in pairs:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        optimizer.zero_grad()
        inputs, targets = data()
        loss = nn.functional.mse_loss(network(inputs), targets)
        scaler.scale(loss * (torch.inf if overflows else 1.0)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == (512.0 if overflows else 1024.0)
    close(values(ours), values(theirs))
    assert torch.equal(values(ours), before) == overflows


def test_a_scaler_hands_the_loss_on():
    network = linear()
    optimizer, scaler = LearnedOptimizer(network.parameters(), ReadsLoss()), torch.amp.GradScaler("cpu")
    inputs, targets = data()
    loss = nn.functional.mse_loss(network(inputs), targets)
    scaler.scale(loss).backward()
    scaler.step(optimizer, loss.detach())
    close(values(network), reference(linear(), ReadsLoss(), lambda step: [1.0] * 4, 1))


# Dynamo looks at the gradient of every tensor that a program is resumed with
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ["gradient-descent-adam", "lstm-program", "feed-forward-tanh-all"])
def test_a_compiled_training_function_leaves_the_step_out(name):
    torch._dynamo.reset()
    ends = []
    for compiled in (False, True):
        network = linear()
        rule = rule_of(name, type("Learner", (), {"layout": ParameterLayout.of(network)}))
        optimizer = LearnedOptimizer(network.parameters(), rule)

        def train(network, optimizer, inputs, targets):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(network(inputs), targets)
            loss.backward()
            optimizer.step(loss)
            return loss

        run = torch.compile(train, backend="eager") if compiled else train
        for step in range(3):
            run(network, optimizer, *data(step))
        ends.append(values(network))
    close(ends[1], ends[0])
    assert not torch.equal(ends[0], values(linear()))


def test_groups_in_higher_have_their_own_rates():
    import higher

    network = linear()
    groups = [{"params": network[0].parameters(), "lr": 0.25}, {"params": network[2].parameters()}]
    optimizer = LearnedOptimizer(groups, Momentum(), lr=2.0)
    with higher.innerloop_ctx(network, optimizer) as (patched, diffopt):
        for step in range(3):
            inputs, targets = data(step)
            diffopt.step(nn.functional.mse_loss(patched(inputs), targets))
        found = torch.cat([p.reshape(-1) for p in patched.parameters()])
    close(found.detach(), reference(linear(), Momentum(), lambda step: [0.25, 0.25, 2.0, 2.0], 3))


@pytest.mark.parametrize("name", ["gradient-descent", "lstm"])
def test_an_update_can_be_compiled_whole(name):
    torch._dynamo.reset()
    rule = make_rule(name, ParameterLayout(("a",), ((4,),))).double()
    theta, grad = torch.arange(4).double(), torch.ones(4).double()

    def update(theta, grad, loss, state):
        return rule.update(theta, Signal(grad, loss, 0), state)

    arguments = theta, grad, torch.tensor(2.0).double(), rule.init_state(theta)
    compiled = torch.compile(update, backend="eager", fullgraph=True)(*arguments)
    close(compiled, update(*arguments))
    with pytest.raises(AttributeError):
        Signal(grad, theta, 0).grad = theta  # still nothing to write into
