"""Progress: a bar on a terminal, lines in a file."""

import sys

from amct_tensorflow.io import progress
from amct_tensorflow.io.progress import ProgressBar


class Terminal:
    """A stderr that says it is a terminal."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True

    def fileno(self):
        raise OSError


def show_progress(title="original model", images=64, step=16):
    with ProgressBar(title, images) as bar:
        for _ in range(images // step):
            bar.update(step)


def test_progress_in_a_file_is_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 3600.0)
    show_progress()
    (line,) = capsys.readouterr().err.splitlines()  # only the final one
    assert line.startswith("original model: 64 of 64 images")
    assert "images/s" in line


def test_progress_in_a_file_goes_on_during_a_pass(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)
    show_progress("calibration")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[1].startswith("calibration: 32 of 64 images")
    assert lines[1].endswith("left")


def test_progress_on_a_terminal_is_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    show_progress("quantized model")
    assert "\r" in terminal.text
    assert "quantized model: 100%" in terminal.text
    assert "images/s" in terminal.text
