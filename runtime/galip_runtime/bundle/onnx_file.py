"""A bundle's ONNX file: facts about its graph, and subgraphs of it that leave the weights where they are.

The data of the large tensors, nearly all of the file, stays on disk: `OnnxFile.extract` refers to it as
ONNX's external data, at an offset of this very file, so that a backend can map it into memory instead of
copying it.
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from galip_runtime.bundle.block_weights import read_convolution
from galip_runtime.bundle.generation_blocks import Convolution, GenerationBlocks, find_blocks
from galip_runtime.bundle.onnx_memory import check_memory, infer_sizes
from galip_runtime.bundle.onnx_reader import Node, read_graph
from galip_runtime.bundle.padded_nodes import padded_nodes
from galip_runtime.bundle.protobuf import encode_field
from galip_runtime.errors import FileRefused

__all__ = ["OnnxFile"]

_MODEL_GRAPH, _GRAPH_INPUT, _GRAPH_OUTPUT = 7, 11, 12  # field numbers of onnx.proto


class OnnxFile:
    """The graph in the file `path`, without the data of its large tensors."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises FileRefused unless the file is an ONNX graph that needs no other file."""
        self.path = os.fspath(path)
        try:
            self._graph = read_graph(path)
        except (OSError, ValueError) as error:  # ValueError also for an empty file
            raise self._invalid(str(error)) from error

    def check_memory(self, inputs: Mapping[str, Sequence[int]], limit: int) -> None:
        """Check how many elements it holds at once (`onnx_memory.check_memory`). Raises FileRefused."""
        available = {*inputs, *self._graph.constants, *self._graph.producers, ""}
        if missing := {name for node in self._graph.nodes for name in node.inputs} - available:
            raise self._mismatch(f"it needs {', '.join(sorted(missing))!r:.200} besides {', '.join(inputs)}")
        try:
            check_memory(self._graph.nodes, self._graph.constants, inputs, limit)
        except ValueError as error:
            raise self._invalid(str(error)) from error

    def computes(self, name: str) -> bool:
        """Return whether a node computes the tensor `name`."""
        return name in self._graph.producers

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
        try:
            return self._graph.shape(name)
        except ValueError as error:
            raise self._invalid(str(error)) from error

    def generation_blocks(self, inputs: Mapping[str, Sequence[int]]) -> GenerationBlocks:
        """Return the blocks before the output `image`. `inputs`: the inputs' sizes for one picture.

        Raises ValueError where the graph does not end in generation blocks as `galip export` writes them.
        """
        sizes = infer_sizes(self._graph.nodes, self._graph.constants, inputs)
        return find_blocks(self._graph, sizes)

    def read_convolution(
        self, convolution: Convolution
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Read a convolution's kernel (Co, Ci, 3, 3) or (Co, Ci, 1, 1) and bias (Co), both float32.

        Raises ValueError where the graph does not store them, and OSError where the file cannot be read.
        """
        return read_convolution(self.path, self._graph, convolution)

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
            if name in self._graph.producers:
                stack += self._graph.producers[name].inputs
            elif name not in self._graph.tensors:
                raise self._mismatch(f"{', '.join(outputs)} needs {name} besides {', '.join(inputs)}")
        nodes = [node for node in self._graph.nodes if needed.intersection(node.outputs)]
        if threads is None:
            graph = [node.encoded for node in nodes]
        else:
            graph = self._padded_nodes(nodes, inputs, needed, threads)
        graph.append(self._graph.name)
        graph += [encoded for name, encoded in self._graph.tensors.items() if name in needed]
        graph += [encode_field(_GRAPH_INPUT, self._value(name)) for name in inputs]
        graph += [encode_field(_GRAPH_OUTPUT, self._value(name)) for name in outputs]
        return self._graph.head + encode_field(_MODEL_GRAPH, b"".join(graph))

    def _padded_nodes(
        self, nodes: Sequence[Node], inputs: Sequence[str], needed: set[str], threads: int
    ) -> list[bytes]:
        batch = str((self.shape(inputs[0]) or ("",))[0])
        try:
            return padded_nodes(self._graph, nodes, batch, threads, os.path.basename(self.path), needed)
        except ValueError as error:
            raise self._invalid(str(error)) from error

    def table_size(self, ids: str) -> int:
        """Return the number of rows of the smallest table that the input `ids` indexes.

        Raises FileRefused if there is no such table, or if one is not in the file.
        """
        aliases, sizes = {ids}, []
        for node in self._graph.nodes:  # in topological order
            if node.operator in ("Cast", "Identity") and aliases.intersection(node.inputs):
                aliases.update(node.outputs)
            if node.operator == "Gather" and node.inputs[1:] and node.inputs[1] in aliases:
                table = self._graph.constants.get(self._graph.source(node.inputs[0]))
                if table is None or not table.sizes:
                    raise self._invalid(f"the table that {ids} index is not in the file")
                sizes.append(table.sizes[0])
        if not sizes:
            raise self._mismatch(f"{ids} index no table")
        return min(sizes)

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
