"""A Ray cluster as the place where shards are generated: Ray Data, with one actor for each model.

Every node needs galip-runtime, and sees the prompts, the bundle and the set's folder under the same paths.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from galip_runtime.backends.tables import is_nvidia
from galip_runtime.errors import GalipError, ProviderUnavailable, UsageError
from galip_runtime.ray_cluster import quiet_data
from galip_runtime.sets.options import SetOptions
from galip_runtime.sets.plan import Shard, ShardIndex
from galip_runtime.sets.worker import Job, ModelFacts, ShardDone, ShardWorker, describe_model

__all__ = ["describe_on", "run_ray"]

_MAX_BLOCKS = 10_000
"""Tasks that Ray is given: of more shards a task has several, and skips those that are there."""
_MAX_ACTORS = 10_000
MAX_ATTEMPTS = 5
"""Times that a shard may end its worker, or be lost with a node."""
_ATTEMPTS = ".attempts-"


def describe_on(ray: ModuleType, options: SetOptions) -> ModelFacts:
    """Load the model on the cluster and return what the plan says of it.

    Raises as `describe_model`, and UsageError for a device with a number, since Ray gives out the GPUs.
    """
    if ":" in options.device and is_nvidia(options.device):
        raise UsageError(f"{options.device}: Ray gives each worker a GPU; leave out the number")
    task = ray.remote(**_resources(options.device, options.threads))(_outcome)
    facts: ModelFacts = _opened(ray.get(task.remote(describe_model, options)))
    return facts


def run_ray(
    ray: ModuleType,
    job: Job,
    index: ShardIndex,
    numbers: Sequence[int],
    done: Callable[[ShardDone], object],
) -> None:
    """Generate the shards `numbers` of `index` on the cluster, with as many actors as it has room for.

    `done` is called for each. What a node that died had is generated elsewhere. Raises what a worker raised.
    """
    quiet_data()
    resources = _resources(job.facts.device, job.threads)
    for left in job.options.out.glob(f"{_ATTEMPTS}*"):
        left.unlink(missing_ok=True)
    blocks = min(len(numbers), _MAX_BLOCKS)
    actors = min(blocks, _MAX_ACTORS)
    pending = ray.data.from_items([{"shard": number} for number in numbers], override_num_blocks=blocks)
    results = pending.map_batches(
        _ShardActor,
        fn_constructor_args=(job, index),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=actors,
            initial_size=min(actors, _room(ray, resources)),
            max_tasks_in_flight_per_actor=1,
        ),
        **resources,
    )
    for row in results.iter_rows():
        done(_opened(row["outcome"]))


def _resources(device: str, threads: int | None) -> dict[str, float]:
    return {"num_cpus": threads or 1, **({"num_gpus": 1} if is_nvidia(device) else {})}


def _room(ray: ModuleType, resources: Mapping[str, float]) -> int:
    """Return how many actors the cluster has room for now."""
    there = ray.cluster_resources()
    names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    return max(1, int(min(there.get(names[key], 0) // count for key, count in resources.items())))


class _ShardActor:
    """A worker as Ray Data calls it: columns with one row in, and out."""

    def __init__(self, job: Job, index: ShardIndex) -> None:
        self._index, self._out = index, job.options.out
        self._worker = _outcome(ShardWorker, job)

    def __call__(self, row: dict[str, Any]) -> dict[str, list[Any]]:
        """Generate the shard of the row. An error that we raised is the outcome: Ray does not try again.

        Where a worker or its node dies, Ray tries again without end: `_counted` sets one.
        """
        if isinstance(self._worker, GalipError):
            return {"outcome": [self._worker]}
        shard = self._index[int(row["shard"][0])]
        attempts = self._out / f"{_ATTEMPTS}{shard.number}"
        return {"outcome": [_outcome(_counted, attempts, self._worker.make, shard)]}


def _counted(attempts: Path, make: Callable[[Shard], ShardDone], shard: Shard) -> ShardDone:
    """Call `make(shard)`, with a byte in the file `attempts` for each time that it did not return.

    Raises ProviderUnavailable the sixth time.
    """
    with _storing(attempts), open(attempts, "ab") as file:
        file.write(b".")
        count = file.tell()
    if count > MAX_ATTEMPTS:
        raise ProviderUnavailable(
            f"workers died {MAX_ATTEMPTS} times while they generated shard {shard.number}; if memory ran "
            "out, let each have more CPUs with threads, so that fewer share a node"
        )
    done = make(shard)
    with _storing(attempts):
        attempts.unlink(missing_ok=True)
    return done


@contextmanager
def _storing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror or error}): every node needs the set's folder "
            "under the same path, on storage that they share"
        ) from error


def _outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except GalipError as error:
        return error


def _opened(outcome: Any) -> Any:
    if isinstance(outcome, GalipError):
        raise outcome
    return outcome
