"""Sets on a Ray cluster of several nodes, all on this machine."""

import importlib.util
import sys
from pathlib import Path

import galip_runtime.sets.cluster
import pytest
from galip_runtime.errors import ProviderUnavailable, UsageError
from galip_runtime.sets import SetOptions, generate_set
from galip_runtime.sets.progress import SetProgress
from ray_nodes import nodes_of_ray
from stub_bundle import make_stub_bundle

pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason=f"Ray has no wheel for Python {sys.version_info[:2]}"
    ),
]
SHARDS = 30


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("".join(f"a red apple, number {n}\n" for n in range(20 * SHARDS)))
    return path


@pytest.fixture
def options(shared_bundle, prompts, tmp_path):
    def choose(folder="set", **changes):
        values = {"prompts": prompts, "out": tmp_path / folder, "bundle": shared_bundle, "device": "cpu"}
        return SetOptions(**{**values, "shard_size": 20, "precision": "fp32", **changes})

    return choose


@pytest.fixture(scope="module")
def cluster():
    """Three nodes of one CPU each, besides the head."""
    with nodes_of_ray(count=3) as cluster:
        yield cluster


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class KillingANode(SetProgress):
    """Kills a node, and with it its worker, once all CPUs of the cluster have work."""

    def __init__(self, cluster):
        super().__init__()
        self.cluster, self.killed_at = cluster, None
        self.pictures = 0

    def add(self, pictures):
        import ray

        super().add(pictures)
        self.pictures += pictures
        if self.killed_at is None and not ray.available_resources().get("CPU"):
            self.killed_at = self.pictures
            self.cluster.remove_node(self.cluster.worker_nodes.copy().pop(), allow_graceful=False)


@pytest.mark.slow
def test_a_node_killed_in_the_middle(cluster, options):
    """And the bytes are those of a run in processes."""
    alone, together = options("alone", workers=1), options("together", ray=cluster.address)
    generate_set(alone)
    progress = KillingANode(cluster)
    result = generate_set(together, progress)
    assert progress.killed_at is not None
    assert progress.killed_at < result.pictures
    assert progress.pictures == result.generated == 20 * SHARDS
    assert contents(together.out) == contents(alone.out)
    for number in (3, 4, 29):
        (together.out / f"{number:06d}.tar").unlink()
    assert generate_set(together).generated == 60
    assert contents(together.out) == contents(alone.out)
    assert generate_set(together).generated == 0


def test_an_error_of_a_worker_arrives(cluster, options, tmp_path):
    with pytest.raises(UsageError, match="precision 'fp16' makes no sense on cpu"):
        generate_set(options(ray=cluster.address, precision="fp16"))
    assert not options().out.exists()
    chosen = options(ray=cluster.address)

    class InTheWay(SetProgress):
        def start(self, total, done):
            (chosen.out / "000029.failures.jsonl").mkdir()

    nan = make_stub_bundle(tmp_path / "nan", nan=True)
    with pytest.raises(UsageError, match=r"000029\.failures\.jsonl cannot be written"):
        generate_set(options(ray=cluster.address, bundle=nan), InTheWay())


def test_a_device_with_a_number(cluster, options):
    with pytest.raises(UsageError, match="Ray gives each worker a GPU; leave out the number"):
        generate_set(options(ray=cluster.address, device="cuda:1"))


def test_a_shard_that_its_worker_never_survives(tmp_path):
    def killed(shard):
        raise KeyboardInterrupt

    class Shard:
        number = 7

    attempts = tmp_path / ".attempts-7"
    for _ in range(galip_runtime.sets.cluster.MAX_ATTEMPTS):
        with pytest.raises(KeyboardInterrupt):
            galip_runtime.sets.cluster._counted(attempts, killed, Shard)
    with pytest.raises(ProviderUnavailable, match="workers died 5 times while they generated shard 7"):
        galip_runtime.sets.cluster._counted(attempts, killed, Shard)
    attempts.unlink()
    assert galip_runtime.sets.cluster._counted(attempts, lambda shard: shard.number, Shard) == 7
    assert not attempts.exists()


def test_an_address_is_checked_before_the_prompts_are_read(options):
    with pytest.raises(UsageError, match="no address of a Ray cluster"):
        generate_set(options(ray="nonsense", prompts=Path("missing.txt")))
