"""The test vectors that the runtimes in all languages share: they are what this runtime computes."""

import gzip
import hashlib
import importlib.util
import json
import zipfile
from pathlib import Path

import galip_runtime
import make_vectors
import numpy as np
import pytest
from galip_runtime.interpolation import lerp, slerp
from galip_runtime.noise import noise
from galip_runtime.tokenizer import Tokenizer

import galip.assets

FOLDER = Path(__file__).parents[1] / "vectors"
MOST_BYTES = 2 * 2**20


def read(name):
    return json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))


@pytest.fixture(scope="module")
def captions():
    return read("captions")


@pytest.fixture(scope="module")
def tokenizer(captions):
    return Tokenizer.from_bytes((FOLDER / "merges.txt.gz").read_bytes(), captions["context_length"])


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    zipfile.ZipFile(FOLDER / "bundle.zip").extractall(folder)
    return galip_runtime.load(folder / "bundle", device="cpu", threads=1)


def test_they_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < MOST_BYTES


def test_captions(captions, tokenizer):
    """Other versions of Unicode may treat a few characters differently."""
    rows = [row for kind in captions["captions"].values() for row in kind]
    assert len(rows) >= 10_000
    encoded = tokenizer.encode([caption for caption, _ in rows])
    wrong = [
        caption
        for (caption, ids), row in zip(rows, encoded.tolist(), strict=True)
        if row[: len(ids)] != ids or any(row[len(ids) :])
    ]
    same_tables = captions["versions"] == make_vectors.versions()
    assert len(wrong) <= (0 if same_tables else len(rows) // 100), wrong[:5]


def test_captions_equal_open_clip_s(captions):
    from galip.clip import import_open_clip

    import_open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    tokenize = SimpleTokenizer()
    for kind, rows in captions["captions"].items():
        sample = [] if kind == "mixed Unicode" else rows[::3]  # those are in test_tokenizer.py
        expected = tokenize([caption for caption, _ in sample]).tolist()
        for (caption, ids), row in zip(sample, expected, strict=True):
            assert row[: len(ids)] == ids, (kind, caption)


def test_a_block_of_code_points(tokenizer):
    vectors = read("code_points")
    if vectors["versions"] != make_vectors.versions():
        pytest.skip(f"the hashes are of {vectors['versions']}")
    first = next(make_vectors.code_point_blocks())
    assert vectors["blocks"][0] == make_vectors.block_vector(tokenizer, first)
    assert [block[:2] for block in vectors["blocks"]] == [
        [block.start, block.stop] for block in make_vectors.code_point_blocks()
    ]


def test_the_tables_of_the_javascript_tokenizer_are_up_to_date():
    path = Path(__file__).parents[2] / "runtime" / "js" / "tools" / "make_tables.py"
    spec = importlib.util.spec_from_file_location("make_tables", path)
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    written = maker.TARGET.read_text(encoding="utf-8")
    versions = maker.versions()
    if not all(f'"{name}": "{version}"' in written for name, version in versions.items()):
        pytest.skip(f"they are of other versions than {versions}")
    assert maker.source() == written


def test_interpolations():
    a, b = noise([3, 4], 32).astype(np.float64)
    for weight, line, circle in read("noise")["between seeds 3 and 4"]:
        for method, bits in ((lerp, line), (slerp, circle)):
            values = method(a, b, np.array([weight]))[0].astype(np.float32)
            np.testing.assert_allclose(values, floats(bits), rtol=1e-6)


@pytest.mark.filterwarnings("ignore::galip_runtime.PromptCut")
def test_pictures(stub):
    vectors = read("pictures")
    for row in vectors["pictures"]:
        sentence = stub.encode_text(row["prompt"])
        np.testing.assert_allclose(sentence[0], floats(row["sentence"]), atol=1e-5)
        image = stub.decode(stub.noise(int(row["seed"])), sentence)
        np.testing.assert_allclose(image.reshape(-1), floats(row["image"]), atol=1e-5)
        picture = stub.generate(row["prompt"], int(row["seed"]))
        assert np.abs(picture.reshape(-1).astype(int) - pixels(row["pixels"])).max() <= 1


def test_the_shipped_model_s_pictures_are_of_the_shipped_model():
    checkpoint = Path(galip.assets.default_checkpoint())
    assert read("shipped")["source"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def floats(bits):
    return np.frombuffer(bytes.fromhex(bits), ">f4").astype(np.float32)


def pixels(text):
    return np.frombuffer(bytes.fromhex(text), np.uint8).astype(int)
