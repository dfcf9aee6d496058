"""The English of variants: which nouns they are named by, which take another colour, plurals and captions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any, cast

from galip_runtime.errors import ProviderUnavailable
from galip_runtime.install import install_extra

from icons.captions import PREPOSITION, with_article
from icons.recolour import COLOURS
from icons.words import entries, pairs

__all__ = [
    "colourless",
    "colours_for",
    "counted",
    "has_preposition",
    "is_countable",
    "load_inflect",
    "noun_of",
    "plural",
    "variant_captions",
]

NUMBERS = {2: "two", 3: "three"}

NOUNS = pairs("""
    automobile = car; delivery truck = truck; wrapped gift = gift; locked = lock; mantelpiece clock = clock
    woman's boot = boot; honeybee = bee; tear-off calendar = calendar; mobile phone = phone
    videocassette = video cassette; open book = book; closed book = book; small airplane = airplane
    sport utility vehicle = SUV; tram car = tram; soft ice cream = ice cream; ear of corn = corn cob
    hot beverage = coffee cup; beer mug = mug of beer; ewe = sheep; front-facing baby chick = chick
    baby chick = chick; cow face = cow; cat face = cat; dog face = dog; pig face = pig; mouse face = mouse
    monkey face = monkey; horse face = horse; tiger face = tiger; rabbit face = rabbit; panda face = panda
    notebook with decorative cover = notebook; umbrella with rain drops = umbrella; closed umbrella = umbrella
    house with garden = house; glowing star = star; left speech bubble = speech bubble
    speech balloon = speech bubble; white flower = flower; blossom = flower; hot pepper = chili pepper
    speaker low volume = loudspeaker; speaker medium volume = loudspeaker; speaker high volume = loudspeaker
""")
"""Plainer nouns than the names of the emoji table have."""

RECOLOURED = entries("""
    yarn, thread, balloon, ribbon, reminder ribbon, wrapped gift, kite, teddy bear, yo-yo, boxing glove,
    running shirt, puzzle piece, water pistol, diving mask, curling stone, flying disc, video game,
    skateboard, martial arts uniform, crayon, party popper, butterfly, feather, bird, tropical fish, fish,
    dragon, dragon face, rose, tulip, blossom, hibiscus, lotus, rosette, bouquet, candy, lollipop,
    beverage box, jar, teapot, cup with straw, cupcake, notebook, green book, orange book, blue book,
    closed book, open book, label, notebook with decorative cover, bookmark, flat shoe, clutch bag,
    hiking boot, bikini, coat, gem stone, handbag, sunglasses, military helmet, socks, dress, backpack,
    jeans, gloves, t-shirt, shopping bags, lipstick, purse, crown, woman's boot, running shoe, shorts,
    ballet shoes, scarf, sari, glasses, high-heeled shoe, woman's hat, top hat, billed cap, necktie, kimono,
    woman's sandal, woman's clothes, one-piece swimsuit, briefs, folding hand fan, man's shoe, thong sandal,
    graduation cap, rescue worker's helmet, electric plug, battery, keyboard, laptop, printer, window, door,
    shopping cart, mirror, bed, bucket, basket, chair, soap, safety pin, razor, sponge, broom, toothbrush,
    television, candle, camera, camera with flash, video camera, movie camera, videocassette, locked,
    unlocked, key, inbox tray, package, pill, radio, drum, long drum, violin, guitar, musical keyboard,
    file cabinet, card file box, telephone, telephone receiver, telescope, bell, postal horn, hammer, bomb,
    gear, ladder, shield, magnet, hook, fountain pen, pencil, pen, envelope, scissors, paperclip, pushpin,
    round pushpin, couch and lamp, speaker low volume, toolbox, fire extinguisher, card index, credit card,
    paintbrush, trumpet, saxophone, accordion, banjo, yellow heart, green heart, purple heart, orange heart,
    brown heart, blue heart, red heart, pink heart, light blue heart, heart with arrow, sparkling heart,
    beating heart, broken heart, growing heart, heart with ribbon, kiss mark, speech balloon,
    left speech bubble, robot, alien monster, alien, luggage, house, hut, houses, house with garden, castle,
    factory, church, tent, circus tent, stadium, school, hotel, office building, bank, department store,
    umbrella, umbrella with rain drops, closed umbrella, umbrella on ground, star, glowing star,
    ringed planet, watch, alarm clock, mantelpiece clock, timer clock, helicopter, rocket, airplane,
    small airplane, seat, flying saucer, parachute, sport utility vehicle, railway car, motorcycle,
    oil drum, light rail, fuel pump, tram car, racing car, automobile, oncoming automobile,
    mountain railway, train, delivery truck, high-speed train, manual wheelchair, bullet train, bus,
    oncoming bus, minibus, trolleybus, pickup truck, articulated lorry, metro, tram, tractor, bicycle,
    roller skate, wheel, kick scooter, motor scooter, auto rickshaw, monorail, locomotive, anchor, ferry,
    passenger ship, canoe, ship, motor boat, speedboat, sailboat, ring buoy, rock, playground slide,
    ferris wheel
""")
"""Things that come in any colour in the world, or whose colour nobody takes for what they are."""

RIPENED = {
    "red apple": ("green", "yellow"),
    "green apple": ("red", "yellow"),
    "pear": ("red", "green", "yellow", "brown"),
    "bell pepper": ("red", "orange", "yellow", "green"),
    "hot pepper": ("red", "orange", "yellow", "green"),
    "grapes": ("red", "green", "purple"),
    "maple leaf": ("red", "orange", "yellow", "green", "brown"),
    "mango": ("red", "orange", "yellow", "green"),
    "tomato": ("red", "orange", "yellow", "green"),
    "melon": ("orange", "yellow", "green"),
}
"""Things that come in some colours."""

_COLOUR_WORD = re.compile(rf"^(?:light |dark )?(?:{'|'.join([*COLOURS, 'gray'])}) (?=\w)")


def colours_for(thing: str) -> Sequence[str]:
    """Return the colours that drawings of a thing may get: all, some or none of `COLOURS`."""
    return tuple(COLOURS) if thing in RECOLOURED else RIPENED.get(thing, ())


def colourless(name: str) -> str:
    """Return a name without a colour at its beginning: "red apple" → "apple"."""
    return _COLOUR_WORD.sub("", name)


def noun_of(meta: Mapping[str, Any]) -> str:
    """Return the plain noun that a thing has in captions of its variants: "car" for "automobile"."""
    return NOUNS.get(meta["thing"], meta["thing"])


def is_countable(noun: str) -> bool:
    """Return whether a noun has a plural: not "fire", "grapes", "the Statue of Liberty" or "locked"."""
    return with_article(noun) in (f"a {noun}", f"an {noun}")


def has_preposition(noun: str) -> bool:
    """Return whether a noun has more after its head: "glass of milk"."""
    return _preposition(noun) is not None


def _preposition(noun: str) -> re.Match[str] | None:
    """Return the first preposition after a noun's head: none in "on! arrow" and in "left-facing fist"."""
    found = PREPOSITION.finditer(noun)
    return next((match for match in found if match[0] == "," or noun[: match.start()].endswith(" ")), None)


def load_inflect() -> ModuleType:
    """Return the package inflect. Raises ProviderUnavailable if it is not installed."""
    try:
        import inflect
    except ImportError as error:
        raise ProviderUnavailable(
            f"plurals need inflect, which is not installed: {install_extra('train', 'galip')}"
        ) from error
    return cast(ModuleType, inflect)


@cache
def _engine() -> Any:
    return load_inflect().engine()


def counted(noun: str, number: int) -> str:
    """Return "two cars", "three glasses of milk" for a countable noun. Raises as `load_inflect`."""
    return f"{NUMBERS[number]} {plural(noun)}"


def plural(noun: str) -> str:
    """Return "cars", "glasses of milk" for a countable noun. Raises as `load_inflect`."""
    preposition = _preposition(noun)
    end = preposition.start() if preposition else len(noun)
    head, rest = noun[:end].rstrip(), noun[end:]
    *words, last = re.split(r"(?<=[ -])", head)
    last = f"{last}s" if last.isupper() or last == "yo" else _engine().plural_noun(last)  # SUVs, yo-yos
    return f"{''.join(words)}{last}{' ' if rest else ''}{rest}"


def variant_captions(phrase: str, style: str, others: Sequence[str] = (), ending: str = "") -> list[str]:
    """Return three to six captions: the canonical "a blue car, flat style" first, one without the style last.

    `others`: other ways to say the phrase. `ending`: what every caption ends in, except for the style.
    """
    captions = [
        f"{phrase}{ending}, {style}",
        f"{phrase} in {style}{ending}",
        f"{style} picture of {phrase}{ending}",
    ]
    captions += [f"{other}{ending}, {style}" for other in others[:2]]
    return list(dict.fromkeys([*captions, f"{phrase}{ending}"]))
