"""The traits that an op type can have. ``op_table`` says which op types have which, and ``trait`` asks it.

Those that compute something stand beside what they compute: ``Quantizable``, ``Unquantized``, ``PerChannelAffine``,
``ChannelMove``, ``Factors`` and ``Clips``. An op type without a trait may have it all the same: it is not known to.
"""

from dataclasses import dataclass
from enum import Enum, auto

from tensorflow.core.framework.node_def_pb2 import NodeDef


@dataclass(frozen=True)
class Identity:
    """Yields its first input as it is.

    Attributes:
        all_inputs: whether it does so with every input, each at an output of its own.
    """

    all_inputs: bool = False

    def passed_on(self, node: NodeDef) -> list[str]:
        """Returns the inputs that a node passes on, in the order of its outputs."""
        return list(map(str, node.input if self.all_inputs else node.input[:1]))


@dataclass(frozen=True)
class Elementwise:
    """Computes each value from the values at the same position.

    Attributes:
        operands: how many inputs are broadcast against each other; others hold one value per channel, or one for all.
        keeps_zero: whether it makes 0 of 0.
    """

    operands: int = 1
    keeps_zero: bool = False


@dataclass(frozen=True)
class Moves:
    """Yields nothing but values of its first input, and zeros.

    Attributes:
        keeps_order: whether it yields all of them, in the same order; the shape may be another.
    """

    keeps_order: bool = False


class Concatenation:
    """Yields the values of all inputs but the last, which is an axis, side by side."""


class Conversion:
    """Yields its input in another type of numbers."""


class Sum:
    """Adds two inputs."""


class BatchNorm:
    """Is a whole BatchNorm: data, gamma, beta, mean, variance."""


class Root:
    """Makes a standard deviation, or one over it, of a variance."""


class Convolution:
    """Slides a window over images or volumes, with strides, dilations and padding."""


class DealsOut:
    """Deals an image out into phases, which count as images; so TensorFlow begins a dilated convolution."""


class PutsTogether:
    """Puts phases together to an image again."""


@dataclass(frozen=True)
class Lookup:
    """Looks up parts of its first input by the indices in its second.

    Attributes:
        axis_input: the input that says along which axis; None if it always is the first one.
        by_coordinates: whether an index is a vector of coordinates, one per axis.
    """

    axis_input: int | None = None
    by_coordinates: bool = False


@dataclass(frozen=True)
class QuantizableInputs:
    """Has inputs that ``tensor_quantize`` may name (spec section 10).

    Attributes:
        count: how many.
    """

    count: int


@dataclass(frozen=True)
class Fed:
    """Yields what the caller feeds.

    Attributes:
        has_default: whether it need not be fed.
    """

    has_default: bool = False


class Chance:
    """Draws random numbers, others in each run."""


class Iterator:
    """Yields the next element of a dataset."""


@dataclass(frozen=True)
class Variable:
    """Yields a variable.

    Attributes:
        by_reference: whether the tensor that it yields changes with the variable, as in TensorFlow 1.
    """

    by_reference: bool = False


class ReadsVariable:
    """Yields the value of the variable that it reads."""


class WritesVariable:
    """Changes a variable, or a generator of random numbers."""


class RunsPython:
    """Calls a function of the program that made the model."""


@dataclass(frozen=True)
class RunState:
    """Makes or works on a list of tensors that each run fills anew: a TensorArray, or a stack.

    Attributes:
        makes: whether it makes one.
        takes_flow: whether its last input is the number that stands for the state of the list.
    """

    makes: bool = False
    takes_flow: bool = False


class Observer(Enum):
    """Looks at values, and has no part in what is computed."""

    CHECK = auto()
    MESSAGE = auto()


class ControlFlow(Enum):
    """Tells whether, or how often, what reads it runs: control flow of version 1."""

    SWITCH = auto()
    MERGE = auto()
    ENTER = auto()
    EXIT = auto()
    NEXT_ITERATION = auto()
    LOOP_CONDITION = auto()


@dataclass(frozen=True)
class Reference:
    """Does with a reference to a variable what another op type does with a value.

    Attributes:
        of_values: that other op type.
    """

    of_values: str


class Call(Enum):
    """Calls functions, and is marked as having a state whenever they might have one."""

    DIRECT = auto()
    IF = auto()
    CASE = auto()
    WHILE = auto()


@dataclass(frozen=True)
class FakeQuantizer:
    """Rounds to few values in training.

    Attributes:
        to_range: whether by the two ends of a range.
    """

    to_range: bool = False


class IntegerKernel(Enum):
    """Is computed in integers by kernels that TensorFlow comes with; of which kind they are."""

    CONVOLUTION = auto()
    DEPTHWISE_CONVOLUTION = auto()
    MATRIX_PRODUCT = auto()


@dataclass(frozen=True)
class Quantized:
    """Computes in integers, or stands in a model that is quantized or being calibrated already (spec section 4).

    Attributes:
        is_custom: whether it is no op of TensorFlow's, but one of a quantizer's own.
    """

    is_custom: bool = False
