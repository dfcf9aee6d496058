"""Cold start and memory of a subject in a process of its own: `python -m galip_bench.cold_start NAME …`.

The process prints as JSON when it reached each stage (seconds since the epoch) and its peak memory.
`measure_cold_start` starts it and returns how long each stage took.
"""

import time

STARTED = time.time()  # before anything is imported

import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

from galip_runtime.errors import ProviderUnavailable  # noqa: E402

from galip_bench.models import Models  # noqa: E402

if TYPE_CHECKING:
    from galip_bench.report import ColdStart

__all__ = ["STAGES", "main", "measure_cold_start"]

STAGES = ("start", "import", "load", "first_picture")
_WITHOUT_GPU = ("bundle-cpu", "bundle-openvino", "plain-cpu", "plain-openvino", "nokernels-cpu")
_PRINTED = ("cpu_seconds", "peak_resident_bytes", "anonymous_bytes", "peak_device_bytes")


def measure_cold_start(
    name: str,
    models: Models,
    *,
    prompt: str,
    batch: int = 1,
    threads: int | None = None,
    max_seconds: float | None = None,
) -> "ColdStart":
    """Start a process for the subject `name` and wait for its first picture, and for `batch` at once.

    Raises `ProviderUnavailable`, with the last line of the process's stderr, if it fails, and `TimeoutError`
    if it takes more than `max_seconds`; it is killed then.
    """
    from galip_bench.report import ColdStart  # not at the top: the process measured here would import it

    files = [str(path or "") for path in (models.checkpoint, models.bundle, models.plain_bundle)]
    arguments = [name, *files, prompt, str(batch), str(threads or 0)]
    started = time.time()
    try:
        process = subprocess.run(
            [sys.executable, "-m", "galip_bench.cold_start", *arguments],
            capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=max_seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"a fresh process with {name} took over {max_seconds:.0f} s") from error
    if process.returncode:
        lines = process.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise ProviderUnavailable(f"a fresh process with {name} failed and said: {lines[0]}")
    answer = json.loads(process.stdout.splitlines()[-1])
    times = [started, *answer["times"]]
    seconds = {stage: after - before for stage, before, after in zip(STAGES, times, times[1:], strict=False)}
    total = {"total": times[-1] - started}
    return ColdStart({**seconds, **total}, **{field: answer[field] for field in _PRINTED})


def main() -> None:
    """Load a subject, generate, and print the times and the memory as JSON."""
    name, checkpoint, bundle, plain, prompt, batch, threads = sys.argv[1:]
    from galip_bench.subjects import is_bundle, load

    if is_bundle(name):
        import galip_runtime.model  # noqa: F401
    else:
        from galip.clip import import_open_clip

        import_open_clip()
    imported = time.time()
    device_before = None if name.startswith(_WITHOUT_GPU) else _device_bytes()
    models = Models(Path(checkpoint), Path(bundle), Path(plain) if plain else None)
    model = load(name, models, int(threads) or None)
    loaded = time.time()
    model.generate(prompt, 0)
    times, cpu = [STARTED, imported, loaded, time.time()], time.process_time()
    model.generate(prompt, list(range(int(batch))), batch_size=int(batch))
    answer = {
        "times": times,
        "cpu_seconds": cpu,
        "peak_resident_bytes": _status("VmHWM") or _peak_resident(),
        "anonymous_bytes": _status("RssAnon"),
        "peak_device_bytes": None
        if device_before is None
        else (_device_bytes() or device_before) - device_before,
    }
    print(json.dumps(answer))


def _status(name: str) -> int | None:
    """Return a size in bytes that Linux says of this process; None on other systems."""
    try:  # not getrusage's maximum for the peak: a child inherits its parent's
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _peak_resident() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _device_bytes() -> int | None:
    """Return the memory in use on the first GPU that this process may use; None if unknown.

    onnxruntime and PyTorch keep what they allocate, so the end shows the peak.
    """
    try:
        import pynvml
    except ImportError:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    try:
        pynvml.nvmlInit()
        if visible.isdecimal():
            gpu = pynvml.nvmlDeviceGetHandleByIndex(int(visible))
        else:
            gpu = pynvml.nvmlDeviceGetHandleByUUID(visible)
        return int(pynvml.nvmlDeviceGetMemoryInfo(gpu).used)
    except pynvml.NVMLError:  # no GPU, no driver, or none that may be used
        return None


if __name__ == "__main__":
    main()
