"""Output of the commands: no text can control the terminal, and a failing stream loses no work.

File names, captions, notes in checkpoints and other libraries' messages may contain anything. Every printed
line goes through `escape`, which also escapes line breaks, so that no name can pass for a line of ours.
"""

import errno
import io
import json
import logging
import math
import os
import select
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from galip_runtime.errors import GalipError

__all__ = ["counted", "escape", "failure", "json_lines", "message", "report", "result", "run"]

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's control and format characters (including bidirectional overrides), surrogates, line breaks."""
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Characters of other categories that are invisible, too."""
_LOST, _INTERRUPTED = 2, 130


def counted(count: int, noun: str) -> str:
    """Return `1 seed`, `3 seeds`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def escape(text: object) -> str:
    r"""Return `text` on one line, control and invisible characters escaped as in Python: `\x1b`, `\u202e`."""
    line = str(text)
    if line.isascii() and line.isprintable():
        return line
    return "".join(
        character.encode("unicode_escape").decode()
        if character in _BLANK or unicodedata.category(character) in _HIDDEN
        else character
        for character in line
    )


def json_lines(value: Any) -> list[str]:
    """Return `value` as lines of ASCII JSON, which any stream takes; numbers that aren't finite are null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False).splitlines()


def result(*lines: object) -> None:
    """Print to stdout what the command was run for: if that fails, `run` returns 2."""
    _print(sys.stdout, lines)


def report(*lines: object) -> None:
    """Print to stdout a report of finished work: a failure to print does not make the command fail."""
    if (stream := _forgiving(sys.stdout)) is not None:
        stream.is_needed = False
    _print(sys.stdout, lines)


def message(*lines: object) -> None:
    """Print to stderr."""
    _print(sys.stderr, lines)


def failure(prefix: str, error: GalipError) -> None:
    """Print an error to stderr, with each detail on its own line."""
    summary, *details = error.args or ("",)
    message(f"{prefix}: {summary}", *(f"  {detail}" for detail in details))


def run(command: Callable[[], int], prefix: str) -> int:
    """Run `command` and return its exit code; messages begin with `prefix`.

    Streams that are full, closed or ASCII-only never raise, and a reader that has gone away is ignored. Only
    if stdout fails and `result` printed to it, does 0 become 2. Warnings and logs are escaped, too.
    """
    with _guarded() as stdout:
        try:
            code = command()
        except SystemExit as exit_:  # from argparse
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        except KeyboardInterrupt:  # outside the command's own handling
            code = _INTERRUPTED
        if stdout is None:
            return code
        with suppress(ValueError):  # the command closed it
            sys.stdout.flush()
        reason = stdout.failure
        if reason is None or reason.errno in (errno.EPIPE, errno.ESHUTDOWN):
            return code
        effect = "the output is lost" if stdout.is_needed else "the work itself is done"
        message(f"{prefix}: cannot write to stdout ({reason.strerror}): {effect}")
        return code or (_LOST if stdout.is_needed else 0)


class _Forgiving(io.RawIOBase):
    """A stream that records its first failure instead of raising it and drops everything after it."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.failure: OSError | None = None
        self.is_needed = True

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self.raw is not None and bool(self.raw.isatty())

    def fileno(self) -> int:
        if self.raw is None:
            raise io.UnsupportedOperation("fileno")
        return int(self.raw.fileno())

    def write(self, data: Any) -> int:
        while self.failure is None:
            try:
                if self.raw is None:
                    raise OSError(errno.EBADF, "the stream is closed")
                written = self.raw.write(data)
                if written is not None:
                    return int(written)
                select.select([], [self.raw], [])  # a full non-blocking pipe
            except OSError as error:
                self.failure = error
        return len(data)


@contextmanager
def _guarded() -> Iterator[_Forgiving | None]:
    """Make the process's own streams forgiving and escape libraries' messages; leave a test's streams."""
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        yield None
        return
    _fill_descriptors()
    streams, show_warning, last_resort = (sys.stdout, sys.stderr), warnings.showwarning, logging.lastResort
    stdout = _Forgiving(_raw(sys.stdout))
    sys.stdout = _text(stdout, sys.stdout)
    sys.stderr = _text(_Forgiving(_raw(sys.stderr)), sys.stderr)
    warnings.showwarning = _show_warning
    logging.lastResort = _LogHandler(logging.WARNING)
    try:
        yield stdout
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(ValueError):
                stream.flush()
        sys.stdout, sys.stderr = streams
        warnings.showwarning, logging.lastResort = show_warning, last_resort


def _fill_descriptors() -> None:
    """Open whichever of descriptors 0 to 2 is closed, or the next opened file would become one of them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):  # there is no /dev, and nothing better to do
                os.open(os.devnull, os.O_RDWR)


def _raw(stream: TextIO | None) -> Any:
    """Return the unbuffered stream below `stream`; None if it was closed when the process began."""
    if stream is None:
        return None
    stream.flush()
    return getattr(stream.buffer, "raw", stream.buffer)


def _text(raw: _Forgiving, original: TextIO | None) -> TextIO:
    encoding = "utf-8" if original is None else original.encoding
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=True
    )


def _forgiving(stream: Any) -> _Forgiving | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Forgiving) else None


def _print(stream: TextIO | None, lines: tuple[object, ...]) -> None:
    if stream is not None:
        stream.write("".join(f"{escape(line)}\n" for line in lines))
        stream.flush()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _print(file or sys.stderr, (f"{filename}:{lineno}: {category.__name__}: {message}",))


class _LogHandler(logging.Handler):
    """The handler of last resort, which prints each record to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message(record.getMessage())
        except (TypeError, ValueError) as error:  # the template doesn't match its arguments
            message(f"{record.msg} ({error})")
