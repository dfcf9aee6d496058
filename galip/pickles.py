"""Reading the files of `torch.save` without running their code and without trusting their sizes."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import re
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import torch
from galip_runtime.errors import FileRefused

from galip.headers import open_weights
from galip.torchscript import is_torchscript, read_torchscript

__all__ = ["read_pickled"]

MOST_COMPRESSED = 64 * 2**20
"""Bytes that an archive may unpack to beyond its own size: TorchScript's code is compressed."""
MOST_PICKLE_BYTES = 4 * 2**20
"""Largest pickle that names the tensors; those of the released checkpoints have about 200 KB."""
MOST_DEPTH = 100
"""Deepest nesting of tuples, lists and dicts. Hashing a deep tuple overflows Python's stack."""

_ZIP = b"PK\x03\x04"
_LEGACY_PICKLES = 5
"""Pickles at the start of a file in the older format: magic number, version, system, data, storages' keys."""


def read_pickled(path: Path, *, checksums: bool = False, torchscript: bool = False) -> Any:
    """Return what `torch.save` wrote to `path`: tensors and plain data, on the CPU. Its code never runs.

    `checksums`: verify the checksums that PyTorch writes but never reads. `torchscript`: read a TorchScript
    archive, too, as a dict of its tensors. Raises `FileRefused` if the file is not regular, is broken,
    unpacks to far more than its size, nests deeply, or holds anything else.
    """
    with open_weights(path) as file:
        try:
            if file.read(4) == _ZIP:
                _check_zip(file, checksums)
                if is_torchscript(file):
                    if not torchscript:
                        raise FileRefused("is a TorchScript archive, not what torch.save writes")
                    return read_torchscript(file)
            else:
                file.seek(0)
                head = io.BytesIO(file.read(MOST_PICKLE_BYTES))
                for _ in range(_LEGACY_PICKLES):
                    if head.tell() < len(
                        head.getbuffer()
                    ):  # otherwise it is another pickle, which torch refuses
                        _check_depth(head)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns about files that are refused here
                return torch.load(file, map_location="cpu", weights_only=True)
        except FileRefused as error:
            raise FileRefused(f"{path} {error}") from error
        except Exception as error:  # a broken file can make an unpickler raise anything
            raise FileRefused(f"{path} {_why_refused(error)}") from error


def _why_refused(error: Exception) -> str:
    """Return what `error` means for the file. Torch's own message advises to run its code."""
    message = str(error)
    if isinstance(error, pickle.UnpicklingError) and (culprit := re.search(r"GLOBAL ([\w.]+)", message)):
        return (
            f"holds more than tensors ({culprit[1]:.80}), and loading it could run code, so it is refused; "
            "get a file with only weights from someone you trust"
        )
    return (
        f"is not an intact file of weights ({type(error).__name__}); it may be truncated or of another kind"
    )


def _check_zip(file: BinaryIO, checksums: bool) -> None:
    """Raise `FileRefused` if the archive is damaged or would unpack to far more than its size."""
    size = os.fstat(file.fileno()).st_size
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > size + MOST_COMPRESSED:
                raise FileRefused(
                    f"has {size:,} bytes and would unpack to {unpacked:,}; PyTorch stores tensors "
                    "uncompressed, so it did not write this file"
                )
            if checksums and (broken := archive.testzip()):
                raise FileRefused(f"is damaged: the checksum of {broken!r:.80} does not match")
            for member in members:
                if member.filename.lower().endswith("data.pkl"):
                    if member.file_size > MOST_PICKLE_BYTES:
                        raise FileRefused(f"has {member.file_size:,} bytes beside its tensors")
                    _check_depth(io.BytesIO(archive.read(member)))
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
        raise FileRefused(f"is not an intact file of weights ({error}); it may be truncated") from error


def _check_depth(stream: BinaryIO) -> None:
    """Raise `FileRefused` if the pickle at `stream` nests deeply. Reads it to its end and builds nothing.

    Raises ValueError and others if it is not a pickle.
    """
    stack: list[int | None] = []  # depth of the object that would be there; None for a mark
    memo: dict[int, int] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[int(argument) if argument is not None else len(memo)] = stack[-1] or 0
        elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        elif opcode.name == "MARK":
            stack.append(None)
        else:
            depth = 1 + max(_popped(opcode, stack), default=0)
            if depth > MOST_DEPTH:
                raise FileRefused(f"holds data nested more than {MOST_DEPTH} deep")
            stack += [depth if opcode.stack_before else 0 for _ in opcode.stack_after]


def _popped(opcode: pickletools.OpcodeInfo, stack: list[int | None]) -> list[int]:
    """Pop from `stack` what `opcode` pops: a fixed number, or everything after the last mark."""
    popped: list[int] = []
    kinds = [kind.name for kind in opcode.stack_before]
    if "mark" in kinds:
        while (depth := stack.pop()) is not None:
            popped.append(depth)
        kinds = kinds[: kinds.index("mark")]
    return popped + [stack.pop() or 0 for _ in kinds]
