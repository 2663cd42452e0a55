"""What a command shows on stdout."""

import os
import sys


def show(text: str) -> None:
    """Prints text; characters that the terminal does not know are escaped.

    Whoever reads it may have seen enough, as ``head`` has: then nothing more is shown, and that is no error.
    """
    try:
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end
