"""The shipped model is intact, small, described, and does what its card says."""

import json
import re
import shutil
from pathlib import Path

import galip_export
import galip_runtime
import numpy as np
import pytest
from galip_runtime import UsageError
from icons import CARD
from icons.figures import RIVALS, evaluation_table, rivals_table
from icons.sources import ICON_SETS
from runtime.stub_bundle import make_stub_bundle

import galip.assets
from galip.assets import default_bundle, default_checkpoint
from galip.checkpoint import PARTS, load_galip, read_info
from galip.cli.app import _run
from galip.presets import preset

ASSETS = Path(galip.assets.__file__).parent


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GALIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        first = default_bundle()
        written = (first / "manifest.json").stat().st_mtime_ns
        assert default_bundle() == first
        assert (first / "manifest.json").stat().st_mtime_ns == written  # exported once
        return first


@pytest.fixture(scope="module")
def model(bundle):
    return galip_runtime.load(bundle, device="cpu")


def test_is_small_and_whole():
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) <= 40 * 2**20
    info = read_info(default_checkpoint())
    assert info.config == preset("default")
    assert info.parts == PARTS
    assert info.dtypes == ("F16",)
    assert info.note["train"]["steps"] > info.note["train"]["paired_steps"]  # GALIP's own losses at the end
    load_galip(default_checkpoint(), needs=PARTS)


def test_the_card_tells_the_licences_and_has_its_pictures():
    card = (CARD.parent / "MODEL_CARD.md").read_text()
    assert "@@" not in card
    for package in ICON_SETS:
        assert package.style in card
        assert package.licence.replace("-", " ").split()[0] in card
    for name in (
        "pictures",
        "commonest",
        "held_out",
        "seeds",
        "interpolation",
        "curves_64",
        "curves_128",
        "rivals",
    ):
        assert f"card/{name}.png" in card
        assert (CARD / f"{name}.png").stat().st_size > 1000
    assert len(json.loads((CARD / "commonest.json").read_text())) == 40


def test_the_card_s_figures_are_the_measured_ones():
    card = (CARD.parent / "MODEL_CARD.md").read_text()
    evaluation = json.loads((CARD / "evaluation.json").read_text())
    rivals = json.loads((CARD / "rivals.json").read_text())
    assert evaluation_table(evaluation) in card
    assert rivals_table(rivals) in card
    assert list(rivals) == list(RIVALS)
    seen = evaluation["seen"]["figures"]
    assert seen["retrieval"] >= 0.7 * seen["retrieval_real"]
    assert seen["fid"] <= 2.5 * seen["fid_real"] + 15
    assert seen["seed_psnr"] < 25
    own, paired = (rivals[name]["training"]["seconds"] for name in ("own-losses", "paired"))
    assert own == pytest.approx(paired, rel=0.15)  # an equal budget


def test_the_training_s_log_and_commit_are_kept():
    note = read_info(default_checkpoint()).note
    steps = [json.loads(line)["step"] for line in (CARD / "log_128.jsonl").read_text().splitlines()]
    every = note["train"]["log_every"]
    assert steps == list(range(every, note["step"] + 1, every))
    assert re.search(r"commit `[0-9a-f]{40}`", (CARD.parent / "MODEL_CARD.md").read_text())


def test_every_picture_of_the_card_s_table_was_judged():
    common = json.loads((CARD / "commonest.json").read_text())
    judged = json.loads((CARD / "judged.json").read_text())
    assert list(judged) == common
    styles = {package.style.removesuffix(" style") for package in ICON_SETS}
    assert all(set(named) == styles for named in judged.values())


def test_pictures_follow_thing_style_and_seed(model):
    things, styles = ("a red heart", "a thinking face", "a Christmas tree"), ("3D style", "firefox style")
    pictures = model.generate([f"{thing}, {style}" for thing in things for style in styles], seeds=3)
    pictures = pictures.reshape(3, 2, 128, 128, 3).astype(int)
    colours = pictures.mean(axis=(1, 2, 3))  # of things, over both styles
    assert colours[0].argmax() == 0  # a heart is red
    assert colours[1].argmin() == 2  # a face is yellow
    assert colours[2, 1] > colours[2, 2]  # a tree is greener than blue
    assert np.abs(pictures[:, 0] - pictures[:, 1]).mean() > 3
    seeds = model.generate("a red heart, 3D style", seeds=range(6)).astype(int)
    assert min(np.abs(a - b).mean() for i, a in enumerate(seeds) for b in seeds[:i]) > 1


def test_pictures_lie_on_white(model):
    pictures = model.generate(["a pizza, flat style", "a cat, noto style"], seeds=11)
    assert pictures[:, :2].mean() > 235


class TestCachedBundle:
    """The shipped model's bundle in the cache, replaced by a stub."""

    @pytest.fixture
    def exports(self, monkeypatch, tmp_path):
        monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
        bundles = []

        def export(checkpoint, out, progress):
            if out.exists():
                raise UsageError(f"{out} exists already")
            bundles.append(make_stub_bundle(out))

        monkeypatch.setattr(galip_export, "export_bundle", export)
        return bundles

    def test_is_exported_once(self, exports):
        assert default_bundle() == default_bundle()
        assert len(exports) == 1

    @pytest.mark.parametrize("name", ["manifest.json", "generator.onnx", "parity.json"])
    @pytest.mark.parametrize("damage", ["cut", "a bit", "missing", "a folder"])
    def test_one_that_is_damaged_is_exported_anew(self, exports, name, damage):
        path = default_bundle() / name
        data = path.read_bytes()
        path.unlink()
        if damage == "a folder":
            path.mkdir()
        elif damage != "missing":
            path.write_bytes(data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
        assert (default_bundle() / name).read_bytes() == data
        assert len(exports) == 2

    def test_what_is_in_its_place_and_no_folder_is_left(self, exports):
        bundle = default_bundle()
        shutil.rmtree(bundle)
        bundle.write_text("mine")
        with pytest.raises(UsageError, match=bundle.name):
            default_bundle()
        assert bundle.read_text() == "mine"

    def test_where_it_cannot_be_written(self, exports, monkeypatch):
        def full(*_, **__):
            raise UsageError("cannot write 1 bytes: No space left on device")

        monkeypatch.setattr(galip_export, "export_bundle", full)
        with pytest.raises(UsageError, match=r"No space left.*GALIP_CACHE.*--bundle"):
            default_bundle()

    def test_two_at_once(self, exports, monkeypatch):
        def slower(checkpoint, out, progress):
            make_stub_bundle(out)
            raise UsageError(f"{out} exists already")

        monkeypatch.setattr(galip_export, "export_bundle", slower)
        assert (default_bundle() / "manifest.json").exists()

    @pytest.mark.parametrize("cache", ["a file", "for all", "/proc/nope", "no home"])
    def test_without_a_cache_that_can_be_trusted(self, exports, monkeypatch, tmp_path, cache):
        if cache == "a file":
            (tmp_path / "cache").write_text("")
        elif cache == "for all":
            default_bundle()
            (tmp_path / "cache").chmod(0o777)
        elif cache == "no home":
            for name in ("GALIP_CACHE", "XDG_CACHE_HOME"):
                monkeypatch.delenv(name, raising=False)
            monkeypatch.setenv("HOME", "nowhere")
        else:
            monkeypatch.setenv("GALIP_CACHE", cache)
        out = tmp_path / "x.png"
        with pytest.raises(UsageError, match=r"GALIP_CACHE.*--bundle"):
            default_bundle()
        for command in (["generate", "a"], ["interpolate", "a", "b"], ["sample-grid", "a"]):
            assert _run([*command, "--out", str(out)], False) == 2
        assert not out.exists()
