"""Devices, precisions and threads: the device that was asked for, or an error that names what is missing."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import galip_runtime
import pytest
from error_checks import assert_names, expect_error, warnings_of
from galip_runtime import ProviderUnavailable, UsageError, hardware
from galip_runtime.backends import kernel_loading, libraries, openvino_runner, tensorrt_runner
from galip_runtime.backends.devices import available_devices, candidates, thread_count
from galip_runtime.backends.kernels import KernelsUnusable
from galip_runtime.backends.onnxruntime_openvino_runner import OnnxruntimeOpenvinoRunner
from galip_runtime.backends.runner import Runner
from galip_runtime.backends.tables import DEVICE_TABLE, DEVICES, PRECISIONS
from galip_runtime.install import requirements
from stub_bundle import make_stub_bundle

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}


@pytest.fixture
def built_with(monkeypatch):
    """Pretend that onnxruntime was built with these providers, but starts only the CPU's, without kernels."""

    def pretend(*names):
        monkeypatch.setenv("GALIP_KERNELS", "0")
        onnxruntime = libraries.import_onnxruntime()
        monkeypatch.setattr(
            onnxruntime, "get_available_providers", lambda: [PROVIDERS[name] for name in names]
        )
        original = onnxruntime.InferenceSession
        monkeypatch.setattr(tensorrt_runner, "has_tensorrt", lambda: False)
        monkeypatch.setattr(openvino_runner, "has_openvino", lambda: False)
        requests = []
        pretend.calls = []

        def fall_back(data, options, providers, enable_fallback):  # as onnxruntime does: no exception
            requests.append([name for name, _ in providers])
            pretend.calls.append((options, dict(providers)))
            assert not enable_fallback  # onnxruntime's own, which repeats a failed run on the CPU
            return original(data, options, providers=["CPUExecutionProvider"])

        monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)
        return requests

    return pretend


def test_cpu_is_cpu(model):
    info = model.info()
    assert info["requested"]["device"] == info["device"] == "cpu"
    assert info["providers"] == {"text_encoder": [PROVIDERS["cpu"]], "generator": [PROVIDERS["cpu"]]}


def test_info_has_the_choice_of_auto(bundle, built_with):
    built_with("cpu")
    info = galip_runtime.load(bundle).info()
    assert info["requested"]["device"] == "auto"
    assert info["device"] == "cpu"
    assert info["passed_over"] == []


@pytest.mark.parametrize("device", ["cuda", "tensorrt", "openvino"])
def test_a_device_the_build_lacks_is_refused(bundle, built_with, device):
    built_with("cpu")
    extras = [package for extra in DEVICE_TABLE[device].extras for package in requirements(extra)]
    with expect_error(ProviderUnavailable, device, PROVIDERS[device], *extras):
        galip_runtime.load(bundle, device=device)


def test_a_silent_fall_back_to_the_cpu_is_an_error(bundle, built_with):
    requests = built_with("openvino", "cpu")
    with expect_error(ProviderUnavailable, "openvino", PROVIDERS["cpu"]):
        galip_runtime.load(bundle, device="openvino")
    assert requests[0] == [PROVIDERS["openvino"], PROVIDERS["cpu"]]


def test_options_of_openvino_within_onnxruntime(shared_bundle, built_with, monkeypatch):
    built_with("openvino", "cpu")
    monkeypatch.setattr(openvino_runner, "has_cpu_features", lambda features: True)
    for precision in ("fp32", "bf16", "int8"):
        with expect_error(ProviderUnavailable, "openvino", PROVIDERS["cpu"]):
            galip_runtime.load(shared_bundle, device="openvino", precision=precision, threads=3)
    for options, providers in built_with.calls:
        config = json.loads(providers["OpenVINOExecutionProvider"]["load_config"])["CPU"]
        assert config["INFERENCE_PRECISION_HINT"] == "f32"  # the text encoder is the first graph
        assert (config["INFERENCE_NUM_THREADS"], config["NUM_STREAMS"]) == (3, 1)
        assert options.graph_optimization_level == options.graph_optimization_level.ORT_DISABLE_ALL


@pytest.mark.parametrize(
    ("bf16", "int8", "precisions"),
    [(True, True, {"bf16", "int8"}), (False, None, {"int8"}), (None, False, set())],
)
def test_precisions_of_openvino_within_onnxruntime(monkeypatch, bf16, int8, precisions):
    features = {hardware.BF16_FEATURES: bf16, hardware.INT8_FEATURES: int8}
    monkeypatch.setattr(openvino_runner, "has_openvino", lambda: False)
    monkeypatch.setattr(openvino_runner, "has_cpu_features", features.get)
    for name in PRECISIONS:
        able = OnnxruntimeOpenvinoRunner.computes_in(name)
        assert able == (name in {"fp32", "w16a32", "fp16", *precisions}), name
    hint = openvino_runner.openvino_settings("int8", 2)["INFERENCE_PRECISION_HINT"]
    assert hint == ("bf16" if bf16 else "f32")


def test_a_cpu_without_the_precision(shared_bundle, built_with, monkeypatch):
    built_with("openvino", "cpu")
    monkeypatch.setattr(openvino_runner, "has_cpu_features", lambda features: False)
    for precision in ("bf16", "int8"):
        with expect_error(ProviderUnavailable, precision, PRECISIONS[precision].cpu_needs):
            galip_runtime.load(shared_bundle, device="openvino", precision=precision)


def test_threads_reach_onnxruntime(bundle):
    for threads in (1, 2):
        runner = galip_runtime.load(bundle, device="cpu", threads=threads)._runners["generator"]
        assert runner._session.get_session_options().intra_op_num_threads == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone has it")
@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_a_process_on_one_cpu_uses_one_thread(bundle, device):
    code = f"""
import os, galip_runtime
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
print(galip_runtime.load({str(bundle)!r}, device={device!r}).info()["threads"])
"""
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert process.stdout == "1\n"


def test_auto_passes_over_devices_that_do_not_start(bundle, built_with, caplog):
    requests = built_with("tensorrt", "cuda", "openvino", "cpu")
    model = galip_runtime.load(bundle)
    assert model.info()["device"] == "cpu"
    cuda, openvino = model.info()["passed_over"]
    assert "cuda" in cuda
    assert_names(openvino, "openvino", PROVIDERS["cpu"])
    for device, reason, warning in zip(
        ("cuda", "openvino"), (cuda, openvino), warnings_of(caplog), strict=True
    ):
        assert_names(warning, device)
        assert reason in warning
    assert [names[0] for names in requests] == [PROVIDERS["openvino"], *[PROVIDERS["cpu"]] * 3]


def test_auto_leaves_out_tensorrt(built_with):
    """Its engines take minutes to build."""
    built_with("tensorrt", "cuda", "openvino", "cpu")
    assert candidates("auto", "fp32") == ["cuda", "openvino", "cpu"]
    assert candidates("tensorrt", "fp32") == ["tensorrt"]
    assert available_devices() == ["cuda", "openvino", "cpu", "tensorrt"]


def test_without_any_device(bundle, built_with):
    built_with()
    with expect_error(ProviderUnavailable, *requirements("cpu"), *requirements("openvino-native")):
        galip_runtime.load(bundle)


def test_a_failed_run(bundle, monkeypatch):
    model = galip_runtime.load(bundle, device="cpu")

    def fail(inputs):
        raise RuntimeError("no memory")

    monkeypatch.setattr(model._runners["text_encoder"], "_compute", fail)
    with expect_error(ProviderUnavailable, "cpu", "text_encoder.onnx", "no memory", "batch_size"):
        model.generate("red", 1)


@pytest.mark.parametrize(
    "device", ["gpu", "CPU", "", "cpu:0", "cuda:", "cuda:-1", "cuda:٣", "openvino:gpu", "coreml:1", None]
)
def test_an_unknown_device_is_refused(bundle, device):
    with expect_error(UsageError, *DEVICES) as info:
        galip_runtime.load(bundle, device=device)
    assert repr(device) in str(info.value)


@pytest.mark.parametrize("precision", ["fp16", "half", "", None])
def test_a_precision_the_bundle_lacks_is_refused(bundle, precision):
    with expect_error(UsageError, "fp32") as info:
        galip_runtime.load(bundle, device="cpu", precision=precision)
    assert repr(precision) in str(info.value)


def test_info_has_the_requested_precision(shared_bundle, tmp_path):
    if not openvino_runner.openvino_computes_in("int8"):
        pytest.skip("this CPU does not compute in int8")
    info = galip_runtime.load(shared_bundle, device="openvino", precision="int8").info()
    assert info["precision"] == {"text_encoder": "fp32", "generator": "int8"}
    assert info["precisions"] == ["bf16", "fp16", "fp32", "int8"]
    assert galip_runtime.load(shared_bundle, device="cpu").info()["precision"]["generator"] == "fp32"
    only_int8 = make_stub_bundle(tmp_path / "int8", precisions=["int8"])
    assert galip_runtime.load(only_int8).info()["precision"]["generator"] == "int8"
    with expect_error(UsageError, "int8", "cpu"):
        galip_runtime.load(only_int8, device="cpu")


class TestPrecisionsOfDevices:
    @pytest.mark.parametrize(
        ("device", "precision"),
        [
            ("cpu", "fp16"),
            ("openvino", "fp16"),
            ("cpu", "bf16"),
            ("cpu", "int8"),
            ("cuda", "bf16"),
            ("cuda", "int8"),
            ("tensorrt", "int8"),
        ],
    )
    def test_a_precision_the_device_lacks_is_refused(self, shared_bundle, device, precision):
        with expect_error(UsageError, precision, device):
            galip_runtime.load(shared_bundle, device=device, precision=precision)

    def test_auto_chooses_devices_with_the_precision(self, built_with):
        built_with("tensorrt", "cuda", "openvino", "cpu")
        assert candidates("auto", "fp16") == ["cuda"]
        assert candidates("auto", "bf16") == ["openvino"]
        assert candidates("auto", "int8") == ["openvino"]
        assert (
            candidates("auto", "w16a32") == candidates("auto", "a later one") == ["cuda", "openvino", "cpu"]
        )

    def test_auto_prefers_the_cpu_s_compiled_kernels_to_openvino(self, built_with, monkeypatch):
        built_with("cuda", "openvino", "cpu")
        monkeypatch.delenv("GALIP_KERNELS")
        monkeypatch.setattr(kernel_loading, "load_library", lambda: None)
        assert candidates("auto", "fp32") == candidates("auto", "w16a32") == ["cuda", "cpu", "openvino"]
        assert candidates("auto", "int8") == ["openvino"]

        def broken():
            raise KernelsUnusable("galip-kernels cannot be loaded")

        monkeypatch.setattr(kernel_loading, "load_library", broken)
        assert candidates("auto", "fp32") == ["cuda", "openvino", "cpu"]

    def test_without_a_device_for_the_precision(self, shared_bundle, built_with):
        built_with("cpu")
        with expect_error(ProviderUnavailable, "fp16", "cuda", *requirements("gpu")):
            galip_runtime.load(shared_bundle, precision="fp16")
        with expect_error(ProviderUnavailable, "bf16", "openvino", *requirements("openvino-native")):
            galip_runtime.load(shared_bundle, precision="bf16")

    def test_features_of_cpus(self, tmp_path):
        assert hardware.has_cpu_features(hardware.BF16_FEATURES, tmp_path) is None
        (tmp_path / "proc").mkdir()
        for flags, able in (("avx2 avx512f", False), ("avx2 avx512_bf16", True), ("amx_tile amx_bf16", True)):
            (tmp_path / "proc/cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
            assert hardware.has_cpu_features(hardware.BF16_FEATURES, tmp_path) is able
        for flags, able in (("avx2 avx512f", False), ("avx2 avx_vnni", True), ("avx512_vnni", True)):
            (tmp_path / "proc/cpuinfo").write_text(f"flags : {flags}\n")
            assert hardware.has_cpu_features(hardware.INT8_FEATURES, tmp_path) is able


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_invalid_numbers_of_threads_are_refused(bundle, threads):
    with expect_error(UsageError, "threads", repr(threads)):
        galip_runtime.load(bundle, threads=threads)


def test_the_default_is_one_thread_for_each_usable_cpu():
    assert thread_count(None) == hardware.usable_cpus() >= 1
    assert thread_count(3) == 3


@pytest.mark.parametrize("kind", ["missing", "remains"])
def test_without_onnxruntime_the_three_extras_are_named(bundle, tmp_path, kind):
    package = tmp_path / "onnxruntime"
    package.mkdir()
    if kind == "missing":
        (package / "__init__.py").write_text("raise ImportError('No module named onnxruntime')")
    else:  # as after one of two builds was uninstalled
        (package / "__init__.py").write_text("")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import galip_runtime, galip_runtime.backends.openvino_runner
galip_runtime.backends.openvino_runner.has_openvino = lambda: False
galip_runtime.load({str(bundle)!r})
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert process.returncode == 1
    last_line = process.stderr.strip().splitlines()[-1]
    assert last_line.startswith("galip_runtime.errors.ProviderUnavailable")
    assert_names(
        last_line, *(package for extra in ("cpu", "gpu", "openvino") for package in requirements(extra))
    )


class TestUsableCpus:
    @pytest.fixture
    def machine(self, tmp_path, monkeypatch):
        monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

        def write(groups, **files):
            (tmp_path / "proc/self").mkdir(parents=True)
            (tmp_path / "proc/self/cgroup").write_text(groups)
            for name, text in files.items():
                path = tmp_path / "sys/fs/cgroup" / name.replace("__", "/").replace("-", ".")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return tmp_path

        return write

    def test_all_cpus_that_the_scheduler_allows(self, machine, tmp_path):
        assert hardware.usable_cpus(tmp_path) == 8
        assert hardware.usable_cpus(machine("0::/\n")) == 8

    @pytest.mark.parametrize(
        ("quota", "count"),
        [
            ("max 100000", 8),
            ("200000 100000", 2),
            ("250000 100000", 2),
            ("50000 100000", 1),
            ("1600000 100000", 8),
            *[(broken, 8) for broken in ("", "x y", "100000 0")],
        ],
    )
    def test_a_quota_of_version_2(self, machine, quota, count):
        assert hardware.usable_cpus(machine("0::/\n", **{"cpu-max": quota})) == count

    def test_the_tightest_quota_of_nested_groups(self, machine):
        root = machine("0::/a/b\n", **{"a__b__cpu-max": "max 100000", "a__cpu-max": "300000 100000"})
        assert hardware.usable_cpus(root) == 3

    def test_a_group_outside_the_container(self, machine):
        assert hardware.usable_cpus(machine("0::/../../host/group\n", **{"cpu-max": "400000 100000"})) == 4

    def test_a_quota_of_version_1(self, machine):
        files = {"cpu__cpu-cfs_quota_us": "500000\n", "cpu__cpu-cfs_period_us": "100000\n"}
        assert hardware.usable_cpus(machine("3:cpu,cpuacct:/docker/x\n2:cpuset:/\n", **files)) == 5

    def test_version_1_without_a_quota(self, machine):
        files = {"cpu__cpu-cfs_quota_us": "-1\n", "cpu__cpu-cfs_period_us": "100000\n"}
        assert hardware.usable_cpus(machine("3:cpu:/\n", **files)) == 8


@pytest.mark.parametrize("setting", [None, "0"])
def test_telemetry_is_off_by_default(bundle, tmp_path, setting):
    """onnxruntime's telemetry and OpenVINO's would write files to the home and to temporary folders."""
    code = "import os, sys, galip_runtime as g; [g.load(sys.argv[1], device=device).generate('a', [1]) "
    code += "for device in ('cpu', 'openvino')]; "
    code += "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    variables = dict(os.environ)
    for name in ("CI", "ORT_DISABLE_TELEMETRY"):
        variables.pop(name, None)
    folder = tmp_path / "home"
    folder.mkdir()
    variables |= dict.fromkeys(("TMPDIR", "HOME", "XDG_CACHE_HOME"), str(folder))
    variables |= {"ORT_DISABLE_TELEMETRY": setting} if setting else {}
    call = [sys.executable, "-c", code, str(bundle)]
    process = subprocess.run(call, capture_output=True, text=True, timeout=60, env=variables, check=True)
    assert process.stdout.strip() == (setting or "1")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in files if not name.startswith("galip/openvino/")} == set() or setting


def test_the_tables_agree():
    ranks = [row.auto for row in DEVICE_TABLE.values() if row.auto is not None]
    assert sorted(ranks) == list(range(len(ranks)))
    for name, device in DEVICE_TABLE.items():
        assert set(device.precisions) <= set(PRECISIONS), name
        assert all(issubclass(runner, Runner) and runner.needs for runner in device.runners), name
    for name, precision in PRECISIONS.items():
        assert any(name in device.precisions for device in DEVICE_TABLE.values()), name
        assert bool(precision.cpu_features) == bool(precision.cpu_needs), name


def test_the_extras_exist():
    project = tomllib.loads((Path(__file__).parents[2] / "runtime/pyproject.toml").read_text())
    extras = set(project["project"]["optional-dependencies"])
    assert {extra for device in DEVICE_TABLE.values() for extra in device.extras} <= extras
