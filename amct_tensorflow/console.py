"""For programs on a console: progress, signals, exit codes, oneDNN, memory, and other libraries' output in the log.

Importing this does not import TensorFlow; that is done by ``import_tensorflow``, after ``use_onednn``.
"""

from amct_tensorflow.io.memory import import_tensorflow, use_few_arenas
from amct_tensorflow.io.onednn import use_onednn
from amct_tensorflow.io.progress import ProgressBar
from amct_tensorflow.io.quiet import quiet_tensorflow
from amct_tensorflow.io.run_as_command import run_as_command

__all__ = ["ProgressBar", "import_tensorflow", "quiet_tensorflow", "run_as_command", "use_few_arenas", "use_onednn"]
