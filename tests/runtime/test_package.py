"""The runtime by itself: what importing it loads, what it requires, and a picture where nothing else is."""

import ast
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import PathDistribution, distribution
from pathlib import Path

import galip_runtime
import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

PROJECT = Path(__file__).parents[2] / "runtime"
ALLOWED = {"numpy", "regex", "ftfy", "onnxruntime", "openvino", "cuda", "PIL", "galip_runtime"}
EXTRAS = {
    "client": {"httpx"},
    "ray_cluster.py": {"ray"},
    "serve": {"fastapi", "prometheus_client", "pydantic", "starlette", "uvicorn"},
    "serve/ray_app.py": {"ray"},
    "sets/prompts.py": {"pyarrow"},
}
"""Packages of extras, by the module or folder of the runtime that may import them, too."""


def python(code, executable=sys.executable, **options):
    process = subprocess.run(
        [executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, **options
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_importing_the_runtime_imports_no_framework():
    """Not even numpy, until a name of the package is used: `--help` of a command comes at once."""
    code = """
import sys
import galip_runtime
heavy = {"torch", "onnx", "onnxruntime", "openvino", "numpy", "PIL"} & set(sys.modules)
galip_runtime.load, galip_runtime.Tokenizer
frameworks = {"torch", "onnx", "onnxruntime", "openvino", "PIL", "galip", "open_clip"} & set(sys.modules)
print(heavy, frameworks)
"""
    assert python(code).split() == ["set()", "set()"]


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_generating_a_picture_imports_neither_torch_nor_onnx(shared_bundle, device):
    code = f"""
import sys, galip_runtime
galip_runtime.load({str(shared_bundle)!r}, device={device!r}).generate("a red apple", 7)
print({{"torch", "onnx", "PIL", "galip"}} & set(sys.modules))
"""
    assert python(code).strip() == "set()"


def test_only_allowed_packages_are_imported():
    root = PROJECT / "galip_runtime"
    for path in root.rglob("*.py"):
        module = path.relative_to(root)
        places = [str(module), *map(str, module.parents)]
        allowed = ALLOWED.union(*(EXTRAS.get(place, set()) for place in places))
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.partition(".")[0]
                assert top in {*allowed, *sys.stdlib_module_names}, f"{module} imports {name}"


def test_every_module_has_a_docstring_and_exports():
    for path in (PROJECT / "galip_runtime").rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        exports = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        assert len(exports) == 1 or (path.name == "__init__.py" and len(tree.body) == 1), path
        for names in exports:
            assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name)), (
                path
            )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the project with the tools that are installed."""
    folder = tmp_path_factory.mktemp("wheel")
    call = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, PROJECT]
    process = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stdout + process.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_has_two_packages_and_three_requirements(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = f"galip_runtime-{galip_runtime.__version__}.dist-info"
        assert {name.partition("/")[0] for name in names} == {
            "galip_runtime",
            "galip_default_bundle",
            info,
        }
        assert "galip_runtime/py.typed" in names
        assert any(name.endswith("LICENSE") for name in names)
        metadata = archive.read(f"{info}/METADATA").decode()
    requirements = [
        line.removeprefix("Requires-Dist: ") for line in metadata.splitlines() if "Requires-Dist" in line
    ]
    without_extra = sorted(text.partition(">")[0] for text in requirements if "extra" not in text)
    assert without_extra == ["ftfy", "numpy", "regex"]
    assert not any(text.startswith(("torch", "onnx>", "onnx=", "onnx;")) for text in requirements)
    extras = {text.split("extra == ")[1].strip("'\"") for text in requirements if "extra" in text}
    assert {"cpu", "gpu", "openvino", "image"} <= extras


def dependencies(requirements, extras=("",)):
    """Yield the installed distributions that meet `requirements`, and their own dependencies."""
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        installed = distribution(requirement.name)
        assert installed.version in requirement.specifier, requirement
        yield installed
        yield from dependencies(installed.requires or [], tuple(requirement.extras) or ("",))


@pytest.fixture(params=["cpu", "openvino-native"])
def fresh_python(request, wheel, tmp_path, monkeypatch):
    """The Python of a new environment with the wheel and the requirements of two of its extras.

    Nothing is downloaded: the files of this environment's distributions are linked, or copied.
    """
    monkeypatch.delenv("PYTHONPATH", raising=False)
    venv.create(tmp_path / "env", with_pip=False)
    executable = next(path for path in (tmp_path / "env").glob("[bS][ic]*/python*"))
    site = Path(python("import sysconfig; print(sysconfig.get_path('purelib'))", executable).strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    metadata = next(site.glob("galip_runtime-*.dist-info"))
    requirements = PathDistribution(metadata).requires
    distributions = dependencies(requirements, ("", request.param, "image"))
    for installed in {one.name: one for one in distributions}.values():
        for file in installed.files:
            if ".." in file.parts:  # a script
                continue
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file.locate(), site / file)
            except OSError:
                shutil.copy(file.locate(), site / file)
    return executable


def test_a_picture_in_an_environment_of_the_runtime_alone(fresh_python, shared_bundle, tmp_path, model):
    """The wheel, onnxruntime or OpenVINO, Pillow and their dependencies are enough for the same picture."""
    absent = "import importlib.util as u; print([n for n in ('torch', 'onnx', 'galip') if u.find_spec(n)])"
    assert python(absent, fresh_python, cwd=tmp_path).strip() == "[]"
    prompt = ["a red apple", "-o", "apple.png", "--seed", "7", "--json"]
    call = [fresh_python, "-m", "galip_runtime", shared_bundle, *prompt]
    process = subprocess.run(call, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["seeds"] == [7]
    picture = np.asarray(Image.open(tmp_path / "apple.png")).astype(int)
    assert np.abs(picture - model.generate("a red apple", 7)[0]).max() <= 1
    call = [fresh_python, "-m", "galip_runtime", "a car, flat style", "-o", "car.png"]
    process = subprocess.run(call, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert Image.open(tmp_path / "car.png").size == (128, 128)
