"""A kind of step: how its settings are drawn, and how it is written."""

from collections.abc import Callable
from typing import NamedTuple


class Kind(NamedTuple):
    """What is known of a kind.

    Attributes:
        draw: ``draw(chance, shape)`` returns settings for a value of a shape, None if the kind does not suit it.
        write: ``write(how, x, **settings)`` returns the value that it makes; ``how`` is a ``Program``.
        weight: how often it is drawn, beside the others that suit.
        reads_two: whether ``x`` is a pair of values of the same shape.
    """

    draw: Callable
    write: Callable
    weight: float = 1.0
    reads_two: bool = False


def channel_axis(rank, channels_first):
    """Returns the axis that counts channels."""
    return 1 if channels_first and rank == 4 else rank - 1


def height_and_width(shape, channels_first):
    return shape[2:] if channels_first else shape[1:3]


def places(data_format, height, width):
    """Returns what an attribute says of all four axes of images."""
    return [1, 1, height, width] if data_format == "NCHW" else [1, height, width, 1]


def are_images(shape):
    """Tells whether a shape is that of images whose lengths are all known but their number."""
    return len(shape) == 4 and None not in shape[1:]
