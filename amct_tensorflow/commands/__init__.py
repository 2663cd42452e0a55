"""The subcommands: one file each, and one line here."""

from amct_tensorflow.commands.command import Command
from amct_tensorflow.commands.compare import COMPARE
from amct_tensorflow.commands.inspect import INSPECT

__all__ = ["COMMANDS", "Command"]

COMMANDS = (INSPECT, COMPARE)
