"""Cold start and memory of a subject, each in a process of its own: `python -m galip_bench.fresh NAME …`.

The process prints, as JSON, when it had come how far (seconds since the epoch) and its peak memory; `measure`
starts it and tells how long each took.
"""

import time

STARTED = time.time()  # before anything is imported

import json  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

from galip_runtime.errors import ProviderUnavailable  # noqa: E402

__all__ = ["Fresh", "main", "measure"]

STAGES = ("start", "import", "load", "first_picture")


@dataclass(frozen=True)
class Fresh:
    """Of one process."""

    seconds: dict[str, float]
    """`STAGES`: process start, imports, loading, the first picture; and their `total`."""
    peak_resident_bytes: int
    """After `batch` pictures at once."""
    peak_device_bytes: int | None
    """As PyTorch counts it, of eager subjects on CUDA; None where nobody counts."""


def measure(
    name: str, checkpoint: Path, bundle: Path, *, prompt: str, batch: int = 1, threads: int | None = None
) -> Fresh:
    """Start a process for the subject `name` and wait for its first picture and its peak memory.

    Raises `ProviderUnavailable`, with what the process said, where it fails.
    """
    arguments = [name, str(checkpoint), str(bundle), prompt, str(batch), str(threads or 0)]
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "galip_bench.fresh", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise ProviderUnavailable(f"a fresh process with {name} failed and said: {said[0]}")
    told = json.loads(done.stdout.splitlines()[-1])
    times = [began, *told["times"]]
    seconds = {stage: after - before for stage, before, after in zip(STAGES, times, times[1:], strict=False)}
    total = {"total": times[-1] - began}
    return Fresh({**seconds, **total}, told["peak_resident_bytes"], told["peak_device_bytes"])


def main() -> None:
    """What the fresh process does."""
    name, checkpoint, bundle, prompt, batch, threads = sys.argv[1:]
    from galip_bench.subjects import load

    if name.startswith("bundle-"):
        import galip_runtime.pipeline  # noqa: F401
    else:
        import galip.eager  # noqa: F401
    imported = time.time()
    drawer = load(name, Path(checkpoint), Path(bundle), int(threads) or None)
    loaded = time.time()
    drawer.generate(prompt, 0)
    times = [STARTED, imported, loaded, time.time()]
    drawer.generate(prompt, list(range(int(batch))), batch_size=int(batch))
    report = {
        "times": times,
        "peak_resident_bytes": _peak_resident(),
        "peak_device_bytes": _peak_device(),
    }
    print(json.dumps(report))


def _peak_resident() -> int:
    try:  # not getrusage's maximum, which a child takes over from its parent
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    (peak_line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(peak_line.split()[1]) * 1024


def _peak_device() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())


if __name__ == "__main__":
    main()
