"""One run at a time in a folder.

The lock is on the folder itself and belongs to the process: the system takes it back when that ends, however it ends,
and no file is left behind.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from amct_tensorflow.errors import OutputError
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
