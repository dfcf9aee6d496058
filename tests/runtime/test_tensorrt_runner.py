"""TensorRT's runner: engines of a bundle.

CUDA and TensorRT are stand-ins that compute on the CPU and refuse what the real ones would (`fake_cuda`).
"""

import dataclasses
import gc
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import galip_runtime
import numpy as np
import onnxruntime
import pytest
from error_checks import expect_error
from fake_cuda import Cuda, Error, install, wait_for
from galip_runtime import FileRefused, ProviderUnavailable
from galip_runtime.backends import engines, tensorrt_runner
from galip_runtime.backends.engines import RECORD_VERSION, EngineRecord, Profile
from galip_runtime.backends.pixels import with_pixels
from galip_runtime.backends.tensorrt_runner import TensorrtRunner
from galip_runtime.bundle.manifest import TensorSpec, describe_file, read_manifest
from galip_runtime.hardware import Gpu

VERSION = "10.14.1"


class Context:
    def __init__(self, engine, cuda):
        self.engine, self.cuda, self.shapes, self.addresses, self.profile = engine, cuda, {}, {}, None

    def set_device_memory(self, address, size):
        assert size == self.engine.device_memory_size_v2 <= len(self.cuda.memory[address])

    def set_optimization_profile_async(self, number, stream):
        self.profile = number
        return True

    def set_input_shape(self, name, shape):
        low, _, high = self.engine.get_tensor_profile_shape(name, self.profile)
        self.shapes[name] = tuple(shape)
        return all(least <= size <= most for least, size, most in zip(low, shape, high, strict=True))

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        def work():
            session = self.engine.session
            inputs = {
                tensor.name: self.array(
                    tensor.name, self.shapes[tensor.name], "int64" if "int64" in tensor.type else "float32"
                )
                for tensor in session.get_inputs()
            }
            for tensor, result in zip(session.get_outputs(), session.run(None, inputs), strict=True):
                self.array(tensor.name, result.shape, result.dtype)[...] = result

        self.cuda.queue(work)
        return not self.engine.broken

    def array(self, name, shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = self.cuda.memory[self.addresses[name]]
        assert size <= len(memory)
        return np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)


class Engine:
    """An engine whose plan is the path of an ONNX graph."""

    device_memory_size_v2 = 64
    broken = False

    def __init__(self, plan, cuda, profiles):
        model = Path(plan.decode().removeprefix("plan:")).read_bytes()
        self.session = onnxruntime.InferenceSession(model)
        (output,) = self.session.get_outputs()
        if output.name == "image":
            image = TensorSpec("image", "float32", ("N", *output.shape[1:]))
            self.session = onnxruntime.InferenceSession(with_pixels(model, image))
        self.cuda, self.profiles, self.contexts = cuda, profiles, 0
        self.tensors = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, number):
        return self.tensors[number].name

    def _tensor(self, name):
        return next(tensor for tensor in self.tensors if tensor.name == name)

    def get_tensor_shape(self, name):
        return tuple(size if isinstance(size, int) else -1 for size in self._tensor(name).shape)

    def get_tensor_dtype(self, name):
        return self._tensor(name).type[len("tensor(") : -1].upper()

    def get_tensor_mode(self, name):
        return "OUTPUT" if name in {tensor.name for tensor in self.session.get_outputs()} else "INPUT"

    def get_tensor_profile_shape(self, name, number):
        profile, shape = self.profiles[number], self.get_tensor_shape(name)
        rest = shape[1:]
        return [
            (batch, *(size if size > 0 else free for size in rest))
            for batch, free in ((profile.min, 1), (profile.opt, 16), (profile.max, 77))
        ]

    def create_execution_context(self, strategy):
        assert strategy == "USER_MANAGED"
        self.contexts += 1
        return Context(self, self.cuda)


PROFILES = (Profile(1, 1, 1), Profile(1, 4, 4))


@pytest.fixture
def cuda(monkeypatch):
    """CUDA on a machine with a GPU, its driver and TensorRT."""
    cuda, trt = Cuda(), ModuleType("tensorrt")
    trt.__version__, trt.Builder, trt.engines = VERSION, object, []

    class Runtime:
        def __init__(self, logger):
            pass

        def deserialize_cuda_engine(self, plan):
            if not plan.startswith(b"plan:"):
                return None
            trt.engines.append(Engine(plan, cuda, PROFILES))
            return trt.engines[-1]

    def logger(severity):
        return severity

    logger.ERROR = 1
    trt.Runtime, trt.Logger = Runtime, logger
    trt.DataType = SimpleNamespace(FLOAT="FLOAT", INT64="INT64", UINT8="UINT8")
    trt.TensorIOMode = SimpleNamespace(OUTPUT="OUTPUT")
    trt.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="USER_MANAGED")
    install(monkeypatch, cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(tensorrt_runner, "has_tensorrt", lambda: True)
    monkeypatch.setattr(engines, "gpus", lambda: [Gpu("a GPU", "9.0", 2**30)])
    cuda.trt = trt
    return cuda


@pytest.fixture
def engined(bundle):
    """The stub bundle with an engine of each graph."""
    manifest = read_manifest(bundle)
    (bundle / "engines").mkdir()
    files = dict(manifest.files)
    for graph in ("text_encoder", "generator"):
        onnx = manifest.graphs[graph]["fp32"].file
        name = f"engines/{graph}.fp32.sm90"
        (bundle / f"{name}.plan").write_text(f"plan:{bundle / onnx}")
        files[f"{name}.plan"] = describe_file(bundle / f"{name}.plan")
        record = EngineRecord(
            format_version=RECORD_VERSION, graph=graph, precision="fp32", onnx_sha256=files[onnx].sha256,
            plan=f"{name}.plan", plan_sha256=files[f"{name}.plan"].sha256, package="tensorrt",
            package_version=VERSION, compute_capability="9.0", driver="13.0", profiles=PROFILES, flags=(),
            inspected="engine", layers={"fp32": 1}, weights={"fp32": 1},
        )  # fmt: skip
        (bundle / f"{name}.json").write_text(record.to_json())
        files[f"{name}.json"] = describe_file(bundle / f"{name}.json")
    (bundle / "manifest.json").write_text(dataclasses.replace(manifest, files=files).to_json())
    return bundle


def load(bundle, **options):
    return galip_runtime.load(bundle, device="tensorrt", precision="fp32", **options)


PROMPTS = [f"{number} red pans" for number in range(11)]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 8])
def test_pictures_are_those_of_the_cpu(cuda, engined, batch_size):
    model, expected = load(engined), galip_runtime.load(engined, device="cpu", precision="fp32")
    for _ in range(3):
        pictures = model.generate(PROMPTS, range(11), batch_size=batch_size)
        assert (pictures == expected.generate(PROMPTS, range(11), batch_size=batch_size)).all()
    info = model.info()
    assert (info["device"], info["providers"]["generator"]) == (
        "tensorrt",
        [f"TensorRT {VERSION} (tensorrt)"],
    )
    assert cuda.launches > 0


def test_a_shape_is_captured_in_its_second_run(cuda, engined):
    model = load(engined)
    generator = cuda.trt.engines[-1]
    noise, sentence = model.noise([1, 2, 3]), model.encode_text(["a", "b", "c"])
    launches = []
    for rows in (3, 2, 3, 2, 3, 2):
        model.decode(noise[:rows], sentence[:rows])
        launches.append(cuda.launches)
    assert launches == [0, 0, 1, 2, 3, 4]
    assert generator.contexts == 2


def test_only_the_shapes_used_last_stay_prepared(cuda, engined, monkeypatch):
    monkeypatch.setattr(TensorrtRunner, "_most_shapes", 2)
    model = load(engined)
    noise, sentence = model.noise([1, 2, 3, 4]), model.encode_text(["a", "b", "c", "d"])
    images = [model.decode(noise[:rows], sentence[:rows]) for rows in (1, 2, 3, 4, 1, 1, 4)]
    assert len(model._runners["generator"]._prepared) == 2
    assert all((image == images[3][: len(image)]).all() for image in images)


def test_the_profile_is_the_smallest_that_fits(cuda, engined, monkeypatch):
    model, choices = load(engined), []
    noise, sentence = model.noise(range(9)), model.encode_text(PROMPTS[:9])

    def choose(context, number, stream):
        choices.append((number, context))
        context.profile = number

    monkeypatch.setattr(Context, "set_optimization_profile_async", choose)
    for rows in (1, 2, 4, 9):  # nine are four, four and one
        model.decode(noise[:rows], sentence[:rows])
    assert [number for number, _ in choices] == [0, 1, 1]


def test_threads_can_share_a_model(cuda, engined):
    model = load(engined)
    expected = model.generate(PROMPTS, range(11))
    wrong = []

    def work(first):
        for _ in range(10):
            if not (model.generate(PROMPTS[first:], range(first, 11)) == expected[first:]).all():
                wrong.append(first)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_memory_is_freed(cuda, engined):
    model = load(engined)
    model.generate("a", [1, 2])
    assert len(cuda.memory) > 0
    assert cuda.streams == 1
    del model
    gc.collect()
    wait_for(lambda: cuda.streams == 0)
    assert len(cuda.memory) == 0


class TestErrors:
    def test_a_damaged_plan_is_never_loaded(self, cuda, engined):
        plan = engined / "engines/generator.fp32.sm90.plan"
        sha256 = describe_file(plan).sha256
        plan.write_bytes(plan.read_bytes()[:-1] + b"!")
        with expect_error(FileRefused, plan, sha256):
            load(engined)
        assert cuda.trt.engines == []

    @pytest.mark.parametrize(
        ("gpus", "values"), [([Gpu("older", "8.6", 1)], ["8.6", "9.0", "galip export"]), ([], ["GPU 0", 0])]
    )
    def test_another_gpu(self, cuda, engined, monkeypatch, gpus, values):
        monkeypatch.setattr(engines, "gpus", lambda: gpus)
        with expect_error(ProviderUnavailable, *values):
            load(engined)
        assert cuda.trt.engines == []

    def test_another_version(self, cuda, engined):
        cuda.trt.__version__ = "11.0.0"
        with expect_error(
            ProviderUnavailable, VERSION, "11.0.0", "galip export", "--trt --trt-batch 1,4 --out"
        ):
            load(engined)
        assert cuda.trt.engines == []

    def test_a_bundle_without_engines(self, cuda, bundle):
        with expect_error(ProviderUnavailable, "text_encoder", "fp32", "galip export"):
            load(bundle)

    def test_a_plan_that_tensorrt_rejects(self, cuda, engined, monkeypatch):
        monkeypatch.setattr(cuda.trt.Runtime, "deserialize_cuda_engine", lambda self, plan: None)
        with expect_error(ProviderUnavailable, f"tensorrt {VERSION}", "engines/text_encoder.fp32.sm90.plan"):
            load(engined)

    def test_a_failed_run(self, cuda, engined, monkeypatch):
        model = load(engined)
        monkeypatch.setattr(Engine, "broken", True)
        with expect_error(ProviderUnavailable, "tensorrt", "engines/text_encoder.fp32.sm90.plan"):
            model.generate("a", 1)

    def test_without_memory(self, cuda, engined):
        cuda.cudaMalloc = lambda size: (Error(2, "cudaErrorMemoryAllocation"), None)
        with expect_error(ProviderUnavailable, "cudaMalloc", "GPU 0", "cudaErrorMemoryAllocation"):
            load(engined)

    def test_without_cuda_bindings(self, cuda, engined, monkeypatch):
        monkeypatch.setitem(sys.modules, "cuda.bindings", None)
        with expect_error(ProviderUnavailable, "pip install", "cuda-bindings"):
            load(engined)
