"""The tests for GPUs, run on a stand-in GPU: a machine without one shows that they run and can fail."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.long
def test_the_gpu_tests_pass_on_a_stand_in():
    call = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        TESTS / "gpu",
    ]
    environment = {**os.environ, "GALIP_GPU": "stand-in"}
    process = subprocess.run(
        call, env=environment, capture_output=True, text=True, timeout=500, cwd=TESTS.parent
    )
    assert process.returncode == 0, process.stdout[-4000:]
    assert int(re.search(r"(\d+) passed", process.stdout)[1]) >= 20
    skipped = [line for line in process.stdout.splitlines() if line.startswith("SKIPPED")]
    assert any("TensorRT" in line for line in skipped)  # pytest lists them with their reason
