import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from galip_runtime.errors import ProviderUnavailable, UsageError
from icons.build import SPLITS, build_icons
from icons.captions import with_article
from icons.commonness import commonest_things
from icons.compose import arranged, mirrored
from icons.names import split_of
from icons.oklch import lab_of_lch, lch_of_rgb, rgb_of_lch
from icons.phrases import NOUNS, RECOLOURED, RIPENED, colourless, counted, is_countable, variant_captions
from icons.recolour import COLOURS, Family, dominant, drawn, nearest, recoloured
from icons.render import render_svg
from icons.variants import BACKGROUNDS, KINDS, Variants
from PIL import Image
from train.fake_icons import make_packages

from galip.data.conditions import excluded
from galip.data.shards import read_metas, read_samples

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">{}</svg>'
SQUARE = '<rect x="10" y="10" width="80" height="80" fill="{}"/>'
MANY = Variants(rank=10**9, colour=5, pair=2, count=2, background=2, size=2)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    return folder, *make_packages(folder)


@pytest.fixture(scope="module")
def build(packages):
    folder, sets, table = packages
    given = {"size": 32, "source": folder, "icon_sets": sets, "emojibase": table, "processes": 1}
    return lambda out, **changed: build_icons(out, **{**given, **changed})


@pytest.fixture(scope="module")
def varied(build, tmp_path_factory):
    out = tmp_path_factory.mktemp("varied")
    build(out, variants=MANY)
    return out


def picture_of(svg: str, background: str = "white") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(render_svg(svg, 64, background))))


def samples_of(out: Path) -> dict:
    present = [split for split in SPLITS if (out / f"{split}-00000.tar").exists()]
    return {sample.key: (split, sample) for split in present for sample in read_samples(out, split)}


def family_of(svg: str) -> Family:
    family = dominant(drawn(picture_of(svg)))
    assert family is not None
    return family


@pytest.mark.parametrize(
    ("rgb", "lch"),
    [  # reference values of CSS Color 4, rounded
        ((1, 0, 0), (0.628, 0.258, 29.2)),
        ((0, 1, 0), (0.866, 0.295, 142.5)),
        ((0, 0, 1), (0.452, 0.313, 264.1)),
        ((1, 1, 0), (0.968, 0.211, 109.8)),
    ],
)
def test_oklch_of_known_colours_and_back(rgb, lch):
    assert lch_of_rgb(np.array(rgb)) == pytest.approx(lch, abs=0.06)
    assert rgb_of_lch(lch_of_rgb(np.array(rgb, float))) == pytest.approx(rgb, abs=0.02)


def test_greys_have_no_chroma():
    assert lch_of_rgb(np.array([0.5, 0.5, 0.5]))[:2] == pytest.approx([0.598, 0], abs=0.001)
    assert lch_of_rgb(np.ones(3))[0] == pytest.approx(1, abs=1e-4)


def test_a_colour_that_srgb_lacks_loses_chroma_alone():
    lightness, chroma, hue = lch_of_rgb(rgb_of_lch(np.array([0.9, 0.3, 260])))
    assert (lightness, hue) == pytest.approx((0.9, 260), abs=1)
    assert 0.03 < chroma < 0.3


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("source", ["#dd2e44", "#1d6fe0", "#3f9b3a", "#fcd116"])
def test_a_drawing_gets_the_colour_asked_for(colour, source):
    svg = SVG.format(SQUARE.format(source))
    lch = lch_of_rgb(picture_of(recoloured(svg, family_of(svg), colour))[32, 32] / 255)
    assert nearest(lch) == colour
    if colour in ("black", "white", "grey"):
        assert lch[1] < 0.01
    else:
        assert abs((lch[2] - COLOURS[colour][2] + 180) % 360 - 180) < 12


@pytest.mark.parametrize("colour", COLOURS)
def test_the_shading_stays(colour):
    shades = ["#e8788a", "#dd2e44", "#a01428"]
    svg = SVG.format("".join(SQUARE.format(shade) for shade in shades))
    family = Family(*lch_of_rgb(np.array([0xDD, 0x2E, 0x44]) / 255), share=1)
    new = re.findall(r'fill="#(\w+)"', recoloured(svg, family, colour))
    lightness = [lch_of_rgb(np.array(list(bytes.fromhex(shade))) / 255)[0] for shade in new]
    assert lightness == sorted(lightness, reverse=True)
    assert lightness[0] - lightness[2] > 0.02


@pytest.mark.parametrize(
    "kept", ["#ffffff", "#333", "gray", "#00aced", "none", "url(#dd2e44)", "currentColor"]
)
def test_greys_outlines_and_other_hues_stay(kept):
    svg = SVG.format(SQUARE.format("#dd2e44") + f'<path fill="{kept}" stroke="{kept}" d="M0 0h9v9z"/>')
    new = recoloured(svg, family_of(SVG.format(SQUARE.format("#dd2e44"))), "green")
    assert f'fill="{kept}" stroke="{kept}"' in new
    assert "#dd2e44" not in new.replace("url(#dd2e44)", "")


def test_gradients_filters_and_other_spellings_of_colours_follow():
    family = family_of(SVG.format(SQUARE.format("#dd2e44")))
    paint = '<feColorMatrix values="0 0 0 0 0.87 0 0 0 0 0.18 0 0 0 0 0.27 0 0 0 1 0"/>'
    body = f'<stop stop-color="#D24"/><stop stop-color="rgba(221, 46, 68, .5)"/><path stroke="red"/>{paint}'
    new = recoloured(body, family, "blue")
    assert re.fullmatch(
        r'<stop stop-color="#\w{6}"/><stop stop-color="rgba\(\d+, \d+, \d+, \.5\)"/>'
        r'<path stroke="#\w{6}"/><fe.*',
        new,
    )
    red, green, blue = (float(value) for value in re.findall(r"0\.\d{6}", new))
    assert blue > green > red
    assert new.endswith(' 0 0 0 1 0"/>')


def test_the_dominant_hue_is_that_of_the_largest_area():
    family = family_of(
        SVG.format(SQUARE.format("#1d6fe0") + '<circle cx="50" cy="50" r="20" fill="#dd2e44"/>')
    )
    assert nearest(family.lch) == "blue"
    assert family.share == pytest.approx(1 - 3.14 * 20**2 / 80**2, abs=0.03)
    assert dominant(drawn(picture_of(SVG.format(SQUARE.format("#888"))))) is None


def test_red_is_one_hue_on_both_sides_of_zero_degrees():
    halves = (
        '<rect width="100" height="50" fill="#e0245e"/><rect y="50" width="100" height="50" fill="#e02424"/>'
    )
    assert family_of(SVG.format(halves)).share == 1


def test_backgrounds_are_what_they_are_called():
    for name, lch in BACKGROUNDS.items():
        if name.startswith("light "):
            assert abs(lch[2] - COLOURS[name.removeprefix("light ")][2]) < 10
            assert lch_of_rgb(rgb_of_lch(lch)) == pytest.approx(lch, abs=0.01)  # sRGB has it
            assert lch[0] > 0.85
        else:
            assert nearest(lch) == name


@pytest.mark.parametrize("count", [2, 3])
def test_drawings_side_by_side_are_separate(count):
    ink = (picture_of(arranged([SVG.format('<rect width="100" height="100"/>')] * count)) < 128).all(axis=2)
    columns = ink[48 if count == 3 else 32]
    assert np.count_nonzero(np.diff(columns.astype(int)) == 1) == 2
    assert ink[16].sum() == (pytest.approx(29, abs=2) if count == 3 else 0)


def test_parts_keep_their_own_gradients():
    square = '<rect width="99" height="99" fill="url(#a)"/>'
    gradient = '<linearGradient id="a"><stop stop-color="{0}"/></linearGradient>' + square
    picture = picture_of(arranged([SVG.format(gradient.format(colour)) for colour in ("#f00", "#00f")]))
    assert picture[32, 16].tolist() == [255, 0, 0]
    assert picture[32, 48].tolist() == [0, 0, 255]


def test_small_and_mirrored():
    corner = SVG.format('<rect width="50" height="100"/>')
    small = picture_of(arranged([SVG.format('<rect width="100" height="100"/>')], 0.5)) < 128
    assert small.all(axis=2).sum() == pytest.approx(30**2, rel=0.1)
    assert (picture_of(mirrored(corner)) == picture_of(corner)[:, ::-1]).all()


@pytest.mark.parametrize(
    ("noun", "plural"),
    [
        ("car", "two cars"),
        ("bus", "two buses"),
        ("mouse", "two mice"),
        ("goose", "two geese"),
        ("sheep", "two sheep"),
        ("kitchen knife", "two kitchen knives"),
        ("strawberry", "two strawberries"),
        ("glass of milk", "two glasses of milk"),
        ("t-shirt", "two t-shirts"),
        ("blue Christmas tree", "two blue Christmas trees"),
        ("bus stop", "two bus stops"),
        ("on! arrow", "two on! arrows"),
        ("left-facing fist", "two left-facing fists"),
        ("SUV", "two SUVs"),
        ("yo-yo", "two yo-yos"),
    ],
)
def test_plurals(noun, plural):
    assert is_countable(noun)
    assert counted(noun, 2) == plural


@pytest.mark.parametrize("noun", ["fire", "grapes", "Statue of Liberty", "skis", "two hearts", "Santa Claus"])
def test_what_has_no_plural_is_not_counted(noun):
    assert not is_countable(noun)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("red apple", "apple"),
        ("light blue heart", "heart"),
        ("orange", "orange"),
        ("blackboard", "blackboard"),
    ],
)
def test_names_without_their_colour(name, base):
    assert colourless(name) == base


def test_nouns_and_lists_are_well_written():
    assert not RECOLOURED & RIPENED.keys()
    assert all(set(colours) < set(COLOURS) for colours in RIPENED.values())
    for name in (*RECOLOURED, *RIPENED, *NOUNS, *NOUNS.values()):
        assert name == " ".join(name.split())


def test_captions_of_variants():
    assert variant_captions("a blue car", "flat style", ["a blue automobile"], " on a pink background") == [
        "a blue car on a pink background, flat style",
        "a blue car in flat style on a pink background",
        "flat style picture of a blue car on a pink background",
        "a blue automobile on a pink background, flat style",
        "a blue car on a pink background",
    ]


def test_plain_pictures_are_the_same_with_and_without_variants(build, varied, tmp_path):
    build(tmp_path)
    plain, with_variants = samples_of(tmp_path), samples_of(varied)
    kept = {key: value for key, value in with_variants.items() if not excluded(value[1].meta, ("variant",))}
    assert list(plain) == list(kept)
    for key, (split, sample) in plain.items():
        assert kept[key][0] == split
        assert kept[key][1].meta == sample.meta
        assert (kept[key][1].picture == sample.picture).all()
    assert "variants" not in json.loads((tmp_path / "dataset.json").read_text())["recipe"]


def test_variants_have_captions_and_the_meta_of_their_source(build, varied):
    samples = samples_of(varied)
    variants = [sample for _, sample in samples.values() if sample.meta.get("variant")]
    assert {sample.meta["variant"] for sample in variants} == set(KINDS)
    for sample in variants:
        meta = sample.meta
        source = samples[sample.key.rpartition("--")[0]][1].meta
        assert {key: meta[key] for key in ("thing", "base", "style", "group", "source", "licence")} == {
            key: source[key] for key in ("thing", "base", "style", "group", "source", "licence")
        }
        assert 3 <= len(meta["captions"]) <= 6
        assert meta["captions"][0] == sample.caption
        assert sample.caption.endswith(f", {meta['style']}")
        assert meta["style"] not in meta["captions"][-1]
        assert len(set(meta["captions"])) == len(meta["captions"])
        if meta["variant"] in ("colour", "background", "size", "count"):
            assert meta[meta["variant"]]
        for caption in meta["captions"]:
            assert meta.get("colour", "") in caption
            if "background" in meta:
                assert f"{with_article(meta['background'])} background" in caption


def test_variants_are_in_the_split_of_their_things_and_of_no_people(varied):
    for split, sample in samples_of(varied).values():
        if sample.meta.get("variant"):
            assert split_of(sample.meta["base"]) == split
            assert split_of(sample.meta.get("other", sample.meta["base"])) == split
            assert sample.meta["group"] not in ("people-body", "flags", "other")


def test_the_picture_has_the_colour_and_the_background_that_its_caption_names(varied):
    seen = set()
    for _, sample in samples_of(varied).values():
        lch = lch_of_rgb(sample.picture / 255)
        if background := sample.meta.get("background"):
            assert lab_of_lch(lch[0, 0]) == pytest.approx(lab_of_lch(BACKGROUNDS[background]), abs=0.01)
        if sample.meta.get("variant") == "colour":
            assert nearest(lch[16, 16]) == sample.meta["colour"]
            seen.add(sample.meta["colour"])
    assert len(seen) > 8


def test_a_colour_that_another_thing_has_is_left_to_it(varied):
    apples = [sample for _, sample in samples_of(varied).values() if sample.meta["thing"] == "red apple"]
    assert "red" not in {sample.meta.get("colour") for sample in apples}
    assert "a yellow apple, alpha style" in {sample.caption for sample in apples}


def test_the_same_variants_every_time_and_in_two_processes(build, varied, tmp_path, monkeypatch):
    monkeypatch.setattr("icons.render.CHUNK", 64)
    build(tmp_path, variants=MANY, processes=2)
    for shard in varied.glob("*.tar"):
        assert shard.read_bytes() == (tmp_path / shard.name).read_bytes()


def test_other_variants_are_another_build(build, tmp_path):
    few = Variants(rank=10**9, colour=0.2, pair=0, count=0, background=0, size=0)
    assert build(tmp_path).built
    assert build(tmp_path, variants=few).built
    assert not build(tmp_path, variants=few).built
    assert build(tmp_path, variants=replace(few, colour=0)).built
    assert build(tmp_path).built


def test_a_rank_leaves_rare_things_plain(build, tmp_path):
    build(tmp_path, variants=replace(MANY, rank=2_000))
    ranks = [s.meta["rank"] for _, s in samples_of(tmp_path).values() if s.meta.get("variant")]
    assert 0 < max(ranks) <= 2_000


def test_the_commonest_things_are_the_same_with_variants(build, varied, tmp_path):
    build(tmp_path)
    assert commonest_things(varied, min_styles=2) == commonest_things(tmp_path, min_styles=2)
    assert len(list(read_metas(varied))) > len(list(read_metas(tmp_path)))


@pytest.mark.parametrize(
    ("option", "value"), [("rank", -1), ("colour", -0.1), ("pair", 5.5), ("size", float("nan"))]
)
def test_unusable_options(option, value):
    with pytest.raises(UsageError, match=option):
        Variants(**{option: value})


def test_without_inflect(build, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "inflect", None)
    with pytest.raises(ProviderUnavailable, match="inflect"):
        build(tmp_path, variants=MANY)
