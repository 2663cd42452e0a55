"""The logger under the name that clients of the original toolkit use."""

from amct_tensorflow.log import log_for, set_logging_level

LOGGER = log_for()

__all__ = ["LOGGER", "set_logging_level"]
