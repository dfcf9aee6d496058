"""`galip evaluate`."""

import json
import sys


def test_evaluate(run, tiny_checkpoint, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)  # which only several processes need
    arguments = ["evaluate", tiny_checkpoint, "--against", tiny_data, "--metrics", "clip_score,seed_psnr"]
    arguments += ["--count", 8, "--split", "val", "--exclude", "colour=red", "--device", "cpu"]
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["figures"].keys() == {"clip_score", "seed_psnr"}
    assert report["config"]["exclude"] == ["colour=red"]
    assert report["subject"]["pictures"] == 8
    code, out, err = run(*arguments)
    assert f"{report['figures']['clip_score']:.4f}" in out
    assert "8 pictures of" in out
