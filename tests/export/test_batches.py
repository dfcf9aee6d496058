"""A picture of an exported model does not depend on what it is made together with."""

import pytest
from batches import check_batches
from galip_export import export_bundle

from galip.assets import default_bundle


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_of_a_tiny_model(tiny_export, device, threads):
    check_batches(tiny_export.bundle, device, threads)


@pytest.fixture(scope="module")
def plain(tiny_checkpoint, tmp_path_factory):
    return export_bundle(
        tiny_checkpoint, tmp_path_factory.mktemp("bundles") / "plain", rewrites="none"
    ).bundle


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_without_rewrites(plain, device):
    check_batches(plain, device)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_of_the_shipped_model(device, threads):
    check_batches(default_bundle(), device, threads, precision="w16a32")
