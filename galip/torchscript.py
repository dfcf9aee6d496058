"""Reading the tensors of a TorchScript archive, such as OpenAI's CLIP files, without running anything in it.

The archive's `data.pkl` says which module has which tensors. No unpickler sees it: its instructions are read
here as data, so nothing that they name is imported or called. The archive's own code is not looked at.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import torch
from galip_runtime.errors import FileRefused
from torch import Tensor

__all__ = ["is_torchscript", "read_torchscript"]

MOST_DEPTH = 100
"""Deepest nesting of modules."""
MOST_ATTRIBUTES = 100_000
"""Most attributes of all modules: a few objects that name one another twice each make astronomically many."""

_DTYPES = {
    "torch.DoubleStorage": torch.float64, "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16, "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64, "torch.IntStorage": torch.int32, "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8, "torch.ByteStorage": torch.uint8, "torch.BoolStorage": torch.bool,
}  # fmt: skip
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, type[tuple[Any, ...]] | type[list[Any]] | type[dict[Any, Any]]] = {
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}


@dataclass(frozen=True)
class _Name:
    """A class or function that the archive names; it is never looked up."""

    name: str


@dataclass(eq=False)
class _Object:
    """What the archive would make by a call: a module or a tensor."""

    function: Any
    arguments: Any
    state: Any = None


@dataclass(frozen=True)
class _Reference:
    """A persistent id: the place of a tensor's numbers."""

    place: Any


def is_torchscript(file: BinaryIO) -> bool:
    """Return whether the zip archive `file` is TorchScript's."""
    try:
        with zipfile.ZipFile(file) as archive:
            return bool(_root(archive))
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return False


def read_torchscript(file: BinaryIO) -> dict[str, Tensor]:
    """Return the tensors of the TorchScript archive `file` under their modules' names, on the CPU.

    The archive's size and depth have been checked. Raises `FileRefused`, and others if it is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        root = _root(archive)
        module = _interpret(io.BytesIO(archive.read(f"{root}/data.pkl")))
        reader = _StorageReader(archive, root)
        return {name: reader.tensor(name, stored) for name, stored in _tensors_in(module).items()}


def _root(archive: zipfile.ZipFile) -> str:
    """Return the folder in the archive that holds a TorchScript module; empty if there is none."""
    names = set(archive.namelist())
    roots = {PurePosixPath(name).parts[0] for name in names if PurePosixPath(name).parts}
    found = sorted(root for root in roots if {f"{root}/constants.pkl", f"{root}/data.pkl"} <= names)
    return found[0] if found else ""


def _interpret(stream: BinaryIO) -> Any:
    """Return what the pickle at `stream` describes, with names and calls as data.

    Raises `FileRefused` for an instruction that TorchScript does not write.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop(count: int | None = None) -> list[Any]:
        """Pop `count` objects, or all after the last mark, in the order in which they were pushed."""
        start = marks.pop() if count is None else len(stack) - count
        if start < 0:
            raise FileRefused("holds a damaged list of its modules")
        items = stack[start:]
        del stack[start:]
        return items

    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                marks.append(len(stack))
            case name if name in _VALUES:
                stack.append(argument)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case name if name in _EMPTY:
                stack.append(_EMPTY[name]())
            case "TUPLE":
                stack.append(tuple(pop()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                stack.append(tuple(pop(int(name[-1]))))
            case "APPEND" | "APPENDS" as name:
                items = pop(1 if name == "APPEND" else None)
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS" as name:
                items = pop(2 if name == "SETITEM" else None)
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]  # type: ignore[index]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])  # type: ignore[index]
            case "GLOBAL":
                stack.append(_Name(str(argument).replace(" ", ".")))
            case "NEWOBJ" | "REDUCE":
                stack.append(_Object(*pop(2)))
            case "BUILD":
                (state,) = pop(1)
                stack[-1].state = state
            case "BINPERSID":
                stack.append(_Reference(*pop(1)))
            case "STOP":
                return stack.pop()
            case name:
                raise FileRefused(
                    f"has the instruction {name} beside its tensors, which is not TorchScript's"
                )
    raise FileRefused("holds a list of its modules that does not end")


def _tensors_in(module: Any) -> dict[str, _Object]:
    """Return the tensors of `module` and of the modules in it, by their dotted names."""
    tensors: dict[str, _Object] = {}
    left = [("", module, 0)]
    for _ in range(MOST_ATTRIBUTES):
        if not left:
            return tensors
        name, value, depth = left.pop()
        if depth > MOST_DEPTH:
            break
        if not isinstance(value, _Object):
            continue
        if value.function == _Name("torch._utils._rebuild_tensor_v2"):
            tensors[name] = value
        elif isinstance(value.state, dict):
            left += [
                (f"{name}.{attribute}".lstrip("."), child, depth + 1)
                for attribute, child in value.state.items()
            ]
    raise FileRefused("nests its modules too deeply or without end")


class _StorageReader:
    """Tensors of an archive. Storages that several share are read once."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        self.archive, self.root = archive, root
        self.storages: dict[str, Tensor] = {}

    def tensor(self, name: str, stored: _Object) -> Tensor:
        """Return the tensor `name` that `stored` describes.

        Raises `FileRefused` if it is outside its storage.
        """
        try:
            reference, offset, shape, stride = stored.arguments[:4]
            kind, dtype, key, _, _ = reference.place
            if kind != "storage" or not all(
                type(number) is int and number >= 0 for number in (offset, *shape, *stride)
            ):
                raise FileRefused(f"describes its tensor {name!r:.80} in an unknown way")
            return torch.as_strided(self._storage(dtype.name, key), shape, stride, offset)
        except (TypeError, ValueError, AttributeError, KeyError, RuntimeError) as error:
            raise FileRefused(f"describes its tensor {name!r:.80} in an unknown way ({error})") from error

    def _storage(self, dtype: str, key: str) -> Tensor:
        """Return all numbers of the storage `key`, as a flat tensor."""
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.root}/data/{key}"))
            self.storages[key] = (
                torch.frombuffer(data, dtype=_DTYPES[dtype]) if data else torch.empty(0, dtype=_DTYPES[dtype])
            )
        return self.storages[key]
