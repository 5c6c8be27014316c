"""The laws of outer gradients: the shipped ones keep them, and each law catches one that breaks it."""

from __future__ import annotations

import inspect

import pytest
import torch

from metalearn_core import UsageError, make_rule, meta_gradient
from metalearn_core.testing import META_GRADIENT_LAWS, check_meta_gradient


def failed(gradient, **options):
    return {r.law: r.message for r in check_meta_gradient(gradient, **options) if r.status == "failed"}


@pytest.mark.parametrize(
    "name", ["backpropagation", "reptile", "implicit", "evolution", "hessian-free", "mixed-mode"]
)
def test_the_shipped_ones_keep_every_law(name):
    options = {"regularisation": 2.0} if name == "implicit" else {}
    assert failed(name, **options) == {}


@pytest.mark.parametrize("name", ["backpropagation", "evolution", "hessian-free", "mixed-mode"])
def test_those_that_know_of_phi_keep_them_with_a_network(name):
    assert failed(name, rule=lambda layout: make_rule("feed-forward", layout, hidden=[2])) == {}


def infinite(*arguments, **settings):
    loss, grad, of_phi = meta_gradient(*arguments, **settings)
    return loss, grad / 0, of_phi


def random(*arguments, **settings):
    loss, grad, of_phi = meta_gradient(*arguments, **settings)
    return loss, grad + torch.randn(grad.shape), of_phi


def mixing(rule, learner, theta, task, **settings):
    loss, grad, of_phi = meta_gradient(rule, learner, theta, task, **settings)
    return loss, grad * len(task), of_phi


def rowless(rule, learner, theta, task, **settings):
    loss, grad, of_phi = meta_gradient(rule, learner, theta, task, **settings)
    return loss, grad * theta.ndim, of_phi


def writing(rule, learner, theta, task, **settings):
    loss, grad, of_phi = meta_gradient(rule, learner, theta, task, **settings)
    theta.add_(1.0)
    return loss, grad, of_phi


def wide(*arguments, **settings):
    loss, grad, of_phi = meta_gradient(*arguments, **settings)
    return loss, grad.double(), of_phi


def forgetful(*arguments, **settings):
    loss, grad, _ = meta_gradient(*arguments, **settings)
    return loss, grad, {}


def deaf(rule, learner, theta, task, *, steps):
    return meta_gradient(rule, learner, theta, task, steps=steps)


@pytest.mark.parametrize(
    ("gradient", "law", "told"),
    [
        (infinite, "answers", "a NaN or an infinity"),
        (forgetful, "every-phi", "'that for inner_lr': ()"),
        (deaf, "answers", "unexpected keyword argument 'order'"),
        (random, "repeats", "draw by `keys`"),
        (mixing, "tasks-alone", "it mixes tasks"),
        (rowless, "own-starts", "do not sum"),
        (writing, "writes-nothing", "it writes to θ⁰"),
        (wide, "follows-dtype", "make constants like theta"),
    ],
)
def test_each_law_catches_one_that_breaks_it(gradient, law, told):
    assert told in failed(gradient)[law]


def test_what_it_refuses_is_its_failure_and_a_name_that_is_not_there_the_users():
    assert "does not hold θ at θ⁰" in failed("implicit")["answers"]
    with pytest.raises(UsageError, match="unknown meta-gradient 'reptle'"):
        check_meta_gradient("reptle")
    assert all(inspect.getdoc(law) for law in META_GRADIENT_LAWS.values())
