"""Task i is the same task, whoever asks for it, beside whatever, and in whatever order."""

from __future__ import annotations

import functools

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metalearn_core import Task, TaskStream, UsageError, seeded_generator

CPU = torch.device("cpu")
FLOAT = torch.float32


@attrs.frozen
class Noise:
    """Tasks of random numbers; `broken` is the number of one that holds `value`."""

    broken: int | None = None
    value: float = float("nan")
    lost: int = 0
    stacked: bool = True
    splits = ("train", "validation", "test")
    drawn: list[int] = attrs.field(factory=list)

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        values = torch.rand(4, count - self.lost, 2, 1, generator=generator)
        if self.broken is not None and len(self.drawn) == self.broken // 100:
            values[2, self.broken % 100] = self.value
        self.drawn.append(count)
        return Task.of(list(values if self.stacked else values[:, 0]), stacked=self.stacked)


def stream(family: object = None, split: str = "train", seed: int = 7, dtype=FLOAT) -> TaskStream:
    return TaskStream(Noise() if family is None else family, split, seed, CPU, dtype)


def same(a: Task, b: Task) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.tensors, b.tensors, strict=True))


@functools.cache
def one_by_one(count: int = 420) -> list[Task]:
    """The sequence by its definition: block b of 100 from a generator seeded by (seed, split, b)."""
    blocks = [Noise().sample("train", 100, seeded_generator(7, "train", b)) for b in range(5)]
    return [task for block in blocks for task in block][:count]


@given(st.lists(st.tuples(st.integers(0, 250), st.integers(1, 170)), min_size=1, max_size=4))
def test_task_i_depends_on_i_alone(requests):
    shared = stream()
    for start, count in requests:
        expected = Task.stack(one_by_one()[start : start + count])
        assert same(shared.take(start, count), expected)  # after whatever was taken before
        assert same(stream().take(start, count), expected)  # as after a resumption


@pytest.mark.parametrize(("total", "size"), [(7, 1), (7, 3), (99, 100), (230, 32), (250, 250)])
def test_batches_are_the_first_tasks_in_order(total, size):
    batches = list(stream().batches(total, size))
    assert [len(batch) for batch in batches] == [min(size, total - start) for start in range(0, total, size)]
    assert same(Task.concatenate(batches), Task.stack(one_by_one()[:total]))


def test_splits_and_seeds_are_unrelated():
    firsts = [
        float(stream(split=split, seed=seed).take(0, 1).query.inputs[0, 0])
        for split in Noise.splits
        for seed in (0, 1)
    ]
    assert len(set(firsts)) == 6


def test_a_block_is_sampled_once_and_no_global_random_number_is_drawn():
    family, before = Noise(), torch.get_rng_state()
    tasks = stream(family)
    for i in range(120):
        tasks.take(i, 1)
    assert family.drawn == [100, 100]
    assert torch.equal(torch.get_rng_state(), before)


def test_tasks_come_in_the_type_of_the_learner():
    task = stream(dtype=torch.float64).take(98, 4)
    assert {x.dtype for x in task.tensors} == {torch.float64}
    assert same(task.to(CPU, FLOAT), Task.stack(one_by_one()[98:102]))


class Numbered(Noise):
    """Draws numbers, and makes of each number n a task of n's halves."""

    def draw(self, split: str, count: int, generator: torch.Generator) -> Task:
        self.drawn.append(count)
        return Task.of(list(torch.randint(1000, (4, count, 2), generator=generator)), stacked=True)

    def realise(self, split: str, task: Task, dtype: torch.dtype) -> Task:
        made.append((split, len(task)))
        return task.map(lambda x: x.to(dtype) / 2)


made: list[tuple[str, int]] = []


def test_a_family_may_draw_small_and_realise_what_is_taken():
    family = Numbered()
    tasks, whole = stream(family, dtype=torch.float64), Numbered()
    made.clear()
    taken = tasks.take(98, 4)
    assert made == [("train", 4)]  # not the 200 that were drawn
    assert family.drawn == [100, 100]
    blocks = [whole.draw("train", 100, seeded_generator(7, "train", b)) for b in range(2)]
    expected = Task.concatenate(blocks)[98:102].map(lambda x: x.double() / 2)
    assert {x.dtype for x in taken.tensors} == {torch.float64}
    assert same(taken, expected)


def refused(*parts: str):
    return pytest.raises(UsageError, match=r"\A[^\n]*" + r"[^\n]*".join(parts) + r"[^\n]*\Z")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("number", [0, 37, 137])
def test_a_broken_task_is_named_with_family_split_and_number(value, number):
    tasks = stream(Noise(broken=number, value=value), "validation")
    with refused("Noise", "validation", f"task {number} "):
        for start in range(0, 200, 10):
            tasks.take(start, 10)


def test_an_unknown_split_offers_the_nearest():
    with refused("split of Noise 'tests'", "did you mean 'test'", "train, validation"):
        stream(split="tests")


@pytest.mark.parametrize(("family", "got"), [(Noise(lost=1), "got 99"), (Noise(stacked=False), "got 1")])
def test_the_wrong_number_of_tasks_is_refused(family, got):
    with refused("Noise", "train", "100 tasks", got):
        stream(family).take(0, 1)


class _NotATask(Noise):
    def sample(self, split, count, generator):
        return [1, 2, 3]


def test_something_else_than_a_task_is_refused():
    with refused("_NotATask", "train"):
        stream(_NotATask()).take(0, 1)
