"""The subcommands: one file each, and one line here."""

from amct_tensorflow.commands.auto_calibrate import AUTO_CALIBRATE
from amct_tensorflow.commands.calibration import CALIBRATION
from amct_tensorflow.commands.command import Command
from amct_tensorflow.commands.compare import COMPARE
from amct_tensorflow.commands.convert import CONVERT
from amct_tensorflow.commands.export import EXPORT
from amct_tensorflow.commands.inspect import INSPECT
from amct_tensorflow.commands.report import REPORT

__all__ = ["COMMANDS", "Command"]

COMMANDS = (INSPECT, AUTO_CALIBRATE, COMPARE, REPORT, EXPORT, CALIBRATION, CONVERT)
