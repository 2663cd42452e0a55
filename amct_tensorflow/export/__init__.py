"""Files for other runtimes with int8 kernels: the formats, one name each.

The format NAME is the object ``NAME`` in capitals in ``NAME/NAME_target.py``, imported when it is asked for: the names
alone cost no TensorFlow.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amct_tensorflow.export.target import Target

_FORMATS = ("tflite", "onnx", "openvino")


class _Targets(Mapping[str, "Target"]):
    def __getitem__(self, name: str) -> "Target":
        if name not in _FORMATS:
            raise KeyError(name)
        target: Target = getattr(import_module(f"{__name__}.{name}.{name}_target"), name.upper())
        return target

    def __iter__(self) -> Iterator[str]:
        return iter(_FORMATS)

    def __len__(self) -> int:
        return len(_FORMATS)


TARGETS: Mapping[str, "Target"] = _Targets()
