"""Batches of small products: torch's own to rounding, in every layout, and laid out where they are wanted."""

import functools
import shutil

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metalearn_core import make_rule, meta_gradient
from metalearn_core.kernels import products
from metalearn_core.kernels.programs import CompiledMetaGradient, traced
from metalearn_core.testing import Architecture, Problem

if not shutil.which("g++"):
    pytest.skip("needs g++, a C++ compiler", allow_module_level=True)

aten = torch.ops.aten
sides = st.integers(1, 50)


def factor(batch, rows, columns, layout, dtype, generator):
    """Upright, turned, or every second number of a larger one."""
    if layout == "turned":
        return torch.randn(batch, columns, rows, dtype=dtype, generator=generator).mT
    if layout == "sparse":
        return torch.randn(batch, 2 * rows, 2 * columns, dtype=dtype, generator=generator)[:, ::2, ::2]
    return torch.randn(batch, rows, columns, dtype=dtype, generator=generator)


@given(
    batch=st.integers(1, 40),
    rows=sides,
    depth=sides,
    columns=sides,
    layouts=st.tuples(*[st.sampled_from(["upright", "turned", "sparse"])] * 2),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_the_product_is_torchs(batch, rows, depth, columns, layouts, dtype, seed):
    products.load()
    generator = torch.Generator().manual_seed(seed)
    a = factor(batch, rows, depth, layouts[0], dtype, generator)
    b = factor(batch, depth, columns, layouts[1], dtype, generator)
    ours, exact = torch.ops.metalearn.bmm(a, b), a.double() @ b.double()
    assert ours.shape == (batch, rows, columns)
    assert ours.is_contiguous()
    bound = 1e-6 if dtype == torch.float32 else 1e-14
    assert float((ours - exact).abs().max()) <= bound * depth * max(1.0, float(exact.abs().max()))


def test_what_is_not_a_number_spreads_no_further_than_it_should():
    """The lanes beside a product's last column hold nothing of it."""
    products.load()
    a, b = torch.ones(5, 3, 4), torch.ones(5, 4, 7)
    b[2, 1, 6] = float("nan")
    expected = torch.full((5, 3, 7), 4.0)
    expected[2, :, 6] = float("nan")
    torch.testing.assert_close(torch.ops.metalearn.bmm(a, b), expected, equal_nan=True)


def nodes_of(problem, rule):
    step = CompiledMetaGradient(rule, problem.learner, steps=problem.steps)
    arguments = [problem.theta, *(p.detach() for p in rule.parameters()), *problem.task.tensors]
    return traced(functools.partial(step._traced, problem.task), arguments), arguments


WIDE = Problem(Architecture((1, 9, 7, 1)), tasks=5, steps=2, seed=3)


@pytest.mark.parametrize("rule", ["gradient-descent", "feed-forward"])
def test_a_meta_step_with_its_products_arranged_is_the_eager_one(rule):
    made = make_rule(rule, WIDE.learner.layout).double()
    program, _ = nodes_of(WIDE, made)
    targets = [node.target for node in program.graph.nodes]
    assert torch.ops.metalearn.bmm.default in targets
    other = attrs.evolve(WIDE, seed=4)
    with torch.no_grad():
        ours = program(other.theta, *(p.detach() for p in made.parameters()), *other.task.tensors)
    loss, grad, phi = meta_gradient(made, other.learner, other.theta, other.task, steps=2)
    for a, b in zip(ours, [loss, grad, *phi.values()], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_gradients_of_weights_lie_upright_in_theta():
    """What is laid flat into θ is contiguous as it comes: nothing is copied number after number."""
    program, arguments = nodes_of(WIDE, make_rule("gradient-descent", WIDE.learner.layout).double())
    matrix, seen = (7, 9), {}

    def turned(node):
        """The value's layout as the program now finds it."""
        return seen[node.args[0]].stride()[-2:] != (matrix[1], 1)

    class Record(torch.fx.Interpreter):
        def run_node(self, node):
            seen[node] = super().run_node(node)
            return seen[node]

    with torch.no_grad():
        Record(program).run(*arguments)
    laid = [n for n in program.graph.nodes if n.target is aten.clone.default]
    matrices = [n for n in laid if tuple(seen[n].shape[-2:]) == matrix]
    assert matrices
    assert not any(map(turned, matrices))


def test_few_products_large_ones_and_sums_are_left_to_torch():
    def is_ours(a, b, **kind):
        return products._is_ours(torch.empty(a, **kind), torch.empty(b, **kind))

    assert is_ours((4, 5, 6), (4, 6, 7))
    assert not is_ours((3, 5, 6), (3, 6, 7))
    assert not is_ours((4, 5, 6), (4, 6, 1))
    assert not is_ours((4, 65, 64), (4, 64, 64))
    assert not is_ours((4, 5, 6), (4, 6, 7), dtype=torch.float16)
    assert not is_ours((4, 5, 6), (4, 6, 7), device="meta")
