"""Difficult captions for a tokenizer, the same in every run."""

import random

_RANGES = [
    (0x20, 0x7E),  # ASCII
    (0x00, 0x1F),  # control characters
    (0x80, 0x24F),  # C1 controls, Latin
    (0x2B0, 0x36F),  # modifiers, combining marks
    (0x370, 0x52F),  # Greek, Cyrillic
    (0x590, 0x6FF),  # Hebrew, Arabic
    (0x900, 0xDFF),  # scripts of India
    (0xE00, 0xFFF),  # Thai, Lao, Tibetan
    (0x1100, 0x11FF),  # Hangul letters
    (0x1E00, 0x1FFF),  # Latin and Greek with marks
    (0x2000, 0x206F),  # spaces, joiners, quotes, direction marks
    (0x2070, 0x2BFF),  # superscripts, currencies, numerals, symbols
    (0x3000, 0x30FF),  # CJK punctuation, kana
    (0x4E00, 0x9FFF),  # CJK
    (0xAC00, 0xD7A3),  # Hangul
    (0xD800, 0xDFFF),  # lone surrogates
    (0xE000, 0xF8FF),  # private use
    (0xFB00, 0xFDFF),  # ligatures, Arabic forms
    (0xFE00, 0xFFFF),  # variation selectors, full width, specials
    (0x10000, 0x1FFFF),  # ancient scripts, mathematics, emoji
    (0x20000, 0x10FFFF),  # the rest
]
_WORDS = """
    ' ’ ‘ " “ ” ` ´ 's 'S 't 're 'VE 'm 'll 'd 'ſ ’s can't I'VE don’t o'clock ''s
    &amp; &lt;b&gt; &amp;lt; &amp;amp;lt; &#39; &#x27; &#x1F426; &#0; &#xD800; &nbsp; &eacute &notit; &#128;
    <start_of_text> <END_OF_TEXT> <end_of_text> <ſtart_of_text> <|endoftext|> </w> a</w>
    1 2024 3.14 1,000 ½ Ⅷ ٣ ² 百 №5
    ﬁne ﬀ Å Å é e\u0301 e\u0301\u0323\u0300 İstanbul ǅ ß ẞ Σίσυφος K ａｂｃ
    🐦 👩\u200d👩\u200d👧\u200d👦 🇯🇵 ☕️ 👍🏽 ✨✨ ©
    東京 こんにちは 안녕 Привет שלום مرحبا नमस्ते สวัสดี
    schÃ¶n donâ€™t â€œquotedâ€\x9d Ã©tÃ© l’humanitÃ© ÐŸÑ€Ð¸Ð²ÐµÑ‚ \x1b[31mred\x1b[0m
    a red apple, 3D style the quick brown fox antidisestablishmentarianism
    supercalifragilistic !?!...---___***
"""
_SPACES = "\t \n \r\n \x0b \x1c \x85 \xa0 \u2003 \u2028 \u3000 \u200b \ufeff \0"
_PIECES = [*_WORDS.split(), *_SPACES.split(" "), "o" * 60, "хх" * 30]


def captions(count: int, seed: int = 20) -> list[str]:
    """Return `count` captions: characters of one script, of several, whole pieces, and mixtures of them."""
    source = random.Random(seed)
    return [_caption(source) for _ in range(count)]


def _caption(source: random.Random) -> str:
    parts = []
    for _ in range(source.choice((0, 1, 2, 3, 5, 8, 13, 40))):
        kind = source.random()
        if kind < 0.55:
            parts.append(source.choice(_PIECES))
        elif kind < 0.9:
            low, high = source.choice(_RANGES)
            parts.append("".join(chr(source.randint(low, high)) for _ in range(source.randint(1, 8))))
        else:
            word = source.choice(_PIECES)
            parts.append(word.upper() if source.random() < 0.5 else word.title())
    return source.choice(("", " ", " ", "  ")).join(parts)
