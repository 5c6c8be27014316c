"""What the page on images says of Omniglot is what the committed records say."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metalearn_benchmarks.experiments.catalogue import Overrides, cells, find_experiment
from metalearn_benchmarks.records.reading import read_records

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/images.md").read_text("utf-8")
RECORDS = ROOT / "benchmarks/image-records"


def test_the_page_has_the_accuracy_of_the_record_on_each_family():
    (record,) = read_records(RECORDS)
    percent = {name: 100 * np.asarray(scores)[:, -1] for name, scores in record.result["scores"].items()}
    own = percent["omniglot-vinyals-rotations"]
    half = 1.96 * own.std(ddof=1) / len(own) ** 0.5
    assert len(own) == 600
    assert (
        f"| MAML (ours, one seed of `--scale small`, 600 test tasks) | {own.mean():.1f} ± {half:.1f} |"
        in PAGE
    )
    told = " ".join(PAGE.split())
    for name in ("glyphs-print", "glyphs-display"):
        assert f"{percent[name].mean():.1f} on `{name}`" in told
    assert f"MAML is {98.7 - own.mean():.1f} points below the published number" in told
    assert f"took {record.result['seconds'] / 60:.0f} minutes" in told


def test_the_record_is_a_run_of_the_shipped_experiment():
    (record,) = read_records(RECORDS)
    asked = {
        (cell.setting, cell.name, cell.seed): cell
        for cell in cells(*find_experiment("omniglot"), "small", Overrides())
    }
    cell = asked[record.setting, record.method, record.seed]
    assert record.cell["method"]["settings"]["tasks"] == cell.method.settings["tasks"] == 80_000
    assert len(record.result["commit"]) == 40
