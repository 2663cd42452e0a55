"""Files that belong together appear together, even if the process is killed in between.

Every content is first written beside its destination, under the name ``.<name>.new``. Then a journal that lists the
destinations is put in place: from that moment the new files count. Then they take their names, and the journal goes.
Who is killed between leaves the journal behind, and ``finish`` completes what it lists; who is killed before leaves the
earlier files as they were.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from amct_tensorflow.errors import OutputError
from amct_tensorflow.files import fill, make_folder, refusal, rename, sync
from amct_tensorflow.log import log_for

JOURNAL = ".accuracy_based_auto_calibration_journal.json"


def publish(folder: Path, contents: Mapping[Path, str | bytes | None]) -> None:
    """Writes files that belong together.

    Args:
        folder: where the journal stands meanwhile; only one process at a time may publish there.
        contents: per file, its content; None removes the file.

    Raises:
        OutputError: one cannot be written; all are then as they were.
    """
    journal = folder / JOURNAL
    try:
        for path, content in contents.items():
            if content is not None:
                _write(_new(path), content)
        listed = {os.path.abspath(path): content is not None for path, content in contents.items()}  # noqa: PTH100
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
    """Completes what a killed process began to publish, and removes what it was about to.

    Args:
        folder: where its journal would stand.
        paths: the files that may be touched; a journal that lists others is not ours and is left out of account.

    Raises:
        OutputError: a file cannot be renamed.
    """
    journal = folder / JOURNAL
    listed = _read_journal(journal)
    try:
        for path in paths:
            new, key = _new(path), os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links
            if key not in listed:
                new.unlink(missing_ok=True)
            elif not listed[key]:
                path.unlink(missing_ok=True)
            elif new.exists():  # else it has its name already
                rename(new, path)
        journal.unlink(missing_ok=True)
        _new(journal).unlink(missing_ok=True)
    except OSError as error:
        raise refusal(folder, error) from error
    if listed:
        log_for("results").debug("%d files are in place.", len(listed))


def _read_journal(journal: Path) -> dict[str, bool]:
    """Returns what a journal lists: per file, whether it is written (or else removed)."""
    try:
        listed = json.loads(journal.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return {path: bool(kept) for path, kept in listed.items()} if isinstance(listed, dict) else {}


def _new(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _write(path: Path, content: str | bytes) -> None:
    make_folder(path.parent)
    path.unlink(missing_ok=True)  # never through a link that somebody put there
    fill(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), content)
    sync(path.parent)
