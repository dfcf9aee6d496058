"""galip-kernels: its shared library, loaded with ctypes, and the generation blocks that it computes.

`galip_kernels.h` describes the functions; the structures here are those of its ABI 1.
"""

import ctypes
import functools
import importlib
import os
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint8, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.forks import Lock, call_after_fork

__all__ = ["BlockWeights", "KernelBlocks", "KernelLibrary", "KernelsUnusable", "load_library"]

_ABI = 1
_NOT_FINITE, _NO_MEMORY = 1, 2
_NO_TARGET = "none"
_ERROR_SIZE = 500

Weights = npt.NDArray[np.float32]


class KernelsUnusable(Exception):
    """The compiled kernels are not used, and why. `expected`: nothing is wrong."""

    def __init__(self, why: str, *, expected: bool = False) -> None:
        super().__init__(why)
        self.expected = expected


class _Block(ctypes.Structure):
    _fields_ = (
        *((name, c_int32) for name in ("in_channels", "out_channels")),
        *((name, c_int32) for name in ("in_height", "in_width", "out_height", "out_width")),
        *((name, POINTER(c_float)) for name in ("conv1_weight", "conv1_bias", "conv2_weight", "conv2_bias")),
        *((name, POINTER(c_float)) for name in ("shortcut_weight", "shortcut_bias")),
    )


@dataclass(frozen=True)
class BlockWeights:
    """The sizes and weights of one generation block; kernel and bias of each convolution."""

    in_shape: tuple[int, int, int]
    """channels, height and width"""
    out_shape: tuple[int, int, int]
    """channels, height and width"""
    conv1: tuple[Weights, Weights]
    """(Co, Ci, 3, 3) and (Co)"""
    conv2: tuple[Weights, Weights]
    """(Co, Co, 3, 3) and (Co)"""
    shortcut: tuple[Weights, Weights] | None
    """(Co, Ci, 1, 1) and (Co); None for the identity"""


@dataclass(frozen=True)
class KernelLibrary:
    """The loaded library."""

    path: Path
    version: str
    """of the distribution galip-kernels"""
    target: str
    """the instructions that it uses here, such as AVX-512"""
    functions: Any


@functools.cache
def load_library() -> KernelLibrary:
    """Load the library of the installed galip-kernels; once. Raises KernelsUnusable where there is none."""
    try:
        package = importlib.import_module("galip_kernels")
        path, version = Path(package.LIBRARY), str(package.__version__)
        functions = ctypes.CDLL(os.fspath(path))
        functions.galip_kernels_abi.restype = c_int32
        abi = functions.galip_kernels_abi()
        if abi == _ABI:
            _declare(functions)
    except ModuleNotFoundError as error:
        if error.name != "galip_kernels":
            raise KernelsUnusable(f"galip-kernels cannot be imported: {error}") from error
        raise KernelsUnusable("galip-kernels is not installed", expected=True) from error
    except Exception as error:  # a broken package may raise anything, a library of another CPU OSError
        raise KernelsUnusable(f"galip-kernels cannot be loaded: {error}") from error
    if abi != _ABI:
        raise KernelsUnusable(
            f"galip-kernels {version} has interface {abi} and this galip-runtime needs {_ABI}: install the "
            "galip-kernels of the same release"
        )
    target = functions.galip_kernels_target().decode()
    if target == _NO_TARGET:
        raise KernelsUnusable("this CPU has none of the instructions that galip-kernels uses", expected=True)
    return KernelLibrary(path, version, target, functions)


def _declare(functions: Any) -> None:
    """State the types of the library's functions."""
    arrays = POINTER(POINTER(c_float))
    for name, result, arguments in (
        ("galip_kernels_target", c_char_p, ()),
        (
            "galip_blocks_open",
            c_void_p,
            (POINTER(_Block), c_int32, POINTER(c_float), POINTER(c_float), c_int32, c_char_p, c_size_t),
        ),
        (
            "galip_blocks_run",
            c_int32,
            (c_void_p, c_int64, POINTER(c_float), arrays, POINTER(c_float), POINTER(c_uint8)),
        ),
        ("galip_blocks_memory", c_int64, (c_void_p,)),
        ("galip_blocks_algorithms", c_char_p, (c_void_p,)),
        ("galip_blocks_close", None, (c_void_p,)),
    ):
        function = getattr(functions, name)
        function.restype, function.argtypes = result, arguments


class KernelBlocks:
    """Generation blocks with their weights, transformed, and threads of their own. Threads may share it."""

    def __init__(
        self,
        library: KernelLibrary,
        blocks: Sequence[BlockWeights],
        to_rgb: tuple[Weights, Weights],
        threads: int,
    ) -> None:
        """Copy the weights of the blocks and of the last convolution, (3, C, 3, 3) and (3).

        Raises KernelsUnusable where the library refuses them.
        """
        self._functions, self._lock = library.functions, Lock()
        self._handle: int | None = None
        error = ctypes.create_string_buffer(_ERROR_SIZE)
        structures = (_Block * len(blocks))(*map(_structure, blocks))
        weight, bias = map(_floats, to_rgb)
        self._handle = self._functions.galip_blocks_open(
            structures, len(blocks), weight, bias, threads, error, _ERROR_SIZE
        )
        if not self._handle:
            raise KernelsUnusable(f"galip-kernels refuses the blocks: {error.value.decode(errors='replace')}")
        self._size = blocks[-1].out_shape[1:]
        call_after_fork(self)

    def __del__(self) -> None:
        if self._handle:
            self._functions.galip_blocks_close(self._handle)

    def forked(self) -> None:
        """Forget the library's part without freeing it: in a forked process its threads are not there."""
        self._handle = None

    @property
    def algorithms(self) -> list[str]:
        """Each convolution and how it is computed, such as "blocks.0.conv1 F(4x4,3x3)"."""
        text: bytes = self._functions.galip_blocks_algorithms(self._handle)
        return text.decode().splitlines()

    @property
    def memory(self) -> int:
        """Bytes of weights and working memory so far."""
        return int(self._functions.galip_blocks_memory(self._handle))

    def image(self, features: Weights, affines: Sequence[Weights]) -> npt.NDArray[np.float32]:
        """Return images, float32 (N, 3, H, W), not clamped; some values may not be finite.

        `features`: float32 (N, C, H, W) of the first block. `affines`: eight of each block, float32
        (N, C, 1, 1). The caller checks their shapes. Raises MemoryError.
        """
        image = np.empty((len(features), 3, *self._size), np.float32)
        self._run(features, affines, image=_floats(image))
        return image

    def pixels(self, features: Weights, affines: Sequence[Weights]) -> npt.NDArray[np.uint8] | None:
        """Return pictures, uint8 (N, H, W, 3), `arrays.to_uint8` of `image`; None where one is not finite."""
        pixels = np.empty((len(features), *self._size, 3), np.uint8)
        finite = self._run(features, affines, pixels=pixels.ctypes.data_as(POINTER(c_uint8)))
        return pixels if finite else None

    def _run(
        self, features: Weights, affines: Sequence[Weights], image: Any = None, pixels: Any = None
    ) -> bool:
        """Compute `image` or `pixels`, or both, and return whether all is finite."""
        contiguous = [np.ascontiguousarray(array) for array in (features, *affines)]
        first, *others = map(_floats, contiguous)
        pointers = (POINTER(c_float) * len(others))(*others)
        with self._lock:
            status = self._functions.galip_blocks_run(
                self._handle, len(features), first, pointers, image, pixels
            )
        if status == _NO_MEMORY:
            raise MemoryError("there is no memory for the pictures")
        return bool(status != _NOT_FINITE)


def _structure(block: BlockWeights) -> _Block:
    (channels, height, width), (out_channels, out_height, out_width) = block.in_shape, block.out_shape
    shortcut = block.shortcut or (None, None)
    pointers = map(_floats, (*block.conv1, *block.conv2, *shortcut))
    return _Block(channels, out_channels, height, width, out_height, out_width, *pointers)


def _floats(array: Weights | None) -> Any:
    """Return the address of a contiguous array; None stays None."""
    return None if array is None else array.ctypes.data_as(POINTER(c_float))
