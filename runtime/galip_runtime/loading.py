"""`load`: a bundle's folder becomes a model on a device. Nothing is parsed before it is verified."""

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from galip_runtime.arrays import short_repr
from galip_runtime.backends.cuda import Stream
from galip_runtime.backends.devices import (
    available_devices,
    candidates,
    check_fallback,
    check_precision,
    create_runner,
    parse_device,
    runs_engines,
    thread_count,
)
from galip_runtime.backends.engines import ENGINES, choose_engine, engine_targets
from galip_runtime.backends.pixels import pixel_outputs
from galip_runtime.backends.runner import Engine, GraphFile, Runner, Settings
from galip_runtime.backends.tables import DEVICE_TABLE, supports
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
from galip_runtime.shipped import EXPORT, REPAIR, advice, default_bundle
from galip_runtime.tokenizer import Tokenizer

__all__ = ["choose_precision", "load"]

_log = logging.getLogger("galip_runtime")


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    fallback: bool = False,
) -> Model:
    """Load the bundle in the folder `path`; None for the shipped model's, which comes with the runtime.

    `device`: `auto`, or a device of the README's table. `auto` takes the first of cuda, openvino and cpu that
    is installed, starts, and computes in the precision; cpu comes before openvino where galip-kernels
    computes in it. Any other is that device or an error. `cuda:1`, `tensorrt:1` and `directml:1` are the
    second GPU.
    `precision`: `auto` (fp32 where the bundle has it, for tensorrt fp16) or one that the bundle has.
    `threads`: CPU threads of one run; None for as many CPUs as this process may use.
    `fallback`: on coreml and directml, let the CPU run the nodes that the device cannot; `Model.info` lists
    them. Otherwise such a node is an error.

    Every listed file is checked against the manifest first, including its sha256, except graphs in other
    precisions and graphs that were verified before and have not changed since (`HashCache`). Weights are
    mapped from the graph's file as they are needed: while a model is loaded, the file may be replaced by
    another, as `galip export` does, but not be written to. Records of what was verified, and what OpenVINO
    compiled, are stored under `GALIP_CACHE`, by default galip's folder in the user's cache.

    Raises FileRefused for a bundle that is not whole and as it was exported and for a shipped one that is not
    installed, ProviderUnavailable where the device is not available, UsageError for an unknown device or
    precision, for a precision that the device does not compute in, and for `fallback` on a device that has
    none.
    """
    if path is None:
        bundle = default_bundle()
        with advice(FileRefused, REPAIR):
            return _load(bundle, EXPORT, device, precision, threads, fallback)
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"a bundle's path is a str or a Path, not {short_repr(path)}")
    return _load(Path(path), None, device, precision, threads, fallback)


def _load(
    path: Path, other_precisions: str | None, device: str, precision: str, threads: int | None, fallback: bool
) -> Model:
    """Load a bundle as `load` does. `other_precisions`: how to have it in a precision that it lacks."""
    folder = path.absolute()
    count = thread_count(threads)
    manifest = read_manifest(path)
    name, gpu = parse_device(device)
    check_fallback(fallback, name)
    with advice(UsageError, other_precisions) if other_precisions else nullcontext():
        precisions = {graph: choose_precision(manifest, graph, precision, name) for graph in GRAPHS}
        devices = candidates(name, precisions["generator"])
    check_files(path, manifest)
    engines = _engines(path, manifest, precisions, gpu) if name != "auto" and runs_engines(name) else {}
    files, remember = _opened(folder, manifest, precisions, engines)
    tokenizer = _tokenizer(manifest, read_verified(path, manifest, manifest.tokenizer.file))
    passed_over = []
    for candidate in devices:
        row = DEVICE_TABLE[candidate]
        cache = optional_cache(row.cache) if row.cache else None
        try:
            stream = Stream(gpu) if row.on_stream else None
            settings = Settings(candidate, count, gpu, cache, stream, fallback)
            runners = _start(manifest, files, settings)
        except ProviderUnavailable as error:
            if candidate == devices[-1]:
                raise
            _log.warning("%s is passed over: %s", candidate, error)
            passed_over.append(str(error))
            continue
        if candidate == "cpu" and devices[-1] == "openvino" and not runners["generator"].kernels["target"]:
            devices.append("cpu")  # which is slower than OpenVINO without galip-kernels
            continue
        for file in files.values():
            file.check_unchanged()
        remember()
        _log.info("%s was requested, %s runs with %s", device, candidate, runners["generator"].providers)
        requested = {"device": device, "precision": precision, "threads": threads}
        if fallback:
            requested["fallback"] = True
        return Model(path, manifest, tokenizer, runners, settings, requested, _reload, passed_over)
    raise AssertionError("there is a device to try, or an error")


def _reload(folder: str, manifest: str, requested: Mapping[str, Any]) -> Model:
    """Load a copy of a model. Raises as `load`, and FileRefused where `folder` holds another bundle."""
    model = load(folder, **requested)
    if model.manifest.to_json() != manifest:
        raise FileRefused(f"{folder} holds another bundle than the model was loaded from: load it again")
    return model


def choose_precision(manifest: Manifest, graph: str, precision: str, device: str) -> str:
    """Return the precision of `graph` to use; the text encoder may have fewer than the generator.

    Raises UsageError for one that the bundle does not have.
    """
    specs = manifest.graphs[graph]
    offered = sorted(manifest.graphs["generator"])
    if not isinstance(precision, str) or precision not in ("auto", *offered):
        raise UsageError(
            f"the bundle has no precision {short_repr(precision)}; it has {', '.join(offered)}. "
            "Use 'auto' or one of these, or export the checkpoint again with the precision you need"
        )
    if precision in specs:
        return precision
    preferred = ("fp32", "w16a32") if device == "auto" else DEVICE_TABLE[device].precisions
    order = [name for name in (*preferred, *sorted(specs)) if name in specs]
    devices = available_devices() if device == "auto" else [device]
    return next((name for name in order if any(supports(name, one) for one in devices)), order[0])


def _opened(
    path: Path, manifest: Manifest, precisions: Mapping[str, str], engines: Mapping[str, Engine]
) -> tuple[dict[str, GraphFile], Callable[[], None]]:
    """Return the graphs' files, verified with all others in use, and a function that records that they are.

    Graphs and plans are hashed unless the record says that they were; graphs in other precisions never are.
    """
    specs = {graph: manifest.graphs[graph][precision] for graph, precision in precisions.items()}
    graphs = {spec.file for by_precision in manifest.graphs.values() for spec in by_precision.values()}
    large = {spec.file for spec in specs.values()} | {engine.record.plan for engine in engines.values()}
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
        # a link's target: weights are looked up beside the file itself
        file, sha256 = Path(os.path.realpath(path / spec.file)), manifest.files[spec.file].sha256
        onnx, engine = OnnxFile(file), engines.get(graph)
        inputs = {
            tensor.name: [size if isinstance(size, int) else longest for size in tensor.shape]
            for tensor in spec.inputs
        }
        onnx.check_memory(inputs, limit)
        files[graph] = GraphFile(
            file, sha256, spec, precisions[graph], onnx, signatures[spec.file], engine, longest
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
    path: str | os.PathLike[str], manifest: Manifest, precisions: Mapping[str, str], gpu: int
) -> dict[str, Engine]:
    """Return each graph's engine, not yet verified. Raises as `choose_engine` and `engine_targets`."""
    places = engine_targets(gpu)
    records = {
        graph: choose_engine(path, manifest, graph, precision, places)
        for graph, precision in precisions.items()
    }
    return {graph: Engine(Path(path) / record.plan, record) for graph, record in records.items()}


def _start(manifest: Manifest, files: Mapping[str, GraphFile], settings: Settings) -> dict[str, Runner]:
    """Start the graphs' runners, the generator as two: `CONDITION` is what depends on the sentence alone."""
    for file in files.values():
        check_precision(file.precision, settings.device)
    text, generator = files["text_encoder"], files["generator"]
    runners = {"text_encoder": create_runner(text, settings, text.spec.inputs, text.spec.outputs)}
    inputs, outputs = generator.spec.inputs, generator.spec.outputs
    if generator.engine is None and generator.onnx.computes(CONDITION):
        condition = TensorSpec(CONDITION, "float32", ("N", generator.onnx.width(CONDITION)))
        sentence = [tensor for tensor in inputs if tensor.name == "sentence"]
        runners[CONDITION] = create_runner(generator, settings, sentence, [condition])
        inputs = tuple(condition if tensor.name == "sentence" else tensor for tensor in inputs)
    if settings.stream is not None:
        outputs = (*outputs, *pixel_outputs(outputs[0]))
    runners["generator"] = create_runner(generator, settings, inputs, outputs)
    return runners


def _tokenizer(manifest: Manifest, data: bytes) -> Tokenizer:
    tokenizer = Tokenizer.from_bytes(data, manifest.tokenizer.context_length)
    if len(tokenizer.merges) != manifest.tokenizer.merges:
        raise FileRefused(
            f"{manifest.tokenizer.file} has {len(tokenizer.merges)} merges and the manifest says "
            f"{manifest.tokenizer.merges}: export the bundle again"
        )
    return tokenizer
