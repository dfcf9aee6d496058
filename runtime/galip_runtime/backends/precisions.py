"""The table of precisions: which devices compute in one, and which CPU instructions that takes there."""

from dataclasses import dataclass

__all__ = ["PRECISIONS", "Precision"]


@dataclass(frozen=True)
class Precision:
    """What a runtime has to know of a precision; the exporter has its conversion and its gate."""

    devices: tuple[str, ...] | None = None
    """that compute in it rather than around it, the best one first; None: all"""
    cpu_features: frozenset[str] = frozenset()
    """instructions, as Linux names them, of which a CPU needs one; none: any CPU will do"""
    cpu_needs: str = ""
    """the same, for people"""


PRECISIONS = {
    "fp32": Precision(),
    "w16a32": Precision(("openvino", "cuda", "cpu")),  # engines are built of graphs in fp16 or fp32
    # a CPU has no half-precision kernels: onnxruntime converts to and fro
    "fp16": Precision(("cuda", "tensorrt")),
    "bf16": Precision(("openvino",), frozenset({"avx512_bf16", "amx_bf16"}), "AVX512_BF16 or AMX"),
    # onnxruntime would compute in float and round in between, slower than in fp32; without these
    # instructions, sums saturate in 16 bits
    "int8": Precision(
        ("openvino",),
        frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}),
        "AVX512_VNNI, AVX_VNNI or AMX",
    ),
}
