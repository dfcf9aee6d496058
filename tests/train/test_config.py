"""The config: JSON there and back, and every wrong value named."""

import copy
import dataclasses
import json

import pytest
from galip_runtime.errors import UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

from galip.config import (
    ClipConfig,
    DiscriminatorConfig,
    GalipConfig,
    GeneratorConfig,
    ImageTowerConfig,
    TextTowerConfig,
)
from galip.presets import PRESETS, preset


def leaves(data, path=()):
    """The path of every field that is no object."""
    for key, value in data.items():
        yield from leaves(value, (*path, key)) if isinstance(value, dict) else [(*path, key)]


def changed(data, path, value=None, *, drop=False):
    data = copy.deepcopy(data)
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return data


TINY = json.loads(json.dumps(preset("tiny").to_dict()))
LEAVES = list(leaves(TINY))
OBJECTS = [(), ("clip",), ("clip", "image"), ("clip", "text"), ("generator",), ("discriminator",)]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_come_back_from_json(name):
    config = preset(name)
    assert GalipConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert ClipConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config.clip)))) == config.clip


def test_unknown_preset_lists_the_known():
    with pytest.raises(UsageError, match=r"'large'.*released, default, default-64, tiny"):
        preset("large")


small = st.integers(1, 64)
positive = st.floats(1e-3, 10)


@st.composite
def configs(draw):
    patch, head_width, heads, layers = (
        draw(small),
        draw(small),
        draw(st.integers(1, 4)),
        draw(st.integers(1, 6)),
    )
    image = ImageTowerConfig(patch * draw(st.integers(7, 9)), patch, head_width * heads, layers, head_width)
    text = TextTowerConfig(
        draw(st.integers(3, 77)), draw(st.integers(0, 48_894)), head_width * heads, layers, heads
    )
    clip = ClipConfig(
        draw(small),
        draw(st.booleans()),
        *(draw(st.tuples(positive, positive, positive)) for _ in "ms"),
        image,
        text,
    )
    clip_layers = draw(st.integers(1, layers))
    sizes = sorted(draw(st.lists(st.integers(9, 300), min_size=1, max_size=4)))
    generator = GeneratorConfig(
        noise_dim=draw(small),
        use_clip=draw(st.booleans()),
        clip_layers=clip_layers,
        prompt_layers=tuple(draw(st.sets(st.integers(0, clip_layers - 1)))),
        clip_weight=draw(st.floats(-1e6, 1e6)),
        channels=tuple(draw(small) for _ in range(len(sizes) + 1)),
        sizes=tuple(sizes),
    )
    discriminator = DiscriminatorConfig(
        tuple(sorted(draw(st.sets(st.integers(0, layers - 1), min_size=1)))),
        pixel_range=draw(st.sampled_from(["released", "clip"])),
        features=draw(st.sampled_from(["cfe", "ccm-csm", "cnn"])),
    )
    return GalipConfig(clip, generator, discriminator)


@given(configs())
@settings(max_examples=60, deadline=None)
def test_any_config_comes_back_from_json(config):
    assert GalipConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


ADDED = ("discriminator", "features")  # younger than the first files


def test_a_field_that_was_added_later_has_its_default():
    assert GalipConfig.from_dict(changed(TINY, ADDED, drop=True)) == preset("tiny")


@pytest.mark.parametrize("path", [path for path in LEAVES if path != ADDED], ids=".".join)
def test_a_missing_field_is_named(path):
    with pytest.raises(UsageError) as error:
        GalipConfig.from_dict(changed(TINY, path, drop=True))
    assert ".".join(["config", *path]) in str(error.value)


@pytest.mark.parametrize("path", OBJECTS, ids=".".join)
def test_an_unknown_field_is_named(path):
    with pytest.raises(UsageError) as error:
        GalipConfig.from_dict(changed(TINY, (*path, "colour"), 1))
    assert ".".join(["config", *path]) in str(error.value)
    assert "'colour'" in str(error.value)


WRONG = [None, {"a": 1}, "text", True, 0.5, [None], [], float("nan"), -1]
RIGHT = {("clip", "quick_gelu"): True, ("generator", "use_clip"): True, ("generator", "prompt_layers"): []}


def wrong_values():
    for path in LEAVES:
        for wrong in WRONG:
            number = path[-1] == "clip_weight" and wrong in (0.5, -1) and wrong is not True
            if not number and not (
                path in RIGHT and RIGHT[path] == wrong and type(RIGHT[path]) is type(wrong)
            ):
                yield pytest.param(path, wrong, id=f"{'.'.join(path)}={wrong}")


@pytest.mark.parametrize(("path", "wrong"), list(wrong_values()))
def test_an_ill_typed_field_is_named(path, wrong):
    with pytest.raises(UsageError) as error:
        GalipConfig.from_dict(changed(TINY, path, wrong))
    assert path[-1] in str(error.value)


@pytest.mark.parametrize("path", OBJECTS, ids=".".join)
@pytest.mark.parametrize("wrong", [None, 3, [], "text"], ids=repr)
def test_something_else_instead_of_an_object(path, wrong):
    with pytest.raises(UsageError, match=r"\.".join(["config", *path]) + " is"):
        GalipConfig.from_dict(changed(TINY, path, wrong) if path else wrong)


@pytest.mark.parametrize(
    ("offender", "make"),
    [
        ("image_size 30 .* patch_size 4", lambda: ImageTowerConfig(image_size=30, patch_size=4)),
        ("patch_size is 0", lambda: ImageTowerConfig(patch_size=0)),
        ("width 100 .* head_width 64", lambda: ImageTowerConfig(width=100, head_width=64)),
        ("width 100 .* 8 heads", lambda: TextTowerConfig(width=100)),
        ("heads is 0", lambda: TextTowerConfig(heads=0)),
        ("merges is 48895", lambda: TextTowerConfig(merges=48_895)),
        ("merges is -1", lambda: TextTowerConfig(merges=-1)),
        ("context_length is 2", lambda: TextTowerConfig(context_length=2)),
        ("std", lambda: ClipConfig(std=(0.2, 0.0, 0.2))),
        ("mean", lambda: ClipConfig(mean=(0.2, float("inf"), 0.2))),
        ("channels has 2 .* sizes 2", lambda: GeneratorConfig(channels=(8, 8), sizes=(8, 16))),
        ("sizes", lambda: GeneratorConfig(channels=(8,), sizes=())),
        (r"sizes \(16, 8\)", lambda: GeneratorConfig(channels=(8, 8, 8), sizes=(16, 8))),
        ("prompt_layers", lambda: GeneratorConfig(prompt_layers=(12,))),
        (r"prompt_layers \(1, 1\)", lambda: GeneratorConfig(prompt_layers=(1, 1))),
        ("clip_weight is nan", lambda: GeneratorConfig(clip_weight=float("nan"))),
        ("collect_layers", lambda: DiscriminatorConfig(collect_layers=())),
        (r"collect_layers \(4, 1\)", lambda: DiscriminatorConfig(collect_layers=(4, 1))),
        ("collect_layers is -1", lambda: DiscriminatorConfig(collect_layers=(-1, 4))),
        ("'half'.*'released'.*'clip'", lambda: DiscriminatorConfig(pixel_range="half")),
        ("clip_layers is 12", lambda: tiny(generator=GeneratorConfig())),
        (r"collect_layers \(1, 4, 8\)", lambda: tiny(discriminator=DiscriminatorConfig())),
        ("grid is 6", lambda: GalipConfig(ClipConfig(image=ImageTowerConfig(192, 32)))),
        ("sizes starts with 8", lambda: GalipConfig(ClipConfig(image=ImageTowerConfig(288, 32)))),
    ],
)
def test_what_does_not_go_together_is_refused(offender, make):
    with pytest.raises(UsageError, match=offender):
        make()


def tiny(**parts):
    return dataclasses.replace(preset("tiny"), **parts)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("generator", "channels", [10**9] * 4),
        ("generator", "noise_dim", 10**30),
        ("generator", "fusion_blocks", 10**8),
        ("generator", "clip_weight", 10**400),
        ("discriminator", "pixel_range", {}),
        ("discriminator", "channels", 10**4000),
    ],
)
def test_absurd_numbers_are_refused(part, field, value):
    data = GalipConfig().to_dict()
    data[part][field] = value
    with pytest.raises(UsageError, match=field):
        GalipConfig.from_dict(data)
