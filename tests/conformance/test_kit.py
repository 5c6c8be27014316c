"""The three entrances to the laws: results, tests of pytest, and what is known to fail."""

from __future__ import annotations

import importlib.metadata
import inspect

import pytest
import torch
from torch import nn

from metalearn_core import ParameterLayout, UpdateRule, UsageError
from metalearn_core.testing import LAWS, SLOW_LAWS, check_update_rule, parametrize_with_laws
from metalearn_core.testing.kit import tier

pytest_plugins = ["pytester"]


class Good(UpdateRule):
    """θ ← θ − α∇L."""

    starts_as_descent = True

    def __init__(self, layout):
        super().__init__()
        self.inner_lr = nn.Parameter(torch.tensor(0.01))

    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad, state


class Detached(Good):
    def update(self, theta, signal, state):
        return theta - self.inner_lr * signal.grad.detach(), state


class Constant(Good):
    """It learns nothing: whatever θ was, the next one is 0."""

    def update(self, theta, signal, state):
        return 0 * self.inner_lr * theta * signal.grad, state


def statuses(*args, **options):
    return {result.law: result.status for result in check_update_rule(*args, **options)}


def test_slow_laws_are_kept_by_a_good_rule_and_asked_for():
    found = statuses(Good, slow=True)
    assert list(found) == [*LAWS, *SLOW_LAWS]
    assert found["resumes"] == found["learns"] == found["compiled"] == "passed"
    assert list(statuses(Good)) == list(LAWS)


def test_a_rule_that_does_not_learn_fails_that_law():
    with pytest.raises(AssertionError, match="meta-training leave the query loss"):
        SLOW_LAWS["learns"](Constant)


class DrawsWhileItTrains(Good):
    """Its α shrinks at every call by a number that no state dict holds."""

    calls = 0

    def update(self, theta, signal, state):
        DrawsWhileItTrains.calls += 1
        return theta - self.inner_lr / DrawsWhileItTrains.calls * signal.grad, state


def test_a_rule_with_a_memory_of_its_own_does_not_resume():
    with pytest.raises(AssertionError, match="from a checkpoint ends elsewhere"):
        SLOW_LAWS["resumes"](DrawsWhileItTrains)


def test_a_program_is_held_against_eager_code_that_goes_on_changing():
    with pytest.raises(AssertionError, match="compiled meta-gradient is not the eager one"):
        SLOW_LAWS["compiled"](DrawsWhileItTrains)


def test_a_failure_that_is_expected_is_said_with_its_reason():
    results = {r.law: r for r in check_update_rule(Detached, expected_failures={"order": "first order"})}
    assert results["order"].status == "expected"
    assert results["order"].message.startswith("first order: the second-order meta-gradient")


def test_a_law_that_is_skipped_stays_so_whatever_was_expected():
    expected = {"order": "first order", "unrolled": "likewise", "elementwise": "undeclared"}
    expected["finite-differences"] = "first order"
    found = statuses(Detached, expected_failures=expected, skip=["unrolled"])
    assert found["order"] == "expected"
    assert found["unrolled"] == found["elementwise"] == "skipped"
    assert "failed" not in found.values()


def test_laws_of_capabilities_are_optional_and_all_others_basic_or_slow():
    tiers = {result.law: result.tier for result in check_update_rule(Good)}
    optional = {law for law, tier in tiers.items() if tier == "optional"}
    assert optional == {
        name for name in LAWS if isinstance(getattr(UpdateRule, name.replace("-", "_"), None), bool)
    }
    assert set(tiers.values()) == {"basic", "optional"}
    assert {tier(law) for law in SLOW_LAWS} == {"slow"}


def test_a_law_that_holds_against_expectation_fails():
    results = {r.law: r for r in check_update_rule(Good, expected_failures={"order": "first order"})}
    assert results["order"].status == "failed"
    assert "expect it no longer" in results["order"].message


@pytest.mark.parametrize("reason", ["", "  "])
def test_an_expected_failure_needs_its_reason(reason):
    with pytest.raises(UsageError, match="law 'order' needs a reason"):
        check_update_rule(Good, expected_failures={"order": reason})


def test_arguments_of_another_kind_are_one_line():
    with pytest.raises(UsageError, match="skip: expected a collection of names of laws, got 'order'; write"):
        check_update_rule(Good, skip="order")
    for call in (lambda **o: check_update_rule(Good, **o), lambda **o: parametrize_with_laws(Good, **o)):
        with pytest.raises(UsageError, match=r"expected \{law: reason\}, the reason .*, got a list"):
            call(expected_failures=["order"])
        with pytest.raises(UsageError, match="law 'order' needs a reason"):
            call(expected_failures={"order": None})
    for entrance in (check_update_rule, parametrize_with_laws):
        with pytest.raises(UsageError, match=r"make_rule: expected a rule's registered name, .* got a Good"):
            entrance(Good(ParameterLayout(("w",), ((2,),))))


def test_expectations_name_laws_that_there_are():
    for call in (lambda **o: check_update_rule(Good, **o), lambda **o: parametrize_with_laws(Good, **o)):
        with pytest.raises(UsageError, match="unknown law 'ordr': did you mean 'order'"):
            call(expected_failures={"ordr": "so"})
    with pytest.raises(UsageError, match="give it a rule"):
        parametrize_with_laws()


def test_an_installed_rule_goes_by_its_name():
    assert "failed" not in statuses("gradient-descent").values()
    for entrance in (check_update_rule, parametrize_with_laws):
        with pytest.raises(UsageError, match="unknown rule 'gradient-decent': did you mean"):
            entrance("gradient-decent")


class DifferentiatesItself(Good):
    def update(self, theta, signal, state):
        (more,) = torch.autograd.grad(signal.grad.square().sum(), theta)
        return theta - self.inner_lr * more, state


def test_in_pytest_too_what_torch_raises_is_said_with_what_to_change():
    cases = parametrize_with_laws(DifferentiatesItself).args[1]
    (law,) = (case.values[0] for case in cases if case.id.endswith("-structure"))
    with pytest.raises(RuntimeError, match="does not require grad") as raised:
        law()
    assert "take no gradient of your own" in raised.value.__notes__[0]


HEADER = "import torch\nfrom torch import nn\nfrom metalearn_core import UpdateRule\n\n"


def test_in_pytest_each_law_is_a_test_and_the_fixtures_are_there(pytester):
    pytester.makepyfile(
        strangers_rules=HEADER + inspect.getsource(Good) + inspect.getsource(Detached),
        test_stranger="""
        from strangers_rules import Detached, Good
        from metalearn_core.testing import parametrize_with_laws

        @parametrize_with_laws(Good, "lstm")
        def test_good(law):
            law()

        first_order = dict.fromkeys(["order", "finite-differences"], "it is of first order")

        @parametrize_with_laws(Detached, expected_failures=first_order)
        def test_known(law):
            law()

        @parametrize_with_laws(Detached)
        def test_broken(law):
            law()

        def test_fixtures(rule_registry, tiny_tasks):
            import torch
            assert not rule_registry.reports
            assert tiny_tasks.sample("train", 2, torch.Generator()).support.inputs.shape == (2, 5, 1)
        """,
    )
    plugin = ["-p", "metalearn_core.testing.pytest_plugin"]
    if any(p.value == plugin[1] for p in importlib.metadata.entry_points(group="pytest11")):
        plugin = []
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", *plugin)
    outcomes = result.parseoutcomes()
    assert outcomes["xfailed"] == 2
    assert outcomes["failed"] == 2
    laws = len(LAWS)
    assert outcomes["passed"] + outcomes["skipped"] == 4 * laws + 1 - 4
    result.stdout.fnmatch_lines(["*FAILED test_stranger.py::test_broken[[]Detached-order]*"])
