"""Models on `cpu` whose generation blocks galip-kernels computes, and every reason not to use it."""

import logging
import pickle
import subprocess
import sys
import threading
import types

import galip_runtime
import numpy as np
import pytest
from block_bundle import FORMS, make_block_bundle
from error_checks import assert_names, expect_error
from galip_runtime import ProviderUnavailable, QualityGateFailed, doctor
from galip_runtime.arrays import to_uint8
from galip_runtime.backends import kernel_loading, kernels
from galip_runtime.backends.kernels import KernelBlocks, KernelsUnusable, load_library
from galip_runtime.backends.openvino_runner import OpenvinoRunner
from stub_bundle import make_stub_bundle

try:
    TARGET = load_library().target
except KernelsUnusable as error:
    TARGET = ""
    REASON = str(error)
else:
    REASON = ""

needs_kernels = pytest.mark.skipif(not TARGET, reason=f"galip-kernels is NOT TESTED here: {REASON}")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Let each test load the library again, and leave it as it was."""
    monkeypatch.delenv("GALIP_KERNELS", raising=False)
    load_library.cache_clear()
    yield
    load_library.cache_clear()


def load(folder, **options):
    return galip_runtime.load(folder, device="cpu", **{"threads": 1, **options})


def load_without(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("GALIP_KERNELS", "0")
        return load(folder)


def inputs(count, seed=0):
    random = np.random.default_rng(seed)
    return random.standard_normal((count, 5), np.float32), random.standard_normal((count, 6), np.float32)


def unused(folder):
    """Load a bundle, and return why it does without the kernels."""
    model = load(folder)
    info = model.info()["kernels"]
    assert info["target"] is None
    assert not model.rounds_on_device
    assert len(model.generate(["red", "the"], [1, 2])) == 2
    return info["why"]


@needs_kernels
def test_auto_is_the_cpu_for_graphs_that_the_kernels_compute(tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="with onnxruntime alone, auto is the CPU in any case")
    blocks, others = make_block_bundle(tmp_path / "blocks"), make_stub_bundle(tmp_path / "others")

    def device(folder):
        return galip_runtime.load(folder, threads=1).info()["device"]

    assert device(blocks) == "cpu"
    assert device(others) == "openvino"  # which is faster than the CPU without them

    def broken(*_, **__):
        raise ProviderUnavailable("OpenVINO does not start")

    monkeypatch.setattr(OpenvinoRunner, "_start", broken)
    assert device(others) == "cpu"


@needs_kernels
@pytest.mark.parametrize("form", FORMS)
def test_the_pictures_are_those_of_onnxruntime(tmp_path, monkeypatch, form):
    folder = make_block_bundle(tmp_path / "bundle", form)
    model, plain = load(folder), load_without(folder, monkeypatch)
    assert model.info()["kernels"]["target"] == TARGET
    assert model.info()["kernels"]["why"] is None
    assert len(model.info()["kernels"]["algorithms"]) >= 4
    assert plain.info()["kernels"]["why"] == "GALIP_KERNELS=0 switches galip-kernels off"
    assert model.rounds_on_device
    noise, sentence = inputs(5)
    image, expected = model.decode(noise, sentence), plain.decode(noise, sentence)
    assert np.abs(image - expected).max() < 1e-5 * expected.std()
    pictures = model.decode_pictures(noise, sentence)
    np.testing.assert_array_equal(pictures, to_uint8(image))
    for row in range(5):
        alone = model.decode(noise[row : row + 1], sentence[row : row + 1])
        np.testing.assert_array_equal(alone[0], image[row])


@needs_kernels
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_a_picture(tmp_path, threads):
    folder = make_block_bundle(tmp_path / "bundle")
    noise, sentence = inputs(3)
    model, expected = load(folder, threads=threads), load(folder).decode(noise, sentence)
    np.testing.assert_array_equal(model.decode(noise, sentence), expected)


@needs_kernels
def test_threads_share_a_model(tmp_path):
    model = load(make_block_bundle(tmp_path / "bundle"), threads=2)
    noise, sentence = inputs(8)
    expected, results = model.decode(noise, sentence), {}

    def decode(row):
        results[row] = model.decode(noise[row : row + 1], sentence[row : row + 1])[0]

    threads = [threading.Thread(target=decode, args=(row,)) for row in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.stack([results[row] for row in range(8)]), expected)


@needs_kernels
def test_copies_and_closing(tmp_path):
    model = load(make_block_bundle(tmp_path / "bundle"))
    noise, sentence = inputs(2)
    expected = model.decode(noise, sentence)
    copied = pickle.loads(pickle.dumps(model))
    model.close()
    assert copied.info()["kernels"]["target"] == TARGET
    np.testing.assert_array_equal(copied.decode(noise, sentence), expected)


CHILD = """
import gc, os, sys, threading
import galip_runtime
model = galip_runtime.load(sys.argv[1], device="cpu", threads=2)
assert model.info()["kernels"]["target"]
first = model.generate("red", [1, 2, 3])
if sys.argv[2] == "busy":
    def generate():
        while True:
            model.generate("red", [4])
    threading.Thread(target=generate, daemon=True).start()
if (pid := os.fork()) == 0:
    if sys.argv[2] == "del":
        del model
        gc.collect()
    elif sys.argv[2] != "exit":
        assert (model.generate("red", [1, 2, 3]) == first).all()
        assert model.info()["kernels"]["target"]
    sys.exit(0)
code = os.waitpid(pid, 0)[1]
assert (model.generate("red", [1, 2, 3]) == first).all()
print("ended", code, flush=True)
os._exit(0)
"""


@needs_kernels
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.parametrize("action", ["generate", "exit", "del", "busy"])
def test_a_forked_child_generates_the_same_and_ends(tmp_path, action):
    folder = make_block_bundle(tmp_path / "bundle")
    process = subprocess.run(
        [sys.executable, "-c", CHILD, folder, action],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.stdout == "ended 0\n", process.stderr


@needs_kernels
def test_a_picture_that_is_not_finite(tmp_path):
    model = load(make_block_bundle(tmp_path / "bundle", nan=True))
    assert model.info()["kernels"]["target"] == TARGET
    messages = []
    for decode in (model.decode, model.decode_pictures):
        with pytest.raises(QualityGateFailed) as error:
            decode(*inputs(2))
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert_names(messages[0], "not finite")


@needs_kernels
def test_too_little_memory(tmp_path, monkeypatch):
    model = load(make_block_bundle(tmp_path / "bundle"))
    functions = load_library().functions
    stand_in = types.SimpleNamespace(
        galip_blocks_run=lambda *arguments: 2, galip_blocks_close=functions.galip_blocks_close
    )
    monkeypatch.setattr(model._runners["generator"]._loaded.blocks, "_functions", stand_in)
    expect_error(ProviderUnavailable, lambda: model.decode_pictures(*inputs(1)), "memory", "batch_size")


@needs_kernels
def test_a_check_that_agreed_is_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
    folder, checks = make_block_bundle(tmp_path / "bundle"), []
    original = kernel_loading._onnxruntimes_picture
    monkeypatch.setattr(
        kernel_loading,
        "_onnxruntimes_picture",
        lambda *arguments: checks.append(1) or original(*arguments),
    )
    for _ in range(2):
        assert load(folder).info()["kernels"]["target"] == TARGET
    assert len(checks) == 1
    assert load(make_block_bundle(tmp_path / "other", "resized")).info()["kernels"]["target"] == TARGET
    assert len(checks) == 2


@needs_kernels
@pytest.mark.parametrize(
    ("broken", "why"), [("image", "is not onnxruntime's"), ("pixels", "not those of its picture")]
)
def test_kernels_that_disagree_are_not_used(tmp_path, monkeypatch, caplog, broken, why):
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
    folder, original = make_block_bundle(tmp_path / "bundle"), getattr(KernelBlocks, broken)

    def wrong(self, features, affines):
        result = original(self, features, affines)
        result.flat[7] += 1
        return result

    monkeypatch.setattr(KernelBlocks, broken, wrong)
    with caplog.at_level(logging.WARNING):
        assert_names(unused(folder), why)
    assert "galip-kernels does not compute" in caplog.text
    assert not list((tmp_path / "cache" / "kernels").iterdir())


@needs_kernels
def test_too_little_memory_for_the_check(tmp_path, monkeypatch):
    def image(self, features, affines):
        raise MemoryError("there is no memory for the pictures")

    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(KernelBlocks, "image", image)
    assert_names(unused(make_block_bundle(tmp_path / "bundle")), "cannot be compared", "no memory")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("values", "others"),
    [((1e30, -1e30), (2e30, -2e30)), ((1e30, -1e30), (np.inf, 0)), ((np.inf, 0), (np.inf, 0))],
)
def test_very_large_pictures_that_disagree(values, others):
    """Their deviation overflows float32: compared with infinity, any difference would be small."""
    expected, image = (np.resize(np.float32(pair), (1, 3, 4, 4)) for pair in (values, others))
    blocks = types.SimpleNamespace(image=lambda *_: image, pixels=lambda *_: to_uint8(image))
    with pytest.raises(KernelsUnusable, match="its picture is not onnxruntime's"):
        kernel_loading._check_agreement(blocks, [image], expected)


@needs_kernels
def test_a_graph_without_blocks(tmp_path):
    assert_names(unused(make_stub_bundle(tmp_path / "bundle")), "does not compute such a graph")


@needs_kernels
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rounded": True}, "export the bundle again"),
        ({"slope": 0.1}, "the slope 0.1,"),
        ({"mode": "linear", "form": "resized"}, "not nearest upsampling"),
    ],
)
def test_graphs_that_the_kernels_do_not_compute(tmp_path, caplog, changes, why):
    with caplog.at_level(logging.WARNING):
        assert_names(unused(make_block_bundle(tmp_path / "bundle", **changes)), why)
    assert not caplog.records


def test_they_are_not_installed(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "galip_kernels", None)
    with caplog.at_level(logging.WARNING):
        assert unused(make_block_bundle(tmp_path / "bundle")) == "galip-kernels is not installed"
    assert not caplog.records
    assert doctor.examine()["kernels"] == {
        "version": None,
        "target": None,
        "why": "galip-kernels is not installed",
    }


@needs_kernels
def test_doctor_says_what_is_used(monkeypatch):
    assert doctor.examine()["kernels"]["target"] == TARGET
    monkeypatch.setenv("GALIP_KERNELS", "0")
    off = {"version": None, "target": None, "why": "GALIP_KERNELS=0 switches galip-kernels off"}
    assert doctor.examine()["kernels"] == off


def pretend(monkeypatch, library):
    package = types.SimpleNamespace(LIBRARY=library, __version__="9.9")
    monkeypatch.setitem(sys.modules, "galip_kernels", package)


def test_a_library_for_another_cpu(tmp_path, monkeypatch, caplog):
    (tmp_path / "library.so").write_bytes(b"for another CPU")
    pretend(monkeypatch, tmp_path / "library.so")
    with caplog.at_level(logging.WARNING):
        assert_names(unused(make_block_bundle(tmp_path / "bundle")), "cannot be loaded", "library.so")
    assert "cannot be loaded" in caplog.text


def test_a_library_that_lacks_functions(tmp_path, monkeypatch, caplog):
    pretend(monkeypatch, tmp_path / "library.so")
    library = types.SimpleNamespace(galip_kernels_abi=lambda: 1)
    monkeypatch.setattr(kernels.ctypes, "CDLL", lambda path: library)
    with caplog.at_level(logging.WARNING):
        assert_names(
            unused(make_block_bundle(tmp_path / "bundle")), "cannot be loaded", "galip_kernels_target"
        )
    assert "cannot be loaded" in caplog.text


@needs_kernels
def test_a_library_with_another_interface(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(kernels, "_ABI", 2)
    with caplog.at_level(logging.WARNING):
        assert_names(unused(make_block_bundle(tmp_path / "bundle")), "interface 1", "needs 2", "same release")
    assert "interface 1" in caplog.text


@needs_kernels
def test_a_cpu_without_the_instructions(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(kernels, "_NO_TARGET", TARGET)
    with caplog.at_level(logging.WARNING):
        assert_names(unused(make_block_bundle(tmp_path / "bundle")), "none of the instructions")
    assert not caplog.records


def test_other_devices_do_without(tmp_path):
    pytest.importorskip("openvino")
    model = galip_runtime.load(make_block_bundle(tmp_path / "bundle"), device="openvino", threads=1)
    assert model.info()["kernels"] == {
        "target": None,
        "why": "galip-kernels computes on device cpu only",
        "version": None,
        "algorithms": [],
    }


def test_importing_the_runtime_loads_no_kernels():
    code = "import sys, galip_runtime; print('galip_kernels' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "False\n"
