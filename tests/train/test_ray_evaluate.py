"""`galip evaluate --ray` on a cluster of several nodes on this machine: the figures of one machine."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from galip_runtime.errors import (
    FileRefused,
    ProviderUnavailable,
    QualityGateFailed,
    ServiceUnavailable,
    UsageError,
)
from PIL import Image
from ray_nodes import nodes_of_ray

from galip.early_checks import check_evaluation
from galip.metrics import EvaluationConfig, evaluate
from galip.metrics.features import MAX_FEATURES_KEPT
from galip.metrics.ray_features import PICTURES_OF_PART, _rows_kept, _workers, part_ranges
from galip.metrics.registry import METRICS

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def cluster():
    with nodes_of_ray() as cluster:
        yield cluster


@pytest.fixture
def config(tiny_checkpoint, tiny_data, small_inception, tmp_path, monkeypatch):
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))

    def make(**changes):
        options = {
            "subject": str(tiny_checkpoint),
            "against": str(tiny_data),
            "inception": str(small_inception),
        }
        return EvaluationConfig(**options | {"count": 21, "batch_size": 6, "device": "cpu", **changes})

    return make


@pytest.fixture
def captioned(tmp_path):
    """A data set of 120 pictures, each with a caption of its own; one is broken."""
    folder = tmp_path / "captioned"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(120):
        Image.fromarray(rng.integers(0, 256, (28, 28, 3), np.uint8)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"box number {index}")
    (folder / "7.png").write_bytes(b"broken")
    return folder


@pytest.mark.slow
def test_every_metric_is_that_of_one_machine(config, cluster, captioned):
    """Also of a reference of which a picture is left out."""
    whole = config(metrics=tuple(METRICS), against=str(captioned), count=110, cache=False)
    expected = evaluate(whole)
    report = evaluate(replace(whole, ray=cluster.address))
    assert {"fid", "kid", "precision", "clip_score", "retrieval_real", "seed_psnr"} <= report.figures.keys()
    assert report.figures == pytest.approx(expected.figures, rel=1e-6, abs=1e-6)
    assert (report.subject, report.reference) == (expected.subject, expected.reference)
    assert report.warnings == expected.warnings
    assert any("7.png" in warning for warning in report.warnings)


@pytest.mark.long
def test_a_bundle_and_a_folder_of_pictures(
    config, cluster, captioned, tiny_checkpoint, tmp_path, monkeypatch
):
    """From relative paths, which mean nothing to the workers."""
    from galip_export import export_bundle

    export_bundle(tiny_checkpoint, tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    for subject in ("bundle", "captioned"):
        whole = config(metrics=("fid",), subject=subject, count=None if subject == "captioned" else 13)
        expected = evaluate(replace(whole, cache=False))
        report = evaluate(replace(whole, cache=False, ray=cluster.address))
        assert report.figures == pytest.approx(expected.figures, rel=1e-6)
        assert report.subject == expected.subject


@pytest.mark.long
def test_a_node_that_is_killed_in_the_middle(config, tmp_path):
    captions = tmp_path / "captions.txt"
    captions.write_text("".join(f"box number {index}\n" for index in range(200)))
    whole = config(captions=str(captions), count=200, cache=False)
    expected = evaluate(whole)
    done = []
    with nodes_of_ray() as cluster:
        victim = next(iter(cluster.worker_nodes))

        def kill(stage, number, total):
            if stage == "evaluating pictures" and not done:
                cluster.remove_node(victim, allow_graceful=False)
            done.append((stage, number))

        report = evaluate(replace(whole, ray=cluster.address), progress=kill)
    assert report.figures == pytest.approx(expected.figures, rel=1e-6)
    counts = [number for stage, number in done if stage == "evaluating pictures"]
    assert counts == sorted(set(counts))
    assert counts[-1] == 200


@pytest.mark.slow
def test_other_files_on_a_machine_are_refused(config, cluster, monkeypatch):
    from galip.metrics import ray_features

    facts = ray_features.facts_of
    monkeypatch.setattr(
        ray_features, "facts_of", lambda evaluation: facts(evaluation) | {"Inception": "other"}
    )
    with pytest.raises(FileRefused, match=r": there is another Inception than"):
        evaluate(config(ray=cluster.address, cache=False))


@pytest.mark.slow
def test_too_many_broken_pictures_fail_as_on_one_machine(config, cluster, captioned):
    for index in range(20):
        (captioned / f"{index}.png").write_bytes(b"broken")
    with pytest.raises(QualityGateFailed, match=r"\b20 of 120\b"):
        evaluate(config(subject=str(captioned), metrics=("fid",), count=None, ray=cluster.address))


def test_an_address_where_nothing_answers(config):
    with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1:1 .*--ray local") as caught:
        evaluate(config(ray="127.0.0.1:1"))
    assert caught.value.exit_code == 5


def test_mistakes_are_told_early(config, monkeypatch):
    for address in ("nonsense", "ray://head:10001", "head:", ":6379", "head:99999", "head:６３７９"):
        with pytest.raises(UsageError, match=address):
            check_evaluation(config(ray=address))
    check_evaluation(config(ray="head:6379"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="torchrun"):
        check_evaluation(config(ray="head:6379"))
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr("galip.early_checks.find_spec", lambda name: None)
    with pytest.raises(ProviderUnavailable, match="--ray"):
        check_evaluation(config(ray="auto"))


@pytest.mark.parametrize(
    ("count", "batch_size"), [(1, 32), (20, 6), (10_000, 32), (10_000_000, 32), (9000, 9000)]
)
def test_parts_are_whole_batches_of_consecutive_pictures(count, batch_size):
    parts = part_ranges(count, batch_size)
    assert [number for part in parts[:3] for number in part] == list(range(parts[:3][-1].stop))
    assert all(first.stop == second.start for first, second in itertools.pairwise(parts))
    assert (parts[0].start, parts[-1].stop) == (0, count)
    assert all(part.start % batch_size == 0 for part in parts)
    assert max(map(len, parts)) <= max(PICTURES_OF_PART, batch_size)
    assert len(parts) <= 64 or len(parts[0]) > PICTURES_OF_PART - batch_size


def test_as_many_features_are_kept_as_on_one_machine():
    assert _rows_kept(20, 6, ()) == 20
    most = MAX_FEATURES_KEPT
    assert _rows_kept(most + 100, 32, ()) == most // 32 * 32
    assert _rows_kept(most + 100, 32, (0, most + 50)) == (most + 1) // 32 * 32 - 1


def test_a_worker_fits_on_a_node(config):
    def nodes(*resources):
        return [{"Alive": True, "Resources": each} for each in resources]

    cpus = nodes({"CPU": 16.0}, {"CPU": 4.0}, {})
    assert _workers(config(), cpus) == (5, {"num_cpus": 4})
    assert _workers(config(threads=16), cpus) == (1, {"num_cpus": 16})
    gpus = nodes({"CPU": 16.0, "GPU": 2.0}, {"CPU": 4.0})
    assert _workers(config(device="auto"), gpus) == (2, {"num_cpus": 1, "num_gpus": 1})
    assert _workers(config(device="cpu"), gpus) == (5, {"num_cpus": 4})
    for threads, machines in ((None, nodes({}, {"CPU": 0.0})), (17, cpus)):
        with pytest.raises(ProviderUnavailable):
            _workers(config(threads=threads), machines)
