"""A model's two graphs: traced by torch.export, written by torch's ONNX exporter, simplified and checked.

Opset 18: it is what torch's exporter writes without converting (asked for another, it converts from 18); it
has LayerNormalization (17) and a Resize that all of onnxruntime, TensorRT 10 and OpenVINO read.

Shapes: N batch, L caption tokens, T tokens, H attention heads, W width of a head.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from galip_runtime.bundle.manifest import Dimensions, graph_contract
from galip_runtime.errors import UsageError
from onnx import TensorProto, numpy_helper
from onnxscript import opset18 as op
from torch import Tensor, nn

from galip.config import GalipConfig
from galip.model import Galip
from galip_export.check import check_graph
from galip_export.rewrites import Rewritten, rewrite
from galip_export.simplify import finish, name_condition, simplify

__all__ = ["OPSET", "dimensions", "export_generator", "export_module", "export_text_encoder"]

OPSET = 18
"""of the default ONNX domain; the graphs use no other"""

_TRACED_BATCH = 2  # torch.export takes 0 and 1 for constants
_LIMIT = 2**31 - 2**20  # bytes that protobuf takes in one message, less the graph itself


def dimensions(config: GalipConfig) -> Dimensions:
    """Return the sizes that a bundle's manifest states for a model of `config`."""
    side = config.generator.image_size
    return Dimensions(
        image_height=side,
        image_width=side,
        noise_dim=config.generator.noise_dim,
        sentence_dim=config.clip.embed_dim,
        context_length=config.clip.text.context_length,
    )


def export_text_encoder(model: Galip) -> onnx.ModelProto:
    """Export `model.text`: tokens int64 (N, L) → sentence float32 (N, D); N and L ≤ context are dynamic.

    Raises UsageError where the model has no text tower, and QualityGateFailed where the graph does not turn
    out as its contract says.
    """
    if model.text is None:
        raise UsageError(
            "the model has no text tower, so there is no text encoder to export; "
            "convert the checkpoint again with --clip CLIP"
        )
    context = model.config.clip.text.context_length
    tokens = torch.randint(
        model.config.clip.text.vocab_size, (_TRACED_BATCH, context - 1), generator=_random()
    )
    batch, length = torch.export.Dim("N", min=1), torch.export.Dim("L", min=1, max=context)
    return _export(model.config, "text_encoder", model.text, (tokens,), ({0: batch, 1: length},))


def export_generator(model: Galip, rewrites: str = "exact") -> onnx.ModelProto:
    """Export `model.generator`: noise (N, Z), sentence (N, D) → image (N, 3, H, W); float32, N dynamic.

    `rewrites`: one of `REWRITES`. Raises UsageError for another, QualityGateFailed where the graph does not
    turn out as its contract says.
    """
    return export_module(model.config, rewrite(model.generator, rewrites))


def export_module(config: GalipConfig, module: nn.Module) -> onnx.ModelProto:
    """Export `module`, which computes what the generator of `config` does, like `export_generator`."""
    inputs = (
        torch.randn(_TRACED_BATCH, config.generator.noise_dim, generator=_random()),
        torch.randn(_TRACED_BATCH, config.clip.embed_dim, generator=_random()),
    )
    batch = torch.export.Dim("N", min=1)
    return _export(config, "generator", module, inputs, ({0: batch}, {0: batch}))


def _random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _export(
    config: GalipConfig,
    name: str,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    dynamic_shapes: tuple[Any, ...],
) -> onnx.ModelProto:
    size = sum(parameter.numel() * 4 for parameter in module.parameters())
    if size > _LIMIT:
        raise UsageError(f"the {name} has {size / 1e9:.1f} GB of weights; one ONNX file holds at most 2.1 GB")
    contract = graph_contract(dimensions(config), name)
    names = [tensor.name for tensor in contract[0]]
    with warnings.catch_warnings():
        # torch's own: a deprecated call of its pytrees, and that both inputs' batch axes are the one named N
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        warnings.filterwarnings(
            "ignore", message=".*The axis name: N will not be used.*", category=UserWarning
        )
        program = torch.onnx.export(
            module,
            inputs,
            input_names=names,
            output_names=[tensor.name for tensor in contract[1]],
            dynamic_shapes=dynamic_shapes,
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
            custom_translation_table=_translations(config.clip.text.context_length),
        )
    assert program is not None
    model = simplify(program.model, dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True)))
    if isinstance(module, Rewritten):
        name_condition(model)
    proto = finish(model, name)
    check_graph(proto, name, *contract, OPSET)
    return proto


def _translations(context: int) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return translations in place of the exporter's own, which compute shapes that are known beforehand."""
    return {
        torch.ops.aten.addcmul.default: _addcmul,
        torch.ops.aten.argmax.default: _argmax,
        torch.ops.aten.scaled_dot_product_attention.default: _attention(context),
        torch.ops.aten.split.Tensor: _split_evenly,
        torch.ops.aten.split_with_sizes.default: _split,
        torch.ops.aten.unbind.int: _unbind,
        torch.ops.aten.upsample_nearest2d.vec: _upsample,
    }


def _constant(value: npt.NDArray[Any] | np.generic) -> Any:
    return op.Constant(value=numpy_helper.from_array(np.asarray(value)))


def _addcmul(x: Any, factor: Any, other: Any, value: float = 1) -> Any:
    """Return x + factor·other; the exporter's own translation multiplies by `value`, even if that is 1."""
    assert value == 1
    return op.Add(x, op.Mul(factor, other))


def _argmax(tokens: Any, dim: int, keepdim: bool = False) -> Any:
    """ArgMax of integers below 2^24, as float32: onnxruntime's CUDA provider has none of int64."""
    ids: Any = op.Cast(tokens, to=TensorProto.FLOAT)
    return op.ArgMax(ids, axis=dim, keepdims=int(keepdim))


def _attention(context: int) -> Callable[..., Any]:
    """Return softmax(query·keyᵀ / √W + mask)·value, whose causal mask is cut to L once for all blocks."""
    shared: list[Any] = []

    def mask(query: Any) -> Any:
        if not shared:
            length, zero = op.Shape(query, start=2, end=3), _constant(np.zeros(1, np.int64))
            cut = _constant(np.triu(np.full((context, context), -np.inf, np.float32), 1))
            for axis in range(2):  # one at a time: a node that joins both lengths would run on the CPU
                cut = op.Slice(cut, zero, length, _constant(np.array([axis])))
            shared.append(cut)  # (L, L)
        return shared[0]

    def attention(
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        assert attn_mask is None
        assert not dropout_p
        assert not enable_gqa
        factor = np.float32(query.shape[3] ** -0.5 if scale is None else scale)
        scores = op.MatMul(
            op.Mul(query, _constant(factor)), op.Transpose(key, perm=[0, 1, 3, 2])
        )  # (N, H, T, T)
        if is_causal:
            scores = op.Add(scores, mask(query))
        return op.MatMul(op.Softmax(scores, axis=-1), value)  # (N, H, T, W)

    return attention


def _split_evenly(x: Any, size: int, dim: int = 0) -> Any:
    """Split into equal parts: the exporter's own translation makes a sequence and picks each part from it."""
    count, rest = divmod(x.shape[dim], size)
    assert not rest
    return op.Split(x, axis=dim, num_outputs=count)


def _split(x: Any, sizes: list[int], dim: int) -> Any:
    """Split into unequal parts.

    onnxruntime's CUDA kernel of `Split` copies their sizes from the host each time, from memory that a CUDA
    graph finds used for something else.
    """
    ends = np.cumsum(sizes)
    axis = _constant(np.array([dim]))
    return [
        op.Slice(x, _constant(np.array([end - size])), _constant(np.array([end])), axis)
        for size, end in zip(sizes, ends, strict=True)
    ]


def _unbind(self: Any, dim: int = 0) -> Any:
    return [op.Gather(self, _constant(np.int64(index)), axis=dim) for index in range(self.shape[dim])]


def _upsample(x: Any, output_size: Any, scale_factors: Any = None) -> Any:
    """Nearest as PyTorch has it: pixel i of the result is pixel ⌊i·in/out⌋. Constant scales need no N."""
    scales = [1.0, 1.0, *(out / size for out, size in zip(output_size, x.shape[2:], strict=True))]
    return op.Resize(
        x,
        None,
        _constant(np.array(scales, np.float32)),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
