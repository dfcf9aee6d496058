"""Captions of an icon: natural phrases with the thing and its style, and its tags."""

import hashlib
import re

from icons.names import Thing, fuse
from icons.words import entries

__all__ = ["PREPOSITION", "captions_of", "with_article"]

_NOUN_GROUPS = {"animals-nature", "food-drink", "travel-places", "activities", "objects"}
PREPOSITION = re.compile(
    r"\b(?:with|without|of|in|on|at|for|over|under|and|from|behind|showing|holding|blowing|facing|pointing|"
    r"wearing|having|feeding|screaming|savoring|exhaling|vomiting)\b|,"
)
# Words in -s that are singular, and words that are plural or not countable
_PARTICIPLE = re.compile(r"^(un)?locked\b")
_SINGULAR_S = re.compile(r"(ss|us|(?<!sk)is|lens|canvas|rhinoceros|claus)$", re.IGNORECASE)
_PLURAL_START = re.compile(r"^(people|men|women|two|three|letters|palms|hands|input)\b(?!')")
_PERSON_START = re.compile(r"^(person|man|woman) (?!with\b)")


# Nouns (and a few other parts of speech among the names) that take no article: as the head of a name, …
_MASS_HEADS = entries("""
    art, bacon, badminton, baseball, basketball, bowling, bread, broccoli, butter, calling, camping,
    champagne, cheese, chess, cloudy, confetti, construction, cooking, coral, curry, custard, dango,
    dna, falafel, fire, fog, fondue, food, garlic, ginger, golf, grass, hockey, ice, lacrosse,
    landslide, lightning, liquid, litter, lotion, mag, mahjong, mate, meat, mega, milk, money, mute,
    oden, paper, poo, popcorn, rain, rainy, ramen, rice, sake, salt, sand, smoking, snow, snowy, soap,
    soccer, softball, spaghetti, stormy, sunny, sushi, tea, tennis, thread, unlock, volleyball, water,
    wedding, wood, yarn, zzz
""")
# … or as a whole name.
_MASS_NAMES = entries("""
    baggage claim, biohazard, breast-feeding, canned food, children crossing, copyright, corn, currency
    exchange, customs, dashing away, divide, dizzy, foggy, ginger root, green salad, head shaking
    horizontally, head shaking vertically, horse racing, hot springs, hundred points, infinity,
    information, leafy green, left luggage, milky way, minus, mount fuji, multiply, no entry, om,
    passport control, performing arts, ping pong, place of worship, plus, prohibited, radioactive,
    registered, rolling on the floor laughing, sparkles, star-struck, sunrise, sunset, thumbs down,
    thumbs up, trade mark, tv, vibration mode, warning, water closet, wireless, yin yang
""")
_PROPER = re.compile(
    r"^(santa claus|mrs\. claus|mx claus|aries|taurus|gemini|cancer|leo|virgo|libra|scorpio|sagittarius|"
    r"capricorn|aquarius|pisces|ophiuchus|letter .+|digit .+|no .+)$",
    re.IGNORECASE,
)
_THE = re.compile(
    r"^(Statue of Liberty|Tokyo tower|milky way|kaaba|flag of .+|star of David)$", re.IGNORECASE
)
_AN_SOUND = re.compile(r"^(hour|honest|heir|herb\b|x-ray|8\b|11|18)", re.IGNORECASE)
_A_SOUND = re.compile(r"^(uni(?!m|n)|us(e|u)|eu|ewe|one\b|once|u\b|ufo|ut(e|i)|up!)", re.IGNORECASE)
_SPELLED = re.compile(r"^(?!FREE|NEW|COOL|UP|ON|OK|END|BACK|SOON|TOP|LED|ZZZ)[A-Z]{1,4}\b")


def _indefinite(name: str) -> str:
    if _SPELLED.match(name):  # read letter by letter: "an SOS button", "a CL button"
        return "an" if name[0] in "AEFHILMNORSX" else "a"
    if _A_SOUND.match(name):
        return "a"
    return "an" if _AN_SOUND.match(name) or name[0].lower() in "aeiou" else "a"


def with_article(name: str) -> str:
    """Return the name as a phrase: "an octopus", "grapes", "fire", "the Statue of Liberty"."""
    if _THE.match(name):
        return f"the {name}"
    if _PERSON_START.match(name):  # "a man lifting weights": the person is what counts
        return f"a {name}"
    if (
        _PARTICIPLE.match(name)
        or _PROPER.match(name)
        or _PLURAL_START.match(name)
        or name.lower() in _MASS_NAMES
    ):
        return name
    head = PREPOSITION.split(name)[0].strip() or name
    word = re.split(r"[ -]", head)[-1].lower()
    if word in _MASS_HEADS or (word.endswith("s") and not _SINGULAR_S.search(word)):
        return name
    return f"{_indefinite(name)} {name}"


def _tag_line(thing: Thing, key: str, count: int = 4) -> str:
    """Return a few of the tags, selected by the picture's key; "" if there are none."""
    tags = sorted(thing.tags, key=lambda tag: hashlib.sha256(f"{key} {tag}".encode()).digest())
    return ", ".join(sorted(tags[:count]))


def captions_of(thing: Thing, style: str, key: str) -> list[str]:
    """Return four to eight captions. The first is the canonical "a THING, STYLE"; one names no style.

    `key` determines which tags and which alias are used.
    """
    tone = f" with {thing.skin_tone} skin tone" if thing.skin_tone else ""
    if thing.skin_tone and ", " in thing.skin_tone:
        tone = f" with {' and '.join(thing.skin_tone.split(', '))} skin tones"
    name, phrase = thing.name + tone, with_article(thing.name) + tone
    captions = [
        f"{phrase}, {style}",
        f"{name} in {style}",
        f"{style} picture of {phrase}",
        f"{_indefinite(style)} {style} icon of {phrase}",
    ]
    if thing.aliases:
        pick = hashlib.sha256(f"{key} alias".encode()).digest()[0] % len(thing.aliases)
        alias = thing.aliases[pick]
        captions.append(f"{with_article(alias) if thing.group in _NOUN_GROUPS else alias}{tone}, {style}")
    if tags := _tag_line(thing, key):
        captions.append(f"{tags}{',' + tone if tone else ''}; {style}")
    captions.append(phrase)
    unique: dict[str, str] = {}
    for caption in captions:
        unique.setdefault(fuse(caption), caption)
    return list(unique.values())
