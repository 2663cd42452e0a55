"""Libraries that only an export needs: they are extras of the package."""

import importlib
from typing import Any

from amct_tensorflow.errors import ExportError


def library(name: str, extra: str) -> Any:
    """Imports a library.

    Args:
        name: of its module.
        extra: the extra of this package that installs it.

    Raises:
        ExportError: it is not installed, or does not fit what else is.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(
            f"This export needs {name.partition('.')[0]}, which cannot be imported ({error}). Install it: "
            f'pip install "amct-tensorflow-open[{extra}]", or in a checkout pip install -e ".[{extra}]".'
        ) from error
