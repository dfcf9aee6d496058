"""The tests for GPUs, on a GPU that is none: that they would run, and find what is wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
def test_they_pass_on_a_stand_in():
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
    done = subprocess.run(
        call, env=environment, capture_output=True, text=True, timeout=500, cwd=TESTS.parent
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 20
    assert "SKIPPED" in done.stdout
    assert "TensorRT has no stand-in" in done.stdout  # what is skipped is told, and why
