import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from galip_runtime.errors import FileRefused, GalipError, ProviderUnavailable, UsageError
from galip_runtime.install import install_extra
from icons import build as building
from icons import sources
from icons.build import SPLITS, build_icons
from icons.commonness import Commonness, commonest_things
from icons.names import Thing
from icons.render import render_svg
from icons.sources import EMOJIBASE, ICON_SETS, icons_of
from PIL import Image
from train.fake_icons import make_packages

from galip.cli import data_icons
from galip.data.shard_folder import PARTIAL_FILE
from galip.data.shards import read_metas, read_samples
from galip.data.sources import open_source


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    return folder, *make_packages(folder)


@pytest.fixture
def build(packages):
    folder, sets, table = packages
    given = {"size": 16, "source": folder, "icon_sets": sets, "emojibase": table, "processes": 1}
    return lambda out, **changed: build_icons(out, **{**given, **changed})


def samples_of(out: Path) -> dict:
    present = [split for split in SPLITS if (out / f"{split}-00000.tar").exists()]
    return {split: list(read_samples(out, split)) for split in present}


def test_a_build_holds_every_visible_icon_once(build, tmp_path):
    steps = []
    summary = build(tmp_path / "out", progress=lambda step, done, total: steps.append((step, done, total)))
    samples = [sample for group in samples_of(tmp_path / "out").values() for sample in group]
    assert summary.built
    assert summary.pictures == len(samples) == len({sample.key for sample in samples}) == 19
    assert summary.per_style == {"alpha style": 7, "beta style": 8, "gamma style": 4}
    assert sum(summary.per_split.values()) == 19
    assert summary.matched == {"alpha": 1.0, "beta": 0.625, "gamma": 1.0}
    assert ("render pictures", 19, 19) in steps
    for sample in samples:
        assert sample.picture.shape == (16, 16, 3)
        assert sample.caption == sample.meta["captions"][0]
        assert sample.caption.endswith(sample.meta["style"])
        assert sample.meta["source"].startswith("@icons/")
        assert sample.meta["licence"] == "MIT"


def test_one_thing_has_one_name_in_all_sets(build, tmp_path):
    build(tmp_path)
    styles = defaultdict(set)
    for samples in samples_of(tmp_path).values():
        for sample in samples:
            styles[sample.meta["thing"]].add(sample.meta["style"])
    assert styles["red apple"] == {"alpha style", "beta style", "gamma style"}
    assert styles["automobile"] == {"alpha style", "beta style"}


def test_splits_share_no_thing_and_do_not_hang_on_size_or_sets(build, packages, tmp_path):
    _, sets, _ = packages
    build(tmp_path / "all")
    build(tmp_path / "other", size=8, icon_sets=sets[:1])
    where = {}
    for split, samples in samples_of(tmp_path / "all").items():
        for sample in samples:
            assert where.setdefault(sample.meta["base"], split) == split
    for split, samples in samples_of(tmp_path / "other").items():
        assert all(where[sample.meta["base"]] == split for sample in samples)


def test_the_same_build_gives_the_same_bytes_with_one_process_or_two(build, tmp_path, monkeypatch):
    monkeypatch.setattr("icons.render.CHUNK", 4)
    build(tmp_path / "one", processes=1)
    build(tmp_path / "two", processes=2)
    for shard in (tmp_path / "one").glob("*.tar"):
        assert shard.read_bytes() == (tmp_path / "two" / shard.name).read_bytes()


def test_a_build_already_there_is_left_alone_and_another_size_replaces_it(build, tmp_path):
    build(tmp_path)
    shard = tmp_path / "train-00000.tar"
    first = shard.stat().st_mtime_ns
    assert not build(tmp_path).built
    assert shard.stat().st_mtime_ns == first
    assert build(tmp_path, size=24).built
    assert next(read_samples(tmp_path)).picture.shape == (24, 24, 3)


def test_an_altered_shard_is_refused_and_built_again(build, tmp_path):
    build(tmp_path)
    shard = tmp_path / "train-00000.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    with pytest.raises(FileRefused, match=r"train-00000\.tar"):
        open_source(tmp_path)
    assert build(tmp_path).built
    assert len(open_source(tmp_path)) > 0


def test_a_shard_that_is_gone_or_was_added_is_refused(build, tmp_path):
    build(tmp_path)
    (tmp_path / "extra.tar").write_bytes(b"")
    with pytest.raises(FileRefused, match=r"extra\.tar"):
        list(read_samples(tmp_path))
    (tmp_path / "extra.tar").unlink()
    (tmp_path / "train-00000.tar").unlink()
    with pytest.raises(FileRefused, match=r"train-00000\.tar"):
        list(read_samples(tmp_path))
    assert build(tmp_path).built


def test_filters(build, tmp_path):
    summary = build(tmp_path, skin_tones=False, exclude_groups=["flags"])
    metas = [sample.meta for samples in samples_of(tmp_path).values() for sample in samples]
    assert summary.pictures == len(metas)
    assert not any(meta["skin_tone"] or meta["group"] == "flags" for meta in metas)
    with pytest.raises(UsageError, match=r"'flag'.*\bflags\b"):
        build(tmp_path / "none", exclude_groups=["flag"])


@pytest.mark.parametrize("moment", ["rendering", "moving"])
def test_an_interrupted_build_leaves_nothing_to_mistake_for_a_whole_one(build, tmp_path, monkeypatch, moment):
    build(tmp_path, size=8)
    with monkeypatch.context() as patch:
        if moment == "rendering":
            patch.setattr(building, "render_all", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        else:
            patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path)
    assert not list(tmp_path.glob(".galip-*"))
    if moment == "rendering":
        assert next(read_samples(tmp_path)).picture.shape[0] == 8
    else:
        assert (tmp_path / PARTIAL_FILE).exists()
        with pytest.raises(FileRefused, match=re.escape(PARTIAL_FILE)):
            list(read_samples(tmp_path))
    assert build(tmp_path).built
    assert next(read_samples(tmp_path)).picture.shape[0] == 16


def test_a_killed_build_is_redone(build, tmp_path):
    staging = tmp_path / f".galip-{0:012x}"
    staging.mkdir()
    (staging / "train-00000.tar").write_bytes(b"half")
    (tmp_path / PARTIAL_FILE).touch()
    (tmp_path / "train-00003.tar").write_bytes(b"half")
    assert build(tmp_path).built
    assert len(open_source(tmp_path)) > 0
    assert not staging.exists()


def test_two_builds_in_one_folder(build, tmp_path):
    with building._locked_staging(tmp_path), pytest.raises(UsageError, match=re.escape(str(tmp_path))):
        build(tmp_path)
    assert build(tmp_path).built


def test_a_folder_of_another_origin_is_not_touched(build, tmp_path):
    (tmp_path / "train-00000.tar").write_bytes(b"mine")
    with pytest.raises(UsageError, match=re.escape(str(tmp_path))):
        build(tmp_path)
    (tmp_path / "dataset.json").write_text('{"mine": true}')
    with pytest.raises(UsageError, match=r"dataset\.json"):
        build(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.json", "train-00000.tar"]
    assert (tmp_path / "train-00000.tar").read_bytes() == b"mine"


def test_unusable_arguments(build, tmp_path):
    for size in (0, 4096):
        with pytest.raises(UsageError, match=rf"\b{size}\b"):
            build(tmp_path / "out", size=size)
    with pytest.raises(UsageError, match="nowhere"):
        build(tmp_path / "out", source=tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / "file"))):
        build(tmp_path / "file" / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("permissions_count")
def test_an_unwritable_folder(build, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match=re.escape(str(tmp_path))):
        build(tmp_path / "out")


def test_a_full_disk_is_reported_and_cleared_up(build, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(building, "write_shards", full)
    with pytest.raises(GalipError, match="No space left"):
        build(tmp_path)
    assert not list(tmp_path.glob(".galip-*"))
    assert not list(tmp_path.glob("*.tar"))


def test_an_archive_with_another_sha512_is_refused_and_kept(build, packages, tmp_path):
    _, sets, _ = packages
    wrong = replace(sets[1], sha512="AAAA")
    with pytest.raises(FileRefused, match=r"(?s)icons-beta-1\.0\.0\.tgz.*sha512-AAAA.*sha512-"):
        build(tmp_path, icon_sets=[sets[0], wrong])
    assert (packages[0] / "icons-beta-1.0.0.tgz").is_file()
    assert not list(tmp_path.glob("*.tar"))


def test_a_package_missing_from_the_folder_is_named(build, packages, tmp_path):
    with pytest.raises(UsageError, match=r"icons-alpha-1\.0\.0\.tgz.*@icons/alpha@1\.0\.0"):
        build(tmp_path / "out", source=tmp_path)


def test_no_npm(build, tmp_path, monkeypatch):
    monkeypatch.setattr(sources.shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match="--from"):
        build(tmp_path, source=None)


FAKE_NPM = """#!/bin/sh
test "$FAIL" && echo "npm error 404 no such thing" >&2 && exit 1
cp "$PACKAGES"/$(echo "$2" | tr '@/' ' -' | sed 's/^ //; s/ /-/').tgz .
"""


@pytest.fixture
def npm(packages, tmp_path, monkeypatch):
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(FAKE_NPM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PACKAGES", str(packages[0]))
    monkeypatch.delenv("FAIL", raising=False)
    return program


def test_fetched_archives_are_kept_for_another_size(build, tmp_path, npm, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert build(Path("out"), source=None).built
    assert len(list((tmp_path / "out" / "packages").glob("*.tgz"))) == 4
    npm.unlink()
    assert build(Path("out"), source=None, size=8).built


def test_npm_that_fails_says_why(build, tmp_path, npm, monkeypatch):
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(GalipError, match="404"):
        build(tmp_path / "out", source=None)
    assert not list((tmp_path / "out" / "packages").iterdir())


def test_fetched_with_another_sha512_is_not_kept(build, packages, tmp_path, npm):
    wrong = replace(packages[1][0], sha512="AAAA")
    with pytest.raises(FileRefused, match="sha512-AAAA"):
        build(tmp_path / "out", source=None, icon_sets=[wrong])
    assert not list((tmp_path / "out" / "packages").iterdir())


def test_a_package_that_is_no_icon_set(build, packages, tmp_path):
    _, sets, table = packages
    with pytest.raises(FileRefused, match="emoji-table"):
        build(tmp_path / "a", icon_sets=[table])
    with pytest.raises(FileRefused, match="icons-alpha"):
        build(tmp_path / "b", emojibase=sets[0])


def test_rendering_fills_the_frame_on_white():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32"/></svg>'
    picture = np.asarray(Image.open(io.BytesIO(render_svg(svg, 64))))
    assert picture.shape == (64, 64, 3)
    assert (picture[0] == 255).all()
    assert (picture[:, 0] == 255).all()
    ink = (picture < 128).all(2)
    assert ink[3:61, 3:61].all()
    assert not ink[[0, 1, -2, -1]].any()


def test_a_wide_icon_is_centred_and_what_lies_outside_its_box_is_cut():
    body = '<rect x="-20" y="-20" width="99" height="99"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="2 2 32 16">{body}</svg>'
    ink = np.asarray(Image.open(io.BytesIO(render_svg(svg, 64))))[..., 0] < 128
    rows = np.flatnonzero(ink.any(1))
    assert (rows[0], rows[-1]) == (17, 46)
    assert ink[32].sum() == 60


def test_a_mirrored_alias_is_its_icon_turned_round(tmp_path, packages):
    icons = {icon.name: icon for icon in icons_of(packages[0] / "icons-beta-1.0.0.tgz")}
    assert set(icons) >= {"hand-left", "hand-right"}
    assert "old-one" not in icons
    half = '<rect width="10" height="32"/>'
    left = np.asarray(
        Image.open(io.BytesIO(render_svg(icons["hand-left"].svg.replace("<circle", half + "<circle"), 32)))
    )
    right = render_svg(icons["hand-right"].svg.replace("<circle", half + "<circle"), 32)
    assert np.abs(np.asarray(Image.open(io.BytesIO(right))).astype(int)[:, ::-1] - left).max() < 32


ENDLESS = """
from icons.render import render_all
if __name__ == "__main__":
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><rect width="9" height="9"/></svg>'
    for png in render_all([("k", svg, "white")] * 200_000, 64):
        print("drawn", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_with_a_parent_that_was_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(sources.__file__).parents[1]))
    (tmp_path / "endless.py").write_text(ENDLESS)
    command = [sys.executable, str(tmp_path / "endless.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "drawn\n"
            tasks = Path(f"/proc/{parent.pid}/task").glob("*/children")
            children = [Path("/proc") / pid for task in tasks for pid in task.read_text().split()]
        finally:
            parent.kill()
    assert len(children) >= 2
    end = time.monotonic() + 20
    while alive := [child for child in children if child.exists()]:
        assert time.monotonic() < end, f"still there: {alive}"
        time.sleep(0.05)


def test_without_the_renderer_nothing_is_fetched(build, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ProviderUnavailable, match=re.escape(install_extra("train", "galip"))):
        build(tmp_path / "out")
    assert not (tmp_path / "out" / "packages").exists()


def test_broken_svg():
    with pytest.raises(GalipError):
        render_svg('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><g></svg>', 16)
    with pytest.raises(GalipError):
        render_svg("<svg/>", 16)


def test_the_recorded_packages():
    styles = ["3D", "flat", "noto", "blob", "twemoji", "emojione", "firefox"]
    assert [package.style for package in ICON_SETS] == [f"{style} style" for style in styles]
    for package in (*ICON_SETS, EMOJIBASE):
        assert len(package.sha512) == 88
        assert package.licence in ("MIT", "Apache-2.0", "CC-BY-4.0")
    assert ICON_SETS[0].archive == "iconify-json-fluent-emoji-1.2.7.tgz"


def test_the_record_says_what_was_built(build, packages, tmp_path):
    build(tmp_path)
    record = json.loads((tmp_path / "dataset.json").read_text())
    assert record["recipe"]["packages"]["@icons/alpha@1.0.0"] == packages[1][0].sha512
    assert {shard["name"] for shard in record["shards"]} == {path.name for path in tmp_path.glob("*.tar")}
    with tarfile.open(tmp_path / "train-00000.tar") as tar:
        assert all(member.mtime == 0 and not member.uname for member in tar)


def test_common_is_what_the_vocabulary_holds_early():
    merges = [("f", "ire</w>"), ("c", "ar</w>"), ("r", "ed</w>"), ("app", "le</w>"), ("octopu", "s</w>")]
    commonness = Commonness(merges)

    def rank(name, **known):
        return commonness.rank(Thing(name, name, "objects", "objects", **known))

    assert rank("fire") == (0, "fire")
    assert rank("red apple") == (3, "red apple")  # as rare as its rarest word
    assert rank("automobile", aliases=("car",), tags=("car", "drive")) == (1, "car")
    assert rank("automobile", aliases=("car",)) == (500, "automobile")  # another name counts if it is a tag


def test_short_ends_of_words_are_not_common():
    words = [f"{letter}x" for letter in "abcdefghijklmnopq"]
    merges = [("an", "t</w>"), *((word, "ant</w>") for word in words)]
    assert Commonness(merges).rank(Thing("ant", "ant", "animals-nature", "bugs"))[0] > 1000
    assert Commonness(merges[:15]).rank(Thing("ant", "ant", "animals-nature", "bugs"))[0] == 0


def test_commonest_things_follow_the_rule(build, tmp_path):
    build(tmp_path)
    things = commonest_things(tmp_path, quotas={"food-drink": 1, "travel-places": 5}, min_styles=2)
    assert [(item.thing, item.ranked_by) for item in things] == [
        ("red apple", "apple"),
        ("automobile", "car"),
        ("fire", "fire"),
    ]
    assert things[1].rank < things[2].rank < 2_000
    assert things[0].prompt == "a red apple"
    assert all(meta["thing"] != "fire" or meta["style"] != "beta style" for meta in read_metas(tmp_path))


def test_without_the_repository_the_command_says_where_the_recipe_is(tmp_path, monkeypatch):
    monkeypatch.setattr(data_icons, "__file__", str(tmp_path / "galip" / "cli" / "data_icons.py"))
    with pytest.raises(UsageError, match="clone"):
        data_icons._add_recipes_to_path()
