"""Graph changes that make a picture generated alone equal the same picture in a batch, bit for bit.

On many CPUs, matrix products of a single row have their own kernel, which adds in another order than the
kernel for several rows; so do sums over an inner axis. There are two remedies:

- An operator with one row per picture gets an extra row of zeros, which is sliced off its result. A product
  with one row per token has several rows anyway.
- A product with a stack of few matrices, or of large ones, is computed matrix by matrix. onnxruntime deals
  matrices to threads first and then, with threads to spare, their rows, down to one row each; a single
  constant matrix it packs once when it loads the graph, and packed matrices have only one kernel.
"""

import math
from collections.abc import Sequence

from galip_runtime.bundle.onnx_writer import node, tensor

__all__ = [
    "constants",
    "pad",
    "padded_result",
    "padded_rows",
    "row_axis",
    "split",
    "stack_size",
    "unpad",
]

_PRODUCTS = ("Gemm", "MatMul")
_SUMS = ("ReduceMean", "ReduceSum")
_TASKS = 4
"""the most parts into which onnxruntime divides a thread's work (on CPUs with two kinds of cores)"""
_LARGE = 2**15
"""elements of a matrix from which on packing it in each run takes longer than running a separate node"""
_PREFIX = "galip_runtime/"
_PADS, _FIRST, _LAST = f"{_PREFIX}pads", f"{_PREFIX}first", f"{_PREFIX}last"

Shape = Sequence[int | str] | None


def row_axis(operator: str, before: Shape, after: Shape, batch: str) -> int | None:
    """Return the axis of a node's first input and output with one row per picture, if padding it matters.

    `before`, `after`: the sizes of these two, names where dynamic, None where the file has none;
    `batch`: the name of the batch size.
    """
    if before is None or len(before) < 2:
        return None
    if operator in _PRODUCTS and before[-2] == batch and (after is None or after[-2:-1] == (batch,)):
        return -2
    if operator in _SUMS and after and before[0] == after[0] == batch:
        return 0
    return None


def stack_size(operator: str, before: Shape, weights: Sequence[int], batch: str, threads: int) -> int:
    """Return how many matrices to split a node into; 0 if its rows stay together on that many threads.

    `before`, `batch`: as for `row_axis`, with sizes (matrices, N, K) for a stack. `weights`: the sizes of the
    constants, (matrices, K, M).
    """
    if operator != "MatMul" or before is None or len(before) != 3 or before[1] != batch or len(weights) != 3:
        return 0
    stack, *matrix = weights
    return stack if stack < _TASKS * threads or math.prod(matrix) >= _LARGE else 0


def split(rows: str, matrices: Sequence[str], output: str) -> list[bytes]:
    """Encode nodes that compute `output` (stack, N, M) from `rows` (stack, N, K) and `matrices` (K, M)."""
    name, stack = f"{_PREFIX}{output}", len(matrices)
    parts, products = ([f"{name}/{part}{index}" for index in range(stack)] for part in ("rows", "product"))
    return [
        tensor(f"{name}/ones", [1] * stack, "int64"),
        node("Split", [rows, f"{name}/ones"], parts, axis=0),
        *(
            node("MatMul", [part, matrix], product)  # (1, N, M)
            for part, matrix, product in zip(parts, matrices, products, strict=True)
        ),
        node("Concat", products, output, axis=0),
    ]


def matrix_name(weights: str, index: int) -> str:
    """Return the name of matrix `index` of the stack `weights`."""
    return f"{_PREFIX}{weights}/{index}"


def matrix(weights: str, index: int) -> list[bytes]:
    """Encode nodes for `matrix_name` if the stack is computed, from constants, when the graph is loaded."""
    position = f"{_PREFIX}{weights}/number{index}"
    return [
        tensor(position, index, "int64"),
        node("Gather", [weights, position], matrix_name(weights, index), axis=0),
    ]


def padded_rows(rows: str, axis: int) -> str:
    """Return the name of the tensor `rows` with an extra row along `axis`."""
    return f"{_PREFIX}{rows}/{axis}"


def padded_result(output: str) -> str:
    """Return the name of `output` before its last row is sliced off."""
    return f"{_PREFIX}{output}/result"


def pad(rows: str, axis: int) -> bytes:
    """Encode the node that computes `padded_rows`."""
    return node("Pad", [rows, _PADS, "", f"{_PREFIX}axis{axis}"], padded_rows(rows, axis))


def unpad(output: str, axis: int) -> bytes:
    """Encode the node that computes `output` from `padded_result`."""
    return node("Slice", [padded_result(output), _FIRST, _LAST, f"{_PREFIX}axis{axis}"], output)


def constants(axes: set[int]) -> list[bytes]:
    """Encode the constants that the nodes of `pad` and `unpad` use for these axes."""
    fields = [tensor(f"{_PREFIX}axis{axis}", [axis], "int64") for axis in sorted(axes)]
    if fields:
        fields += [tensor(_PADS, [0, 1], "int64"), tensor(_FIRST, [0], "int64"), tensor(_LAST, [-1], "int64")]
    return fields
