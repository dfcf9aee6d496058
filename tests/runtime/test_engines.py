"""Records of TensorRT's engines: which plan runs where, and the error with the command that builds one."""

import dataclasses
import shlex
import sys
from types import ModuleType

import pytest
from error_checks import assert_names, expect_error
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
from galip_runtime.install import requirements
from hypothesis import given
from hypothesis import strategies as st

HERE = EngineTarget("tensorrt", "10.14.1", "9.0")


def record_of(bundle, **changes):
    """Return the record of an engine of the bundle's generator for `HERE`, with `changes`."""
    manifest = read_manifest(bundle)
    onnx = manifest.files[manifest.graphs["generator"]["fp32"].file]
    record = EngineRecord(
        format_version=RECORD_VERSION, graph="generator", precision="fp32", onnx_sha256=onnx.sha256,
        plan="engines/generator.fp32.sm90.plan", plan_sha256="", package=HERE.package,
        package_version=HERE.package_version, compute_capability=HERE.compute_capability, driver="13.0",
        profiles=(Profile(1, 1, 1), Profile(1, 4, 4)), flags=(), inspected="engine", layers={"fp32": 12},
        weights={"fp32": 4096},
    )  # fmt: skip
    return dataclasses.replace(record, **changes)


def add_engine(bundle, record, plan=b"a plan"):
    """Write an engine into the bundle and list it."""
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


def test_the_engine_that_runs_here(bundle):
    other = record_of(bundle, plan="engines/generator.fp32.sm86.plan", compute_capability="8.6")
    add_engine(bundle, other, b"another plan")
    add_engine(bundle, record_of(bundle))
    assert choose(bundle).plan == "engines/generator.fp32.sm90.plan"
    assert len(read_records(bundle, read_manifest(bundle))) == 2


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"compute_capability": "8.6"}, ["8.6", "9.0"]),
        ({"package": "tensorrt_rtx"}, ["tensorrt_rtx", "tensorrt"]),
        ({"package_version": "10.13.0"}, ["tensorrt", "10.13.0", "10.14.1"]),
        ({"package_version": "11.0.0", "flags": ("version_compatible",)}, ["11.0.0", "10.14.1"]),
        ({"onnx_sha256": "0" * 64}, ["engines/generator.fp32.sm90.plan"]),
        ({"precision": "fp16"}, ["generator", "fp32"]),
    ],
)
def test_an_engine_for_elsewhere_is_an_error_with_the_command(bundle, changes, values):
    add_engine(bundle, record_of(bundle, **changes))
    folder = shlex.quote(str(bundle))
    options = "" if "precision" in changes else " --trt-batch 1,4"
    options += " --trt-compatible" * ("flags" in changes)
    command = f"galip export {folder} --trt{options} --out {folder} --overwrite"
    with expect_error(ProviderUnavailable, command) as info:
        choose(bundle)
    assert_names(str(info.value).replace(command, ""), *values)
    versions = {"8.6", "9.0", "10.13.0", "11.0.0", "10.14.1"}  # no reason but the one at hand is given
    assert not [value for value in versions - set(values) if value in str(info.value)]


def test_engines_of_both_packages(bundle):
    add_engine(bundle, record_of(bundle, package="tensorrt_rtx", package_version="1.7"))
    manifest, rtx = read_manifest(bundle), EngineTarget("tensorrt_rtx", "1.7", "9.0")
    assert choose_engine(bundle, manifest, "generator", "fp32", [HERE, rtx]).package == "tensorrt_rtx"
    with expect_error(ProviderUnavailable, "tensorrt_rtx", "1.7", "1.6"):
        choose_engine(
            bundle, manifest, "generator", "fp32", [HERE, EngineTarget("tensorrt_rtx", "1.6", "9.0")]
        )


def test_a_precision_without_engines(shared_bundle):
    with expect_error(ProviderUnavailable, "fp16", "fp32", "auto"):
        choose_engine(shared_bundle, read_manifest(shared_bundle), "generator", "fp32", [HERE])


@pytest.mark.parametrize(
    "profiles", [(), (Profile(1, 0, 1),), (Profile(1, 4, 2),), (Profile(-5, 1, 1),), (Profile(1, 1, 10**9),)]
)
def test_impossible_profiles_are_refused(bundle, profiles):
    add_engine(bundle, record_of(bundle, profiles=profiles))
    sizes = [dataclasses.astuple(profile) for profile in profiles]
    with expect_error(FileRefused, bundle / "engines/generator.fp32.sm90.json") as info:
        choose(bundle)
    assert str(sizes) in str(info.value)


def test_a_later_version_runs_a_compatible_plan(bundle):
    add_engine(bundle, record_of(bundle, package_version="10.2.0", flags=("refit", "version_compatible")))
    assert choose(bundle).package_version == "10.2.0"


@pytest.mark.parametrize("damage", [lambda data: data[:-1] + b"!", lambda data: data[:3], lambda data: b""])
@pytest.mark.parametrize("ending", ["plan", "json"])
def test_a_damaged_engine_is_refused(bundle, damage, ending):
    add_engine(bundle, record_of(bundle))
    path = bundle / f"engines/generator.fp32.sm90.{ending}"
    path.write_bytes(damage(path.read_bytes()))
    name = path.relative_to(bundle).as_posix()
    with expect_error(FileRefused, path):
        read_verified(bundle, read_manifest(bundle), name)
    if ending == "json":
        with expect_error(FileRefused, path):
            choose(bundle)


def test_a_record_of_another_plan_is_refused(bundle):
    add_engine(bundle, record_of(bundle))
    add_engine(bundle, record_of(bundle, plan="engines/b.plan"), b"another")
    (bundle / "engines/b.json").write_bytes((bundle / "engines/generator.fp32.sm90.json").read_bytes())
    manifest = read_manifest(bundle)
    files = {**manifest.files, "engines/b.json": describe_file(bundle / "engines/b.json")}
    del files["engines/generator.fp32.sm90.plan"]
    (bundle / "manifest.json").write_text(dataclasses.replace(manifest, files=files).to_json())
    with expect_error(FileRefused, bundle / "engines/b.json", "engines/generator.fp32.sm90.plan"):
        choose(bundle)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format_version": 2}', '{"format_version": 1}', '{"format_version": 2.0}', "null",
     "NaN", "[" * 10**5, '{"format_version": 1e999}', '{"a":' * 900 + "1" + "}" * 900],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_text_that_is_no_record_is_refused(text):
    with expect_error(FileRefused):
        EngineRecord.from_json(text)


INTEGERS = st.integers(-(2**63), 2**64 - 1)


@given(
    st.builds(
        EngineRecord,
        format_version=st.just(RECORD_VERSION),
        profiles=st.lists(st.builds(Profile, INTEGERS, INTEGERS, INTEGERS), max_size=3).map(tuple),
        flags=st.lists(st.text(), max_size=3).map(tuple),
        layers=st.dictionaries(st.text(), INTEGERS, max_size=3),
        weights=st.dictionaries(st.text(), INTEGERS, max_size=3),
    )
)
def test_round_trip_of_a_record(record):
    assert EngineRecord.from_json(record.to_json()) == record


class TestPlaces:
    @pytest.fixture
    def packages(self, monkeypatch):
        """Install exactly these modules, version by name; None makes a placeholder without TensorRT in it."""
        for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
            monkeypatch.setitem(sys.modules, name, None)

        def install(**versions):
            for name, version in versions.items():
                module = ModuleType(name)
                if version:
                    module.__version__, module.Builder = version, object
                monkeypatch.setitem(sys.modules, name, module)

        return install

    def test_which_package_is_imported(self, packages):
        extras = (*requirements("trt"), *requirements("trt-rtx"))
        with expect_error(ProviderUnavailable, *extras, "tensorrt", "tensorrt_rtx") as info:
            import_tensorrt()
        without_any = str(info.value)
        packages(tensorrt=None)
        with expect_error(ProviderUnavailable, *extras, "tensorrt") as info:
            import_tensorrt()
        assert str(info.value) != without_any  # a placeholder is not the same as nothing
        packages(tensorrt_rtx_bindings="1.7.1")
        assert import_tensorrt()[0] == "tensorrt_rtx"
        packages(tensorrt="11.0.0")
        assert import_tensorrt()[0] == "tensorrt"
        assert import_tensorrt("tensorrt_rtx")[1].__version__ == "1.7.1"

    def test_engine_targets_a_gpu(self, packages, monkeypatch):
        packages(tensorrt="10.14.1")
        monkeypatch.setattr(engines, "gpus", lambda: [Gpu("H200", "9.0", 10**11), Gpu("A10", "8.6", 10**10)])
        assert engine_targets() == [HERE]
        assert engine_targets(1)[0].compute_capability == "8.6"
        with expect_error(ProviderUnavailable, "GPU 7", 2):
            engine_targets(7)

        def fail():
            raise OSError("libcuda.so.1: cannot open shared object file")

        monkeypatch.setattr(engines, "gpus", fail)
        with expect_error(ProviderUnavailable, "libcuda.so.1"):
            engine_targets()
