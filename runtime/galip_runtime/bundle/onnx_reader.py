"""A reader of ONNX files that knows just enough of the format and leaves the data of large tensors on disk.

An ONNX file is one protobuf message, `ModelProto`. Anything that a bundle's graphs don't have is refused:
what this reader ignored, a backend's reader might obey.
"""

import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from galip_runtime.bundle.onnx_limits import MAX_NODES, MAX_TENSORS, check_tensor
from galip_runtime.bundle.onnx_shapes import OPERATORS, TensorInfo
from galip_runtime.bundle.onnx_writer import external_tensor
from galip_runtime.bundle.protobuf import FIXED32, VARINT, Field, read_fields, read_strings, read_varints

__all__ = ["ExternalData", "Node", "OnnxGraph", "read_graph"]

_ON_DISK = 4096
"""bytes from which on a tensor's data stays on disk"""

# Field numbers of onnx.proto, and those that a bundle's graph may have. The others could have tensors in
# other files: functions, training information, sparse tensors, lists of tensors, subgraphs.
_IR_VERSION, _MODEL_GRAPH, _OPSETS = 1, 7, 8
_MODEL = {_IR_VERSION, 2, 3, 4, 5, 6, _MODEL_GRAPH, _OPSETS, 14}
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_TENSOR = 1, 2, 5
_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE = 11, 12, 13
_GRAPH = {_GRAPH_NODE, _GRAPH_NAME, _GRAPH_TENSOR, 10, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE, 14, 16}
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_NODE = {_NODE_INPUT, _NODE_OUTPUT, 3, _NODE_OPERATOR, _NODE_ATTRIBUTE, 6, _NODE_DOMAIN, 9}
_ATTRIBUTE_NAME, _ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_TEXT, _ATTRIBUTE_TENSOR = 1, 2, 3, 4, 5
_ATTRIBUTE_FLOATS, _ATTRIBUTE_INTS, _ATTRIBUTE_TEXTS = 7, 8, 9
_ATTRIBUTE = {*range(1, 6), _ATTRIBUTE_FLOATS, _ATTRIBUTE_INTS, _ATTRIBUTE_TEXTS, 13, 20}
_TENSOR_SIZE, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_INTS = 1, 2, 4, 7
_TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 8, 9, 13, 14
_TENSOR = {
    _TENSOR_SIZE,
    _TENSOR_TYPE,
    _TENSOR_FLOATS,
    5,
    6,
    _TENSOR_INTS,
    _TENSOR_NAME,
    _TENSOR_RAW,
    10,
    11,
    12,
    16,
}
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_VALUE, _DIM_NAME = 1, 2, 1, 2, 1, 1, 2
_CODES = {1: "f", 7: "q"}
"""codes of `struct` for the types of TensorProto.DataType whose elements can determine sizes"""


class Node(NamedTuple):
    """A node of a graph."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    """ints, lists of ints, strings and tensors (`TensorInfo`); None for any other kind"""
    encoded: bytes
    """the node's field in the graph, including its key"""

    def number(self, name: str) -> float | None:
        """Return the float attribute `name`, which sizes never depend on; None where there is none."""
        (message,) = read_fields(self.encoded, 0, len(self.encoded))
        for part in read_fields(self.encoded, message.begin, message.end):
            if part.number == _NODE_ATTRIBUTE and read_strings(self.encoded, part, _ATTRIBUTE_NAME) == (
                name,
            ):
                for value in read_fields(self.encoded, part.begin, part.end):
                    if value.number == _ATTRIBUTE_FLOAT and value.wire == FIXED32:
                        (number,) = struct.unpack("<f", self.encoded[value.begin : value.end])
                        return float(number)
        return None


class ExternalData(NamedTuple):
    """The place of a large tensor's data in the file."""

    kind: int
    """TensorProto.DataType"""
    offset: int
    """bytes"""
    length: int
    """bytes"""


@dataclass
class OnnxGraph:
    """The contents of a file, without the data of its large tensors."""

    head: bytes = b""
    """the model's fields with its versions"""
    name: bytes = b""
    """the field with the graph's name"""
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, bytes] = field(default_factory=dict)
    """the fields of the stored tensors; those of large ones refer to the file"""
    constants: dict[str, TensorInfo] = field(default_factory=dict)
    """the same tensors"""
    external: dict[str, ExternalData] = field(default_factory=dict)
    """the large ones among them"""
    values: dict[str, bytes] = field(default_factory=dict)
    """the file's `ValueInfoProto` of tensors"""

    @cached_property
    def producers(self) -> dict[str, Node]:
        """The node that computes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs}

    def shape(self, name: str) -> tuple[int | str, ...] | None:
        """Return the sizes of the tensor `name`, names where dynamic; None if the file does not have them.

        Raises ValueError if they cannot be read.
        """
        message = self.values.get(name, b"")
        for number in (_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE):
            fields = [part for part in read_fields(message, 0, len(message)) if part.number == number]
            if not fields:
                return None
            message = message[fields[-1].begin : fields[-1].end]
        sizes = [part for part in read_fields(message, 0, len(message)) if part.number == _SHAPE_DIM]
        return tuple(_size(message, part) for part in sizes)

    def source(self, name: str) -> str:
        """Return the tensor that `name` was converted from, or `name` itself."""
        conversions = ("Cast", "DequantizeLinear", "Identity")
        for _ in self.nodes:  # not `while True`: a forged graph may have a cycle
            node = self.producers.get(name)
            if node is None or node.operator not in conversions or not node.inputs:
                break
            name = node.inputs[0]
        return name


def read_graph(path: str | os.PathLike[str]) -> OnnxGraph:
    """Read the graph in the file `path`.

    Raises OSError, and ValueError if it is not an ONNX graph, needs another file, or has anything that no
    exported graph has.
    """
    graph = OnnxGraph()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        model = list(read_fields(data, 0, len(data), _MODEL))
        graphs = [field for field in model if field.number == _MODEL_GRAPH]
        if len(graphs) != 1:
            raise ValueError(f"it has {len(graphs)} graphs")
        heads = [field for number in (_IR_VERSION, _OPSETS) for field in model if field.number == number]
        graph.head = b"".join(data[field.start : field.end] for field in heads)
        for part in read_fields(data, graphs[0].begin, graphs[0].end, _GRAPH):
            _read_part(graph, data, part, os.path.basename(path))
    return graph


def _read_part(graph: OnnxGraph, data: mmap.mmap, part: Field, location: str) -> None:
    if part.number == _GRAPH_NODE:
        graph.nodes.append(_node(data, part))
        if len(graph.nodes) > MAX_NODES:
            raise ValueError(f"it has more than {MAX_NODES:,} nodes")
    elif part.number == _GRAPH_TENSOR:
        _read_tensor(graph, data, part, location)
        if len(graph.tensors) > MAX_TENSORS:
            raise ValueError(f"it has more than {MAX_TENSORS:,} tensors")
    elif part.number in (_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE):
        graph.values[_name(data, part, _VALUE_NAME)] = data[part.begin : part.end]
    elif part.number == _GRAPH_NAME:
        graph.name = data[part.start : part.end]


def _read_tensor(graph: OnnxGraph, data: mmap.mmap, tensor: Field, location: str) -> None:
    fields, name = _tensor_fields(data, tensor), _name(data, tensor, _TENSOR_NAME)
    constant = graph.constants[name] = _constant(data, fields)
    raw = [field for field in fields if field.number == _TENSOR_RAW]
    if not raw or raw[0].end - raw[0].begin < _ON_DISK:
        graph.tensors[name] = data[tensor.start : tensor.end]
        return
    (kind,) = (field.value for field in fields if field.number == _TENSOR_TYPE)
    offset, length = raw[0].begin, raw[0].end - raw[0].begin
    graph.external[name] = ExternalData(kind, offset, length)
    graph.tensors[name] = external_tensor(name, constant.sizes, kind, location, offset, length)


def _node(data: mmap.mmap, node: Field) -> Node:
    domains = read_strings(data, node, _NODE_DOMAIN)
    if any(domains):  # such as com.microsoft's EPContext, which can name files
        raise ValueError(f"the node at byte {node.start} has an operator of {domains!r:.80}, not ONNX's")
    attributes = dict[str, Any]()
    for part in read_fields(data, node.begin, node.end, _NODE):
        if part.number == _NODE_ATTRIBUTE:
            name = _name(data, part, _ATTRIBUTE_NAME)
            if name in attributes:
                raise ValueError(f"the node at byte {node.start} has the attribute {name!r:.80} twice")
            attributes[name] = _attribute(data, part)
    inputs, outputs = (read_strings(data, node, number) for number in (_NODE_INPUT, _NODE_OUTPUT))
    operators = read_strings(data, node, _NODE_OPERATOR)
    if len(operators) != 1:
        raise ValueError(f"the node at byte {node.start} has {len(operators)} operators")
    if operators[0] not in OPERATORS:
        raise ValueError(f"it has the operator {operators[0]!r:.80}, which no exported graph has")
    return Node(operators[0], inputs, outputs, attributes, data[node.start : node.end])


def _attribute(data: mmap.mmap, attribute: Field) -> Any:
    """Return an attribute as in `Node.attributes`. Raises ValueError if it has values of two kinds."""
    fields = [
        part
        for part in read_fields(data, attribute.begin, attribute.end, _ATTRIBUTE)
        if part.number in range(_ATTRIBUTE_FLOAT, _ATTRIBUTE_TEXTS + 1)
    ]
    kinds = {part.number for part in fields}
    if len(kinds) > 1:
        raise ValueError(f"the attribute at byte {attribute.start} has values of several kinds")
    if kinds == {_ATTRIBUTE_INTS}:
        return [number for part in fields for number in _ints(data, part)]
    if kinds == {_ATTRIBUTE_INT}:
        return _ints(data, fields[-1])[0]
    if kinds == {_ATTRIBUTE_TEXT}:
        return data[fields[-1].begin : fields[-1].end].decode()
    if kinds == {_ATTRIBUTE_TENSOR} and len(fields) == 1:  # protobuf would merge several
        return _constant(data, _tensor_fields(data, fields[0]))
    if _ATTRIBUTE_TENSOR in kinds:
        raise ValueError(f"the attribute at byte {attribute.start} has several tensors")
    return None


def _constant(data: mmap.mmap, fields: Sequence[Field]) -> TensorInfo:
    """Return the tensor with these fields. Raises ValueError unless its data has the length it claims."""
    sizes, kinds, raws, others = list[int](), list[int](), list[Field](), list[Field]()
    for part in fields:
        if part.number == _TENSOR_SIZE:
            sizes += _ints(data, part)
        elif part.number == _TENSOR_TYPE:
            kinds.append(part.value)
        elif part.number == _TENSOR_RAW:
            raws.append(part)
        elif part.number != _TENSOR_NAME:
            others.append(part)
    if len(kinds) != 1 or len(raws) > 1:
        raise ValueError(f"a tensor has {len(kinds)} data types and {len(raws)} fields of raw data")
    length = raws[0].end - raws[0].begin if raws else sum(part.end - part.begin for part in others)
    check_tensor(sizes, kinds[0], length, raw=bool(raws))
    code = _CODES.get(kinds[0])
    if code is None or length >= _ON_DISK:
        return TensorInfo(tuple(sizes))
    if raws:
        count = length // struct.calcsize(f"<{code}")
        return TensorInfo(tuple(sizes), struct.unpack(f"<{count}{code}", data[raws[0].begin : raws[0].end]))
    if code == "q" and all(part.number == _TENSOR_INTS for part in others):
        return TensorInfo(tuple(sizes), tuple(number for part in others for number in _ints(data, part)))
    if all(part.number == _TENSOR_FLOATS for part in others):
        numbers = b"".join(data[part.begin : part.end] for part in others)
        return TensorInfo(tuple(sizes), struct.unpack(f"<{len(numbers) // 4}f", numbers))
    return TensorInfo(tuple(sizes))


def _ints(data: mmap.mmap, part: Field) -> list[int]:
    """Return the int64 numbers of a field, packed or single."""
    numbers = [part.value] if part.wire == VARINT else read_varints(data, part)
    return [number - 2**64 if number >= 2**63 else number for number in numbers]


def _tensor_fields(data: mmap.mmap, tensor: Field) -> list[Field]:
    """Return a tensor's fields. Raises ValueError if its data is in another file."""
    fields = list(read_fields(data, tensor.begin, tensor.end))
    if {_TENSOR_EXTERNAL, _TENSOR_LOCATION}.intersection(field.number for field in fields):
        raise ValueError("its weights are in another file (external data)")
    return list(read_fields(data, tensor.begin, tensor.end, _TENSOR))


def _name(data: mmap.mmap, message: Field, number: int) -> str:
    names = read_strings(data, message, number)
    if len(names) != 1:
        raise ValueError(f"the tensor at byte {message.start} has {len(names)} names")
    return names[0]


def _size(message: bytes, dimension: Field) -> int | str:
    """Return the size of an axis: its name if it is dynamic, "" if that has no name."""
    for part in read_fields(message, dimension.begin, dimension.end):
        if part.number == _DIM_VALUE:
            return part.value
        if part.number == _DIM_NAME:
            return message[part.begin : part.end].decode()
    return ""
