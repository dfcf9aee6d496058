"""Records of TensorRT's engines: which plan may run where, and what to do where none may."""

import dataclasses
import shlex
import sys
from types import ModuleType

import pytest
from galip_runtime import FileRefused, ProviderUnavailable
from galip_runtime.backends import engines
from galip_runtime.backends.engines import (
    RECORD_VERSION,
    EngineRecord,
    EngineTarget,
    Profile,
    choose_engine,
    engine_targets,
    import_tensorrt,
    read_records,
)
from galip_runtime.bundle.manifest import describe_file, read_manifest, read_verified
from galip_runtime.hardware import Gpu
from hypothesis import given
from hypothesis import strategies as st

HERE = EngineTarget("tensorrt", "10.14.1", "9.0")


def record_of(bundle, **changes):
    """The record of an engine of the bundle's generator for `HERE`, but for `changes`."""
    manifest = read_manifest(bundle)
    onnx = manifest.files[manifest.graphs["generator"]["fp32"].file]
    right = EngineRecord(
        format_version=RECORD_VERSION, graph="generator", precision="fp32", onnx_sha256=onnx.sha256,
        plan="engines/generator.fp32.sm90.plan", plan_sha256="", package=HERE.package,
        package_version=HERE.package_version, compute_capability=HERE.compute_capability, driver="13.0",
        profiles=(Profile(1, 1, 1), Profile(1, 4, 4)), flags=(), inspected="engine", layers={"fp32": 12},
        weights={"fp32": 4096},
    )  # fmt: skip
    return dataclasses.replace(right, **changes)


def put(bundle, record, plan=b"a plan"):
    """An engine into the bundle, listed."""
    manifest = read_manifest(bundle)
    (bundle / "engines").mkdir(exist_ok=True)
    (bundle / record.plan).write_bytes(plan)
    entry = describe_file(bundle / record.plan)
    record = dataclasses.replace(record, plan_sha256=entry.sha256)
    name = record.plan.replace(".plan", ".json")
    (bundle / name).write_text(record.to_json())
    files = {**manifest.files, record.plan: entry, name: describe_file(bundle / name)}
    (bundle / "manifest.json").write_text(dataclasses.replace(manifest, files=files).to_json())


def choose(bundle, place=HERE):
    return choose_engine(bundle, read_manifest(bundle), "generator", "fp32", [place])


def test_the_one_that_runs_here(bundle):
    other = record_of(bundle, plan="engines/generator.fp32.sm86.plan", compute_capability="8.6")
    put(bundle, other, b"another plan")
    put(bundle, record_of(bundle))
    assert choose(bundle).plan == "engines/generator.fp32.sm90.plan"
    assert len(read_records(bundle, read_manifest(bundle))) == 2


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"compute_capability": "8.6"}, r"is for GPUs of compute capability 8\.6, and this one has 9\.0"),
        ({"package": "tensorrt_rtx"}, "was built by tensorrt_rtx, and tensorrt is installed"),
        ({"package_version": "10.13.0"}, r"was built by tensorrt 10\.13\.0, and 10\.14\.1 is installed"),
        ({"package_version": "11.0.0", "flags": ("version_compatible",)}, r"11\.0\.0, and 10\.14\.1"),
        ({"onnx_sha256": "0" * 64}, "was built from another graph than the bundle has"),
        ({"precision": "fp16"}, "the bundle has no engine of the generator in fp32"),
    ],
)
def test_one_that_does_not_is_an_error_with_the_command(bundle, changes, why):
    put(bundle, record_of(bundle, **changes))
    with pytest.raises(ProviderUnavailable, match=why) as error:
        choose(bundle)
    assert error.value.exit_code == 5
    folder = shlex.quote(str(bundle))
    asked = "" if "precision" in changes else " --trt-batch 1,4"
    asked += " --trt-compatible" * ("flags" in changes)
    assert str(error.value).endswith(
        f"Build it here: galip export {folder} --trt{asked} --out {folder} --overwrite"
    )


def test_either_package_s_engine_is_found(bundle):
    put(bundle, record_of(bundle, package="tensorrt_rtx", package_version="1.7"))
    manifest, rtx = read_manifest(bundle), EngineTarget("tensorrt_rtx", "1.7", "9.0")
    assert choose_engine(bundle, manifest, "generator", "fp32", [HERE, rtx]).package == "tensorrt_rtx"
    with pytest.raises(ProviderUnavailable, match=r"by tensorrt_rtx 1\.7, and 1\.6 is installed"):
        choose_engine(
            bundle, manifest, "generator", "fp32", [HERE, EngineTarget("tensorrt_rtx", "1.6", "9.0")]
        )


def test_a_precision_that_engines_are_not_built_in(shared_bundle):
    with pytest.raises(ProviderUnavailable, match="engines are in fp16, not in fp32: use precision 'auto'"):
        choose_engine(shared_bundle, read_manifest(shared_bundle), "generator", "fp32", [HERE])


@pytest.mark.parametrize(
    "profiles", [(), (Profile(1, 0, 1),), (Profile(1, 4, 2),), (Profile(-5, 1, 1),), (Profile(1, 1, 10**9),)]
)
def test_profiles_that_are_none_are_refused(bundle, profiles):
    put(bundle, record_of(bundle, profiles=profiles))
    with pytest.raises(FileRefused, match="impossible profiles"):
        choose(bundle)


def test_a_later_version_runs_a_compatible_plan(bundle):
    put(bundle, record_of(bundle, package_version="10.2.0", flags=("refit", "version_compatible")))
    assert choose(bundle).package_version == "10.2.0"


@pytest.mark.parametrize("spoil", [lambda data: data[:-1] + b"!", lambda data: data[:3], lambda data: b""])
@pytest.mark.parametrize("ending", ["plan", "json"])
def test_altered_or_cut_short_is_refused(bundle, spoil, ending):
    put(bundle, record_of(bundle))
    path = bundle / f"engines/generator.fp32.sm90.{ending}"
    path.write_bytes(spoil(path.read_bytes()))
    name = path.relative_to(bundle).as_posix()
    with pytest.raises(FileRefused, match=rf"sm90\.{ending}"):
        read_verified(bundle, read_manifest(bundle), name)
    if ending == "json":
        with pytest.raises(FileRefused, match=r"sm90\.json"):
            choose(bundle)


def test_a_record_of_another_plan_is_refused(bundle):
    put(bundle, record_of(bundle))
    put(bundle, record_of(bundle, plan="engines/b.plan"), b"another")
    (bundle / "engines/b.json").write_bytes((bundle / "engines/generator.fp32.sm90.json").read_bytes())
    manifest = read_manifest(bundle)
    files = {**manifest.files, "engines/b.json": describe_file(bundle / "engines/b.json")}
    del files["engines/generator.fp32.sm90.plan"]
    (bundle / "manifest.json").write_text(dataclasses.replace(manifest, files=files).to_json())
    with pytest.raises(FileRefused, match="is not the record of"):
        choose(bundle)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format_version": 2}', '{"format_version": 1}', '{"format_version": 2.0}', "null",
     "NaN", "[" * 10**5, '{"format_version": 1e999}', '{"a":' * 900 + "1" + "}" * 900],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_what_is_no_record_is_refused(text):
    with pytest.raises(FileRefused):
        EngineRecord.from_json(text)


WHOLE = st.integers(-(2**63), 2**64 - 1)


@given(
    st.builds(
        EngineRecord,
        format_version=st.just(RECORD_VERSION),
        profiles=st.lists(st.builds(Profile, WHOLE, WHOLE, WHOLE), max_size=3).map(tuple),
        flags=st.lists(st.text(), max_size=3).map(tuple),
        layers=st.dictionaries(st.text(), WHOLE, max_size=3),
        weights=st.dictionaries(st.text(), WHOLE, max_size=3),
    )
)
def test_records_survive_json(record):
    assert EngineRecord.from_json(record.to_json()) == record


class Test_where_it_runs:
    @pytest.fixture
    def packages(self, monkeypatch):
        """Installs only these, by their names to import them by; a placeholder where the version is None."""
        for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
            monkeypatch.setitem(sys.modules, name, None)

        def install(**versions):
            for name, version in versions.items():
                module = ModuleType(name)
                if version:
                    module.__version__, module.Builder = version, object
                monkeypatch.setitem(sys.modules, name, module)

        return install

    def test_which_package(self, packages):
        with pytest.raises(ProviderUnavailable, match=r"TensorRT is not installed.*galip-runtime\[trt\]"):
            import_tensorrt()
        packages(tensorrt=None)
        with pytest.raises(ProviderUnavailable, match="tensorrt is a placeholder"):
            import_tensorrt()
        packages(tensorrt_rtx_bindings="1.7.1")
        assert import_tensorrt()[0] == "tensorrt_rtx"
        packages(tensorrt="11.0.0")
        assert import_tensorrt()[0] == "tensorrt"
        assert import_tensorrt("tensorrt_rtx")[1].__version__ == "1.7.1"

    def test_place(self, packages, monkeypatch):
        packages(tensorrt="10.14.1")
        monkeypatch.setattr(engines, "gpus", lambda: [Gpu("H200", "9.0", 10**11), Gpu("A10", "8.6", 10**10)])
        assert engine_targets() == [HERE]
        assert engine_targets(1)[0].compute_capability == "8.6"
        with pytest.raises(ProviderUnavailable, match="there is no GPU 2; this machine has 2"):
            engine_targets(2)

        def none():
            raise OSError("libcuda.so.1: cannot open shared object file")

        monkeypatch.setattr(engines, "gpus", none)
        with pytest.raises(ProviderUnavailable, match=r"no NVIDIA GPU to run engines on: libcuda\.so\.1"):
            engine_targets()
