"""Commands of pip, for errors and `galip doctor`.

They name what an extra requires rather than the extra: that can be installed from an index, wherever galip
itself came from, a clone or a wheel.
"""

import importlib.metadata
import re
import shutil
import sys
from pathlib import Path

__all__ = ["install_extra", "pip_install", "requirements"]

_OF_EXTRA = re.compile(r"""(.+?)\s*;\s*(?:(.+) and )?extra == ['"](.+)['"]""")
"""a requirement, other markers, and the extra that it belongs to"""


def install_extra(extra: str, distribution: str = "galip-runtime", *, option: str = "") -> str:
    """Return the command that installs what `extra` of the distribution requires.

    Where the distribution is not installed but copied into an app, it says where the requirements are listed.
    `option` is one of `pip install`.
    """
    packages = requirements(extra, distribution)
    if not packages:
        return f"install what the pyproject.toml of {distribution} lists for its extra [{extra}]"
    return pip_install(*packages, option=option)


def requirements(extra: str, distribution: str = "galip-runtime") -> list[str]:
    """Return what `extra` of the installed distribution requires, for pip; none where it is not installed."""
    try:
        listed = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    matches = [match for entry in listed if (match := _OF_EXTRA.fullmatch(entry)) and match[3] == extra]
    return [
        f"{name}; {marker.strip('()')}" if marker else name
        for name, marker, _ in map(re.Match.groups, matches)
    ]


def pip_install(*packages: str, option: str = "") -> str:
    """Return the command that installs `packages`, which are requirements, quoted as any shell takes it."""
    return " ".join([_pip(), "install", *filter(None, [option]), *(f'"{package}"' for package in packages)])


def _pip() -> str:
    """Return pip's command: `pip` alone if that is this Python's, as in an activated environment."""
    pip, python = shutil.which("pip"), sys.executable
    if not python or (pip and Path(pip).parent == Path(python).parent):
        return "pip"
    return f'"{python}" -m pip' if " " in python else f"{python} -m pip"
