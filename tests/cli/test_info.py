"""`galip info`."""

import json

import pytest
from galip_runtime.bundle.manifest import sha256_file
from runtime.stub_bundle import make_stub_bundle, relist

from galip.assets import default_checkpoint
from galip.checkpoint import save_clip
from galip.clip import build_clip
from galip.presets import preset


def test_info_on_a_checkpoint(run, tiny_checkpoint):
    code, out, err = run("info", tiny_checkpoint, "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["kind"] == "galip checkpoint"
    assert facts["parts"] == ["text", "image", "generator", "discriminator"]
    assert facts["config"]["generator"]["noise_dim"] == 8
    assert facts["note"] == {"made": "for tests"}
    assert facts["bytes"] == tiny_checkpoint.stat().st_size
    assert set(facts["parameters"]) == set(facts["parts"])
    assert 4 * sum(facts["parameters"].values()) < facts["bytes"] < 5 * sum(facts["parameters"].values())
    code, out, err = run("info", tiny_checkpoint, "--verbose")
    assert (code, err) == (0, "")
    assert "kind: galip checkpoint" in out.splitlines()
    assert "    noise_dim: 8" in out.splitlines()


def test_info_on_clip(run, tiny_clip):
    code, out, _ = run("info", tiny_clip, "--json")
    assert code == 0
    assert json.loads(out)["kind"] == "clip checkpoint"
    assert set(json.loads(out)["parameters"]) == {"text", "image"}


def test_info_on_a_bundle(run, bundle):
    code, out, err = run("info", bundle, "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["kind"] == "bundle"
    assert facts["dimensions"]["image_width"] == 8
    assert set(facts["graphs"]) == {"text_encoder", "generator"}
    assert "kind: bundle" in run("info", bundle)[1]


def test_without_a_path_it_is_the_shipped_bundle(run):
    code, out, _ = run("info", "--json")
    assert code == 0
    assert json.loads(out)["source"]["sha256"] == sha256_file(default_checkpoint())


def test_info_tells_the_worst_parity_of_each_graph(run, tmp_path):
    cases = [
        {
            "graph": "generator",
            "precision": precision,
            "device": "cpu",
            "batch": n,
            "max_abs": n,
            "relative": n,
            "psnr_db": 90 - n,
        }
        for precision in ("fp32", "fp16")
        for n in (2, 5, 3)
    ]
    pictures = {"precision": "int8", "device": "openvino", "worst": 3}
    pictures |= {"pictures": 256, "psnr_min": 38.0, "psnr_p1": 40.5, "psnr_median": 45.0}
    bundle = make_stub_bundle(tmp_path / "bundle", parity={"cases": cases, "pictures": [pictures]})
    parity = json.loads(run("info", bundle, "--json")[1])["parity"]
    worst = {"max_abs": 5, "relative": 5, "psnr_db": 85, "batch": 5}
    shown = {name: pictures[name] for name in ("pictures", "psnr_min", "psnr_p1", "psnr_median")}
    assert parity == {
        "generator fp32 on cpu": worst,
        "generator fp16 on cpu": worst,
        "pictures int8 on openvino": shown,
    }
    assert "psnr_db: 85" in run("info", bundle, "--verbose")[1]
    (line,) = [line for line in run("info", bundle)[1].splitlines() if line.startswith("parity")]
    assert "fp32 85.0 dB" in line
    assert "int8 38.0 dB" in line
    assert "256 pictures" in line


def test_info_tells_the_manifest_s_digest_or_that_there_is_none(run, tmp_path):
    bundle = make_stub_bundle(tmp_path / "bundle")
    path = bundle / "manifest.json"
    document = json.loads(path.read_text())
    digest = document.pop("digest")
    assert json.loads(run("info", bundle, "--json")[1])["digest"] == digest
    assert f"digest: {digest}" in run("info", bundle)[1]
    del document["format_revision"]
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    assert json.loads(run("info", bundle, "--json")[1])["digest"] is None
    assert "digest: none" in run("info", bundle)[1]


def test_info_is_eight_lines_unless_all_is_asked_for(run, bundle, tiny_checkpoint, tiny_clip):
    for path, values in (
        (bundle, ["8 × 8", "fp32", "none", json.loads((bundle / "manifest.json").read_text())["digest"]]),
        (tiny_checkpoint, [f"{tiny_checkpoint.stat().st_size / 1e6:.1f} MB", "28 × 28", "F32", "generator"]),
        (tiny_clip, ["clip checkpoint", "F32", "text"]),
    ):
        code, out, err = run("info", path)
        assert (code, err, len(out.splitlines())) == (0, "", 8)
        assert [value for value in values if value not in out] == []
        assert len(run("info", path, "--verbose")[1].splitlines()) > 8
        assert run("info", path, "--verbose", "--json") == run("info", path, "--json")


@pytest.mark.parametrize(
    ("note", "values"),
    [
        ({}, []),
        ({"converted_from": "x.pth", "sha256": "abc", "clip": None}, ["x.pth", "abc"]),
        ({"train": {"data": "icons", "steps": 9}, "step": 7}, ["icons", "7"]),
        ({"train": [1], "step": {"a": "b\nc"}}, ["b"]),
    ],
)
def test_info_tells_where_weights_came_from_whatever_the_note_holds(run, tmp_path, note, values):
    path = tmp_path / "model.safetensors"
    save_clip(path, build_clip(preset("tiny").clip), preset("tiny").clip, note=note)
    code, out, err = run("info", path)
    assert (code, err, len(out.splitlines())) == (0, "", 8)
    (line,) = [line for line in out.splitlines() if line.startswith("source: ")]
    assert [value for value in values if value not in line] == []


@pytest.mark.parametrize(
    "parity",
    [
        [], "x", {"cases": {}}, {"cases": [1]}, {"cases": [{}]}, {"pictures": [{"precision": "fp32"}]},
        {"cases": [{"graph": "a", "precision": 1, "device": "a", "max_abs": 1, "relative": 1, "batch": 1,
                    "psnr_db": None}]},
    ],
    ids=str,
)  # fmt: skip
def test_info_refuses_a_parity_that_is_none(fail, tmp_path, parity):
    bundle = make_stub_bundle(tmp_path / "bundle")
    (bundle / "parity.json").write_text(json.dumps(parity))
    relist(bundle, "parity.json")
    assert str(bundle / "parity.json") in fail(4, "info", bundle)
