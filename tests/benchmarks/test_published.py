"""What docs/paper-against-us.md publishes follows from the records in the repository, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metalearn_benchmarks.claim_rules import claim_rules
from metalearn_benchmarks.claims import Outcome, decide_all
from metalearn_benchmarks.reading_records import read_records
from metalearn_benchmarks.same_experiment import require_same_experiment

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
LEAST = {"figure-3.2": 5, "figure-3.3": 10}
"""Seeds of each row that follows the text."""


@pytest.fixture(scope="module")
def records():
    return read_records(RESULTS)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import from_the_records
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("generated")
    return folder, from_the_records.pieces(folder)


def test_the_archives_are_small():
    assert sum(path.stat().st_size for path in RESULTS.rglob("*")) < 10 * 2**20


def test_every_record_is_of_the_papers_size_and_can_be_run_again(records):
    for record in records:
        assert (record.cell["scale"], record.cell["test_tasks"], len(record.final)) == ("paper", 2000, 2000)
        assert record.cell["method"]["settings"]["tasks"] == 70_000
        assert record.result["diverged"] is None
    assert require_same_experiment(RESULTS, []) == set()


def test_rows_have_the_seeds_that_are_told(records):
    seeds = {}
    for record in records:
        seeds.setdefault((record.experiment, record.setting, record.method), set()).add(record.seed)
    for (experiment, _, method), found in seeds.items():
        if "protocol=authors" not in method:
            assert len(found) >= LEAST.get(experiment, 5), (experiment, method)


def test_verdicts_are_those_of_the_records(records, pieces):
    decided = {verdict.name: verdict for verdict in decide_all(claim_rules(), records)}
    lines = pieces[1]["verdicts"].splitlines()[2:]
    for name, verdict in decided.items():
        told = [line for line in lines if line.startswith(f"| {verdict.says} ")]
        if any(part.estimate for part in verdict.parts):
            assert name.startswith("sine-")
            assert f"**{verdict.outcome}**" in told[0]
    assert decided["sine-order-turtle"].outcome == Outcome.HOLDS
    assert decided["sine-order-maml"].outcome == Outcome.FAILS


def test_the_figures_are_drawn_from_them(pieces):
    folder, texts = pieces
    for stem in ("figure-3.2", "figure-3.3"):
        assert (folder / f"{stem}.png").stat().st_size > 10_000
        assert f"(_generated/{stem}.png)" in texts["figures"]


def test_the_readme_has_the_table_of_the_records(pieces):
    readme = (ROOT / "README.md").read_text()
    assert f"\n\n{pieces[1]['sine']}\n" in readme


def test_the_report_and_the_claims_are_one_command(metalearn, tmp_path):
    code, _, err = metalearn("report", RESULTS, "--out", tmp_path)
    assert (code, err) == (0, "")
    page = (tmp_path / "report.html").read_text()
    assert '<h2 id="claims">' in page
    assert {"claims.md", "figure-3.2.pdf", "figure-3.3.pdf", "report.html"} <= {
        p.name for p in tmp_path.iterdir()
    }
    assert (tmp_path / "claims.md").read_text().count("\n| ") >= 5
