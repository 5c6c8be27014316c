"""Hypothesis strategies: architectures, problems on them, and what the options of rules are drawn from.

Hypothesis draws and shrinks shapes, counts and seeds; the elements of tensors come from the seeds.
"""

from __future__ import annotations

import functools
import typing

from hypothesis import strategies as st

from metalearn_core.testing.problems import (
    ACTIVATIONS,
    SMOOTH,
    AnyArchitecture,
    Architecture,
    ConvolutionalArchitecture,
    DtypeName,
    OddArchitecture,
    Problem,
)


def seeds() -> st.SearchStrategy[int]:
    """Seeds of generators."""
    return st.integers(0, 2**31)


def inner_steps(most: int = 5) -> st.SearchStrategy[int]:
    """T, from 0 to `most`."""
    return st.integers(0, most)


def inner_lrs(least: float = 1e-3, most: float = 0.99) -> st.SearchStrategy[float]:
    """Inner learning rates α."""
    return st.floats(least, most)


def closeness() -> st.SearchStrategy[float]:
    """How close an edge in the limit is asked to come: 2⁻ᵏ for k = 1 ... 60."""
    return st.integers(1, 60).map(lambda k: 2.0**-k)


def dtypes(*names: DtypeName) -> st.SearchStrategy[DtypeName]:
    """Names of floating-point types; by default float64 and float32."""
    chosen: tuple[DtypeName, ...] = names or ("float64", "float32")
    return st.sampled_from(chosen)


def widths(most_layers: int = 3, least: int = 2, most: int = 8) -> st.SearchStrategy[list[int]]:
    """Widths of the hidden layers of a rule's own network."""
    return st.lists(st.integers(least, most), min_size=1, max_size=most_layers)


@st.composite
def perceptrons(draw: st.DrawFn, *, smooth: bool = False) -> Architecture:
    """Perceptrons with 0 to 3 hidden layers, the first layers frozen or none, with biases or without."""
    hidden = draw(st.lists(st.integers(1, 6), max_size=3))
    loss = draw(_losses())
    outputs = draw(st.integers(1 if loss == "mse" else 2, 3))
    return Architecture(
        (draw(st.integers(1, 3)), *hidden, outputs),
        draw(_activations(smooth)),
        draw(st.integers(0, len(hidden))),
        draw(st.booleans()),
        loss,
    )


@st.composite
def convolutional(draw: st.DrawFn, *, smooth: bool = False) -> ConvolutionalArchitecture:
    """Convolutional networks with one or two layers, on images that need not be square."""
    channels = draw(st.lists(st.integers(1, 2), min_size=2, max_size=3))
    sides, kernel = st.tuples(st.integers(1, 4), st.integers(1, 4)), st.tuples(*[st.sampled_from([1, 3])] * 2)
    return ConvolutionalArchitecture(
        tuple(channels),
        draw(sides),
        draw(kernel),
        draw(st.integers(2, 3)),
        draw(_activations(smooth)),
        draw(st.integers(0, len(channels) - 1)),
        draw(_losses()),
    )


@st.composite
def odd(draw: st.DrawFn) -> OddArchitecture:
    """Parameters of odd shapes: scalars, axes of length 1, and some that the loss never sees."""
    shape = st.lists(st.integers(1, 3), max_size=3).map(tuple)
    shapes = draw(st.lists(shape, min_size=1, max_size=3))
    loss = draw(_losses())
    return OddArchitecture(tuple(shapes), draw(st.booleans()), 1 if loss == "mse" else 2, "tanh", loss)


@functools.cache
def architectures(*, smooth: bool = False) -> st.SearchStrategy[AnyArchitecture]:
    """Perceptrons, small convolutional networks and odd ones; `smooth`: without kinks."""
    return st.one_of(perceptrons(smooth=smooth), convolutional(smooth=smooth), odd())


def problems(
    *,
    smooth: bool = False,
    dtype: st.SearchStrategy[DtypeName] | None = None,
    steps: st.SearchStrategy[int] | None = None,
    most_tasks: int = 3,
) -> st.SearchStrategy[Problem]:
    """A learner with its start, tasks and T; float64 and T up to 5 unless said otherwise."""
    return st.builds(
        Problem,
        architectures(smooth=smooth),
        st.integers(1, most_tasks),
        st.integers(1, 5),
        st.integers(1, 5),
        inner_steps() if steps is None else steps,
        seeds(),
        dtypes("float64") if dtype is None else dtype,
    )


@functools.cache
def _activations(smooth: bool) -> st.SearchStrategy[str]:
    return st.sampled_from(SMOOTH if smooth else tuple(ACTIVATIONS))


@functools.cache
def _losses() -> st.SearchStrategy[typing.Literal["mse", "cross-entropy"]]:
    return st.sampled_from(("mse", "cross-entropy"))
