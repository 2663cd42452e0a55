"""What a program on a console needs: progress, signals, exit codes, and silence of what is not its own.

Importing this does not import TensorFlow.
"""

from amct_tensorflow.console.command import run_as_command
from amct_tensorflow.console.progress_bar import ProgressBar
from amct_tensorflow.console.quiet import quiet_tensorflow

__all__ = ["ProgressBar", "quiet_tensorflow", "run_as_command"]
