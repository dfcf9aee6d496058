"""The runtime alone: what importing it costs, what it needs, and that it works where nothing else is."""

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


def python(code, executable=sys.executable, **options):
    done = subprocess.run(
        [executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_is_cheap_and_brings_no_framework():
    code = """
import sys, time
before = time.process_time()
import galip_runtime
seconds = time.process_time() - before
heavy = {"torch", "onnx", "onnxruntime", "openvino", "numpy", "PIL"} & set(sys.modules)
galip_runtime.load, galip_runtime.Tokenizer
frameworks = {"torch", "onnx", "onnxruntime", "openvino", "PIL", "galip", "open_clip"} & set(sys.modules)
print(seconds, heavy, frameworks)
"""
    seconds, *found = python(code).split()
    assert float(seconds) < 0.1
    assert found == ["set()", "set()"]


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_running_it_brings_neither_torch_nor_onnx(shared_bundle, device):
    code = f"""
import sys, galip_runtime
galip_runtime.load({str(shared_bundle)!r}, device={device!r}).generate("a red apple", 7)
print({{"torch", "onnx", "PIL", "galip"}} & set(sys.modules))
"""
    assert python(code).strip() == "set()"


def test_it_imports_only_what_it_may():
    for path in (PROJECT / "galip_runtime").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.partition(".")[0]
                assert top in ALLOWED | sys.stdlib_module_names, f"{path.name} imports {name}"


def test_every_module_says_what_it_exports():
    for path in (PROJECT / "galip_runtime").glob("*.py"):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        (names,) = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name)), path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the project with the tools that are installed."""
    folder = tmp_path_factory.mktemp("wheel")
    call = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, PROJECT]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_has_one_package_and_needs_three(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = f"galip_runtime-{galip_runtime.__version__}.dist-info"
        assert {name.partition("/")[0] for name in names} == {"galip_runtime", info}
        assert "galip_runtime/py.typed" in names
        assert any(name.endswith("LICENSE") for name in names)
        metadata = archive.read(f"{info}/METADATA").decode()
    needs = [
        line.removeprefix("Requires-Dist: ") for line in metadata.splitlines() if "Requires-Dist" in line
    ]
    assert sorted(need.partition(">")[0] for need in needs if "extra" not in need) == [
        "ftfy",
        "numpy",
        "regex",
    ]
    assert not any(need.startswith(("torch", "onnx>", "onnx=", "onnx;")) for need in needs)
    extras = {need.split("extra == ")[1].strip("'\"") for need in needs if "extra" in need}
    assert {"cpu", "gpu", "openvino", "image"} <= extras


def needed(requirements, extras=("",)):
    """Installed distributions that `requirements` ask for, and all that those ask for in turn."""
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        found = distribution(requirement.name)
        assert found.version in requirement.specifier, requirement
        yield found
        yield from needed(found.requires or [], tuple(requirement.extras) or ("",))


@pytest.fixture(params=["cpu", "openvino-native"])
def fresh_python(request, wheel, tmp_path):
    """A new environment with the wheel and what two of its extras declare, taken from this environment.

    Nothing is downloaded: the files of the distributions are linked, or copied from another file system.
    """
    venv.create(tmp_path / "env", with_pip=False)
    executable = next(path for path in (tmp_path / "env").glob("[bS][ic]*/python*"))
    site = Path(python("import sysconfig; print(sysconfig.get_path('purelib'))", executable).strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    metadata = next(site.glob("galip_runtime-*.dist-info"))
    requirements = PathDistribution(metadata).requires
    for found in {each.name: each for each in needed(requirements, ("", request.param, "image"))}.values():
        for file in found.files:
            if ".." in file.parts:  # a script
                continue
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file.locate(), site / file)
            except OSError:
                shutil.copy(file.locate(), site / file)
    return executable


def test_a_picture_where_there_is_only_the_runtime(fresh_python, shared_bundle, tmp_path, model):
    """The wheel, onnxruntime or OpenVINO, Pillow and what they declare are enough for the same picture."""
    absent = "import importlib.util as u; print([n for n in ('torch', 'onnx', 'galip') if u.find_spec(n)])"
    assert python(absent, fresh_python, cwd=tmp_path).strip() == "[]"
    prompt = ["a red apple", "-o", "apple.png", "--seed", "7", "--json"]
    call = [fresh_python, "-m", "galip_runtime", shared_bundle, *prompt]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["seeds"] == [7]
    picture = np.asarray(Image.open(tmp_path / "apple.png")).astype(int)
    assert np.abs(picture - model.generate("a red apple", 7)[0]).max() <= 1
