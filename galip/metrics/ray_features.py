"""Features of pictures on a Ray cluster: its machines share the pictures, and this process adds up the parts.

Each worker opens what `galip evaluate` evaluates from its paths, and extracts the features of parts: runs of
consecutive pictures. How the pictures are divided depends on their number alone, and parts are added up in
order: the figures don't depend on how many workers there are, or on which of them does what.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from galip_runtime.errors import ProviderUnavailable, ServiceUnavailable
from galip_runtime.ray_cluster import quiet_data

from galip.metrics.config import EvaluationConfig
from galip.metrics.features import MAX_FEATURES_KEPT, PictureFeatures
from galip.metrics.pictures import MAX_EXAMPLES, Pictures, StoredPictures
from galip.metrics.ray_worker import Opened, Part, Task, Worker, facts_of

if TYPE_CHECKING:
    from galip.metrics.clip_encoder import ClipEncoder
    from galip.metrics.inception import Inception

__all__ = ["ClusterExtract", "part_ranges"]

MOST_PARTS_OF_FEW = 64
PICTURES_OF_PART = 8192
"""At most. A part's statistics are 34 MB, whatever the number of its pictures."""
MOST_CPUS = 8
"""Of a worker without a GPU; more workers are faster than more threads."""


def part_ranges(count: int, batch_size: int) -> list[range]:
    """Divide the numbers below `count` into consecutive parts of whole batches: many, but not tiny ones."""
    batches = -(-count // batch_size)
    of_part = min(-(-batches // MOST_PARTS_OF_FEW), max(1, PICTURES_OF_PART // batch_size))
    size = batch_size * max(1, of_part)
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


class ClusterExtract:
    """Extracts features on the cluster that this process is connected to, as `extract_features` does here."""

    def __init__(self, evaluation: Opened, which: str) -> None:
        """`which`: `subject` or `reference` of the evaluation."""
        self._evaluation, self._which = evaluation, which

    def __call__(
        self,
        pictures: Pictures,
        count: int,
        *,
        inception: Inception | None,
        clip: ClipEncoder | None,
        keep: bool = False,
        batch_size: int = 32,
        progress: Callable[[int], object] = lambda done: None,
    ) -> PictureFeatures:
        """Return features of the first `count` pictures; `pictures` records what the workers left out.

        Raises what a worker raised, with its machine's name, `ProviderUnavailable` without machines that can
        work or if they draw on different devices, and `ServiceUnavailable` if the cluster fails.
        """
        config = replace(self._evaluation.config, batch_size=batch_size)
        facts = facts_of(self._evaluation)
        task = Task(
            type(self._evaluation), config, facts, self._which, inception is not None, clip is not None, keep
        )
        ranges = part_ranges(min(count, len(pictures)), batch_size)
        whole = PictureFeatures.joined(_collect(task, ranges, pictures, progress))
        kept = _rows_kept(count, batch_size, whole.dropped)
        return replace(whole, features=whole.features[:kept])


def _collect(
    task: Task, ranges: list[range], pictures: Pictures, progress: Callable[[int], object]
) -> Iterator[PictureFeatures]:
    """Yield the parts' features in order, and record in `pictures` what was left out."""
    runs_on = None
    for numbers, part in zip(ranges, _run(task, ranges), strict=True):
        if part.error is not None:
            raise type(part.error)(f"{part.machine}: {part.error}") from part.error
        if runs_on not in (None, part.runs_on):
            raise ProviderUnavailable(
                f"{part.machine} draws on {part.runs_on}, another machine on {runs_on}: their pictures "
                "differ. Name a device that all machines have with --device, and a precision with --precision"
            )
        runs_on = part.runs_on
        assert part.features is not None
        pictures.dropped.update(part.features.dropped)
        if isinstance(pictures, StoredPictures):
            pictures.examples.extend(part.examples[: MAX_EXAMPLES - len(pictures.examples)])
        progress(numbers.stop)
        yield part.features


def _run(task: Task, ranges: list[range]) -> Iterator[Part]:
    """Yield the parts in order, while the cluster works on the next ones."""
    import ray.data
    from ray.data.exceptions import SystemException, UserCodeException
    from ray.exceptions import RayError

    quiet_data()
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    workers, resources = _workers(task.config, ray.nodes())
    rows = [{"first": numbers.start, "last": numbers.stop} for numbers in ranges]
    workers = min(workers, len(rows))
    parts = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Worker,
        fn_constructor_args=(replace(task, config=_for_workers(task.config, resources["num_cpus"])),),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
        **resources,
    )
    try:
        for row in parts.iter_rows():
            yield pickle.loads(row["part"])  # our own worker's
    except (RayError, SystemException, UserCodeException) as error:
        raise ServiceUnavailable(
            f"the cluster could not do its part ({_last_line(error)}); galip has to be installed on all of "
            "its machines, in the same version, and Ray's logs there tell more"
        ) from error


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1][:300]


def _rows_kept(count: int, batch_size: int, dropped: Sequence[int]) -> int:
    """Return how many pictures' features one machine would keep: those of whole batches."""
    is_used = np.ones(count, bool)
    is_used[list(dropped)] = False
    ends = np.minimum(np.arange(batch_size, count + batch_size, batch_size), count)
    used = np.cumsum(is_used)[ends - 1]
    return int(used[used <= MAX_FEATURES_KEPT].max(initial=0))


def _workers(config: EvaluationConfig, nodes: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """Return how many workers the cluster's nodes have room for, and the CPUs and GPUs of each.

    With GPUs in the cluster, and unless `device` is cpu, a worker has one; otherwise some CPUs of one node.
    Raises `ProviderUnavailable` if there is room for none.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = sum(int(each.get("GPU", 0)) for each in resources)
    if gpus and config.device != "cpu":
        return gpus, {"num_cpus": 1, "num_gpus": 1}
    cpus = [int(each["CPU"]) for each in resources if each.get("CPU", 0) >= 1]
    if not cpus:
        raise ProviderUnavailable(
            "no machine of the cluster offers a CPU; start one with ray start --num-cpus"
        )
    of_worker = config.threads or min(*cpus, MOST_CPUS)
    workers = sum(each // of_worker for each in cpus)
    if not workers:
        raise ProviderUnavailable(
            f"no machine of the cluster has {of_worker} CPUs, which --threads asks for; the largest has "
            f"{max(cpus)}"
        )
    return workers, {"num_cpus": of_worker}


def _for_workers(config: EvaluationConfig, threads: int) -> EvaluationConfig:
    """Return the configuration with the paths that the workers open, whose current folder is another."""

    def absolute(path: str) -> str:
        return str(Path(path).absolute()) if path and Path(path).exists() else path

    return replace(
        config,
        subject=absolute(config.subject),
        against=absolute(config.against),
        captions=absolute(config.captions),
        clip=absolute(config.clip),
        inception=absolute(config.inception),
        threads=threads,
        save_statistics="",
        ray="",
    )
