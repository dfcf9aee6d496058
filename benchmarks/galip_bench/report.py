"""What `galip bench` found out, as JSON: `report.schema.json` beside this file says what is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import read_regular

from galip_bench.config import BenchConfig
from galip_bench.subjects import REFERENCE

__all__ = ["SCHEMA", "Report", "config_of", "read_report", "schema"]

SCHEMA = 3
_LARGEST = 2**28
"""bytes of a report; one of all subjects has a few hundred kilobytes"""


@dataclass(frozen=True)
class Report:
    """Everything measured, fit for JSON: seconds, bytes, raw samples."""

    subjects: dict[str, Any]
    """By name: `info`, `latency` by batch size, `fresh`, `disk_bytes`, `parity`, `fid`."""
    unavailable: dict[str, str]
    """Subjects that were not measured, and why."""
    models: dict[str, Any]
    """Hashes and sizes of checkpoint and bundle."""
    machine: dict[str, Any]
    noise: dict[str, Any]
    """Whether the machine was quiet: `noisy`, and by what."""
    threads: int
    """CPU threads that each subject had."""
    launches: list[int]
    """Rounds that each process measured; the samples are theirs, one after another."""
    fid: dict[str, Any] | None
    """How FID was measured; None: not at all."""
    config: dict[str, Any]
    command: str
    started: str
    """Date and time, UTC, ISO 8601."""
    seconds: float
    """That the run took, the export of a bundle left out."""
    reference: str = REFERENCE
    schema: int = SCHEMA
    warnings: list[str] = field(default_factory=list)

    def not_finite(self) -> list[str]:
        """Subjects that made pictures with NaN or infinity."""
        return [
            name
            for name, subject in self.subjects.items()
            if any(subject[key]["not_finite"] for key in ("parity", "fid") if subject[key])
        ]

    def to_json(self) -> str:
        """Text for a file: a line a number would be thousands, so what is innermost stays on one line."""
        return _compact(asdict(self)) + "\n"


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a report."""
    document: dict[str, Any] = json.loads(
        (Path(__file__).parent / "report.schema.json").read_text(encoding="utf-8")
    )
    return document


def read_report(file: Path) -> dict[str, Any]:
    """The report that `galip bench --json` wrote. Raises `UsageError` and `FileRefused`."""
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
    if contradiction := _contradiction(document):
        raise FileRefused(f"{file} is a damaged report: {contradiction}")
    return document


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _contradiction(document: Mapping[str, Any]) -> str:
    """What in a report that fits the schema can't be so; empty where all can."""
    subjects, sizes = document["subjects"], {str(size) for size in document["config"]["batch"]}
    if not subjects.get(document["reference"], {}).get("latency"):
        return f"the reference {document['reference']} was not measured"
    rounds = sum(document["launches"])
    for name, subject in subjects.items():
        if subject["latency"] and set(subject["latency"]) != sizes:
            return f"{name} was measured at batch {sorted(subject['latency'])}, not {sorted(sizes)}"
        for size, latency in subject["latency"].items():
            if any(len(values) != rounds for values in latency["samples"].values()):
                return f"{name} at batch {size} has not {rounds} samples, as launches says"
    return ""


def config_of(document: Mapping[str, Any]) -> BenchConfig:
    """The config of a report that `read_report` gave, to run it again."""
    values: dict[str, Any] = dict(document["config"])
    for name in ("subjects", "batch", "exclude"):
        values[name] = tuple(values[name])
    return BenchConfig(**values)


def _compact(value: Any, indent: int = 0) -> str:
    """JSON whose innermost lists and objects are one line each."""
    children = list(
        value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    )
    if not any(isinstance(child, dict | list | tuple) for child in children):
        return json.dumps(value, allow_nan=False)
    inner = " " * (indent + 1)
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {_compact(each, indent + 1)}" for key, each in value.items()]
        opening, closing = "{", "}"
    else:
        parts = [f"{inner}{_compact(each, indent + 1)}" for each in value]
        opening, closing = "[", "]"
    return f"{opening}\n" + ",\n".join(parts) + f"\n{' ' * indent}{closing}"
