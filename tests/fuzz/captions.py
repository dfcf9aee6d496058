"""Text of any kind: the tokenizer gives open_clip's ids, or a UsageError where open_clip's fails, too."""

from pathlib import Path

import numpy as np
from fuzz.harness import Trial
from fuzz.mutation import odd_text, pick
from galip_runtime import UsageError
from unicode_captions import captions

SECONDS, MEGABYTES = 20, 500

_CAPTIONS = 100
_REFERENCES = ("&#{};", "&#x{:x};", "&amp;#{};", "&#{}", "&#0{};")


def start(home: Path) -> Trial:
    from galip.clip import clip_tokenizer, import_open_clip

    import_open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    reference, ours = SimpleTokenizer(), clip_tokenizer(48_894, 77)

    def trial(rng: np.random.Generator, folder: Path) -> str:
        texts = captions(_CAPTIONS, seed=int(rng.integers(2**32)))
        texts += [_characters(rng), _references(rng), odd_text(rng) * int(rng.integers(1, 20))]
        (folder / "captions.txt").write_text("\n".join(map(ascii, texts)))
        refused = 0
        for text in texts:
            try:
                expected = reference(text)[0].tolist()
            except ValueError:  # an HTML reference of too many digits
                expected = None
            try:
                row = ours.encode(text)[0].tolist()
            except UsageError:
                assert expected is None, f"refused: {text!a}"
                refused += 1
            else:
                assert row == expected, f"other ids: {text!a}: {row} instead of {expected}"
        return "some refused by both" if refused else "equal ids"

    return trial


def _characters(rng: np.random.Generator) -> str:
    """Return arbitrary code points, even surrogates and unassigned ones."""
    return "".join(map(chr, rng.integers(0x110000, size=rng.integers(1, 200))))


def _references(rng: np.random.Generator) -> str:
    """Return HTML character references of arbitrary numbers."""
    return " ".join(
        pick(rng, _REFERENCES).format(int(rng.integers(2 ** int(rng.integers(1, 62)))))
        if rng.random() < 0.98
        else "&#" + "9" * int(rng.integers(1, 6000)) + ";"
        for _ in range(10)
    )
