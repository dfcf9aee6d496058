"""From a generator's graph to the blocks that galip-kernels computes: whether it may, and the weights.

Before it is used, galip-kernels draws a picture that onnxruntime draws as well; where both agree, a record in
the cache spares the next load the check.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from galip_runtime.arrays import to_uint8
from galip_runtime.backends.kernels import (
    BlockWeights,
    KernelBlocks,
    KernelLibrary,
    KernelsUnusable,
    load_library,
)
from galip_runtime.backends.libraries import import_onnxruntime
from galip_runtime.backends.onnxruntime_runner import session_options
from galip_runtime.backends.runner import GraphFile, Settings
from galip_runtime.bundle.generation_blocks import GenerationBlock, GenerationBlocks
from galip_runtime.bundle.hash_cache import HashCache
from galip_runtime.bundle.manifest import TensorSpec, file_signature
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.cache import optional_cache

__all__ = [
    "KERNEL_PRECISIONS",
    "LoadedBlocks",
    "block_weights",
    "kernels_compute",
    "kernels_here",
    "kernels_off",
    "load_blocks",
]

KERNEL_PRECISIONS = ("fp32", "w16a32")
"""those in which galip-kernels computes"""
_VARIABLE = "GALIP_KERNELS"
_MAX_DIFFERENCE = 1e-4
"""of the picture's standard deviation"""

Features = npt.NDArray[np.float32]
ConvolutionWeights = tuple[Features, Features]


@dataclass(frozen=True)
class LoadedBlocks:
    """The generation blocks of a graph, which galip-kernels computes."""

    blocks: KernelBlocks
    inputs: tuple[TensorSpec, ...]
    """the graph's tensors that they take: features, then affines"""
    library: KernelLibrary

    def description(self) -> dict[str, Any]:
        """Describe them for `Runner.kernels`."""
        library = self.library
        algorithms = self.blocks.algorithms
        return {"target": library.target, "why": None, "version": library.version, "algorithms": algorithms}


@contextlib.contextmanager
def kernels_off() -> Iterator[None]:
    """Let models that are loaded in the block do without galip-kernels, in all threads of the process."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def kernels_compute(precision: str) -> bool:
    """Return whether galip-kernels is installed, works on this CPU, and computes in `precision`."""
    try:
        _library_for(precision)
    except KernelsUnusable:
        return False
    return True


def kernels_here() -> KernelLibrary:
    """Return the library of galip-kernels. Raises KernelsUnusable where it is switched off or cannot run."""
    if os.environ.get(_VARIABLE) == "0":
        raise KernelsUnusable(f"{_VARIABLE}=0 switches galip-kernels off", expected=True)
    return load_library()


def _library_for(precision: str) -> KernelLibrary:
    """Return the library. Raises as `kernels_here`, and for a precision that galip-kernels lacks."""
    if precision not in KERNEL_PRECISIONS:
        needed = " and ".join(KERNEL_PRECISIONS)
        raise KernelsUnusable(f"galip-kernels computes in {needed}, not in {precision}", expected=True)
    return kernels_here()


def load_blocks(file: GraphFile, settings: Settings) -> LoadedBlocks:
    """Load the blocks of a generator's graph, and check them unless that was done before.

    Raises KernelsUnusable where galip-kernels is not installed or switched off, where the graph is one that
    it does not compute, and where its picture is not onnxruntime's.
    """
    library = _library_for(file.precision)
    found = _found(file)
    inputs = _inputs(found)
    blocks, to_rgb = _weights(file, found)
    record = HashCache(optional_cache("kernels"))
    key = hashlib.sha256(f"{file.sha256} {library.version} {library.target}".encode()).hexdigest()
    signature = file_signature(library.path)
    if record.has(library.path, signature, key):
        return LoadedBlocks(KernelBlocks(library, blocks, to_rgb, settings.threads), inputs, library)
    # onnxruntime first: its session is gone before the transformed weights come
    tensors = _random_tensors(inputs)
    expected = _onnxruntimes_picture(file, settings, inputs, tensors)
    loaded = KernelBlocks(library, blocks, to_rgb, settings.threads)
    _check_agreement(loaded, tensors, expected)
    record.add(library.path, signature, key)
    return LoadedBlocks(loaded, inputs, library)


def _found(file: GraphFile) -> GenerationBlocks:
    sizes = {
        spec.name: [size if isinstance(size, int) else 1 for size in spec.shape] for spec in file.spec.inputs
    }
    try:
        found = file.onnx.generation_blocks(sizes)
    except ValueError as error:
        raise KernelsUnusable(
            f"galip-kernels does not compute such a graph: {error}", expected=True
        ) from error
    size, expected = found.blocks[-1].out_shape[1:], file.spec.outputs[0].shape[2:]
    if size != expected:
        raise KernelsUnusable(f"the graph's pictures have size {size}, not {expected}")
    return found


def _inputs(found: GenerationBlocks) -> tuple[TensorSpec, ...]:
    features = TensorSpec(found.features, "float32", ("N", *found.blocks[0].in_shape))
    affines = (
        TensorSpec(name, "float32", ("N", shape[0], 1, 1))
        for block in found.blocks
        for names, shape in ((block.affines[:4], block.in_shape), (block.affines[4:], block.out_shape))
        for name in names
    )
    return features, *affines


def _weights(file: GraphFile, found: GenerationBlocks) -> tuple[list[BlockWeights], ConvolutionWeights]:
    """Read the weights of the blocks, and those of the last convolution."""
    try:
        blocks = [block_weights(file.onnx, block) for block in found.blocks]
        return blocks, file.onnx.read_convolution(found.to_rgb)
    except ValueError as error:
        raise KernelsUnusable(str(error), expected=True) from error
    except OSError as error:
        raise KernelsUnusable(f"{file.path} cannot be read: {error}") from error


def block_weights(onnx: OnnxFile, block: GenerationBlock) -> BlockWeights:
    """Read the weights of a block. Raises as `OnnxFile.read_convolution`."""
    read = onnx.read_convolution
    shortcut = read(block.shortcut) if block.shortcut else None
    return BlockWeights(block.in_shape, block.out_shape, read(block.conv1), read(block.conv2), shortcut)


def _random_tensors(inputs: Sequence[TensorSpec]) -> list[Features]:
    """Return what the blocks take for one picture: features around 0, gammas around 1, betas around 0."""
    random, (features, *affines) = np.random.default_rng(0), inputs
    tensors = [random.standard_normal((1, *_sizes(features)), np.float32)]
    for index, spec in enumerate(affines):
        spread = random.standard_normal((1, *_sizes(spec)), np.float32)
        tensors.append(np.float32(1 - index % 2) + np.float32(0.25) * spread)
    return tensors


def _sizes(spec: TensorSpec) -> list[int]:
    return [size for size in spec.shape if isinstance(size, int)]


def _onnxruntimes_picture(
    file: GraphFile, settings: Settings, inputs: Sequence[TensorSpec], tensors: Sequence[Features]
) -> Features:
    """Return the image, (1, 3, H, W), that onnxruntime computes with the blocks of the graph."""
    onnxruntime, names = import_onnxruntime(), [spec.name for spec in inputs]
    try:
        model = file.onnx.extract(names, [spec.name for spec in file.spec.outputs])
        options = session_options(onnxruntime, file, settings)
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        image: Features = session.run(None, dict(zip(names, tensors, strict=True)))[0]
    except Exception as error:  # neither onnxruntime's errors nor those of a damaged file have a common base
        raise KernelsUnusable(f"onnxruntime cannot run the blocks alone, to compare: {error}") from error
    return image


def _check_agreement(blocks: KernelBlocks, tensors: Sequence[Features], expected: Features) -> None:
    """Raise KernelsUnusable unless the picture of `tensors` is `expected`, and its pixels are its own."""
    features, *affines = tensors
    try:
        image, pixels = blocks.image(features, affines), blocks.pixels(features, affines)
    except MemoryError as error:
        raise KernelsUnusable(f"its picture cannot be compared: {error}") from error
    if image.shape != expected.shape:
        raise KernelsUnusable(f"its picture has the shape {image.shape}, onnxruntime's {expected.shape}")
    exact = expected.astype(np.float64)  # in which neither the difference nor the deviation overflows
    with np.errstate(invalid="ignore"):  # infinity - infinity
        difference, deviation = float(np.abs(image - exact).max()), float(exact.std())
    if not difference <= _MAX_DIFFERENCE * deviation:  # NaN is not, either
        raise KernelsUnusable(
            f"its picture is not onnxruntime's: a value differs by {difference:.1e}, and the "
            f"picture's standard deviation is {deviation:.1e}"
        )
    if pixels is None or not np.array_equal(pixels, to_uint8(image)):
        raise KernelsUnusable("its 8-bit pixels are not those of its picture")
