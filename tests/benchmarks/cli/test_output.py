"""Where output goes and how a command ends: full disks, readers that leave, odd encodings, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
import synthetic_records as synthetic
from undrawn import without_figures

from metalearn_benchmarks.host import interrupts, terminal
from metalearn_benchmarks.records.reading import read_records
from metalearn_benchmarks.report import page
from metalearn_benchmarks.report.tables.building import result_tables
from metalearn_benchmarks.report.tables.text import rich_table

COMMAND = [sys.executable, "-m", "metalearn_benchmarks"]


def run(*words, **given):
    return subprocess.run([*COMMAND, *words], stderr=subprocess.PIPE, text=True, check=False, **given)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["methods"], ["methods", "--json"], ["--help"], ["plugins"]])
def test_a_full_output_is_one_line(words):
    with open("/dev/full", "w") as full:
        done = run(*words, stdout=full)
    assert done.returncode == 2
    assert done.stderr == (
        "metalearn: the output cannot be written (No space left on device); send it somewhere else\n"
    )


def test_a_reader_that_leaves_is_no_complaint():
    reading, writing = os.pipe()
    os.close(reading)
    done = run("methods", "--json", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("words", [["methods"], ["plugins", "show", "feed-forward"]])
def test_an_encoding_without_our_letters_gets_others(words):
    done = run(*words, stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


def test_json_is_the_same_in_every_encoding():
    plain, ascii_alone = (
        run("methods", "--json", stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": name}).stdout
        for name in ("utf-8", "ascii")
    )
    assert json.loads(plain) == json.loads(ascii_alone)
    assert "α" in plain


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
def test_a_folder_whose_name_is_no_text(metalearn, tmp_path, monkeypatch):
    without_figures(monkeypatch)
    folder = tmp_path / "caf\udce9\x1b[2J"
    synthetic.write(folder, synthetic.cell("maml", 0))
    code, out, err = metalearn("report", folder)
    assert (code, err) == (0, "")
    assert r"caf\udce9\x1b[2J" in out
    assert "\x1b" not in out
    assert (folder / "report/report.html").is_file()
    code, _, err = metalearn("report", folder / "none")
    assert (code, err.count("\n")) == (2, 1)
    assert "\x1b" not in err


def press(*_):
    os.kill(os.getpid(), signal.SIGINT)


class Loses:
    """Its destructor is interrupted: Python prints the exception, and drops it."""

    def __del__(self):
        press()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("lost", [False, True])
def test_ctrl_c_while_a_report_is_drawn_is_130_and_writes_nothing(metalearn, tmp_path, monkeypatch, lost):
    without_figures(monkeypatch)
    synthetic.write(tmp_path, synthetic.cell("maml", 0))
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(page, "deviations", (lambda: [Loses()][1:]) if lost else press)
    code, _, err = metalearn("report", tmp_path)
    assert code == 130
    assert "Traceback (most recent call last):\n  File" not in err.partition("Exception ignored")[0]
    assert signal.getsignal(signal.SIGINT) is before
    if not lost:
        assert not (tmp_path / "report").exists()


def test_ctrl_c_while_the_files_of_a_report_are_written_waits_for_them(metalearn, tmp_path, monkeypatch):
    without_figures(monkeypatch)
    synthetic.write(tmp_path, synthetic.cell("maml", 0))
    write = page.write_atomically
    monkeypatch.setattr(page, "write_atomically", lambda *given: (press(), write(*given)))
    assert metalearn("report", tmp_path)[0] == 130
    assert {"sine-sine-5-shot.md", "deviations.md", "report.html"} <= {
        path.name for path in (tmp_path / "report").iterdir()
    }


def test_threads_leave_signals_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def inside():
        with interrupts.watched_interrupts(), interrupts.delayed_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize("words", [[], ["plugins"], ["data"]])
def test_a_group_alone_prints_its_help(metalearn, words):
    code, out, err = metalearn(*words)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: metalearn {' '.join(words)}".strip())
    assert ("\nCommands:\n" in out) == bool(words)  # the whole command has sections of its own


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["reprot"], "did you mean 'report'?"),
        (["rum"], "did you mean 'run'?"),
        (["methos"], "did you mean 'methods'?"),
        (["Plugins"], "did you mean 'plugins'?"),
        (["plugins", "lsit"], "did you mean 'list'?"),
        (["data", "verfy"], "did you mean 'verify'?"),
        (["run", "sine", "--sede", "1"], None),
        (["run", "sine", "--seed", "1"], "did you mean '--seeds'?"),
        (["report", ".", "--statistic", "t"], "did you mean '--statistics'?"),
        (["run", "table3.1"], "did you mean 'table-3.1'?"),
        (["run", "sine", "-m", "turtel"], "did you mean 'turtle'?"),
        (["run", "sine", "--rule", "feedforward"], "did you mean 'feed-forward'?"),
        (["frobnicate"], None),
        (["exprt-all-of-it"], None),
        (["x"], None),
        (["plugins", "remove"], None),
        (["run", "imagenet"], None),
        (["run", "sine", "-m", "protonet"], None),
        (["run", "sine", "--zzz"], None),
    ],
)
def test_a_near_name_is_offered_and_a_far_one_is_not(metalearn, words, hint):
    code, out, err = metalearn(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "there are " in err
    assert hint in err if hint else "did you mean" not in err


ROWS = [
    {"method": "a-name-that-is-not-broken", "rule": "r" * 20, "says": "words " * 20, "source": "s " * 30},
    {"method": "b", "rule": "q", "says": "", "source": None},
]


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_names_stay_whole_and_no_line_is_wider_than_the_terminal(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    terminal.print_table(ROWS, False, ("rule",), ("says",))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert "a-name-that-is-not-broken" in out
    assert "r" * 20 in out or "not shown: rule" in " ".join(out.split())
    assert ("not shown" in out) == (width < 140)


ALWAYS, DIFFERENCE, LEARNED = ["method", "typical error, 95 %"], ["minus TURTLE"], ["never learned"]


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (40, [*ALWAYS, "T"]),
        (60, [*ALWAYS, *DIFFERENCE]),
        (80, [*ALWAYS, *DIFFERENCE, "T", "seeds", "tasks"]),
        (100, [*ALWAYS, *DIFFERENCE, *LEARNED, "T", "seeds", "tasks"]),
        (120, [*ALWAYS, *DIFFERENCE, *LEARNED, "T", "seeds", "tasks"]),
    ],
)
def test_result_tables_drop_columns_in_their_order(tmp_path, monkeypatch, capsys, width, shown):
    monkeypatch.setenv("COLUMNS", str(width))
    for name in ("maml", "turtle"):
        synthetic.write(tmp_path, synthetic.cell(name, 0))
    terminal.console().print(rich_table(*result_tables(read_records(tmp_path))))
    out = capsys.readouterr().out
    (header,) = [line for line in out.splitlines() if line.startswith("┃")]
    assert [cell.strip() for cell in header.strip("┃").split("┃")] == shown
    left_out = [name for name in (*DIFFERENCE, *LEARNED, "T", "seeds", "tasks") if name not in shown]
    told = f"not shown: {', '.join(left_out)}; report.html has all"
    assert (told in " ".join(out.split())) == bool(left_out)


@pytest.mark.parametrize("width", [20, 60, 80])
def test_result_tables_show_methods_at_every_width(metalearn, tmp_path, monkeypatch, width):
    without_figures(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(width))
    for name in ("maml", "turtle"):
        synthetic.write(tmp_path, synthetic.cell(name, 0))
    code, out, _ = metalearn("report", tmp_path)
    assert code == 0
    assert "MAML" in out
    assert "TURTLE" in out
    lines = [line for line in out.splitlines() if "report.html" not in line]
    assert max(map(len, lines)) <= max(width, 42)


def test_numbers_in_a_line_have_no_colour(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal.console().print("maml, seed 0: mean 0.357, /tmp/12/report.html")
    assert capsys.readouterr().out == "maml, seed 0: mean 0.357, /tmp/12/report.html\n"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_lists_have_a_name_at_the_margin_and_what_it_is_below(metalearn, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for command, name, title in (("methods", "maml", "MAML"), ("experiments", "sine", "Few-shot sine")):
        lines = metalearn(command)[1].splitlines()
        (at,) = [place for place, line in enumerate(lines) if line.startswith(f"{name}  {title}")]
        assert lines[at + 1].startswith("    ")
        listed = [line for line in lines if not line.startswith("Times are for")]
        assert max(map(len, listed)) <= width
        assert not any(line.endswith(" ") for line in listed)
