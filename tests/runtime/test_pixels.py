"""Pictures rounded by the graph itself: equal to those of `to_uint8`, bit for bit."""

import numpy as np
import onnx
import onnxruntime
import pytest
from galip_runtime.arrays import to_uint8
from galip_runtime.backends.pixels import CHECK, PIXELS, with_pixels
from galip_runtime.bundle.manifest import TensorSpec
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

IMAGE = TensorSpec("image", "float32", ("N", 3, 2, 5))


@pytest.fixture(scope="module")
def session():
    """A session of a graph whose image is its input."""
    shape = list(IMAGE.shape)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["image"])],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    data = with_pixels(model.SerializeToString(), IMAGE)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


@given(
    arrays(
        np.float32,
        st.integers(1, 3).map(lambda count: (count, *IMAGE.shape[1:])),
        elements=st.one_of(
            st.floats(-1.5, 1.5, width=32), st.floats(allow_nan=False, allow_infinity=False, width=32)
        ),
    )
)
def test_pixels_are_those_of_to_uint8(session, image):
    pixels, check = session.run([PIXELS, CHECK], {"x": image})
    assert (pixels == to_uint8(image)).all()
    assert pixels.dtype == np.uint8
    assert (check == 0).all()


def test_every_level_and_the_values_between(session):
    levels = np.linspace(-1.01, 1.01, 30 * 4096, dtype=np.float32)
    halves = (np.arange(256, dtype=np.float32) + np.float32(0.5)) / np.float32(127.5) - 1
    for values in (
        levels,
        np.resize(halves, 30 * 16),
        np.nextafter(np.resize(halves, 30 * 16), np.float32(2)),
    ):
        image = values.reshape(-1, 3, 2, 5)
        assert (session.run([PIXELS], {"x": image})[0] == to_uint8(image)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_check_marks_the_picture_that_is_not_finite(session, value):
    image = np.zeros((3, *IMAGE.shape[1:]), np.float32)
    image[1, 2, 0, 4] = value
    (check,) = session.run([CHECK], {"x": image})
    assert list(np.isfinite(check)) == [True, False, True]
