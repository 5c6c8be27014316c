"""The inner loop and its meta-gradients: against a plain loop, closed forms and finite differences."""

import functools

import plain_loop as reference
import pytest
import torch
from hypothesis import given
from plain_loop import RULES, networks, quadratic, rule_of, seeded
from torch import nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from metalearn_core import (
    BaseLearner,
    Clipping,
    Task,
    UpdateRule,
    UsageError,
    adapt,
    make_rule,
    meta_gradient,
    trajectory,
)
from metalearn_core.testing import strategies

ORDERS = ("first", "second")
NETS = networks()
SOME_RULES = ("gradient-descent-parameter", "lstm-program", "feed-forward-tanh-all")
both_orders = pytest.mark.parametrize("order", ORDERS)

close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)


def agrees_with_the_reference(name, net, task, steps, order, clip=None, by_hand=lambda grad: grad):
    rule = rule_of(name, net.learner)
    ours = meta_gradient(rule, net.learner, net.theta, task, steps=steps, order=order, clip=clip)
    close(ours, reference.meta_gradient(rule, net, net.theta, task, steps, order, by_hand))


@both_orders
@pytest.mark.parametrize("name", RULES)
def test_every_rule_agrees_with_the_plain_loop(name, order):
    agrees_with_the_reference(name, NETS["tanh"], NETS["tanh"].task(count=2), 3, order)


@both_orders
@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("name", SOME_RULES)
def test_every_number_of_steps_agrees_with_the_plain_loop(name, steps, order):
    agrees_with_the_reference(name, NETS["frozen"], NETS["frozen"].task(count=2), steps, order)


@both_orders
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", [*SOME_RULES, "gradient-descent-adam", "feed-forward-log"])
def test_every_architecture_agrees_with_the_plain_loop(name, net, order):
    agrees_with_the_reference(name, NETS[net], NETS[net].task(), 2, order)


@both_orders
@pytest.mark.parametrize("name", SOME_RULES)
def test_a_single_task_is_a_meta_batch_of_one(name, order):
    net = NETS["tanh"]
    agrees_with_the_reference(name, net, net.task()[1], 2, order)


@both_orders
@pytest.mark.parametrize(
    ("by", "limit", "by_hand"),
    [
        (by, limit, make(limit))
        for by, make in (("value", reference.clip_by_value), ("norm", reference.clip_by_norm))
        for limit in (0.05, 0.6, 100.0)  # all, some and none are clipped
    ],
)
@pytest.mark.parametrize("name", ["gradient-descent-scalar", "lstm-equation"])
def test_inner_gradients_are_clipped_task_by_task(name, by, limit, by_hand, order):
    net = NETS["tanh"]
    agrees_with_the_reference(name, net, net.task(), 3, order, Clipping(by, limit), by_hand)


@pytest.mark.parametrize(
    ("by", "clip"), [("value", nn.utils.clip_grad_value_), ("norm", nn.utils.clip_grad_norm_)]
)
def test_clipping_is_torchs_own(by, clip):
    vector = nn.Parameter(torch.zeros(4))
    vector.grad = torch.tensor([3.0, -0.2, 0.0, -4.0])
    ours = Clipping(by, 0.5)(vector.grad.clone())
    clip([vector], 0.5)
    torch.testing.assert_close(ours, vector.grad)


@pytest.mark.parametrize(("by", "limit"), [("sum", 1.0), ("norm", 0.0), ("value", -1.0)])
def test_clipping_that_makes_no_sense_is_refused(by, limit):
    with pytest.raises(ValueError, match="by must be" if by == "sum" else "limit must be"):
        Clipping(by, limit)


@both_orders
@pytest.mark.parametrize("steps", range(6))
def test_closed_form_on_a_quadratic(steps, order):
    learner, theta, alpha, n = quadratic(4), seeded(4, seed=1), 0.05, 4
    a, inputs, query = seeded(n, 1, seed=2), seeded(6, n, seed=3), seeded(5, n, seed=4)
    target = seeded(5, 1, seed=5)
    task = Task.of((inputs, inputs @ a, query, target), stacked=False)
    rule = make_rule("gradient-descent", learner.layout, inner_lr=alpha, learn_lr="scalar").double()
    alpha = rule.inner_lr.item()

    hessian, a, power = inputs.T @ inputs, a[:, 0], torch.linalg.matrix_power
    shrink = torch.eye(n, dtype=theta.dtype) - alpha * hessian
    end = a + power(shrink, steps) @ (theta - a)
    outer = query.T @ (query @ end - target[:, 0])
    grads = [hessian @ power(shrink, t) @ (theta - a) for t in range(steps)]
    if order == "second":
        for_theta = power(shrink, steps) @ outer
        # the derivative of (I − αH)ᵀ (θ⁰ − a) for α
        slope = -steps * (grads[-1] if steps else torch.zeros_like(theta))
    else:
        for_theta, slope = outer, -sum(grads, torch.zeros_like(theta))

    close(adapt(rule, learner, theta, task.support, steps=steps, order=order), end)
    loss, grad, phi = meta_gradient(rule, learner, theta, task, steps=steps, order=order)
    close(loss, 0.5 * (query @ end - target[:, 0]).square().sum())
    close(grad, for_theta)
    close(phi, {"inner_lr": slope @ outer})


class Unrolled(nn.Module):
    """The outer loss as a module that holds the rule, so that φ can be handed in."""

    def __init__(self, rule, learner, task, steps):
        super().__init__()
        self.rule, self.learner, self.task, self.steps = rule, learner, task, steps

    def forward(self, theta):
        end = adapt(self.rule, self.learner, theta, self.task.support, steps=self.steps)
        return self.learner.loss(end, self.task.query)


SMOOTH_RULES = (
    "gradient-descent-scalar", "gradient-descent-tensor", "gradient-descent-parameter",
    "gradient-descent-sgd-nesterov", "gradient-descent-adam-amsgrad", "gradient-descent-adadelta",
    "gradient-descent-rmsprop-centered", "lstm-equation", "lstm-logit", "lstm-scaled",
    "feed-forward-linear-all", "feed-forward-tanh-all", "feed-forward-sigmoid",
    "feed-forward-gelu-theta", "feed-forward-history-grad-alone",
)  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH_RULES)
def test_finite_differences_confirm_the_second_order(name):
    learner = strategies.Architecture((2, 2, 1), "tanh").learner()
    task = Task.of([seeded(3, width, seed=width + s) for s in (0, 5) for width in (2, 1)], stacked=False)
    unrolled = Unrolled(rule_of(name, learner), learner, task, 2)
    names = [phi for phi, _ in unrolled.named_parameters()]

    def outer(theta, *phi):
        return functional_call(unrolled, dict(zip(names, phi, strict=True)), (theta,))

    start = seeded(learner.layout.size, seed=3).requires_grad_()
    phi = [p.detach().clone().requires_grad_() for p in unrolled.parameters()]
    # undefined gradients, which no loop produces, are more than higher's hooks can take
    assert torch.autograd.gradcheck(outer, (start, *phi), atol=1e-6, check_undefined_grad=False)


@given(problem=strategies.problems(smooth=True))
def test_finite_differences_confirm_the_second_order_of_drawn_problems(problem):
    rule = make_rule("gradient-descent", problem.learner.layout, inner_lr=0.1)
    unrolled = Unrolled(rule, problem.learner, problem.task[0], min(problem.steps, 3))
    assert torch.autograd.gradcheck(unrolled, (problem.theta.requires_grad_(),), atol=1e-6)


def orders(rule, net, steps):
    """Both orders' gradients: for θ⁰, and for φ as one vector."""
    results = [
        meta_gradient(rule, net.learner, net.theta, net.task(), steps=steps, order=order) for order in ORDERS
    ]
    assert results[0][0] == results[1][0]  # the order changes derivatives, never values
    return [(grad, torch.cat([grad[:0], *(g.flatten() for g in phi.values())])) for _, grad, phi in results]


@pytest.mark.parametrize("name", SOME_RULES)
def test_the_orders_differ_exactly_where_they_must(name):
    rule = rule_of(name, NETS["tanh"].learner)
    for steps, theta_differs, phi_differs in ((0, False, False), (1, True, False), (2, True, True)):
        first, second = orders(rule, NETS["tanh"], steps)
        for ours, theirs, differ in zip(first, second, (theta_differs, phi_differs), strict=True):
            apart = (ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)
            assert apart > 1e-5 if differ else apart < 1e-12, (steps, apart)


@pytest.mark.parametrize(
    ("name", "equal"),
    [
        ("gradient-descent-scalar", True), ("gradient-descent-sgd-momentum", True),
        ("lstm-grad", True), ("feed-forward-default", True), ("feed-forward-history-grad", True),
        ("gradient-descent-sgd-nesterov", True), ("lstm-equation", False), ("lstm-loss", False),
        ("feed-forward-sigmoid", False),
    ],
)  # fmt: skip
def test_without_curvature_the_orders_differ_by_the_loss_alone(name, equal):
    # prediction and loss linear in θ: the support gradient is a constant, the support loss is not
    net = reference.Net(nn.Linear(3, 2), lambda prediction, target: (prediction * target).mean(), (3,))
    first, second = orders(rule_of(name, net.learner), net, 3)
    same = [torch.allclose(a, b, rtol=1e-12, atol=0) for a, b in zip(first, second, strict=True)]
    assert same == ([True, True] if equal else [False, False])


def test_without_a_graph_a_start_that_wants_gradients_is_one_that_does_not():
    """A parameter as θ⁰, shared by several tasks: each still follows its own gradient alone."""
    net = NETS["tanh"]
    rule, task = rule_of("gradient-descent-parameter", net.learner), net.task(count=3)
    with torch.no_grad():
        wanted = adapt(rule, net.learner, net.theta.detach(), task.support, steps=2)
        found = adapt(rule, net.learner, nn.Parameter(net.theta.detach().clone()), task.support, steps=2)
    close(found, wanted)


@both_orders
@pytest.mark.parametrize("name", RULES)
def test_without_grad_no_graph_is_kept_and_the_values_are_the_same(name, order):
    net = NETS["tanh"]
    rule, support = rule_of(name, net.learner), net.task().support
    arguments = rule, net.learner, net.theta, support
    tracked = [theta for theta, _ in trajectory(*arguments, steps=3, order=order)]
    with torch.no_grad():
        for (theta, state), expected in zip(
            trajectory(*arguments, steps=3, order=order), tracked, strict=True
        ):
            close(theta, expected.detach(), rtol=0, atol=0)
            leaves = [theta, *pytree.tree_leaves(state)]
            assert not any(leaf.requires_grad or leaf.grad_fn for leaf in leaves)
    assert tracked[-1].grad_fn


@pytest.mark.parametrize("steps", [0, 1])
def test_without_grad_a_start_that_requires_it_leaves_no_trace(steps):
    net = NETS["tanh"]
    rule, theta = rule_of("lstm-equation", net.learner), net.theta.clone().requires_grad_()
    with torch.no_grad():
        assert not adapt(rule, net.learner, theta, net.task().support, steps=steps).requires_grad


@given(problem=strategies.problems(), name=strategies.st.sampled_from(SOME_RULES))
def test_a_meta_batch_is_its_tasks_one_by_one(problem, name):
    learner, theta, task = problem.learner, problem.theta, problem.task
    rule = rule_of(name, learner)
    run = functools.partial(adapt, rule, learner, steps=problem.steps)
    together = run(theta, task.support)
    assert together.shape == (len(task), learner.layout.size)
    close(together, torch.stack([run(theta, task[i].support) for i in range(len(task))]))

    compute = functools.partial(meta_gradient, rule, learner, steps=problem.steps)
    loss, grad, phi = compute(theta, task)
    alone = [compute(theta, task[i]) for i in range(len(task))]
    close((loss, grad, phi), pytree.tree_map(lambda *parts: sum(parts) / len(parts), *alone))
    starts = compute(theta.repeat(len(task), 1), task)[1]
    close(starts.sum(0), grad)
    for row, (_, single, _) in zip(starts, alone, strict=True):
        close(row * len(task), single)


@pytest.mark.parametrize("name", ["gradient-descent-adam", "lstm-wide", "feed-forward-history-grad"])
@pytest.mark.parametrize("stacked", [True, False])
def test_trajectory_yields_every_step_and_ends_where_adapt_does(name, stacked):
    net = NETS["tanh"]
    rule, task = rule_of(name, net.learner), net.task() if stacked else net.task()[0]
    path = list(trajectory(rule, net.learner, net.theta, task.support, steps=4))
    assert len(path) == 5
    for t, (theta, state) in enumerate(path):
        lead = theta.shape[:-1]
        assert lead == ((3,) if stacked else ())
        for leaf in pytree.tree_leaves(state):
            assert (*leaf.shape[: len(lead)], leaf.shape[-1]) == theta.shape
        close(theta, adapt(rule, net.learner, net.theta, task.support, steps=t), rtol=0, atol=0)


def test_frozen_meta_parameters_and_unused_ones_have_gradients_of_zeros():
    net = NETS["tanh"]
    rule = rule_of("lstm-equation", net.learner)
    rule.forget_gate.bias.requires_grad_(False)
    rule.unused = nn.Parameter(seeded(2, 3, seed=0))
    _, _, phi = meta_gradient(rule, net.learner, net.theta, net.task(), steps=2)
    assert list(phi) == [name for name, _ in rule.named_parameters()]
    zero = {name for name, g in phi.items() if not g.any()}
    assert zero == {"forget_gate.bias", "unused"}


def test_a_loss_that_the_start_does_not_reach_has_a_gradient_of_zeros():
    class Forgets(UpdateRule):
        def update(self, theta, signal, state):
            return torch.zeros_like(theta), state

    net = NETS["tanh"]
    _, grad, phi = meta_gradient(Forgets(), net.learner, net.theta, net.task(), steps=2)
    assert (grad.count_nonzero(), phi) == (0, {})


def test_meta_gradient_writes_to_nothing():
    net = NETS["tanh"]
    rule, theta = rule_of("lstm-equation", net.learner), net.theta.clone().requires_grad_()
    with torch.no_grad():
        meta_gradient(rule, net.learner, theta, net.task(), steps=2)
    assert all(p.grad is None for p in (theta, *rule.parameters(), *net.module.parameters()))
    assert torch.equal(theta, net.theta)


@pytest.mark.parametrize("steps", [-1, True, 1.0, "2", None])
def test_steps_must_be_a_count(steps):
    net = NETS["tanh"]
    arguments = rule_of("lstm-grad", net.learner), net.learner, net.theta, net.task().support
    for function in (adapt, trajectory):
        with pytest.raises(UsageError, match=f"steps must be an integer >= 0, got {steps!r}"):
            function(*arguments, steps=steps)


@pytest.mark.parametrize("order", ["frist", "third", None, 2])
def test_an_unknown_order_is_refused(order):
    net = NETS["tanh"]
    with pytest.raises(UsageError, match=f"order '{order}'.*first, second"):
        meta_gradient(
            rule_of("lstm-grad", net.learner), net.learner, net.theta, net.task(), steps=1, order=order
        )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rule": None}, "adapt: rule must be a UpdateRule, got a NoneType"),
        ({"learner": torch.nn.Linear(1, 1)}, "learner must be a BaseLearner, got a Linear"),
        ({"theta": [0.0]}, "theta must be a Tensor, got a list"),
        ({"support": NETS["tanh"].task()}, "support must be a Batch, got a Task"),
        ({"clip": 10.0}, "clip must be a Clipping or None, got a float"),
        ({"theta": NETS["tanh"].theta.float()}, r"theta is torch\.float32 and the learner torch\.float64"),
    ],
)
def test_an_argument_of_another_kind_is_refused_by_its_name(changed, said):
    net = NETS["tanh"]
    given = {
        "rule": rule_of("lstm-grad", net.learner), "learner": net.learner, "theta": net.theta,
        "support": net.task().support, "steps": 1,
    }  # fmt: skip
    with pytest.raises(UsageError, match=said):
        adapt(**given | changed)


def test_inference_mode_is_refused_with_the_remedy():
    net = NETS["tanh"]
    rule, support = rule_of("lstm-grad", net.learner), net.task().support
    with torch.inference_mode(), pytest.raises(UsageError, match=r"use torch\.no_grad\(\)"):
        adapt(rule, net.learner, net.theta, support, steps=1)


@pytest.mark.parametrize("how", [{"truncate": 0}, {"truncate": -1}, {"outer_decay": -1}, {"outer_decay": 0}])
def test_a_truncation_or_a_decay_that_there_is_not_is_refused(how):
    net = NETS["tanh"]
    rule = rule_of("lstm-grad", net.learner)
    with pytest.raises(UsageError, match=f"meta_gradient: {next(iter(how))} must be"):
        meta_gradient(rule, net.learner, net.theta, net.task(), steps=2, **how)


@pytest.mark.parametrize("shape", [(3,), (), (2, 54), (3, 54, 1), (3, 53)])
def test_a_start_of_another_shape_is_refused(shape):
    net = NETS["tanh"]
    assert net.theta.shape == (54,)
    with pytest.raises(UsageError) as error:
        adapt(rule_of("lstm-grad", net.learner), net.learner, torch.zeros(shape), net.task().support, steps=1)
    assert "theta must be [n] or [tasks, n] with n = 54 and 3 task(s)" in str(error.value)
    assert str(shape) in str(error.value)


class Answers(UpdateRule):
    """A rule whose answer is the function it is given, for what the loop says of bad ones."""

    def __init__(self, answer, start=lambda theta: (), elementwise=False):
        super().__init__()
        self.answer, self.start, self.elementwise = answer, start, elementwise

    def init_state(self, theta):
        return self.start(theta)

    def update(self, theta, signal, state):
        return self.answer(theta, signal, state)


BAD_ANSWERS = {
    "reads loss": (lambda t, s, state: (t - s.loss * s.grad, state), "uses_loss = True"),
    "reads step": (lambda t, s, state: (t - s.step * s.grad, state), "uses_step = True"),
    "another shape": (lambda t, s, state: (t[..., :-1], state), "θ of shape"),
    "one axis more": (lambda t, s, state: (t[..., None], state), "θ of shape"),
    "another dtype": (lambda t, s, state: (t.float(), state), "torch.float32"),
    "no tensor": (lambda t, s, state: (0.0, state), "θ that update returns must be made of tensors"),
    "another state": (lambda t, s, state: (t, s.grad), "(theta, state)"),
    "theta alone": (lambda t, s, state: t, "(theta, state)"),
    "nothing": (lambda t, s, state: None, "(theta, state)"),
}


@pytest.mark.parametrize("elementwise", [True, False])
@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_a_rule_that_breaks_its_contract_is_named(case, elementwise):
    answer, said = BAD_ANSWERS[case]
    net = NETS["tanh"]
    with pytest.raises(UsageError) as error:
        adapt(Answers(answer, elementwise=elementwise), net.learner, net.theta, net.task().support, steps=2)
    assert "Answers" in str(error.value)
    assert said in str(error.value)


BAD_STATES = {
    "grows": (torch.zeros_like, lambda t, s, state: (t, torch.cat([state, t], -1))),
    "another dtype": (torch.zeros_like, lambda t, s, state: (t, state.float())),
    "becomes a number": (torch.zeros_like, lambda t, s, state: (t, 0.0)),
    "another key": (lambda t: {"v": t}, lambda t, s, state: (t, {"m": t})),
    "a number": (lambda t: 0.0, lambda t, s, state: (t, state)),
    "None": (lambda t: None, lambda t, s, state: (t, state)),
}


@pytest.mark.parametrize("elementwise", [True, False])
@pytest.mark.parametrize("case", BAD_STATES)
def test_a_state_that_breaks_the_contract_is_named(case, elementwise):
    start, answer = BAD_STATES[case]
    net = NETS["tanh"]
    with pytest.raises(UsageError, match=r"Answers.*state"):
        adapt(Answers(answer, start, elementwise), net.learner, net.theta, net.task().support, steps=2)


def test_a_learner_without_parameters_to_adapt_stays_as_it_is():
    learner = BaseLearner(nn.Linear(2, 1).requires_grad_(False).double(), nn.functional.mse_loss)
    theta = learner.initial(torch.Generator().manual_seed(0)).double()
    task = Task.of([seeded(2, 3, width, seed=width) for width in (2, 1, 2, 1)], stacked=True)
    rule = make_rule("gradient-descent", learner.layout)
    loss, grad, _ = meta_gradient(rule, learner, theta, task, steps=2)
    assert torch.isfinite(loss)
    assert grad.shape == (0,)
