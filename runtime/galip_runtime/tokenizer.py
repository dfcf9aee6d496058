"""CLIP's tokenizer: captions to rows of ids, equal to open_clip's `SimpleTokenizer` with its defaults.

    caption -> fix mojibake, unescape HTML, collapse white space, lower case -> words -> byte-pair encoding

Ids: 256 byte symbols, the same 256 at the end of a word, one id per merge, start, end. The merges may be any
prefix of CLIP's list; the vocabulary shrinks with it.
"""

import gzip
import heapq
import html
import io
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise

import ftfy
import numpy as np
import numpy.typing as npt
import regex

from galip_runtime.arrays import check_count, short_repr
from galip_runtime.errors import FileRefused, UsageError

__all__ = [
    "CLIP_MERGES",
    "MAX_PROMPT_LENGTH",
    "Tokenizer",
    "as_prompts",
    "check_prompt",
    "read_clip_merges",
    "trim",
]

CLIP_MERGES = 48_894
"""The number of merges that CLIP uses of its published list."""

MAX_PROMPT_LENGTH = 100_000
"""The most characters in a prompt. A caption has about a hundred words; more is a file pasted by mistake."""

_MAX_CONTEXT = 2**16  # as in a bundle's manifest
_MAX_VOCABULARY_BYTES = 64 * 2**20
_CACHED_WORDS = 100_000
_CACHED_WORD_BYTES = 64
_END_OF_WORD = "</w>"
_TRIM_MULTIPLE = 8
# CLIP reads these two, spelled out in a caption, as the tokens themselves
_START, _END = "<start_of_text>", "<end_of_text>"
_WORDS = regex.compile(
    rf"{_START}|{_END}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE
)


def _byte_order() -> list[int]:
    """Return the 256 bytes in the order of their ids: those printable in Latin-1 first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return printable + [byte for byte in range(256) if byte not in printable]


def _alphabet() -> list[str]:
    """Return the character that stands for each byte in a list of merges, in the order of ids.

    A printable byte stands for itself; the characters from U+0100 on stand for the others.
    """
    order = _byte_order()
    printable = 188
    return [chr(byte) for byte in order[:printable]] + [chr(0x100 + i) for i in range(256 - printable)]


class Tokenizer:
    """Byte-pair encoding with a list of merges. Threads may share it."""

    def __init__(self, merges: Sequence[tuple[str, str]], context_length: int) -> None:
        """`merges`: pairs of symbols, most frequent first; `context_length`: ids in a row.

        Raises UsageError if a merge joins symbols that no earlier merge makes, or makes one that exists.
        """
        check_count(context_length, "context_length", least=3, most=_MAX_CONTEXT)
        try:
            self.merges = tuple((first, second) for first, second in merges)
        except (TypeError, ValueError) as error:
            raise UsageError(f"merges must be pairs of strings, not {short_repr(merges)}") from error
        if not all(isinstance(symbol, str) for pair in self.merges for symbol in pair):
            raise UsageError("merges must be pairs of strings, and one of them contains something else")
        self.context_length = int(context_length)
        self.vocabulary_size = 512 + len(self.merges) + 2
        self.start_id = self.vocabulary_size - 2
        self.end_id = self.vocabulary_size - 1
        self._byte_ids = dict(zip(_byte_order(), range(256), strict=True))
        self._merged_ids = self._number(self.merges)
        self._cache: dict[str, tuple[int, ...]] = {_START: (self.start_id,), _END: (self.end_id,)}

    @staticmethod
    def _number(merges: Iterable[tuple[str, str]]) -> dict[tuple[int, int], int]:
        """Return (id, id) -> id of the two merged. A smaller result is a more frequent merge."""
        alphabet = _alphabet()
        ids = {symbol: i for i, symbol in enumerate(alphabet)}
        ids |= {symbol + _END_OF_WORD: 256 + i for i, symbol in enumerate(alphabet)}
        merged_ids = {}
        for number, (first, second) in enumerate(merges, start=1):
            if first not in ids or second not in ids or first + second in ids:
                raise UsageError(
                    f"merge {number} ({first!r} {second!r}) does not join two known symbols into a new one: "
                    "this is not the beginning of a list like CLIP's"
                )
            merged_ids[ids[first], ids[second]] = ids[first + second] = len(ids)
        return merged_ids

    @classmethod
    def from_bytes(cls, data: bytes, context_length: int) -> "Tokenizer":
        """Read what `to_bytes` returned: gzipped UTF-8 text, one merge per line. Raises FileRefused."""
        try:
            return cls(_parse(_unpack(data).splitlines()), context_length)
        except UsageError as error:
            raise FileRefused(f"the tokenizer's vocabulary is broken: {error}") from error

    def to_bytes(self) -> bytes:
        """Return the merges as gzipped UTF-8 text, one per line; equal merges always give equal bytes."""
        text = "".join(f"{first} {second}\n" for first, second in self.merges)
        return gzip.compress(text.encode(), mtime=0)

    def encode(self, texts: str | Sequence[str]) -> npt.NDArray[np.int64]:
        """Return ids, int64 (N, context_length): start, caption, end, then zeros.

        A caption that is too long is cut, with the end token last. Raises UsageError for anything but text
        and for a prompt of more than `MAX_PROMPT_LENGTH` characters.
        """
        prompts = as_prompts(texts)
        rows = np.zeros((len(prompts), self.context_length), np.int64)
        for row, prompt in zip(rows, prompts, strict=True):
            ids = [self.start_id, *self._split(prompt)[0], self.end_id]
            row[: len(ids)] = ids
        return rows

    def left_out(self, prompt: str) -> str:
        """Return the end of `prompt`, cleaned, that `encode` cuts off; empty where the whole prompt fits.

        A word of which only some ids fit counts as cut off.
        """
        return self._split(prompt)[1]

    def check(self, tokens: npt.NDArray[np.int64]) -> None:
        """Raise UsageError unless `tokens` are int64 (N, L): rows of ids, L at most `context_length`."""
        if not isinstance(tokens, np.ndarray) or tokens.dtype != np.int64 or tokens.ndim != 2:
            raise UsageError(f"tokens must be int64 (N, L), as from `encode`, not {short_repr(tokens)}")
        if not len(tokens) or not 1 <= tokens.shape[1] <= self.context_length:
            raise UsageError(f"tokens have shape {tokens.shape}; it must be (N, 1 to {self.context_length})")
        if not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocabulary_size:
            raise UsageError(
                f"tokens range from {tokens.min()} to {tokens.max()}; the vocabulary's ids range from 0 to "
                f"{self.vocabulary_size - 1}"
            )

    def _split(self, prompt: str) -> tuple[list[int], str]:
        """Return at most context_length - 2 ids, and the text that they leave out.

        The words that are cut off are not encoded.
        """
        room = self.context_length - 2
        ids: list[int] = []
        text = _clean(prompt)
        for word in _WORDS.finditer(text):
            if len(ids) == room:
                return ids, text[word.start() :]
            ids.extend(self._word(word.group()))
            if len(ids) > room:
                return ids[:room], text[word.start() :]
        return ids, ""

    def _word(self, word: str) -> tuple[int, ...]:
        ids = self._cache.get(word)
        if ids is None:
            data = word.encode()
            ids = self._merge(data)
            if len(data) <= _CACHED_WORD_BYTES and len(self._cache) < _CACHED_WORDS:
                self._cache[word] = ids
        return ids

    def _merge(self, word: bytes) -> tuple[int, ...]:
        """Encode byte pairs: merge the pair that is first in the list, leftmost first, until none is left.

        A symbol always has a larger id than its parts, so a merge never creates a pair that comes earlier in
        the list, and a heap of (merged id, position) yields the merges in the right order in O(n log n).
        """
        ids = [self._byte_ids[byte] for byte in word]
        ids[-1] += 256
        after = list(range(1, len(ids) + 1))
        before = list(range(-1, len(ids) - 1))
        pairs = enumerate(pairwise(ids))
        heap = [(merged, i) for i, pair in pairs if (merged := self._merged_ids.get(pair)) is not None]
        heapq.heapify(heap)
        while heap:
            merged, left = heapq.heappop(heap)
            right = after[left]
            if right == len(ids) or self._merged_ids.get((ids[left], ids[right])) != merged:
                continue  # one of the two has been merged with another symbol since
            ids[left], ids[right] = merged, -1
            after[left] = after[right]
            if after[left] < len(ids):
                before[after[left]] = left
            for i in (before[left], left):
                j = after[i]
                if i >= 0 and j < len(ids) and (pair := self._merged_ids.get((ids[i], ids[j]))) is not None:
                    heapq.heappush(heap, (pair, i))
        return tuple(i for i in ids if i >= 0)


def trim(tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Cut rows of ids (N, context_length) to the longest caption, rounded up to a multiple of eight.

    The text encoder is causal and takes the sentence from the end token, so zeros after it change nothing.
    """
    longest = int(np.flatnonzero(tokens.any(axis=0)).max(initial=0)) + 1
    return tokens[:, : -(-longest // _TRIM_MULTIPLE) * _TRIM_MULTIPLE]


def as_prompts(texts: str | Sequence[str]) -> list[str]:
    """Return one prompt or several as a list. Raises UsageError for anything else or too long a prompt."""
    if not isinstance(texts, str | Sequence) or isinstance(texts, bytes | bytearray | memoryview):
        raise UsageError(f"prompts must be text or a sequence of texts, not {type(texts).__name__}")
    prompts = [texts] if isinstance(texts, str) else list(texts)
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise UsageError(f"prompt {index} is of type {type(prompt).__name__}, not text: {prompt!r:.80}")
        if len(prompt) > MAX_PROMPT_LENGTH:
            raise UsageError(
                f"prompt {index} has {len(prompt):,} characters, more than {MAX_PROMPT_LENGTH:,}: "
                "use a sentence or two"
            )
    return prompts


def check_prompt(text: str) -> None:
    """Raise UsageError if `Tokenizer.encode` would refuse `text`, whatever the vocabulary."""
    _clean(as_prompts(text)[0])


def read_clip_merges(data: bytes, count: int = CLIP_MERGES) -> list[tuple[str, str]]:
    """Return the first `count` merges of CLIP's own file (`bpe_simple_vocab_16e6.txt.gz`: one header line).

    Raises FileRefused if it is another kind of file or has fewer merges.
    """
    lines = _unpack(data).split("\n")[1:]
    check_count(count, "count", least=0)
    if count > len(lines):
        raise FileRefused(f"the list of merges has {len(lines)} lines, fewer than {count}")
    return _parse(lines[:count])


def _clean(text: str) -> str:
    try:
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    except ValueError as error:  # a numeric character reference of thousands of digits
        raise UsageError(
            f"the prompt has an HTML character reference that is not a character: {error}"
        ) from error
    return " ".join(text.split()).lower()


def _unpack(data: bytes) -> str:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise UsageError(f"a vocabulary must be bytes, not {short_repr(data)}")
    try:
        if not data:  # gzip would read it as an empty text
            raise EOFError("it is empty")
        with gzip.open(io.BytesIO(data)) as file:
            text = file.read(_MAX_VOCABULARY_BYTES + 1)
        if len(text) > _MAX_VOCABULARY_BYTES:
            raise FileRefused(
                f"the tokenizer's vocabulary decompresses to more than {_MAX_VOCABULARY_BYTES} bytes"
            )
        return text.decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise FileRefused(f"the tokenizer's vocabulary is not gzipped UTF-8 text: {error}") from error


def _parse(lines: Sequence[str]) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(lines, start=1):
        parts = line.split()
        if len(parts) != 2:
            raise FileRefused(f"the tokenizer's vocabulary is broken: merge {number} is {line!r:.80}")
        merges.append((parts[0], parts[1]))
    return merges
