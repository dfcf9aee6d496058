"""CoreML and DirectML. Both providers are stand-ins that compute on the CPU."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import galip_runtime
import onnxruntime
import pytest
from error_checks import expect_error
from galip_runtime import ProviderUnavailable, UsageError
from galip_runtime.backends import openvino_runner, probe, tensorrt_runner
from galip_runtime.backends.tables import DEVICE_TABLE
from galip_runtime.install import requirements

PROVIDERS = {"coreml": "CoreMLExecutionProvider", "directml": "DmlExecutionProvider"}
CONFLICT = "nodes are assigned to the CPU, but fallback to it has been disabled"
"""onnxruntime's own words"""
ORIGINAL = onnxruntime.InferenceSession


class Session(ORIGINAL):
    """A session of a provider that leaves the operators in `on_the_cpu` to the CPU, as onnxruntime would."""

    on_the_cpu = ()
    starts = True
    sessions: list

    def __init__(self, model, options, providers, enable_fallback):
        assert not enable_fallback
        self.requested, self.settings = dict(providers), options
        self.strict = "CPUExecutionProvider" not in self.requested
        setting = options.get_session_config_entry("session.disable_cpu_ep_fallback") if self.strict else "0"
        assert setting == str(int(self.strict))
        if self.strict and (self.on_the_cpu or not self.starts):
            raise RuntimeError(CONFLICT)
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
        super().__init__(model, options, providers=["CPUExecutionProvider"])
        self.sessions.append(self)
        self.running = 0

    def get_providers(self):
        own = [*self.requested] if self.starts else []
        return own if "CPUExecutionProvider" in own else [*own, "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self):
        nodes = [node for part in super().get_provider_graph_assignment_info() for node in part.get_nodes()]
        on_the_cpu = [node for node in nodes if node.op_type in self.on_the_cpu]
        return [SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: on_the_cpu)]

    def run(self, names, inputs):
        self.running += 1
        assert self.running == 1 or "DmlExecutionProvider" not in self.requested
        threading.Event().wait(0.001)
        result = super().run(names, inputs)
        self.running -= 1
        return result


@pytest.fixture
def expected(bundle):
    """Pictures of the CPU."""
    return galip_runtime.load(bundle, device="cpu").generate(["red", "a pan"], [1, 2])


@pytest.fixture
def session(monkeypatch, expected):
    """The class of sessions of an onnxruntime with both providers."""
    monkeypatch.setattr(openvino_runner, "has_openvino", lambda: False)
    monkeypatch.setattr(tensorrt_runner, "has_tensorrt", lambda: False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*PROVIDERS.values()])
    kind = type("Session", (Session,), {"sessions": []})
    monkeypatch.setattr(onnxruntime, "InferenceSession", kind)
    return kind


@pytest.mark.parametrize("device", PROVIDERS)
def test_pictures_are_those_of_the_cpu(session, bundle, expected, device):
    model = galip_runtime.load(bundle, device=device)
    assert (model.generate(["red", "a pan"], [1, 2]) == expected).all()
    info = model.info()
    assert info["device"] == device
    assert info["providers"]["generator"][0] == PROVIDERS[device]
    assert "nodes_on_cpu" not in info
    assert "fallback" not in info["requested"]


@pytest.mark.parametrize("device", PROVIDERS)
def test_a_node_on_the_cpu_is_named(session, bundle, device):
    session.on_the_cpu = ("Gather",)
    with expect_error(ProviderUnavailable, device, "Gather", PROVIDERS[device], "fallback=True", "cpu"):
        galip_runtime.load(bundle, device=device)


@pytest.mark.parametrize("device", PROVIDERS)
def test_with_fallback_info_lists_the_nodes_on_the_cpu(session, bundle, expected, device):
    session.on_the_cpu = ("Gather",)
    model = galip_runtime.load(bundle, device=device, fallback=True)
    assert (model.generate(["red", "a pan"], [1, 2]) == expected).all()
    nodes = model.info()["nodes_on_cpu"]
    assert set(nodes) >= {"text_encoder", "generator"}
    assert all(name.endswith("(Gather)") for name in nodes["text_encoder"])
    assert nodes["text_encoder"]
    assert model.info()["requested"]["fallback"] is True


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("device", PROVIDERS)
def test_a_provider_that_does_not_start_is_an_error(session, bundle, device, fallback):
    session.starts = False
    with expect_error(ProviderUnavailable, device, "CPUExecutionProvider"):
        galip_runtime.load(bundle, device=device, fallback=fallback)


@pytest.mark.parametrize("device", ["auto", *(name for name, row in DEVICE_TABLE.items() if not row.partial)])
def test_fallback_on_other_devices_is_refused(bundle, device):
    with expect_error(UsageError, "fallback", "coreml", "directml", device):
        galip_runtime.load(bundle, device=device, fallback=True)


def test_directml_runs_one_request_at_a_time(session, bundle, expected):
    model = galip_runtime.load(bundle, device="directml:1")
    assert session.sessions[0].requested == {"DmlExecutionProvider": {"device_id": "1"}}
    for one in session.sessions:
        assert not one.settings.enable_mem_pattern
        assert one.settings.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda _: model.generate(["red", "a pan"], [1, 2]), range(16)))
    assert all((several == expected).all() for several in pictures)


def test_coreml_compiles_ml_programs(session, bundle):
    galip_runtime.load(bundle, device="coreml")
    options = [one.requested["CoreMLExecutionProvider"] for one in session.sessions]
    assert {option["ModelFormat"] for option in options} == {"MLProgram"}


def test_the_probe_runs_on_both(session):
    assert [probe.why_not(device) for device in PROVIDERS] == [None, None]


@pytest.mark.parametrize("device", PROVIDERS)
def test_without_the_provider_the_package_is_named(bundle, device):
    extras = [package for extra in DEVICE_TABLE[device].extras for package in requirements(extra)]
    with expect_error(ProviderUnavailable, device, PROVIDERS[device], *extras):
        galip_runtime.load(bundle, device=device)


def test_a_release_of_onnxruntime_that_cannot_list_nodes(session, bundle, monkeypatch):
    session.on_the_cpu = ("Gather",)
    monkeypatch.setattr("galip_runtime.backends.assignment.hasattr", lambda *_: False, raising=False)
    with expect_error(ProviderUnavailable, "coreml", "text_encoder.onnx", CONFLICT):
        galip_runtime.load(bundle, device="coreml")
    model = galip_runtime.load(bundle, device="coreml", fallback=True)
    assert not any(model.info()["nodes_on_cpu"].values())
