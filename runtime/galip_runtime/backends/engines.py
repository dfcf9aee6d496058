"""A bundle's TensorRT engines: each is a plan, and beside it a record of what it was built from and for.

A plan is code, so it is deserialized only if its record names this very graph, package, version and GPU.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from galip_runtime.bundle.decoding import parse, typed
from galip_runtime.bundle.manifest import Manifest, read_verified
from galip_runtime.errors import FileRefused, ProviderUnavailable
from galip_runtime.hardware import gpus
from galip_runtime.install import install_extra

__all__ = [
    "ENGINES",
    "PACKAGES",
    "PRECISIONS",
    "RECORD_VERSION",
    "EngineRecord",
    "EngineTarget",
    "Profile",
    "choose_engine",
    "engine_targets",
    "has_tensorrt",
    "import_tensorrt",
    "read_records",
    "rebuild_command",
]

ENGINES = "engines"
"""the folder of engines in a bundle"""
PACKAGES = {"tensorrt": ("tensorrt",), "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
"""packages that build and run engines, and the module names of each"""
VERSION_COMPATIBLE = "version_compatible"
"""flag of a record: any version of the package with the same major number runs the plan"""
REFIT = "refit"
"""flag of a record: the weights of the plan may be replaced"""
PRECISIONS = ("fp16", "fp32")
"""an engine is built in the first of these that the bundle has"""

RECORD_VERSION = 2
"""engines of version 1 lacked the outputs of `pixels`"""

_MAX_BATCH = 2**16


@dataclass(frozen=True)
class Profile:
    """Batch sizes that an engine is built for."""

    min: int
    opt: int
    """the size it is fastest at"""
    max: int


@dataclass(frozen=True)
class EngineRecord:
    """What a plan was built from and for."""

    format_version: int
    graph: str
    """`text_encoder` or `generator`"""
    precision: str
    onnx_sha256: str
    plan: str
    """the plan's name in `Manifest.files`"""
    plan_sha256: str
    package: str
    """one of `PACKAGES`"""
    package_version: str
    compute_capability: str
    """of the GPU it is built for, such as 8.6"""
    driver: str
    """the newest CUDA that the driver of the building machine runs; empty without a driver"""
    profiles: tuple[Profile, ...]
    flags: tuple[str, ...]
    inspected: str
    """where `layers` and `weights` were counted: `engine`, or `network` on a machine without a GPU"""
    layers: Mapping[str, int]
    """how many layers compute in each type, such as fp16"""
    weights: Mapping[str, int]
    """bytes of weights of each type"""

    def to_json(self) -> str:
        """Return the text of the record's file."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "EngineRecord":
        """Read the text of `to_json`. Raises FileRefused."""
        data = parse(text)
        version = data.get("format_version") if isinstance(data, dict) else None
        if version != RECORD_VERSION:
            raise FileRefused(
                f"its format is {version!r:.40}, and this release reads format {RECORD_VERSION}: build the "
                "engines again with galip export BUNDLE --trt --out BUNDLE --overwrite"
            )
        record: EngineRecord = typed(cls, data)
        return record


@dataclass(frozen=True)
class EngineTarget:
    """Where an engine runs: a package of this machine and its GPU."""

    package: str
    package_version: str
    compute_capability: str


def has_tensorrt() -> bool:
    """Return whether one of the packages is installed; it may still fail to import."""
    return any(importlib.util.find_spec(name) for names in PACKAGES.values() for name in names)


def import_tensorrt(package: str | None = None) -> tuple[str, ModuleType]:
    """Import a package that builds and runs engines; return its name in `PACKAGES` and its module.

    `package` is a name in `PACKAGES`; None takes the first that is installed. Raises ProviderUnavailable
    where it is not installed, or none is.
    """
    problems = []
    for name, modules in PACKAGES.items():
        for module in modules if package in (None, name) else ():
            try:
                library = importlib.import_module(module)
            except Exception as error:  # also OSError: one of its libraries may be missing
                problems.append(f"{module}: {error}")
                continue
            if hasattr(library, "Builder"):
                return name, library
            problems.append(f"{module} is a placeholder without TensorRT in it")
    raise ProviderUnavailable(
        f"TensorRT is not installed ({'; '.join(problems)}): {install_extra('trt')}; for TensorRT for RTX "
        f"{install_extra('trt-rtx')}"
    )


def engine_targets(gpu: int = 0) -> list[EngineTarget]:
    """Return this machine's GPU number `gpu` with each installed package.

    Raises ProviderUnavailable without TensorRT and without such a GPU.
    """
    import_tensorrt()
    try:
        devices = gpus()
    except OSError as error:
        raise ProviderUnavailable(f"there is no NVIDIA GPU to run engines on: {error}") from error
    if gpu >= len(devices):
        raise ProviderUnavailable(f"there is no GPU {gpu}; this machine has {len(devices)}")
    targets = []
    for package in PACKAGES:
        with contextlib.suppress(ProviderUnavailable):
            version = import_tensorrt(package)[1].__version__
            targets.append(EngineTarget(package, version, devices[gpu].compute_capability))
    return targets


def read_records(bundle: str | os.PathLike[str], manifest: Manifest) -> list[EngineRecord]:
    """Read the records of all engines. Raises FileRefused where one differs from the manifest."""
    records = []
    for name in sorted(manifest.files):
        if not (name.startswith(f"{ENGINES}/") and name.endswith(".json")):
            continue
        try:
            record = EngineRecord.from_json(read_verified(bundle, manifest, name))
        except FileRefused as error:
            raise FileRefused(f"{Path(bundle) / name} is refused: {error}") from error
        entry = manifest.files.get(record.plan)
        if entry is None or entry.sha256 != record.plan_sha256:
            raise FileRefused(f"{Path(bundle) / name} is not the record of {record.plan:.200}")
        sizes = [(profile.min, profile.opt, profile.max) for profile in record.profiles]
        if not sizes or any(not 1 <= low <= best <= high <= _MAX_BATCH for low, best, high in sizes):
            raise FileRefused(f"{Path(bundle) / name} has impossible profiles: {sizes!r:.200}")
        records.append(record)
    return records


def choose_engine(
    bundle: str | os.PathLike[str],
    manifest: Manifest,
    graph: str,
    precision: str,
    targets: Sequence[EngineTarget],
) -> EngineRecord:
    """Return the record of the first engine of `graph` in `precision` that runs on one of `targets`.

    Raises ProviderUnavailable, with the command that builds one, where there is none; FileRefused as
    `read_records`.
    """
    records = [
        record
        for record in read_records(bundle, manifest)
        if (record.graph, record.precision) == (graph, precision)
    ]
    built_in = next((name for name in PRECISIONS if name in manifest.graphs[graph]), None)
    if precision != built_in:
        raise ProviderUnavailable(
            f"this bundle's engines are in {built_in or 'fp16 or fp32, which it does not have'}, not in "
            f"{precision}: use precision 'auto', or another device"
        )
    sha256 = manifest.files[manifest.graphs[graph][precision].file].sha256
    reasons = []
    for record in records:
        mismatches = {target: _mismatch(record, sha256, target) for target in targets}
        if None in mismatches.values():
            return record
        same_package = [why for target, why in mismatches.items() if target.package == record.package]
        reasons.append(f"{record.plan} {(same_package or list(mismatches.values()))[0]}")
    why = "; ".join(reasons) or f"the bundle has no engine of the {graph} in {precision}"
    raise ProviderUnavailable(
        f"no engine runs here: {why}. Build it here: {rebuild_command(bundle, records)}"
    )


def _mismatch(record: EngineRecord, onnx_sha256: str, target: EngineTarget) -> str | None:
    """Say what keeps the engine from running on `target`; None where nothing does."""
    if record.onnx_sha256 != onnx_sha256:
        return "was built from another graph than the bundle has"
    if record.package != target.package:
        return f"was built by {record.package}, and {target.package} is installed"
    if VERSION_COMPATIBLE in record.flags:
        same = record.package_version.split(".")[0] == target.package_version.split(".")[0]
    else:
        same = record.package_version == target.package_version
    if not same:
        built_by = f"{record.package} {record.package_version}"
        return f"was built by {built_by}, and {target.package_version} is installed"
    if record.compute_capability != target.compute_capability:
        return (
            f"is for GPUs of compute capability {record.compute_capability}, and this one has "
            f"{target.compute_capability}"
        )
    return None


def rebuild_command(bundle: str | os.PathLike[str], records: list[EngineRecord]) -> str:
    """Return the command that builds the engines again, for this machine's GPU and with the same profiles."""
    batches = sorted({profile.opt for record in records for profile in record.profiles})
    asked = f" --trt-batch {','.join(map(str, batches))}" if batches else ""
    flags = {flag for record in records for flag in record.flags}
    asked += " --trt-refit" * (REFIT in flags) + " --trt-compatible" * (VERSION_COMPATIBLE in flags)
    folder = shlex.quote(os.path.abspath(bundle))
    return f"galip export {folder} --trt{asked} --out {folder} --overwrite"
