"""The released size: converted, exported, equal to the golden numbers; engines of it and of the shipped."""

import galip_runtime
import numpy as np
import onnx
import pytest
from galip_export import BuildOptions, export_bundle
from galip_export.mixed_precision import to_fp16
from galip_export.tensorrt_builder import Builder
from galip_runtime.bundle.manifest import GRAPHS, read_manifest

from galip.assets import default_checkpoint


@pytest.fixture(scope="module")
def exported(released_checkpoint, tmp_path_factory):
    return export_bundle(released_checkpoint, tmp_path_factory.mktemp("released") / "bundle")


@pytest.fixture(scope="module")
def exported_shipped(tmp_path_factory):
    return export_bundle(default_checkpoint(), tmp_path_factory.mktemp("shipped") / "bundle")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute or two, but a busy machine takes its time
def test_the_released_model_s_pictures(golden, exported):
    for graph in GRAPHS:
        assert exported.worst(graph, "fp32").comparison.relative <= 1e-4
    runtime = galip_runtime.load(exported.bundle, device="cpu")
    np.testing.assert_allclose(runtime.encode_text(golden["captions"]), golden["sent"], atol=2e-5)
    image = runtime.decode(golden["z"], golden["sent"][:3])
    assert np.abs(image - golden["image"]).max() < 1e-3
    assert (
        np.abs(
            runtime.decode(golden["z"], runtime.encode_text(golden["captions"][:3])) - golden["image"]
        ).max()
        < 1e-3
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("model", "precision", "archs"),
    [
        pytest.param("exported_shipped", "fp16", ("8.9",), id="shipped-fp16"),
        pytest.param("exported_shipped", "fp32", ("8.6", "8.9"), id="shipped-fp32", marks=pytest.mark.long),
        pytest.param("exported", "fp16", ("8.9",), id="released-fp16", marks=pytest.mark.long),
    ],
)
def test_engines(model, precision, archs, request, tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    source = request.getfixturevalue(model).bundle
    builder = Builder(BuildOptions((1, 4), archs), tmp_path / "bundle")
    manifest = read_manifest(source)
    for graph in GRAPHS:
        spec, bundle = manifest.graphs[graph]["fp32"], source
        if precision == "fp16":
            onnx.save(to_fp16(onnx.load(bundle / spec.file)), tmp_path / spec.file)
            bundle = tmp_path
        stored = (bundle / spec.file).stat().st_size
        for arch in builder.archs():
            built = builder.build(bundle, spec, precision, arch, manifest.dimensions.context_length)
            assert built.weights[precision] > 0.99 * sum(built.weights.values())
            assert built.layers[precision] > 0.9 * sum(built.layers.values())
            # all weights, and code; twice as many were they in fp32
            assert 0.95 * stored < len(built.plan) < 1.5 * stored + 30e6
