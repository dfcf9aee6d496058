"""CoreML and DirectML. Neither runs here: their providers are stand-ins that compute on the CPU."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import galip_runtime
import onnxruntime
import pytest
from galip_runtime import ProviderUnavailable, UsageError
from galip_runtime.backends import openvino_runner, probe, tensorrt_runner
from galip_runtime.backends.tables import DEVICE_TABLE

PROVIDERS = {"coreml": "CoreMLExecutionProvider", "directml": "DmlExecutionProvider"}
REAL = onnxruntime.InferenceSession


class Session(REAL):
    """A session of a provider that leaves the operators in `left` to the CPU, as onnxruntime would."""

    left = ()
    starts = True
    opened: list

    def __init__(self, model, options, providers, enable_fallback):
        assert not enable_fallback
        self.asked, self.settings = dict(providers), options
        self.strict = "CPUExecutionProvider" not in self.asked
        setting = options.get_session_config_entry("session.disable_cpu_ep_fallback") if self.strict else "0"
        assert setting == str(int(self.strict))
        if self.strict and (self.left or not self.starts):
            raise RuntimeError("nodes are assigned to the CPU, but fallback to it has been disabled")
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
        super().__init__(model, options, providers=["CPUExecutionProvider"])
        self.opened.append(self)
        self.running = 0

    def get_providers(self):
        return [*(self.asked if self.starts else []), *(["CPUExecutionProvider"] if self.strict else [])] or [
            "CPUExecutionProvider"
        ]

    def get_provider_graph_assignment_info(self):
        nodes = [node for part in super().get_provider_graph_assignment_info() for node in part.get_nodes()]
        left = [node for node in nodes if node.op_type in self.left]
        return [SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: left)]

    def run(self, names, inputs):
        self.running += 1
        assert self.running == 1 or "DmlExecutionProvider" not in self.asked
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
    """An onnxruntime that has both providers; the class of its sessions."""
    monkeypatch.setattr(openvino_runner, "has_openvino", lambda: False)
    monkeypatch.setattr(tensorrt_runner, "has_tensorrt", lambda: False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*PROVIDERS.values()])
    kind = type("Session", (Session,), {"opened": []})
    monkeypatch.setattr(onnxruntime, "InferenceSession", kind)
    return kind


@pytest.mark.parametrize("device", PROVIDERS)
def test_pictures(session, bundle, expected, device):
    model = galip_runtime.load(bundle, device=device)
    assert (model.generate(["red", "a pan"], [1, 2]) == expected).all()
    info = model.info()
    assert info["device"] == device
    assert info["providers"]["generator"][0] == PROVIDERS[device]
    assert "nodes_on_cpu" not in info
    assert "fallback" not in info["requested"]


@pytest.mark.parametrize("device", PROVIDERS)
def test_a_node_that_it_cannot_run_is_named(session, bundle, device):
    session.left = ("Gather",)
    with pytest.raises(ProviderUnavailable) as refusal:
        galip_runtime.load(bundle, device=device)
    assert "(Gather)" in str(refusal.value)
    assert PROVIDERS[device] in str(refusal.value)


@pytest.mark.parametrize("device", PROVIDERS)
def test_with_fallback_the_cpu_runs_it_and_info_says_so(session, bundle, expected, device):
    session.left = ("Gather",)
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
    with pytest.raises(ProviderUnavailable, match=device):
        galip_runtime.load(bundle, device=device, fallback=fallback)


@pytest.mark.parametrize("device", ["auto", *(name for name, row in DEVICE_TABLE.items() if not row.partial)])
def test_fallback_elsewhere_is_refused(bundle, device):
    with pytest.raises(UsageError, match=f"(?s)coreml and directml.*{device}"):
        galip_runtime.load(bundle, device=device, fallback=True)


def test_directml_runs_one_thing_at_a_time(session, bundle, expected):
    model = galip_runtime.load(bundle, device="directml:1")
    assert session.opened[0].asked == {"DmlExecutionProvider": {"device_id": "1"}}
    for opened in session.opened:
        assert not opened.settings.enable_mem_pattern
        assert opened.settings.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda _: model.generate(["red", "a pan"], [1, 2]), range(16)))
    assert all((several == expected).all() for several in pictures)


def test_coreml_is_an_ml_program(session, bundle):
    galip_runtime.load(bundle, device="coreml")
    assert {opened.asked["CoreMLExecutionProvider"]["ModelFormat"] for opened in session.opened} == {
        "MLProgram"
    }


def test_the_probe_runs_on_them(session):
    assert [probe.why_not(device) for device in PROVIDERS] == [None, None]


@pytest.mark.parametrize("device", PROVIDERS)
def test_without_them_the_package_is_named(bundle, device):
    with pytest.raises(ProviderUnavailable) as refusal:
        galip_runtime.load(bundle, device=device)
    assert PROVIDERS[device] in str(refusal.value)
    assert DEVICE_TABLE[device].install in str(refusal.value)


def test_a_release_that_cannot_list_nodes(session, bundle, monkeypatch):
    session.left = ("Gather",)
    monkeypatch.setattr("galip_runtime.backends.assignment.hasattr", lambda *_: False, raising=False)
    with pytest.raises(ProviderUnavailable, match="assigned to the CPU"):
        galip_runtime.load(bundle, device="coreml")
    model = galip_runtime.load(bundle, device="coreml", fallback=True)
    assert not any(model.info()["nodes_on_cpu"].values())
