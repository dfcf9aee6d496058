"""Pictures as files: format by the file's ending, grids, animations, and targets that are refused."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from error_checks import assert_names, expect_error
from galip_runtime import UsageError
from galip_runtime.image import (
    check_target,
    encode_animation,
    encode_picture,
    grid,
    save_animation,
    save_picture,
)
from galip_runtime.install import requirements
from PIL import Image


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), np.uint8)


def test_a_png_is_lossless(tmp_path, pictures):
    save_picture(pictures[0], tmp_path / "a.png")
    assert (np.asarray(Image.open(tmp_path / "a.png")) == pictures[0]).all()
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("name", "kind"), [("a.JPG", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP"), ("a.b.png", "PNG")]
)
def test_the_ending_decides_the_format(tmp_path, pictures, name, kind):
    save_picture(pictures[0], str(tmp_path / name))
    with Image.open(tmp_path / name) as read:
        assert (read.format, read.size) == (kind, (6, 8))


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_an_animation(tmp_path, pictures, name):
    save_animation(pictures, tmp_path / name, seconds=0.05)
    with Image.open(tmp_path / name) as read:
        read.load()  # a WebP has the duration beside the picture
        assert (read.n_frames, read.size) == (5, (6, 8))
        assert (round(read.info["duration"]), read.info["loop"]) == (50, 0)


def test_a_grid_is_filled_row_by_row(pictures):
    sheet = grid(pictures, columns=3, gap=2)
    assert sheet.shape == (18, 22, 3)
    assert (sheet[:8, 8:14] == pictures[1]).all()
    assert (sheet[10:, :6] == pictures[3]).all()
    assert (sheet[8:10] == 255).all()
    assert (sheet[10:, 16:] == 255).all()
    assert grid(pictures).shape == (18, 22, 3)
    assert (grid(pictures[:1]) == pictures[0]).all()


def test_an_existing_file_is_replaced(tmp_path, pictures):
    (tmp_path / "a.png").write_text("old")
    save_picture(pictures[0], tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (6, 8)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a.txt",
        "a.gif",
        "a.png/",
        "none/a.png",
        "folder",
        "folder.png",
        "a.png/b.png",
        "a" * 300 + ".png",
    ],
)
def test_an_impossible_target_is_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "a.png").touch()
    if name == "a.png/":
        name = "folder.png/"
    path = tmp_path / name
    with expect_error(UsageError, path.parent if name == "none/a.png" else path):
        check_target(path)


def test_without_pillow_the_extra_is_named(tmp_path):
    (tmp_path / "PIL").mkdir()
    (tmp_path / "PIL" / "__init__.py").write_text("raise ImportError('no PIL')")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from galip_runtime.image import check_target
check_target("a.png")
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert process.returncode == 1
    last_line = process.stderr.strip().splitlines()[-1]
    assert_names(last_line, "galip_runtime.errors.UsageError", "Pillow", *requirements("image"))


def test_a_png_says_how_it_was_made_and_is_always_the_same(pictures):
    first, second = (encode_picture(pictures[0], "PNG", {"prompt": "ü"}) for _ in range(2))
    assert first == second
    with Image.open(io.BytesIO(first)) as read:
        assert read.text == {"prompt": "ü"}
        assert (np.asarray(read) == pictures[0]).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_quality_makes_files_larger(kind):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    sizes = [len(encode_picture(picture, kind, quality=quality)) for quality in (0, 50, 100)]
    assert sizes == sorted(set(sizes))


def test_a_lossless_animation(pictures):
    data = encode_animation(pictures, "WEBP", 0.25, lossless=True)
    with Image.open(io.BytesIO(data)) as read:
        for index, picture in enumerate(pictures):
            read.seek(index)
            read.load()
            assert (np.asarray(read.convert("RGB")) == picture).all()
            assert round(read.info["duration"]) == 250
