"""Reads one JSON object key by key, checks types, and refuses unknown keys."""

import math
from typing import Any

from amct_tensorflow.errors import ConfigTypeError, ConfigValueError
from amct_tensorflow.quantize.algorithms.activation_algorithm import Parameter


class Section:
    """A JSON object whose keys are taken one by one.

    Attributes:
        where: file and path inside it, for messages.

    Raises:
        ConfigTypeError: the value is no object.
    """

    def __init__(self, content: Any, where: str) -> None:
        if not isinstance(content, dict):
            raise ConfigTypeError(f"{where} must be an object, not {_kind(content)}.")
        self.where = where
        self._content = content
        self._used: set[str] = set()

    def has(self, key: str) -> bool:
        """Tells whether a key is there."""
        return key in self._content

    def unused(self) -> list[str]:
        """Returns the keys that were not taken."""
        return [key for key in self._content if key not in self._used]

    def refuse_unused(self) -> None:
        """Raises ConfigValueError if a key was not taken."""
        for key in self.unused():
            raise ConfigValueError(f"{self.where}: {key!r} is no known key. Delete it.")

    def section(self, key: str) -> "Section":
        """Takes an object; a missing one is empty."""
        return Section(self._take(key, {}), f"{self.where}, {key!r}")

    def boolean(self, key: str, default: bool) -> bool:
        """Takes true or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self._wrong_type(key, value, "true or false")
        return value

    def integer(self, key: str, default: int) -> int:
        """Takes an integer."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong_type(key, value, "an integer")
        return value

    def number(self, key: str, default: float) -> float:
        """Takes a finite number."""
        return self._number(key, self._take(key, default))

    def string(self, key: str, default: str) -> str:
        """Takes a string."""
        value = self._take(key, default)
        if not isinstance(value, str):
            raise self._wrong_type(key, value, "a string")
        return value

    def items(self, key: str) -> list[Any]:
        """Takes an array; a missing one is empty."""
        value = self._take(key, [])
        if not isinstance(value, list):
            raise self._wrong_type(key, value, "an array")
        return value

    def strings(self, key: str) -> list[str]:
        """Takes an array of strings."""
        values = self.items(key)
        for value in values:
            if not isinstance(value, str):
                raise self._wrong_type(key, value, "an array of strings")
        return values

    def pair(self, key: str, default: tuple[float, float]) -> tuple[float, float]:
        """Takes an array of two numbers."""
        values = self._take(key, list(default))
        if not isinstance(values, list) or len(values) != 2:
            raise self._wrong_type(key, values, "an array of two numbers")
        first, second = (self._number(key, value) for value in values)
        return first, second

    def parameter(self, key: str, default: Parameter) -> Parameter:
        """Takes a value of the type of its default."""
        if isinstance(default, tuple):
            return self.pair(key, default)
        return self.integer(key, default) if isinstance(default, int) else self.number(key, default)

    def _take(self, key: str, default: Any) -> Any:
        self._used.add(key)
        return self._content.get(key, default)

    def _number(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong_type(key, value, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise ConfigValueError(f"{self.where}: {key} is {number}; it must be a finite number.")
        return number

    def _wrong_type(self, key: str, value: Any, expected: str) -> ConfigTypeError:
        return ConfigTypeError(f"{self.where}: {key} must be {expected}, not {_kind(value)}.")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "an array"}
    return names.get(type(value), "an object")
