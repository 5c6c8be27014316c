"""Batches and tasks: what they are, and the one line that refuses what does not fit."""

from __future__ import annotations

import itertools

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import zeros

from metalearn_core import Batch, Task, UsageError


def batch(*lead: int, width: int = 1, dtype: torch.dtype = torch.float32) -> Batch:
    tensors = [zeros(*lead, width, dtype=dtype) for _ in range(2)]
    return Batch(*tensors, stacked=len(lead) == 2)


def single(support: int = 3, query: int = 4, **options) -> Task:
    return Task(batch(support, **options), batch(query, **options))


def same(a: Task, b: Task) -> bool:
    agree = (torch.equal(x, y) for x, y in zip(a.tensors, b.tensors, strict=True))
    return a.stacked == b.stacked and all(agree)


@st.composite
def task_lists(draw) -> list[Task]:
    """Single tasks of one shape: any n, any shape of an example, labels of any kind."""
    support, query = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    x, y = (tuple(draw(st.lists(st.integers(1, 3), max_size=2))) for _ in range(2))
    kind = draw(st.sampled_from([torch.float32, torch.float64, torch.int64]))
    random = torch.Generator().manual_seed(draw(st.integers(0, 99)))

    def values(n: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.randint(-9, 9, (n, *shape), generator=random).to(dtype)

    def one(n: int) -> Batch:
        return Batch(values(n, x, torch.float32), values(n, y, kind))

    return [Task(one(support), one(query)) for _ in range(draw(st.integers(1, 5)))]


@given(task_lists())
def test_stack_and_index_undo_each_other(tasks):
    stacked = Task.stack(tasks)
    assert stacked.stacked
    assert stacked.support.stacked
    assert len(stacked) == len(tasks)
    assert all(same(stacked[i], task) for i, task in enumerate(tasks))
    assert all(same(a, b) for a, b in zip(stacked, tasks, strict=True))
    assert same(stacked[-1], tasks[-1])
    assert same(Task.stack(list(stacked)), stacked)
    assert [len(stacked.support), len(stacked.query)] == [
        len(tasks[0].support),
        len(tasks[0].query),
    ]


@given(task_lists(), st.data())
def test_slices_are_meta_batches_and_concatenate_puts_them_together(tasks, data):
    stacked = Task.stack(tasks)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(tasks)), max_size=3)) | {0, len(tasks)})
    parts = [stacked[a:b] for a, b in itertools.pairwise(cuts)]
    assert [len(part) for part in parts] == [b - a for a, b in itertools.pairwise(cuts)]
    assert same(Task.concatenate(parts), stacked)
    assert same(parts[-1][0], tasks[cuts[-2]])


def test_a_single_task_is_a_sequence_of_one():
    task = single()
    assert len(task) == 1
    assert list(task) == [task]
    assert task[-1] is task


@pytest.mark.parametrize(("task", "index"), [(single(), 1), (single(), -2)])
def test_a_task_that_is_not_there(task, index):
    with pytest.raises(IndexError, match=f"task {index} of 1"):
        task[index]
    with pytest.raises(IndexError, match="task 2 of 2"):
        Task.stack([task, task])[2]


def test_tasks_and_batches_are_frozen_and_hash_by_identity():
    task = single()
    for thing, name in ((task, "support"), (task.support, "inputs")):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(thing, name, None)
    assert task != Task(task.support, task.query)
    assert len({task, task.support, task.query}) == 3


def test_stacked_tells_a_support_set_what_it_is():
    task = Task(Batch(zeros(2, 3, 1), zeros(2, 3)), Batch(zeros(2, 5, 1), zeros(2, 5)), True)
    assert task.support.stacked
    assert task.query.stacked
    assert [len(task), len(task.support), len(task.query)] == [2, 3, 5]


def test_map_and_to_touch_all_four_tensors_and_leave_labels_their_type():
    x, y = torch.rand(3, 2), torch.tensor([0, 1, 1])
    task = Task(Batch(x, y), Batch(x + 1, y))
    assert same(task.map(lambda t: t * 2), Task(Batch(2 * x, 2 * y), Batch(2 * (x + 1), 2 * y)))
    double = task.to("cpu", torch.float64)
    assert [t.dtype for t in double.tensors] == [torch.float64, torch.int64] * 2
    assert same(double.to("cpu", torch.float32), task)
    assert {t.device.type for t in Task.stack([task]).to("meta").tensors} == {"meta"}


BAD = {
    "other n": lambda: Batch(zeros(3, 1), zeros(2, 1)),
    "empty support set": lambda: Batch(zeros(0, 1), zeros(0, 1)),
    "a scalar": lambda: Batch(zeros(()), zeros(())),
    "no tensor": lambda: Batch([[1.0]], zeros(1, 1)),
    "none at all": lambda: Batch(None, None),
    "stacked, other n": lambda: Batch(zeros(2, 3), zeros(2, 4), stacked=True),
    "stacked, other tasks": lambda: Batch(zeros(2, 3), zeros(1, 3), stacked=True),
    "stacked, no n": lambda: Batch(zeros(2), zeros(2), stacked=True),
    "stacked, no task": lambda: Batch(zeros(0, 3), zeros(0, 3), stacked=True),
    "stacked, empty support": lambda: Batch(zeros(2, 0, 1), zeros(2, 0, 1), stacked=True),
    "an empty slice": lambda: Task.stack([single()])[1:],
    "Task: support, a tensor": lambda: Task(zeros(3, 1), batch(3)),
    "Task: query, nothing": lambda: Task(batch(3), None),
    "Task: support stacked": lambda: Task(batch(2, 3, width=4), batch(2, 3, width=4)),
    "Task: query stacked": lambda: Task(batch(3), batch(2, 3)),
    "Task: inputs shape": lambda: Task(batch(3), Batch(zeros(3, 2), zeros(3, 1))),
    "Task: targets shape": lambda: Task(batch(3), Batch(zeros(3, 1), zeros(3))),
    "Task: inputs dtype": lambda: Task(batch(3), Batch(zeros(3, 1).double(), zeros(3, 1))),
    "Task: targets dtype": lambda: Task(batch(3), Batch(zeros(3, 1), zeros(3, 1).long())),
    "Task: inputs device": lambda: Task(batch(3), Batch(*[zeros(3, 1, device="meta")] * 2)),
    "Task: inputs tasks": lambda: Task(batch(2, 3), batch(3, 3), stacked=True),
    "Task.stack: of none": lambda: Task.stack([]),
    "Task.stack: other n": lambda: Task.stack([single(), single(support=5)]),
    "Task.stack: other width": lambda: Task.stack([single(), single(width=2)]),
    "Task.stack: other dtype": lambda: Task.stack([single(), single(dtype=torch.float64)]),
    "Task.stack: stacked": lambda: Task.stack([Task.stack([single()])] * 2),
    "Task.concatenate: of none": lambda: Task.concatenate([]),
    "Task.concatenate: single": lambda: Task.concatenate([single(3, 3), single(3, 3)]),
    "Task.concatenate: other n": lambda: Task.concatenate(
        [Task.stack([single()]), Task.stack([single(support=5)])]
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_in_one_line_that_names_it(case):
    with pytest.raises(UsageError) as refusal:
        BAD[case]()
    message = str(refusal.value)
    where, *what = case.split(": ") if ":" in case else ["Batch"]
    assert "\n" not in message
    assert message.startswith(f"{where}: ")
    if where == "Task":
        assert what[0].split()[0].rstrip(",") in message
    assert len(message) < 400


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["support", "query"])
@pytest.mark.parametrize("field", ["inputs", "targets"])
def test_first_not_finite_looks_into_every_tensor(value, part, field):
    tasks = [single() for _ in range(5)]
    assert Task.stack(tasks).first_not_finite() is None
    getattr(getattr(tasks[3], part), field)[-1] = value
    getattr(getattr(tasks[4], part), field)[0] = value
    assert Task.stack(tasks).first_not_finite() == 3
    assert tasks[3].first_not_finite() == 0
    assert tasks[2].first_not_finite() is None


def test_class_labels_are_finite():
    x, y = zeros(3, 1), torch.tensor([0, 1, 2])
    assert Task(Batch(x, y), Batch(x, y)).first_not_finite() is None
