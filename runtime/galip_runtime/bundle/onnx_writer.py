"""A writer for parts of ONNX files without the onnx package: nodes, tensors, values and models as bytes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from galip_runtime.bundle.protobuf import VARINT, encode_field, encode_varint

__all__ = [
    "FLOAT",
    "UINT8",
    "external_tensor",
    "graph",
    "model",
    "node",
    "tensor",
    "value",
]

FLOAT, UINT8, _INT64 = 1, 2, 7  # of TensorProto.DataType
_TYPES = {"float32": FLOAT, "int64": _INT64}
_INT, _INTS = 2, 7  # of AttributeProto.AttributeType
_IR_VERSION = 8  # whatever reads opset 18 reads this version


def node(
    operator: str, inputs: Sequence[str], output: str | Sequence[str], **attributes: int | Sequence[int]
) -> bytes:
    """Encode a node, named after its first output, as a field of `GraphProto`; attributes are ints >= 0."""
    outputs = [output] if isinstance(output, str) else output
    content = b"".join(encode_field(1, name) for name in inputs)
    content += b"".join(encode_field(2, name) for name in outputs)
    content += encode_field(3, outputs[0]) + encode_field(4, operator)
    for name, attribute in attributes.items():
        numbers = [attribute] if isinstance(attribute, int) else attribute
        field, kind = (3, _INT) if isinstance(attribute, int) else (8, _INTS)
        fields = b"".join(_number(field, number) for number in numbers) + _number(20, kind)
        content += encode_field(5, encode_field(1, name) + fields)
    return encode_field(1, content)


def tensor(name: str, numbers: npt.ArrayLike, dtype: str) -> bytes:
    """Encode a constant, float32 or int64, as a field of `GraphProto`."""
    array = np.asarray(numbers, np.dtype(dtype).newbyteorder("<"))
    sizes = b"".join(_number(1, size) for size in array.shape)
    return encode_field(
        5, sizes + _number(2, _TYPES[dtype]) + encode_field(8, name) + encode_field(9, array.tobytes())
    )


def external_tensor(
    name: str, sizes: Sequence[int], kind: int, location: str, offset: int, length: int
) -> bytes:
    """Encode a constant of the DataType `kind` with external data, as a field of `GraphProto`.

    `location`: the file with the data; `offset`, `length`: its range there, in bytes.
    """
    content = b"".join(_number(1, size) for size in sizes) + _number(2, kind) + encode_field(8, name)
    for key, text in (("location", location), ("offset", str(offset)), ("length", str(length))):
        content += encode_field(13, encode_field(1, key) + encode_field(2, text))
    return encode_field(5, content + _number(14, 1))


def value(number: int, name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    """Encode a `ValueInfoProto` as the field `number` of `GraphProto`, such as an output (12)."""
    sizes = (_number(1, size) if isinstance(size, int) else encode_field(2, size) for size in shape)
    content = encode_field(2, b"".join(encode_field(1, size) for size in sizes))
    return encode_field(
        number, encode_field(1, name) + encode_field(2, encode_field(1, _number(1, kind) + content))
    )


def graph(fields: Sequence[bytes]) -> bytes:
    """Encode a `ModelProto` with only a graph. Appended to another model's bytes, it adds to its graph."""
    return encode_field(7, b"".join(fields))


def model(name: str, fields: Sequence[bytes], opset: int) -> bytes:
    """Encode a complete `ModelProto`."""
    head = _number(1, _IR_VERSION) + encode_field(8, _number(2, opset))
    return head + graph([encode_field(2, name), *fields])


def _number(field: int, content: int) -> bytes:
    return encode_varint(field << 3 | VARINT) + encode_varint(content)
