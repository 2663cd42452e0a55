"""A quiet start: what C++ code says goes to the log file, and is shown only if the process ends without a word."""

import os
import re
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from programs import run_program
from small_sample import SAMPLE, small_sample

from amct_tensorflow.log import LOG_FILE

START = """
import os, signal, sys, time
from amct_tensorflow.console import quiet_tensorflow
from amct_tensorflow.log import log_for
quiet_tensorflow()
def say(text):
    os.write(2, text.encode() + b"\\n")
"""
DIED = "killed, or failed inside TensorFlow"
OURS = re.compile(
    r"\d{4}-\d\d-\d\d [\d:,]+ - (INFO|WARNING|ERROR) - \[AMCT\]:\[\w+\]: "
    r"|(original model|quantized model|calibration): "
)


def python(code, *, start=START, **options):
    command = [sys.executable, "-c", start + code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60, **options)


def messages(text):
    return [line.split("]: ", 1)[-1] for line in text.splitlines()]


def test_it_is_in_the_log_in_the_order_of_events():
    done = python("say('one'); log_for().info('two'); say('three'); print('four', file=sys.stderr)")
    assert done.returncode == 0
    assert messages(done.stderr) == ["two", "four"]
    assert messages(LOG_FILE.read_text()) == ["one", "two", "three"]
    assert "[AMCT]:[tensorflow]: one" in LOG_FILE.read_text()


def test_it_alone_begins_no_log(workdir):
    done = python("say('one')")
    assert (done.returncode, done.stderr, list(workdir.iterdir())) == (0, "", [])


def test_pythons_own_errors_are_shown():
    done = python("raise ValueError('mine')")
    assert done.returncode == 1 and "Traceback" in done.stderr and "ValueError: mine" in done.stderr


def test_what_was_said_last_before_an_abort_is_shown():
    done = python("say('early'); log_for().info('ours'); say('check failed'); os.abort()")
    assert done.returncode == -signal.SIGABRT
    ours, died, last = messages(done.stderr)
    assert (ours, last) == ("ours", "check failed") and DIED in died
    assert messages(LOG_FILE.read_text()) == ["early", "ours", died, "check failed"]


def test_an_abort_before_anything_was_logged_begins_a_log():
    done = python("say('early'); os.abort()")
    assert messages(done.stderr)[1:] == ["early"]
    assert messages(LOG_FILE.read_text()) == messages(done.stderr)


def test_a_log_that_cannot_be_written(workdir):
    (workdir / "amct_log").write_text("a file where the folder should be")
    done = python("say('early'); log_for().info('ours'); say('late'); os.abort()")
    assert messages(done.stderr)[-2:] == ["early", "late"] and "No log file" in done.stderr


def test_a_kill_from_outside_is_no_reason_to_show_what_is_in_the_log():
    done = python("say('early'); log_for().info('ours'); os.kill(os.getpid(), signal.SIGKILL)")
    assert messages(done.stderr) == ["ours"]


def test_control_characters_are_escaped():
    done = python("say('\\x1b[2J'); os.abort()")
    assert done.stderr.endswith("\\x1b[2J\n")


def test_a_flood_is_shown_in_part_and_logged_in_full():
    done = python("log_for().info('ours'); [say(str(number)) for number in range(5000)]; os.abort()")
    assert messages(done.stderr)[-1] == "4999" and len(done.stderr.splitlines()) < 60
    assert messages(LOG_FILE.read_text())[2:] == [str(number) for number in range(5000)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "term"])
def test_the_watcher_survives_what_the_group_is_sent(number):
    code = f"""
signal.signal({int(number)}, lambda *_: None)
os.killpg(0, {int(number)})
time.sleep(0.2)
say('last')
os.abort()
"""
    done = python(code, start_new_session=True)
    assert messages(done.stderr)[1:] == ["last"]


def test_the_end_of_a_forked_process_is_not_that_of_the_program():
    done = python("""
if os.fork() == 0:
    say('child')
    sys.exit(0)
os.wait()
log_for().info('ours')
say('last')
os.abort()
""")
    assert [line for line in messages(done.stderr) if DIED not in line] == ["ours", "last"]


def test_a_terminal_stays_one():
    terminal, end = os.openpty()
    code = "import sys; say('hidden'); print(sys.stderr.isatty(), os.isatty(2), file=sys.stderr)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", START + code], env=environment, stderr=end, check=True)
    os.close(end)
    assert os.read(terminal, 1000).split() == [b"True", b"False"]
    os.close(terminal)


def test_without_stderr_nothing_is_done():
    command = f'"{sys.executable}" -c "from amct_tensorflow.console import quiet_tensorflow; quiet_tensorflow()" 2>&-'
    assert subprocess.run(command, shell=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode == 0


def test_a_library_leaves_stderr_alone():
    done = run_program("-c", "import amct_tensorflow.quantization, os; os.write(2, b'mine\\n')", PYTHONPATH=ROOT)
    assert done.stderr.endswith("mine\n")


# --------------------------------------------------------------------------------------------------- The programs


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"} | environment,
    )  # fmt: skip


def test_the_sample_shows_nothing_but_its_own(workdir):
    done = run(SAMPLE, *small_sample(workdir, "--expected_acc_loss", "99"))
    assert done.returncode == 0 and done.stdout == ""
    assert [line for line in done.stderr.splitlines() if not OURS.match(line)] == []
    assert "[AMCT]:[tensorflow]" not in done.stderr and "[AMCT]:[tensorflow]" in LOG_FILE.read_text()


def test_a_run_that_dies_inside_tensorflow(workdir):
    """It ends the process when a flag of the user's has no meaning."""
    done = run(SAMPLE, *small_sample(workdir), TF_XLA_FLAGS="--nonsense")  # which waits for the watcher, too
    assert done.returncode != 0
    assert DIED in done.stderr and "Unknown flag in TF_XLA_FLAGS: --nonsense" in done.stderr
    assert "--nonsense" in LOG_FILE.read_text()


@pytest.mark.campaign
@pytest.mark.parametrize("script", ["src/images_to_tfrecords.py", "model/fetch_mobilenet_v2.py"])
def test_the_other_programs_are_quiet_and_leave_no_log(script, workdir):
    done = run(ROOT / script, "--help")
    assert (done.returncode, done.stderr, list(workdir.iterdir())) == (0, "", [])
