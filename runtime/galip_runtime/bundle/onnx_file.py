"""A bundle's graph: questions about it, and cuts that leave its weights where they are.

The numbers of the large tensors, which are nearly all of the file, stay on disk: `OnnxFile.extract` refers to
them by their place in the file, the way ONNX has for tensors in a file of their own, so that a backend maps
them into memory instead of copying them.
"""

import os
from collections.abc import Mapping, Sequence

from galip_runtime.bundle import row_padding
from galip_runtime.bundle.onnx_memory import check_memory
from galip_runtime.bundle.onnx_reader import Node, read_graph
from galip_runtime.bundle.onnx_writer import external_tensor
from galip_runtime.bundle.protobuf import Field, encode_field, read_fields
from galip_runtime.errors import FileRefused

__all__ = ["OnnxFile"]

# Field numbers of onnx.proto
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_INPUT, _GRAPH_OUTPUT, _NODE_INPUT, _NODE_OUTPUT = 7, 1, 11, 12, 1, 2
_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_VALUE, _DIM_NAME = 2, 1, 2, 1, 1, 2

_MAX_STACK = 1024
"""matrices of one product; the released size has 28"""


class OnnxFile:
    """What `path` holds, without its large tensors' numbers."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises FileRefused where the file is no ONNX graph that stands by itself in this one file."""
        self.path = os.fspath(path)
        try:
            self._graph = read_graph(path)
            self._producers = {name: node for node in self._graph.nodes for name in node.outputs}
        except (OSError, ValueError) as error:  # ValueError: an empty file, too
            raise self._refused(str(error)) from error

    def check_memory(self, inputs: Mapping[str, Sequence[int]], limit: int) -> None:
        """Check how many numbers the graph holds at once (`onnx_memory.check_memory`). Raises FileRefused."""
        given = {*inputs, *self._graph.constants, *self._producers, ""}
        if needed := {name for node in self._graph.nodes for name in node.inputs} - given:
            raise self._other(f"it needs {', '.join(sorted(needed))!r:.200}, not {', '.join(inputs)} alone")
        try:
            check_memory(self._graph.nodes, self._graph.constants, inputs, limit)
        except ValueError as error:
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
        message = self._graph.values.get(name, b"")
        try:
            for number in (_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE):
                inner = [field for field in read_fields(message, 0, len(message)) if field.number == number]
                if not inner:
                    return None
                message = message[inner[-1].begin : inner[-1].end]
            sizes = [field for field in read_fields(message, 0, len(message)) if field.number == _SHAPE_DIM]
            return tuple(_size(message, field) for field in sizes)
        except ValueError as error:
            raise self._refused(str(error)) from error

    def extract(self, inputs: Sequence[str], outputs: Sequence[str], *, threads: int | None = None) -> bytes:
        """The `ModelProto` that computes `outputs` from `inputs` alone, any tensors of the graph.

        Large tensors lie in external data: this file, named relative to its folder. With `threads`, each
        row's result is the same bit for bit in any batch, run by onnxruntime on that many CPU threads
        (`row_padding`). Raises FileRefused where something else than `inputs` is needed.
        """
        needed, wanted = set[str](), list(outputs)
        while wanted:
            name = wanted.pop()
            if name in needed or name in inputs or not name:  # "": an optional input left out
                continue
            needed.add(name)
            if name in self._producers:
                wanted += self._producers[name].inputs
            elif name not in self._graph.tensors:
                raise self._other(f"{', '.join(outputs)} needs {name}, not {', '.join(inputs)} alone")
        nodes = [node for node in self._graph.nodes if needed.intersection(node.outputs)]
        if threads is None:
            graph = [node.whole for node in nodes]
        else:
            graph = self._with_padded_rows(nodes, inputs, needed, threads)
        graph.append(self._graph.name)
        graph += [whole for name, whole in self._graph.tensors.items() if name in needed]
        graph += [encode_field(_GRAPH_INPUT, self._value(name)) for name in inputs]
        graph += [encode_field(_GRAPH_OUTPUT, self._value(name)) for name in outputs]
        return self._graph.head + encode_field(_MODEL_GRAPH, b"".join(graph))

    def _with_padded_rows(
        self, nodes: Sequence[Node], inputs: Sequence[str], needed: set[str], threads: int
    ) -> list[bytes]:
        """The graph's fields for `nodes`, none of which computes for a single row of the `inputs`.

        What is not used any more is taken out of the `needed` tensors.
        """
        batch = str((self.shape(inputs[0]) or ("",))[0])
        fields, padded = list[bytes](), set[tuple[str, int]]()
        for node in nodes:
            before, after = (self.shape(names[0]) if names else None for names in (node.inputs, node.outputs))
            axis = row_padding.row_axis(node.operator, before, after, batch) if batch else None
            if stack := self._stack_size(node, before, batch, threads):
                rows, weights = node.inputs
                fields += self._matrices(weights, stack)
                matrices = [row_padding.matrix_name(weights, index) for index in range(stack)]
                fields += row_padding.split(rows, matrices, node.outputs[0])
                if weights in self._graph.external and sum(weights in other.inputs for other in nodes) == 1:
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
            fields.append(row_padding.unpad(output, axis))
        return fields + row_padding.constants({axis for _, axis in padded})

    def _stack_size(self, node: Node, before: Sequence[int | str] | None, batch: str, threads: int) -> int:
        """How many matrices of constants `node` has to be split into; 0 for a node that stays as it is."""
        # what a file says of a tensor that it computes may be wrong, of one that it holds was checked
        weights = self._graph.constants.get(self._source(node.inputs[1])) if len(node.inputs) == 2 else None
        if weights is None or not batch:
            return 0
        stack = row_padding.stack_size(node.operator, before, weights.sizes, batch, threads)
        return stack if stack <= _MAX_STACK and before and before[0] == stack else 0

    def _matrices(self, weights: str, stack: int) -> list[bytes]:
        """The graph's fields that give each matrix of the stack `weights`, by `row_padding.matrix_name`."""
        if weights not in self._graph.external:
            return [field for index in range(stack) for field in row_padding.matrix(weights, index)]
        place, sizes = self._graph.external[weights], self._graph.constants[weights].sizes[1:]
        length = place.length // stack
        location = os.path.basename(self.path)
        return [
            external_tensor(
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
        for node in self._graph.nodes:  # in the order in which they are computed
            if node.operator in ("Cast", "Identity") and same.intersection(node.inputs):
                same.update(node.outputs)
            if node.operator == "Gather" and node.inputs[1:] and node.inputs[1] in same:
                table = self._graph.constants.get(self._source(node.inputs[0]))
                if table is None or not table.sizes:
                    raise self._refused(f"the table that {ids} are looked up in is not in the file")
                sizes.append(table.sizes[0])
        if not sizes:
            raise self._other(f"{ids} are looked up in no table")
        return min(sizes)

    def _source(self, name: str) -> str:
        """The tensor that `name` is in another type."""
        kinds = ("Cast", "DequantizeLinear", "Identity")
        for _ in self._graph.nodes:  # no more often: a forged graph may be a ring
            node = self._producers.get(name)
            if node is None or node.operator not in kinds or not node.inputs:
                break
            name = node.inputs[0]
        return name

    def _value(self, name: str) -> bytes:
        if name not in self._graph.values:
            raise self._other(f"it has no input or output {name}")
        return self._graph.values[name]

    def _other(self, why: str) -> FileRefused:
        return FileRefused(
            f"{self.path} is another graph than the manifest says: {why}. Export the bundle again"
        )

    def _refused(self, why: str) -> FileRefused:
        return FileRefused(f"{self.path} is no ONNX graph that can be run: {why}. Export the bundle again")


def _renamed(node: Node, first_input: str, output: str) -> bytes:
    """The field of the graph for `node` with another first input and another output."""
    (message,) = read_fields(node.whole, 0, len(node.whole))
    inputs = (first_input, *node.inputs[1:])
    rest = [
        node.whole[field.start : field.end]
        for field in read_fields(node.whole, message.begin, message.end)
        if field.number not in (_NODE_INPUT, _NODE_OUTPUT)
    ]
    content = [encode_field(_NODE_INPUT, name) for name in inputs] + [
        encode_field(_NODE_OUTPUT, output),
        *rest,
    ]
    return encode_field(_GRAPH_NODE, b"".join(content))


def _size(message: bytes, dimension: Field) -> int | str:
    """The size of one axis: its name where it is dynamic, "" where that has no name."""
    for field in read_fields(message, dimension.begin, dimension.end):
        if field.number == _DIM_VALUE:
            return field.value
        if field.number == _DIM_NAME:
            return message[field.begin : field.end].decode()
    return ""
