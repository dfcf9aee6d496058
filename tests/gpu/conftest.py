"""`make test-gpu`: what only a GPU shows; with GALIP_GPU=stand-in on a stand-in, to test the tests."""

import galip_runtime
import numpy as np
import pytest
from fake_cuda import STAND_IN, pretend


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "gpu":
            item.add_marker("gpu")


@pytest.fixture(scope="session")
def gpu():
    """A GPU that onnxruntime runs graphs on; without one there is nothing to test."""
    from galip_runtime.backends.probe import why_not

    with pytest.MonkeyPatch.context() as patch:
        if STAND_IN:
            pretend(patch)
        if why := why_not("cuda"):
            pytest.exit(f"no CUDA: {why}", returncode=1)
        yield


@pytest.fixture(scope="session")
def checkpoint(request):
    """The shipped model's, or a stand-in GPU's: tiny and random."""
    from galip.assets import default_checkpoint

    return request.getfixturevalue("tiny_checkpoint") if STAND_IN else default_checkpoint()


@pytest.fixture(scope="session")
def exported(checkpoint, tmp_path_factory):
    """A bundle with all that a GPU computes in."""
    from galip_export import export_bundle

    folder = tmp_path_factory.mktemp("gpu") / "bundle"
    return export_bundle(checkpoint, folder, precisions=["fp32", "w16a32", "fp16"]).bundle


@pytest.fixture(scope="session")
def eager(checkpoint):
    """Eager PyTorch on the CPU: on a GPU its convolutions are in TF32."""
    from galip.eager import load_eager

    return load_eager(checkpoint, "cpu")


@pytest.fixture(scope="session")
def engines(gpu, exported, tmp_path_factory):
    """The bundle with TensorRT's engines for this GPU; without TensorRT all that needs it is skipped."""
    from galip_export import BuildOptions, add_engines
    from galip_runtime import ProviderUnavailable
    from galip_runtime.backends.engines import engine_targets

    if STAND_IN:
        pytest.skip("TensorRT has no stand-in that builds engines")
    out = tmp_path_factory.mktemp("engines") / "bundle"
    try:
        engine_targets()
        add_engines(exported, out, BuildOptions((1, 4, 16)))
    except ProviderUnavailable as error:
        pytest.skip(f"no TensorRT: {error}")
    return out


@pytest.fixture(scope="session")
def load(gpu, exported, request):
    """`load(device, precision)`: a model, loaded once."""
    models = {}

    def loaded(device, precision):
        if (device, precision) not in models:
            bundle = request.getfixturevalue("engines") if device == "tensorrt" else exported
            models[device, precision] = galip_runtime.load(bundle, device=device, precision=precision)
        return models[device, precision]

    return loaded


@pytest.fixture
def draws():
    """`draws(model, count)`: noise and sentences of as many pictures, all different."""

    def of(model, count, first=0):
        names = ("rose", "car", "star", "tree", "red pan", "ship", "a very old house by the sea")
        texts = [f"{names[number % len(names)]} {number}" for number in range(count)]
        return model.noise(np.arange(first, first + count)), model.encode_text(texts)

    return of
