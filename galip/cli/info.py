"""`galip info`."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from galip_runtime.errors import FileRefused

from galip.cli.options import Json
from galip.cli.output import emit

if TYPE_CHECKING:
    from galip_runtime.backends.engines import EngineRecord
    from galip_runtime.bundle.manifest import Manifest

__all__ = ["info"]

_NO_DIGEST = (
    "none: the bundle was exported before manifests had a digest, so some changes to it would go unnoticed"
)

_MAKERS = ("galip", "torch", "onnx", "onnxruntime")
"""Distributions that the summary names, of those that made a bundle."""


def info(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A bundle folder or a checkpoint. Default: the shipped model's bundle.", show_default=False
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print everything that is known of it.")] = False,
    json: Json = False,
) -> None:
    """Describe a bundle or checkpoint: what it holds and where it came from."""
    from galip.assets import default_bundle

    path = default_bundle() if path is None else path
    # `read_manifest` explains to those who name the manifest that it wants the folder
    is_bundle = os.path.isdir(path) or path.name == "manifest.json"
    facts = _bundle_facts(path) if is_bundle else _checkpoint_facts(path)
    readable = {**facts, "digest": facts["digest"] or _NO_DIGEST} if "digest" in facts else facts
    if not verbose:
        readable = _bundle_summary(readable) if is_bundle else _checkpoint_summary(readable)
    emit(facts, json, *_nested_lines(readable))


def _bundle_facts(path: Path) -> dict[str, Any]:
    from galip_runtime.backends.engines import read_records
    from galip_runtime.bundle.manifest import read_manifest, verify_files

    manifest = read_manifest(path)
    verify_files(path, manifest)
    engines = {record.plan: _engine_facts(record, manifest) for record in read_records(path, manifest)}
    facts = dataclasses.asdict(manifest)
    return {"kind": "bundle", **facts, "engines": engines, "parity": _worst_parity(path, manifest)}


def _engine_facts(record: EngineRecord, manifest: Manifest) -> dict[str, Any]:
    facts = dataclasses.asdict(record)
    del facts["plan"], facts["profiles"]
    spec = manifest.graphs.get(record.graph, {}).get(record.precision)
    fits = spec is not None and manifest.files[spec.file].sha256 == record.onnx_sha256
    return {**facts, "batches": [profile.opt for profile in record.profiles], "fits_graph": fits}


@dataclasses.dataclass(frozen=True)
class _Case:
    """The part of a case of `parity.json` that is shown."""

    graph: str
    precision: str
    device: str
    max_abs: float
    relative: float
    psnr_db: float | None
    batch: int


@dataclasses.dataclass(frozen=True)
class _Pictures:
    """The part of a precision's pictures in `parity.json` that is shown."""

    precision: str
    device: str
    pictures: int
    psnr_min: float | None
    psnr_p1: float | None
    psnr_median: float | None


@dataclasses.dataclass(frozen=True)
class _Parity:
    """The part of `parity.json` that is shown."""

    cases: tuple[_Case, ...]
    pictures: tuple[_Pictures, ...]


def _worst_parity(path: Path, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return the worst case of each graph, precision and device in `parity.json`, and the pictures' figures.

    The worst case is the one farthest from eager PyTorch. Raises FileRefused if the file is malformed.
    """
    from galip_runtime.bundle.decoding import parse, typed
    from galip_runtime.bundle.manifest import read_verified

    if "parity.json" not in manifest.files:
        return {}
    data = read_verified(path, manifest, "parity.json")
    try:
        document = parse(data)
        parity = typed(
            _Parity, {"cases": [], "pictures": [], **document} if isinstance(document, dict) else document
        )
    except FileRefused as error:
        raise FileRefused(f"{path / 'parity.json'} is refused: {error}") from error
    worst: dict[str, dict[str, Any]] = {}
    for case in sorted(parity.cases, key=lambda case: case.relative):
        figures = {name: getattr(case, name) for name in ("max_abs", "relative", "psnr_db", "batch")}
        worst[f"{case.graph} {case.precision} on {case.device}"] = figures
    for pictures in parity.pictures:
        figures = {
            name: getattr(pictures, name) for name in ("pictures", "psnr_min", "psnr_p1", "psnr_median")
        }
        worst[f"pictures {pictures.precision} on {pictures.device}"] = figures
    return worst


def _checkpoint_facts(path: Path) -> dict[str, Any]:
    from galip.checkpoint_info import read_info

    checkpoint = read_info(path)
    parameters: dict[str, int] = {}
    for name, shape in checkpoint.shapes.items():
        if checkpoint.kind == "galip":
            part = name.partition(".")[0]
        else:
            part = "image" if name.startswith("visual.") else "text"
        parameters[part] = parameters.get(part, 0) + math.prod(shape)
    return {
        "kind": f"{checkpoint.kind} checkpoint",
        "bytes": path.stat().st_size,
        "parts": list(checkpoint.parts),
        "parameters": parameters,
        "dtypes": list(checkpoint.dtypes),
        "config": dataclasses.asdict(checkpoint.config),
        "note": checkpoint.note,
    }


def _bundle_summary(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the eight lines that tell what a bundle is, from its facts."""
    size, source, versions = facts["dimensions"], facts["source"], facts["versions"]
    makers = (f"{name} {versions[name]}" for name in _MAKERS if name in versions)
    return {
        "kind": f"bundle, pictures of {size['image_width']} × {size['image_height']} pixels",
        "size": f"{_megabytes(sum(file['size'] for file in facts['files'].values()))} in "
        f"{len(facts['files'])} files, none of them altered",
        "precisions": ", ".join(facts["graphs"]["generator"]),
        "engines": ", ".join(map(_engine_summary, facts["engines"].items())) or "none",
        "parity with eager PyTorch": "; ".join(_parity_summary(facts["parity"])) or "not in the bundle",
        "source": f"{source['name']:.80}, sha256 {source['sha256']}",
        "made with": ", ".join(makers) or "not said",
        "digest": facts["digest"],
    }


def _engine_summary(engine: tuple[str, Mapping[str, Any]]) -> str:
    plan, facts = engine
    return plan if facts["fits_graph"] else f"{plan} (of another graph; build it again)"


def _parity_summary(parity: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the worst figure of each precision: of its pictures where they were compared."""
    texts: dict[str, str] = {}
    for name, figures in parity.items():
        what, precision, *_ = name.split(" ")
        if what == "pictures":
            worst, count = _decibels(figures["psnr_min"]), figures["pictures"]
            texts[precision] = f"{precision} {worst} at worst of {count} pictures"
        elif what == "generator" and not texts.get(precision, "").endswith("pictures"):
            texts[precision] = (
                f"{precision} {_decibels(figures['psnr_db'])} at worst, {figures['relative']:.1e} of its std"
            )
    return list(texts.values())


def _decibels(psnr: float | None) -> str:
    return "equal" if psnr is None else f"{psnr:.1f} dB"


def _checkpoint_summary(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the eight lines that tell what a checkpoint is, from its facts."""
    parameters, config, note = facts["parameters"], facts["config"], facts["note"]
    if "generator" in config:
        side = config["generator"]["sizes"][-1]
        kind, clip = f"{facts['kind']}, pictures of {side} × {side} pixels", config["clip"]
    else:
        kind, clip = facts["kind"], config
    image, text = clip["image"], clip["text"]
    return {
        "kind": kind,
        "size": f"{_megabytes(facts['bytes'])}, {sum(parameters.values()):,} parameters",
        "parts": "; ".join(f"{part} {count:,}" for part, count in parameters.items()),
        "precision": ", ".join(facts["dtypes"]),
        "CLIP": f"pictures of {image['image_size']} pixels in patches of {image['patch_size']}; "
        f"{text['context_length']} tokens of {text['merges']:,} merges",
        "parity": "none; what `galip export` makes of it is compared with it",
        "source": _source(note),
        "more": "--verbose shows the config and how it was trained",
    }


def _source(note: Mapping[str, Any]) -> str:
    """Return where the weights came from, as the file's writer noted it."""
    told = {**note, **note["train"]} if isinstance(note.get("train"), dict) else note
    words = {"converted_from": "converted from", "sha256": "sha256", "data": "trained on", "step": "step"}
    parts = [f"{text} {told[key]!s:.80}" for key, text in words.items() if told.get(key) not in (None, "")]
    return ", ".join(parts) or "not noted"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _nested_lines(facts: dict[str, Any], indent: int = 0) -> list[str]:
    """Return nested dicts as indented lines."""
    lines = []
    for key, value in facts.items():
        if isinstance(value, dict) and value:
            lines += [f"{'  ' * indent}{key}:", *_nested_lines(value, indent + 1)]
        else:
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            lines.append(f"{'  ' * indent}{key}: {text}")
    return lines
