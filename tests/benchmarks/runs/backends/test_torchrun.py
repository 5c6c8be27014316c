"""One run over two processes, as torchrun starts them: its numbers, and what happens when one dies."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs
import pytest
import torch
from command_runs import PROGRAM, scores
from synthetic_records import change_result
from waiting import LONG, wait_until

from metalearn_benchmarks.cli import run as run_command

EXPERIMENT = """
title = "Two methods, so small that they take seconds"
setting = "sine-5-shot"
methods = ["tuned", "turtle"]
method.tuned = { extends = "finetuning", title = "Finetuning", settings.steps = 5 }
family = { name = "sine" }
learner = { name = "mlp" }
settings.meta_batch = 3
scale.smoke.seeds = 1
scale.smoke.test_tasks = 30
scale.smoke.settings = { tasks = 120, validation_interval = 15, validation_tasks = 20, evaluation_batch = 10 }
"""
FULL = """
import os
from pathlib import Path
left, real = [2], os.replace
def replace(source, target):
    left[0] -= Path(target).name == "checkpoint.pt" and "turtle" in str(target)
    if left[0] < 0:
        raise OSError(28, os.strerror(28))
    real(source, target)
os.replace = replace
"""
"""Before the command: the disk takes two checkpoints of a method, and then no more."""
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
    *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"),
]
TURTLE = "tiny/sine-5-shot/turtle/0"
OF_TORCHRUN = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}
LOST = "turtle, seed 0: another process of this run has ended; the same command goes on"


@pytest.fixture(autouse=True)
def _no_page(monkeypatch):
    monkeypatch.setattr(run_command, "write_and_print_report", lambda directory, console: None)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "tiny.toml"
    path.write_text(EXPERIMENT)
    return path


def asked(experiment, directory, *more):
    return list(map(str, ["run", experiment, "--scale", "smoke", "--out", directory, *more]))


def meet_at(file, rank):
    """Find the other one by a file: the store that torch would begin listens on every interface."""
    store = torch.distributed.FileStore(file, 2)
    torch.distributed.init_process_group = functools.partial(
        torch.distributed.init_process_group, store=store, rank=rank, world_size=2
    )


def command(told, arguments, program, files):
    """In a process of its own: the command, as if it were started with this environment."""
    for number, path in enumerate(files, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ |= told
    meet_at(told["MEETING"], int(told["RANK"]))
    sys.argv = ["metalearn", *arguments]
    exec(program, {})


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [__name__, "metalearn_benchmarks.runs.runner", "metalearn_benchmarks.runs.backends.torchrun"]
)


@attrs.frozen(eq=False)
class Started:
    """A process, and where it says what it says."""

    process: multiprocessing.Process
    files: list[Path]

    def ended(self):
        self.process.join(LONG)
        return (self.process.exitcode, *(path.read_text() for path in self.files))


def begun(arguments, program=PROGRAM):
    """The two processes of a command, with what torchrun tells them, and nobody who looks after them."""
    meeting = Path(tempfile.mkdtemp(), "store")
    started = []
    for rank in "01":
        told = {
            **OF_TORCHRUN,
            "LOCAL_WORLD_SIZE": "2",
            "MEETING": str(meeting),
            "RANK": rank,
            "LOCAL_RANK": rank,
        }
        files = [Path(tempfile.mkstemp()[1]) for _ in range(2)]
        process = CONTEXT.Process(target=command, args=(told, arguments, program, files))
        process.start()
        started.append(Started(process, files))
    return started


def ended(started):
    """Of each process its exit code, and what it said: (code, out, err)."""
    return [one.ended() for one in started]


def run(arguments, program=PROGRAM):
    """A command that must end well: what process 0 said; the other one says nothing."""
    first, second = ended(begun(arguments, program))
    assert (first[0], first[2]) == (0, "")
    assert second == (0, "", "")
    return first[1]


@pytest.fixture(scope="module")
def uninterrupted(experiment, tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    return directory, run(asked(experiment, directory))


def validated(directory, place=TURTLE):
    path = directory / place / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_two_processes_are_one_run(uninterrupted, experiment, metalearn, tmp_path):
    directory, out = uninterrupted
    assert "2 processes share each meta-batch, eager" in out
    assert out.count("turtle, seed 0: median error") == 1
    assert metalearn(*asked(experiment, tmp_path, "--workers", "1"))[0] == 0
    ours, theirs = scores(directory), scores(tmp_path)
    assert len(ours) == len(theirs) == 2
    for name, one in theirs.items():
        for key in ("scores", "validations"):
            assert flat(ours[name][key]) == pytest.approx(flat(one[key]), rel=1e-3)
    result = json.loads((directory / TURTLE / "result.json").read_text())
    assert (result["processes"], result["engine"]) == (2, "eager")
    assert "\nprocesses = 2\n" in (directory / TURTLE / "experiment.toml").read_text()
    assert json.loads((tmp_path / TURTLE / "result.json").read_text())["processes"] == 1
    for path in tmp_path.rglob("experiment.toml"):  # as they were before there could be several
        path.write_text(path.read_text().replace("processes = 1\n", ""))
        change_result(path.parent)
    code, out, _ = metalearn(*asked(experiment, tmp_path, "--workers", "1"))
    assert (code, out.count("already done")) == (0, 2)


def flat(value):
    if isinstance(value, dict):
        return flat(list(value.values()))
    return [x for inner in value for x in flat(inner)] if isinstance(value, list) else [value]


def test_one_killed_half_way_the_same_command_ends_in_the_same_bits(uninterrupted, experiment, tmp_path):
    processes = begun(asked(experiment, tmp_path))
    wait_until(lambda: validated(tmp_path) >= 3)
    processes[1].process.kill()
    (code, _, err), _ = ended(processes)
    assert (code, err) == (1, f"metalearn: {LOST}\n")
    assert not (tmp_path / TURTLE / "result.json").exists()
    run(asked(experiment, tmp_path))
    assert scores(tmp_path) == scores(uninterrupted[0])


@pytest.mark.nightly
def test_the_first_one_killed_the_other_ends_without_a_word(uninterrupted, experiment, tmp_path):
    processes = begun(asked(experiment, tmp_path))
    wait_until(lambda: validated(tmp_path) >= 3)
    processes[0].process.kill()
    assert ended(processes)[1] == (1, "", "")
    run(asked(experiment, tmp_path))
    assert scores(tmp_path) == scores(uninterrupted[0])


@pytest.mark.nightly
def test_a_full_disk_ends_all_processes_with_one_line(uninterrupted, experiment, tmp_path):
    (code, _, err), second = ended(begun(asked(experiment, tmp_path), FULL + PROGRAM))
    assert (code, err.count("\n")) == (2, 1), err
    assert f"{TURTLE}/checkpoint.pt: cannot be written (No space left on device)" in err
    assert second == (1, "", "")
    run(asked(experiment, tmp_path))
    assert scores(tmp_path) == scores(uninterrupted[0])


@pytest.mark.nightly
def test_a_damaged_checkpoint_is_made_anew_by_all(uninterrupted, experiment, tmp_path):
    ended(begun(asked(experiment, tmp_path), FULL + PROGRAM))
    checkpoint = tmp_path / TURTLE / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    (code, _, err), second = ended(begun(asked(experiment, tmp_path)))
    assert (code, err.count("\n")) == (0, 1), err
    assert "set aside as checkpoint.pt.damaged-1, and made anew" in err
    assert second == (0, "", "")
    assert scores(tmp_path) == scores(uninterrupted[0])


@pytest.mark.nightly
def test_observers_are_told_by_the_first_process_alone(uninterrupted, experiment, tmp_path):
    (code, out, _), second = ended(begun(asked(experiment, tmp_path, "--observe", "json-lines")))
    assert code == 0
    assert second == (0, "", "")
    told = [json.loads(line) for line in out.splitlines()]
    steps = [one["position"] for one in told if (one["method"], one["kind"]) == ("turtle", "step")]
    assert steps == list(range(3, 121, 3))
    assert [one["kind"] for one in told].count("result") == 2
    assert scores(tmp_path) == scores(uninterrupted[0])


@pytest.mark.nightly
def test_a_record_of_two_processes_is_computed_again_by_two(uninterrupted, tmp_path):
    file = uninterrupted[0] / TURTLE / "experiment.toml"
    run(["run", str(file), "--out", str(tmp_path)])
    place = f"{TURTLE}/result.json"
    assert scores(tmp_path) == {place: scores(uninterrupted[0])[place]}
    assert (tmp_path / TURTLE / "experiment.toml").read_text() == file.read_text()


@pytest.mark.nightly
def test_compiled_seeds_of_one_program_too(experiment, tmp_path):
    """Also where one of them is finished, and only keeps its place."""
    more = ("-m", "turtle", "--seeds", 2, "--together", 2, "--engine", "compiled")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert "2 processes share each meta-batch, compiled" in run(asked(experiment, whole, *more))
    processes = begun(asked(experiment, cut, *more))
    wait_until(lambda: validated(cut) >= 3)
    processes[1].process.kill()
    assert ended(processes)[0][0] == 1
    run(asked(experiment, cut, *more))
    assert scores(cut) == scores(whole)
    again = tmp_path / "again"
    run(["run", str(whole / TURTLE / "experiment.toml"), "--out", str(again)])
    place = f"{TURTLE}/result.json"
    assert scores(again) == {place: scores(whole)[place]}
    assert json.loads((again / place).read_text())["engine"] == "compiled"


def process_of(torchrun, rank):
    """The process that torchrun has started with this rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == torchrun.pid and f"\0RANK={rank}\0" in f"\0{(folder / 'environ').read_text()}":
                return int(folder.name)
        except OSError:  # it has ended
            continue
    raise AssertionError(f"no process of rank {rank}")


def by_torchrun(experiment, directory):
    return subprocess.Popen(
        [*TORCHRUN, "-m", "metalearn_benchmarks", *asked(experiment, directory)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def send(number, rank=None):
    """What sends a signal to torchrun, or to one of its processes."""
    return lambda torchrun: os.kill(torchrun.pid if rank is None else process_of(torchrun, rank), number)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("stop", "said"),
    [
        (send(signal.SIGKILL, 0), ""),
        (send(signal.SIGKILL, 1), LOST),
        (send(signal.SIGINT), "the same command goes on"),
        (send(signal.SIGTERM), "the same command goes on"),
        (send(signal.SIGTERM, 0), "everything is saved"),
        (send(signal.SIGTERM, 1), "everything is saved"),
    ],
    ids=["kill 0", "kill 1", "ctrl-c", "term", "term 0", "term 1"],
)
def test_under_torchrun_whichever_is_killed_or_told_to_stop(uninterrupted, experiment, tmp_path, stop, said):
    torchrun = by_torchrun(experiment, tmp_path)
    wait_until(lambda: validated(tmp_path) >= 3)
    stop(torchrun)
    out, err = torchrun.communicate(timeout=LONG)
    assert torchrun.returncode != 0
    assert said in out + err
    assert "metalearn_benchmarks/" not in out + err  # tracebacks are torchrun's own
    assert not (tmp_path / TURTLE / "result.json").exists()
    torchrun = by_torchrun(experiment, tmp_path)
    _, err = torchrun.communicate(timeout=LONG)
    assert torchrun.returncode == 0, err
    assert scores(tmp_path) == scores(uninterrupted[0])


def test_another_number_of_processes_is_another_experiment(uninterrupted, experiment, metalearn):
    code, _, err = metalearn(*asked(experiment, uninterrupted[0]))
    assert (code, err.count("\n")) == (2, 1)
    assert "processes is 2 in tiny/sine-5-shot" in err
    assert "and 1 here" in err


def test_a_record_of_two_processes_is_not_computed_by_one(uninterrupted, metalearn, tmp_path, monkeypatch):
    file = uninterrupted[0] / TURTLE / "experiment.toml"
    code, _, err = metalearn("run", file, "--out", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert f"run it with torchrun --nproc-per-node 2 -m metalearn_benchmarks run {file}" in err
    alone = tmp_path / "experiment.toml"
    alone.write_text(file.read_text().replace("processes = 2", "processes = 1"))
    for name, value in OF_TORCHRUN.items():
        monkeypatch.setenv(name, value)
    code, _, err = metalearn("run", alone, "--out", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "shared by 1 process(es), and here there are 2: run it without torchrun" in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--workers", "2"], "--workers 2 (programs on this machine) and torchrun (2 processes for one run"),
        (["--ray", "local"], "--ray local (programs on a cluster) and torchrun (2 processes"),
        (["--device", "cuda:1", "-m", "finetuning"], "say --device cuda"),
        ([], "method 'maml' has a meta-batch of 1, which 2 processes cannot share"),
    ],
)
def test_what_cannot_be_together_is_refused_by_one_of_them(
    metalearn, monkeypatch, tmp_path, arguments, complaint
):
    for name, value in OF_TORCHRUN.items():
        monkeypatch.setenv(name, value)
    code, out, err = metalearn("run", "sine", *arguments, "--out", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert complaint in err
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert metalearn("run", "sine", *arguments, "--out", tmp_path) == (2, "", "")


def test_a_process_without_a_gpu_says_so_itself(experiment, metalearn, monkeypatch, tmp_path):
    for name, value in {**OF_TORCHRUN, "RANK": "99", "LOCAL_RANK": "99"}.items():
        monkeypatch.setenv(name, value)
    code, _, err = metalearn(*asked(experiment, tmp_path, "--device", "cuda"))
    assert (code, err.count("\n")) == (2, 1)
    assert "process 99 has no GPU: it is number 99 on its machine" in err
