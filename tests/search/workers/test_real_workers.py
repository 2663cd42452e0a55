"""A run of the sample with processes, and with a real Ray cluster on this machine; a worker is killed in the middle."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT, load_script
from reports import without_times
from small_sample import IMAGES, small_sample
from test_ends import is_alive, wait_for

from amct_tensorflow.errors import WorkerError
from amct_tensorflow.log import LOG_DIR
from amct_tensorflow.search.workers.pool import Ready
from amct_tensorflow.search.workers.process_pool import ProcessPool
from amct_tensorflow.search.workers.ray_pool import RayPool
from amct_tensorflow.search.workers.scheduler import Scheduler

sample = load_script("src/mobilenet_v2_accuracy_based_auto_calibration.py")

HISTORY = str(LOG_DIR / "accuracy_based_auto_calibration_record.json")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """The arguments of a run of the sample."""
    return small_sample(tmp_path_factory.mktemp("model"), "--expected_acc_loss", "3")


def run(folder, *arguments):
    """Runs the sample in a folder of its own; returns what it leaves."""
    folder.mkdir()
    os.chdir(folder)
    assert sample.run(sample.parse_arguments(arguments))
    found = [path for path in Path().rglob("*") if path.is_file() and path.suffix != ".log"]
    # The folder of the state is named after the absolute path of the results.
    return {re.sub(r"state/\w+/", "state/", str(path)): without_times(path.name, path.read_bytes()) for path in found}


@pytest.fixture(scope="module")
def expected(tmp_path_factory, task):
    before = Path.cwd()
    files = run(tmp_path_factory.mktemp("one") / "process", *task)
    os.chdir(before)
    models = 1 + len(json.loads(files[HISTORY]))  # that were evaluated: the original, and those of the history
    assert len(files) == 10 + 1 + 2 + models  # results, history, state, and what each model gave
    return files


@pytest.fixture
def killed(monkeypatch):
    """Kills a worker that has begun with its share of the second model; returns which process it was."""
    handle = Scheduler._handle
    places, killed = {}, []

    def note_place(scheduler, event):
        if isinstance(event, Ready):
            places[event.worker] = int(re.search(r"process (\d+) ", event.handshake.place)[1])
        handle(scheduler, event)

    def kill_after(give):
        def give_and_kill(pool, worker, task, candidate):
            give(pool, worker, task, candidate)
            if candidate is not None and "quantized" in candidate.title and not killed:
                time.sleep(0.1)
                killed.append(places[worker])
                os.kill(places[worker], signal.SIGKILL)

        return give_and_kill

    monkeypatch.setattr(Scheduler, "_handle", note_place)
    for pool in (ProcessPool, RayPool):
        monkeypatch.setattr(pool, "give", kill_after(pool.give))
    return killed


def check(expected, killed, files, messages):
    """Checks what a run left in which a worker was killed; returns what it said of that."""
    assert files == expected
    (process,) = killed
    assert wait_for(lambda: not is_alive(process))
    (told,) = (line for line in messages if "A worker has died" in line)
    return told


def test_processes_on_this_machine(expected, killed, task, workdir, messages, capsys):
    told = check(expected, killed, run(workdir / "run", *task, "--num_workers", "2"), messages)
    assert f"process {killed[0]} was killed by SIGKILL" in told
    shown = capsys.readouterr().err
    assert all(f"{which} model: {IMAGES} of {IMAGES} images" in shown for which in ("original", "quantized"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_there(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray cluster on this machine, which is stopped at the end."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
               "--include-dashboard=false", "--num-cpus=2", "--object-store-memory=100000000"]  # fmt: skip
    port = free_port()
    # A token that some other cluster has left for its user is none of ours.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    # Ray makes sockets in it, whose paths must be short.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, Path(folder, "log").open("w+") as log:
        process = subprocess.Popen(
            [*command, f"--port={port}", f"--temp-dir={folder}/ray"],
            stdout=log, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            assert wait_for(lambda: is_there(port) or process.poll() is not None, 90) and process.poll() is None
            yield f"127.0.0.1:{port}"
        finally:
            ray.shutdown()
            monkeypatch.undo()
            process.terminate()  # it ends the others
            wait_for(lambda: process.poll() is not None, 20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.campaign
def test_a_ray_cluster(cluster, expected, killed, task, workdir, messages):
    told = check(expected, killed, run(workdir / "run", *task, "--ray", cluster), messages)
    assert "another one takes its place" in told


@pytest.mark.campaign
def test_no_more_workers_than_the_cluster_has_cpus(cluster):
    with pytest.raises(WorkerError, match=r"has 2 CPUs, too few for 9 workers.*num_workers"):
        RayPool(9, b"", cluster)


@pytest.mark.campaign
def test_a_cluster_that_is_not_there():
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.raises(WorkerError, match=r"Ray cluster 127\.0\.0\.1:1 cannot be reached .*ray start --head"):
        RayPool(2, b"", "127.0.0.1:1")


def test_ray_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WorkerError, match=r"Ray is not installed.*amct-tensorflow-open\[ray\]"):
        RayPool(2, b"", "auto")
