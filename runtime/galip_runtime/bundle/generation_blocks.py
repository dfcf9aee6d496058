"""The generation blocks at the end of a generator's graph, found by their structure.

They are searched backwards from `image`, as the exporter writes them with rewrites or without: the last
convolution, then blocks of two 3x3 convolutions, each behind affines and LeakyReLUs, and a shortcut. A
doubling is a Resize and a 3x3 convolution, or four 2x2 convolutions at the small size (`sub_pixel`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from galip_runtime.bundle.onnx_reader import Node, OnnxGraph

__all__ = ["IMAGE", "Convolution", "GenerationBlock", "GenerationBlocks", "find_blocks"]

IMAGE = "image"
"""the output of a generator's graph"""

_SLOPE = float(np.float32(0.2))
_PHASE_PADS = ([1, 1, 0, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 1, 1])
"""top, left, bottom and right of a doubling's four 2x2 convolutions, phases (row, column) 00, 01, 10, 11"""

Sizes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Convolution:
    """The names of a convolution's constants."""

    weights: tuple[str, ...]
    """a kernel (Co, Ci, 3, 3) or (Co, Ci, 1, 1), or the four kernels (Co, Ci, 2, 2) of a doubling's phases"""
    bias: str


@dataclass(frozen=True)
class GenerationBlock:
    """A block of a graph: its sizes and the names of its tensors."""

    in_shape: tuple[int, int, int]
    """channels, height and width"""
    out_shape: tuple[int, int, int]
    """channels, height and width"""
    affines: tuple[str, ...]
    """gamma, beta, gamma, beta of the affines before the first convolution, then before the second"""
    conv1: Convolution
    conv2: Convolution
    shortcut: Convolution | None
    """None where it is the identity"""


@dataclass(frozen=True)
class GenerationBlocks:
    """The blocks of a graph, first to last, and the convolution to RGB after them."""

    features: str
    """the tensor before the first block"""
    blocks: tuple[GenerationBlock, ...]
    to_rgb: Convolution

    @property
    def affines(self) -> tuple[str, ...]:
        """The affines of all blocks, in order."""
        return tuple(name for block in self.blocks for name in block.affines)


def find_blocks(graph: OnnxGraph, sizes: Sizes) -> GenerationBlocks:
    """Find the blocks before the output `IMAGE`. `sizes`: of all tensors, for one picture.

    Raises ValueError, saying what is missing, where the graph does not end in at least one block.
    """
    search = _Search(graph, sizes)
    to_rgb, activated = search.convolution(search.producer(IMAGE, "Conv"), 3)
    features, blocks = search.leaky(activated), list[GenerationBlock]()
    while True:
        try:
            features, block = search.block(features)
        except ValueError:
            if not blocks:
                raise
            return GenerationBlocks(features, tuple(reversed(blocks)), to_rgb)
        blocks.append(block)


class _Search:
    """Reads the structure of a graph backwards. Its methods raise ValueError where it is another one."""

    def __init__(self, graph: OnnxGraph, sizes: Sizes) -> None:
        self._graph, self._sizes = graph, sizes

    def producer(self, name: str, operator: str) -> Node:
        """Return the node that computes `name`, with at least one input and `operator`."""
        node = self._graph.producers.get(name)
        if node is None or node.operator != operator or not node.inputs:
            found = "nothing" if node is None else node.operator
            raise ValueError(f"{found} computes {name!r:.80}, not {operator}")
        return node

    def shape(self, name: str) -> tuple[int, int, int]:
        """Return channels, height and width of a picture's tensor."""
        sizes = self._sizes_of(name)
        if len(sizes) != 4:
            raise ValueError(f"{name!r:.80} has {len(sizes)} axes, not 4")
        _, channels, height, width = sizes
        return channels, height, width

    def block(self, output: str) -> tuple[str, GenerationBlock]:
        """Return the input of the block that computes `output`, and the block."""
        first, second = self._two(self.producer(output, "Add"))
        for shortcut_end, conv_end in ((first, second), (second, first)):
            if self._produced_by(conv_end, "Conv"):
                conv2, hidden = self.convolution(self.producer(conv_end, "Conv"), 3)
                affines2, grown = self._fused(hidden)
                conv1, small = self._growing(grown)
                affines1, features = self._fused(small)
                shortcut = self._shortcut(shortcut_end, features)
                self._check_affines(affines1, self.shape(features)[0])
                self._check_affines(affines2, self.shape(output)[0])
                shapes = self.shape(features), self.shape(output)
                return features, GenerationBlock(*shapes, affines1 + affines2, conv1, conv2, shortcut)
        raise ValueError(f"no convolution is added to {output!r:.80}")

    def convolution(
        self, node: Node, size: int, pads: Sequence[int] | None = None
    ) -> tuple[Convolution, str]:
        """Return what `node`, a convolution of `size` by `size` taps, has for constants, and its input."""
        attributes, half = node.attributes, size // 2
        expected = [half] * 4 if pads is None else pads
        ones = [attributes.get("group", 1), *attributes.get("strides", []), *attributes.get("dilations", [])]
        is_plain = all(value == 1 for value in ones) and attributes.get("auto_pad", "NOTSET") == "NOTSET"
        if len(node.inputs) != 3 or not is_plain or list(attributes.get("pads", [0] * 4)) != list(expected):
            raise ValueError(f"the convolution of {node.outputs[0]!r:.80} is not one of a generation block")
        features, weight, bias = node.inputs
        shape = (self.shape(node.outputs[0])[0], self.shape(features)[0], size, size)
        if self._sizes_of(weight) != shape or self._sizes_of(bias) != shape[:1]:
            raise ValueError(f"the weights of {node.outputs[0]!r:.80} have other sizes than {shape}")
        return Convolution((weight,), bias), features

    def leaky(self, name: str) -> str:
        """Return the input of the LeakyReLU that computes `name`."""
        node = self.producer(name, "LeakyRelu")
        slope = node.number("alpha")
        if slope != _SLOPE:
            raise ValueError(f"the LeakyReLU of {name!r:.80} has the slope {slope or 0:.3g}, not 0.2")
        return node.inputs[0]

    def _fused(self, name: str) -> tuple[tuple[str, ...], str]:
        """Return gamma, beta, gamma, beta of the two affines before `name`, and their input."""
        affines: tuple[str, ...] = ()
        for _ in range(2):
            scaled, beta = self._with_coefficient(self.producer(self.leaky(name), "Add"))
            name, gamma = self._with_coefficient(self.producer(scaled, "Mul"))
            affines = (gamma, beta, *affines)
        return affines, name

    def _with_coefficient(self, node: Node) -> tuple[str, str]:
        """Return the features and the coefficient of each channel that a sum or product has, in any order."""
        features, coefficient = self._two(node)
        if self._sizes_of(coefficient)[2:] == (1, 1):
            return features, coefficient
        return coefficient, features

    def _check_affines(self, affines: Sequence[str], channels: int) -> None:
        for name in affines:
            if self._sizes_of(name) != (1, channels, 1, 1):
                raise ValueError(f"{name!r:.80} is no factor or summand of {channels} channels")

    def _growing(self, name: str) -> tuple[Convolution, str]:
        """Return the first convolution of a block, which computes `name`, and its input at the small size."""
        if self._produced_by(name, "DepthToSpace"):
            return self._doubling(name)
        conv, wide = self.convolution(self.producer(name, "Conv"), 3)
        return conv, self._before_resize(wide)

    def _doubling(self, name: str) -> tuple[Convolution, str]:
        """Return the phases that compute `name`, interleaved, and their input."""
        node = self.producer(name, "DepthToSpace")
        channels, height, width = self.shape(name)
        stacked = self.producer(self.producer(node.inputs[0], "Reshape").inputs[0], "Concat")
        ends = [self.producer(end, "Unsqueeze") for end in stacked.inputs]
        expected = (1, channels, 4, height // 2, width // 2)
        is_shuffle = (node.attributes.get("mode"), node.attributes.get("blocksize")) == ("CRD", 2)
        if not is_shuffle or len(ends) != 4 or self._sizes_of(stacked.outputs[0]) != expected:
            raise ValueError(f"{name!r:.80} is not made of four phases")
        phases = [
            self.convolution(self.producer(end.inputs[0], "Conv"), 2, pads)
            for end, pads in zip(ends, _PHASE_PADS, strict=True)
        ]
        if len({(conv.bias, features) for conv, features in phases}) != 1:
            raise ValueError(f"the phases of {name!r:.80} have different inputs or biases")
        weights = tuple(weight for conv, _ in phases for weight in conv.weights)
        return Convolution(weights, phases[0][0].bias), phases[0][1]

    def _shortcut(self, name: str, features: str) -> Convolution | None:
        """Return the shortcut from `features` to `name`; None for the identity."""
        name, conv = self._before_resize(name), None
        if name != features:
            conv, name = self.convolution(self.producer(name, "Conv"), 1)
        if name != features:
            raise ValueError(f"{name!r:.80} is not the shortcut of {features!r:.80}")
        return conv

    def _before_resize(self, name: str) -> str:
        """Return the input of the nearest upsampling that computes `name`, or `name` where there is none."""
        if not self._produced_by(name, "Resize"):
            return name
        node = self.producer(name, "Resize")
        modes = [
            node.attributes.get(key) for key in ("mode", "coordinate_transformation_mode", "nearest_mode")
        ]
        if modes != ["nearest", "asymmetric", "floor"]:
            raise ValueError(f"the Resize of {name!r:.80} is not nearest upsampling: {modes}")
        before, after = self.shape(node.inputs[0]), self.shape(name)
        scales = self._graph.constants.get((*node.inputs, "", "")[2])  # none: the sizes are given
        factors = scales.values[-2:] if scales and scales.values and len(scales.values) == 4 else None
        for axis in range(2):
            small, large = before[1 + axis], after[1 + axis]
            factor = factors[axis] if factors else large / small
            if not math.isfinite(factor) or not small <= large or not _is_floor(small, large, factor):
                raise ValueError(f"the Resize of {name!r:.80} takes other rows than nearest upsampling")
        return node.inputs[0]

    def _sizes_of(self, name: str) -> tuple[int, ...]:
        return tuple(self._sizes.get(name, ()))

    def _produced_by(self, name: str, operator: str) -> bool:
        node = self._graph.producers.get(name)
        return node is not None and node.operator == operator

    def _two(self, node: Node) -> tuple[str, str]:
        """Return the two inputs of a node."""
        if len(node.inputs) != 2:
            raise ValueError(f"{node.outputs[0]!r:.80} has {len(node.inputs)} inputs, not 2")
        return node.inputs[0], node.inputs[1]


def _is_floor(small: int, large: int, factor: float) -> bool:
    """Return whether row i of the result is row floor(i * small / large), as ONNX computes it in float32."""
    rows = np.arange(large)
    with np.errstate(divide="ignore", invalid="ignore"):
        taken = np.floor(rows.astype(np.float32) / np.float32(factor))
    return bool((taken == rows * small // large).all())
