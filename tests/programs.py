"""Programs in processes of their own, which are forked from one that has imported TensorFlow already.

That process runs nothing, so that none of TensorFlow's threads is lost in a fork; it ends with the tests. A program
that must find TensorFlow unimported is started as any other, with ``subprocess``.
"""

import atexit
import multiprocessing
import os
import runpy
import sys
import tempfile
import time
from pathlib import Path
from subprocess import CompletedProcess

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tensorflow", "h5py", "jinja2", "matplotlib.figure"])


class Program:
    """One that runs, and what it has said so far."""

    def __init__(self, *arguments, folder=".", session=False, **environment):
        """Starts it.

        Args:
            arguments: what follows ``python``: a file, ``-m`` and a module, or ``-c`` and code; and theirs.
            folder: where it runs.
            session: whether signals to the group of the tests pass it by.
            environment: what it finds beside the environment of the tests.
        """
        self._said = tempfile.TemporaryDirectory()
        self._streams = [Path(self._said.name, name) for name in ("stdout", "stderr")]
        for stream in self._streams:
            stream.touch()
        environment = {**os.environ, **{name: str(value) for name, value in environment.items()}}
        run = (list(map(str, arguments)), str(Path(folder).resolve()), environment, self._streams, session)
        self._process = FORKED.Process(target=_run, args=run)
        self._process.start()
        self.pid = self._process.pid

    @property
    def stdout(self):
        return self._streams[0].read_text(errors="replace")

    @property
    def stderr(self):
        return self._streams[1].read_text(errors="replace")

    @property
    def returncode(self):
        """Its exit code, negative if a signal has ended it; None while it runs."""
        return self._process.exitcode

    def says(self, text, seconds=60):
        """Tells whether it says something on stderr before it ends, or the time is up."""
        deadline = time.monotonic() + seconds
        while text not in self.stderr and self.returncode is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return text in self.stderr

    def send_signal(self, number):
        os.kill(self.pid, number)

    def wait(self, seconds=600):
        """Waits for its end; returns its exit code."""
        self._process.join(seconds)
        if self.returncode is None:
            self._process.kill()
            raise TimeoutError(f"It still runs after {seconds} s, and has said: {self.stderr}")
        return self.returncode


def run_program(*arguments, seconds=600, **options):
    """Runs a program to its end (see ``Program``); returns what ``subprocess.run`` would."""
    program = Program(*arguments, **options)
    return CompletedProcess(arguments, program.wait(seconds), program.stdout, program.stderr)


def _run(arguments, folder, environment, streams, session):
    """What the forked process does."""
    if session:
        os.setsid()
    for descriptor, stream in enumerate(streams, 1):
        opened = os.open(stream, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.orig_argv = [sys.executable, *arguments]
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    first, *rest = arguments
    try:
        if first == "-m":
            sys.path[:0] = [folder]
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            sys.path[:0] = [""]
            sys.argv = [first, *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.path[:0] = [str(Path(first).resolve().parent)]
            sys.argv = arguments
            runpy.run_path(first, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing does without
