"""From nothing to a picture, with the commands of the README and of the errors as they are written."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from PIL import Image
from test_docs import BLOCK

ROOT = Path(__file__).parents[1]
COMMAND = re.compile(r'\S+ (?:-m pip )?install(?: "[^"]+")+')
PROMPT = "a car, flat style"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="the commands are for sh")]


class Environment:
    """A new environment of Python and pip alone, and a folder to work in."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder / "work"
        self.folder.mkdir()
        self.bin = folder / "env" / "bin"
        venv.create(folder / "env", with_pip=True)
        monkeypatch.delenv("PYTHONPATH", raising=False)
        self.is_active = {**os.environ, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}

    def sh(self, command, folder=None):
        """Run a command line in this environment, activated; return its exit code, stdout and stderr."""
        process = subprocess.run(
            command,
            shell=True,
            cwd=folder or self.folder,
            env=self.is_active,
            capture_output=True,
            text=True,
            timeout=600,
        )
        return process.returncode, process.stdout, process.stderr

    def succeed(self, command, folder=None):
        code, out, err = self.sh(command, folder)
        assert code == 0, f"{command}\n{out}{err}"


@pytest.fixture
def environment(tmp_path, monkeypatch):
    new = Environment(tmp_path, monkeypatch)
    code, _, err = new.sh("pip download --no-deps --dest packages ftfy")
    if code != 0:
        pytest.skip(f"pip finds no packages here: {err.strip().splitlines()[-1]}")
    return new


def commands_of(file):
    """Return the command lines of the first block of commands in a page, without comments."""
    block = next(block for language, block in BLOCK.findall(file.read_text()) if language == "sh")
    return [line.partition(" #")[0].strip() for line in block.splitlines()]


def check_picture(path):
    picture = Image.open(path)
    assert picture.size == (128, 128)
    assert picture.text["prompt"] == PROMPT


def test_the_readme_s_first_two_commands(environment):
    install, draw = commands_of(ROOT / "README.md")
    environment.succeed(install, ROOT)
    environment.succeed(draw)
    check_picture(environment.folder / "car.png")


@pytest.mark.long
def test_the_wheel_and_what_the_errors_say(environment):
    """Without extras each error has the command that installs what is missing."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", environment.folder]
    subprocess.run([*build, ROOT / "runtime"], check=True, capture_output=True)
    _, install, draw, _ = commands_of(ROOT / "runtime" / "README.md")
    environment.succeed(f"{install} --dry-run")
    (wheel,) = environment.folder.glob("*.whl")
    environment.succeed(f"pip install ./{wheel.name}")
    for expected in (2, 5):  # Pillow, then onnxruntime
        code, _, err = environment.sh(draw)
        assert code == expected, err
        environment.succeed(COMMAND.search(err)[0])
    environment.succeed(draw)
    check_picture(environment.folder / "car.png")
