"""Read a pickle that may hold a list of strings and nothing else.

A pickle is a program: it can call anything and can ask for any amount of memory. So its instructions are
checked first, and only those that put strings in a list may pass. The unpickler that then runs them refuses
to find any class.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused
from galip_runtime.files import read_regular

__all__ = ["read_keys", "strings_of_pickle"]

MAX_BYTES = 2**28
"""About ten million keys."""

_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_PYTHON_2 = frozenset(("STRING", "SHORT_BINSTRING", "BINSTRING"))
_TEXTS = frozenset(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"))
_LISTS = frozenset(("EMPTY_LIST", "LIST", "MARK", "APPEND", "APPENDS"))
_REST = frozenset(("PROTO", "FRAME", "GET", "BINGET", "LONG_BINGET", "MEMOIZE", "STOP"))
_ALLOWED = _PUTS | _PYTHON_2 | _TEXTS | _LISTS | _REST


class _StringsUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise FileRefused(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise FileRefused("it asks for something outside itself")


def strings_of_pickle(content: bytes, where: str) -> list[str]:
    """Return the strings of a pickled list, of Python 2 or 3. Raises `FileRefused` for anything else."""
    try:
        _check_instructions(content)
        strings = _StringsUnpickler(io.BytesIO(content), encoding="utf-8").load()
    except Exception as error:  # a broken pickle can raise anything
        raise FileRefused(
            f"{where} is not a pickled list of strings ({error or type(error).__name__}); nothing else is "
            "read from a pickle. Fetch it again, or use another layout."
        ) from error
    if type(strings) is not list or not strings or not all(type(item) is str for item in strings):
        raise FileRefused(f"{where} holds something other than a list of strings. Fetch it again.")
    return strings


def _check_instructions(content: bytes) -> None:
    """Raise `FileRefused` for an instruction that does anything but put strings in one list."""
    lists = marks = 0
    for count, (code, argument, position) in enumerate(pickletools.genops(content)):
        if code.name not in _ALLOWED:
            raise FileRefused(f"byte {position} is {code.name}")
        if code.name in _PUTS and isinstance(argument, int) and argument > count:
            raise FileRefused(f"byte {position} asks for a memo of {argument:,}")
        lists += code.name in ("LIST", "EMPTY_LIST")
        marks += (code.name == "MARK") - (code.name in ("LIST", "APPENDS"))
        if lists > 1 or marks > 1:  # each takes memory and has one byte
            raise FileRefused(f"byte {position} begins a second list")


def read_keys(file: Path) -> list[str]:
    """Read the keys in `filenames.pickle`, at most `MAX_BYTES`. Raises `FileRefused`."""
    return strings_of_pickle(read_regular(file, MAX_BYTES), str(file))
