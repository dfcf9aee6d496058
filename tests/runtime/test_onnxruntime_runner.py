"""The device that was asked for, or an error that says what to do."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import galip_runtime
import pytest
from galip_runtime import ProviderUnavailable, UsageError, hardware
from galip_runtime.backends import libraries, openvino_runner, tensorrt_runner
from galip_runtime.backends.devices import available_devices, candidates, thread_count
from galip_runtime.backends.onnxruntime_openvino_runner import OnnxruntimeOpenvinoRunner
from galip_runtime.backends.runner import Runner
from galip_runtime.backends.tables import DEVICE_TABLE, DEVICES, PRECISIONS
from stub_bundle import make_stub_bundle

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}


@pytest.fixture
def built_with(monkeypatch):
    """Pretend that onnxruntime was built with these providers, of which only the CPU's starts."""

    def pretend(*names):
        onnxruntime = libraries.import_onnxruntime()
        monkeypatch.setattr(
            onnxruntime, "get_available_providers", lambda: [PROVIDERS[name] for name in names]
        )
        real = onnxruntime.InferenceSession
        monkeypatch.setattr(tensorrt_runner, "has_tensorrt", lambda: False)
        monkeypatch.setattr(openvino_runner, "has_openvino", lambda: False)
        asked = []
        pretend.told = []

        def fall_back(data, options, providers, enable_fallback):  # as onnxruntime does: no exception
            asked.append([name for name, _ in providers])
            pretend.told.append((options, dict(providers)))
            assert not enable_fallback  # of a run that fails
            return real(data, options, providers=["CPUExecutionProvider"])

        monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)
        return asked

    return pretend


def test_cpu_is_cpu(model):
    info = model.info()
    assert info["requested"]["device"] == info["device"] == "cpu"
    assert info["providers"] == {"text_encoder": [PROVIDERS["cpu"]], "generator": [PROVIDERS["cpu"]]}


def test_auto_says_what_it_chose(bundle, built_with):
    built_with("cpu")
    info = galip_runtime.load(bundle).info()
    assert info["requested"]["device"] == "auto"
    assert info["device"] == "cpu"
    assert info["passed_over"] == []


@pytest.mark.parametrize("device", ["cuda", "tensorrt", "openvino"])
def test_a_device_the_build_lacks_is_refused(bundle, built_with, device):
    built_with("cpu")
    with pytest.raises(ProviderUnavailable) as refusal:
        galip_runtime.load(bundle, device=device)
    assert PROVIDERS[device] in str(refusal.value)
    assert DEVICE_TABLE[device].install in str(refusal.value)
    assert refusal.value.exit_code == 5


def test_a_silent_fall_back_to_the_cpu_is_an_error(bundle, built_with):
    asked = built_with("openvino", "cpu")
    with pytest.raises(ProviderUnavailable, match=f"{PROVIDERS['cpu']}"):
        galip_runtime.load(bundle, device="openvino")
    assert asked[0] == [PROVIDERS["openvino"], PROVIDERS["cpu"]]


def test_openvino_through_onnxruntime_is_told_all(shared_bundle, built_with, monkeypatch):
    built_with("openvino", "cpu")
    monkeypatch.setattr(openvino_runner, "has_cpu_features", lambda features: True)
    for precision in ("fp32", "bf16", "int8"):
        with pytest.raises(ProviderUnavailable, match=PROVIDERS["cpu"]):
            galip_runtime.load(shared_bundle, device="openvino", precision=precision, threads=3)
    for options, providers in built_with.told:
        given = json.loads(providers["OpenVINOExecutionProvider"]["load_config"])["CPU"]
        assert given["INFERENCE_PRECISION_HINT"] == "f32"  # the text encoder is the first graph
        assert (given["INFERENCE_NUM_THREADS"], given["NUM_STREAMS"]) == (3, 1)
        assert options.graph_optimization_level == options.graph_optimization_level.ORT_DISABLE_ALL


@pytest.mark.parametrize(
    ("bf16", "int8", "precisions"),
    [(True, True, {"bf16", "int8"}), (False, None, {"int8"}), (None, False, set())],
)
def test_what_openvino_in_onnxruntime_computes_in(monkeypatch, bf16, int8, precisions):
    features = {hardware.BF16_FEATURES: bf16, hardware.INT8_FEATURES: int8}
    monkeypatch.setattr(openvino_runner, "has_openvino", lambda: False)
    monkeypatch.setattr(openvino_runner, "has_cpu_features", features.get)
    for name in PRECISIONS:
        able = OnnxruntimeOpenvinoRunner.computes_in(name)
        assert able == (name in {"fp32", "w16a32", "fp16", *precisions}), name
    hint = openvino_runner.openvino_settings("int8", 2)["INFERENCE_PRECISION_HINT"]
    assert hint == ("bf16" if bf16 else "f32")


def test_a_cpu_that_lacks_the_precision(shared_bundle, built_with, monkeypatch):
    built_with("openvino", "cpu")
    monkeypatch.setattr(openvino_runner, "has_cpu_features", lambda features: False)
    for precision in ("bf16", "int8"):
        with pytest.raises(ProviderUnavailable, match=PRECISIONS[precision].cpu_needs):
            galip_runtime.load(shared_bundle, device="openvino", precision=precision)


def test_threads_reach_onnxruntime(bundle):
    for threads in (1, 2):
        graph = galip_runtime.load(bundle, device="cpu", threads=threads)._runners["generator"]
        assert graph._session.get_session_options().intra_op_num_threads == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone has it")
@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_a_process_on_one_cpu_uses_one_thread(bundle, device):
    code = f"""
import os, galip_runtime
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
print(galip_runtime.load({str(bundle)!r}, device={device!r}).info()["threads"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "1\n"


def test_auto_passes_over_what_does_not_start_and_says_so(bundle, built_with, caplog):
    asked = built_with("tensorrt", "cuda", "openvino", "cpu")
    model = galip_runtime.load(bundle)
    assert model.info()["device"] == "cpu"
    cuda, openvino = model.info()["passed_over"]
    assert "cuda" in cuda
    assert PROVIDERS["cpu"] in openvino
    assert "cuda" in caplog.text
    assert [names[0] for names in asked] == [PROVIDERS["openvino"], *[PROVIDERS["cpu"]] * 3]


def test_auto_does_not_choose_what_builds_for_minutes(built_with):
    built_with("tensorrt", "cuda", "openvino", "cpu")
    assert candidates("auto", "fp32") == ["cuda", "openvino", "cpu"]
    assert candidates("tensorrt", "fp32") == ["tensorrt"]
    assert available_devices() == ["cuda", "openvino", "cpu", "tensorrt"]


def test_nothing_to_run_on_is_an_error(bundle, built_with):
    built_with()
    with pytest.raises(ProviderUnavailable, match=re.escape("galip-runtime[cpu]")):
        galip_runtime.load(bundle)


def test_a_run_that_fails_says_what_may_help(bundle, monkeypatch):
    model = galip_runtime.load(bundle, device="cpu")

    def fail(inputs):
        raise RuntimeError("no memory")

    monkeypatch.setattr(model._runners["text_encoder"], "_compute", fail)
    with pytest.raises(ProviderUnavailable, match=r"text_encoder\.onnx.*no memory"):
        model.generate("red", 1)


@pytest.mark.parametrize(
    "device", ["gpu", "CPU", "", "cpu:0", "cuda:", "cuda:-1", "cuda:٣", "openvino:gpu", "coreml:1", None]
)
def test_an_unknown_device_is_refused(bundle, device):
    with pytest.raises(UsageError) as refusal:
        galip_runtime.load(bundle, device=device)
    assert all(name in str(refusal.value) for name in DEVICES)


@pytest.mark.parametrize("precision", ["fp16", "half", "", None])
def test_a_precision_the_bundle_lacks_is_refused(bundle, precision):
    with pytest.raises(UsageError, match="fp32"):
        galip_runtime.load(bundle, device="cpu", precision=precision)


def test_precision_is_what_was_asked_for(shared_bundle, tmp_path):
    if not openvino_runner.openvino_computes_in("int8"):
        pytest.skip("this CPU does not compute in int8")
    info = galip_runtime.load(shared_bundle, device="openvino", precision="int8").info()
    assert info["precision"] == {"text_encoder": "fp32", "generator": "int8"}
    assert info["precisions"] == ["bf16", "fp16", "fp32", "int8"]
    assert galip_runtime.load(shared_bundle, device="cpu").info()["precision"]["generator"] == "fp32"
    only_int8 = make_stub_bundle(tmp_path / "int8", precisions=["int8"])
    assert galip_runtime.load(only_int8).info()["precision"]["generator"] == "int8"
    with pytest.raises(UsageError, match=r"int8.*cpu"):
        galip_runtime.load(only_int8, device="cpu")


class Test_precisions_and_devices:
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
    def test_that_make_no_sense_together(self, shared_bundle, device, precision):
        with pytest.raises(UsageError, match=f"{precision}.*{device}"):
            galip_runtime.load(shared_bundle, device=device, precision=precision)

    def test_auto_takes_only_what_computes_in_the_precision(self, built_with):
        built_with("tensorrt", "cuda", "openvino", "cpu")
        assert candidates("auto", "fp16") == ["cuda"]
        assert candidates("auto", "bf16") == ["openvino"]
        assert candidates("auto", "int8") == ["openvino"]
        assert (
            candidates("auto", "w16a32") == candidates("auto", "a later one") == ["cuda", "openvino", "cpu"]
        )

    def test_nothing_that_computes_in_the_precision(self, shared_bundle, built_with):
        built_with("cpu")
        with pytest.raises(ProviderUnavailable, match=r"galip-runtime\[gpu\]"):
            galip_runtime.load(shared_bundle, precision="fp16")
        with pytest.raises(ProviderUnavailable, match=r"galip-runtime\[openvino-native\]"):
            galip_runtime.load(shared_bundle, precision="bf16")

    def test_a_cpu_without_bf16(self, tmp_path):
        assert hardware.has_cpu_features(hardware.BF16_FEATURES, tmp_path) is None
        (tmp_path / "proc").mkdir()
        for flags, able in (("avx2 avx512f", False), ("avx2 avx512_bf16", True), ("amx_tile amx_bf16", True)):
            (tmp_path / "proc/cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
            assert hardware.has_cpu_features(hardware.BF16_FEATURES, tmp_path) is able
        for flags, able in (("avx2 avx512f", False), ("avx2 avx_vnni", True), ("avx512_vnni", True)):
            (tmp_path / "proc/cpuinfo").write_text(f"flags : {flags}\n")
            assert hardware.has_cpu_features(hardware.INT8_FEATURES, tmp_path) is able


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_threads_that_are_none_are_refused(bundle, threads):
    with pytest.raises(UsageError, match="threads"):
        galip_runtime.load(bundle, threads=threads)


def test_threads_by_default_are_the_cpus_that_may_be_used():
    assert thread_count(None) == hardware.usable_cpus() >= 1
    assert thread_count(3) == 3


@pytest.mark.parametrize("kind", ["missing", "remains"])
def test_without_onnxruntime_the_three_extras_are_named(bundle, tmp_path, kind):
    package = tmp_path / "onnxruntime"
    package.mkdir()
    if kind == "missing":
        (package / "__init__.py").write_text("raise ImportError('No module named onnxruntime')")
    else:  # what is left when one of two builds is uninstalled
        (package / "__init__.py").write_text("")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import galip_runtime, galip_runtime.backends.openvino_runner
galip_runtime.backends.openvino_runner.has_openvino = lambda: False
galip_runtime.load({str(bundle)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("galip_runtime.errors.ProviderUnavailable")
    for extra in ("cpu", "gpu", "openvino"):
        assert f"'galip-runtime[{extra}]'" in last


class Test_usable_cpus:
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

    def test_all_that_the_scheduler_allows(self, machine, tmp_path):
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

    def test_the_tightest_of_the_groups_around(self, machine):
        root = machine("0::/a/b\n", **{"a__b__cpu-max": "max 100000", "a__cpu-max": "300000 100000"})
        assert hardware.usable_cpus(root) == 3

    def test_a_group_that_only_the_host_sees(self, machine):
        assert hardware.usable_cpus(machine("0::/../../host/group\n", **{"cpu-max": "400000 100000"})) == 4

    def test_a_quota_of_version_1(self, machine):
        files = {"cpu__cpu-cfs_quota_us": "500000\n", "cpu__cpu-cfs_period_us": "100000\n"}
        assert hardware.usable_cpus(machine("3:cpu,cpuacct:/docker/x\n2:cpuset:/\n", **files)) == 5

    def test_no_quota_of_version_1(self, machine):
        files = {"cpu__cpu-cfs_quota_us": "-1\n", "cpu__cpu-cfs_period_us": "100000\n"}
        assert hardware.usable_cpus(machine("3:cpu:/\n", **files)) == 8


@pytest.mark.parametrize("asked", [None, "0"])
def test_nothing_is_reported_to_anyone_unless_asked_for(bundle, tmp_path, asked):
    """onnxruntime's telemetry and OpenVINO's keep files in the folders of the home and temporary files."""
    code = "import os, sys, galip_runtime as g; [g.load(sys.argv[1], device=device).generate('a', [1]) "
    code += "for device in ('cpu', 'openvino')]; "
    code += "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    there = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    folder = tmp_path / "home"
    folder.mkdir()
    there |= dict.fromkeys(("TMPDIR", "HOME", "XDG_CACHE_HOME"), str(folder))
    there |= {"ORT_DISABLE_TELEMETRY": asked} if asked else {}
    call = [sys.executable, "-c", code, str(bundle)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, env=there, check=True)
    assert done.stdout.strip() == (asked or "1")
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith("galip/openvino/")} == set() or asked


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
