"""Reading a text file that a user gave."""

from pathlib import Path

from amct_tensorflow.errors import AmctError


def read_text(path: str | Path, subject: str, error: type[AmctError], remedy: str) -> str:
    """Reads a text file.

    Args:
        path: the file.
        subject: what messages call it, its path included.
        error: what to raise if it cannot be read.
        remedy: what to do then, as a sentence.

    Raises:
        AmctError: an ``error``: there is no such file, or it is not UTF-8.
    """
    try:
        return Path(path).read_bytes().decode("utf-8")
    except OSError as refused:
        raise error(f"{subject} cannot be read: {refused.strerror}. {remedy}") from refused
    except UnicodeDecodeError as refused:
        raise error(f"{subject} is not text (UTF-8). {remedy}") from refused
