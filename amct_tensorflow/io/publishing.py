"""Files that belong together appear together, for one run at a time, even if the process is killed in between.

The process locks the folder itself. The system releases the lock when the process ends, however it ends, and no lock
file is left behind.

Every content is first written beside its destination, under the name ``.<name>.new``. Then a journal that lists the
destinations is put in place: from that moment the new files count. Then they take their names, and the journal goes.
A process that is killed in between leaves the journal behind, and ``finish`` completes the renames that it lists; one
that is killed before leaves the earlier files as they were.

Anybody may have put a journal there. An entry counts only if the new file lies beside its destination, so that a
journal gives nobody access to a folder that they cannot write to.
"""

import fcntl
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from amct_tensorflow.errors import OutputError
from amct_tensorflow.io.files import fill, make_folder, refusal, rename, sync
from amct_tensorflow.log import log_for


@contextmanager
def exclusive(folders: Iterable[Path]) -> Iterator[None]:
    """Keeps other runs out of folders, which must exist.

    Raises:
        OutputError: another run is in one of them.
    """
    with ExitStack() as stack:
        for folder in dict.fromkeys(folder.resolve() for folder in folders):
            try:
                handle = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(
                    f"Another run is writing to {folder}. Wait until it has ended, or use another folder."
                ) from error
            except OSError as error:  # some network file systems cannot lock a folder, and one may be writable only
                log_for("files").warning("%s cannot be locked (%s); start no other run there.", folder, error.strerror)
        yield


JOURNAL = ".accuracy_based_auto_calibration_journal.json"
# Far more than ours have; a stranger's could fill the memory.
_MOST_JOURNAL_BYTES = 2**20


def publish(folder: Path, contents: Mapping[Path, str | bytes]) -> None:
    """Writes files that belong together.

    Args:
        folder: where the journal stands meanwhile; only one process at a time may publish there.
        contents: per file, its content.

    Raises:
        OutputError: one cannot be written; all are then as they were.
    """
    journal = folder / JOURNAL
    try:
        for path, content in contents.items():
            _write(_new(path), content)
        listed = [os.path.abspath(path) for path in contents]  # noqa: PTH100 - resolve() would follow links
        _write(_new(journal), json.dumps(listed))
        rename(_new(journal), journal)
        finish(folder, contents)
    except BaseException as error:
        # Without a journal this removes what was begun; with one, it completes what an interruption broke off.
        finish(folder, contents)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise refusal(folder, error) from error
        raise


def finish(folder: Path, paths: Iterable[Path]) -> None:
    """Completes what a killed process began to publish, and removes the temporary files of one that was killed before.

    The killed process may have published other files than this one; their folders are locked meanwhile.

    Args:
        folder: where its journal would stand; must be locked.
        paths: the files that this process publishes; their folders must be locked.

    Raises:
        OutputError: a file cannot be renamed, or another run is in its folder.
    """
    paths, journal = list(paths), folder / JOURNAL
    listed = [path for path in _read_journal(journal) if _is_file(_new(path))]
    locked = {path.parent.resolve() for path in (journal, *paths)}
    with exclusive({path.parent.resolve() for path in listed} - locked):
        for path in listed:
            try:
                rename(_new(path), path)
            except OSError as error:
                raise refusal(path, error) from error
    try:
        for leftover in (*map(_new, paths), journal, _new(journal)):
            with suppress(FileNotFoundError, NotADirectoryError):
                leftover.unlink()
    except OSError as error:
        raise refusal(folder, error) from error
    if listed:
        log_for("results").debug("%d files are in place.", len(listed))


def _read_journal(journal: Path) -> list[Path]:
    """Returns the files that a journal lists, each once; none if it is no journal of ours."""
    if not _is_file(journal):
        return []
    try:
        with journal.open("rb") as file:
            listed = json.loads(file.read(_MOST_JOURNAL_BYTES))  # msgspec refuses names that are no Unicode
    except (OSError, ValueError, RecursionError):
        return []
    entries = listed if isinstance(listed, list) else []
    return list(dict.fromkeys(Path(entry) for entry in entries if _is_plain(entry)))


def _is_plain(entry: Any) -> bool:
    """Tells whether an entry of a journal is an absolute path that ends with a name, as ``publish`` writes."""
    # Not resolve(), which would follow links.
    return isinstance(entry, str) and entry == os.path.abspath(entry) and Path(entry).name != ""  # noqa: PTH100


def _is_file(path: Path) -> bool:
    """Tells whether there is a file, and not a link to one, a pipe or a folder."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):  # also if the name is none
        return False


def _new(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _write(path: Path, content: str | bytes) -> None:
    make_folder(path.parent)
    path.unlink(missing_ok=True)  # never through a link that somebody put there
    fill(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), content)
    sync(path.parent)
