"""Where the time goes on a CPU, and what onnxruntime's options cost."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import studies
import torch
from galip_export.rewrites import Rewritten, affine_networks
from galip_runtime.backends.runner import GraphFile
from galip_runtime.bundle.generation_blocks import Convolution, GenerationBlock
from galip_runtime.errors import FileRefused, QualityGateFailed, UsageError
from studies import kernels, operators, options, rewrites
from tiny import random_model, small_config
from torch.utils.flop_counter import FlopCounterMode

from galip.checkpoint import load_galip, save_galip


@pytest.fixture(scope="module")
def measured(tiny_bundle):
    return operators.measure(tiny_bundle, rounds=2, threads=1)


def test_where_the_time_goes(measured):
    assert list(measured["precisions"]) == ["fp32"]
    found = measured["precisions"]["fp32"]
    assert sum(found["operations"].values()) == pytest.approx(1)
    assert found["operations"]["Convolution"] > 0
    assert list(found["operations"].values()) == sorted(found["operations"].values(), reverse=True)
    assert len(found["seconds"]["samples"]) == 2
    rate = measured["multiply_adds"] / found["seconds"]["median"]
    assert found["multiply_adds_per_second"] == pytest.approx(rate)
    assert 0 < found["share_of_peak"] < 1
    json.dumps(measured, allow_nan=False)


def test_its_table(measured):
    table = operators.table([measured]).splitlines()
    assert table[0] == "|  | fp32 |"
    largest = next(iter(measured["precisions"]["fp32"]["operations"]))
    assert any(line.startswith(f"| time in {largest} | ") for line in table)
    assert "multiply-adds a picture of 28×28" in table[-1]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(("kind", "products"), [("Conv", 1024 * 1024 * 9 * 28 * 28), ("MatMul", 2048**3)])
def test_the_machine_s_best(kind, products, precision):
    network, count = operators._peak_network(kind, precision, threads=1)
    assert count == products
    assert network.seconds() > 0


def test_options(tiny_bundle):
    result = options.measure(tiny_bundle, rounds=2, threads=1)
    assert set(result["seconds"]) == set(options.CHANGES)
    assert all(len(samples) == 2 and min(samples) > 0 for samples in result["seconds"].values())
    table = options.table([result, result]).splitlines()
    assert table[0] == "|  | 28 pixels | 28 pixels |"
    assert table[2] == "| as used | 1 | 1 |"
    assert len(table) == 2 + len(options.CHANGES)


def test_the_kernels(tiny_bundle):
    pytest.importorskip("galip_kernels", reason="galip-kernels is not installed")
    result = kernels.measure(tiny_bundle, rounds=2, threads=1)
    blocks = result["blocks"].values()
    assert len(blocks) == len(result["blocks"]) > 0
    assert all(0 < block["multiply_adds"] < block["multiply_adds_of_the_graph"] for block in blocks)
    assert all(len(block["seconds"]["samples"]) == 2 and block["share_of_peak"] > 0 for block in blocks)
    table = kernels.table([result]).splitlines()
    assert len(table) == 2 + len(blocks)
    json.dumps(result, allow_nan=False)


def test_the_products_of_an_algorithm():
    convolution = Convolution(("w",), "b")
    block = GenerationBlock((4, 8, 8), (2, 16, 16), ("a",) * 8, convolution, convolution, convolution)
    # a doubling has 5 x 5 points for 4 x 4 outputs; 16 outputs are 2.67 tiles of 6, thus 3
    expected = (4 * 4) * (5 * 5) * 4 * 2 + (3 * 3) * (8 * 8) * 2 * 2 + 8 * 8 * 4 * 2
    assert kernels.computed_products(block, ["F(4x4,3x3) of a doubling", "F(6x6,3x3)"]) == expected
    with pytest.raises(ValueError, match="not a Winograd algorithm"):
        kernels.computed_products(block, ["direct", "F(6x6,3x3)"])


def test_rewrites(tmp_path, monkeypatch):
    checkpoint = tmp_path / "small.safetensors"
    save_galip(checkpoint, random_model(small_config(channels=(16, 8, 8), sizes=(8, 16))))
    name = "sub-pixel convolutions"  # one, as every export takes its time
    monkeypatch.setattr(rewrites, "LEFT_OUT", {name: rewrites.LEFT_OUT[name]})
    result = rewrites.measure(checkpoint, rounds=2, threads=1)
    assert list(result["seconds"]) == ["onnxruntime", "openvino"]
    for of_backend in result["seconds"].values():
        assert {each: len(samples) for each, samples in of_backend[name].items()} == {"with": 2, "without": 2}
    assert result["model"]["name"] == checkpoint.name
    table = rewrites.table([result]).splitlines()
    assert table[0] == "| without | 16 pixels, onnxruntime | 16 pixels, openvino |"
    assert len(table) == 3


def test_what_is_left_out_makes_equal_pictures_with_more_work(tiny_checkpoint):
    generator = load_galip(tiny_checkpoint).generator
    noise = torch.randn(2, generator.config.noise_dim)
    sentence = torch.randn(2, affine_networks(generator)[0][0].in_features - noise.shape[1])
    work = {}
    for name, put_back in {"": lambda *_: None, **rewrites.LEFT_OUT}.items():
        rewritten = Rewritten(generator).eval()
        put_back(rewritten, generator)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            image = rewritten(noise, sentence)
            assert torch.allclose(image, generator(noise, sentence), atol=1e-4 * float(image.std()))
        work[name] = counter.get_total_flops()
    whole, sub_pixel, growing, networks = work.values()
    assert growing > sub_pixel > whole
    assert networks == whole


def test_a_rewrite_that_changes_the_picture_has_no_time(monkeypatch):
    class Painted:
        def __init__(self, file, settings, inputs, outputs):
            self.colour = file.path

        def run(self, inputs):
            return np.linspace(0, self.colour, 12)

    monkeypatch.setitem(rewrites._BACKENDS, "paint", (Painted, "cpu"))
    files = [
        GraphFile(colour, "", SimpleNamespace(inputs=(), outputs=()), "fp32", None, ())
        for colour in (1, 1.01)
    ]
    rewrites._compare("paint", 1, (files[0], files[0]), {}, rounds=1)
    with pytest.raises(QualityGateFailed, match="another one"):
        rewrites._compare("paint", 1, tuple(files), {}, rounds=1)


@pytest.mark.parametrize("module", ["kernels", "operators", "options", "rewrites"])
def test_the_commands(tiny_bundle, tiny_checkpoint, tmp_path, monkeypatch, module):
    monkeypatch.setenv("PYTHONPATH", str(Path(studies.__file__).parents[1]))
    call = [sys.executable, "-m", f"studies.{module}"]
    if module == "kernels":
        pytest.importorskip("galip_kernels", reason="galip-kernels is not installed")
    subject = tiny_checkpoint if module == "rewrites" else tiny_bundle
    if module != "rewrites":  # which takes a minute
        done = subprocess.run(
            [*call, subject, "--out", tmp_path / "a.json", "--rounds", "1", "--threads", "1"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.startswith("| ")
        assert json.loads((tmp_path / "a.json").read_text())["benchmark"] == module
    none = subprocess.run(
        [*call, subject, "--out", tmp_path / "b.json", "--rounds", "0"], capture_output=True
    )
    assert none.returncode == UsageError.exit_code
    done = subprocess.run([*call, tmp_path, "--out", tmp_path / "b.json"], capture_output=True, text=True)
    assert done.returncode == FileRefused.exit_code
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "b.json").exists()


def test_a_bundle_without_fp32(tiny_checkpoint, tmp_path):
    from galip_export import export_bundle

    export_bundle(tiny_checkpoint, tmp_path / "bundle", precisions="w16a32")
    for module in (operators, options):
        with pytest.raises(UsageError, match="no fp32 generator"):
            module.measure(tmp_path / "bundle", rounds=1)
