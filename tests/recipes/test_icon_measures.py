"""Colour, variety and sharpness, measured on drawn pictures whose answer is known."""

import io
import itertools
import json

import numpy as np
import pytest
from galip_runtime.errors import FileRefused, UsageError
from icons import measure as measuring
from icons.colours import (
    ASKED,
    BOUNDS,
    COLOURED_THINGS,
    colour_in_name,
    colour_names,
    foreground,
    largest_colour,
    measure_colours,
)
from icons.figures import colours_table, spectrum_table, things_coloured_table, variety_table
from icons.measure import lpips
from icons.oklch import lch_of_rgb
from icons.spectrum import compare_spectra, octaves, peaks, plot_spectra, power_spectrum
from icons.variety import PAIRS, centred, measure_variety, posed, register
from PIL import Image, ImageDraw, ImageFilter
from train.perceptual_fixtures import write_teacher

from galip.assets import STYLES
from galip.data.shards import Sample, write_shards

SEEDS = (0, 1)


def drawn(*shapes, side=128):
    """A picture on white of (kind, box, colour) shapes."""
    picture = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(picture)
    for kind, box, colour in shapes:
        getattr(draw, kind)(box, fill=colour)
    return np.asarray(picture)


def house(wall="#2196f3", roof="#8b4513"):
    return drawn(
        ("rectangle", (34, 60, 94, 110), wall), ("polygon", (24, 60, 64, 20, 104, 60), roof),
        ("rectangle", (56, 80, 72, 110), "white"),
    )  # fmt: skip


class Painter:
    """A stand-in of a model: `paint` draws the picture of a prompt and a seed."""

    def __init__(self, paint):
        self.paint = paint

    def generate(self, prompts, seeds):
        seeds = [seeds] * len(prompts) if isinstance(seeds, int) else seeds
        return np.stack([self.paint(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)])


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("#ff0000", "red"), ("#dd2e44", "red"), ("#ffa500", "orange"), ("#ff5722", "orange"),
        ("#ffcc4d", "yellow"), ("#ffff00", "yellow"), ("#77b255", "green"), ("#00ff00", "green"),
        ("#0000ff", "blue"), ("#55acee", "blue"), ("#bbddf5", "blue"), ("#aa8ed6", "purple"),
        ("#ff69b4", "pink"), ("#ffc0cb", "pink"), ("#8b4513", "brown"), ("#c1694f", "brown"),
        ("#ffffff", ""), ("#808080", ""), ("#000000", ""),
    ],
)  # fmt: skip
def test_colours_have_their_names(code, name):
    picture = np.asarray(Image.new("RGB", (2, 2), code))
    assert (colour_names(picture) == name).all()


def test_every_colour_has_one_name():
    cube = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), axis=-1).reshape(1, -1, 3)
    lightness, chroma, hue = np.moveaxis(lch_of_rgb(cube / 255), -1, 0)
    matches = sum(
        (
            ((hue - first) % 360 < last - first) & (lightness >= dark) & (lightness < light + (light == 1))
        ).astype(int)
        for _, first, last, dark, light in BOUNDS
    )
    assert (matches == 1).all()
    assert ((colour_names(cube) != "") == (chroma >= 0.04)).all()


def test_white_inside_a_thing_is_foreground():
    ring = drawn(("ellipse", (20, 20, 108, 108), "#dd2e44"), ("ellipse", (44, 44, 84, 84), "white"))
    mask = foreground(ring)
    assert mask[64, 64]
    assert mask[64, 30]
    assert not mask[2, 2]
    assert mask.mean() == pytest.approx(np.pi * 44.5**2 / 128**2, rel=0.02)


def test_the_largest_region_gives_the_colour():
    assert largest_colour(drawn(("rectangle", (30, 30, 90, 90), "#2196f3"))) == "blue"
    # more red in all, but in pieces, and black and white count for nothing
    pieces = [("rectangle", (4 + 24 * i, 4, 20 + 24 * i, 40), "red") for i in range(5)]
    largest = ("rectangle", (10, 60, 50, 110), "#00a040")
    black = ("rectangle", (60, 50, 127, 127), "black")
    assert largest_colour(drawn(*pieces, largest, black)) == "green"
    # light and dark of one colour are one region
    two_tones = [("rectangle", (60, 60, 84, 110), "#0d47a1"), ("rectangle", (85, 60, 110, 110), "#64b5f6")]
    assert largest_colour(drawn(("rectangle", (10, 60, 45, 110), "red"), *two_tones)) == "blue"


def test_a_picture_without_colour_has_none():
    assert largest_colour(drawn()) == ""
    assert largest_colour(drawn(("rectangle", (30, 30, 90, 90), "#777777"))) == ""
    assert largest_colour(drawn(("rectangle", (30, 30, 38, 38), "red"))) == ""  # a speck


@pytest.mark.parametrize(
    ("thing", "colour"),
    [("blue book", "blue"), ("light blue heart", "blue"), ("orange", ""), ("redwood tree", ""), ("dog", "")],
)
def test_names_tell_colours(thing, colour):
    assert colour_in_name(thing) == colour


def test_the_share_of_the_colours_asked_for():
    """A painter that obeys for cars and houses alone, and paints the rest red."""

    def paint(prompt, seed):
        _, colour, thing = prompt.split(",")[0].split()
        paint = {"blue": "#2196f3", "red": "#f44336", "green": "#4caf50", "yellow": "#fdd835"}
        asked = colour if thing in ("car", "house") else "red"
        return drawn(("rectangle", (10 + seed, 10, 40, 40), paint[asked]), side=48)

    icons = [
        Sample("1", house(), "a blue house", {"thing": "blue house"}),
        Sample("2", house("#4caf50"), "a blue house", {"thing": "blue house"}),
        Sample("3", house("#f44336"), "a red house", {"thing": "red house"}),
        Sample("4", house(), "a house", {"thing": "house"}),
    ]
    result = measure_colours(Painter(paint), icons, SEEDS)
    assert result["pictures"] == len(ASKED) * len(COLOURED_THINGS) * len(STYLES) * len(SEEDS)
    assert result["share"] == pytest.approx((2 + 3 / 4) / 5)
    assert result["shares"]["colour"] == pytest.approx({"blue": 0.4, "red": 1, "green": 0.4, "yellow": 0.4})
    assert result["shares"]["thing"]["car"] == 1
    assert result["shares"]["thing"]["flower"] == pytest.approx(0.25)
    assert set(result["shares"]["style"]) == set(STYLES)
    assert result["found"]["blue"] == {"red": 3 * 7 * 2, "blue": 2 * 7 * 2}
    assert result["real"] == {
        "pictures": 3, "share": pytest.approx(2 / 3), "shares": {"red": 1.0, "blue": 0.5},
    }  # fmt: skip
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in colours_table(result).splitlines()]
    assert rows[0] == ["asked for", *ASKED, "real ones recognised"]
    assert rows[2] == ["blue", "40%", "60%", "0%", "0%", "50%"]
    rows = [row.split("|")[2:-1] for row in things_coloured_table(result).splitlines()]
    assert [cell.strip() for cell in rows[2]] == ["100%", "100%", "25%", "25%", "25%", "55%"]


def test_aligning_undoes_scale_and_shift():
    picture = house()
    moved = posed(picture, 0.8, 6, -9)
    assert np.abs(moved.astype(int) - picture).mean() > 15
    target = centred(picture)
    aligned = register(centred(moved), target)
    assert np.abs(aligned.astype(int) - target).mean() < 3
    assert (register(target, target) == target).all()


def test_register_finds_a_shift_exactly():
    target = centred(house())
    for down, right in itertools.product((-8, 0, 5), (-3, 8)):
        assert (register(posed(target, 1, down, right), target) == target).all()


def test_a_speck_does_not_move_the_frame():
    speck = house().copy()
    speck[2:4, 2:4] = 0
    assert np.abs(centred(speck).astype(int) - centred(house())).max() == 0
    assert centred(drawn()).min() == 255


def pixel_distance(first, second):
    """A stand-in of LPIPS."""
    return np.abs(first.astype(float) - second).mean()


COLOURS = ["#f44336", "#2196f3", "#4caf50", "#fdd835", "#7e57c2"]


def painted_things(recolour):
    """Two shapes, each style in its colour; seeds move them, and `recolour` them too."""

    def paint(prompt, seed):
        thing, style = prompt.split(", ")
        colour = COLOURS[(int(style) + recolour * seed) % 5]
        shape = house(colour) if thing == "a house" else drawn(("ellipse", (10, 40, 118, 88), colour))
        return posed(shape, 1 - 0.15 * seed, 5 * seed, -4 * seed)

    return Painter(paint)


@pytest.mark.parametrize(("recolour", "expected"), [(0, 0), (1, 1)])
def test_seeds_that_only_move_a_thing_add_no_variety(recolour, expected):
    painter = painted_things(recolour)
    prompts, styles = {"house": "a house", "ball": "a ball"}, ("0", "1", "2", "3")
    real = {
        (thing, style): painter.paint(f"{prompt}, {style}", 0)
        for thing, prompt in prompts.items()
        for style in styles
    }
    result = measure_variety(painter, prompts, real, pixel_distance, styles)
    assert list(result["lpips"]) == list(PAIRS)
    assert set(result["pairs"].values()) == {2}
    assert result["share"] == pytest.approx(expected, abs=0.15)
    assert result["lpips"]["seeds_unaligned"] > result["lpips"]["seeds"] + 3
    assert result["lpips"]["real_pose"] < 4 < result["lpips"]["real_styles"]
    assert result["lpips"]["real_things"] > 2 * result["lpips"]["real_pose"]
    assert "two seeds of one prompt" in variety_table(result)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(60, 196, (48, 128, 128, 3)).astype(np.uint8)


def test_power_adds_up_to_the_variance(noise):
    power = power_spectrum(noise)
    brightness = noise @ [0.299, 0.587, 0.114]
    assert power.sum() - power[0, 0] == pytest.approx(brightness.var(axis=(1, 2)).mean())
    assert sum(octaves(power).values()) == pytest.approx(power.sum() - power[0, 0])


def test_a_wave_is_in_its_octave():
    column = 128 + 100 * np.sin(2 * np.pi * np.arange(64) / 64 * 12)  # of 5.3 pixels
    wave = np.broadcast_to(np.round(column)[None, :, None], (64, 64, 3)).astype(np.uint8)
    power = octaves(power_spectrum(wave[None]))
    assert power[4] == pytest.approx(5000, rel=0.01)
    assert sum(power.values()) == pytest.approx(power[4], rel=0.01)


def test_equal_pictures_are_equally_sharp(noise):
    result = compare_spectra(noise, noise)
    assert result["sharpness"] == result["artefacts"] == 1
    assert set(result["octaves"].values()) == {1.0}
    assert "| made by real |" in spectrum_table(result)


def test_blur_lowers_sharpness(noise, tmp_path):
    blurred = np.stack(
        [np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(2))) for picture in noise]
    )
    result = compare_spectra(blurred, noise)
    assert result["sharpness"] < 0.5
    assert result["octaves"]["2"] < 0.01 < result["octaves"]["16"]
    plot_spectra(result, tmp_path / "spectrum.png")
    assert Image.open(tmp_path / "spectrum.png").width > 300


@pytest.mark.parametrize("period", [2, 4, 8, 16])
@pytest.mark.parametrize("kind", ["checkerboard", "stripes"])
def test_a_periodic_pattern_peaks_at_its_period(noise, period, kind):
    y, x = np.mgrid[:128, :128] // (period // 2)
    sign = (y + x) % 2 if kind == "checkerboard" else x % 2
    patterned = np.clip(noise + np.where(sign, 3, -3)[None, :, :, None], 0, 255).astype(np.uint8)
    result = compare_spectra(patterned, noise)
    ratios = peaks(power_spectrum(patterned))
    assert max(ratios, key=ratios.get) == period
    assert result["artefacts"] > 10
    assert result["artefacts"] == pytest.approx(ratios[period] / result["peaks"]["real"][str(period)])


@pytest.mark.parametrize("shape", [(1, 128, 64, 3), (1, 100, 100, 3), (1, 32, 32, 3)])
def test_spectra_need_squares_of_whole_periods(shape):
    with pytest.raises(UsageError, match="squares of"):
        power_spectrum(np.zeros(shape, np.uint8))


def test_lpips_is_nothing_for_equal_pictures_and_grows(tmp_path):
    distance = lpips(write_teacher(tmp_path / "teacher.safetensors"))
    picture = house()
    other = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1)))
    assert distance(picture, picture) == 0
    assert 0 < distance(picture, other) < distance(picture, 255 - picture)


class Known:
    """Stands in for `commonest_things`, which needs CLIP's words."""

    def __init__(self, thing):
        self.thing, self.prompt = thing, f"a {thing}"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs the command on a painter and two things in all styles; returns the results' file."""
    painter = Painter(lambda prompt, seed: house(COLOURS[len(prompt) % 5] if seed else COLOURS[0]))
    monkeypatch.setattr(measuring, "load_eager", lambda path: painter)
    monkeypatch.setattr(measuring, "COLOUR_SEEDS", (0,))
    monkeypatch.setattr(measuring, "commonest_things", lambda data: [Known("house"), Known("dog")])

    def samples():
        metas = {
            "house": "travel-places",
            "dog": "animals-nature",
            "red heart": "smileys-emotion",
            "king": "x",
        }
        for (thing, group), style in itertools.product(metas.items(), STYLES):
            for code, variant in (("#f44336", {}), ("#3f51b5", {"variant": "colour"})):  # which is left out
                png = io.BytesIO()
                Image.fromarray(house(code, code)).resize((64, 64)).save(png, "PNG")
                meta = {"thing": thing, "style": style, "group": group, "skin_tone": "", **variant}
                yield f"{thing} {style} {code[1:]}", png.getvalue(), f"a {thing}, {style}", meta

    write_shards(tmp_path, "train", samples())
    weights = write_teacher(tmp_path / "teacher.safetensors")

    def run(*options):
        arguments = ["--data", str(tmp_path), "--perceptual", str(weights), "--out", str(tmp_path / "m.json")]
        measuring.main([*arguments, *options])
        return tmp_path / "m.json"

    return run


def test_the_command_measures_everything(command, tmp_path):
    results = json.loads(command("--plot", str(tmp_path / "spectrum.png")).read_text())
    assert list(results) == ["model", "colours", "variety", "spectrum"]
    assert len(results["model"]) == 64
    assert results["colours"]["real"] == {"pictures": 7, "share": 1.0, "shares": {"red": 1.0}}
    assert results["variety"]["pairs"] == dict.fromkeys(PAIRS, 2)
    assert results["spectrum"]["pictures"] == {"made": 14, "real": 14}
    assert (tmp_path / "spectrum.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--perceptual", "none.safetensors"), FileRefused),
        (("--plot", "none/plot.png"), UsageError),
    ],
)
def test_the_command_refuses_what_it_cannot_use(command, capsys, options, error):
    with pytest.raises(SystemExit) as exit_:
        command(*options)
    assert exit_.value.code == error.exit_code
    assert "none" in capsys.readouterr().err
