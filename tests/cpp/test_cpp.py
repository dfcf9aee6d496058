"""The example in C++: the test vectors, and what its command refuses.

Needs a C++ compiler, CMake and the packages in `HEADERS`; without them all is skipped, and the end of the
output says what to install. It is built in build/cpp, from which a second run takes what is unchanged.
"""

import gzip
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import galip_runtime
import make_vectors
import numpy as np
import pytest
from galip_runtime.bundle.canonical import manifest_text
from galip_runtime.tokenizer import Tokenizer
from PIL import Image

pytestmark = pytest.mark.slow  # a minute to build

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"
BUILD = ROOT / "build" / "cpp"
SHIPPED = ROOT / "runtime" / "default_bundle" / "galip_default_bundle" / "bundle"
HEADERS = {
    "openssl/evp.h": "libssl-dev",
    "unicode/regex.h": "libicu-dev",
    "nlohmann/json.hpp": "nlohmann-json3-dev",
    "zlib.h": "zlib1g-dev",
}
PLAIN_KINDS = ("emoji", "words of CLIP", "plain and long")
BARS = {"fp32": 90, "w16a32": 70}
LARGEST_SEED = 2**64 - 1


def run(*command, **options):
    words = [word if isinstance(word, bytes) else str(word) for word in command]
    return subprocess.run(words, capture_output=True, timeout=500, **options)


def missing():
    """Return the packages, by Debian's names, that a build would lack."""
    tools = {"c++": "g++", "cmake": "cmake"}
    packages = [package for tool, package in tools.items() if not shutil.which(tool)]
    if "g++" not in packages:
        for header, package in HEADERS.items():
            if run("c++", "-E", "-x", "c++", "-", input=f"#include <{header}>\n".encode()).returncode:
                packages.append(package)
    if not importlib.util.find_spec("openvino"):
        packages.append("Python's openvino")
    return packages


@pytest.fixture(scope="module")
def build():
    """The folder of the built programs."""
    if packages := missing():
        pytest.skip(f"the C++ example is NOT TESTED: install {' '.join(packages)}")
    openvino = Path(importlib.util.find_spec("openvino").origin).parent / "cmake"
    for command in (
        ("cmake", "-S", ROOT / "tests" / "cpp", "-B", BUILD, f"-DOpenVINO_DIR={openvino}"),
        ("cmake", "--build", BUILD),
    ):
        result = run(*command)
        output = (result.stdout + result.stderr).decode()
        assert result.returncode == 0, output
        assert "warning:" not in output, output
    return BUILD


@pytest.fixture(scope="module")
def ask(build):
    """A function that asks the program `vectors`: one answer for each question, which may be an error."""

    def answers(*words, questions):
        text = "".join(json.dumps(question) + "\n" for question in questions)
        result = run(build / "vectors", *words, input=text.encode())
        assert result.returncode == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    return answers


@pytest.fixture(scope="module")
def tokens(ask):
    """A function that returns the ids of captions, None where one is refused."""

    def encode(captions):
        questions = [[caption.encode("utf-8", "surrogatepass").hex()] for caption in captions]
        found = ask("tokens", VECTORS / "merges.txt.gz", make_vectors.CONTEXT, questions=questions)
        assert all(ids["error"] == "UsageError" for ids in found if isinstance(ids, dict))
        return [None if isinstance(ids, dict) else ids for ids in found]

    return encode


def vectors(name):
    return json.loads(gzip.decompress((VECTORS / f"{name}.json.gz").read_bytes()))


def numbers(text, dtype=">f4"):
    return np.frombuffer(bytes.fromhex(text), dtype)


def psnr(image, other):
    """Return the PSNR in dB of images clamped to [-1, 1]."""
    error = np.mean((np.clip(image, -1, 1).astype(np.float64) - np.clip(other, -1, 1)) ** 2)
    return np.inf if error == 0 else 10 * np.log10(4 / error)


def test_the_header_is_short():
    assert len((ROOT / "runtime" / "cpp" / "galip.hpp").read_text(encoding="utf-8").splitlines()) < 600


def test_captions(tokens):
    """Each caption has the right ids or is refused; ordinary ones are not."""
    counts = Counter()
    for kind, rows in vectors("captions")["captions"].items():
        for (caption, ids), found in zip(rows, tokens([caption for caption, _ in rows]), strict=True):
            assert found in (None, ids), (kind, caption)
            counts[kind, found is None] += 1
    refused = {kind for kind, is_refused in counts if is_refused}
    assert not refused & set(PLAIN_KINDS)
    assert sum(count for (_, is_refused), count in counts.items() if not is_refused) > 6000


def test_ordinary_captions_of_many_languages(tokens):
    captions = [
        *("a red apple, 3D style", "R&B at AT&T", "un café à la crème", "“naïve” l’été à 20 °C", "Ελλάδα"),
        *("Привет, мир", "日本語のテキスト", "مرحبا", "किताब", "İstanbul ΑΣ", "ﬁn Ａ ǆ", "\x1b[31mred"),
        "a" * 100_000,
    ]
    tokenizer = Tokenizer.from_bytes((VECTORS / "merges.txt.gz").read_bytes(), make_vectors.CONTEXT)
    assert tokens(captions) == [make_vectors.row_of(tokenizer, caption) for caption in captions]


def test_what_is_not_implemented_is_refused(tokens):
    captions = [
        "schÃ¶n",
        "a &eacute; b",
        "a &notit b",
        "&#233;",
        "a\x85",
        "\ud83d",
        "a" * 100_001,
        "a" * 2**20,
    ]
    assert tokens(captions) == [None] * len(captions)


def test_ids_of_nearly_every_code_point(tokens):
    """The ids of the refused ones are Python's here, so that the hashes can be compared."""
    tokenizer = Tokenizer.from_bytes((VECTORS / "merges.txt.gz").read_bytes(), make_vectors.CONTEXT)
    document = vectors("code_points")
    same_tables = document["versions"] == make_vectors.versions()
    for start, stop, expected in document["blocks"]:
        captions = [make_vectors.caption_of(code) for code in range(start, stop)]
        found = tokens(captions)
        pairs = list(zip(captions, found, strict=True))
        ids = [make_vectors.row_of(tokenizer, caption) if row is None else row for caption, row in pairs]
        digest = hashlib.sha256(json.dumps(ids, separators=(",", ":")).encode()).hexdigest()
        if same_tables or None not in found:
            assert digest == expected, hex(start)


def test_noise(ask):
    rows = vectors("noise")["rows"]
    assert len(rows) >= 1000
    assert str(LARGEST_SEED) in {seed for seed, *_ in rows}
    found = ask("noise", questions=[[seed, 8] for seed, *_ in rows])
    assert [words for words, _ in found] == [words for _, words, _ in rows]
    values, expected = (numbers("".join(texts), ">i4").astype(np.int64) for texts in (
        [row[1] for row in found], [row[2] for row in rows],
    ))  # fmt: skip
    assert np.abs(values - expected).max() <= 1


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stub")
    zipfile.ZipFile(VECTORS / "bundle.zip").extractall(folder)
    return folder / "bundle"


def best_precision(bundle):
    return "fp32" if (bundle / "generator.onnx").exists() else "w16a32"


def check_pictures(ask, bundle, precision, pictures):
    """Compare with Python's pictures on a CPU, in fp32 if the bundle has it; one prompt is refused."""
    model = galip_runtime.load(bundle, device="cpu", precision=best_precision(bundle), threads=1)
    questions = [[picture["prompt"], picture["seed"]] for picture in pictures]
    found = ask("pictures", bundle, "openvino", precision, questions=questions)
    refused = [pictures[i]["prompt"] for i, answer in enumerate(found) if isinstance(answer, dict)]
    assert len(refused) == 1
    assert "&amp;" in refused[0]
    for picture, answer in zip(pictures, found, strict=True):
        if isinstance(answer, dict):
            continue
        sentence, image, pixels = answer
        noise = model.noise([int(picture["seed"])])
        expected = model.decode(noise, model.encode_text([picture["prompt"]])).ravel()
        assert np.abs(numbers(sentence) - numbers(picture["sentence"])).max() < 1e-4
        assert psnr(numbers(image), expected) >= BARS[precision]
        difference = numbers(pixels, "u1").astype(int) - numbers(picture["pixels"], "u1")
        assert np.abs(difference).max() <= 1


@pytest.mark.filterwarnings("ignore::galip_runtime.PromptCut")  # the stub's context is short
@pytest.mark.parametrize("precision", BARS)
def test_pictures(precision, ask, stub):
    check_pictures(ask, stub, precision, vectors("pictures")["pictures"])


@pytest.mark.parametrize("precision", BARS)
def test_pictures_of_the_shipped_model(precision, ask):
    """GALIP_BUNDLE names another bundle of it, such as one with fp32."""
    bundle = Path(os.environ.get("GALIP_BUNDLE", SHIPPED))
    if precision == "fp32" != best_precision(bundle):
        pytest.skip("the bundle has no fp32")
    check_pictures(ask, bundle, precision, vectors("shipped")["pictures"])


@pytest.fixture
def generate(build, tmp_path):
    """A function that runs the command, with `words` in place of its usual arguments."""

    def command(*words):
        return run(build / "galip_generate", *words, cwd=tmp_path)

    return command


def test_the_command_writes_a_picture(generate, stub, tmp_path):
    prompt = "a red apple, é 🍎"
    result = generate(stub, prompt, LARGEST_SEED, "apple.png")
    assert result.returncode == 0, result.stderr
    model = galip_runtime.load(stub, device="cpu", threads=1)
    with Image.open(tmp_path / "apple.png") as picture:
        assert picture.text == {"prompt": prompt, "seed": str(LARGEST_SEED), "bundle": model.info()["digest"]}
        difference = np.asarray(picture, int) - model.generate(prompt, LARGEST_SEED)[0]
    assert np.abs(difference).max() <= 1
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["apple.png"]


def check_refused(result, code, name, *words):
    message = result.stderr.decode()
    assert result.returncode == code, message
    assert message.startswith(f"{name}: ")
    assert all(word in message for word in words), message


@pytest.mark.parametrize("seed", ["-1", "1.5", "2.0", str(2**64), "1e3", "", "x", " 7", "7 ", "0x7"])
def test_a_seed_that_is_none(seed, generate, stub, tmp_path):
    check_refused(generate(stub, "a", seed, "a.png"), 2, "UsageError", "2^64")
    assert not (tmp_path / "a.png").exists()


def test_arguments_that_cannot_be_used(generate, stub):
    for words in ((), (stub,), (stub, "a", "7"), (stub, "a", "7", "a.png", "b")):
        check_refused(generate(*words), 2, "UsageError", "--help")
    check_refused(generate(stub, "a", "7", "a.jpg"), 2, "UsageError", "a.jpg")
    check_refused(generate(stub, "a", "7", "no/folder/a.png"), 2, "UsageError", "no/folder/a.png")
    check_refused(generate(stub, "a", "7", "a.png", "--device"), 2, "UsageError", "--device")
    check_refused(generate(stub, "a", "7", "a.png", "--device", "cuda"), 2, "UsageError", "cuda")
    check_refused(generate(stub, "a", "7", "a.png", "--precision", "int8"), 2, "UsageError", "int8")
    check_refused(generate(stub, "a", "7", "a.png", "--fast"), 2, "UsageError", "--fast")
    check_refused(generate(stub, b"a \xff", "7", "a.png"), 2, "UsageError", "UTF-8")
    check_refused(generate(stub, "a" * 100_001, "7", "a.png"), 2, "UsageError", "100,000")
    check_refused(generate(stub, "schÃ¶n", "7", "a.png"), 2, "UsageError", "encoding")
    check_refused(generate(stub, "a", "7", "a.png", "--device", "cpu"), 5, "ProviderUnavailable", "cpu")
    assert b"Usage: galip_generate" in generate("--help").stdout


def changed(manifest, **changes):
    """Write a manifest with other fields, and the digest that belongs to them."""
    document = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(manifest_text({**document, **changes}), encoding="utf-8")


def damage_version(bundle):
    changed(bundle / "manifest.json", format_version=2)
    return "format version 2"


def damage_path(bundle):
    files = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["files"]
    changed(bundle / "manifest.json", files={**files, "../x.onnx": files["generator.onnx"]})
    return "../x.onnx"


def damage_hash(bundle):
    data = bytearray((bundle / "generator.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "generator.onnx").write_bytes(data)
    return "generator.onnx"


def damage_size(bundle):
    path = bundle / "text_encoder.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    return "text_encoder.onnx"


def damage_vocabulary(bundle):
    (bundle / "vocabulary.gz").write_bytes(b"")
    return "vocabulary.gz"


def damage_digest(bundle):
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"stub"', '"stab"', 1), encoding="utf-8")
    return "digest"


def damage_noise(bundle):
    changed(bundle / "manifest.json", noise={"name": "another"})
    return "noise"


def damage_dimensions(bundle):
    changed(bundle / "manifest.json", dimensions={"image_height": -1})
    return "-1"


def damage_nesting(bundle):
    (bundle / "manifest.json").write_text('{"format_version": ' + "[" * 500_000, encoding="utf-8")
    return "nested"


def damage_json(bundle):
    (bundle / "manifest.json").write_bytes(b'{"format": "\xff')
    return "JSON"


def damage_link(bundle):
    outside = bundle.parent / "outside.onnx"
    shutil.move(bundle / "generator.onnx", outside)
    (bundle / "generator.onnx").symlink_to(outside)
    return "link"


def damage_kind(bundle):
    (bundle / "generator.onnx").unlink()
    os.mkfifo(bundle / "generator.onnx")
    return "regular"


def damage_graph(bundle):
    """A file that is what the manifest says, and no graph: the device cannot load it."""
    data = b"not a graph"
    (bundle / "generator.onnx").write_bytes(data)
    files = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["files"]
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    changed(bundle / "manifest.json", files={**files, "generator.onnx": entry})


@pytest.mark.parametrize(
    "damage",
    [
        *(
            damage_version,
            damage_path,
            damage_hash,
            damage_size,
            damage_vocabulary,
            damage_digest,
            damage_noise,
        ),
        *(damage_dimensions, damage_nesting, damage_json, damage_link, damage_kind),
    ],
)
def test_a_damaged_bundle(damage, generate, stub, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(stub, bundle)
    named = damage(bundle)
    check_refused(generate(bundle, "a", "7", "a.png"), 4, "FileRefused", named)
    assert not (tmp_path / "a.png").exists()


def test_a_folder_that_is_no_bundle(generate, tmp_path):
    check_refused(generate(tmp_path, "a", "7", "a.png"), 4, "FileRefused", "manifest.json")
    check_refused(generate(tmp_path / "none", "a", "7", "a.png"), 4, "FileRefused", "none")


def test_a_graph_that_the_device_cannot_load(generate, stub, tmp_path):
    shutil.copytree(stub, tmp_path / "bundle")
    damage_graph(tmp_path / "bundle")
    check_refused(
        generate(tmp_path / "bundle", "a", "7", "a.png"), 5, "ProviderUnavailable", "generator.onnx"
    )
