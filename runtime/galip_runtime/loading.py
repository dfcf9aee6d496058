"""A bundle's folder to a model on a device. Nothing is parsed before it is verified."""

import logging
import os
from pathlib import Path

from galip_runtime.errors import FileRefused, ProviderUnavailable, UsageError
from galip_runtime.manifest import GRAPHS, GraphSpec, Manifest, read_manifest, read_verified, verify_files
from galip_runtime.pipeline import Model
from galip_runtime.session import Graph, Settings, candidates, parse_device, thread_count
from galip_runtime.tokenizer import Tokenizer

__all__ = ["load"]

_log = logging.getLogger("galip_runtime")


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
) -> Model:
    """Load the bundle in the folder `path`.

    `device`: `auto`, `cpu`, `cuda`, `tensorrt` or `openvino`; all but `auto` are kept to, or an error.
    `cuda:1` and `tensorrt:1` are the second GPU.
    `precision`: `auto` (fp32 where the bundle has it) or one that the bundle has.
    `threads`: CPU threads of a run; None for as many CPUs as this process may use.

    Every listed file is checked against the manifest first. Raises FileRefused for a bundle that is not whole
    and as it was exported, ProviderUnavailable where the device is not to be had, UsageError for an unknown
    device or precision.
    """
    count = thread_count(threads)
    manifest = read_manifest(path)
    specs = {graph: _choose(manifest, graph, precision) for graph in GRAPHS}
    name, gpu = parse_device(device)
    devices = candidates(name)
    needed = dict.fromkeys([manifest.tokenizer.file, *(spec.file for _, spec in specs.values())])
    verify_files(path, manifest, [name for name in manifest.files if name not in needed])
    data = {name: read_verified(path, manifest, name) for name in needed}
    tokenizer = _tokenizer(manifest, data[manifest.tokenizer.file])
    passed_over = []
    for chosen in devices:
        settings = Settings(chosen, count, gpu)
        try:
            graphs = {
                graph: Graph(data[spec.file], spec, name, settings) for graph, (name, spec) in specs.items()
            }
        except ProviderUnavailable as error:
            if chosen == devices[-1]:
                raise
            _log.warning("%s is passed over: %s", chosen, error)
            passed_over.append(str(error))
            continue
        _log.info("%s was asked for, %s is used with %s", device, chosen, graphs["generator"].providers)
        requested = {"device": device, "precision": precision, "threads": threads}
        return Model(Path(path), manifest, tokenizer, graphs, settings, requested, passed_over)
    raise ProviderUnavailable("the installed onnxruntime has no provider that galip-runtime can use")


def _choose(manifest: Manifest, graph: str, precision: str) -> tuple[str, GraphSpec]:
    """The precision of `graph` to use, and its spec; the text encoder may be there in fewer precisions."""
    specs = manifest.graphs[graph]
    offered = sorted(manifest.graphs["generator"])
    if precision not in ("auto", *offered):
        raise UsageError(
            f"the bundle has no precision {precision!r}; it has {', '.join(offered)}. Use 'auto' or one of "
            "these, or export the checkpoint again with the precision wanted"
        )
    for name in (precision, "fp32", *sorted(specs)):
        if name in specs:
            return name, specs[name]
    raise AssertionError("a manifest has a precision for each graph")


def _tokenizer(manifest: Manifest, data: bytes) -> Tokenizer:
    tokenizer = Tokenizer.from_bytes(data, manifest.tokenizer.context_length)
    if len(tokenizer.merges) != manifest.tokenizer.merges:
        raise FileRefused(
            f"{manifest.tokenizer.file} has {len(tokenizer.merges)} merges and the manifest says "
            f"{manifest.tokenizer.merges}: export the bundle again"
        )
    return tokenizer
