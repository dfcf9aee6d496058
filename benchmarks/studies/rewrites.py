"""What each rewrite of the exporter saves on a CPU: `python -m studies.rewrites MODEL --out RESULT.json`.

Measures the generator in fp32, one picture at a time, through onnxruntime and OpenVINO: with all rewrites,
and with one of them left out, by turns.

Found: without sub-pixel convolutions the released size takes 1.17 to 1.18 times as long, without growing
after the first block as well 1.24 to 1.26 times. Without affine networks at once the shipped model takes 1.06
times as long (`cpu_full_rewrites.json`, `cpu_default_rewrites.json`).
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from galip_bench.machine import describe_machine
from galip_bench.markdown import markdown_table
from galip_export.rewrites import GrowingBlock, Rewritten, affine_networks, fuse
from galip_export.trace import OPSET, dimensions, export_module
from galip_runtime.backends.cpu_runner import CpuRunner
from galip_runtime.backends.kernel_loading import kernels_off
from galip_runtime.backends.openvino_runner import OpenvinoRunner
from galip_runtime.backends.runner import GraphFile, Settings
from galip_runtime.bundle.manifest import GraphSpec, file_signature, graph_contract, sha256_file
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.errors import QualityGateFailed
from galip_runtime.hardware import usable_cpus
from torch import Tensor, nn

from galip.checkpoint import load_galip
from galip.model import Galip, Generator
from studies.harness import command, ratio_text

__all__ = ["LEFT_OUT", "SCHEMA", "main", "measure", "table"]

SCHEMA = 1
_BACKENDS = {"onnxruntime": (CpuRunner, "cpu"), "openvino": (OpenvinoRunner, "openvino")}
_FILE = "generator.onnx"
_TOLERANCE = 1e-3  # of the picture's standard deviation
_WARMUP = 2

_Samples = dict[str, list[float]]


def _without_sub_pixels(rewritten: Rewritten, _: Generator) -> None:
    for block in rewritten.blocks:
        assert isinstance(block, GrowingBlock)
        block.doubling = None


def _growing_first(rewritten: Rewritten, _: Generator) -> None:
    for block in rewritten.blocks:
        assert isinstance(block, GrowingBlock)
        block.forward = functools.partial(_grow_first, block)  # type: ignore[method-assign]


def _grow_first(growing: GrowingBlock, x: Tensor, affines: Iterator[Tensor]) -> Tensor:
    block = growing.block
    x = block.upsample(x)  # (N, Ci, size, size)
    h = block.conv1(fuse(x, affines))  # (N, Co, size, size)
    return block.shortcut(x) + block.conv2(fuse(h, affines))


def _with_networks_alone(rewritten: Rewritten, generator: Generator) -> None:
    rewritten.conditioning = _Alone(generator)  # type: ignore[assignment]


class _Alone(nn.Module):
    """What `Conditioning` gives, each affine network computed by itself."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.networks = nn.ModuleList(affine_networks(generator))
        self.prompt = generator.prompt if generator.config.use_clip else None

    def forward(self, noise: Tensor, sentence: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Noise (N, Z), sentence (N, D) → what each network gives, (N, C, 1, 1), and prompts (N, P·W)."""
        cond = torch.cat([noise, sentence], dim=1)  # (N, Z+D)
        maps = [network(cond)[:, :, None, None] for network in self.networks]
        return maps, self.prompt(cond) if self.prompt else None


LEFT_OUT: dict[str, Callable[[Rewritten, Generator], None]] = {
    "sub-pixel convolutions": _without_sub_pixels,
    "these, and growing after the first block": _growing_first,
    "affine networks at once": _with_networks_alone,
}
"""What is left out, and how that is put back."""


def measure(model: Path, rounds: int, threads: int | None = None) -> dict[str, Any]:
    """Return the content of the result file.

    Raises as `load_galip`, `ProviderUnavailable` without onnxruntime or OpenVINO, and `QualityGateFailed`
    where the picture is another one without a rewrite.
    """
    count = threads or usable_cpus()
    loaded = load_galip(model)
    spec = GraphSpec(_FILE, *graph_contract(dimensions(loaded.config), "generator"), OPSET)
    rng = np.random.default_rng(0)
    inputs = {
        tensor.name: rng.standard_normal((1, int(tensor.shape[1])), np.float32) for tensor in spec.inputs
    }
    seconds: dict[str, dict[str, _Samples]] = {backend: {} for backend in _BACKENDS}
    with tempfile.TemporaryDirectory() as whole_folder:
        whole = _file(Path(whole_folder), spec, loaded)
        for name, put_back in LEFT_OUT.items():
            with tempfile.TemporaryDirectory() as folder:
                less = _file(Path(folder), spec, loaded, put_back)
                for backend in _BACKENDS:
                    seconds[backend][name] = _compare(backend, count, (whole, less), inputs, rounds)
    return {
        "schema": SCHEMA,
        "benchmark": "rewrites",
        "model": {"name": model.name, "sha256": sha256_file(model), "image_height": spec.outputs[0].shape[2]},
        "machine": asdict(describe_machine()),
        "threads": count,
        "seconds": seconds,
    }


def _file(
    folder: Path,
    spec: GraphSpec,
    model: Galip,
    put_back: Callable[[Rewritten, Generator], None] | None = None,
) -> GraphFile:
    rewritten = Rewritten(model.generator).eval()
    if put_back:
        put_back(rewritten, model.generator)
    path = folder / spec.file
    onnx.save(export_module(model.config, rewritten), path)
    return GraphFile(path, sha256_file(path), spec, "fp32", OnnxFile(path), file_signature(path))


def _compare(
    backend: str,
    threads: int,
    files: tuple[GraphFile, GraphFile],
    inputs: Mapping[str, np.ndarray],
    rounds: int,
) -> _Samples:
    """Seconds of a picture with all rewrites and with one left out, by turns."""
    kind, device = _BACKENDS[backend]
    with kernels_off():
        graphs = [
            kind(file, Settings(device, threads), file.spec.inputs, file.spec.outputs) for file in files
        ]
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + _WARMUP):
        images = []
        for graph, samples in zip(graphs, seconds, strict=True):
            start = time.perf_counter()
            images.append(graph.run(inputs))
            if number >= _WARMUP:
                samples.append(time.perf_counter() - start)
        difference = float(np.abs(images[1] - images[0]).max() / images[0].std())
        if not difference <= _TOLERANCE:
            raise QualityGateFailed(
                f"without a rewrite the picture is {difference:.2g} of its std another one"
            )
    return {"with": seconds[0], "without": seconds[1]}


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of result files: a row a rewrite, two columns a result."""
    columns = [(result, backend) for result in results for backend in _BACKENDS]
    heads = [f"{result['model']['image_height']} pixels, {backend}" for result, backend in columns]
    rows = []
    for name in results[0]["seconds"]["onnxruntime"]:
        pairs = [result["seconds"][backend][name] for result, backend in columns]
        rows.append([name, *(ratio_text(samples["without"], samples["with"]) for samples in pairs)])
    return markdown_table(["without", *heads], rows)


def main() -> None:
    """Run the command."""
    command("rewrites", __doc__, measure, table, rounds=25, subject="model")


if __name__ == "__main__":
    main()
