"""A picture made alone equals the same picture made in a batch, bit for bit.

Matrix products have a kernel of their own for a single row on many CPUs, which adds up in another order than
the kernel for several rows; sums over an axis within have one, too. Two ways around it:

- An operator that has one row a picture gets one more row, of zeros, which is taken off its result. A product
  that has a row a token has several anyway.
- A product of a stack of few matrices, or of large ones, is done matrix by matrix. onnxruntime deals matrices
  to threads first, and with threads to spare their rows, too, down to one row each; a single constant matrix
  it packs once and for all, and that has one kernel.
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
"""into which onnxruntime divides the work of each thread, at most (on CPUs with cores of two kinds)"""
_LARGE = 2**15
"""numbers of a matrix from which on packing it for each run takes longer than a node of its own"""
_PREFIX = "galip_runtime/"
_PADS, _FIRST, _LAST = f"{_PREFIX}pads", f"{_PREFIX}first", f"{_PREFIX}last"

Shape = Sequence[int | str] | None


def row_axis(operator: str, before: Shape, after: Shape, batch: str) -> int | None:
    """The axis of a node's first input and of its output that has one row a picture, if padding matters.

    `before`, `after`: sizes of these two, names where they are dynamic, None where the file gives none;
    `batch`: the name of the batch's size.
    """
    if before is None or len(before) < 2:
        return None
    if operator in _PRODUCTS and before[-2] == batch and (after is None or after[-2:-1] == (batch,)):
        return -2
    if operator in _SUMS and after and before[0] == after[0] == batch:
        return 0
    return None


def stack_size(operator: str, before: Shape, weights: Sequence[int], batch: str, threads: int) -> int:
    """How many matrices a node has to be split into; 0 where its rows stay together on that many threads.

    `before`, `batch`: as for `row_axis`; of a stack, (matrices, N, K). `weights`: its sizes,
    (matrices, K, M).
    """
    if operator != "MatMul" or before is None or len(before) != 3 or before[1] != batch or len(weights) != 3:
        return 0
    stack, *matrix = weights
    return stack if stack < _TASKS * threads or math.prod(matrix) >= _LARGE else 0


def split(rows: str, matrices: Sequence[str], output: str) -> list[bytes]:
    """The fields that give `output` (stack, N, M) from `rows` (stack, N, K) and `matrices` (K, M)."""
    name, stack = f"{_PREFIX}{output}", len(matrices)
    parts, products = ([f"{name}/{what}{index}" for index in range(stack)] for what in ("rows", "product"))
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
    """The name of matrix `index` of the stack `weights`."""
    return f"{_PREFIX}{weights}/{index}"


def matrix(weights: str, index: int) -> list[bytes]:
    """The fields that give `matrix_name` where the stack is computed, from constants, as it is loaded."""
    number = f"{_PREFIX}{weights}/number{index}"
    return [
        tensor(number, index, "int64"),
        node("Gather", [weights, number], matrix_name(weights, index), axis=0),
    ]


def padded_rows(rows: str, axis: int) -> str:
    """The name of the tensor `rows` with one more row along `axis`."""
    return f"{_PREFIX}{rows}/{axis}"


def padded_result(output: str) -> str:
    """The name of `output` before its last row is taken off."""
    return f"{_PREFIX}{output}/result"


def pad(rows: str, axis: int) -> bytes:
    """The node that gives `padded_rows`."""
    return node("Pad", [rows, _PADS, "", f"{_PREFIX}axis{axis}"], padded_rows(rows, axis))


def unpad(output: str, axis: int) -> bytes:
    """The node that gives `output` from `padded_result`."""
    return node("Slice", [padded_result(output), _FIRST, _LAST, f"{_PREFIX}axis{axis}"], output)


def constants(axes: set[int]) -> list[bytes]:
    """The tensors that the nodes of `pad` and `unpad` refer to, for these axes."""
    fields = [tensor(f"{_PREFIX}axis{axis}", [axis], "int64") for axis in sorted(axes)]
    if fields:
        fields += [tensor(_PADS, [0, 1], "int64"), tensor(_FIRST, [0], "int64"), tensor(_LAST, [-1], "int64")]
    return fields
