"""The log file is that of the directory in which the program logs, or a run begins; lines show no control character."""

import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT
from test_auto_calibration import calibrate, prepare

from amct_tensorflow.log import LOG_DIR, LOG_FILE, LOG_FILE_HANDLER, follow_directory, free_log, log_for, printable

HISTORY = "accuracy_based_auto_calibration_record.json"
STATES = "accuracy_based_auto_calibration_state"


def execute(script, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env=environment).stderr


def run_in(folder):
    """Runs in a folder; returns the names of what is in its folder of logs."""
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    calibrate(prepare(folder))
    return {path.name for path in LOG_DIR.iterdir()}


def test_it_goes_where_the_program_is_at_its_first_message(workdir):
    Path("later").mkdir()
    script = "import amct_tensorflow, os; from amct_tensorflow.log import log_for; os.chdir('later')"
    execute(f"{script}; log_for().info('first'); os.chdir('..'); log_for().info('second')", workdir)
    assert [path.name for path in workdir.iterdir()] == ["later"]
    assert [line[-6:].strip() for line in Path("later", LOG_FILE).read_text().splitlines()] == ["first", "second"]


def test_each_run_has_log_history_and_state_in_its_own_directory(workdir):
    before = None
    for name in ("one", "two"):
        assert run_in(workdir / name) == {LOG_FILE.name, HISTORY, STATES}
        text = LOG_FILE.read_text()
        assert text.count("Accuracy of saved model") == 1 and str(workdir / name) in text
        if before is not None:
            assert (workdir / "one" / LOG_FILE).read_text() == before
        before = text


def test_the_log_of_a_directory_that_was_left_is_free(workdir):
    """Another process may write to it."""
    run_in(workdir / "one")
    run_in(workdir / "two")
    script = "from amct_tensorflow.log import log_for; log_for().info('mine')"
    assert "another run" in execute(script, workdir / "two")
    assert "another run" not in execute(script, workdir / "one")
    assert "mine" in (workdir / "one" / LOG_FILE).read_text()


def test_two_runs_in_one_directory_share_the_log(workdir):
    for count in (1, 2):
        run_in(workdir)
        assert LOG_FILE.read_text().count("Accuracy of saved model") == count


def test_a_log_that_was_removed_is_begun_anew(workdir):
    run_in(workdir)
    shutil.rmtree(LOG_DIR)
    assert run_in(workdir) == {LOG_FILE.name, HISTORY, STATES}


def test_a_directory_that_refuses_the_log_is_left_for_another(workdir, capsys):
    follow_directory()
    LOG_DIR.write_text("a file where the folder should be")
    log_for().info("lost")
    assert "No log file" in capsys.readouterr().err
    assert run_in(workdir / "other") == {LOG_FILE.name, HISTORY, STATES}
    os.chdir(workdir)
    follow_directory()
    log_for().info("lost")
    assert "No log file" in capsys.readouterr().err


@pytest.mark.parametrize("when", ["before", "after"])
def test_without_a_current_directory_there_is_no_log(workdir, when):
    """Which is told in one line, and is no reason to end."""
    leave = "import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')"
    load = "from amct_tensorflow.log import follow_directory, log_for"
    steps = [leave, load] if when == "before" else [load, leave]
    error = execute("; ".join([*steps, "follow_directory()", "log_for().info('said')"]), workdir)
    assert "said" in error and "No log file" in error and "Traceback" not in error


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "a\rb", "\x07", "\x9b31m", "\u202egnp.exe", "\u2028", "\udcff"])
def test_no_control_character_reaches_the_terminal(text, capsys, workdir):
    assert printable(text).isprintable()
    logging.getLogger("amct_tensorflow").error("node %s", text, extra={"amct_module": "AMCT"})
    first, *_ = capsys.readouterr().err.split("\n")
    assert "node " in first and first.isprintable()


def test_other_text_stays_as_it_is():
    assert printable("Größe 层 λ/ñ:0") == "Größe 层 λ/ñ:0"


def test_a_lock_that_an_interruption_has_left_is_freed(workdir):
    follow_directory()
    log_for().info("first")
    LOG_FILE_HANDLER.acquire()
    LOG_FILE_HANDLER.acquire()
    other = threading.Thread(target=log_for().info, args=["of another thread"], daemon=True)
    other.start()
    other.join(0.1)
    assert other.is_alive()
    free_log()
    other.join(60)
    assert not other.is_alive() and "of another thread" in LOG_FILE.read_text()
    free_log()  # holds nothing now
