"""What several areas test with: tiny pictures, towers and models, and golden numbers of the released code.

The golden numbers' folder lies beside the checkout and is not part of it.
"""

import io
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # started in the background of a shell, which ignores Ctrl-C for it and its children
    signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN = Path(os.environ.get("GALIP_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))
TINY_SIZE = 28
COLOURS = {"red": (230, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 220), "black": (20, 20, 20)}


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Tests leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GALIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def one_thread():
    """Tiny models are fastest on one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A folder of shards: 24 training and 9 validation pictures of 28 pixels, coloured boxes on white."""
    from galip.data.shards import write_shards

    folder = tmp_path_factory.mktemp("tiny_data")
    write_shards(folder, "train", _boxes(24, seed=0), per_shard=10)
    write_shards(folder, "val", _boxes(9, seed=1))
    return folder


def _boxes(count, seed):
    from PIL import Image

    rng = np.random.default_rng(seed)
    for index in range(count):
        colour = list(COLOURS)[index % len(COLOURS)]
        picture = np.full((TINY_SIZE, TINY_SIZE, 3), 255, np.uint8)
        top, left = rng.integers(0, 14, 2)
        picture[top : top + 12, left : left + 12] = COLOURS[colour]
        png = io.BytesIO()
        Image.fromarray(picture).save(png, "PNG")
        meta = {
            "captions": [f"{colour} square", f"a square that is {colour}"],
            "colour": colour,
            "rank": index,
        }
        yield f"box{index:03}", png.getvalue(), f"a {colour} box", meta


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    """A checkpoint of the preset's CLIP towers with random weights."""
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
    """A whole checkpoint of the preset with random weights."""
    import torch

    from galip.checkpoint import save_galip
    from galip.model import Galip
    from galip.presets import preset

    path = tmp_path_factory.mktemp("tiny_checkpoint") / "model.safetensors"
    torch.manual_seed(0)
    save_galip(path, Galip(preset("tiny")), note={"made": "for tests"})
    return path


@pytest.fixture(scope="session")
def golden():
    """The arrays of reference.npz and `captions`."""
    if not (GOLDEN / "reference.npz").exists():
        pytest.skip(f"no golden numbers at {GOLDEN}; set GALIP_GOLDEN to their folder")
    arrays = dict(np.load(GOLDEN / "reference.npz"))
    arrays["captions"] = json.loads((GOLDEN / "captions.json").read_text())
    return arrays


@pytest.fixture(scope="session")
def official_weights(golden):
    """The module that writes stand-ins of the released files."""
    sys.path.insert(0, str(GOLDEN))
    try:
        import official_weights
    finally:
        sys.path.remove(str(GOLDEN))
    return official_weights


@pytest.fixture(scope="session")
def released_files(official_weights, tmp_path_factory):
    """(galip.pth, clip_vit_b32.pt) in the released layout."""
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
    """A network in Inception's place, as TorchScript: 48 numbers of a picture, 4 x 4 pixels' colours."""
    import torch

    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())
    path = tmp_path_factory.mktemp("inception") / "small.pt"
    torch.jit.trace(network, torch.zeros(1, 3, 299, 299)).save(str(path))
    return path
