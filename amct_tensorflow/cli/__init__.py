"""The subcommands: one file each, and one line here."""

from amct_tensorflow.cli.auto_calibrate import AUTO_CALIBRATE
from amct_tensorflow.cli.calibration import CALIBRATION
from amct_tensorflow.cli.check import CHECK
from amct_tensorflow.cli.compare import COMPARE
from amct_tensorflow.cli.convert import CONVERT
from amct_tensorflow.cli.export import EXPORT
from amct_tensorflow.cli.inspect import INSPECT
from amct_tensorflow.cli.options import Command
from amct_tensorflow.cli.report import REPORT

__all__ = ["COMMANDS", "Command"]

COMMANDS = (INSPECT, AUTO_CALIBRATE, COMPARE, CHECK, REPORT, EXPORT, CALIBRATION, CONVERT)
