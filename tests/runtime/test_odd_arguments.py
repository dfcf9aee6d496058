"""Arguments that nobody passes on purpose: they give a picture or a UsageError, never Python's own error."""

import collections
import decimal

import galip_runtime
import numpy as np
import pytest
from error_checks import expect_error
from galip_runtime import FileRefused, Tokenizer, UsageError, seed_series
from galip_runtime.arrays import MAX_PICTURES
from galip_runtime.noise import noise
from galip_runtime.tokenizer import read_clip_merges

HUGE = 10**5000  # which Python does not print
ODD = [
    None,
    float("nan"),
    1j,
    True,
    np.True_,
    HUGE,
    -HUGE,
    b"1",
    [],
    [[1]],
    {},
    {1},
    (i for i in [1]),
    np.array([[1]]),
    np.array([1, None], object),
    np.array(["a", "b"]),
    np.timedelta64(1, "s"),
    np.array([1], "m8[s]"),
    np.datetime64("2020"),
    np.zeros(2, "i4,i4"),
    np.ma.array([1, 2], mask=[0, 1]),
    decimal.Decimal(1),
    object(),
    int,
    "\ud800",
    "a " * 60_000,
]


@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_any_value_works_or_is_refused(model, bundle, value):
    calls = [
        lambda: model.generate("a", value),
        lambda: model.generate(value, 1),
        lambda: model.generate("a", 1, truncation=value),
        lambda: model.generate("a", 1, batch_size=value),
        lambda: model.interpolate(value, 2, 1),
        lambda: model.interpolate(["a", "b"], value, 1),
        lambda: model.interpolate(["a", "b"], 2, value),
        lambda: model.interpolate(["a", "b"], 2, seeds=value),
        lambda: model.interpolate(["a", "b"], 2, seeds=[1, 2], square=value),
        lambda: model.encode_tokens(value),
        lambda: model.noise(value),
        lambda: model.decode(value, value),
        lambda: seed_series(value, 2),
        lambda: seed_series(1, value),
        lambda: noise([1], value),
        lambda: Tokenizer.from_bytes(value, 24),
        lambda: Tokenizer(value, 24),
        lambda: Tokenizer((), value),
        lambda: read_clip_merges(value),
        lambda: galip_runtime.load(value),
        lambda: galip_runtime.load(bundle, device=value),
        lambda: galip_runtime.load(bundle, precision=value),
        lambda: galip_runtime.load(bundle, device="cpu", threads=value),
    ]
    messages = []
    for call in calls:
        try:
            call()
        except (UsageError, FileRefused) as error:
            messages.append(str(error))
    assert len(messages) >= 8
    assert isinstance(value, str) or max(map(len, messages)) < 1000  # a path is shown whole


@pytest.mark.parametrize(
    "seeds", [np.array(1), np.uint64(1), np.array([1], np.uint8), range(1, 2), collections.deque([1])]
)
def test_integers_of_other_types_are_seeds(model, seeds):
    assert (model.generate("red", seeds) == model.generate("red", 1)).all()


@pytest.mark.parametrize("seeds", [np.array(1.0), 1.0, 2**64, [-1], "1", [np.timedelta64(1, "s")]])
def test_invalid_seeds(model, seeds):
    with expect_error(UsageError) as info:
        model.generate("red", seeds)
    value = seeds[0] if isinstance(seeds, list) else seeds[()] if isinstance(seeds, np.ndarray) else seeds
    assert repr(value) in str(info.value)


@pytest.mark.parametrize("change", [np.asfortranarray, lambda rows: np.ma.array(rows)])
def test_rows_in_any_memory_layout(model, change):
    rows, sentence = model.noise([1, 2]), model.encode_text(["red", "the"])
    rows.flags.writeable = sentence.flags.writeable = False
    assert (
        model.decode_pictures(change(rows), change(sentence)) == model.decode_pictures(rows, sentence)
    ).all()


def test_masked_rows_are_refused(model):
    rows = model.noise([1])
    with expect_error(UsageError, "noise"):
        model.decode_pictures(np.ma.array(rows, mask=rows > 0), model.encode_text("red"))


def test_ids_outside_the_vocabulary_are_refused(model):
    tokens = model.tokenizer.encode("red")
    size = model.tokenizer.vocabulary_size
    for ids in (np.full_like(tokens, size), tokens - 1):
        with expect_error(UsageError, ids.min(), ids.max(), size - 1):
            model.encode_tokens(ids)


def test_tokens_of_another_shape_or_dtype_are_refused(model):
    tokens = model.tokenizer.encode("red")
    for ids in (tokens[:0], tokens[:, :0], np.tile(tokens, (1, 2))):
        with expect_error(UsageError, model.tokenizer.context_length) as info:
            model.encode_tokens(ids)
        assert str(ids.shape) in str(info.value)
    with expect_error(UsageError, "int64"):
        model.encode_tokens(tokens.astype(np.int32))


def test_a_result_larger_than_memory_is_refused_beforehand(model):
    count = 10**11
    for call in (lambda: model.interpolate(["a", "b"], count, 1), lambda: seed_series(1, count)):
        with expect_error(UsageError, count, MAX_PICTURES):
            call()
