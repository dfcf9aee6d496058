"""The peers: how each loads the generator.

A worker imports this in the peer's own environment, of which numpy is all that is taken for granted.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BASE", "PEERS", "Loaded", "Peer", "Task"]

BASE = "released-fp32"
"""The peer whose time is the unit."""

Floats = NDArray[np.float32]
Run = Callable[[Floats, Floats], Floats]
"""Noise (N, Z), sentence (N, D) → image (N, 3, H, W)."""


@dataclass(frozen=True)
class Task:
    """What a worker loads."""

    peer: str
    checkpoint: str
    bundle: str
    graphs: Mapping[str, str]
    """Files of the generator in fp32: `bundle`, galip's, and `plain`, without rewrites."""
    inputs: str
    """File of noise and sentences (`.npz`), of which the first `checked` are for comparing pictures."""
    checked: int
    image: str
    """File for the images of the last turn (`.npy`)."""
    threads: int
    folder: str
    """For files that the peer makes of the graph."""


@dataclass(frozen=True)
class Loaded:
    """A peer that is ready."""

    run: Run
    library: str
    """Name and version of what computes."""
    kernels: Mapping[str, Any] | None = None
    """What `info()` says of galip's compiled kernels where they compute."""


@dataclass(frozen=True)
class Peer:
    """A way to run the generator."""

    load: Callable[[Task], Loaded]
    """Raises any error if it cannot run here; its text is the reason."""
    environment: Mapping[str, str] = field(default_factory=dict)
    own_python: bool = False
    """Whether it is installed in the peers' environment, not in galip's."""


def _released(task: Task) -> Loaded:
    import torch
    from galip_bench.released_order import release_generator

    generator = _generator(task)
    release_generator(generator)
    return Loaded(_torch_run(generator), f"PyTorch {torch.__version__}")


def _compiled(task: Task) -> Loaded:
    import torch
    import torch._inductor.config

    torch._inductor.config.freezing = True
    generator = _generator(task)
    generator.compile()
    return Loaded(_torch_run(generator), f"PyTorch {torch.__version__}")


def _generator(task: Task) -> Any:
    import torch

    from galip.checkpoint import load_galip

    torch.set_num_threads(task.threads)
    return load_galip(Path(task.checkpoint)).generator


def _torch_run(generator: Any) -> Run:
    import torch

    def run(noise: Floats, sentence: Floats) -> Floats:
        with torch.no_grad():  # freezing takes no inference mode
            image: Floats = generator(torch.from_numpy(noise), torch.from_numpy(sentence)).numpy()
        return image

    return run


def _onnxruntime(task: Task) -> Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    session = onnxruntime.InferenceSession(task.graphs["plain"], options, ["CPUExecutionProvider"])

    def run(noise: Floats, sentence: Floats) -> Floats:
        image: Floats = session.run(["image"], {"noise": noise, "sentence": sentence})[0]
        return image

    return Loaded(run, f"onnxruntime {onnxruntime.__version__}")


def _openvino(task: Task) -> Loaded:
    import openvino

    # on a CPU that has bf16 it would take that by itself
    properties = {"INFERENCE_NUM_THREADS": task.threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(task.graphs["plain"], "CPU", properties).create_infer_request()

    def run(noise: Floats, sentence: Floats) -> Floats:
        image: Floats = request.infer({"noise": noise, "sentence": sentence})["image"]
        return image

    return Loaded(run, f"OpenVINO {importlib.metadata.version('openvino')}")


_MNNCONVERT = "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
"""The command mnnconvert, except that it also installs a package with pip and reports to MNN's makers."""


def _mnn(graph: str, task: Task) -> Loaded:
    import MNN.expr
    import MNN.nn

    model = Path(task.folder, "generator.mnn")
    files = ["--modelFile", task.graphs[graph], "--MNNModel", str(model)]
    _convert([sys.executable, "-c", _MNNCONVERT, "-f", "ONNX", *files, "--bizCode", "galip"], model)
    settings = {"backend": "CPU", "precision": "high", "numThread": task.threads}
    module = MNN.nn.load_module_from_file(
        str(model), ["noise", "sentence"], ["image"],
        runtime_manager=MNN.nn.create_runtime_manager((settings,)),
    )  # fmt: skip

    def run(noise: Floats, sentence: Floats) -> Floats:
        inputs = [
            MNN.expr.const(array, list(array.shape), MNN.expr.NCHW, MNN.expr.float)
            for array in (noise, sentence)
        ]
        image: Floats = np.array(MNN.expr.convert(module.forward(inputs)[0], MNN.expr.NCHW).read())
        return image

    return Loaded(run, f"MNN {importlib.metadata.version('MNN')}")


def _ncnn(graph: str, task: Task) -> Loaded:
    import ncnn

    if (found := importlib.util.find_spec("pnnx")) is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'pnnx'", name="pnnx")
    source = Path(task.folder, "generator.onnx")  # pnnx writes beside what it reads
    source.symlink_to(Path(task.graphs[graph]).resolve())
    with np.load(task.inputs) as inputs:
        shapes = ",".join(f"[1,{inputs[name].shape[1]}]" for name in ("noise", "sentence"))
    parameters, weights = Path(task.folder, "generator.param"), Path(task.folder, "generator.bin")
    unwanted = [f"{name}=/dev/null" for name in ("pnnxparam", "pnnxbin", "pnnxpy", "pnnxonnx", "ncnnpy")]
    _convert(
        [
            str(Path(found.origin).with_name("pnnx")), str(source), f"inputshape={shapes}", "fp16=0",
            f"ncnnparam={parameters}", f"ncnnbin={weights}", *unwanted,
        ],
        weights,
    )  # fmt: skip
    net = ncnn.Net()
    net.opt.num_threads = task.threads
    for narrow in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{narrow}", False)
    if net.load_param(str(parameters)) or net.load_model(str(weights)):
        raise RuntimeError("ncnn cannot load what pnnx made of the graph")

    def draw(noise: Floats, sentence: Floats) -> Floats:
        with net.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(noise))
            extractor.input("in1", ncnn.Mat(sentence))
            code, image = extractor.extract("out0")
            if code:
                raise RuntimeError(f"ncnn ends with code {code}")
            return np.array(image)

    def run(noise: Floats, sentence: Floats) -> Floats:
        return np.stack([draw(*row) for row in zip(noise, sentence, strict=True)])  # it has no batches

    return Loaded(run, f"ncnn {importlib.metadata.version('ncnn')}")


def _convert(command: list[str], result: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode or not result.exists():
        printed = (done.stderr + done.stdout).strip().splitlines()
        raise RuntimeError(f"the graph cannot be converted: {printed[-1] if printed else done.returncode}")


def _galip(device: str, precision: str, task: Task) -> Loaded:
    library = {"cpu": "onnxruntime", "openvino": "OpenVINO"}[device]
    version = importlib.metadata.version(library.lower())
    return Loaded(_bundle(device, precision, task).decode, f"{library} {version}")


def _kernels(target: str | None, task: Task) -> Loaded:
    """`target`: the instructions that the kernels have to use; None for any."""
    model = _bundle("cpu", "fp32", task)
    kernels = model.info()["kernels"]
    if kernels["target"] is None:
        raise RuntimeError(kernels["why"])
    if target not in (None, kernels["target"]):
        raise RuntimeError(f"the kernels use {kernels['target']} here, not {target}")
    return Loaded(model.decode, f"galip-kernels {kernels['version']}", kernels)


def _bundle(device: str, precision: str, task: Task) -> Any:
    import galip_runtime

    return galip_runtime.load(task.bundle, device=device, precision=precision, threads=task.threads)


PEERS: dict[str, Peer] = {
    BASE: Peer(_released),
    "compiled-fp32": Peer(_compiled),
    "plain-onnxruntime-fp32": Peer(_onnxruntime),
    "plain-openvino-fp32": Peer(_openvino),
    "plain-mnn-fp32": Peer(functools.partial(_mnn, "plain"), own_python=True),
    "plain-ncnn-fp32": Peer(functools.partial(_ncnn, "plain"), own_python=True),
    "bundle-mnn-fp32": Peer(functools.partial(_mnn, "bundle"), own_python=True),
    "bundle-ncnn-fp32": Peer(functools.partial(_ncnn, "bundle"), own_python=True),
    "bundle-cpu-fp32": Peer(functools.partial(_kernels, None)),
    "bundle-cpu-avx2-fp32": Peer(functools.partial(_kernels, "AVX2"), {"GALIP_KERNELS_TARGET": "AVX2"}),
    "nokernels-cpu-fp32": Peer(functools.partial(_galip, "cpu", "fp32"), {"GALIP_KERNELS": "0"}),
    "bundle-openvino-fp32": Peer(functools.partial(_galip, "openvino", "fp32")),
    "bundle-openvino-bf16": Peer(functools.partial(_galip, "openvino", "bf16")),
    "bundle-openvino-int8": Peer(functools.partial(_galip, "openvino", "int8")),
}
"""All of them, in the order of the tables."""
