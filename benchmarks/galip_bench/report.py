"""The report of `galip bench`: its parts, and their JSON, whose schema is `report.schema.json` beside this.

Every field has the name and the place of its key in the JSON.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import read_regular

from galip_bench.config import BenchConfig
from galip_bench.machine import Machine
from galip_bench.models import ModelFacts
from galip_bench.statistics import Ratio, Summary
from galip_bench.subjects import REFERENCE

__all__ = [
    "SCHEMA",
    "ColdStart",
    "FidParity",
    "FidSettings",
    "Latency",
    "MachineNoise",
    "Parity",
    "Report",
    "SubjectReport",
    "read_report",
    "schema",
]

SCHEMA = 3
_LARGEST = 2**28
"""Bytes of a report. One of all subjects has a few hundred kilobytes."""

_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Parity:
    """How far a subject's pictures are from the reference's of the same prompts and seeds.

    Absolute errors are of the raw pictures, nominally in [-1, 1]. PSNR and SSIM are of the 8-bit pictures.
    None where no picture is finite.
    """

    pictures: int
    not_finite: int
    """Pictures with NaN or infinity. No other figure counts them."""
    max_abs: float | None
    mean_abs: float | None
    equal: int
    """Pictures that are the same in 8 bits. Their PSNR is infinite, which is written as None."""
    psnr_min: float | None
    """dB"""
    psnr_p1: float | None
    """First percentile. None for fewer than a hundred pictures."""
    psnr_median: float | None
    ssim_min: float | None
    """Of the first `parity.SSIM_PICTURES` pictures."""
    ssim_median: float | None
    feature_distance_median: float | None
    """Distance (L2) between Inception's features, of `parity.FEATURE_PICTURES` pictures at most. The unit is
    the median distance between the reference's pictures of neighbouring prompts: 0 is the same picture, 1 a
    different one.
    """
    feature_distance_max: float | None
    worst: int | None
    """Number of the picture with the largest absolute error."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FidParity:
    """FID of a subject. None where a picture is not finite, and where there is nothing to compare with."""

    pictures: int
    not_finite: int
    """Pictures with NaN or infinity. One of them leaves the subject without an FID."""
    fid: float | None
    """Against the real pictures."""
    delta: float | None
    """`fid` minus the reference's `fid`."""
    delta_interval_95: tuple[float, float] | None
    """By Student's t, from the changes on disjoint sets of seeds."""
    direct: float | None
    """Between the subject's pictures and the reference's."""


@dataclass(frozen=True)
class FidSettings:
    """How FID was measured."""

    pictures: int
    sets: int
    """Disjoint sets of seeds."""
    seeds: tuple[int, int]
    """The first and the last."""
    captions: str
    """Where the captions come from: `file`, `against`, or the module with our own."""
    against: dict[str, Any] | None
    """What the real pictures were; None without any."""
    inception_sha256: str
    inception_view: str
    """How pictures are resized and scaled for Inception."""


@dataclass(frozen=True)
class Latency:
    """Times of one subject at one batch size, by phase (`latency.PHASES`) and in `total`."""

    seconds: dict[str, Summary]
    ratio: Ratio
    """The total over the reference's total of the same round."""
    samples: dict[str, list[float]]
    """Seconds of every round, in order."""


@dataclass(frozen=True)
class ColdStart:
    """What one fresh process took until its first picture."""

    seconds: dict[str, float]
    """By stage (`STAGES` of the module that measures it), and their `total`."""
    cpu_seconds: float
    """CPU time of all threads, from the start of the process to its first picture."""
    peak_resident_bytes: int
    """After the largest batch was generated at once."""
    anonymous_bytes: int | None
    """Resident memory at the end that is no file's: the system can't drop it. None if unknown."""
    peak_device_bytes: int | None
    """GPU memory that the process took between loading and the last picture, with context and libraries. None
    without a GPU, and without the package nvidia-ml-py.
    """


@dataclass(frozen=True)
class SubjectReport:
    """What was measured of one subject."""

    info: dict[str, Any]
    """What was loaded: device, providers, precision, versions."""
    disk_bytes: int
    """Size of the files that it reads."""
    parity: Parity | None
    """None if it was not measured."""
    fid: FidParity | None
    """None if it was not measured."""
    latency: dict[str, Latency]
    """By batch size. Empty where it could not be measured."""
    fresh: list[ColdStart]
    """Cold starts, one a fresh process. The last process generated the largest batch."""

    @property
    def not_finite(self) -> int:
        """Pictures with NaN or infinity, in the first of FID and parity that has any."""
        return next((part.not_finite for part in (self.fid, self.parity) if part and part.not_finite), 0)


@dataclass(frozen=True)
class MachineNoise:
    """How quiet the machine was."""

    noisy: bool
    spread: float
    """Distance of the quartiles of the reference's times within a process, over their median; the largest."""
    others: float | None
    """Largest share of the usable CPUs' time that others took; None where the system doesn't say."""
    reasons: list[str]
    """Why it counts as noisy, a sentence each."""


@dataclass(frozen=True)
class Report:
    """Everything measured: seconds, bytes, raw samples."""

    subjects: dict[str, SubjectReport]
    """By name, the reference first."""
    unavailable: dict[str, str]
    """Subjects that were not measured, and why."""
    models: ModelFacts
    machine: Machine
    noise: MachineNoise
    threads: int
    """CPU threads of each subject."""
    launches: list[int]
    """Rounds that each process measured. The samples are theirs, one process after another."""
    fid: FidSettings | None
    """How FID was measured; None if it was not."""
    config: BenchConfig
    command: str
    started: str
    """Date and time, UTC, ISO 8601."""
    seconds: float
    """Duration of the run, without the export of a bundle."""
    reference: str = REFERENCE
    schema: int = SCHEMA
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Report:
        """Return the report that a JSON document holds which fits `schema()`.

        Raises `UsageError` for a config out of range.
        """
        return _typed(cls, document)

    def not_finite(self) -> list[str]:
        """Return the subjects that generated NaN or infinity."""
        return [name for name, subject in self.subjects.items() if subject.not_finite]

    def to_json(self) -> str:
        """Return the text of a report's file.

        The innermost lists and objects are one line each: a line a number would be thousands of lines.
        """
        return _compact(asdict(self)) + "\n"


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a report."""
    document: dict[str, Any] = json.loads(
        (Path(__file__).parent / "report.schema.json").read_text(encoding="utf-8")
    )
    return document


def read_report(file: Path) -> Report:
    """Return the report that `galip bench --json` wrote to `file`. Raises `UsageError` and `FileRefused`."""
    import jsonschema

    try:
        data = read_regular(file, _LARGEST)
    except FileRefused as error:
        raise UsageError(f"{error}; name a file that galip bench --json wrote") from error
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FileRefused(f"{file} is no JSON: {error}") from error
    if not isinstance(document, dict) or "subjects" not in document:
        raise FileRefused(f"{file} is no report of galip bench")
    if document.get("schema") != SCHEMA:
        raise FileRefused(f"{file} has schema {document.get('schema')!r}; this galip reads {SCHEMA}")
    fault = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema()).iter_errors(document))
    if fault is not None:
        raise FileRefused(f"{file} is a damaged report: {fault.json_path}: {fault.message:.200}")
    try:
        report = Report.of(document)
    except UsageError as error:
        raise FileRefused(f"{file} is a damaged report: config: {error}") from error
    if contradiction := _contradiction(report):
        raise FileRefused(f"{file} is a damaged report: {contradiction}")
    return report


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _contradiction(report: Report) -> str:
    """Return what can't be true in a report that fits the schema; empty if nothing is wrong."""
    sizes = {str(size) for size in report.config.batch}
    reference = report.subjects.get(report.reference)
    if reference is None or not reference.latency:
        return f"the reference {report.reference} was not measured"
    rounds = sum(report.launches)
    for name, subject in report.subjects.items():
        if subject.latency and set(subject.latency) != sizes:
            return f"{name} was measured at batch {sorted(subject.latency)}, not {sorted(sizes)}"
        for size, latency in subject.latency.items():
            if any(len(values) != rounds for values in latency.samples.values()):
                return f"{name} at batch {size} has not {rounds} samples, as launches says"
    return ""


def _typed(kind: type[_Kind], value: Any) -> _Kind:
    """Return `value`, out of JSON that fits its schema, as `kind`. Numbers stay as they are."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _typed(hints[name], item) for name, item in value.items()})
    result: Any = value
    if origin is types.UnionType:
        result = None if value is None else _typed(arguments[0], value)
    elif origin is dict:
        result = {key: _typed(arguments[1], item) for key, item in value.items()}
    elif origin in (list, tuple):
        result = origin(_typed(arguments[0], item) for item in value)
    return result


def _compact(value: Any, indent: int = 0) -> str:
    """Return JSON whose innermost lists and objects are one line each."""
    children: Iterable[Any] = value if isinstance(value, list | tuple) else ()
    if isinstance(value, dict):
        children = value.values()
    if not any(isinstance(child, dict | list | tuple) for child in children):
        return json.dumps(value, allow_nan=False)
    inner = " " * (indent + 1)
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {_compact(item, indent + 1)}" for key, item in value.items()]
        opening, closing = "{", "}"
    else:
        parts = [f"{inner}{_compact(item, indent + 1)}" for item in value]
        opening, closing = "[", "]"
    return f"{opening}\n" + ",\n".join(parts) + f"\n{' ' * indent}{closing}"
