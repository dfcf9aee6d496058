"""A valid bundle of a few kilobytes: `python stub_bundle.py FOLDER` or `make_stub_bundle`.

The text encoder adds up the embeddings of a caption's tokens; the generator adds two linear layers, of the
sentence and of the noise. Both depend on all of their input, so a wrong token, seed or batch order shows.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from galip_runtime.bundle.canonical import manifest_text
from galip_runtime.bundle.manifest import (
    CONDITION,
    MANIFEST_NAME,
    Dimensions,
    GraphSpec,
    Manifest,
    Source,
    TokenizerSpec,
    describe_file,
    graph_contract,
)
from galip_runtime.tokenizer import Tokenizer
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
MERGES = (
    ("i", "n"),
    ("t", "h"),
    ("a", "n"),
    ("r", "e"),
    ("a", "p"),
    ("ap", "p"),
    ("th", "e</w>"),
    ("re", "d</w>"),
)
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def make_stub_bundle(
    folder: Path,
    *,
    image_size: int = 8,
    precisions: Sequence[str] = ("fp32",),
    text_precisions: Sequence[str] = ("fp32",),
    nan: bool = False,
    parity: Mapping[str, Any] | None = None,
) -> Path:
    """Write a bundle to the new folder `folder` and return the folder.

    `precisions` are the generator's and `text_precisions` the text encoder's, all with the same fp32 inside;
    `nan`: the generator returns NaN; `parity`: the content of parity.json.
    """
    folder.mkdir(parents=True)
    dimensions = Dimensions(image_size, image_size, noise_dim=5, sentence_dim=6, context_length=24)
    tokenizer = Tokenizer(MERGES, dimensions.context_length)
    (folder / "vocabulary.gz").write_bytes(tokenizer.to_bytes())
    (folder / "parity.json").write_text(json.dumps(parity or {}) + "\n")
    graphs = {"text_encoder": {}, "generator": {}}
    for precision in precisions:
        suffix = "" if precision == "fp32" else f".{precision}"
        graphs["generator"][precision] = f"generator{suffix}.onnx"
        (folder / graphs["generator"][precision]).write_bytes(generator(dimensions, nan))
    for precision in text_precisions:
        suffix = "" if precision == "fp32" else f".{precision}"
        graphs["text_encoder"][precision] = f"text_encoder{suffix}.onnx"
        text = text_encoder(dimensions, tokenizer.vocabulary_size)
        (folder / graphs["text_encoder"][precision]).write_bytes(text)
    specs = {
        graph: {
            name: GraphSpec(file, *graph_contract(dimensions, graph), OPSET) for name, file in files.items()
        }
        for graph, files in graphs.items()
    }
    manifest = Manifest(
        model={"stub": True},
        dimensions=dimensions,
        files={path.name: describe_file(path) for path in sorted(folder.iterdir())},
        graphs=specs,
        tokenizer=TokenizerSpec("vocabulary.gz", len(MERGES), dimensions.context_length),
        source=Source("stub", "0" * 64),
        versions={"stub": "1"},
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json())
    return folder


def relist(folder: Path, *names: str) -> None:
    """Let the manifest list the files `names` as they are now, as a careful forger would."""
    manifest = Manifest.from_json((folder / MANIFEST_NAME).read_text())
    manifest.files.update({name: describe_file(folder / name) for name in names})
    (folder / MANIFEST_NAME).write_text(manifest.to_json())


def restate(folder: Path, document: Mapping[str, Any]) -> None:
    """Write `document` as the manifest, with its own digest."""
    (folder / MANIFEST_NAME).write_text(manifest_text(document))


def text_encoder(dimensions: Dimensions, vocabulary: int) -> bytes:
    table = np.random.default_rng(0).standard_normal((vocabulary, dimensions.sentence_dim), dtype=np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["embedded"]),  # (N, L, D)
        helper.make_node("Cast", ["tokens"], ["real"], to=TensorProto.BOOL),
        helper.make_node("Cast", ["real"], ["weight"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weight", "last"], ["weights"]),  # (N, L, 1)
        helper.make_node("Mul", ["embedded", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "middle"], ["sentence"], keepdims=0),  # (N, D)
    ]
    constants = {"table": table, "last": np.array([2]), "middle": np.array([1])}
    weighted = helper.make_tensor_value_info(
        "weighted", TensorProto.FLOAT, ["N", "L", dimensions.sentence_dim]
    )
    return _graph("text_encoder", dimensions, nodes, constants, [weighted])


def generator(dimensions: Dimensions, nan: bool = False) -> bytes:
    shape = np.array([-1, 3, dimensions.image_height, dimensions.image_width])
    rng, width = np.random.default_rng(1), int(abs(shape.prod()))
    constants = {
        "weight": rng.standard_normal((dimensions.sentence_dim, width), dtype=np.float32) / 4,
        "of_noise": rng.standard_normal((dimensions.noise_dim, width), dtype=np.float32) / 4,
        "shape": shape,
    }
    if nan:
        constants["of_noise"][0, 0] = np.nan
    nodes = [
        helper.make_node("MatMul", ["sentence", "weight"], [CONDITION]),
        helper.make_node("MatMul", ["noise", "of_noise"], ["from_noise"]),
        helper.make_node("Add", ["from_noise", CONDITION], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["image"]),
    ]
    condition = helper.make_tensor_value_info(CONDITION, TensorProto.FLOAT, ["N", width])
    return _graph("generator", dimensions, nodes, constants, [condition])


def _graph(name, dimensions, nodes, constants, values=()) -> bytes:
    inputs, outputs = (
        [helper.make_tensor_value_info(spec.name, _TYPES[spec.dtype], spec.shape) for spec in specs]
        for specs in graph_contract(dimensions, name)
    )
    initializers = [numpy_helper.from_array(array, key) for key, array in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers, value_info=values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return model.SerializeToString()


if __name__ == "__main__":
    print(make_stub_bundle(Path(sys.argv[1])))
