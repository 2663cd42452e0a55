"""What a program on a console needs: progress, signals, exit codes, and silence of what is not its own.

Importing this does not import TensorFlow.
"""

from amct_tensorflow.io.progress import ProgressBar
from amct_tensorflow.io.quiet import quiet_tensorflow
from amct_tensorflow.io.run_as_command import run_as_command

__all__ = ["ProgressBar", "quiet_tensorflow", "run_as_command"]
