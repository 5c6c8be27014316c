"""What `--json` prints: one document on standard output; logs, with their times, on standard error."""

from __future__ import annotations

import io
import json
import re
import time
from statistics import fmean, median

import pytest
import synthetic_records as synthetic
from rich.console import Console

from metalearn_benchmarks.cli.support.progress import Display
from metalearn_benchmarks.report import page
from metalearn_core import Event

RUN = ("run", "sine", "--scale", "smoke", "--tasks", 20, "--workers", 1, "--json")
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """The page takes seconds to draw, and is not what is asked here."""
    monkeypatch.setattr(page, "write_report", lambda records, target, *_: target / "report.html")


def strictly(text):
    """JSON as the standard has it: no NaN, no Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_run_is_one_document_and_its_log_goes_to_standard_error(metalearn, tmp_path):
    code, out, err = metalearn(*RUN, "-m", "maml", "--out", tmp_path)
    told = strictly(out)
    assert (code, told["runs"], told["failed"], told["diverged"]) == (0, 1, [], [])
    assert (told["directory"], told["report"]) == (str(tmp_path), str(tmp_path / "report/report.html"))
    scores = json.loads((tmp_path / "sine/sine-5-shot/maml/0/result.json").read_text())["scores"]["sine"]
    ((row,),) = (table["rows"] for table in told["tables"])
    assert row["mean"]["value"] == pytest.approx(fmean(score[-1] for score in scores))
    assert row["headline"]["value"] == pytest.approx(median(score[-1] for score in scores))
    assert (row["method"], row["steps"], row["seeds"], row["less_the_first"]) == ("maml", 5, 1, None)
    assert re.search(rf"^{TIME} maml, seed 0: median error .* test tasks", err, re.MULTILINE)


def test_a_report_has_the_numbers_of_its_table(metalearn, tmp_path):
    for name, level in (("maml", 1.0), ("turtle", 0.5)):
        synthetic.write(tmp_path, synthetic.cell(name, 0), level=level)
    code, out, err = metalearn("report", tmp_path, "--json")
    assert (code, err) == (0, "")
    (table,) = strictly(out)["tables"]
    assert [row["title"] for row in table["rows"]] == ["TURTLE", "MAML"]
    assert table["headline"] == "typical error"
    first, second = (row["headline"]["value"] for row in table["rows"])
    apart = table["rows"][1]["less_the_first"]
    assert apart["value"] == pytest.approx(second - first)
    assert 0 < apart["low"] < apart["value"] < apart["high"]
    assert table["findings"][0].startswith("On one seed each, TURTLE is ahead of MAML by ")
    assert table["differences_from"] == {"5": "turtle"}


def test_differences_are_taken_from_the_method_that_is_asked_for(metalearn, tmp_path):
    for name, level in (("maml", 1.0), ("turtle", 0.5)):
        synthetic.write(tmp_path, synthetic.cell(name, 0), level=level)
    code, out, _ = metalearn("report", tmp_path, "--json", "--against", "maml")
    assert code == 0
    (table,) = strictly(out)["tables"]
    assert table["differences_from"] == {"5": "maml"}
    first, second = table["rows"]
    assert first["difference"]["value"] == pytest.approx(-second["less_the_first"]["value"])
    assert second["difference"] is None
    code, out, err = metalearn("report", tmp_path, "--against", "mamal")
    assert (code, out) == (2, "")
    assert err == "metalearn: unknown method 'mamal': did you mean 'maml'? there are maml, turtle\n"


def test_an_archive_says_what_it_holds(metalearn, tmp_path):
    synthetic.write(tmp_path / "in", synthetic.cell("maml", 0))
    archive = tmp_path / "some.records.tar.xz"
    code, out, err = metalearn("archive", tmp_path / "in", "--out", archive, "--json")
    assert (code, err) == (0, "")
    assert strictly(out) == {"archive": str(archive), "records": 1, "bytes": archive.stat().st_size}


def test_an_observer_that_prints_leaves_no_room_for_json(metalearn, tmp_path):
    code, out, err = metalearn(*RUN, "--observe", "json-lines", "--out", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "writes on standard output, too; leave one of them out" in err


def test_a_log_says_when_and_how_long_the_rest_takes(monkeypatch):
    clock = iter([0.0, 100.0])
    console = Console(file=io.StringIO(), width=200)
    display = Display(console, 1)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    display.event("maml", Event("start", 0, {"tasks": 1_000}))
    display.event("maml", Event("step", 100))
    display.event("maml", Event("step", 300))
    (line,) = console.file.getvalue().splitlines()
    # 200 tasks in 100 s: the 700 that are left take 350 s, rounded to minutes
    assert re.fullmatch(rf"{TIME} maml: task 300 of 1000, 6 min left", line)


def test_a_log_says_that_it_compiles_and_a_bar_for_as_long_as_it_does():
    console = Console(file=io.StringIO(), width=200)
    display = Display(console, 1)
    display.event("maml", Event("start", 0, {"tasks": 1_000}))
    display.event("maml", Event("validation", 0, {"score": 4.1, "best": 4.1}))
    display.lines["maml"].printed_at = -100.0
    display.event("maml", Event("compiling", 0))
    assert console.file.getvalue().endswith("maml: task 0 of 1000, compiling, which takes up to a minute\n")
    bar = display.lines["maml"].bar
    assert display.bars.tasks[bar].fields["note"] == "compiling"
    display.event("maml", Event("step", 1))
    assert display.bars.tasks[bar].fields["note"] == "validation 4.1 (best 4.1)"


def test_bars_fit_a_terminal_of_80_columns(monkeypatch):
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with Display(console, 1) as display:
        display.event("turtle, seed 0", Event("start", 0, {"tasks": 70_000}))
        display.event("turtle, seed 0", Event("validation", 2_500, {"score": 0.70751, "best": 0.70751}))
        display.bars.refresh()
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", console.file.getvalue())
    line = next(line for line in shown.splitlines() if "validation" in line)
    assert "2500/70000" in line
    assert "validation 0.7075 (best 0.7075)" in line
    assert len(line.rstrip()) <= 80
