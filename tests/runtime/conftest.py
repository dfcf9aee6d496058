"""Fixtures of the runtime's tests: stub bundles, and a model loaded from one."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for stub_bundle, error_checks and the like

import galip_runtime
from stub_bundle import make_stub_bundle


@pytest.fixture
def bundle(tmp_path):
    """A stub bundle for this test alone, which may damage it."""
    return make_stub_bundle(tmp_path / "bundle")


@pytest.fixture(scope="session")
def shared_bundle(tmp_path_factory):
    return make_stub_bundle(
        tmp_path_factory.mktemp("shared") / "bundle", precisions=("fp32", "fp16", "bf16", "int8")
    )


@pytest.fixture(scope="session")
def model(shared_bundle):
    return galip_runtime.load(shared_bundle, device="cpu", threads=1)
