"""Bundles with correct hashes and wrong content give our errors, or pictures of the right shape."""

import gzip
import json
import shutil
from pathlib import Path

import galip_runtime
import numpy as np
import onnx
from fuzz.fixtures import DEVICES, PROMPTS, SEEDS, galip, small_bundle, stub_bundle
from fuzz.graphs import forge
from fuzz.harness import Trial, out_of_memory
from fuzz.mutation import altered, as_json, mutated, odd_value, pick
from galip_runtime import GalipError
from galip_runtime.bundle.manifest import MANIFEST_NAME, FileEntry, describe_file

SECONDS, MEGABYTES = 20, 1000

Rng = np.random.Generator


def start(home: Path) -> Trial:
    bundles = [stub_bundle(home), small_bundle(home)]

    def trial(rng: Rng, folder: Path) -> str:
        bundle = Path(shutil.copytree(pick(rng, bundles), folder / "bundle"))
        change = pick(rng, (_graph, _graph, _graph, _graph_bytes, _manifest, _manifest, _vocabulary, _parity))
        change(bundle, rng)
        galip("info", bundle)
        outcome = _loaded(bundle, str(pick(rng, DEVICES)))
        return f"{change.__name__.strip('_')}: {outcome}"

    return trial


def _loaded(bundle: Path, device: str) -> str:
    try:
        model = galip_runtime.load(bundle, device=device, threads=1)
        sentence = model.encode_text(PROMPTS)
        pictures = model.generate(PROMPTS, SEEDS, batch_size=2)
    except GalipError as error:
        if out_of_memory(error):
            raise MemoryError("the trial reached its limit") from error
        return type(error).__name__
    dimensions = model.dimensions
    assert sentence.shape == (3, dimensions.sentence_dim), sentence.shape
    assert sentence.dtype == np.float32, sentence.dtype
    assert pictures.shape == (3, dimensions.image_height, dimensions.image_width, 3), pictures.shape
    assert pictures.dtype == np.uint8, pictures.dtype
    json.dumps(model.info(), allow_nan=False)
    return "pictures"


def _graph(bundle: Path, rng: Rng) -> None:
    name = pick(rng, ("generator.onnx", "text_encoder.onnx"))
    model = onnx.load(bundle / name)
    for _ in range(pick(rng, (1, 1, 2, 4))):
        forge(model, rng)
    _write(bundle, name, model.SerializeToString())


def _graph_bytes(bundle: Path, rng: Rng) -> None:
    name = pick(rng, ("generator.onnx", "text_encoder.onnx"))
    _write(bundle, name, mutated((bundle / name).read_bytes(), rng))


def _manifest(bundle: Path, rng: Rng) -> None:
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    for _ in range(pick(rng, (1, 1, 1, 3))):
        document = altered(document, rng)
    _seal(bundle, document)


def _vocabulary(bundle: Path, rng: Rng) -> None:
    """Change the merges; the manifest sometimes has their right number."""
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    name = document["tokenizer"]["file"]
    lines = gzip.decompress((bundle / name).read_bytes()).decode().splitlines(keepends=True)
    kind = rng.integers(5)
    if kind == 0:
        lines = lines[: int(rng.integers(len(lines) + 1))]
    elif kind == 1:  # new merges, of bytes that no line joins
        letters = [chr(code) for code in range(0x21, 0x7F)]
        old_pairs = {line.strip() for line in lines}
        pairs = [f"{one} {other}" for one in letters for other in letters if one + other not in "inthan"]
        lines += [f"{pair}\n" for pair in pairs[: int(rng.integers(1, len(pairs)))] if pair not in old_pairs]
    elif kind == 2:
        rng.shuffle(lines)
    text = "".join(lines).encode()
    if kind == 3:
        text = mutated(text, rng)
    data = gzip.compress(text + b"i n\n" * 100_000_000 if kind == 4 and rng.random() < 0.02 else text)
    if rng.random() < 0.7:
        document["tokenizer"]["merges"] = len(lines)
    if rng.random() < 0.3:
        length = int(pick(rng, (3, 4, 77, 1000, 65_536)))
        document["tokenizer"]["context_length"] = document["dimensions"]["context_length"] = length
    _write(bundle, name, mutated(data, rng) if kind == 3 and rng.random() < 0.5 else data)
    listed = json.loads((bundle / MANIFEST_NAME).read_text())["files"]
    _seal(bundle, {**document, "files": listed})


def _parity(bundle: Path, rng: Rng) -> None:
    document = json.loads((bundle / "parity.json").read_text())
    for _ in range(pick(rng, (1, 2))):
        document = altered(document, rng) if rng.random() < 0.9 else odd_value(rng)
    _write(bundle, "parity.json", as_json(document))


def _write(bundle: Path, name: str, data: bytes) -> None:
    """Replace a file and its entry in the manifest."""
    (bundle / name).write_bytes(data)
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    entry: FileEntry = describe_file(bundle / name)
    document["files"][name] = vars(entry)
    _seal(bundle, document)


def _seal(bundle: Path, document: object) -> None:
    """Write `document` as the manifest, whatever it is, with its digest if it can have one."""
    (bundle / MANIFEST_NAME).write_bytes(as_json(document, indent=2, sort_keys=True) + b"\n")
