"""The tokenizer: equal to open_clip's, whatever the caption, and strict with vocabularies."""

import gzip
import importlib.util
import pickle
from pathlib import Path

import pytest
from error_checks import expect_error
from galip_runtime import FileRefused, Tokenizer, UsageError
from galip_runtime.tokenizer import CLIP_MERGES, MAX_PROMPT_LENGTH, as_prompts, read_clip_merges, trim
from hypothesis import given, settings
from hypothesis import strategies as st
from unicode_captions import captions


@pytest.fixture(scope="module")
def clip_file():
    package = Path(importlib.util.find_spec("open_clip").origin).parent  # its import would take seconds
    return (package / "bpe_simple_vocab_16e6.txt.gz").read_bytes()


@pytest.fixture(scope="module")
def merges(clip_file):
    return read_clip_merges(clip_file)


@pytest.fixture(scope="module")
def tokenizer(merges):
    return Tokenizer(merges, 77)


@pytest.fixture(scope="module")
def open_clip_tokenizer():
    from galip.clip import import_open_clip

    import_open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def test_clip_sizes(tokenizer):
    assert len(tokenizer.merges) == CLIP_MERGES
    assert tokenizer.vocabulary_size == 49408
    assert (tokenizer.start_id, tokenizer.end_id) == (49406, 49407)


def test_golden_captions(tokenizer, golden):
    assert (tokenizer.encode(golden["captions"]) == golden["tokens"]).all()


def test_ten_thousand_captions_equal_open_clip_s(tokenizer, open_clip_tokenizer):
    texts = captions(10_000)
    assert len(set(texts)) > 8000
    expected = open_clip_tokenizer(texts).numpy()
    rows = tokenizer.encode(texts)
    wrong = [text for text, row, right in zip(texts, rows, expected, strict=True) if (row != right).any()]
    assert not wrong, wrong[:5]
    # the captions reach both ends: some are cut, some are empty
    assert (expected[:, -1] == tokenizer.end_id).any()
    assert (expected[:, 1] == tokenizer.end_id).any()


@settings(max_examples=500, deadline=None, derandomize=True)
@given(text=st.text(st.characters(codec=None), max_size=60))
def test_any_text_equals_open_clip_s(tokenizer, open_clip_tokenizer, text):
    assert tokenizer.encode(text)[0].tolist() == open_clip_tokenizer(text)[0].tolist()


@pytest.mark.parametrize("count", [0, 1, 100, 8000])
def test_a_tokenizer_of_the_first_merges(merges, count):
    small = Tokenizer(merges[:count], 24)
    assert small.vocabulary_size == 512 + count + 2
    tokens = small.encode(captions(300))
    assert tokens.shape == (300, 24)
    assert tokens.min() >= 0
    assert (tokens.max(axis=1) == small.end_id).all()
    assert (tokens[:, 0] == small.start_id).all()


def test_a_long_caption_is_cut_and_ends_with_the_end_token(tokenizer):
    (row,) = tokenizer.encode("teddy bear " * 200)
    assert row[0] == tokenizer.start_id
    assert row[-1] == tokenizer.end_id
    assert (row[1:-1] < tokenizer.start_id).all()


def test_trim_cuts_to_the_longest_caption_in_steps_of_eight(tokenizer):
    tokens = tokenizer.encode(["apple", "a red apple with a green leaf"])  # 3 and 9 ids
    assert trim(tokens[:1]).shape == (1, 8)
    assert trim(tokens).shape == (2, 16)
    assert (trim(tokens) == tokens[:, :16]).all()
    assert trim(tokenizer.encode(["bear " * 100])).shape == (1, 77)
    assert trim(tokenizer.encode([])).shape[0] == 0


def test_round_trip_of_bytes(tokenizer, merges):
    data = tokenizer.to_bytes()
    assert data == Tokenizer(merges, 16).to_bytes()
    again = Tokenizer.from_bytes(data, 77)
    assert again.merges == tokenizer.merges
    assert (again.encode("a red apple") == tokenizer.encode("a red apple")).all()


def test_round_trip_of_a_pickle(tokenizer):
    again = pickle.loads(pickle.dumps(tokenizer))
    assert (again.encode("a red apple") == tokenizer.encode("a red apple")).all()


@pytest.mark.timeout(300)  # joining symbols in quadratic time would take hours
@pytest.mark.parametrize(
    "piece", ["a", "é", "Ã©", "\n", "🐦", "&amp;", "ab", "e\u0301", "\u0301", "\ud800", "\x1b["], ids=ascii
)
def test_the_longest_prompt(tokenizer, piece):
    text = piece * (MAX_PROMPT_LENGTH // len(piece))
    assert tokenizer.encode(text).shape == (1, 77)


@pytest.mark.parametrize("length", [MAX_PROMPT_LENGTH + 1, 10 * 2**20])
def test_a_longer_prompt_is_refused(tokenizer, length):
    with expect_error(UsageError, length, MAX_PROMPT_LENGTH):
        tokenizer.encode("a" * length)


@pytest.mark.parametrize("text", ["", "   \n\t", "\0\0\0"])
def test_an_empty_prompt_is_start_and_end(tokenizer, text):
    assert tokenizer.encode(text)[0, :3].tolist() == [tokenizer.start_id, tokenizer.end_id, 0]


def test_a_character_reference_of_thousands_of_digits_is_refused(tokenizer):
    with expect_error(UsageError, 5000):
        tokenizer.encode("&#" + "9" * 5000 + ";")


@pytest.mark.parametrize("texts", [None, 5, b"apple", ["apple", None], ["apple", b"pear"], [["apple"]], {1}])
def test_other_types_than_text_are_refused(tokenizer, texts):
    value = texts[-1] if isinstance(texts, list) else texts
    with expect_error(UsageError, type(value).__name__):
        tokenizer.encode(texts)


def test_prompts_as_a_list():
    assert as_prompts("apple") == as_prompts(["apple"]) == as_prompts(("apple",)) == ["apple"]


@pytest.mark.parametrize(
    "merges",
    [[("i", "n"), ("i", "n")], [("xy", "z")], [("i", "")], [("i", "日")], [("th", "e"), ("t", "h")]],
    ids=["twice", "unknown part", "empty part", "no byte", "wrong order"],
)
def test_impossible_merges_are_refused(merges):
    with expect_error(UsageError, *map(repr, merges[0])):
        Tokenizer(merges, 24)
    text = "".join(f"{first} {second}\n" for first, second in merges)
    with expect_error(FileRefused):
        Tokenizer.from_bytes(gzip.compress(text.encode()), 24)


def test_a_context_too_short_for_a_caption_is_refused():
    with expect_error(UsageError, "context_length", 2, 3):
        Tokenizer([], 2)


@pytest.mark.parametrize(
    "data",
    [b"", b"i n\n", gzip.compress(b"i n\n")[:-5], gzip.compress(b"\xff\xfe"), gzip.compress(b"i n x\n"),
     gzip.compress(b"\n" * (64 * 2**20 + 1))],
    ids=["empty", "no gzip", "cut", "no UTF-8", "three parts", "bomb"],
)  # fmt: skip
def test_a_broken_vocabulary_is_refused(data):
    with expect_error(FileRefused):
        Tokenizer.from_bytes(data, 24)


def test_a_file_with_too_few_merges_is_refused(clip_file):
    with expect_error(FileRefused, 10**7):
        read_clip_merges(clip_file, 10**7)
