"""Files that several processes write at once."""

from __future__ import annotations

import multiprocessing

from metalearn_core.training.files import write_atomically

SIZE, TIMES = 200_000, 60


def write_and_read(path, letter, answers):
    torn = 0
    for _ in range(TIMES):
        write_atomically(path, letter * SIZE)
        found = path.read_bytes()
        torn += len(found) != SIZE or len(set(found)) != 1
    answers.put(torn)


def test_a_file_is_that_of_one_writer(tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    writers = [
        context.Process(target=write_and_read, args=(tmp_path / "report", letter, answers))
        for letter in (b"a", b"b", b"c")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert [answers.get() for _ in writers] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
