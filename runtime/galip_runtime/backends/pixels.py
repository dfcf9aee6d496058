"""The last nodes of a generator on a GPU: uint8 pixels, a quarter of the bytes to copy."""

from galip_runtime.bundle.manifest import TensorSpec
from galip_runtime.bundle.onnx_writer import FLOAT, UINT8, graph, node, tensor, value

__all__ = ["CHECK", "PIXELS", "pixel_outputs", "with_pixels"]

PIXELS = "pixels"
"""uint8 (N, H, W, 3): `arrays.to_uint8` of the image, to the last bit"""
CHECK = "pixels_check"
"""float32 (N): 0 for a picture that is all finite, NaN for another"""

_OUTPUT = 12
_DTYPES = {"uint8": UINT8, "float32": FLOAT}


def pixel_outputs(image: TensorSpec) -> tuple[TensorSpec, TensorSpec]:
    """Return the specs of `PIXELS` and `CHECK` for an output `image`, (N, 3, H, W)."""
    count, channels, height, width = image.shape
    pixels = TensorSpec(PIXELS, "uint8", (count, height, width, channels))
    return pixels, TensorSpec(CHECK, "float32", (count,))


def with_pixels(model: bytes, image: TensorSpec) -> bytes:
    """Add `pixel_outputs` to `model`, a `ModelProto` of opset 13 or later with the output `image`."""
    name = image.name
    return model + graph(
        [
            node("Clip", [name, "pixels/-1", "pixels/1"], "pixels/clipped"),
            node("Add", ["pixels/clipped", "pixels/1"], "pixels/from_0"),
            node("Mul", ["pixels/from_0", "pixels/127.5"], "pixels/to_255"),
            node("Round", ["pixels/to_255"], "pixels/rounded"),
            node("Transpose", ["pixels/rounded"], "pixels/last", perm=[0, 2, 3, 1]),
            node(
                "Cast", ["pixels/last"], PIXELS, to=UINT8
            ),  # last, since TensorRT allows uint8 only in outputs
            node("Sub", [name, name], "pixels/0"),
            node("ReduceSum", ["pixels/0", "pixels/axes"], CHECK, keepdims=0),
            *(tensor(f"pixels/{number}", float(number), "float32") for number in ("-1", "1", "127.5")),
            tensor("pixels/axes", [1, 2, 3], "int64"),
            *(value(_OUTPUT, spec.name, _DTYPES[spec.dtype], spec.shape) for spec in pixel_outputs(image)),
        ]
    )
