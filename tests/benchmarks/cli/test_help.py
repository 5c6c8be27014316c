"""Help and completion: sections, an example in every command, the same words for the same things."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import click
import pytest
from click.shell_completion import BashComplete

from metalearn_benchmarks.cli.app import metalearn as command


def every_command(group=command, path=("metalearn",)):
    """Every command that is no group, with the words that call it."""
    for name, one in group.commands.items():
        if isinstance(one, click.Group):
            yield from every_command(one, (*path, name))
        else:
            yield (*path, name), one


COMMANDS = dict(every_command())


def parse(line):
    """Let the command that a line names read the rest of it; nothing is run."""
    program, *words = shlex.split(line)
    assert program == "metalearn"
    found = command
    while isinstance(found, click.Group):
        found = found.commands[words.pop(0)]
    return found.make_context(found.name, words)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_has_an_example_that_parses(words):
    shown = COMMANDS[words].get_help(click.Context(COMMANDS[words], info_name=" ".join(words)))
    lines = re.search(r"\n  Examples?:\n((?:    .*\n?)+)\Z", shown)[1].splitlines()
    for line in lines:
        assert len(line) <= 80
        assert line.strip().startswith(" ".join(words))
        parse(line)


def test_every_command_stands_in_a_section_with_a_whole_sentence(metalearn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = metalearn("--help")
    assert code == 0
    assert out.count("...") == 1  # of the usage: no sentence is cut off
    assert max(map(len, out.splitlines())) <= 80
    for name in command.commands:
        assert re.search(rf"^  {name}  .*\.$", out, re.MULTILINE), name
    assert re.findall(r"^(\S.*):$", out, re.MULTILINE) == ["Options", *command.sections]


MEANINGS = {
    "--rule": {("metalearn", "run")},
    "--tasks": {("metalearn", "run")},
    "--method": {("metalearn", "run"), ("metalearn", "speed")},
    "--to": {("metalearn", "records")},
}
"""The commands that may have an option of this name, which means the same in each."""


def test_a_word_means_one_thing():
    shown: dict[str, set[tuple[str, ...]]] = {}
    for words, one in COMMANDS.items():
        context = click.Context(one, info_name=" ".join(words))
        for option in one.params:
            record = option.get_help_record(context)
            for name in re.findall(r"--[\w-]+", record[0] if record else ""):
                shown.setdefault(name, set()).add(words)
    for name, commands in MEANINGS.items():
        assert shown[name] == commands
    assert not {"--figure", "--output", "--dir"} & shown.keys()


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        (["speed", "--rule", "maml", "--tasks", "4"], "rule", ("maml",)),
        (["speed", "--figure", "a.png"], "figure", "a.png"),
        (["plugins", "new", "mine", "--to", "there"], "to", "there"),
        (["data", "prepare", "cub", "birds", "--to", "there"], "to", "there"),
    ],
)
def test_former_words_are_still_understood(words, option, value):
    found = parse(shlex.join(["metalearn", *words])).params[option]
    assert found == value or str(found) == value


def completed(*words):
    *before, begun = words
    shell = BashComplete(command, {}, "metalearn", "_METALEARN_COMPLETE")
    return [item.value for item in shell.get_completions(before, begun)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["re"], ["records", "report"]),
        (["run", "si"], ["sine", "sine-shots"]),
        (["run", "sine", "-m", "turt"], ["turtle"]),
        (["run", "sine", "--rule", "feed"], ["feed-forward"]),
        (["run", "sine", "--rule", "lstm", "-m", "fo-m"], ["fo-maml"]),
        (["experiments", "table-3.1", "glyphs"], ["glyphs", "glyphs-sweep", "glyphs-to-omniglot"]),
        (["map", "gradient"], ["gradient-descent"]),
        (["plugins", "check", "feed"], ["feed-forward"]),
        (["zoo", "show", "maml"], ["maml-sine"]),
        (["run", "mine"], ["mine"]),  # left to the shell, which knows the files
        (["frobnicate", "x"], []),
    ],
)
def test_names_are_completed(words, told):
    assert completed(*words) == told


def test_completing_loads_no_torch_and_the_switch_works():
    program = (
        "import os, sys\nfrom metalearn_benchmarks import cli\n"
        "os.environ |= {'_METALEARN_COMPLETE': 'bash_complete', 'COMP_CWORD': '4'}\n"
        "os.environ['COMP_WORDS'] = sys.argv[1]\n"
        "try: cli.main()\nfinally: assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    line = "metalearn run sine --rule gradient"
    done = subprocess.run([sys.executable, "-c", program, line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "plain,gradient-descent\n", "")
