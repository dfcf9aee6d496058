"""A stub bundle whose generator ends in generation blocks, as the exporter writes them.

The first block grows 4 to 5 pixels and has no convolution in its shortcut; the second doubles them and
has one.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
from galip_runtime.bundle.manifest import CONDITION, Dimensions
from onnx import TensorProto, helper, numpy_helper
from stub_bundle import OPSET, make_stub_bundle, relist

FORMS = ("phases", "resized", "one kernel")
"""of the doubling: four stored 2x2 kernels, a Resize before a 3x3 one, or four computed from a 3x3 one"""
SIZE = 10
_CHANNELS, _SIZES = (6, 6, 5), (4, 5, 10)
_PADS = ([1, 1, 0, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 1, 1])
_NEAREST = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}


def make_block_bundle(folder: Path, form: str = "phases", **changes) -> Path:
    """Write the bundle to the new folder `folder`, with its generator as `BlockGraph` makes it."""
    make_stub_bundle(folder, image_size=SIZE)
    (folder / "generator.onnx").write_bytes(BlockGraph(form, **changes).build())
    relist(folder, "generator.onnx")
    return folder


class BlockGraph:
    """Builds the graph: linear layers of noise and sentence, then the blocks."""

    def __init__(self, form="phases", *, rounded=False, slope=0.2, nan=False, mode="nearest"):
        """`rounded`: each phase's kernel by itself to float16; the others spoil what the names say."""
        self.form, self.rounded, self.slope, self.nan, self.mode = form, rounded, slope, nan, mode
        self.random = np.random.default_rng(3)
        self.nodes, self.constants, self.values = [], {}, []
        self.dimensions = Dimensions(SIZE, SIZE, noise_dim=5, sentence_dim=6, context_length=24)

    def build(self) -> bytes:
        image = self._blocks(*self._head())
        self._convolution("to_rgb", image, "image", 3, _CHANNELS[-1], 3)
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
            for name, size in (("noise", 5), ("sentence", 6))
        ]
        output = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
        initializers = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(
            self.nodes, "generator", inputs, [output], initializers, value_info=self.values
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()

    def _head(self):
        """Features and the coefficients of all affines, from noise and sentence."""
        sizes = [_CHANNELS[0] * _SIZES[0] ** 2]
        for before, after in pairwise(_CHANNELS):
            sizes += [before] * 4 + [after] * 4
        width = sum(sizes)
        self.constants |= {
            "of_sentence": self._normal(6, width) / 4,
            "of_noise": self._normal(5, width) / 4,
            "sizes": np.array(sizes),
        }
        if self.nan:
            self.constants["of_noise"][0, 0] = np.nan
        parts = [f"part{index}" for index in range(len(sizes))]
        self._node("MatMul", ["sentence", "of_sentence"], CONDITION)
        self.values.append(helper.make_tensor_value_info(CONDITION, TensorProto.FLOAT, ["N", width]))
        self._node("MatMul", ["noise", "of_noise"], "from_noise")
        self._node("Add", ["from_noise", CONDITION], "flat")
        self.nodes.append(helper.make_node("Split", ["flat", "sizes"], parts, axis=1))
        names = ["features", *(f"affine{index}" for index in range(len(parts) - 1))]
        for index, (part, name, size) in enumerate(zip(parts, names, sizes, strict=True)):
            shape = [size, 1, 1] if index else [_CHANNELS[0], _SIZES[0], _SIZES[0]]
            self.constants[f"{name}_shape"] = np.array([-1, *shape])
            self._node("Reshape", [part, f"{name}_shape"], name)
            self.values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape]))
        return names[0], iter(names[1:])

    def _blocks(self, x, affines):
        for index, size in enumerate(_SIZES[1:]):
            name, (ins, outs) = f"blocks.{index}", _CHANNELS[index : index + 2]
            hidden = self._fused(f"{name}/df1", x, affines)
            if size == 2 * _SIZES[index] and self.form != "resized":
                grown = self._doubling(name, hidden, outs, ins, size)
            else:
                wide = self._resized(f"{name}/wide", hidden, size, _SIZES[index])
                grown = self._convolution(f"{name}.conv1", wide, f"{name}/grown", outs, ins, 3)
            hidden = self._fused(f"{name}/df2", grown, affines)
            hidden = self._convolution(f"{name}.conv2", hidden, f"{name}/hidden", outs, outs, 3)
            if ins != outs:
                x = self._convolution(f"{name}.shortcut", x, f"{name}/short", outs, ins, 1)
            x = self._resized(f"{name}/shortcut", x, size, _SIZES[index])
            x = self._node("Add", [x, hidden], f"{name}/sum")
        return self._node("LeakyRelu", [x], "activated", alpha=self.slope)

    def _fused(self, name, x, affines):
        for step in range(2):
            x = self._node("Mul", [x, next(affines)], f"{name}/scaled{step}")
            x = self._node("Add", [x, next(affines)], f"{name}/shifted{step}")
            x = self._node("LeakyRelu", [x], f"{name}/leaky{step}", alpha=self.slope)
        return x

    def _convolution(self, name, x, output, outs, ins, size):
        self.constants[f"{name}.weight"] = self._normal(outs, ins, size, size) / (size * ins**0.5)
        self.constants[f"{name}.bias"] = self._normal(outs) / 4
        return self._node("Conv", [x, f"{name}.weight", f"{name}.bias"], output, pads=[size // 2] * 4)

    def _resized(self, name, x, size, before):
        self.constants[f"{name}_scales"] = np.array([1, 1, size / before, size / before], np.float32)
        modes = {**_NEAREST, "mode": self.mode}
        return self._node("Resize", [x, "", f"{name}_scales"], name, **modes)

    def _doubling(self, name, x, outs, ins, size):
        kernel = self._normal(outs, ins, 3, 3) / (3 * ins**0.5)
        self.constants[f"{name}.bias"] = self._normal(outs) / 4
        weights = [f"{name}.phases.{number}.weight" for number in range(4)]
        if self.form == "one kernel":
            self.constants[f"{name}.weight.fp16"] = kernel.astype(np.float16)
            self._node("Cast", [f"{name}.weight.fp16"], f"{name}.weight", to=TensorProto.FLOAT)
            rows = self._halves(f"{name}.weight", 2, [f"{name}/even", f"{name}/odd"])
            self._halves(rows[0], 3, weights[:2])
            self._halves(rows[1], 3, weights[2:])
        else:
            rounded = np.float16 if self.rounded else np.float32
            phases = [phase.astype(rounded).astype(np.float32) for phase in phases_of(kernel)]
            self.constants |= dict(zip(weights, phases, strict=True))
        ends = []
        self.constants["axis2"] = np.array([2])
        for number, (weight, pads) in enumerate(zip(weights, _PADS, strict=True)):
            phase = self._node("Conv", [x, weight, f"{name}.bias"], f"{name}/phase{number}", pads=pads)
            ends.append(self._node("Unsqueeze", [phase, "axis2"], f"{name}/end{number}"))
        self._node("Concat", ends, f"{name}/stack", axis=2)
        self.constants[f"{name}/flat"] = np.array([-1, 4 * outs, size // 2, size // 2])
        self._node("Reshape", [f"{name}/stack", f"{name}/flat"], f"{name}/flattened")
        return self._node("DepthToSpace", [f"{name}/flattened"], f"{name}/grown", blocksize=2, mode="CRD")

    def _halves(self, taps, axis, outputs):
        single = [f"{taps}/{number}" for number in range(3)]
        self.constants["ones"] = np.array([1, 1, 1])
        self.nodes.append(helper.make_node("Split", [taps, "ones"], single, axis=axis))
        before = self._node("Add", single[:2], f"{taps}/01")
        after = self._node("Add", single[1:], f"{taps}/12")
        self._node("Concat", [single[0], after], outputs[0], axis=axis)
        self._node("Concat", [before, single[2]], outputs[1], axis=axis)
        return outputs

    def _node(self, operator, inputs, output, **attributes):
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def _normal(self, *shape):
        return self.random.standard_normal(shape, dtype=np.float32)


def phases_of(kernel):
    """The four 2x2 kernels that a doubling's 3x3 kernel amounts to, by summing its equal neighbours."""
    taken = (((0,), (1, 2)), ((0, 1), (2,)))
    return [
        np.stack(
            [
                np.stack(
                    [sum(kernel[:, :, y, x] for y in rows for x in columns) for columns in taken[right]], -1
                )
                for rows in taken[down]
            ],
            -2,
        )
        for down in (0, 1)
        for right in (0, 1)
    ]
