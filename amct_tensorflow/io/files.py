"""Reading text files that a user gave, and writing files so that they appear whole or not at all."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from amct_tensorflow.errors import AmctError, OutputError
from amct_tensorflow.log import log_for


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


_FOLDER_MODE = 0o750
_FILE_MODE = 0o640


def write_atomically(path: str | Path, data: str | bytes, *, announce: bool = True) -> None:
    """Writes a temporary file in the same folder, then renames it.

    Missing folders are made (mode 750); the file gets mode 640.

    Args:
        path: file to write.
        data: its content; text is encoded as UTF-8.
        announce: warn if an existing file is overwritten.

    Raises:
        OutputError: the file cannot be written; what was there before is then untouched.
    """
    path = Path(path)
    make_folder(path.parent)
    # os.path.exists, because Path.exists raises where a name is too long or a folder may not be entered.
    if announce and os.path.exists(path):  # noqa: PTH110
        log_for("files").warning("%s already exists and will be overwritten.", path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        fill(handle, data)
        rename(Path(temporary), path)
    except OSError as error:
        raise refusal(path, error) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def fill(handle: int, data: str | bytes) -> None:
    """Writes the content of a file that was opened for it, gives the file mode 640, and closes it."""
    with os.fdopen(handle, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fchmod(handle, _FILE_MODE)
        os.fsync(handle)


def rename(source: Path, destination: Path) -> None:
    """Renames a file within its folder, so that the new name survives a power failure."""
    source.replace(destination)
    sync(destination.parent)


def sync(folder: Path) -> None:
    """Flushes a folder, so that its names survive a power failure."""
    with suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        # One by one, because mkdir(parents=True) gives the mode to the last folder only.
        for missing in reversed([above for above in (folder, *folder.parents) if not above.exists()]):
            missing.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise refusal(folder, error) from error


def check_writable(folder: Path) -> None:
    """Checks that files can be written into a folder, before hours are spent on their content.

    Raises:
        OutputError: they cannot.
    """
    make_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise refusal(folder, error) from error


def refusal(path: Path, error: OSError) -> OutputError:
    """Returns the error to raise where a file or folder cannot be written."""
    return OutputError(
        f"{path} cannot be written: {error.strerror or error}. Choose another path, or make room and give permission."
    )
