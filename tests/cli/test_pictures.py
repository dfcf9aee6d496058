"""`galip generate`, `galip interpolate` and `galip sample-grid`."""

import json

import numpy as np
from galip_runtime.bundle.manifest import read_manifest
from PIL import Image

from galip.assets import default_bundle


def test_generate(run, bundle, tmp_path):
    picture = tmp_path / "a.png"
    arguments = ["generate", "a red apple", "--bundle", bundle, "--seed", 7, "--device", "cpu", "--out"]
    code, out, _ = run(*arguments, picture, "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["seeds"], result["prompts"], result["device"]) == ([7], ["a red apple"], "cpu")
    assert result["file"] == str(picture)
    assert Image.open(picture).size == (8, 8)
    code, out, _ = run(*arguments, tmp_path / "b.png")
    assert code == 0
    assert "seed 7" in out
    assert np.array_equal(np.asarray(Image.open(picture)), np.asarray(Image.open(tmp_path / "b.png")))


def test_a_png_says_how_it_was_generated(run, bundle, tmp_path):
    file, digest = tmp_path / "a.png", read_manifest(bundle).digest
    for command, prompts, options, texts in (
        ("generate", ["red ☃"], ["--seed", 7], {"prompt": "red ☃", "seed": "7"}),
        ("generate", ["a", "b"], ["--seed", 7, "--count", 2, "--truncation", 0.5],
         {"prompt": "a\nb", "seed": "7, 8", "truncation": "0.5"}),
        ("interpolate", ["a", "b"], ["--seed", 7, "--steps", 2], {"prompt": "a\nb", "seed": "7"}),
        ("sample-grid", ["a", "b"], ["--seed", 7, "--count", 1], {"prompt": "a\nb", "seed": "7"}),
    ):  # fmt: skip
        arguments = [command, *prompts, *options, "--bundle", bundle, "--device", "cpu", "--out", file]
        assert run(*arguments)[0] == 0
        assert Image.open(file).text == {**texts, "bundle": digest}
        assert run(*arguments, "--no-metadata")[0] == 0
        assert Image.open(file).text == {}


def test_interpolate(run, bundle, tmp_path):
    arguments = ["interpolate", "a red apple", "a tree", "--bundle", bundle, "--seed", 7, "--steps", 5]
    code, out, _ = run(*arguments, "--out", tmp_path / "strip.png", "--json")
    assert code == 0
    assert json.loads(out)["pictures"] == 5
    assert Image.open(tmp_path / "strip.png").width >= 40
    code, _, _ = run(*arguments, "--out", tmp_path / "film.gif")
    assert code == 0
    assert Image.open(tmp_path / "film.gif").n_frames >= 5


def test_interpolate_between_seeds(run, bundle, tmp_path):
    arguments = ["interpolate", "a red apple", "a tree", "--bundle", bundle, "--seed", 7, "--seed", 8]
    out = tmp_path / "square.png"
    code, output, _ = run(*arguments, "--steps", 3, "--square", "--out", out, "--json")
    assert code == 0
    assert json.loads(output) == {
        "file": str(out),
        "prompts": ["a red apple", "a tree"],
        "steps": 3,
        "seeds": [7, 8],
        "pictures": 9,
    }


def test_sample_grid(run, bundle, tmp_path):
    (tmp_path / "prompts.txt").write_bytes("a tree\r\n\r été\u2028車 \r".encode("utf-16"))
    arguments = ["sample-grid", "a red apple", "--prompts-file", tmp_path / "prompts.txt", "--bundle", bundle]
    code, out, _ = run(*arguments, "--seed", 4, "--count", 2, "--out", tmp_path / "a.png", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["prompts"] == ["a red apple", "a tree", "été\u2028車"]
    assert result["seeds"] == [4, 5]
    labelled = Image.open(tmp_path / "a.png")
    code, _, _ = run(*arguments, "--seed", 4, "--count", 2, "--out", tmp_path / "b.png", "--no-labels")
    assert code == 0
    plain = Image.open(tmp_path / "b.png")
    assert plain.size == (2 * 8 + 2, 3 * 8 + 4)
    cell = np.asarray(plain)[:8, :8].repeat(12, axis=0).repeat(12, axis=1)  # enlarged to 96 pixels
    left, top = 14 + 190 + 6, 14 + 20 + 6
    assert np.array_equal(np.asarray(labelled)[top : top + 96, left : left + 96], cell)


def test_eager_pictures(run, tiny_checkpoint, tmp_path):
    arguments = ["generate", "a red square", "--model", tiny_checkpoint, "--device", "cpu", "--seed", 1]
    code, out, err = run(*arguments, "--out", tmp_path / "a.png")
    assert code == 0, err
    assert "28x28" in out


def test_without_a_bundle_it_is_the_shipped_model(run, tmp_path):
    for command in (["generate", "a car"], ["interpolate", "a car", "a rose"], ["sample-grid", "a car"]):
        code, _, err = run(*command, "--out", tmp_path / "a.png", "--device", "cpu", "--seed", 7)
        assert code == 0, err
        assert Image.open(tmp_path / "a.png").text["bundle"] == read_manifest(default_bundle()).digest


def test_the_shipped_model_in_another_precision_has_to_be_exported(fail, tmp_path):
    err = fail(2, "generate", "a car", "--precision", "fp32", "--out", tmp_path / "a.png")
    assert "galip export --precision fp32 --out BUNDLE" in err
