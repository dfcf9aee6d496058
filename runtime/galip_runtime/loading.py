"""A bundle's folder to a model on a device. Nothing is parsed before it is verified."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from galip_runtime.arrays import shown
from galip_runtime.backends.cuda import Stream
from galip_runtime.backends.devices import (
    DEVICE_TABLE,
    Settings,
    available_devices,
    candidates,
    parse_device,
    runs_engines,
    supports,
    thread_count,
)
from galip_runtime.backends.engines import ENGINES, choose_engine, places_of
from galip_runtime.backends.factory import create_runner
from galip_runtime.backends.pixels import pixel_outputs
from galip_runtime.backends.runner import Engine, GraphFile, Runner
from galip_runtime.bundle.hash_cache import HashCache
from galip_runtime.bundle.manifest import (
    CONDITION,
    GRAPHS,
    Manifest,
    TensorSpec,
    check_files,
    file_signature,
    read_manifest,
    read_verified,
    verify_files,
)
from galip_runtime.bundle.onnx_file import OnnxFile
from galip_runtime.bundle.onnx_memory import memory_limit
from galip_runtime.cache import optional_cache
from galip_runtime.errors import FileRefused, ProviderUnavailable, UsageError
from galip_runtime.model import Model
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
    `cuda:1` and `tensorrt:1` are the second GPU. `auto` is the first of cuda, openvino and cpu that is
    installed, starts, and computes in the precision.
    `precision`: `auto` (fp32 where the bundle has it, for tensorrt fp16) or one that the bundle has.
    `threads`: CPU threads of a run; None for as many CPUs as this process may use.

    Every listed file is checked against the manifest first: its sha256, too, but for graphs in precisions
    that are not loaded, and for graphs that were verified before and have not changed since (`HashCache`).
    The graphs' weights are mapped from their files as they are needed: a file may be replaced by another
    while a model is loaded, as `galip export` does, but not be written to. What was verified, and what
    OpenVINO compiled, is kept under `GALIP_CACHE`, or galip's folder for caches.

    Raises FileRefused for a bundle that is not whole and as it was exported, ProviderUnavailable where the
    device is not to be had, UsageError for an unknown device or precision, and for a precision that the
    device does not compute in.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"a bundle's path is a text or a Path, not {shown(path)}")
    folder = Path(path).absolute()  # which is read again by a forked or other process, wherever it stands
    count = thread_count(threads)
    manifest = read_manifest(path)
    name, gpu = parse_device(device)
    chosen = {graph: _choose(manifest, graph, precision, name) for graph in GRAPHS}
    devices = candidates(name, chosen["generator"])
    check_files(path, manifest)
    engines = _engines(path, manifest, chosen, gpu) if name == "tensorrt" and runs_engines() else {}
    files, remember = _opened(folder, manifest, chosen, engines)
    tokenizer = _tokenizer(manifest, read_verified(path, manifest, manifest.tokenizer.file))
    passed_over = []
    for each in devices:
        row = DEVICE_TABLE[each]
        cache = optional_cache(each) if row.compiles else None
        try:
            stream = Stream(gpu) if row.on_stream else None
            settings = Settings(each, count, gpu, cache, stream)
            graphs = _start(manifest, files, settings)
        except ProviderUnavailable as error:
            if each == devices[-1]:
                raise
            _log.warning("%s is passed over: %s", each, error)
            passed_over.append(str(error))
            continue
        for opened in files.values():
            opened.check_unchanged()
        remember()
        _log.info("%s was asked for, %s is used with %s", device, each, graphs["generator"].providers)
        requested = {"device": device, "precision": precision, "threads": threads}
        return Model(Path(path), manifest, tokenizer, graphs, settings, requested, passed_over, folder)
    raise AssertionError("there is a device to try, or an error")


def _choose(manifest: Manifest, graph: str, precision: str, device: str) -> str:
    """The precision of `graph` to use; the text encoder may be there in fewer than the generator."""
    specs = manifest.graphs[graph]
    offered = sorted(manifest.graphs["generator"])
    if not isinstance(precision, str) or precision not in ("auto", *offered):
        raise UsageError(
            f"the bundle has no precision {shown(precision)}; it has {', '.join(offered)}. Use 'auto' or one "
            "of these, or export the checkpoint again with the precision wanted"
        )
    if precision in specs:
        return precision
    first = ("fp16", "fp32") if device == "tensorrt" else ("fp32", "w16a32")
    order = [name for name in (*first, *sorted(specs)) if name in specs]
    devices = available_devices() if device == "auto" else [device]
    return next((name for name in order if any(supports(name, each) for each in devices)), order[0])


def _opened(
    path: Path, manifest: Manifest, chosen: Mapping[str, str], engines: Mapping[str, Engine]
) -> tuple[dict[str, GraphFile], Callable[[], None]]:
    """The graphs' files, verified with all others that are used, and what keeps that they are.

    Graphs and plans are hashed only where that is not known of them; those not `chosen` are not.
    """
    specs = {graph: manifest.graphs[graph][precision] for graph, precision in chosen.items()}
    graphs = {spec.file for of_graph in manifest.graphs.values() for spec in of_graph.values()}
    large = {spec.file for spec in specs.values()} | {each.record.plan for each in engines.values()}
    small = {name for name in manifest.files if name not in graphs and not name.startswith(f"{ENGINES}/")}
    signatures = {name: file_signature(path / name) for name in large}
    verified = HashCache(optional_cache("verified"))
    unknown = [
        name for name in large if not verified.has(path / name, signatures[name], manifest.files[name].sha256)
    ]
    verify_files(path, manifest, {*small, *unknown})
    files, longest = {}, manifest.tokenizer.context_length
    limit = memory_limit(manifest.dimensions.image_height, manifest.dimensions.image_width)
    for graph, spec in specs.items():
        # where a link leads to: weights are sought beside the file itself
        file, sha256 = Path(os.path.realpath(path / spec.file)), manifest.files[spec.file].sha256
        onnx, engine = OnnxFile(file), engines.get(graph)
        inputs = {
            tensor.name: [size if isinstance(size, int) else longest for size in tensor.shape]
            for tensor in spec.inputs
        }
        onnx.check_memory(inputs, limit)
        files[graph] = GraphFile(
            file, sha256, spec, chosen[graph], onnx, signatures[spec.file], engine, longest
        )

    size, known = 512 + manifest.tokenizer.merges + 2, files["text_encoder"].onnx.table_size("tokens")
    if known < size:
        raise FileRefused(
            f"{files['text_encoder'].path} has {known} tokens in its table and the vocabulary {size}: export "
            "the bundle again"
        )

    def remember() -> None:
        for name in unknown:
            verified.add(path / name, signatures[name], manifest.files[name].sha256)

    return files, remember


def _engines(
    path: str | os.PathLike[str], manifest: Manifest, chosen: Mapping[str, str], gpu: int
) -> dict[str, Engine]:
    """The engine of each graph for this machine, not verified. Raises as `choose_engine` and `places_of`."""
    places = places_of(gpu)
    records = {
        graph: choose_engine(path, manifest, graph, precision, places) for graph, precision in chosen.items()
    }
    return {graph: Engine(Path(path) / record.plan, record) for graph, record in records.items()}


def _start(manifest: Manifest, files: Mapping[str, GraphFile], settings: Settings) -> dict[str, Runner]:
    """The graphs on a device, the generator in two: what the sentence alone decides goes into `CONDITION`."""
    text, generator = files["text_encoder"], files["generator"]
    graphs = {"text_encoder": create_runner(text, settings, text.spec.inputs, text.spec.outputs)}
    inputs, outputs = generator.spec.inputs, generator.spec.outputs
    if generator.engine is None and generator.onnx.computes(CONDITION):
        condition = TensorSpec(CONDITION, "float32", ("N", generator.onnx.width(CONDITION)))
        sentence = [tensor for tensor in inputs if tensor.name == "sentence"]
        graphs[CONDITION] = create_runner(generator, settings, sentence, [condition])
        inputs = tuple(condition if tensor.name == "sentence" else tensor for tensor in inputs)
    if settings.stream is not None:
        outputs = (*outputs, *pixel_outputs(outputs[0]))
    graphs["generator"] = create_runner(generator, settings, inputs, outputs)
    return graphs


def _tokenizer(manifest: Manifest, data: bytes) -> Tokenizer:
    tokenizer = Tokenizer.from_bytes(data, manifest.tokenizer.context_length)
    if len(tokenizer.merges) != manifest.tokenizer.merges:
        raise FileRefused(
            f"{manifest.tokenizer.file} has {len(tokenizer.merges)} merges and the manifest says "
            f"{manifest.tokenizer.merges}: export the bundle again"
        )
    return tokenizer
