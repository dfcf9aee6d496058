"""Cold start and memory of a subject, each in a process of its own: `python -m galip_bench.fresh NAME …`.

The process prints, as JSON, when it had come how far (seconds since the epoch) and its peak memory; `measure`
starts it and tells how long each took.
"""

import time

STARTED = time.time()  # before anything is imported

import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

from galip_runtime.errors import ProviderUnavailable  # noqa: E402

from galip_bench.config import Models  # noqa: E402

__all__ = ["Fresh", "main", "measure"]

ON_CPU = ("bundle-cpu", "bundle-openvino", "plain-cpu", "plain-openvino")
_MEASURED = ("cpu_seconds", "peak_resident_bytes", "anonymous_bytes", "peak_device_bytes")
STAGES = ("start", "import", "load", "first_picture")


@dataclass(frozen=True)
class Fresh:
    """Of one process."""

    seconds: dict[str, float]
    """`STAGES`: process start, imports, loading, the first picture; and their `total`."""
    cpu_seconds: float
    """Of all threads, from the process's start to its first picture."""
    peak_resident_bytes: int
    """After `batch` pictures at once."""
    anonymous_bytes: int | None
    """What is resident at the end and no file's, which the system could not read again; None if unknown."""
    peak_device_bytes: int | None
    """What the GPU has less of after them than before loading: context and libraries are in it. None without
    a GPU, and without the package nvidia-ml-py.
    """


def measure(name: str, models: Models, *, prompt: str, batch: int = 1, threads: int | None = None) -> Fresh:
    """Start a process for the subject `name` and wait for its first picture and its peak memory.

    Raises `ProviderUnavailable`, with what the process said, where it fails.
    """
    files = [str(path or "") for path in (models.checkpoint, models.bundle, models.plain_bundle)]
    arguments = [name, *files, prompt, str(batch), str(threads or 0)]
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "galip_bench.fresh", *arguments],
        capture_output=True, encoding="utf-8", errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise ProviderUnavailable(f"a fresh process with {name} failed and said: {said[0]}")
    told = json.loads(done.stdout.splitlines()[-1])
    times = [began, *told["times"]]
    seconds = {stage: after - before for stage, before, after in zip(STAGES, times, times[1:], strict=False)}
    total = {"total": times[-1] - began}
    return Fresh({**seconds, **total}, **{name: told[name] for name in _MEASURED})


def main() -> None:
    """What the fresh process does."""
    name, checkpoint, bundle, plain, prompt, batch, threads = sys.argv[1:]
    from galip_bench.subjects import is_bundle, load

    if is_bundle(name):
        import galip_runtime.model  # noqa: F401
    else:
        from galip.clip import import_open_clip

        import_open_clip()
    imported = time.time()
    taken = None if name.startswith(ON_CPU) else _device_bytes()
    models = Models(Path(checkpoint), Path(bundle), Path(plain) if plain else None)
    drawer = load(name, models, int(threads) or None)
    loaded = time.time()
    drawer.generate(prompt, 0)
    times, cpu = [STARTED, imported, loaded, time.time()], time.process_time()
    drawer.generate(prompt, list(range(int(batch))), batch_size=int(batch))
    report = {
        "times": times,
        "cpu_seconds": cpu,
        "peak_resident_bytes": _status("VmHWM") or _peak_resident(),
        "anonymous_bytes": _status("RssAnon"),
        "peak_device_bytes": None if taken is None else (_device_bytes() or taken) - taken,
    }
    print(json.dumps(report))


def _status(name: str) -> int | None:
    """Bytes that Linux says of this process; None elsewhere."""
    try:  # for its peak not getrusage's maximum, which a child takes over from its parent
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _peak_resident() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _device_bytes() -> int | None:
    """Memory taken of the first GPU that this process may use; what it was given, it keeps."""
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
