"""The released model's size: converted, exported, and the runtime's output equal to the golden numbers."""

import galip_runtime
import numpy as np
import pytest
from galip_export import export_bundle


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute or two, but a busy machine takes its time
def test_the_released_model_s_pictures(golden, released_checkpoint, tmp_path):
    report = export_bundle(released_checkpoint, tmp_path / "bundle")
    for graph in ("text_encoder", "generator"):
        assert report.worst(graph, "fp32").comparison.relative <= 1e-4
    runtime = galip_runtime.load(report.bundle, device="cpu")
    np.testing.assert_allclose(runtime.encode_text(golden["captions"]), golden["sent"], atol=2e-5)
    image = runtime.decode(golden["z"], golden["sent"][:3])
    assert np.abs(image - golden["image"]).max() < 1e-3
    assert (
        np.abs(
            runtime.decode(golden["z"], runtime.encode_text(golden["captions"][:3])) - golden["image"]
        ).max()
        < 1e-3
    )
