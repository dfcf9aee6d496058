"""Names of 0.1 keep working for a release, with a warning."""

import sys
from importlib import import_module

import galip_runtime
import pytest
from galip_runtime._renamed import _RENAMED


@pytest.mark.parametrize(("old", "new"), _RENAMED.items())
def test_a_module_under_its_old_name_is_the_module(monkeypatch, old, new):
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
        module = import_module(old)
    assert module is import_module(new)
    assert module.__name__ == new


def test_other_names():
    with pytest.warns(DeprecationWarning, match="TextToImage"):
        assert galip_runtime.Drawer is galip_runtime.TextToImage
    manifest = import_module("galip_runtime.bundle.manifest")
    with pytest.warns(DeprecationWarning, match="file_signature"):
        assert manifest.stamp is manifest.file_signature
    hardware = import_module("galip_runtime.hardware")
    with pytest.warns(DeprecationWarning, match="driver_cuda_version"):
        assert hardware.driver is hardware.driver_cuda_version
    with pytest.raises(AttributeError, match="nothing"):
        _ = manifest.nothing
    with pytest.raises(ModuleNotFoundError):
        import_module("galip_runtime.nothing")
