"""A typo in a path, a tag or an option is found before PyTorch is imported, which takes seconds."""

import json
import subprocess
import sys

import pytest
import torch
from galip_runtime.errors import UsageError

from galip.early_checks import check_run

SCRIPT = """
import contextlib, io, json, sys
from galip.cli import main

results = []
for line in json.loads(sys.argv[1]):
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        try:
            main(line)
        except SystemExit as done:
            code = done.code
    results.append([code, err.getvalue(), [name for name in ("torch", "open_clip") if name in sys.modules]])
print(json.dumps(results))
"""

TRAIN = ["train", "--out", "run", "--model", "tiny"]
MISTAKES = [
    (4, "nope.pth", ["convert", "nope.pth", "--clip", "clip.pt", "--out", "o.safetensors"]),
    (4, "page.pth", ["convert", "page.pth", "--clip", "clip.pt", "--out", "o.safetensors"]),
    (4, "nope.pt", ["convert", "clip.pt", "--clip", "nope.pt", "--out", "o.safetensors"]),
    (4, "page.pth", ["convert", "clip.pt", "--clip", "page.pth", "--out", "o.safetensors"]),
    (2, "opnai", ["convert", "clip.pt", "--clip", "opnai", "--out", "o.safetensors"]),
    (2, "ViT-B-23", ["convert", "clip.pt", "--clip", "ViT-B-23:openai", "--out", "o.safetensors"]),
    (2, "--clip", ["convert", "clip.pt", "--out", "o.safetensors"]),
    (4, "nope.pt", [*TRAIN, "--data", "photos", "--clip", "nope.pt"]),
    (4, "photos", [*TRAIN, "--data", "photos", "--clip", "photos"]),
    (2, "opnai", [*TRAIN, "--data", "photos", "--clip", "opnai"]),
    (2, "nope", [*TRAIN, "--data", "nope", "--clip", "tiny.safetensors"]),
    (2, "'coc'", [*TRAIN, "--data", "photos", "--clip", "tiny.safetensors", "--layout", "coc"]),
    (2, "tiny.safetensors", ["train", "--data", "photos", "--clip", "tiny.safetensors", "--out", "run"]),
    (4, "nope.st", [*TRAIN, "--data", "photos", "--clip", "tiny.safetensors", "--init", "nope.st"]),
    (2, "huge", ["train", "--data", "photos", "--clip", "clip.pt", "--out", "run", "--model", "huge"]),
    (2, "other", [*TRAIN, "--data", "photos", "--clip", "tiny.safetensors", "--evaluate-every", "1",
                  "--evaluate-against", "other"]),
    (2, "run holds no run", [*TRAIN, "--data", "photos", "--clip", "tiny.safetensors", "--resume"]),
    (2, "nope", ["train-clip", "--data", "nope", "--out", "run"]),
    (2, "'coc'", ["train-clip", "--data", "photos", "--out", "run", "--layout", "coc"]),
    (2, "empty", ["train-clip", "--data", "empty", "--out", "run"]),
    (2, "huge", ["train-clip", "--data", "photos", "--out", "run", "--model", "huge"]),
    (4, "nope", ["evaluate", "nope", "--against", "photos"]),
    (4, "page.pth", ["evaluate", "page.pth", "--against", "photos"]),
    (2, "nope", ["evaluate", "photos", "--against", "nope"]),
    (4, "nope.npz", ["evaluate", "photos", "--against", "nope.npz"]),
    (2, "'coc'", ["evaluate", "photos", "--against", "photos", "--layout", "coc"]),
    (2, "opnai", ["evaluate", "photos", "--against", "photos", "--clip", "opnai"]),
    (2, "fdi", ["evaluate", "photos", "--against", "photos", "--metrics", "fdi"]),
    (2, "cleen", ["evaluate", "photos", "--against", "photos", "--protocol", "cleen"]),
    (2, "nope.txt", ["evaluate", "tiny.safetensors", "--against", "photos", "--captions", "nope.txt"]),
    (4, "nope.pt", ["evaluate", "photos", "--against", "photos", "--inception", "nope.pt"]),
    (2, "cudda", ["evaluate", "tiny.safetensors", "--against", "photos", "--device", "cudda"]),
    (4, "nope", ["export", "nope", "--out", "b"]),
    (4, "page.pth", ["export", "page.pth", "--out", "b"]),
    (2, "fp17", ["export", "tiny.safetensors", "--precision", "fp17", "--out", "b"]),
    (2, "exat", ["export", "tiny.safetensors", "--rewrites", "exat", "--out", "b"]),
    (4, "nope", ["generate", "x", "--bundle", "nope", "--out", "x.png"]),
    (4, "nope", ["generate", "x", "--model", "nope", "--out", "x.png"]),
    (2, "fp61", ["generate", "x", "--model", "tiny.safetensors", "--precision", "fp61", "--out", "x.png"]),
    (4, "nope", ["interpolate", "a", "b", "--model", "nope", "--out", "x.png"]),
    (4, "nope", ["sample-grid", "a", "--model", "nope", "--out", "x.png"]),
    (2, "nope", ["data", "check", "nope"]),
    (2, "'coc'", ["data", "check", "photos", "--layout", "coc"]),
    (4, "nope", ["info", "nope"]),
    (0, "", ["info", "tiny.safetensors"]),
    (4, "nope", ["bench", "--bundle", "nope"]),
    (4, "nope", ["bench", "--plain-bundle", "nope"]),
    (2, "nope", ["bench", "--model", "nope"]),
    (2, "nope", ["bench", "--fid", "100", "--against", "nope"]),
    (2, "nope.txt", ["bench", "--fid", "100", "--captions", "nope.txt"]),
    (4, "nope.pt", ["bench", "--inception", "nope.pt"]),
]  # fmt: skip
"""Exit code, what stderr names, and the command line."""


@pytest.fixture(scope="module")
def outcomes(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("typos")
    (folder / "photos").mkdir()
    (folder / "empty").mkdir()
    (folder / "photos" / "a.txt").write_text("a bird")
    (folder / "photos" / "a.png").write_bytes(b"")
    (folder / "page.pth").write_text("<html>404</html>")
    torch.save({"visual.proj": torch.ones(2)}, folder / "clip.pt")
    (folder / "tiny.safetensors").write_bytes(tiny_checkpoint.read_bytes())
    before = sorted(folder.rglob("*"))
    lines = json.dumps([line for _, _, line in MISTAKES])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, lines], cwd=folder, capture_output=True, text=True, check=True
    )
    assert sorted(folder.rglob("*")) == before
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("index", range(len(MISTAKES)), ids=lambda index: " ".join(MISTAKES[index][2])[:60])
def test_a_typo_does_not_wait_for_torch(outcomes, index):
    code, value, _ = MISTAKES[index]
    actual, err, imported = outcomes[index]
    assert (actual, imported) == (code, []), err
    assert value in err


def test_a_run_that_is_there_already(tmp_path):
    (tmp_path / "states").mkdir()
    (tmp_path / "states" / "0000010.pt").write_bytes(b"")
    check_run(tmp_path, resume=True)
    with pytest.raises(UsageError, match=str(tmp_path)):
        check_run(tmp_path, resume=False)
