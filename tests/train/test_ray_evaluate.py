"""`galip evaluate --ray` on a cluster of several nodes on this machine: the figures of one machine."""

import json
import shutil
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


def test_every_metric_is_that_of_one_machine(config, cluster, tmp_path):
    captions = tmp_path / "captions.txt"
    captions.write_text("".join(f"box number {index}\n" for index in range(110)))
    whole = config(metrics=tuple(METRICS), captions=str(captions), count=110, cache=False)
    whole = replace(whole, metrics=tuple(name for name in METRICS if name != "retrieval"))
    expected = evaluate(whole)
    report = evaluate(replace(whole, ray=cluster.address))
    assert report.figures == pytest.approx(expected.figures, rel=1e-6, abs=1e-6)
    assert report.subject == expected.subject
    assert report.reference == expected.reference
    json.dumps(report.figures)
