"""Experiments on a Ray cluster: the bits of a local run, whatever dies on the way."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_runs import scores
from image_copies import noise_store
from waiting import LONG, wait_until

from metalearn_benchmarks.runs.backends.ray.cluster import RayCluster
from metalearn_core import UsageError

HELPERS = Path(__file__).parents[3] / "helpers"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the package ray is not installed"
)

METALEARN = [sys.executable, "-c", "from metalearn_benchmarks.cli.app import main; main()"]
EXPERIMENT = """
title = "Two methods, so small that they take seconds"
setting = "sine-5-shot"
methods = ["maml", "turtle"]
family = { name = "sine" }
learner = { name = "mlp" }
scale.smoke.seeds = 2
scale.smoke.test_tasks = 20
scale.smoke.settings = { tasks = 80, validation_interval = 10, validation_tasks = 10 }
"""
TURTLE = "tiny/sine-5-shot/turtle/0"


@contextmanager
def cluster_of(nodes):
    """The address and raylets of a cluster; its folder's name must be short, sockets lie in it."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    process = subprocess.Popen(
        [sys.executable, HELPERS / "raylets.py", folder, str(nodes)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "RAY_TMPDIR": folder},
    )  # fmt: skip
    try:
        yield {**json.loads(process.stdout.readline()), "folder": folder}
    finally:
        process.communicate(timeout=LONG)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _no_token():
    """Whether the user has one decides nothing here, and none is written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        yield


@pytest.fixture(scope="module")
def cluster():
    with cluster_of(2) as found:
        yield found


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiment") / "tiny.toml"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope="module")
def local(experiment, tmp_path_factory):
    """What the same experiment gives without Ray."""
    from metalearn_benchmarks.experiments.catalogue import Overrides, cells, find_experiment
    from metalearn_benchmarks.runs.training import run_cells

    directory = tmp_path_factory.mktemp("local")
    for cell in cells(*find_experiment(str(experiment)), "smoke", Overrides()):
        run_cells([cell], directory, [])
    found = scores(directory)
    assert len(found) == 4
    return found


def command(experiment, address, directory, *more):
    return [*METALEARN, "run", experiment, "--scale", "smoke", "--ray", address, "--out", directory, *more]


def begun(arguments, **options):
    return subprocess.Popen(
        list(map(str, arguments)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def refused(*arguments):
    """What a command that must be refused says: one line."""
    process = begun(arguments)
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == 2, err
    assert err.count("\n") == 1, err
    return err


def validated(directory, run=TURTLE):
    """How often a run has been validated so far."""
    path = directory / run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def workers_of(raylets):
    """The processes that have a job in hand."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in raylets and (folder / "cmdline").read_bytes().startswith(b"ray::work"):
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


def kill_workers(raylets):
    killed = workers_of(raylets)
    assert killed
    for worker in killed:
        os.kill(worker, signal.SIGKILL)


@pytest.mark.nightly
def test_workers_killed_and_interrupted_the_same_command_ends_in_the_bits_of_a_local_run(
    cluster, experiment, local, tmp_path
):
    process = begun(command(experiment, cluster["address"], tmp_path))
    wait_until(lambda: validated(tmp_path) >= 2)
    kill_workers(cluster["raylets"])
    wait_until(lambda: validated(tmp_path) >= 5)  # another worker has gone on
    process.send_signal(signal.SIGINT)
    at = time.monotonic()
    out, err = process.communicate(timeout=LONG)
    assert process.returncode == 130
    assert time.monotonic() - at < 10
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert "maml, seed 0: task" in out
    finished = len(list(tmp_path.rglob("result.json")))
    assert finished < 4
    here = {**os.environ, "RAY_TMPDIR": cluster["folder"]}  # where Ray notes the cluster for `auto`
    process = begun(command(experiment, "auto", tmp_path), env=here)
    out, err = process.communicate(timeout=LONG)
    assert (process.returncode, err) == (0, "")
    assert out.count("already done") == finished
    assert scores(tmp_path) == local
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.nightly
def test_a_node_that_does_not_see_the_folder_is_told_of_in_one_line(cluster, experiment, tmp_path):
    """As far as one machine can play two: what the command puts there for its workers is taken away."""
    ended = threading.Event()

    def take_away():
        while not ended.is_set():
            for path in tmp_path.glob(".shared-*"):
                path.unlink()
            time.sleep(0.001)

    thread = threading.Thread(target=take_away)
    thread.start()
    try:
        told = refused(*command(experiment, cluster["address"], tmp_path, "-m", "maml"))
    finally:
        ended.set()
        thread.join()
    assert f"does not see {tmp_path} as this machine does" in told
    assert "give --out on a file system that all nodes share" in told
    assert not list(tmp_path.rglob("experiment.toml"))


@pytest.mark.nightly
def test_a_folder_that_a_worker_cannot_write_ends_the_command_with_one_line(cluster, experiment, tmp_path):
    """DIR itself can be written, and the folders of the runs cannot; no other run fares better."""
    (tmp_path / "tiny").write_text("in the way")
    told = refused(*command(experiment, cluster["address"], tmp_path))
    assert re.search(rf"{tmp_path}/tiny/sine-5-shot/(maml|turtle)/\d: cannot be written \(Not a dir", told)
    assert "mend that and give the same command again, or use another --out" in told
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.nightly
def test_a_disk_that_is_full_ends_the_command_with_one_line(cluster, experiment, local, tmp_path):
    """In truth, and half-way: what is on it is kept, and the same command goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here: it takes root")
    try:
        filler = disk / "filler"
        filler.write_bytes(bytes(2**20 - 100 * 2**10))
        told = refused(*command(experiment, cluster["address"], disk))
        assert "cannot be written (No space left on device)" in told
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        _, err = begun(command(experiment, cluster["address"], disk)).communicate(timeout=LONG)
        assert err == ""
        assert scores(disk) == local
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.nightly
def test_workers_find_the_data_where_the_command_does(cluster, tmp_path):
    """METALEARN_DATA is that of the command, and relative to its folder."""
    noise_store(tmp_path / "images", 0)
    row = ("-m", "nearest-centroid", "--only", "mini-imagenet-5-way-1-shot/*", "--seeds", 1)
    run = begun(
        command("table-3.1", cluster["address"], tmp_path / "out", *row),
        cwd=tmp_path,
        env={**os.environ, "METALEARN_DATA": "images"},
    )
    _, err = run.communicate(timeout=LONG)
    assert (run.returncode, err.count("metalearn:")) == (0, 0), err
    assert len(list((tmp_path / "out").rglob("result.json"))) == 1


@pytest.mark.parametrize(
    ("token", "told", "then"), [(True, None, "token"), (False, None, None), (True, "disabled", "disabled")]
)
def test_the_users_token_is_given_to_a_cluster_that_is_named(monkeypatch, tmp_path, token, told, then):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    if told:
        monkeypatch.setenv("RAY_AUTH_MODE", told)
    if token:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray/auth_token").write_text("secret")
    with pytest.raises(UsageError, match=r"nothing answers at 127\.0\.0\.1:9"), RayCluster("127.0.0.1:9"):
        pass
    found = os.environ.pop("RAY_AUTH_MODE", None)
    assert found == then


def test_what_no_node_has_is_refused(cluster, experiment, tmp_path):
    told = refused(*command(experiment, cluster["address"], tmp_path, "--threads", "64", "--device", "cuda"))
    assert "no node has what a run needs, 64 CPU, 1 GPU; at most 1 CPU, 0 GPU" in told


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--ray", "auto", "--workers", "2"], "exclude each other: use one of them"),
        (["--ray", "there"], "--ray there: expected HOST:PORT, auto or local"),
        (["--ray", "ray://127.0.0.1:10001"], "expected HOST:PORT, auto or local"),
        (["--ray", "127.0.0.1:1"], "nothing answers at 127.0.0.1:1"),
        (["--ray", "127.0.0.1:99999"], "nothing answers at 127.0.0.1:99999"),
    ],
)
def test_an_address_that_cannot_be_is_refused(metalearn, arguments, complaint):
    code, _, err = metalearn("run", "sine", *arguments)
    assert code == 2
    assert complaint in err
    assert err.count("\n") == 1


def test_without_the_package_one_line_names_the_extra(metalearn, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    code, _, err = metalearn("run", "sine", "--ray", "local", "--out", tmp_path)
    assert code == 2
    assert "pip install -e './benchmarks[ray]'" in err
    assert err.count("\n") == 1


@pytest.mark.nightly
def test_a_worker_killed_half_way_nobody_notices(cluster, experiment, local, tmp_path):
    process = begun(command(experiment, cluster["address"], tmp_path))
    wait_until(lambda: validated(tmp_path) >= 3)
    kill_workers(cluster["raylets"])
    assert not (tmp_path / TURTLE / "result.json").exists()
    _, err = process.communicate(timeout=LONG)
    assert (process.returncode, err) == (0, "")
    assert scores(tmp_path) == local


@pytest.mark.nightly
def test_a_node_killed_half_way_the_others_go_on(experiment, local, tmp_path):
    with cluster_of(3) as cluster:
        process = begun(command(experiment, cluster["address"], tmp_path))
        wait_until(lambda: validated(tmp_path) >= 3)
        busy = [raylet for raylet in cluster["raylets"][1:] if workers_of([raylet])]
        assert busy
        os.kill(busy[0], signal.SIGKILL)
        _, err = process.communicate(timeout=LONG)
    assert (process.returncode, err) == (0, "")
    assert scores(tmp_path) == local


@pytest.mark.nightly
def test_workers_killed_many_times(cluster, experiment, local, tmp_path):
    for attempt in range(5):
        directory = tmp_path / str(attempt)
        process, kills = begun(command(experiment, cluster["address"], directory)), 0
        while process.poll() is None and kills < 10:
            time.sleep(1.7)
            for worker in workers_of(cluster["raylets"])[:1]:
                os.kill(worker, signal.SIGKILL)
                kills += 1
        assert kills
        _, err = process.communicate(timeout=LONG)
        assert (process.returncode, err) == (0, "")
        assert scores(directory) == local


@pytest.mark.nightly
def test_ctrl_c_on_a_terminal_reaches_a_private_cluster_too(experiment, local, tmp_path):
    arguments = command(experiment, "local", tmp_path)
    process = begun(arguments, start_new_session=True)
    wait_until(lambda: validated(tmp_path) >= 2)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=LONG)
    assert process.returncode == 130
    assert "Traceback" not in err
    process = begun(arguments)
    assert process.communicate(timeout=LONG)[1] == ""
    assert scores(tmp_path) == local
