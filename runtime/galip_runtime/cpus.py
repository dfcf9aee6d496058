"""How many CPUs this process may use: what the scheduler allows, less what a container's quota takes away."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["usable_cpus"]


def usable_cpus(root: Path = Path("/")) -> int:
    """Whole CPUs, at least 1. `root` is where `/proc` and `/sys` are."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(int(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """CPUs that each control group around this process allows; nothing where there is no limit."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux, or /proc is hidden
        return
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2: one file, "QUOTA PERIOD" or "max PERIOD"
            for folder in _around(root / "sys/fs/cgroup", group):
                yield from _ratio(_words(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):  # version 1: two files, quota -1 without a limit
            for folder in _around(root / "sys/fs/cgroup/cpu", group):
                yield from _ratio(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))


def _around(mount: Path, group: str) -> Iterator[Path]:
    """The group's folder and all above it; inside a container only the outermost may exist."""
    inner = mount.joinpath(*(part for part in PurePosixPath(group).parts if part not in ("/", "..")))
    yield inner
    while inner != mount:
        inner = inner.parent
        yield inner


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # the group has no such limit, or lies outside this container
        return []


def _ratio(words: list[str]) -> Iterator[float]:
    if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]) > 0:
        yield int(words[0]) / int(words[1])
