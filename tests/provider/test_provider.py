"""onnxruntime's own CUDA provider, on a stub of CUDA, on machines without a GPU.

What is shown: that it takes our options, runs every node, captures each shape once and for all, allocates
nothing afterwards, and gives back no more than the pictures. What is not: any number that it computes.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import onnx
import pytest
from galip_export import export_bundle
from galip_runtime.bundle.manifest import read_manifest
from stub_bundle import relist
from stub_libraries import build

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parents[1] / ".venv-provider"
"""that has onnxruntime-gpu; `make test` sets it up"""
PYTHON = ENVIRONMENT / "bin/python"
PRECISIONS = ["fp32", "w16a32", "fp16"]


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    if not (ENVIRONMENT / ".ready").exists():
        pytest.skip(f"there is no {ENVIRONMENT} with onnxruntime-gpu; make test sets it up on Linux")
    if missing := [tool for tool in ("cc", "nm") if shutil.which(tool) is None]:
        pytest.skip(f"{' and '.join(missing)} is needed to build a stub of CUDA")
    code = "import onnxruntime; print(onnxruntime.__path__[0])"
    done = subprocess.run([PYTHON, "-c", code], check=True, capture_output=True, text=True)
    package = Path(done.stdout.strip())
    out = tmp_path_factory.mktemp("cuda") / "libraries"
    build(package / "capi/libonnxruntime_providers_cuda.so", package.parent / "nvidia/cu13/include", out)
    return out


@pytest.fixture(scope="session")
def exported(tiny_checkpoint, traced_graphs, tmp_path_factory):
    return export_bundle(
        tiny_checkpoint, tmp_path_factory.mktemp("bundle") / "b", precisions=PRECISIONS
    ).bundle


@pytest.fixture
def call(libraries, tmp_path):
    """`call(bundle, precision)`: what `program` printed, and what was asked of CUDA, by its marks."""

    def run(bundle, precision, calls=2000, program=HERE / "run_bundle.py"):
        log = tmp_path / "log"
        environment = {
            "PATH": os.environ["PATH"],
            "LD_LIBRARY_PATH": str(libraries),
            "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parents[1] / "runtime"))),
            "GALIP_CUDA_LOG": str(log),
            "GALIP_CACHE": str(tmp_path / "cache"),
        }
        command = [PYTHON, program, bundle, precision, str(calls)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        parts = re.split(r"^== (.+)\n", log.read_text() if log.exists() else "", flags=re.MULTILINE)
        return json.loads(done.stdout), dict(zip(parts[1::2], map(str.splitlines, parts[2::2]), strict=True))

    return run


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_bundle(call, exported, precision):
    report, asked = call(exported, precision)
    assert list(report["nodes"]) == ["CUDAExecutionProvider"]  # every node of every graph
    assert report["nodes"]["CUDAExecutionProvider"] > 300
    dimensions = read_manifest(exported).dimensions
    picture = dimensions.image_height * dimensions.image_width * 3
    for size in (1, 2, 4, 8, 16, 32, 64):
        first = asked[f"first {size}"]
        # of `draw`, of `decode`, and of the text encoder except for 32 prompts, which were the first of all
        assert first.count("cudaStreamBeginCapture") == (2 if size == 32 else 3)
        captured = [line for line in first if line.startswith("captured ")]
        assert {line.split()[1] for line in captured} <= {"cudaMemcpyAsync"}
        assert {line.split()[-1] for line in captured} <= {"3"}  # from GPU to GPU
        *to_device, launch, pixels, check, wait = asked[f"again {size}"]
        assert all(re.fullmatch(r"cudaMemcpyAsync \d+ 1", line) for line in to_device)
        assert len(to_device) == 2
        assert (launch, wait) == ("cudaGraphLaunch", "cudaStreamSynchronize")
        assert (pixels, check) == (f"cudaMemcpyAsync {size * picture} 2", f"cudaMemcpyAsync {size * 4} 2")
    kinds = {line.split()[0] for line in asked["mixed"]}
    assert kinds == {"cudaMemcpyAsync", "cudaGraphLaunch", "cudaStreamSynchronize"}  # no memory, no capture


def test_a_node_that_it_does_not_run_is_named(call, exported, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(exported, bundle)
    model = onnx.load(bundle / "text_encoder.onnx")
    (argmax,) = [node for node in model.graph.node if node.op_type == "ArgMax"]
    argmax.input[0] = "tokens"
    onnx.save(model, bundle / "text_encoder.onnx")
    relist(bundle, "text_encoder.onnx")
    report, _ = call(bundle, "fp32")
    assert re.search(
        rf"cuda cannot load text_encoder\.onnx: .* {argmax.name} \(ArgMax\).* on the CPU", report["refused"]
    )


def test_an_option_that_it_does_not_know(call, exported, tmp_path):
    """The stub would be of no use if anything went."""
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import sys, run_bundle\n"
        "run_bundle.onnxruntime_gpu_runner.cuda_options = lambda *_: {'no_such_option': '1'}\n"
        "run_bundle.main(sys.argv[1], sys.argv[2], 0)\n"
    )
    report, _ = call(exported, "fp32", program=broken)
    assert "no_such_option" in report["refused"]
