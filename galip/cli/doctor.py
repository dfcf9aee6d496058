"""`galip doctor`."""

from __future__ import annotations

from typing import Any

import typer

from galip.cli.options import Json
from galip.cli.output import emit

__all__ = ["doctor"]


def doctor(json: Json = False) -> None:
    """Report what this machine can run, and why not the rest: CPU, GPUs, libraries, packages, devices.

    Tries every device. Ends with exit code 0 if at least one works, else 5.
    """
    from galip_runtime.doctor import examine

    report = examine()
    emit(report, json, *_lines(report))
    if not any(device["works"] for device in report["devices"].values()):
        raise typer.Exit(5)


def _lines(report: dict[str, Any]) -> list[str]:
    python, cpu, gpus, runtime = (report[name] for name in ("python", "cpu", "gpus", "onnxruntime"))
    lines = [
        f"Python {python['version']} ({python['executable']}), {python['system']}",
        f"CPU: {cpu['name']}, {cpu['usable']} usable; {' '.join(cpu['features']) or 'features unknown'}",
        f"GPUs: none ({gpus['why']})" if gpus["why"] else f"GPUs: driver for CUDA {gpus['driver']}",
    ]
    for number, gpu in enumerate(gpus["found"]):
        memory = f"{gpu['memory'] / 2**30:.0f} GiB"
        lines.append(f"  {number}: {gpu['name']}, compute capability {gpu['compute_capability']}, {memory}")
    libraries = report["cuda_libraries"]
    loaded = [library["loads"] for library in libraries.values() if library["loads"]]
    missing = [name for name, library in libraries.items() if not library["loads"]]
    lines.append(f"CUDA libraries: {', '.join(loaded) or 'none'}; not found: {', '.join(missing) or 'none'}")
    builds = ", ".join(f"{name} {version}" for name, version in runtime["builds"].items())
    lines.append(
        f"onnxruntime: {builds or 'not installed'}; providers: {', '.join(runtime['providers']) or 'none'}"
    )
    if runtime["problem"]:
        lines.append(f"  problem: {runtime['problem']}")
    lines.append(f"OpenVINO: {report['openvino']['version'] or 'not installed'}")
    kernels = report["kernels"]
    used = f"{kernels['version']}, {kernels['target']}"
    lines.append(f"galip-kernels: no: {kernels['why']}" if kernels["why"] else f"galip-kernels: {used}")
    for name, package in report["tensorrt"].items():
        lines.append(f"{name}: {package['version'] or 'no: ' + package['why']}")
    lines.append("Devices:")
    for name, device in report["devices"].items():
        verdict = (
            f"works, in {', '.join(device['precisions'])}" if device["works"] else f"no: {device['why']}"
        )
        lines.append(f"  {name}: {verdict}")
    return lines
