"""The wheels: their content, their requirements, and the top-level names they take."""

import ctypes
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "open-clip-torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "safetensors"}

FUNCTIONS = {
    *("galip_kernels_abi", "galip_kernels_target"),
    *(f"galip_blocks_{name}" for name in ("open", "run", "memory", "algorithms", "close")),
}


class Wheel:
    """A wheel's file names, metadata and requirements."""

    def __init__(self, path):
        self.path = path
        with zipfile.ZipFile(path) as archive:
            self.names = set(archive.namelist())
            (self.info,) = {name.split("/")[0] for name in self.names if ".dist-info/" in name}
            self.metadata = Parser().parsestr(archive.read(f"{self.info}/METADATA").decode())
            wheel = Parser().parsestr(archive.read(f"{self.info}/WHEEL").decode())
            self.tags = wheel.get_all("Tag")
            entry_points = f"{self.info}/entry_points.txt"
            self.entry_points = archive.read(entry_points).decode() if entry_points in self.names else ""
        self.top_level = {name.split("/")[0] for name in self.names} - {self.info}
        self.requirements = [Requirement(text) for text in self.metadata.get_all("Requires-Dist", [])]

    def extract(self, name):
        """Write the file `name` beside the wheel, and return its path."""
        with zipfile.ZipFile(self.path) as archive:
            return Path(archive.extract(name, self.path.parent))

    def needs(self, extra=None):
        """Return the names of the required distributions; with an extra, those that it adds."""
        always = {canonicalize_name(entry.name) for entry in self.requirements if entry.marker is None}
        if extra is None:
            return always
        return {
            canonicalize_name(entry.name)
            for entry in self.requirements
            if entry.marker and entry.marker.evaluate({"extra": extra})
        }


def build(project, folder):
    """Build the wheel from the source distribution, as pip does where it has only that."""
    command = [sys.executable, "-P", "-m", "build", "--no-isolation", "--outdir", folder, project]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    (path,) = folder.glob("*.whl")
    return Wheel(path)


@pytest.fixture(scope="module")
def galip(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("galip"))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return build(ROOT / "runtime", tmp_path_factory.mktemp("runtime"))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """The wheel of galip-kernels, where it can be built."""
    headers = Path("/usr/include/hwy/highway.h")
    if not (shutil.which("c++") and shutil.which("cmake") and headers.is_file()):
        pytest.skip("galip-kernels is NOT TESTED here: install g++, cmake and libhwy-dev (Debian's names)")
    if not importlib.util.find_spec("scikit_build_core"):
        pytest.skip("galip-kernels is NOT TESTED here: install scikit-build-core")
    return build(ROOT / "runtime" / "kernels", tmp_path_factory.mktemp("kernels"))


def test_the_wheel_of_the_kernels(kernels):
    assert kernels.top_level == {"galip_kernels"}
    library = {"win32": "galip_kernels.dll", "darwin": "libgalip_kernels.dylib"}.get(
        sys.platform, "libgalip_kernels.so"
    )
    files = {"__init__.py", "galip_kernels.h", library, "py.typed"}
    assert {name for name in kernels.names if name.startswith("galip_kernels/")} == {
        f"galip_kernels/{name}" for name in files
    }
    assert {f"{kernels.info}/licenses/{name}" for name in ("LICENSE", "NOTICE")} <= kernels.names
    assert not kernels.requirements
    (tag,) = kernels.tags
    assert tag.startswith("py3-none-")
    assert tag != "py3-none-any"


def test_the_library_needs_no_other_than_the_c_library(kernels):
    """It runs on other distributions of Linux, and shows nothing but its interface."""
    if sys.platform != "linux" or not shutil.which("readelf"):
        pytest.skip("it takes readelf, on Linux")
    library = kernels.extract("galip_kernels/libgalip_kernels.so")
    dynamic = subprocess.run(["readelf", "-dW", library], capture_output=True, text=True, check=True).stdout
    needed = {line.split("[")[1].split("]")[0] for line in dynamic.splitlines() if "(NEEDED)" in line}
    assert {name.split(".")[0] for name in needed} <= {"libc", "libm", "libpthread", "ld-linux-x86-64"}
    symbols = subprocess.run(
        ["readelf", "--dyn-syms", "-W", library], capture_output=True, text=True, check=True
    ).stdout
    exported = {
        line.split()[-1] for line in symbols.splitlines() if " GLOBAL " in line and " UND " not in line
    }
    assert exported == FUNCTIONS
    loaded = ctypes.CDLL(str(library))
    assert loaded.galip_kernels_abi() == 1


def test_top_level_names(galip, runtime):
    """Nothing is called `export`, `runtime`, `benchmarks` or `tests` once installed."""
    assert galip.top_level == {"galip", "galip_export", "galip_bench"}
    assert runtime.top_level == {"galip_runtime", "galip_default_bundle"}


def test_the_runtime_needs_neither_torch_nor_onnx(runtime):
    assert runtime.needs() == {"numpy", "regex", "ftfy"}
    assert not HEAVY & runtime.needs()
    assert runtime.needs("cpu") == {"onnxruntime"}
    assert runtime.needs("gpu") == {"onnxruntime-gpu", "cuda-bindings"}
    assert runtime.needs("openvino") == {"onnxruntime-openvino"}
    assert runtime.needs("openvino-native") == {"openvino"}
    assert runtime.needs("trt") == {"tensorrt", "cuda-bindings"}
    assert runtime.needs("client") == {"httpx", "pillow"}
    assert runtime.needs("parquet") == {"pyarrow"}
    libraries = {"tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs"}
    assert runtime.needs("trt-rtx") == {*libraries, "cuda-bindings"}
    assert runtime.needs("ray") == {"ray"}
    assert runtime.needs("kernels") == {"galip-kernels"}


def test_galip_needs_the_runtime_and_no_onnxruntime_of_its_own_choice(galip):
    """Builds of onnxruntime exclude one another: only extras require one, through the runtime's extras."""
    assert galip.needs() >= {"galip-runtime", "torch", "open-clip-torch", "onnx", "safetensors", "typer"}
    for extra in (None, *galip.metadata.get_all("Provides-Extra")):
        assert not any(name.startswith("onnxruntime") for name in galip.needs(extra)), extra
    for extra in ("cpu", "gpu", "openvino", "openvino-native", "trt", "trt-rtx", "parquet", "ray", "kernels"):
        added = [
            entry for entry in galip.requirements if entry.marker and entry.marker.evaluate({"extra": extra})
        ]
        assert [entry.extras for entry in added if entry.name == "galip-runtime"] == [{extra}]
    assert galip.needs("gpu") == {"galip-runtime", "nvidia-ml-py"}


def test_the_command(galip, runtime):
    assert "galip = galip.cli:main" in galip.entry_points
    assert not runtime.entry_points


@pytest.mark.parametrize("which", ["galip", "runtime"])
def test_licence_and_version(which, request):
    wheel = request.getfixturevalue(which)
    assert any(name.endswith("LICENSE") for name in wheel.names)
    assert wheel.metadata["License-Expression"] == "MIT"
    assert wheel.metadata["Requires-Python"] == ">=3.11"
    assert wheel.metadata["Version"] == "0.1.0"


def tracked_files(*folders):
    listed = subprocess.run(
        ["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return set(listed.stdout.split())


def test_every_file_of_the_packages_is_there(galip, runtime):
    """Modules, data files and the shipped model alike."""
    assert {name for name in galip.names if name.startswith("galip/")} >= tracked_files("galip")
    exported = {name.removeprefix("export/") for name in tracked_files("export/galip_export")}
    assert galip.names >= exported
    inside = {name.removeprefix("runtime/") for name in tracked_files("runtime/galip_runtime")}
    assert runtime.names >= inside
    bundle = {
        name.removeprefix("runtime/default_bundle/") for name in tracked_files("runtime/default_bundle")
    }
    assert {name for name in runtime.names if name.startswith("galip_default_bundle/")} == bundle


def test_the_shipped_model_is_in_the_wheel(galip):
    assets = [path for path in (ROOT / "galip" / "assets").iterdir() if path.suffix == ".safetensors"]
    assert assets
    assert {f"galip/assets/{path.name}" for path in assets} <= galip.names
    size = sum(path.stat().st_size for path in (ROOT / "galip" / "assets").rglob("*") if path.is_file())
    assert size < 40 * 2**20


def test_the_workshop_is_in_no_wheel(galip, runtime):
    """Recipes and studies, pictures and logs stay in the repository."""
    for name in galip.names | runtime.names:
        assert not name.startswith(("icons/", "studies/", "recipes/")), name
        assert not name.endswith((".png", ".jsonl")), name


def test_no_caches_or_data_slip_in(galip, runtime):
    for name in galip.names | runtime.names:
        assert not name.endswith((".pyc", ".tar", ".pth", ".pt")), name
        assert "__pycache__" not in name
