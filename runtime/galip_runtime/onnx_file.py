"""Just enough of the ONNX format to leave a file's weights where they are, and to cut a graph in two.

An ONNX file is one protobuf message, `ModelProto`, of fields that are each a key (number and wire type) and a
value. Read here are the graph's nodes, tensors and values; the numbers of the large tensors, which are nearly
all of the file, are left on disk: `OnnxFile.cut` refers to them by their place in the file, the way ONNX has
for tensors in a file of their own, so that a backend maps them into memory instead of copying them.
"""

import mmap
import os
import struct
from collections.abc import Iterator, Sequence, Set
from typing import NamedTuple

from galip_runtime import row_padding
from galip_runtime.errors import FileRefused
from galip_runtime.onnx_limits import (
    MAX_NODES,
    MAX_TENSORS,
    check_constant_node,
    check_growth,
    check_operator,
    check_tensor,
)
from galip_runtime.onnx_nodes import encode_field, tensor_elsewhere

__all__ = ["OnnxFile"]

_ON_DISK = 4096
"""bytes from which on a tensor's numbers stay on disk"""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}

# Field numbers of onnx.proto, and all that may be in a graph. What is missing could hold tensors in other
# files: functions, training information, sparse tensors, lists of tensors, graphs within graphs.
_IR_VERSION, _MODEL_GRAPH, _OPSETS = 1, 7, 8
_MODEL = {_IR_VERSION, 2, 3, 4, 5, 6, _MODEL_GRAPH, _OPSETS, 14}
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_TENSOR = 1, 2, 5
_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE = 11, 12, 13
_GRAPH = {_GRAPH_NODE, _GRAPH_NAME, _GRAPH_TENSOR, 10, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE, 14, 16}
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_NODE = {_NODE_INPUT, _NODE_OUTPUT, 3, _NODE_OPERATOR, _NODE_ATTRIBUTE, 6, _NODE_DOMAIN, 9}
_ATTRIBUTE_TENSOR = 5
_ATTRIBUTE = {1, 2, 3, 4, _ATTRIBUTE_TENSOR, 7, 8, 9, 13, 20}
_TENSOR_SIZE, _TENSOR_TYPE = 1, 2
_TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 8, 9, 13, 14
_TENSOR = {1, 2, 4, 5, 6, 7, _TENSOR_NAME, _TENSOR_RAW, 10, 11, 12, 16}
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_VALUE, _DIM_NAME = 1, 2, 1, 2, 1, 1, 2
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_MAX_STACK = 1024
"""matrices of one product; the released size has 28"""
_MAX_AXES = 64
_OF_SHAPES = ("Cast", "Concat", "Gather", "Identity", "Slice", "Squeeze", "Unsqueeze")
"""Operators that put shapes together, as exports before the rewrites do for an Expand."""


class _Field(NamedTuple):
    number: int
    wire: int
    start: int
    """of the whole field, its key included"""
    begin: int
    """of its value"""
    end: int
    value: int
    """of a varint; 0 for others"""


class _Node(NamedTuple):
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    whole: bytes
    """the field of the graph, key included"""


class _Place(NamedTuple):
    """Where the numbers of a large tensor lie in the file."""

    kind: int
    """TensorProto.DataType"""
    begin: int
    length: int
    """bytes"""


class _Constant(NamedTuple):
    sizes: tuple[int, ...]
    numbers: tuple[float, ...] | None
    """of a small one, int64 or float32; None for others"""


class OnnxFile:
    """What `path` holds, without its large tensors' numbers."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises FileRefused where the file is no ONNX graph that stands by itself in this one file."""
        self.path = os.fspath(path)
        self._nodes: list[_Node] = []
        self._tensors: dict[str, bytes] = {}
        self._places: dict[str, _Place] = {}
        self._values: dict[str, bytes] = {}
        self._constants: dict[str, _Constant] = {}
        self._head = self._name = b""
        try:
            with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self._read(data)
            self._producers = {name: node for node in self._nodes for name in node.outputs}
            self._check_growth()
        except (OSError, ValueError) as error:  # ValueError: an empty file, too
            raise self._refused(str(error)) from error

    def computes(self, name: str) -> bool:
        """Whether a node gives the tensor `name`."""
        return name in self._producers

    def width(self, name: str) -> int:
        """The last size of the tensor `name`. Raises FileRefused where the file does not say it."""
        shape = self.shape(name)
        if shape and isinstance(shape[-1], int) and shape[-1] > 0:
            return shape[-1]
        raise self._refused(f"it does not say how wide {name} is")

    def shape(self, name: str) -> tuple[int | str, ...] | None:
        """The sizes of the tensor `name`, names where they are dynamic; None where the file gives none.

        Raises FileRefused where what it gives cannot be read.
        """
        message = self._values.get(name, b"")
        try:
            for number in (_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE):
                inner = [field for field in _fields(message, 0, len(message)) if field.number == number]
                if not inner:
                    return None
                message = message[inner[-1].begin : inner[-1].end]
            sizes = [field for field in _fields(message, 0, len(message)) if field.number == _SHAPE_DIM]
            return tuple(_size(message, field) for field in sizes)
        except ValueError as error:
            raise self._refused(str(error)) from error

    def cut(self, inputs: Sequence[str], outputs: Sequence[str], *, pad_rows: bool = False) -> bytes:
        """The `ModelProto` that computes `outputs` from `inputs` alone, any tensors of the graph.

        Large tensors lie in external data: this file, named relative to its folder. With `pad_rows` nothing
        is computed for a single row (`row_padding`). Raises FileRefused where something else than `inputs` is
        needed.
        """
        needed, wanted = set[str](), list(outputs)
        while wanted:
            name = wanted.pop()
            if name in needed or name in inputs or not name:  # "": an optional input left out
                continue
            needed.add(name)
            if name in self._producers:
                wanted += self._producers[name].inputs
            elif name not in self._tensors:
                raise self._other(f"{', '.join(outputs)} needs {name}, not {', '.join(inputs)} alone")
        nodes = [node for node in self._nodes if needed.intersection(node.outputs)]
        graph = self._with_padded_rows(nodes, inputs, needed) if pad_rows else [node.whole for node in nodes]
        graph.append(self._name)
        graph += [whole for name, whole in self._tensors.items() if name in needed]
        graph += [encode_field(_GRAPH_INPUT, self._value(name)) for name in inputs]
        graph += [encode_field(_GRAPH_OUTPUT, self._value(name)) for name in outputs]
        return self._head + encode_field(_MODEL_GRAPH, b"".join(graph))

    def _with_padded_rows(
        self, nodes: Sequence[_Node], inputs: Sequence[str], needed: set[str]
    ) -> list[bytes]:
        """The graph's fields for `nodes`, none of which computes for a single row of the `inputs`.

        What is not used any more is taken out of the `needed` tensors.
        """
        batch = str((self.shape(inputs[0]) or ("",))[0])
        fields, padded = list[bytes](), set[tuple[str, int]]()
        for node in nodes:
            before, after = (self.shape(names[0]) if names else None for names in (node.inputs, node.outputs))
            axis = row_padding.axis_of_rows(node.operator, before, after, batch) if batch else None
            if stack := self._stack_size(node, before, batch):
                rows, weights = node.inputs
                fields += self._matrices(weights, stack)
                matrices = [row_padding.matrix_name(weights, index) for index in range(stack)]
                fields += row_padding.split(rows, matrices, node.outputs[0])
                if weights in self._places and sum(weights in other.inputs for other in nodes) == 1:
                    needed.discard(weights)
                continue
            if axis is None:
                fields.append(node.whole)
                continue
            rows, output = node.inputs[0], node.outputs[0]
            if (rows, axis) not in padded:
                fields.append(row_padding.pad(rows, axis))
                padded.add((rows, axis))
            fields.append(
                _renamed(node, row_padding.padded_rows(rows, axis), row_padding.padded_result(output))
            )
            fields.append(row_padding.take_off(output, axis))
        return fields + row_padding.constants({axis for _, axis in padded})

    def _stack_size(self, node: _Node, before: Sequence[int | str] | None, batch: str) -> int:
        """How many matrices of constants `node` multiplies with one row a picture each; 0 for other nodes."""
        stack = row_padding.stack_size(node.operator, before, batch) if batch else 0
        weights = self._constants.get(self._source(node.inputs[1])) if len(node.inputs) == 2 else None
        # what a file says of a tensor that it computes may be wrong, of one that it holds was checked
        is_stack = weights is not None and len(weights.sizes) == 3 and weights.sizes[0] == stack
        return stack if is_stack and stack <= _MAX_STACK else 0

    def _matrices(self, weights: str, stack: int) -> list[bytes]:
        """The graph's fields that give each matrix of the stack `weights`, by `row_padding.matrix_name`."""
        if weights not in self._places:
            return [field for index in range(stack) for field in row_padding.matrix(weights, index)]
        place, sizes = self._places[weights], self._constants[weights].sizes[1:]
        length = place.length // stack
        location = os.path.basename(self.path)
        return [
            tensor_elsewhere(
                row_padding.matrix_name(weights, index),
                sizes,
                place.kind,
                location,
                place.begin + index * length,
                length,
            )
            for index in range(stack)
        ]

    def table_size(self, ids: str) -> int:
        """Rows of the smallest table that the input `ids` is looked up in.

        Raises FileRefused where a table is not in the file, and where there is none.
        """
        same, sizes = {ids}, []
        for node in self._nodes:  # in the order in which they are computed
            if node.operator in ("Cast", "Identity") and same.intersection(node.inputs):
                same.update(node.outputs)
            if node.operator == "Gather" and node.inputs[1:] and node.inputs[1] in same:
                table = self._constants.get(self._source(node.inputs[0]))
                if table is None or not table.sizes:
                    raise self._refused(f"the table that {ids} are looked up in is not in the file")
                sizes.append(table.sizes[0])
        if not sizes:
            raise self._other(f"{ids} are looked up in no table")
        return min(sizes)

    def _source(self, name: str) -> str:
        """The tensor that `name` is in another type."""
        kinds = ("Cast", "DequantizeLinear", "Identity")
        for _ in self._nodes:  # no more often: a forged graph may be a ring
            node = self._producers.get(name)
            if node is None or node.operator not in kinds or not node.inputs:
                break
            name = node.inputs[0]
        return name

    def _check_growth(self) -> None:
        constant = {"", *self._constants}
        shapes = {name: known.numbers for name, known in self._constants.items() if known.numbers}
        for node in self._nodes:  # in the order in which they are computed
            if constant.issuperset(node.inputs):
                check_constant_node(node.operator)
                constant.update(node.outputs)
            if node.operator == "Shape":
                shapes.update(dict.fromkeys(node.outputs, (1.0,)))  # as large as something that is there
            elif node.operator in _OF_SHAPES and all(name in shapes for name in node.inputs):
                joined = node.inputs if node.operator == "Concat" else node.inputs[:1]
                numbers = [number for name in joined for number in shapes[name]]
                if len(numbers) <= _MAX_AXES:  # not a Concat of itself, again and again
                    shapes.update(dict.fromkeys(node.outputs, tuple(numbers)))
            elif node.operator in ("Expand", "Pad", "Resize"):
                for name in node.inputs[1 : 2 if node.operator == "Pad" else None]:
                    if name:
                        check_growth(node.operator, shapes.get(name))

    def _value(self, name: str) -> bytes:
        if name not in self._values:
            raise self._other(f"it has no input or output {name}")
        return self._values[name]

    def _read(self, data: mmap.mmap) -> None:
        model = list(_fields(data, 0, len(data), _MODEL))
        graphs = [field for field in model if field.number == _MODEL_GRAPH]
        if len(graphs) != 1:
            raise ValueError(f"it has {len(graphs)} graphs")
        heads = [field for number in (_IR_VERSION, _OPSETS) for field in model if field.number == number]
        self._head = b"".join(data[field.start : field.end] for field in heads)
        for field in _fields(data, graphs[0].begin, graphs[0].end, _GRAPH):
            if field.number == _GRAPH_NODE:
                self._nodes.append(_node(data, field))
                if len(self._nodes) > MAX_NODES:
                    raise ValueError(f"it has more than {MAX_NODES:,} nodes")
            elif field.number == _GRAPH_TENSOR:
                name, tensor = self._tensor(data, field)
                self._tensors[name] = tensor
                if len(self._tensors) > MAX_TENSORS:
                    raise ValueError(f"it has more than {MAX_TENSORS:,} tensors")
            elif field.number in (_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE):
                name = _name(data, field, _VALUE_NAME)
                self._values[name] = data[field.begin : field.end]
            elif field.number == _GRAPH_NAME:
                self._name = data[field.start : field.end]

    def _tensor(self, data: mmap.mmap, tensor: _Field) -> tuple[str, bytes]:
        """Its name and its field of the graph, which refers to the numbers' place where they are many."""
        fields, name = _tensor_fields(data, tensor), _name(data, tensor, _TENSOR_NAME)
        raw = [field for field in fields if field.number == _TENSOR_RAW]
        self._constants[name] = _constant(data, fields)
        if len(raw) != 1 or raw[0].end - raw[0].begin < _ON_DISK:
            return name, data[tensor.start : tensor.end]
        (kind,) = (field.value for field in fields if field.number == _TENSOR_TYPE)
        self._places[name] = _Place(kind, raw[0].begin, raw[0].end - raw[0].begin)
        sizes, place = self._constants[name].sizes, self._places[name]
        location = os.path.basename(self.path)
        return name, tensor_elsewhere(name, sizes, kind, location, place.begin, place.length)

    def _other(self, why: str) -> FileRefused:
        return FileRefused(
            f"{self.path} is another graph than the manifest says: {why}. Export the bundle again"
        )

    def _refused(self, why: str) -> FileRefused:
        return FileRefused(f"{self.path} is no ONNX graph that can be run: {why}. Export the bundle again")


def _node(data: mmap.mmap, node: _Field) -> _Node:
    if any(_texts(data, node, _NODE_DOMAIN)):  # such as EPContext, which names files itself
        raise ValueError("a node of it is not of ONNX's own operators")
    for field in _fields(data, node.begin, node.end, _NODE):
        if field.number == _NODE_ATTRIBUTE:
            for each in _fields(data, field.begin, field.end, _ATTRIBUTE):
                if each.number == _ATTRIBUTE_TENSOR:
                    _constant(data, _tensor_fields(data, each))
    inputs, outputs = (_texts(data, node, number) for number in (_NODE_INPUT, _NODE_OUTPUT))
    operators = _texts(data, node, _NODE_OPERATOR)
    if len(operators) != 1:
        raise ValueError(f"the node at byte {node.start} has {len(operators)} operators")
    check_operator(operators[0])
    return _Node(operators[0], inputs, outputs, data[node.start : node.end])


def _renamed(node: _Node, first_input: str, output: str) -> bytes:
    """The field of the graph for `node` with another first input and another output."""
    (message,) = _fields(node.whole, 0, len(node.whole))
    inputs = (first_input, *node.inputs[1:])
    rest = [
        node.whole[field.start : field.end]
        for field in _fields(node.whole, message.begin, message.end)
        if field.number not in (_NODE_INPUT, _NODE_OUTPUT)
    ]
    content = [encode_field(_NODE_INPUT, name) for name in inputs] + [
        encode_field(_NODE_OUTPUT, output),
        *rest,
    ]
    return encode_field(_GRAPH_NODE, b"".join(content))


def _size(message: bytes, dimension: _Field) -> int | str:
    """The size of one axis: its name where it is dynamic, "" where that has no name."""
    for field in _fields(message, dimension.begin, dimension.end):
        if field.number == _DIM_VALUE:
            return field.value
        if field.number == _DIM_NAME:
            return message[field.begin : field.end].decode()
    return ""


def _constant(data: mmap.mmap, fields: Sequence[_Field]) -> _Constant:
    """What the tensor of these fields is. Raises ValueError where it has not as many numbers as it says."""
    sizes, kinds, raws, others = list[int](), list[int](), list[_Field](), 0
    for field in fields:
        if field.number == _TENSOR_SIZE:
            sizes += [field.value] if field.wire == _VARINT else _varints(data, field)
        elif field.number == _TENSOR_TYPE:
            kinds.append(field.value)
        elif field.number == _TENSOR_RAW:
            raws.append(field)
        elif field.number != _TENSOR_NAME:
            others += field.end - field.begin
    if len(kinds) != 1 or len(raws) > 1:
        raise ValueError("a tensor of it has not one data type and its numbers once")
    length = raws[0].end - raws[0].begin if raws else others
    check_tensor(sizes, kinds[0], length, raw=bool(raws))
    code = {1: "f", 7: "q"}.get(kinds[0])
    if code is None or not raws or length >= _ON_DISK:
        return _Constant(tuple(sizes), None)
    count = length // struct.calcsize(f"<{code}")
    return _Constant(tuple(sizes), struct.unpack(f"<{count}{code}", data[raws[0].begin : raws[0].end]))


def _varints(data: mmap.mmap, field: _Field) -> list[int]:
    """Packed numbers."""
    values, begin = [], field.begin
    while begin < field.end:
        value, begin = _read_varint(data, begin, field.end)
        values.append(value)
    return values


def _tensor_fields(data: mmap.mmap, tensor: _Field) -> list[_Field]:
    """The fields of a tensor whose numbers are with it. Raises ValueError for another one."""
    fields = list(_fields(data, tensor.begin, tensor.end))
    if {_TENSOR_EXTERNAL, _TENSOR_LOCATION}.intersection(field.number for field in fields):
        raise ValueError("its weights lie in another file (external data)")
    return list(_fields(data, tensor.begin, tensor.end, _TENSOR))


def _fields(
    data: bytes | mmap.mmap, begin: int, end: int, allowed: Set[int] | None = None
) -> Iterator[_Field]:
    """The fields of the message that lies at `begin` to `end`.

    Raises ValueError for what is none, and for a field that is not `allowed`: a reader that knows more fields
    than this one does must not find any.
    """
    while begin < end:
        start = begin
        key, begin = _read_varint(data, begin, end)
        number, wire, value = key >> 3, key & 7, 0
        if wire == _VARINT:
            value, stop = _read_varint(data, begin, end)
        elif wire == _BYTES:
            length, begin = _read_varint(data, begin, end)
            stop = begin + length
        elif wire in _FIXED:
            stop = begin + _FIXED[wire]
        else:
            raise ValueError(f"byte {start} begins no field")
        if stop > end or not number or key >> 32:  # other readers take the key's last 32 bits
            raise ValueError(f"the field at byte {start} does not end where it should")
        if allowed is not None and number not in allowed:
            raise ValueError(f"the field {number} at byte {start} is none of a graph for a bundle")
        yield _Field(number, wire, start, begin, stop, value)
        begin = stop


def _name(data: mmap.mmap, message: _Field, number: int) -> str:
    names = _texts(data, message, number)
    if len(names) != 1:
        raise ValueError(f"the tensor at byte {message.start} has {len(names)} names")
    return names[0]


def _texts(data: bytes | mmap.mmap, message: _Field, number: int) -> tuple[str, ...]:
    """The texts in field `number`, which has to be one of texts."""
    found = [field for field in _fields(data, message.begin, message.end) if field.number == number]
    if any(field.wire != _BYTES for field in found):
        raise ValueError(f"the field {number} within byte {message.start} is no text")
    return tuple(data[field.begin : field.end].decode() for field in found)


def _read_varint(data: bytes | mmap.mmap, begin: int, end: int) -> tuple[int, int]:
    """A number of 7 bits a byte, least first, and where it ends."""
    value = 0
    for index in range(10):
        if begin + index >= end:
            break
        byte = data[begin + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, begin + index + 1
    raise ValueError(f"the number at byte {begin} does not end")
