"""Before a base-learner is used, a few tasks together are compared with each alone."""

from __future__ import annotations

import random
import re

import numpy
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from metalearn_core import (
    BaseLearner,
    Batch,
    CompiledMetaGradient,
    Settings,
    Task,
    UsageError,
    adapt,
    evaluate,
    make_rule,
    meta_gradient,
    meta_train,
    meta_train_seeds,
)
from metalearn_core.testing import TinySines, tiny_learner


def tasks(count: int = 3) -> Task:
    return TinySines().sample("train", count, torch.Generator().manual_seed(0))


def rule_for(learner):
    return make_rule("gradient-descent", learner.layout, inner_lr=0.1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(self.prepare(x))

    def prepare(self, x):
        return x


class Subtracts(Net):
    def prepare(self, x):
        return x.sub_(1.0)


class WritesUnseen(Net):
    def prepare(self, x):
        x.data.mul_(2.0)
        return x


class WritesAnElement(Net):
    def prepare(self, x):
        x[0] = 0.0
        return x


class Counts(Net):
    calls = 0

    def prepare(self, x):
        self.calls += 1
        return x * (1.0 if self.calls < 100 else 2.0)


class Remembers(Net):
    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def prepare(self, x):
        self.seen.append(len(x))
        return x


class RunningMean(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))

    def prepare(self, x):
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return x - self.mean


class Reassigns(RunningMean):
    def prepare(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return x - self.mean


class DrawsByPython(Net):
    def prepare(self, x):
        return x * (1 + random.random())


class WrongForABatch(torch.autograd.Function):
    """Its value is right; its batching rule takes the slope of the first task for all."""

    @staticmethod
    def forward(x):
        return x * 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad * 2

    @staticmethod
    def vmap(info, in_dims, x):
        x = x.movedim(in_dims[0], 0)
        return torch.cat([x[:1] * 2, x[1:] * 2.5]), 0


class Doubles(nn.Module):
    def forward(self, x):
        return WrongForABatch.apply(x)


class PadsByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(7, 1, generator=torch.Generator().manual_seed(0)))

    def forward(self, tokens):
        return F.embedding(tokens, self.table, padding_idx=0).sum(1)


def every_use(learner, task):
    """First order, second order and evaluation."""
    rule, theta = rule_for(learner), learner.initial(torch.Generator())
    yield lambda: adapt(rule, learner, theta, task.support, steps=2, order="first")
    yield lambda: adapt(rule, learner, theta, task[0].support, steps=2, order="first")
    yield lambda: adapt(rule, learner, theta, task.support, steps=2, order="second")
    yield lambda: torch.no_grad()(adapt)(rule, learner, theta, task.support, steps=2)
    yield lambda: meta_gradient(rule, learner, theta, task, steps=2)
    yield lambda: meta_gradient(rule, learner, theta, task, steps=0)
    yield lambda: evaluate(rule, learner, theta, TinySines(), Settings(steps=1), split="test", tasks=3)
    yield lambda: meta_train(
        rule, learner, TinySines(), Settings(tasks=2, steps=1, validation_tasks=2),
        generator=torch.Generator(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Subtracts, r"Subtracts writes into its inputs.*\(x = x - 1"),
        (WritesUnseen, "WritesUnseen writes into its inputs"),
        (WritesAnElement, "WritesAnElement writes into its inputs"),
        (lambda: nn.Sequential(nn.ReLU(inplace=True), Net()), "ReLU '0' writes.* inplace=False"),
        (lambda: nn.Sequential(nn.Identity(), Subtracts()), "Subtracts '1' writes"),
        (Counts, "Counts changes its 'calls'"),
        (lambda: nn.Sequential(Remembers()), "Remembers '0' changes its 'seen'"),
        (RunningMean, r"RunningMean changes its 'mean'.* \.eval\(\)"),
        (Reassigns, "Reassigns changes its 'mean'"),
        (DrawsByPython, "asked twice for the loss of the same task, it gives two answers"),
    ],
)
def test_a_module_that_is_not_pure_is_refused_by_name_in_every_use(kind, said):
    task = tasks()
    before = [x.clone() for x in task.tensors]
    learner = BaseLearner(kind(), F.mse_loss)
    for use in every_use(learner, task):
        with pytest.raises(UsageError, match=said) as caught:
            use()
        assert "\n" not in str(caught.value)
    assert all(map(torch.equal, task.tensors, before))


def test_the_remedy_for_running_statistics_works():
    learner = BaseLearner(RunningMean().eval(), F.mse_loss)
    for use in every_use(learner, tasks()):
        use()


def tokens() -> Task:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 7, (3, 4, 3), generator=generator)
    x[..., 2] = 0
    y = torch.randn(3, 4, 1, generator=generator)
    return Task.of([x, y, x, y], stacked=True)


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize(
    ("module", "task", "who"),
    [
        (lambda: nn.Sequential(nn.Linear(1, 2), nn.Tanh(), Doubles(), nn.Linear(2, 1)), tasks, "Doubles '2'"),
        (PadsByHand, tokens, "PadsByHand"),
    ],
)
def test_a_wrong_batching_rule_is_refused_and_the_remedy_works(module, task, who, order):
    learner, task = BaseLearner(module(), F.mse_loss), task()
    rule, theta = rule_for(learner), learner.initial(torch.Generator().manual_seed(0))
    with pytest.raises(
        UsageError, match=rf"{who} gives another answer.* learner\.use_vmap = False"
    ) as caught:
        meta_gradient(rule, learner, theta, task, steps=2, order=order)
    assert "\n" not in str(caught.value)
    learner.use_vmap = False
    together = meta_gradient(rule, learner, theta, task, steps=2, order=order)[1]
    alone = [meta_gradient(rule, learner, theta, task[i], steps=2, order=order)[1] for i in range(3)]
    torch.testing.assert_close(together, torch.stack(alone).mean(0))


def test_a_learner_may_refuse_to_be_checked():
    learner = BaseLearner(Counts(), F.mse_loss)
    learner.check_first_batch = False
    for one in (learner, learner.to("cpu")):
        adapt(rule_for(one), one, torch.zeros(2), tasks().support, steps=1)


def test_a_module_that_keeps_what_it_has_found_once_is_right():
    class Caches(Net):
        table = None

        def prepare(self, x):
            if self.table is None:
                self.table = torch.ones(1)
            return x * self.table

    learner = BaseLearner(Caches(), F.mse_loss)
    for use in every_use(learner, tasks()):
        use()


def test_it_leaves_nothing_behind():
    learner, task = tiny_learner(), tasks()
    learner.module.register_buffer("unused", torch.zeros(2))
    state = {name: value.clone() for name, value in learner.module.state_dict().items()}
    streams = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].copy()
    theta = learner.initial(torch.Generator())
    versions = [x._version for x in (theta, *task.tensors)]
    found = meta_gradient(rule_for(learner), learner, theta, task, steps=2)
    learner.check_first_batch = False
    unchecked = meta_gradient(rule_for(learner), learner, theta, task, steps=2)
    assert torch.equal(found[1], unchecked[1])
    assert [x._version for x in (theta, *task.tensors)] == versions
    assert all(torch.equal(value, state[name]) for name, value in learner.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert random.getstate() == streams[1]
    assert (numpy.random.get_state()[1] == streams[2]).all()


CALLS = []


class Reports(Net):
    def prepare(self, x):
        CALLS.append(1)
        return x


def calls_of(use) -> int:
    CALLS.clear()
    use()
    return len(CALLS)


def test_it_comes_once_for_each_shape_and_once_for_all_seeds():
    learner = BaseLearner(Reports(), F.mse_loss)
    rule, support = rule_for(learner), tasks().support
    assert calls_of(lambda: adapt(rule, learner, torch.zeros(2), support, steps=1)) > 1
    assert calls_of(lambda: adapt(rule, learner, torch.zeros(2), support, steps=1)) == 1
    settings = Settings(tasks=2, steps=1, validation_tasks=2)

    def train(seeds, check):
        learner = BaseLearner(Reports(), F.mse_loss)
        learner.check_first_batch = check
        generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
        rules = [rule_for(learner) for _ in range(seeds)]
        return calls_of(
            lambda: meta_train_seeds(rules, learner, TinySines(), settings, generators=generators)
        )

    extra = [train(seeds, True) - train(seeds, False) for seeds in (1, 3)]
    assert extra[0] == extra[1] > 0


def test_what_torch_traces_does_not_contain_it():
    from torch.fx.experimental.proxy_tensor import make_fx

    learner = BaseLearner(Reports(), F.mse_loss)
    rule, support = rule_for(learner), tasks().support

    def adapted(theta, inputs, targets):
        return adapt(rule, learner, theta, Batch(inputs, targets, stacked=True), steps=1)

    arguments = (torch.zeros(2), support.inputs, support.targets)
    assert calls_of(lambda: make_fx(adapted)(*arguments)) == 1
    assert not learner.checked
    each = torch.func.vmap(lambda theta: learner.predict(theta, support.inputs[0]))
    assert calls_of(lambda: each(torch.zeros(3, 2))) == 1


def test_programs_are_made_of_learners_that_were_checked():
    learner = BaseLearner(Counts(), F.mse_loss)
    for every in (None, 1):
        compiled = CompiledMetaGradient(rule_for(learner), learner, steps=2, checkpoint_every=every)
        with pytest.raises(UsageError, match="changes its 'calls'"):
            compiled(torch.zeros(2), tasks())


def test_rounding_is_not_taken_for_a_wrong_batching_rule():
    """Units that lie on the kink of a ReLU, a gradient that is nothing but rounding, losses of every size."""
    for scale in (1e-20, 1e-3, 1.0, 1e6):
        module = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.BatchNorm1d(64, track_running_stats=False))
        module.append(nn.Linear(64, 1))
        learner = BaseLearner(module, lambda p, t, scale=scale: scale * F.mse_loss(p, t))
        theta = learner.initial(torch.Generator().manual_seed(0))
        theta[64:128] = -theta[:64] * tasks().support.inputs[1, 0]  # each unit is 0 at this input
        adapt(rule_for(learner), learner, theta, tasks().support, steps=0)
        assert learner.checked


class OffByRounding(Net):
    """Alone it is exact; beside others its last digit is another, as that of a sum in another order is."""

    def forward(self, x):
        noise = 1e-16 if torch._C._functorch.peek_interpreter_stack() is not None else 0.0
        return self.linear(x) + noise


def test_a_solved_task_has_no_loss_to_measure_rounding_by():
    learner = BaseLearner(OffByRounding().double(), F.mse_loss)
    theta, inputs = learner.initial(torch.Generator().manual_seed(0)), torch.rand(3, 4, 1).double()
    with torch.no_grad():
        solved = Batch(inputs, torch.stack([learner.predict(theta, x) for x in inputs]))
    adapt(rule_for(learner).double(), learner, theta, solved, steps=1)


def test_the_error_says_how_far_the_answers_are_apart():
    learner = BaseLearner(nn.Sequential(nn.Linear(1, 1), Doubles()), lambda p, t: (p - t).mean())
    with pytest.raises(UsageError) as caught:
        adapt(rule_for(learner), learner, torch.ones(2), tasks().support, steps=1)
    assert 20 <= int(re.search(r"(\d+) % off", str(caught.value))[1]) <= 200


class Centres(Net):
    """It keeps the mean of the first data that it sees."""

    mean = None

    def prepare(self, x):
        if self.mean is None:
            self.mean = x.mean(0).detach()
        return x - self.mean


class Scales(Net):
    """It keeps the norm of the first θ that it sees, for each number of examples."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = {}

    def prepare(self, x):
        if len(x) not in self.norms:
            self.norms[len(x)] = self.linear.weight.detach().norm()
        return x / (1 + self.norms[len(x)])


class Places(Net):
    """It keeps what depends on the number of examples alone."""

    def __init__(self) -> None:
        super().__init__()
        self.places = {}

    def prepare(self, x):
        if len(x) not in self.places:
            self.places[len(x)] = torch.arange(len(x)).to(x).unsqueeze(-1)
        return x + self.places[len(x)]


class Shows(Net):
    """It keeps what it has computed last, for others to look at."""

    def prepare(self, x):
        self.seen = x.detach()
        return x


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("module", "attribute"), [(Centres, "mean"), (Scales, "norms")])
def test_what_is_kept_from_the_first_call_is_refused(module, attribute, batched):
    learner = BaseLearner(module(), F.mse_loss)
    learner.use_vmap = batched
    with pytest.raises(UsageError, match=f"{module.__name__} changes its '{attribute}' in forward"):
        meta_gradient(rule_for(learner), learner, torch.ones(2), tasks(), steps=2)
    learner.initial(torch.Generator())  # nothing was left in it


@pytest.mark.parametrize("module", [Places, Shows])
def test_what_is_kept_and_changes_no_answer_is_taken(module):
    def loss_of(batched):
        learner = BaseLearner(module(), F.mse_loss)
        learner.use_vmap = batched
        return meta_gradient(rule_for(learner), learner, torch.ones(2), tasks(), steps=2)[0]

    torch.testing.assert_close(loss_of(True), loss_of(False))


class Square(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class Squares(Net):
    def prepare(self, x):
        return Square.apply(self.linear(x))


def test_a_function_of_ones_own_that_is_differentiable_once_takes_the_first_order():
    """Torch differentiates it a second time without a word, and wrongly."""
    learner = BaseLearner(Squares(), F.mse_loss)
    rule = rule_for(learner)
    with pytest.raises(UsageError, match=r"Square is once_differentiable: .*order=\"first\""):
        meta_gradient(rule, learner, torch.ones(2), tasks(), steps=2)
    with pytest.raises(UsageError, match="Square is once_differentiable"):
        CompiledMetaGradient(rule, learner, steps=2)(torch.ones(2), tasks())
    meta_gradient(rule, learner, torch.ones(2), tasks(), steps=2, order="first")


class Embeds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(4, 1, generator=torch.Generator().manual_seed(0)))

    def forward(self, tokens):
        return F.embedding(tokens, self.rows, padding_idx=0).mean(1)


def test_what_the_query_sets_alone_show_is_found():
    draw = torch.Generator().manual_seed(0)

    def batch(lowest):
        return Batch(torch.randint(lowest, 4, (5, 3), generator=draw), torch.randn(5, 1, generator=draw))

    padded = Task.stack([Task(batch(1), batch(0)) for _ in range(3)])
    learner = BaseLearner(Embeds(), F.mse_loss)
    with pytest.raises(UsageError, match="gives another answer for several tasks at once"):
        meta_gradient(rule_for(learner), learner, torch.ones(4), padded, steps=1)
