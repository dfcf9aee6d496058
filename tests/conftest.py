"""Fixtures for several areas: tiny pictures, towers and models, and the released code's golden numbers."""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from galip_runtime.signals import HANGUP, STOP

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells ignore Ctrl-C in background jobs and their children
    signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN = Path(__file__).parent / "golden"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Let one worker of `--dist loadgroup` run a whole file.

    One worker runs all files with tests of the released size, since those take the most memory. They come
    first, then the other slow files.
    """
    files = {item: item.nodeid.partition("::")[0] for item in items}
    large = {files[item] for item in items if "released_files" in item.fixturenames}
    slow = {files[item] for item in items if item.get_closest_marker("slow")}
    for item, file in files.items():
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("released size" if file in large else file))
    items.sort(key=lambda item: (files[item] not in large, files[item] not in slow))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Escape what UTF-8 cannot hold in captured logs, since pytest-xdist sends reports as UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Keep the tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GALIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="module")
def handlers_of_signals_stay():
    """Fail a module that leaves other handlers of the signals that stop a process than it found."""
    before = [signal.getsignal(number) for number in (*STOP, *HANGUP)]
    yield
    assert [signal.getsignal(number) for number in (*STOP, *HANGUP)] == before


@pytest.fixture
def permissions_count():
    """Make file permissions apply to root, too, during a test.

    Only on Linux; elsewhere the test is skipped for root.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root may write anywhere")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    # effective, permitted, inheritable: of capabilities 0 to 31, then of the others
    before, without = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0, os.strerror(ctypes.get_errno())
    without[:] = before[:]
    without[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, without) == 0, os.strerror(ctypes.get_errno())
    yield
    assert libc.capset(header, before) == 0, os.strerror(ctypes.get_errno())


@pytest.fixture(scope="module")
def one_thread():
    """Use one thread, on which tiny models are fastest."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _boxes(count, seed):
    from tiny import boxes  # which needs torch: the runtime's tests do not

    return boxes(count, seed=seed)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A folder of shards: 24 training and 9 validation pictures of 28 pixels, coloured boxes on white."""
    from galip.data.shards import write_shards

    folder = tmp_path_factory.mktemp("tiny_data")
    write_shards(folder, "train", _boxes(24, seed=0), per_shard=10)
    write_shards(folder, "val", _boxes(9, seed=1))
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    """A checkpoint of the CLIP towers of the preset `tiny` with random weights."""
    import torch

    from galip.checkpoint import save_clip
    from galip.clip import build_clip
    from galip.presets import preset

    path = tmp_path_factory.mktemp("tiny_clip") / "clip.safetensors"
    torch.manual_seed(0)
    save_clip(path, build_clip(preset("tiny").clip), preset("tiny").clip)
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """A complete checkpoint of the preset `tiny` with random weights."""
    import torch

    from galip.checkpoint import save_galip
    from galip.model import Galip
    from galip.presets import preset

    path = tmp_path_factory.mktemp("tiny_checkpoint") / "model.safetensors"
    torch.manual_seed(0)
    save_galip(path, Galip(preset("tiny")), note={"made": "for tests"})
    return path


@pytest.fixture(scope="session")
def traced_graphs(tmp_path_factory):
    """The graphs of small models, each traced once; `export_bundle` takes them from here, too."""
    from traced_graphs import TracedGraphs

    folder = tmp_path_factory.getbasetemp()
    graphs = TracedGraphs((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "traced")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("galip_export.export.export_text_encoder", graphs.text_encoder)
        patch.setattr("galip_export.export.export_generator", graphs.generator)
        yield graphs


@pytest.fixture(scope="session")
def golden():
    """The arrays of reference.npz and `captions`."""
    arrays = dict(np.load(GOLDEN / "reference.npz"))
    arrays["captions"] = json.loads((GOLDEN / "captions.json").read_text())
    return arrays


@pytest.fixture(scope="session")
def released_files(tmp_path_factory):
    """(galip.pth, clip_vit_b32.pt) in the released layout."""
    from golden import official_weights

    return official_weights.write(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="session")
def released_checkpoint(released_files, tmp_path_factory):
    """The released files, converted."""
    from galip.convert import convert_released

    galip, clip = released_files
    out = tmp_path_factory.mktemp("converted") / "galip.safetensors"
    convert_released(galip, out, clip=str(clip))
    return out


@pytest.fixture(scope="session")
def small_inception(tmp_path_factory):
    """A replacement for Inception as TorchScript: its 48 features are the colours of 4 x 4 pixels."""
    import torch

    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())
    path = tmp_path_factory.mktemp("inception") / "small.pt"
    torch.jit.trace(network, torch.zeros(1, 3, 299, 299)).save(str(path))
    return path
