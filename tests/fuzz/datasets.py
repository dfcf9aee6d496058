"""Damaged and hostile data sets and statistics are refused, or their broken pictures are counted."""

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.fixtures import galip
from fuzz.harness import Trial, out_of_memory
from fuzz.mutation import altered, as_json, change_file, mutated, odd_text, odd_value, pick
from galip_runtime import GalipError
from train.layout_fixtures import WRITERS

SECONDS, MEGABYTES = 20, 500

Rng = np.random.Generator


def start(home: Path) -> Trial:
    for name, write in WRITERS.items():
        if not (home / name).exists():
            write(home / name)
    sets = {
        name: sorted(path.relative_to(home / name) for path in (home / name).rglob("*") if path.is_file())
        for name in WRITERS
    }

    def folder_of_pictures(rng: Rng, folder: Path) -> str:
        name = str(pick(rng, sets))
        copy = Path(shutil.copytree(home / name, folder / "data"))
        for _ in range(pick(rng, (1, 1, 2, 5))):
            path = copy / pick(rng, _uncommon(sets[name], rng))
            if path.is_file() and path.stat().st_size < 2**30:
                change_file(path, rng, _change_of(path, rng))
        options = [["--no-decode"], [], ["--sheet", str(folder / "sheet.png")]][int(rng.integers(3))]
        split = [["--split", pick(rng, ("train", "val", "test"))], []][int(rng.integers(2))]
        code, output = galip("data", "check", copy, "--json", *options, *split)
        if code not in (0, 3):
            return f"{name}: exit code {code}"
        report = json.loads(output)
        assert 0 <= report["broken"] <= report["pictures"], report
        return f"{name}: {'broken counted' if report['broken'] else 'whole'}"

    def statistics(rng: Rng, folder: Path) -> str:
        from galip.metrics.distances import frechet_distance
        from galip.metrics.statistics import Statistics

        path = folder / "statistics.npz"
        path.write_bytes(_statistics(rng))
        if rng.random() < 0.5:
            change_file(path, rng)
        try:
            loaded = Statistics.load(path)
            own = Statistics.of(np.random.default_rng(0).standard_normal((50, len(loaded.mean))))
            distance = frechet_distance(loaded, own)
        except GalipError as error:
            if out_of_memory(error):
                raise MemoryError("the trial reached its limit") from error
            return f"statistics: {type(error).__name__}"
        assert np.isfinite(distance), distance
        assert distance > -1e-6 * (1 + abs(np.trace(loaded.covariance))), distance
        return "statistics: a distance"

    def trial(rng: Rng, folder: Path) -> str:
        return (statistics if rng.random() < 0.15 else folder_of_pictures)(rng, folder)

    return trial


def _uncommon(paths: list[Path], rng: Rng) -> list[Path]:
    """Return the paths of one random suffix, so that the few lists are hit as often as the many pictures."""
    ending = pick(rng, sorted({path.suffix for path in paths}))
    return [path for path in paths if path.suffix == ending]


def _change_of(path: Path, rng: Rng) -> Any:
    """Return a change that suits the file's format, or any."""
    own = {".json": _json, ".jsonl": _lines, ".txt": _text, ".tar": _tar, ".pickle": _pickle}
    return own.get(path.suffix, mutated) if rng.random() < 0.7 else mutated


def _json(data: bytes, rng: Rng) -> bytes:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):  # an earlier change broke it
        return mutated(data, rng)
    for _ in range(pick(rng, (1, 1, 3))):
        document = altered(document, rng)
    return as_json(document)


def _lines(data: bytes, rng: Rng) -> bytes:
    lines = data.splitlines()
    if not lines:
        return as_json(odd_value(rng))
    place = int(rng.integers(len(lines)))
    lines[place] = _json(lines[place], rng)
    return b"\n".join(lines)


def _text(data: bytes, rng: Rng) -> bytes:
    lines = data.decode("utf-8", "replace").splitlines() or [""]
    place = int(rng.integers(len(lines)))
    words = lines[place].split(" ")
    words[int(rng.integers(len(words)))] = odd_text(rng)
    lines[place] = " ".join(words) if rng.random() < 0.7 else odd_text(rng)
    ends = pick(rng, ("\n", "\n", "\r\n", "\r"))
    encoding = pick(rng, ("utf-8", "utf-8", "utf-8-sig", "utf-16"))
    return str(ends).join(lines).encode(encoding, "surrogatepass")


_TAR_FIELDS = {"name": (0, 100), "mode": (100, 8), "size": (124, 12), "time": (136, 12), "kind": (156, 1),
               "link": (157, 100), "magic": (257, 8), "prefix": (345, 155)}  # fmt: skip


def _tar(data: bytes, rng: Rng) -> bytes:
    """Change a member's header and fix its checksum."""
    changed = bytearray(data)
    heads = [place for place in range(0, len(data) - 511, 512) if data[place + 257 : place + 262] == b"ustar"]
    if not heads:
        return mutated(data, rng)
    for _ in range(pick(rng, (1, 1, 3))):
        place = pick(rng, heads)
        begin, length = _TAR_FIELDS[pick(rng, _TAR_FIELDS)]
        values = (
            b"%011o\0" % int(pick(rng, (0, 1, 10**9, 8**11 - 1))), b"\x80" + (2**80).to_bytes(11, "big"),
            b"\xff" * 12, b"-1", b"x" * 155, b"../../a.png", b"/etc/passwd",
            b"LKxgSVDM0123456Z"[int(rng.integers(16)) :][:1],
            odd_text(rng).encode("utf-8", "surrogatepass"), rng.bytes(length), b"",
        )  # fmt: skip
        value = pick(rng, values)[:length]
        changed[place + begin : place + begin + length] = value.ljust(length, b"\0")
        changed[place + 148 : place + 156] = b" " * 8
        changed[place + 148 : place + 156] = b"%06o\0 " % sum(changed[place : place + 512])
        if rng.random() < 0.3:  # what an extended header says
            records = (
                b"99999999999999999999 size=1\n",
                b"12 size=-10\n",
                b"22 GNU.sparse.major=1\n",
                b"9 a=bcde\n",
            )
            changed[place + 512 : place + 512] = (pick(rng, records) * 3)[:512].ljust(512, b"\0")
    return bytes(changed)


def _pickle(data: bytes, rng: Rng) -> bytes:
    try:
        keys = pickle.loads(data)
    except Exception:  # changed before
        return mutated(data, rng)
    odd = (odd_text(rng), 3, None, b"\xff", ["a"], {"a": 1}, 1.5, print, "../" * 20 + "etc/passwd")
    keys = list(keys) if isinstance(keys, list | tuple) else []
    place = int(rng.integers(len(keys) + 1))
    keys[place : place + 1] = [pick(rng, odd)]
    return pickle.dumps(
        pick(rng, (keys, keys, keys, {"keys": keys}, None, tuple(keys))), protocol=pick(rng, (0, 2, 4))
    )


def _statistics(rng: Rng) -> bytes:
    """FID statistics with odd numbers, types, shapes and counts."""
    width = int(pick(rng, (0, 1, 2, 5)))
    root = rng.standard_normal((width, width))
    arrays: dict[str, Any] = {
        "mu": rng.standard_normal(width),
        "sigma": root @ root.T,
        "count": np.array(100),
    }
    if rng.random() < 0.8:
        name = pick(rng, arrays)
        array = arrays[name]
        numbers = (np.nan, np.inf, 1e308, -1e308, -1.0, 0.0, 1e-320, 2.0**70)
        with np.errstate(all="ignore"):
            odd = (
                array.astype(np.complex128) + 1j, array.astype(np.int8), array.astype(str),
                array.astype(object), np.full_like(array, pick(rng, numbers), dtype=np.float64), -array,
                array[..., None], array.ravel()[:1],
                np.zeros((0, 0)), np.array(odd_text(rng)), np.array(True), array.astype(np.float16),
                np.zeros((2, 2), dtype=[("a", "f4")]),
            )  # fmt: skip
        arrays[name] = pick(rng, odd)
    file = io.BytesIO()
    np.savez(file, **arrays)
    data = file.getvalue()
    return _bomb(data, rng) if rng.random() < 0.2 else data


def _bomb(data: bytes, rng: Rng) -> bytes:
    """Add arrays that claim to be larger than they are, or that unpack to more than the file."""
    size = int(pick(rng, (10**5, 10**6, 2**40)))
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d, %d), }" % (size, pick(rng, (1, size)))
    header = header.ljust(118) + b"\n"
    array = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name == "sigma.npy":
                with new.open(name, "w") as member:
                    member.write(array)
                    for _ in range(pick(rng, (0, 1, 1500))):
                        member.write(bytes(2**20))
            else:
                new.writestr(name, old.read(name))
    return file.getvalue()
