"""Protobuf messages of the text formats, built at run time from tables of their fields.

Text format knows fields by name only, so that files are exchanged with other writers of the same schema. Generated
code would tie the package to one protobuf release; these few lines work with every one.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_LABELS = {
    "optional": _Field.LABEL_OPTIONAL,
    "required": _Field.LABEL_REQUIRED,
    "repeated": _Field.LABEL_REPEATED,
}
_TYPES = {
    "bool": _Field.TYPE_BOOL,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "uint32": _Field.TYPE_UINT32,
    "string": _Field.TYPE_STRING,
}

# Per message: field name -> (number, "label type"). Per enumeration: value -> number.
Messages: TypeAlias = Mapping[str, Mapping[str, tuple[int, str]]]
Enums: TypeAlias = Mapping[str, Mapping[str, int]]


def message_class(package: str, messages: Messages, enums: Enums, name: str) -> Any:
    """Builds all messages of a schema and returns the class of one; the others are reached through its fields.

    Args:
        package: name of the schema.
        messages: per message its fields: per name, number and "label type".
        enums: per enumeration its values.
        name: the message whose class is wanted.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for enum, values in enums.items():
        described = file.enum_type.add(name=enum)
        for value, number in values.items():
            described.value.add(name=value, number=number)
    for message, fields in messages.items():
        described_message = file.message_type.add(name=message)
        for field, (number, kind) in fields.items():
            label, type_name = kind.split()
            added = described_message.field.add(name=field, number=number, label=_LABELS[label])
            if type_name in _TYPES:
                added.type = _TYPES[type_name]
            else:
                added.type = _Field.TYPE_ENUM if type_name in enums else _Field.TYPE_MESSAGE
                added.type_name = f".{package}.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
