"""The protocol: every fact of every run, and each as seldom as it can be said."""

from __future__ import annotations

import synthetic_records as synthetic

from metalearn_benchmarks.report.protocol import run_facts, setting_protocol


def runs(folder, seeds=3):
    cells = [synthetic.cell(name, seed) for name in ("maml", "turtle", "lstm") for seed in range(seeds)]
    return synthetic.read(folder, cells)


def test_every_fact_of_a_run_follows_from_its_three_places(tmp_path):
    found = runs(tmp_path)
    told = setting_protocol(found)
    rebuilt = []
    for of_method in told.methods:
        for row in of_method.rows:
            own = {k: v for k, v in zip(of_method.columns, row, strict=True) if v}
            rebuilt.append(told.common | of_method.common | own)
    assert rebuilt == [run_facts(record) for record in found]


def test_it_tells_what_a_number_depends_on(tmp_path):
    (record,) = [r for r in runs(tmp_path, 1) if r.method == "lstm"]
    told = run_facts(record)
    for key, value in {
        "seed": "0", "commit": "0" * 40, "versions.torch": "2.11.0", "engine": "compiled",
        "protocol": "paper",
        "batch norm": "none: the base-learner has no batch norm", "method.settings.outer_clip.by": "norm",
        "method.settings.outer_clip.limit": "0.25", "method.settings.inner_clip": "none",
        "seeds together": "[0]", "device": "cpu: x86_64", "diverged": "none",
    }.items():  # fmt: skip
        assert told[key] == value, key
    assert len(told["SHA-256 of result.json"]) == len(told["SHA-256 of experiment.toml"]) == 64
    assert not {"scores", "curves", "rule response", "summary"} & {key.split(".")[0] for key in told}


def test_one_run_has_a_row_too(tmp_path):
    (only,) = setting_protocol(runs(tmp_path, 1)[:1]).methods
    assert (only.columns, only.rows) == (["seed"], [["0"]])


def test_what_is_shared_is_said_once(tmp_path):
    few, many = (str(setting_protocol(runs(tmp_path / str(seeds), seeds))) for seeds in (10, 20))
    assert many.count("versions.torch") == 1
    # a method's own, once for it and not for each of its seeds
    assert many.count("'method.options.inner_lr': '0.01'") == 1
    assert (len(many) - len(few)) / 30 < 500, "characters for one more run"
