"""The lines that a result table must be read with."""

from __future__ import annotations

import pytest
import synthetic_records as synthetic

from metalearn_benchmarks.records.reading import read_records
from metalearn_benchmarks.report.tables.building import result_tables


def table_of(folder, *cells, levels=()):
    for one, level in zip(cells, levels or [1.0] * len(cells), strict=True):
        synthetic.write(folder, one, level=level)
    (table,) = result_tables(read_records(folder))
    assert table.caption.startswith(" ".join(table.notes))
    return table


def cell(name, seed=0, scale="paper", **given):
    return {**synthetic.cell(name, seed, test_tasks=200, **given), "scale": scale}


@pytest.mark.parametrize(
    ("scale", "tasks", "told"),
    [
        ("smoke", 100, "100 tasks of training, scale smoke"),
        ("small", 2000, "2,000 tasks of training, scale small"),
        ("paper", 1, "1 task of training, less than scale paper"),
    ],
)
def test_below_the_papers_scale_the_order_means_little(tmp_path, scale, tasks, told):
    table = table_of(tmp_path, *(cell(name, scale=scale, tasks=tasks) for name in ("maml", "turtle")))
    assert table.notes == [f"{told}: the order of the methods means little yet."]


def test_what_is_not_trained_has_no_scale(tmp_path):
    assert table_of(tmp_path, cell("train-from-scratch", scale="smoke")).notes == []


def test_rules_without_a_method_are_named_with_whose_conditions_they_have(tmp_path):
    rules = [cell(name, method="maml") for name in ("momentum", "lslr")]
    for one in rules:
        source = "no method of its own: trained under the conditions of MAML"
        one["method"] |= {"source": source, "title": one["name"]}
    table = table_of(tmp_path, cell("maml"), *rules, levels=(1.0, 0.5, 2.0))
    assert table.notes == [
        "lslr and momentum: trained as MAML is (clipping, T, outer learning rate, meta-batch)."
    ]
    assert table.reference == "MAML"
    assert [row.difference is None for row in table.rows] == [False, True, False]
