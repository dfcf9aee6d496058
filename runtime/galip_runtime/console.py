"""What a command prints: nothing in it can steer a terminal, and output that fails loses no work.

Names of files, captions, notes in checkpoints and other libraries' messages may hold anything. Every line
that is printed goes through `escape`, which also escapes line breaks: no name passes for a line of ours.
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

__all__ = ["escape", "failure", "json_lines", "message", "report", "result", "run"]

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's control and format characters, bidirectional overrides among them, surrogates, line breaks."""
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Characters of other kinds that nothing is drawn for."""
_LOST, _INTERRUPTED = 2, 130


def escape(text: object) -> str:
    r"""`text` on one line, with control and invisible characters as Python writes them: `\x1b`, `\u202e`."""
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(
        character.encode("unicode_escape").decode()
        if character in _BLANK or unicodedata.category(character) in _HIDDEN
        else character
        for character in shown
    )


def json_lines(value: Any) -> list[str]:
    """Lines of `value` as JSON in ASCII, so that any stream takes it; a number that is not finite is null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False).splitlines()


def result(*lines: object) -> None:
    """Print on stdout what the command was run for: if that fails, `run` returns 2."""
    _print(sys.stdout, lines)


def report(*lines: object) -> None:
    """Print on stdout a report of work that is done: if that fails, the work is still done."""
    if (stream := _forgiving(sys.stdout)) is not None:
        stream.is_needed = False
    _print(sys.stdout, lines)


def message(*lines: object) -> None:
    """Print on stderr."""
    _print(sys.stderr, lines)


def failure(prefix: str, error: GalipError) -> None:
    """Print an error on stderr, its details on lines of their own."""
    summary, *details = error.args or ("",)
    message(f"{prefix}: {summary}", *(f"  {detail}" for detail in details))


def run(command: Callable[[], int], prefix: str) -> int:
    """Run `command` and return its exit code; `prefix` begins messages.

    Streams that are full, closed or in ASCII raise nothing: a reader that has gone is ignored, and only where
    stdout takes nothing and `result` was for it, 0 becomes 2. Warnings and logs are escaped, too.
    """
    with _guarded() as stdout:
        try:
            code = command()
        except SystemExit as leave:  # argparse's
            code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        except KeyboardInterrupt:  # before or after the command's own handling
            code = _INTERRUPTED
        if stdout is None:
            return code
        with suppress(ValueError):  # closed by what the command called
            sys.stdout.flush()
        reason = stdout.failure
        if reason is None or reason.errno in (errno.EPIPE, errno.ESHUTDOWN):
            return code
        lost = "what was to be printed is lost" if stdout.is_needed else "the work itself is done"
        message(f"{prefix}: stdout cannot be written ({reason.strerror}): {lost}")
        return code or (_LOST if stdout.is_needed else 0)


class _Forgiving(io.RawIOBase):
    """A stream whose first failure is kept instead of raised; what comes after it is dropped."""

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
                    raise OSError(errno.EBADF, "it is closed")
                written = self.raw.write(data)
                if written is not None:
                    return int(written)
                select.select([], [self.raw], [])  # a pipe that does not block, and is full
            except OSError as error:
                self.failure = error
        return len(data)


@contextmanager
def _guarded() -> Iterator[_Forgiving | None]:
    """Make the process's own streams forgiving and escape what libraries say; those of a test stay."""
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        yield None
        return
    _fill_descriptors()
    streams, show, last = (sys.stdout, sys.stderr), warnings.showwarning, logging.lastResort
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
        (sys.stdout, sys.stderr), warnings.showwarning, logging.lastResort = streams, show, last


def _fill_descriptors() -> None:
    """Open what stdin, stdout and stderr lack, or the next file opened would be taken for one of them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):  # no /dev: nothing better is there to be done
                os.open(os.devnull, os.O_RDWR)


def _raw(stream: TextIO | None) -> Any:
    """The unbuffered stream below `stream`; None if it was closed when the process began."""
    if stream is None:
        return None
    stream.flush()
    return getattr(stream.buffer, "raw", stream.buffer)


def _text(raw: _Forgiving, before: TextIO | None) -> TextIO:
    encoding = "utf-8" if before is None else before.encoding
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
    """What logs to nobody else, line by line to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message(record.getMessage())
        except (TypeError, ValueError) as error:  # a template that does not fit its arguments
            message(f"{record.msg} ({error})")
