"""Commands of pip in errors: what they name can be installed, and is what the extras require."""

import importlib.metadata
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from galip_runtime import install
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECTS = {"galip-runtime": ROOT / "runtime", "galip": ROOT}
EXTRAS = [
    (distribution, extra)
    for distribution, folder in PROJECTS.items()
    for extra in tomllib.loads((folder / "pyproject.toml").read_text())["project"]["optional-dependencies"]
]


def listed(distribution, extra):
    project = tomllib.loads((PROJECTS[distribution] / "pyproject.toml").read_text())["project"]
    return project["optional-dependencies"][extra]


@pytest.mark.parametrize(("distribution", "extra"), EXTRAS)
def test_an_extra_s_requirements_are_those_of_the_project(distribution, extra):
    found = {Requirement(text) for text in install.requirements(extra, distribution)}
    assert found == {Requirement(text) for text in listed(distribution, extra)}


def test_a_command_names_them_for_a_shell(monkeypatch):
    monkeypatch.setattr(install, "_pip", lambda: "pip")
    program, action, *packages = shlex.split(install.install_extra("trt-rtx"))
    assert (program, action) == ("pip", "install")
    assert {Requirement(package) for package in packages} == {
        Requirement(text) for text in listed("galip-runtime", "trt-rtx")
    }
    assert install.pip_install("a<2", option="--pre") == 'pip install --pre "a<2"'


def test_a_requirement_of_one_system_says_so():
    (package,) = install.requirements("directml")
    assert str(Requirement(package).marker) == 'sys_platform == "win32"'


def test_copied_into_an_app(monkeypatch):
    """Without metadata nobody knows what an extra requires: the text names the extra."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert install.requirements("gpu") == []
    text = install.install_extra("gpu")
    assert "[gpu]" in text
    assert "galip-runtime" in text
    assert "pip" not in text


@pytest.mark.parametrize("place", ["here", "elsewhere", "nowhere"])
def test_pip_is_this_python_s(monkeypatch, place):
    folder = Path(sys.executable).parent if place == "here" else Path("/elsewhere/bin")
    monkeypatch.setattr(
        install.shutil, "which", lambda _: None if place == "nowhere" else str(folder / "pip")
    )
    command = install.pip_install("x")
    if place == "here":
        assert command == 'pip install "x"'
    else:
        assert command == f'{sys.executable} -m pip install "x"'
