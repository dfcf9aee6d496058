"""Names of 0.1 keep working for a release, with a warning."""

import re
import sys
from importlib import import_module

import galip_runtime
import pytest
from error_checks import assert_names
from galip_runtime._renamed import _RENAMED


@pytest.mark.parametrize(("old", "new"), _RENAMED.items())
def test_the_old_name_of_a_module(monkeypatch, old, new):
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=re.escape(new)) as warnings:
        module = import_module(old)
    assert_names(str(warnings[0].message), old, new)
    assert module is import_module(new)
    assert module.__name__ == new


def test_old_names_within_modules():
    with pytest.warns(DeprecationWarning, match="TextToImage"):
        assert galip_runtime.Drawer is galip_runtime.TextToImage
    manifest = import_module("galip_runtime.bundle.manifest")
    with pytest.warns(DeprecationWarning, match="file_signature"):
        assert manifest.stamp is manifest.file_signature
    hardware = import_module("galip_runtime.hardware")
    with pytest.warns(DeprecationWarning, match="driver_cuda_version"):
        assert hardware.driver is hardware.driver_cuda_version
    with pytest.raises(AttributeError) as info:
        _ = manifest.nothing
    assert_names(str(info.value), "nothing")
    with pytest.raises(ModuleNotFoundError):
        import_module("galip_runtime.nothing")
