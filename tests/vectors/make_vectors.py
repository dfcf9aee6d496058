"""Write the test vectors that the runtimes in all languages read.

    PYTHONPATH=runtime:tests/runtime python tests/vectors/make_vectors.py
    PYTHONPATH=runtime:tests/runtime python tests/vectors/make_vectors.py --pictures demo/bundle

The second command, with an exported bundle of the shipped model, writes `shipped.json.gz` alone. The page
"Bundle and runtime specification" says what is in each file.
"""

import argparse
import gzip
import hashlib
import importlib.util
import io
import json
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import galip_runtime
import numpy as np
from caption_kinds import kinds
from galip_runtime.bundle.manifest import MANIFEST_NAME
from galip_runtime.interpolation import lerp, slerp
from galip_runtime.noise import MAX_SEED, NOISE_DEFINITION, noise, philox4x32
from galip_runtime.tokenizer import Tokenizer, read_clip_merges
from stub_bundle import make_stub_bundle

FOLDER = Path(__file__).parent
CONTEXT = 77
BLOCK = 4096
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)
_CAPTIONS = [
    "a red apple, 3D style", "a car, flat style", "a rose, twemoji style", "a Christmas tree, noto style",
    "a cat, emojione style", "bird", "a star, firefox style", "\U0001f426 schÃ¶n &amp; “new”",
]  # fmt: skip
_SEEDS = [7, 0, 2**32 - 1, 2**32, 123456789012345678, MAX_SEED, 1, 2]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path)
    bundle = parser.parse_args().pictures
    if bundle is None:
        merges = clip_merges()
        (FOLDER / "merges.txt.gz").write_bytes(merges)
        tokenizer = Tokenizer.from_bytes(merges, CONTEXT)
        write("captions.json.gz", caption_vectors(tokenizer))
        write("code_points.json.gz", code_point_vectors(tokenizer))
        write("noise.json.gz", noise_vectors())
        (FOLDER / "bundle.zip").write_bytes(bundle_zip())
        write("pictures.json.gz", stub_pictures())
    else:
        write("shipped.json.gz", pictures(bundle, with_images=False))


def write(name: str, value: Any) -> None:
    text = json.dumps(value, separators=(",", ":"))
    (FOLDER / name).write_bytes(gzip.compress(text.encode(), mtime=0))


def clip_merges() -> bytes:
    """Return CLIP's merges as a bundle has them."""
    package = Path(importlib.util.find_spec("open_clip").origin).parent  # its import would take seconds
    return Tokenizer(
        read_clip_merges((package / "bpe_simple_vocab_16e6.txt.gz").read_bytes()), CONTEXT
    ).to_bytes()


def versions() -> dict[str, str]:
    return {"unicode": unicodedata.unidata_version, "regex": version("regex"), "ftfy": version("ftfy")}


def caption_vectors(tokenizer: Tokenizer) -> dict[str, Any]:
    captions = {kind: [[text, row_of(tokenizer, text)] for text in texts] for kind, texts in kinds().items()}
    return {"versions": versions(), "context_length": CONTEXT, "captions": captions}


def row_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids without the zeros after the end."""
    (row,) = tokenizer.encode([text]).tolist()
    return row[: len(row) - row[::-1].index(tokenizer.end_id)]


def code_point_vectors(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a hash for each block of code points, of the ids of a caption a code point."""
    blocks = [block_vector(tokenizer, block) for block in code_point_blocks()]
    return {"versions": versions(), "blocks": blocks}


def block_vector(tokenizer: Tokenizer, block: range) -> list[Any]:
    ids = [row_of(tokenizer, caption_of(code)) for code in block]
    digest = hashlib.sha256(json.dumps(ids, separators=(",", ":")).encode()).hexdigest()
    return [block.start, block.stop, digest]


def caption_of(code: int) -> str:
    return f"a{chr(code)}B {chr(code)}Σ{chr(code)}1"


def code_point_blocks() -> Iterator[range]:
    """Iterate over all code points but most ideographs, Hangul syllables and private use."""
    for start, stop in (
        (0, 0x3500),
        (0xA000, 0xAC80),
        (0xD780, 0x20100),
        (0x2F700, 0x30080),
        (0xE0000, 0xE0200),
    ):
        for first in range(start, stop, BLOCK):
            yield range(first, min(first + BLOCK, stop))


def noise_vectors() -> dict[str, Any]:
    """Return words, and the bits of the float32 numbers; seeds as text, which loses no digits."""
    source = np.random.default_rng(0)
    seeds = [0, 1, 7, 2**31, 2**32 - 1, 2**32, 2**53, 2**63, MAX_SEED - 1, MAX_SEED]
    seeds += source.integers(0, MAX_SEED, 1000, np.uint64, endpoint=True).tolist()
    rows = [[str(seed), words(seed, 2), bits(noise([seed], 8))] for seed in seeds]
    cuts = [
        [str(seed), cut, bits(noise([seed], 32, cut))] for seed in seeds[:20] for cut in (0.01, 0.5, 1.5, 4.0)
    ]
    a, b = noise([3, 4], 32).astype(np.float64)
    between = [
        [weight, bits(lerp(a, b, np.array([weight]))), bits(slerp(a, b, np.array([weight])))]
        for weight in (0.0, 0.25, 0.5, 0.9, 1.0)
    ]
    return {"definition": NOISE_DEFINITION, "rows": rows, "truncated": cuts, "between seeds 3 and 4": between}


def words(seed: int, blocks: int) -> str:
    counter = [[block, 0, 0, 0] for block in range(blocks)]
    return philox4x32(counter, [seed & 0xFFFFFFFF, seed >> 32]).astype(">u4").tobytes().hex()


def bits(values: Any) -> str:
    return np.asarray(values, np.float32).astype(">f4").tobytes().hex()


def bundle_zip() -> bytes:
    """Return the stub bundle in two precisions as a ZIP archive; the same in every run."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_stub_bundle(Path(folder) / "bundle", precisions=("fp32", "w16a32"))
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(bundle.iterdir(), key=lambda path: (path.name != MANIFEST_NAME, path.name)):
                archive.writestr(
                    zipfile.ZipInfo(f"bundle/{path.name}", _FIXED_TIME),
                    path.read_bytes(),
                    zipfile.ZIP_DEFLATED,
                )
        return data.getvalue()


def stub_pictures() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(FOLDER / "bundle.zip").extractall(folder)
        return pictures(Path(folder) / "bundle", with_images=True)


def pictures(bundle: Path, with_images: bool) -> dict[str, Any]:
    """Return what the runtime computes on a CPU in fp32: bits of float32 numbers and bytes, in hexadecimal.

    The images, (3, H, W) before rounding, are left out where they would be large.
    """
    model = galip_runtime.load(bundle, device="cpu", precision="fp32", threads=1)
    sentence, noise = model.encode_text(_CAPTIONS), model.noise(_SEEDS)
    drawn = model.decode_pictures(noise, sentence)
    rows = [
        {
            "prompt": prompt,
            "seed": str(seed),
            "tokens": row_of(model.tokenizer, prompt),
            "sentence": bits(vector),
            **({"image": bits(image)} if with_images else {}),
            "pixels": picture.tobytes().hex(),
        }
        for prompt, seed, vector, image, picture in zip(
            _CAPTIONS, _SEEDS, sentence, model.decode(noise, sentence), drawn, strict=True
        )
    ]
    frames = model.interpolate(_CAPTIONS[:2], steps=3, seeds=_SEEDS[:2], square=True)
    cut = model.generate(_CAPTIONS[0], _SEEDS[0], truncation=0.5)
    others = {"square of 3 steps": frames.tobytes().hex(), "truncation 0.5": cut.tobytes().hex()}
    return {"source": model.manifest.source.sha256, "pictures": rows, **(others if with_images else {})}


if __name__ == "__main__":
    main()
