"""The study of `--preset quick`: which icons it takes, and what counts as recognised."""

import io
import json
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from error_checks import expect_error
from galip_runtime.errors import UsageError
from PIL import Image
from studies.quick_training import SEEN_RANK, export_unseen, recognised

SIDE = 8


def write_shard(path, icons):
    with tarfile.open(path, "w") as tar:
        for key, meta in icons.items():
            data = io.BytesIO()
            Image.new("RGB", (SIDE, SIDE), "red").save(data, "PNG")
            text = meta["thing"].encode()
            for ending, content in (
                ("png", data.getvalue()),
                ("txt", text),
                ("json", json.dumps(meta).encode()),
            ):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def icon(thing, style="noto style", group="objects", rank=SEEN_RANK + 1):
    return {"thing": thing, "style": style, "group": group, "rank": rank}


def test_icons_that_the_shipped_model_has_not_seen(tmp_path):
    icons = {
        "seen": icon("a car", rank=SEEN_RANK),
        "rare": icon("a sextant"),
        "without-rank": icon("an abacus", rank=None),
        "other-style": icon("a sextant", style="flat style"),
        "person": icon("a juggler", group="people-body"),
    }
    write_shard(tmp_path / "train-00000.tar", icons)
    folder = tmp_path / "pictures"
    assert export_unseen(tmp_path, "noto style", folder) == 2
    assert sorted(file.read_text() for file in folder.glob("*.txt")) == ["a sextant", "an abacus"]
    assert len([*folder.glob("*.png")]) == 2
    with expect_error(UsageError, "'no style'"):
        export_unseen(tmp_path, "no style", folder)


@pytest.mark.parametrize(
    ("shift", "nearest", "among_five"), [(0, 1.0, 1.0), (1, 0.0, 11 / 12), (6, 0.0, 0.0)]
)
def test_recognised(tmp_path, shift, nearest, among_five):
    """Twelve greys, drawn `shift` shades off: those between are nearer. The last one wraps around."""
    count, step = 12, 10
    for index in range(count):
        Image.new("RGB", (SIDE, SIDE), (index * step,) * 3).save(tmp_path / f"{index:02}.png")
        (tmp_path / f"{index:02}.txt").write_text(str(index))

    def generate(prompts, seeds):
        shades = [(int(prompt) + shift) % count * step for prompt in prompts]
        return np.stack([np.full((SIDE, SIDE, 3), shade, np.uint8) for shade in shades])

    model = SimpleNamespace(
        dimensions=SimpleNamespace(image_width=SIDE, image_height=SIDE), generate=generate
    )
    shares = recognised(model, tmp_path)
    assert shares == {"nearest": nearest, "among_five": among_five, "pictures": count}
