"""`generate_set`: prompts from a file become a folder of pictures, in shards; what is there is left."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from galip_runtime.backends.tables import DEVICE_TABLE
from galip_runtime.errors import QualityGateFailed, UsageError
from galip_runtime.files import lock_folder, open_regular, remove_leftovers, sha256_rest
from galip_runtime.hardware import usable_cpus
from galip_runtime.image import check_target
from galip_runtime.ray_cluster import check_address, connect
from galip_runtime.sets.options import SetOptions
from galip_runtime.sets.plan import SET_FILE, ShardIndex, check_plan
from galip_runtime.sets.pool import run_local
from galip_runtime.sets.progress import SetProgress
from galip_runtime.sets.prompts import open_prompts
from galip_runtime.sets.shards import Names, read_failures
from galip_runtime.sets.worker import Job, ModelFacts, ShardDone, describe_model
from galip_runtime.signals import stop_as_ctrl_c

__all__ = ["SetResult", "generate_set"]

PARTIAL_FILE = ".partial"
"""There while shards are missing: galip's data layer then refuses the folder."""
_MOST_WORKERS = 8
_LISTED = 20
"""Pictures that an error lists."""


@dataclass(frozen=True)
class SetResult:
    """What a run of `generate_set` has done."""

    folder: Path
    pictures: int
    """of the whole set"""
    shards: int
    generated: int
    """pictures of this run"""
    failures: tuple[dict[str, Any], ...]
    """pictures that the set lacks, because they are not finite: the first twenty"""
    failed: int
    """how many there are"""
    seconds: float
    """of this run, from the first shard on"""
    device: str
    precision: str
    digest: str
    """of the bundle"""

    def summary(self) -> dict[str, Any]:
        """Return the result fit for JSON."""
        rate = self.generated / self.seconds if self.generated else None
        return {
            **vars(self),
            "folder": str(self.folder),
            "failures": list(self.failures),
            "pictures_per_second": rate,
        }

    def check(self) -> None:
        """Raise QualityGateFailed, listing them, if pictures are missing because they are not finite."""
        if not self.failed:
            return
        listed = [
            f"prompt {each['prompt_number']}, seed {each['seed']}: {each['prompt']!r:.60}"
            for each in self.failures
        ]
        if self.failed > len(listed):
            listed.append("…")
        raise QualityGateFailed(
            f"{self.failed:,} of {self.pictures:,} pictures are not finite and missing from {self.folder}; "
            "its *.failures.jsonl list them. Use precision fp32 and another folder, or export the bundle "
            "again",
            *listed,
        )


def generate_set(options: SetOptions, progress: SetProgress | None = None) -> SetResult:
    """Generate the pictures of a set that are not there yet, and return what was done.

    `progress`: a `SetProgress()` prints how far it is on stderr; None prints nothing.

    The set's bytes depend on prompts, options and bundle alone, not on workers, Ray or interruptions.
    Pictures that are not finite are left out: see `SetResult.check`. Raises UsageError for options or prompts
    that cannot be used, a folder that holds something else or cannot be written, or another run at work in
    it; FileRefused for a prompts file or a bundle that is broken or changes; ProviderUnavailable for a device
    that is not available, and where workers keep dying; ServiceUnavailable for a Ray cluster that does not
    answer. Ctrl-C and SIGTERM raise KeyboardInterrupt; the same call goes on from there.
    """
    progress = progress or SetProgress(silent=True)
    options = _absolute(options)
    if options.ray is not None:
        check_address(options.ray)
    source = open_prompts(options.prompts)
    index = ShardIndex.scan(source, options, progress.reading)
    with open_regular(options.prompts) as file:
        sha256 = sha256_rest(file)
    with progress, _locked(options.out), _engine(options) as ray, stop_as_ctrl_c():
        check_target(options.out / f"picture.{options.format}")
        _check_folder(options.out)
        facts = _describe(ray, options)
        check_plan(options.out, _plan(options, index, sha256, facts))
        names = Names(len(index), index.pictures, options.layout)
        return _run(ray, options, index, names, facts, progress)


def _run(
    ray: Any, options: SetOptions, index: ShardIndex, names: Names, facts: ModelFacts, progress: SetProgress
) -> SetResult:
    """Generate what is missing."""
    present = names.present(options.out)
    missing = [number for number in range(len(index)) if number not in present]
    generated = sum(index[number].count for number in missing)
    started = time.perf_counter()
    progress.start(index.pictures, index.pictures - generated)
    if missing:
        with _partial(options.out):
            _generate(ray, options, index, missing, names, facts, progress)
    return SetResult(
        options.out,
        index.pictures,
        len(index),
        generated,
        tuple(islice(read_failures(options.out), _LISTED)),
        sum(1 for _ in read_failures(options.out)),
        time.perf_counter() - started,
        facts.device,
        facts.precision,
        facts.digest,
    )


def _generate(
    ray: Any,
    options: SetOptions,
    index: ShardIndex,
    missing: Sequence[int],
    names: Names,
    facts: ModelFacts,
    progress: SetProgress,
) -> None:
    """Generate the shards `missing` on the cluster, or by processes here."""
    note = progress.note_once()

    def done(shard: ShardDone) -> None:
        if shard.cut:
            note(f"a {shard.cut}")
        if ray is not None:
            progress.add(shard.pictures)

    if ray is not None:
        from galip_runtime.sets.cluster import run_ray

        run_ray(ray, Job(options, names, facts, options.threads or 1), index, missing, done)
        return
    workers = min(len(missing), options.workers or _default_workers(facts.device))
    threads = options.threads or max(1, usable_cpus() // workers)
    shards = (index[number] for number in missing)
    run_local(Job(options, names, facts, threads), shards, workers, done, progress.add)


def _absolute(options: SetOptions) -> SetOptions:
    """Return the options with paths that hold in other processes."""
    bundle = None if options.bundle is None else options.bundle.absolute()
    return replace(options, prompts=options.prompts.absolute(), out=options.out.absolute(), bundle=bundle)


def _default_workers(device: str) -> int:
    """Return how many processes to start: one for two CPUs; on other hardware, one."""
    row = DEVICE_TABLE.get(device)  # none for a device with a number
    if row is not None and row.hardware == "CPU":
        return min(_MOST_WORKERS, max(1, usable_cpus() // 2))
    return 1


def _engine(options: SetOptions) -> AbstractContextManager[Any]:
    """Connect to Ray if it is asked for; otherwise yield None."""
    if options.ray is None:
        return nullcontext()
    return connect(options.ray)


def _describe(ray: Any, options: SetOptions) -> ModelFacts:
    if ray is None:
        return describe_model(options)
    from galip_runtime.sets.cluster import describe_on

    return describe_on(ray, options)


def _plan(options: SetOptions, index: ShardIndex, sha256: str, facts: ModelFacts) -> dict[str, Any]:
    """Return the record of what is generated: all that decides over a byte, and what it was made with."""
    return {
        "format_version": 1,
        "prompts": {"name": options.prompts.name, "sha256": sha256, "count": index.prompts},
        "pictures": index.pictures,
        "shards": len(index),
        "shard_size": options.shard_size,
        "count": options.count,
        "seeds": None if options.seeds is None else list(options.seeds),
        "seed": options.first_seed,
        "truncation": options.truncation,
        "format": options.format,
        "layout": options.layout,
        "bundle": facts.digest,
        "device": facts.device,
        "precision": facts.precision,
        "size": list(facts.size),
        "parity": facts.parity,
        "versions": facts.versions,
    }


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Create the folder and lock it. The system frees the lock of a process that dies. Raises UsageError."""
    was_there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder)
    except BlockingIOError as error:
        raise UsageError(
            f"another run is at work in {folder}; wait for its end, or name another folder"
        ) from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        remove_leftovers(folder)
        yield
    finally:
        remove_leftovers(folder)
        if not was_there:
            with suppress(OSError):  # something is in it
                folder.rmdir()
        if lock is not None:
            os.close(lock)


def _check_folder(folder: Path) -> None:
    """Raise UsageError for a folder that holds something other than a set."""
    if not (folder / SET_FILE).exists():
        others = [name for name in os.listdir(folder) if not name.startswith(".")]
        if others:
            raise UsageError(
                f"{folder} holds something else ({min(others)}); name an empty folder or a new one"
            )


@contextmanager
def _partial(folder: Path) -> Iterator[None]:
    """Mark the folder as unfinished until the block has ended well."""
    mark = folder / PARTIAL_FILE
    try:
        mark.touch()
    except OSError as error:
        raise _unwritable(folder, error) from error
    yield
    mark.unlink(missing_ok=True)


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"{folder} cannot be written to ({error.strerror or error}); name another folder")
