"""Records as tables: what pandas reads is what each record says, from folders and from archives."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import synthetic_records as made

import metalearn_benchmarks
from metalearn_benchmarks.records.archive import write_archive
from metalearn_benchmarks.records.reading import read_records as read_each
from metalearn_core.errors import UsageError

pd = pytest.importorskip("pandas")
NAMES = ["experiment", "setting", "method", "seed"]


@pytest.fixture
def directory(tmp_path):
    """Three runs of two methods, one of which is tested on a second family, too."""
    folder = tmp_path / "results"
    for seed in (0, 1):
        made.write(folder, made.cell("maml", seed))
    options = {"hidden": [20, 20], "inputs": ["grad"]}
    made.write(folder, made.cell("turtle", 0, options=options), across=("other",))
    made.write(folder, made.cell("lstm", 0))
    return folder


def plain(directory):
    """What each record says, read with the standard library alone, by method and seed."""
    paths = directory.glob("*/*/*/*/result.json")
    return {(path.parts[-3], int(path.parts[-2])): json.loads(path.read_text()) for path in paths}


def test_a_row_of_a_run_says_what_its_record_says(directory):
    frame = metalearn_benchmarks.read_records(directory)
    told = plain(directory)
    assert list(frame.columns[:4]) == NAMES
    assert sorted(zip(frame["method"], frame["seed"], strict=True)) == sorted(told)
    for _, row in frame.iterrows():
        result = told[row["method"], row["seed"]]
        assert row["mean"] == result["summary"]["mean"]
        assert [row["ci95_low"], row["ci95_high"]] == result["summary"]["ci95"]
        assert row["seconds"] == result["seconds"]
        assert row["steps"] == len(result["scores"]["sine"][0]) - 1
        assert (row["shots"], row["test_tasks"], row["torch"]) == (5, 20, "2.11.0")
    hidden = frame.set_index("method")["option.hidden"]
    assert hidden["turtle"] == "[20, 20]"  # of another kind than the LSTM's number: both are JSON
    assert hidden["lstm"] == "20"


def test_a_row_of_a_task_has_its_last_score(directory):
    frame = metalearn_benchmarks.read_records(directory, each="task")
    told = plain(directory)
    assert len(frame) == 5 * 20
    own = frame[(frame["method"] == "turtle") & (frame["family"] == "other")]
    assert own["task"].tolist() == list(range(20))
    assert own["score"].tolist() == [row[-1] for row in told["turtle", 0]["scores"]["other"]]


def test_a_row_of_a_validation_is_a_point_of_the_learning_curve(directory):
    frame = metalearn_benchmarks.read_records(directory, each="validation")
    own = frame[(frame["method"] == "maml") & (frame["seed"] == 1)]
    assert own[["position", "score"]].to_numpy().tolist() == plain(directory)["maml", 1]["validations"]


@pytest.mark.parametrize("each", ["run", "task", "validation"])
def test_an_archive_gives_the_same_table(directory, tmp_path, each):
    archive = tmp_path / "some.records.tar.xz"
    write_archive(read_each(directory), archive)
    here, there = (metalearn_benchmarks.read_records(path, each) for path in (directory, archive))
    assert list(here.columns) == list(there.columns)
    assert here.dtypes.to_dict() == there.dtypes.to_dict()
    numbers = [name for name in ("mean", "score") if name in here and here[name].dtype == float]
    pd.testing.assert_frame_equal(here[NAMES], there[NAMES])
    pd.testing.assert_frame_equal(here[numbers], there[numbers], rtol=1e-2)


def test_a_damaged_record_is_an_error_or_told(directory):
    next(directory.glob("*/*/lstm/0/result.json")).write_text("{")
    with pytest.raises(UsageError, match=r"result\.json"):
        metalearn_benchmarks.read_records(directory)
    told = []
    frame = metalearn_benchmarks.read_records(directory, warn=told.append)
    assert (len(frame), len(told)) == (3, 1)


def test_an_unknown_kind_of_row_is_refused_by_name(directory):
    with pytest.raises(UsageError, match=r"row 'tasks'.*task"):
        metalearn_benchmarks.read_records(directory, each="tasks")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_command_writes_what_pandas_reads(metalearn, directory, tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"runs.{ending}"
    code, out, err = metalearn("records", directory, "--to", path)
    assert (code, err) == (0, "")
    assert f"{path}: 4 rows" in out
    back = getattr(pd, f"read_{ending}")(path)
    frame = metalearn_benchmarks.read_records(directory)
    assert list(back.columns) == list(frame.columns)
    assert back["mean"].tolist() == frame["mean"].tolist()


def test_the_command_speaks_json_and_knows_the_other_word(metalearn, directory, tmp_path):
    path = tmp_path / "tasks.csv"
    code, out, _ = metalearn("records", directory, "--each", "task", "--out", path, "--json")
    told = json.loads(out)
    assert (code, told["rows"], told["bytes"]) == (0, 100, path.stat().st_size)
    assert told["columns"] == list(pd.read_csv(path).columns)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["results", "--to", "runs.xlsx"], "ends in .parquet or .csv"),
        (["nowhere", "--to", "runs.csv"], "no such folder"),
        (["empty", "--to", "runs.csv"], "no finished run"),
    ],
)
def test_what_cannot_be_written_is_said_in_a_line(metalearn, directory, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, _, err = metalearn("records", *words)
    assert code == 2
    assert told in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("runs*"))


def test_a_missing_pyarrow_is_said_with_the_remedy(metalearn, directory, tmp_path, monkeypatch):
    for name in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, name, None)
    code, _, err = metalearn("records", directory, "--to", tmp_path / "runs.parquet")
    assert code == 2
    assert "pip install pyarrow" in err
    assert not list(tmp_path.glob("runs*"))


def test_reading_a_table_imports_no_torch(directory):
    program = (
        "import sys, metalearn_benchmarks\n"
        "assert len(metalearn_benchmarks.read_records(sys.argv[1])) == 4\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(directory)], check=True)
