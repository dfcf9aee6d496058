"""TensorRT engines for a bundle's graphs: built, inspected, and put into the bundle with records."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from galip_runtime.backends.engines import ENGINES, PRECISIONS, RECORD_VERSION, EngineRecord
from galip_runtime.bundle.manifest import (
    GRAPHS,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    describe_file,
    read_manifest,
    verify_files,
)
from galip_runtime.errors import FileRefused, QualityGateFailed, UsageError
from galip_runtime.hardware import driver_cuda_version

from galip.progress import Progress, no_progress
from galip_export.staging import staged_bundle, write
from galip_export.tensorrt_builder import Builder, BuildOptions, profiles

__all__ = ["add_engines", "build_engines", "check_engine_precision", "engine_builder", "engine_precision"]

_LARGER = 1.3
"""bytes of an engine over the graph's: it has code, too"""


def add_engines(
    bundle: Path,
    out: Path,
    options: BuildOptions,
    *,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> tuple[EngineRecord, ...]:
    """Copy `bundle` to `out` with engines for its graphs, in place of its old ones. Return their records.

    `out` appears whole at the end or not at all; with `overwrite` it replaces a bundle, `bundle` itself, too.

    Raises FileRefused for a bundle that is not whole, UsageError for an `out` that cannot be written,
    ProviderUnavailable where no package builds engines for the GPU, QualityGateFailed as `Builder.build`.
    """
    manifest = read_manifest(bundle)
    names = [name for name in manifest.files if not name.startswith(f"{ENGINES}/")]
    verify_files(bundle, manifest, names)  # old engines are not copied
    if out.resolve() != bundle.resolve() and out.resolve().is_relative_to(bundle.resolve()):
        raise UsageError(
            f"{out} is inside the bundle {bundle}: choose a folder beside it, or the bundle itself"
        )
    builder = Builder(options, out)
    archs = len(builder.archs())
    size = sum(manifest.files[name].size for name in names)
    with staged_bundle(out, overwrite=overwrite, size=round(size * (1 + _LARGER * archs))) as folder:
        for name in names:
            _copy(bundle, folder, name, manifest.files[name])
        plain = replace(manifest, files={name: manifest.files[name] for name in names})
        records, files = build_engines(folder, plain, builder, progress)
        write(folder / MANIFEST_NAME, replace(plain, files={**plain.files, **files}).to_json().encode())
    return records


def engine_builder(options: BuildOptions, out: Path, precisions: Sequence[str]) -> Builder:
    """Return the builder of engines for a bundle that is exported to `out` in `precisions`.

    Raises ProviderUnavailable where no package builds engines for the GPU, UsageError where none of the
    `precisions` is an engine's: what can be known before the export.
    """
    builder = Builder(options, out)
    builder.archs()
    if not {*PRECISIONS} & {*precisions}:
        raise UsageError(
            f"engines are built from graphs in fp16 or fp32, not in {', '.join(precisions)}: add fp16"
        )
    return builder


def check_engine_precision(precisions: Sequence[str], left_out: Mapping[str, str]) -> None:
    """Raise QualityGateFailed where the one of `precisions` that engines are built from is `left_out`."""
    wanted = next(name for name in PRECISIONS if name in precisions)
    if wanted in left_out:
        raise QualityGateFailed(f"no engines can be built in {wanted}: {left_out[wanted]}")


def build_engines(
    folder: Path, manifest: Manifest, builder: Builder, progress: Progress = no_progress
) -> tuple[tuple[EngineRecord, ...], dict[str, FileEntry]]:
    """Build the engines of the bundle in `folder`, whose manifest has none; return their records and files.

    Raises as `Builder.build`.
    """
    (folder / ENGINES).mkdir()
    records: list[EngineRecord] = []
    files: dict[str, FileEntry] = {}
    precision = engine_precision(manifest)
    for arch in builder.archs():
        for graph in GRAPHS:
            graph_precision = precision if precision in manifest.graphs[graph] else "fp32"
            spec = manifest.graphs[graph][graph_precision]
            stem = f"{ENGINES}/{graph}.{graph_precision}.sm{arch.replace('.', '')}"

            def report(phase: str, done: int, total: int, stem: str = stem) -> None:
                progress(f"{stem}: {phase.lower()}", done, total)

            built = builder.build(
                folder, spec, graph_precision, arch, manifest.dimensions.context_length, report
            )
            write(folder / f"{stem}.plan", built.plan)
            plan = describe_file(folder / f"{stem}.plan")
            record = EngineRecord(
                format_version=RECORD_VERSION,
                graph=graph,
                precision=graph_precision,
                onnx_sha256=manifest.files[spec.file].sha256,
                plan=f"{stem}.plan",
                plan_sha256=plan.sha256,
                package=built.package,
                package_version=built.package_version,
                compute_capability=built.compute_capability,
                driver=_driver(),
                profiles=profiles(builder.options),
                flags=built.flags,
                inspected=built.inspected,
                layers=built.layers,
                weights=built.weights,
            )
            write(folder / f"{stem}.json", record.to_json().encode())
            records.append(record)
            files |= {f"{stem}.plan": plan, f"{stem}.json": describe_file(folder / f"{stem}.json")}
    return tuple(records), files


def _copy(bundle: Path, folder: Path, name: str, entry: FileEntry) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(bundle / name, folder / name)
    except OSError as error:
        raise UsageError(f"{bundle / name} cannot be copied to {folder}: {error.strerror}") from error
    if describe_file(folder / name) != entry:
        raise FileRefused(f"{bundle / name} was written while it was copied: try again")


def engine_precision(manifest: Manifest) -> str:
    """Return what a bundle's engines are built from: fp16, else fp32. Raises UsageError for neither."""
    for precision in PRECISIONS:
        if precision in manifest.graphs["generator"]:
            return precision
    raise UsageError(
        "TensorRT needs the graphs in fp16 or fp32, and the bundle has neither: export the checkpoint with "
        "--precision fp16"
    )


def _driver() -> str:
    """Return the driver's version, or "" without a driver: engines are built for other machines, too."""
    try:
        return driver_cuda_version()
    except OSError:
        return ""
