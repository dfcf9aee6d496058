"""Captions by kind, the same in every run: what a tokenizer in any language has to agree on."""

import html.entities
import itertools
import random
from collections.abc import Sequence

from unicode_captions import captions

_TEXTS = """
schön
déjà vu à la carte
“quoted” – it’s…
Привет, мир
Γειά σου Κόσμε
日本語のテキスト
안녕하세요
naïve café
łódź ż
½ l’été à 20 °C
İstanbul ğüş
žluťoučký kůň
مرحبا
🐦 and 🧡
¿Qué? ¡Sí!
“Ŵ” œuvre £10 €5 ©2024 ™
à
Å Ñ Õ
क्षि
𝒥ohn
1×10² µm
Zażółć gęślą jaźń
a\u00a0b\u00a0à
"""
_ENCODINGS = "latin-1 cp1252 cp1251 cp1250 cp1253 cp1254 cp1257 iso-8859-2 mac-roman cp437"
_MOJIBAKE = """
Ã Â â € ™ œ Œ ° à ² Ø Ù ± √ ‚ Ä ó вЂ Р С В Г ГўВЂВ × β€ Β Ξ ā€ │ ┌ ﬁ Ÿ ¦ ? a Z
é ö Ö ¶ £ “ ” « » ‹ › ¼ № μ і ї ђ Ë ì ê í À
"""
_LOST_BYTES = "\xa0\xad\x80\x85\x9d\x81\x1a\ufffd \n"
_REFERENCES = """
& &# &#x ; amp AMP lt eacute EACUTE ETH not notin acE SZLIG hellip 0 9 13 128 133 157
55357 56374 1114112 65535 64976 x41 X1F426 a < é
"""
_SPACES = [
    *"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2028\u2029\u202f\u205f\u3000\u200b\u200d\ufeff\x00\x7f",
    *"\u206a\ufff9aB1٣m",
    *("\x1b[31m", "\x1b[1;2", "\r\n"),
]
_CASES = [*"ΣςσΑaB1'’·. İıẞǄǅKÅΩᾼⒶⅧᲐᎠꭰ𐐀ʰª\xad\u0301\u0345"]
_WORDS = "<start_of_text> <END_OF_TEXT> <ſtart_of_text> 's 'ſ ’S 'LL 're a 1 ! ι _"
_EMOJI = [*"👩👧🏽☕🇯🇵🏴1❤ ", "cat", *"\u200d\ufe0f\u20e3\U000e0067\U000e007f"]
_NEW = [
    *"\U0001fae8\U0001fabf\U0001f6dc\U0001fae9\U0001fadf\U0001f8b2",  # emoji and arrows
    *"\u1c89\u1c8a\ua7cb\ua7cc\ua7da\U00010d50\U00010d70\U00016ea0",  # letters with two cases
    *"\U000105c9\U000105d2\u0307\U00016d67\U00016d63",  # letters that compose
    *"aΣe \u0323",
]


def kinds() -> dict[str, list[str]]:
    """Return the captions of each kind."""
    return {
        "mixed Unicode": captions(8000),
        "mojibake": _mojibake(),
        "parts of mojibake": _combinations([*_MOJIBAKE.split(), *_LOST_BYTES], 1500, 8, seed=1),
        "HTML references": _references(),
        "sigma and other cases": _combinations(_CASES, 500, 7, seed=8),
        "emoji": _emoji(),
        "characters newer than Python 3.11": _combinations(_NEW, 200, 6, seed=3),
        "white space, controls, terminal escapes": _combinations(_SPACES, 300, 8, seed=4),
        "lone surrogates": _combinations([*"\ud83d\udc26\U0001f426a \ufffdé"], 150, 5, seed=5),
        "widths and ligatures": [
            f"{chr(code)}a" for code in (*range(0xFF00, 0xFFF0), *range(0xFB00, 0xFB07))
        ],
        "words of CLIP": _combinations([*_WORDS.split(), " ", "\u0345"], 300, 6, seed=6),
        "plain and long": _plain(),
    }


def _combinations(parts: Sequence[str], count: int, most: int, seed: int) -> list[str]:
    source = random.Random(seed)
    return ["".join(source.choices(parts, k=source.randint(1, most))) for _ in range(count)]


def _mojibake() -> list[str]:
    """Return texts in UTF-8, or with surrogates as Java writes them, that were read as another encoding."""
    texts = set[str]()
    for text, encoding in itertools.product(_TEXTS.strip().split("\n"), _ENCODINGS.split()):
        for errors in ("replace", "ignore"):
            once = text.encode().decode(encoding, errors)
            texts |= {once, once.replace("\xa0", " "), f"é {once}", f"{once} and {text}"}
            texts |= {once.replace("\ufffd", "?"), once.encode().decode(encoding, "ignore")}
        halves = b"\xed\xa0\xbd\xed\xb0\xa6"  # of a bird
        texts |= {
            halves.decode(encoding, "ignore"),
            (text.encode() + b"\xc0\x80" + halves).decode(encoding, "ignore"),
        }
    return sorted(texts)


def _references() -> list[str]:
    names = sorted(html.entities.html5)
    chosen = random.Random(2).sample(names, 350)
    codes = [*range(160), 0x345, 0x17F, 0xD800, 0xFDD0, 0xFFFE, 0x1F426, 0x10FFFF, 0x110000]
    return [
        *(f"a &{name} B" for name in chosen),
        *(f"&{name.upper()}x" for name in chosen),
        *(f"&{name}x" for name in names if not name.endswith(";")),
        *(f"&#{code};&#x{code:X}" for code in codes),
        *_combinations([*_REFERENCES.split(), " ", "\n"], 500, 7, seed=7),
    ]


def _emoji() -> list[str]:
    sequences = ["👩\u200d👩\u200d👧\u200d👦", "🏳️\u200d🌈", "🧑🏽\u200d🚀 in space"]
    wales = "🏴" + "".join(chr(0xE0000 + ord(letter)) for letter in "gbwls") + "\U000e007f"
    return [*sequences, wales, *_combinations(_EMOJI, 300, 8, seed=9)]


def _plain() -> list[str]:
    return [
        *("a red apple, 3D style", "A Christmas tree, twemoji style", "", " ", "the quick brown fox " * 6),
        *("word " * 100, "ab" * 40, "a" * 300, "1" * 90, "🐦" * 100, "é " * 74 + "tail"),
        *("a " * 75, "a " * 76, "a " * 74 + "antidisestablishmentarianism"),
    ]
