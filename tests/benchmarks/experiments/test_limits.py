"""Experiments that are too large, and texts that no reader should build: one line with the count, at once."""

from __future__ import annotations

import fnmatch
import json
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalearn_benchmarks.experiments.rows import matches
from metalearn_benchmarks.host.data_files import MalformedError, parse_json, parse_toml, read_file
from metalearn_benchmarks.learners.perceptron import multilayer_perceptron
from metalearn_core import UsageError


@pytest.fixture
def refused(metalearn, tmp_path, monkeypatch):
    """Write an experiment and run it: the one line on standard error."""
    monkeypatch.chdir(tmp_path)

    def run(text, *arguments):
        (tmp_path / "mine.toml").write_text(text)
        code, _, err = metalearn("run", "mine.toml", "--scale", "smoke", "--out", tmp_path / "o", *arguments)
        assert (code, err.count("\n"), (tmp_path / "o").exists()) == (2, 1, False)
        return err

    return run


SINE = 'extends = "sine"\n'


def axis(name, count):
    return f'"{name}" = {list(range(1, count + 1))}\n'


def test_axes_are_counted_before_a_row_is_made(refused):
    axes = "".join(axis(f"family.x{i}", 240) for i in range(2)) + axis("options.y", 240)
    assert "rows: 13,824,000, and the most is 10,000" in refused(f'{SINE}methods = ["maml"]\n[axes]\n{axes}')
    told = refused(f"{SINE}[axes]\n" + axis("options.y", 10_001))
    assert "values of axis 'options.y': 10,001, and the most is 10,000" in told


def test_seeds_are_counted_before_a_run_is_made(refused):
    told = refused(SINE, "-m", "maml", "-m", "turtle", "--seeds", 9_999_999_999)
    assert "runs: 19,999,999,998, and the most is 100,000" in told


def test_the_numbers_of_a_run_are_bounded(refused):
    told = refused(SINE, "-m", "maml", "--tasks", 99_999_999_999_999_999_999_999)
    assert (
        "tasks of row 'maml': 99,999,999,999,999,999,999,999, and the most is 1,000,000,000,000,000" in told
    )
    told = refused(SINE, "-m", "maml", "--steps", 10_000_000_000_000)
    assert "10,000,000,000,000, and the most is 1,000,000" in told
    told = refused(f"{SINE}[scale.smoke]\nseeds = 1\ntest_tasks = 10000000001\n", "-m", "maml")
    assert "test_tasks: 10,000,000,001, and the most is 10,000,000" in told


@pytest.mark.parametrize(
    ("hidden", "told"),
    [([True], "widths must be integers >= 1, got [1, True, 1]"), ([10**6, 10**6], "make 1,000,004,000,001")],
)
def test_a_network_is_of_a_size_that_can_be_had(hidden, told):
    with pytest.raises(UsageError, match=re.escape(told)):
        multilayer_perceptron(hidden)


def test_tasks_are_of_a_size_that_can_be_had(refused):
    told = refused(f"{SINE}[family]\nname = 'sine'\noptions = {{ support = 1000000000 }}\n", "-m", "maml")
    assert "support of family 'sine': 1,000,000,000, and the most is 1,000,000" in told


def test_a_chain_of_files_that_extend_each_other_ends(refused, tmp_path):
    for i in range(60):
        (tmp_path / f"e{i}.toml").write_text(f'extends = "e{i + 1}.toml"\n')
    told = refused('extends = "e0.toml"\n')
    assert "mine.toml: files that extend each other: 33, and the most is 32" in told


def test_a_chain_of_methods_that_extend_each_other_ends(refused):
    chain = "".join(f'[method.m{i}]\nextends = "m{i + 1}"\n' for i in range(60))
    assert "methods that extend each other: 33, and the most is 32" in refused(SINE + chain)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--threads", 100_000), "--threads 100000: on the "),
        (("--workers", 100_000), "--workers 100000: on the "),
        (("--device", "meta"), "device 'meta' cannot be used here: "),
        (("--device", "privateuseone"), "device 'privateuseone' cannot be used here: "),
        (("--only", "*" * 12 + "z"), "unknown row '************z'"),
        (("--only", "*a" * 40 + "z"), "unknown row '*a*a"),
        (("--rule", "lstm", "--option", "x=" + "[" * 100_000), "it nests deeper than 64 levels"),
        (("--rule", "lstm", "--option", "x=" + "9" * 5000), "an integer in it has more than 19 digits"),
        (("--rule", "lstm", "--option", "x=0x" + "f" * 5000), "an integer in it has more than 19 digits"),
        (("--rule", "lstm", "--option", "x='\ud800'"), "expected key=value with a word or a TOML value"),
        (("--rule", "lstm", "--option", "x=1\ny=2"), "expected key=value with a word or a TOML value"),
    ],
)
def test_what_no_machine_has_and_no_reader_builds_is_one_line(refused, arguments, told):
    line = refused(f"{SINE}methods = ['maml']\n", *arguments)
    assert told in line
    assert len(line) < 600


@settings(deadline=None)
@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_wildcards_match_as_the_shell_has_it(pattern, name):
    assert matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)


DEEP = 100_000
TEXTS = {
    "lists": (parse_json, b"[" * DEEP + b"]" * DEEP, "it nests deeper than 64 levels"),
    "tables": (parse_json, b'{"a":' * 100 + b"1" + b"}" * 100, "it nests deeper than 64 levels"),
    "digits": (parse_json, b"[" + b"9" * 5000 + b"]", "an integer in it has more than 19 digits"),
    "surrogate": (parse_json, b'{"a": "\\ud800"}', "half a character"),
    "bytes": (parse_json, b"\xff", "can't decode"),
    "toml lists": (parse_toml, b"a = " + b"[" * DEEP, "it nests deeper than 64 levels"),
    "toml keys": (parse_toml, b".".join([b"a"] * DEEP) + b" = 1", "it nests deeper than 64 levels"),
    "toml header": (parse_toml, b"[" + b" . ".join([b'"a"'] * 100) + b"]", "it nests deeper than 64 levels"),
    "toml hex": (parse_toml, b"a = 0x" + b"f" * 20, "an integer in it has more than 19 digits"),
    "toml bytes": (parse_toml, b"\xff", "it is not UTF-8"),
    "toml size": (parse_toml, b"#" * (2**20 + 1), "it is larger than 1048576 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_a_text_that_is_beyond_what_is_read_is_refused_with_the_reason(case):
    parse, text, told = TEXTS[case]
    with pytest.raises(MalformedError, match=told):
        parse(text)


nested = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=30, deadline=None)
@given(nested)
def test_every_other_json_is_read_as_it_is(value):
    assert parse_json(json.dumps(value).encode()) == value


def test_brackets_in_texts_are_not_counted():
    value = {"a": "[" * 1000, "b": ["}" * 1000]}
    assert parse_json(json.dumps(value).encode()) == value


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    since = time.monotonic()
    with pytest.raises(MalformedError, match="it is no regular file"):
        read_file(tmp_path / "pipe")
    assert time.monotonic() - since < 60
    (tmp_path / "large").write_bytes(b"12345")
    with pytest.raises(MalformedError, match="it is larger than 4 bytes"):
        read_file(tmp_path / "large", 4)
