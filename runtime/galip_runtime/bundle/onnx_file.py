"""A bundle's ONNX file: facts about its graph, and subgraphs of it that leave the weights where they are.

The data of the large tensors, nearly all of the file, stays on disk: `OnnxFile.extract` refers to it as
ONNX's external data, at an offset of this very file, so that a backend can map it into memory instead of
copying it.
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
"""the most matrices of one product; the released size has 28"""


class OnnxFile:
    """The graph in the file `path`, without the data of its large tensors."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises FileRefused unless the file is an ONNX graph that needs no other file."""
        self.path = os.fspath(path)
        try:
            self._graph = read_graph(path)
            self._producers = {name: node for node in self._graph.nodes for name in node.outputs}
        except (OSError, ValueError) as error:  # ValueError also for an empty file
            raise self._invalid(str(error)) from error

    def check_memory(self, inputs: Mapping[str, Sequence[int]], limit: int) -> None:
        """Check how many elements it holds at once (`onnx_memory.check_memory`). Raises FileRefused."""
        available = {*inputs, *self._graph.constants, *self._producers, ""}
        if missing := {name for node in self._graph.nodes for name in node.inputs} - available:
            raise self._mismatch(f"it needs {', '.join(sorted(missing))!r:.200} besides {', '.join(inputs)}")
        try:
            check_memory(self._graph.nodes, self._graph.constants, inputs, limit)
        except ValueError as error:
            raise self._invalid(str(error)) from error

    def computes(self, name: str) -> bool:
        """Return whether a node computes the tensor `name`."""
        return name in self._producers

    def width(self, name: str) -> int:
        """Return the last size of the tensor `name`. Raises FileRefused if the file does not have it."""
        shape = self.shape(name)
        if shape and isinstance(shape[-1], int) and shape[-1] > 0:
            return shape[-1]
        raise self._invalid(f"it does not give the width of {name}")

    def shape(self, name: str) -> tuple[int | str, ...] | None:
        """Return the sizes of the tensor `name`, names where dynamic; None if the file does not have them.

        Raises FileRefused if they cannot be read.
        """
        message = self._graph.values.get(name, b"")
        try:
            for number in (_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE):
                fields = [field for field in read_fields(message, 0, len(message)) if field.number == number]
                if not fields:
                    return None
                message = message[fields[-1].begin : fields[-1].end]
            sizes = [field for field in read_fields(message, 0, len(message)) if field.number == _SHAPE_DIM]
            return tuple(_size(message, field) for field in sizes)
        except ValueError as error:
            raise self._invalid(str(error)) from error

    def extract(self, inputs: Sequence[str], outputs: Sequence[str], *, threads: int | None = None) -> bytes:
        """Return a `ModelProto` that computes `outputs` from `inputs` alone; both may be any tensors.

        Large tensors are external data in this file, named relative to its folder. With `threads`, each row's
        result is bit-equal in any batch if onnxruntime runs it on that many CPU threads (`row_padding`).
        Raises FileRefused if anything besides `inputs` is needed.
        """
        needed, stack = set[str](), list(outputs)
        while stack:
            name = stack.pop()
            if name in needed or name in inputs or not name:  # "": an omitted optional input
                continue
            needed.add(name)
            if name in self._producers:
                stack += self._producers[name].inputs
            elif name not in self._graph.tensors:
                raise self._mismatch(f"{', '.join(outputs)} needs {name} besides {', '.join(inputs)}")
        nodes = [node for node in self._graph.nodes if needed.intersection(node.outputs)]
        if threads is None:
            graph = [node.encoded for node in nodes]
        else:
            graph = self._with_padded_rows(nodes, inputs, needed, threads)
        graph.append(self._graph.name)
        graph += [encoded for name, encoded in self._graph.tensors.items() if name in needed]
        graph += [encode_field(_GRAPH_INPUT, self._value(name)) for name in inputs]
        graph += [encode_field(_GRAPH_OUTPUT, self._value(name)) for name in outputs]
        return self._graph.head + encode_field(_MODEL_GRAPH, b"".join(graph))

    def _with_padded_rows(
        self, nodes: Sequence[Node], inputs: Sequence[str], needed: set[str], threads: int
    ) -> list[bytes]:
        """Encode `nodes` so that none of them computes a single row of the `inputs`.

        Removes from the `needed` tensors those that are no longer used.
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
                if weights in self._graph.external and sum(weights in user.inputs for user in nodes) == 1:
                    needed.discard(weights)
                continue
            if axis is None:
                fields.append(node.encoded)
                continue
            rows, output = node.inputs[0], node.outputs[0]
            if (rows, axis) not in padded:
                fields.append(row_padding.pad(rows, axis))
                padded.add((rows, axis))
            fields.append(
                _rewired(node, row_padding.padded_rows(rows, axis), row_padding.padded_result(output))
            )
            fields.append(row_padding.unpad(output, axis))
        return fields + row_padding.constants({axis for _, axis in padded})

    def _stack_size(self, node: Node, before: Sequence[int | str] | None, batch: str, threads: int) -> int:
        """Return how many constant matrices to split `node` into; 0 for a node that stays as it is."""
        # the file may be wrong about a tensor that it computes; for those it stores, the sizes were checked
        weights = self._graph.constants.get(self._source(node.inputs[1])) if len(node.inputs) == 2 else None
        if weights is None or not batch:
            return 0
        stack = row_padding.stack_size(node.operator, before, weights.sizes, batch, threads)
        return stack if stack <= _MAX_STACK and before and before[0] == stack else 0

    def _matrices(self, weights: str, stack: int) -> list[bytes]:
        """Encode each matrix of the stack `weights`, named by `row_padding.matrix_name`."""
        if weights not in self._graph.external:
            return [field for index in range(stack) for field in row_padding.matrix(weights, index)]
        data, sizes = self._graph.external[weights], self._graph.constants[weights].sizes[1:]
        length = data.length // stack
        location = os.path.basename(self.path)
        return [
            external_tensor(
                row_padding.matrix_name(weights, index),
                sizes,
                data.kind,
                location,
                data.offset + index * length,
                length,
            )
            for index in range(stack)
        ]

    def table_size(self, ids: str) -> int:
        """Return the number of rows of the smallest table that the input `ids` indexes.

        Raises FileRefused if there is no such table, or if one is not in the file.
        """
        aliases, sizes = {ids}, []
        for node in self._graph.nodes:  # in topological order
            if node.operator in ("Cast", "Identity") and aliases.intersection(node.inputs):
                aliases.update(node.outputs)
            if node.operator == "Gather" and node.inputs[1:] and node.inputs[1] in aliases:
                table = self._graph.constants.get(self._source(node.inputs[0]))
                if table is None or not table.sizes:
                    raise self._invalid(f"the table that {ids} index is not in the file")
                sizes.append(table.sizes[0])
        if not sizes:
            raise self._mismatch(f"{ids} index no table")
        return min(sizes)

    def _source(self, name: str) -> str:
        """Return the tensor that `name` was converted from, or `name` itself."""
        conversions = ("Cast", "DequantizeLinear", "Identity")
        for _ in self._graph.nodes:  # not `while True`: a forged graph may have a cycle
            node = self._producers.get(name)
            if node is None or node.operator not in conversions or not node.inputs:
                break
            name = node.inputs[0]
        return name

    def _value(self, name: str) -> bytes:
        if name not in self._graph.values:
            raise self._mismatch(f"it has no input or output {name}")
        return self._graph.values[name]

    def _mismatch(self, reason: str) -> FileRefused:
        return FileRefused(
            f"{self.path} is not the graph that the manifest describes: {reason}. Export the bundle again"
        )

    def _invalid(self, reason: str) -> FileRefused:
        return FileRefused(
            f"{self.path} is not an ONNX graph that can be run: {reason}. Export the bundle again"
        )


def _rewired(node: Node, first_input: str, output: str) -> bytes:
    """Encode `node` with another first input and another output."""
    (message,) = read_fields(node.encoded, 0, len(node.encoded))
    inputs = (first_input, *node.inputs[1:])
    fields = [encode_field(_NODE_INPUT, name) for name in inputs]
    fields.append(encode_field(_NODE_OUTPUT, output))
    fields += [
        node.encoded[field.start : field.end]
        for field in read_fields(node.encoded, message.begin, message.end)
        if field.number not in (_NODE_INPUT, _NODE_OUTPUT)
    ]
    return encode_field(_GRAPH_NODE, b"".join(fields))


def _size(message: bytes, dimension: Field) -> int | str:
    """Return the size of an axis: its name if it is dynamic, "" if that has no name."""
    for field in read_fields(message, dimension.begin, dimension.end):
        if field.number == _DIM_VALUE:
            return field.value
        if field.number == _DIM_NAME:
            return message[field.begin : field.end].decode()
    return ""
