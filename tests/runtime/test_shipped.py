"""The shipped model's bundle: `load` without a path."""

import pickle
import shutil
import sys

import galip_runtime
import numpy as np
import pytest
from error_checks import expect_error
from galip_runtime import FileRefused, ProviderUnavailable, UsageError, shipped


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """A copy of the shipped bundle in its place, for a test to damage."""
    copy = tmp_path / "bundle"
    shutil.copytree(shipped.default_bundle(), copy)
    monkeypatch.setattr("galip_runtime.loading.default_bundle", lambda: copy)
    return copy


@pytest.fixture(scope="module")
def model():
    return galip_runtime.load(device="cpu", threads=1)


def test_without_a_path_it_is_the_shipped_model(model):
    assert model.path == shipped.default_bundle()
    assert model.info()["source"]["name"] == "default.safetensors"
    pictures = model.generate(["a red heart, flat style"], seeds=[7, 8])
    assert pictures.shape == (2, 128, 128, 3)
    same = galip_runtime.load(shipped.default_bundle(), device="cpu", threads=1)
    assert np.array_equal(same.generate(["a red heart, flat style"], seeds=[7, 8]), pictures)


def test_it_can_be_copied(model):
    copy = pickle.loads(pickle.dumps(model))
    assert np.array_equal(copy.generate("a car", 3), model.generate("a car", 3))


def test_importing_the_runtime_does_not_import_it():
    assert "galip_default_bundle" not in sys.modules


def test_an_app_may_leave_it_out(monkeypatch, shared_bundle):
    monkeypatch.setitem(sys.modules, "galip_default_bundle", None)
    with expect_error(FileRefused, "galip_default_bundle", "galip-runtime"):
        galip_runtime.load()
    galip_runtime.load(shared_bundle, device="cpu", threads=1)


@pytest.mark.parametrize("name", ["manifest.json", "generator.w16a32.onnx", "merges.txt.gz"])
@pytest.mark.parametrize("damage", ["cut", "a bit", "missing"])
def test_one_that_is_damaged_has_to_be_installed_again(damaged, name, damage):
    path = damaged / name
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    with expect_error(FileRefused, name, "galip-runtime", "--force-reinstall"):
        galip_runtime.load(device="cpu")


def test_it_loads_from_a_folder_that_nobody_may_write_to(damaged, permissions_count):
    for path in (*damaged.iterdir(), damaged):
        path.chmod(0o555)
    try:
        assert galip_runtime.load(device="cpu").generate("a car", 1).shape == (1, 128, 128, 3)
    finally:
        damaged.chmod(0o755)


@pytest.mark.parametrize("arguments", [{"precision": "fp32"}, {"device": "tensorrt"}], ids=str)
def test_another_precision_has_to_be_exported(arguments):
    with expect_error(UsageError, "w16a32", "galip export --precision fp32 --out BUNDLE"):
        galip_runtime.load(**arguments)


def test_other_errors_say_nothing_of_an_export():
    with expect_error(UsageError, "nope") as info:
        galip_runtime.load(device="nope")
    assert "galip export" not in str(info.value)
    with expect_error(ProviderUnavailable, "cuda") as info:
        galip_runtime.load(device="cuda")
    assert "galip export" not in str(info.value)
