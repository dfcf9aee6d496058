"""Errors of unequal configs name the fields that differ, not all the others."""

import dataclasses

import pytest
from galip_runtime.errors import UsageError

from galip.config import TextTowerConfig
from galip.differences import MOST_FIELDS, describe_differences
from galip.early_checks import check_same_towers
from galip.presets import preset


def test_each_field_is_named_with_both_values():
    tiny = preset("tiny")
    clip = dataclasses.replace(tiny.clip, text=dataclasses.replace(tiny.clip.text, width=32, layers=5))
    changed = dataclasses.replace(tiny, clip=clip)
    assert describe_differences(changed, tiny) == "clip.text.width 32, not 16; clip.text.layers 5, not 2"
    assert describe_differences(tiny, tiny) == ""


def test_mappings_and_fields_that_one_lacks():
    first, second = {"lr": 0.1, "steps": 5, "model": {"width": 2}}, {"lr": 0.1, "model": {"width": 3}}
    assert describe_differences(first, second, "now") == "steps 5, now nothing; model.width 2, now 3"


def test_many_and_long_differences_stay_short():
    names = [f"field{number}" for number in range(500)]
    text = describe_differences(dict.fromkeys(names, "x" * 10_000), dict.fromkeys(names, 0))
    assert len(text) < 150 * MOST_FIELDS
    assert f"and {500 - MOST_FIELDS} more" in text


def test_towers_of_another_shape():
    required = preset("tiny").clip
    towers = dataclasses.replace(required, text=TextTowerConfig(16, 64, width=32, layers=2, heads=2))
    check_same_towers("clip.safetensors", required, required)
    with pytest.raises(UsageError, match=r"clip\.safetensors.* text\.width 32, not 16;") as error:
        check_same_towers("clip.safetensors", towers, required)
    assert "layers" not in str(error.value)
