"""OpenVINO on Intel GPUs and NPUs. Both are stand-ins that compile for the CPU."""

import galip_runtime
import numpy as np
import pytest
from error_checks import expect_error
from galip_runtime import ProviderUnavailable, UsageError
from galip_runtime.backends import openvino_runner, openvino_target_runners, probe
from galip_runtime.install import requirements
from stub_bundle import make_stub_bundle

TARGETS = ("GPU", "NPU")
PROMPTS, SEEDS = ["red", "a big red pan", "a pan"], [1, 2, 3]


class Core:
    """OpenVINO's core on a machine with another device beside the CPU."""

    def __init__(self, core, target):
        self.core, self.target, self.compiled = core, target, []
        self.available_devices = ["CPU", f"{target}.0", f"{target}.1"]

    def get_property(self, device, name):
        assert device in ("CPU", self.target)
        value = self.core.get_property("CPU", name)
        return f"Intel {device}" if name == "FULL_DEVICE_NAME" else value

    def compile_model(self, model, device, properties):
        assert device == self.target
        assert not {"INFERENCE_NUM_THREADS", "ENABLE_CPU_PINNING"} & set(properties)  # the CPU's alone
        if device == "NPU":
            assert all(not size.is_dynamic for port in model.inputs for size in port.partial_shape)
        self.compiled.append((model, dict(properties)))
        return self.core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def import_model(self, tensor, device, properties):
        assert device == self.target
        return self.core.import_model(tensor, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.fixture(params=TARGETS)
def core(request, monkeypatch):
    """The core of a machine with the target."""
    core = Core(openvino_runner.openvino_core(), request.param)
    for module in (openvino_runner, openvino_target_runners):
        monkeypatch.setattr(module, "openvino_core", lambda: core)
    return core


@pytest.fixture
def half(tmp_path):
    """A bundle that also has fp16."""
    return make_stub_bundle(tmp_path / "half", precisions=("fp32", "fp16"), text_precisions=("fp32", "fp16"))


def load(core, bundle, **options):
    return galip_runtime.load(bundle, device=f"openvino:{core.target}", precision="fp16", **options)


def test_pictures_are_those_of_the_cpu(core, half):
    model, expected = load(core, half), galip_runtime.load(half, device="cpu").generate(PROMPTS, SEEDS)
    pictures = model.generate(PROMPTS, SEEDS)
    assert pictures.shape == expected.shape
    assert np.abs(pictures.astype(int) - expected).max() <= 1
    assert all(properties["INFERENCE_PRECISION_HINT"] == "f16" for _, properties in core.compiled)
    info = model.info()
    assert (info["device"], info["precision"]["generator"]) == (f"openvino:{core.target}", "fp16")


def test_one_picture_alone_and_in_a_batch(core, half):
    model = load(core, half)
    together = model.generate(PROMPTS, SEEDS)
    for row, (prompt, seed) in enumerate(zip(PROMPTS, SEEDS, strict=True)):
        assert np.abs(model.generate(prompt, seed)[0].astype(int) - together[row]).max() <= 1


def test_compiled_graphs_are_cached(core, half, tmp_path, monkeypatch):
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
    pictures = load(core, half).generate(PROMPTS, SEEDS)
    compiled = len(core.compiled)
    assert (load(core, half).generate(PROMPTS, SEEDS) == pictures).all()
    assert len(core.compiled) == compiled
    assert list((tmp_path / "cache/openvino").glob("*.blob"))


def test_the_probe_runs_on_the_target(core):
    assert probe.why_not(f"openvino:{core.target}") is None


def test_fp32_is_for_gpus_only(core, half):
    device = f"openvino:{core.target}"
    if core.target == "NPU":
        with expect_error(UsageError, "fp32", device):
            galip_runtime.load(half, device=device, precision="fp32")
        assert galip_runtime.load(half, device=device).info()["precision"]["generator"] == "fp16"
        return
    assert galip_runtime.load(half, device=device).info()["precision"]["generator"] == "fp32"
    assert all(properties["INFERENCE_PRECISION_HINT"] == "f32" for _, properties in core.compiled)


def test_a_text_encoder_in_fp32_only(core, tmp_path):
    bundle = make_stub_bundle(tmp_path / "fp32", precisions=("fp32", "fp16"))
    if core.target == "NPU":
        with expect_error(ProviderUnavailable, "text_encoder.onnx", "fp32", "--precision fp16"):
            load(core, bundle)
    else:
        assert load(core, bundle).info()["precision"] == {"text_encoder": "fp32", "generator": "fp16"}


@pytest.mark.parametrize("target", TARGETS)
def test_a_machine_without_the_target(half, target):
    with expect_error(ProviderUnavailable, target, f"openvino:{target}", "CPU"):
        galip_runtime.load(half, device=f"openvino:{target}", precision="fp16")


@pytest.mark.parametrize("target", TARGETS)
def test_without_openvino_the_package_is_named(half, target, monkeypatch):
    monkeypatch.setattr(openvino_runner, "has_openvino", lambda: False)
    with expect_error(ProviderUnavailable, f"openvino:{target}", *requirements("openvino-native")):
        galip_runtime.load(half, device=f"openvino:{target}", precision="fp16")
