"""`check_kernels`, the C++ program that compares the library with its reference: with sanitizers, on NEON.

It is built in build/kernels, from which a second run takes what is unchanged. `make test-neon` installs what
the test on NEON needs.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # half a minute to build

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "runtime" / "kernels"
HIGHWAY = Path("/usr/include/hwy")
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"


def run(*command, **options):
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=500, check=False, **options
    )


def build(name, *tools, **definitions):
    """Build the program, skipping the test where something is missing."""
    if missing := [tool for tool in ("cmake", *tools) if not shutil.which(tool)]:
        pytest.skip(f"the kernels are NOT TESTED here: install {' '.join(missing)} (Debian's names)")
    if not HIGHWAY.is_dir():
        pytest.skip("the kernels are NOT TESTED here: install libhwy-dev")
    folder = ROOT / "build" / "kernels" / name
    given = [f"-D{key}={value}" for key, value in {"GALIP_KERNELS_CHECK": "ON", **definitions}.items()]
    for command in (("cmake", "-S", KERNELS, "-B", folder, *given), ("cmake", "--build", folder)):
        result = run(*command)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "warning:" not in result.stdout + result.stderr, result.stdout + result.stderr
    return folder / "check_kernels"


def test_random_blocks_with_sanitizers():
    """Reading past an array, undefined behaviour and leaks end the program."""
    program = build(
        "sanitized",
        "g++",
        CMAKE_CXX_FLAGS=SANITIZERS,
        CMAKE_CXX_FLAGS_RELEASE="-O1",
        CMAKE_CXX_COMPILER="g++",
    )
    result = run(program, 4)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr
    assert " 0 cases" not in result.stdout


def test_random_blocks_on_neon():
    compiler = "aarch64-linux-gnu-g++"
    folder = ROOT / "build" / "kernels" / "highway"  # /usr/include itself has another CPU's headers
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "hwy").exists():
        (folder / "hwy").symlink_to(HIGHWAY)
    program = build(
        "neon",
        compiler,
        "qemu-aarch64",
        CMAKE_SYSTEM_NAME="Linux",
        CMAKE_SYSTEM_PROCESSOR="aarch64",
        CMAKE_CXX_COMPILER=compiler,
        HIGHWAY_INCLUDE=folder,
    )
    result = run("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", program, 8)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr
    assert result.stdout.splitlines()[-1].startswith("NEON: ")
