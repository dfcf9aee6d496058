"""TensorRT's engines of a bundle: a plan each, and the record beside it of what it was built from and for.

A plan is code: it is deserialised only where its record is of this very graph, package, version and GPU.
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

__all__ = [
    "ENGINES",
    "PACKAGES",
    "PRECISIONS",
    "RECORD_VERSION",
    "EngineRecord",
    "Place",
    "Profile",
    "choose_engine",
    "has_tensorrt",
    "import_tensorrt",
    "places_of",
    "read_records",
    "rebuild_command",
]

ENGINES = "engines"
"""the folder of a bundle that has them"""
PACKAGES = {"tensorrt": ("tensorrt",), "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
"""what builds and runs engines, and the names it may be imported by"""
VERSION_COMPATIBLE = "version_compatible"
"""of a record's flags: any version of the package with the same first number runs the plan"""
REFIT = "refit"
"""of a record's flags: its weights may be replaced"""
PRECISIONS = ("fp16", "fp32")
"""what engines are built in: the first that a bundle has"""

RECORD_VERSION = 2
"""1 had engines without the outputs of `pixels`"""

_MAX_BATCH = 2**16


@dataclass(frozen=True)
class Profile:
    """Batch sizes that an engine is made for."""

    min: int
    opt: int
    """the one that it is fastest for"""
    max: int


@dataclass(frozen=True)
class EngineRecord:
    """What a plan is."""

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
    """of the GPU that it is for, such as 8.6"""
    driver: str
    """the newest CUDA that the driver of the machine which built it runs; empty where there was none"""
    profiles: tuple[Profile, ...]
    flags: tuple[str, ...]
    inspected: str
    """`engine`, or `network` where no GPU was at hand: what `layers` and `weights` were counted in"""
    layers: Mapping[str, int]
    """how many compute in each type, such as fp16"""
    weights: Mapping[str, int]
    """bytes of each type"""

    def to_json(self) -> str:
        """The text of the record's file."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "EngineRecord":
        """Read `to_json`'s text. Raises FileRefused."""
        data = parse(text)
        version = data.get("format_version") if isinstance(data, dict) else None
        if version != RECORD_VERSION:
            raise FileRefused(
                f"it is no record of an engine in format {RECORD_VERSION}, but {version!r:.40}: build the "
                "engines again with galip export BUNDLE --trt --out BUNDLE --overwrite"
            )
        record: EngineRecord = typed(cls, data)
        return record


@dataclass(frozen=True)
class Place:
    """Where an engine is to run."""

    package: str
    package_version: str
    compute_capability: str


def has_tensorrt() -> bool:
    """Whether one of the packages is there; whether it works is another matter."""
    return any(importlib.util.find_spec(name) for names in PACKAGES.values() for name in names)


def import_tensorrt(package: str | None = None) -> tuple[str, ModuleType]:
    """A package that builds and runs engines, by its name in `PACKAGES`; the first that is installed.

    Raises ProviderUnavailable where none is, or not the one that is named.
    """
    problems = []
    for name, modules in PACKAGES.items():
        for module in modules if package in (None, name) else ():
            try:
                found = importlib.import_module(module)
            except Exception as error:  # not ImportErrors alone: a library of it may be missing
                problems.append(f"{module}: {error}")
                continue
            if hasattr(found, "Builder"):
                return name, found
            problems.append(f"{module} is a placeholder without TensorRT in it")
    raise ProviderUnavailable(
        f"TensorRT is not installed ({'; '.join(problems)}): pip install 'galip-runtime[trt]', or "
        "'galip-runtime[trt-rtx]' for TensorRT for RTX"
    )


def places_of(gpu: int = 0) -> list[Place]:
    """The GPU of this machine with each package that is installed.

    Raises ProviderUnavailable without TensorRT or without that GPU.
    """
    import_tensorrt()
    try:
        found = gpus()
    except OSError as error:
        raise ProviderUnavailable(f"there is no NVIDIA GPU to run engines on: {error}") from error
    if gpu >= len(found):
        raise ProviderUnavailable(f"there is no GPU {gpu}; this machine has {len(found)}")
    places = []
    for package in PACKAGES:
        with contextlib.suppress(ProviderUnavailable):
            version = import_tensorrt(package)[1].__version__
            places.append(Place(package, version, found[gpu].compute_capability))
    return places


def read_records(bundle: str | os.PathLike[str], manifest: Manifest) -> list[EngineRecord]:
    """The records of all engines. Raises FileRefused where one is not as the manifest lists it."""
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
            raise FileRefused(f"{Path(bundle) / name} is the record of another plan than {record.plan:.200}")
        sizes = [(each.min, each.opt, each.max) for each in record.profiles]
        if not sizes or any(not 1 <= low <= best <= high <= _MAX_BATCH for low, best, high in sizes):
            raise FileRefused(f"{Path(bundle) / name} has profiles that are none: {sizes!r:.200}")
        records.append(record)
    return records


def choose_engine(
    bundle: str | os.PathLike[str], manifest: Manifest, graph: str, precision: str, places: Sequence[Place]
) -> EngineRecord:
    """The record of the engine of `graph` in `precision` that runs at one of `places`, the first of them.

    Raises ProviderUnavailable, with the command that builds it, where there is none; FileRefused as
    `read_records`.
    """
    records = [
        each for each in read_records(bundle, manifest) if (each.graph, each.precision) == (graph, precision)
    ]
    built_in = next((each for each in PRECISIONS if each in manifest.graphs[graph]), None)
    if precision != built_in:
        raise ProviderUnavailable(
            f"this bundle's engines are in {built_in or 'fp16 or fp32, which it does not have'}, not in "
            f"{precision}: use precision 'auto', or another device"
        )
    sha256 = manifest.files[manifest.graphs[graph][precision].file].sha256
    reasons = []
    for record in records:
        found = {place: _why_not(record, sha256, place) for place in places}
        if None in found.values():
            return record
        same_package = [why for place, why in found.items() if place.package == record.package]
        reasons.append(f"{record.plan} {(same_package or list(found.values()))[0]}")
    why = "; ".join(reasons) or f"the bundle has no engine of the {graph} in {precision}"
    raise ProviderUnavailable(
        f"no engine runs here: {why}. Build it here: {rebuild_command(bundle, records)}"
    )


def _why_not(record: EngineRecord, onnx_sha256: str, place: Place) -> str | None:
    if record.onnx_sha256 != onnx_sha256:
        return "was built from another graph than the bundle has"
    if record.package != place.package:
        return f"was built by {record.package}, and {place.package} is installed"
    if VERSION_COMPATIBLE in record.flags:
        same = record.package_version.split(".")[0] == place.package_version.split(".")[0]
    else:
        same = record.package_version == place.package_version
    if not same:
        built_by = f"{record.package} {record.package_version}"
        return f"was built by {built_by}, and {place.package_version} is installed"
    if record.compute_capability != place.compute_capability:
        return (
            f"is for GPUs of compute capability {record.compute_capability}, and this one has "
            f"{place.compute_capability}"
        )
    return None


def rebuild_command(bundle: str | os.PathLike[str], records: list[EngineRecord]) -> str:
    """What builds the engines of the bundle anew, for this machine's GPU, with the profiles they had."""
    batches = sorted({profile.opt for record in records for profile in record.profiles})
    asked = f" --trt-batch {','.join(map(str, batches))}" if batches else ""
    flags = {flag for record in records for flag in record.flags}
    asked += " --trt-refit" * (REFIT in flags) + " --trt-compatible" * (VERSION_COMPATIBLE in flags)
    folder = shlex.quote(os.path.abspath(bundle))
    return f"galip export {folder} --trt{asked} --out {folder} --overwrite"
