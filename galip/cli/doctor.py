"""`galip doctor`."""

from __future__ import annotations

from typing import Any

import typer

from galip.cli.common import Json, emit

__all__ = ["doctor"]


def doctor(json: Json = False) -> None:
    """Say what this machine can run, and why not the rest: CPU, GPUs, libraries, packages, devices.

    Every device is tried. Exit code 0 if at least one works, else 5.
    """
    from galip_runtime.doctor import examine

    found = examine()
    emit(found, json, *_lines(found))
    if not any(device["works"] for device in found["devices"].values()):
        raise typer.Exit(5)


def _lines(found: dict[str, Any]) -> list[str]:
    python, cpu, gpus, runtime = (found[name] for name in ("python", "cpu", "gpus", "onnxruntime"))
    lines = [
        f"Python {python['version']} ({python['executable']}), {python['system']}",
        f"CPU: {cpu['name']}, {cpu['usable']} usable; {' '.join(cpu['features']) or 'features unknown'}",
        f"GPUs: none ({gpus['why']})" if gpus["why"] else f"GPUs: driver for CUDA {gpus['driver']}",
    ]
    for number, gpu in enumerate(gpus["found"]):
        memory = f"{gpu['memory'] / 2**30:.0f} GiB"
        lines.append(f"  {number}: {gpu['name']}, compute capability {gpu['compute_capability']}, {memory}")
    loads = [each["loads"] for each in found["cuda_libraries"].values() if each["loads"]]
    missing = [name for name, each in found["cuda_libraries"].items() if not each["loads"]]
    lines.append(f"CUDA libraries: {', '.join(loads) or 'none'}; not found: {', '.join(missing) or 'none'}")
    builds = ", ".join(f"{name} {version}" for name, version in runtime["builds"].items())
    lines.append(
        f"onnxruntime: {builds or 'not installed'}; providers: {', '.join(runtime['providers']) or 'none'}"
    )
    if runtime["problem"]:
        lines.append(f"  problem: {runtime['problem']}")
    lines.append(f"OpenVINO: {found['openvino']['version'] or 'not installed'}")
    for name, each in found["tensorrt"].items():
        lines.append(f"{name}: {each['version'] or 'no: ' + each['why']}")
    lines.append("Devices:")
    for name, device in found["devices"].items():
        told = f"works, in {', '.join(device['precisions'])}" if device["works"] else f"no: {device['why']}"
        lines.append(f"  {name}: {told}")
    return lines
