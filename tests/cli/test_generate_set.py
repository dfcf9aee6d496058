"""`galip generate-set`: its result, its exit codes and its errors."""

import json

from galip_runtime.sets.report import summary_line
from runtime.stub_bundle import make_stub_bundle


def test_a_set_and_nothing_left_to_do(run, bundle, tmp_path):
    (tmp_path / "p.txt").write_text("a rose\na car\na star\n")
    words = [
        "generate-set",
        tmp_path / "p.txt",
        "--out",
        tmp_path / "set",
        "--bundle",
        bundle,
        "--device",
        "cpu",
    ]
    words += ["--shard-size", 2, "--workers", 1, "--seeds", "4-5"]
    code, out, _ = run(*words, "--json")
    result = json.loads(out)
    assert (code, result["pictures"], result["shards"], result["generated"]) == (0, 6, 3, 6)
    assert result["pictures_per_second"] > 0
    code, out, _ = run(*words)
    assert (code, out) == (0, f"{tmp_path / 'set'}: 6 pictures in 3 shards; all of them were there\n")


def test_one_picture_and_one_shard_are_singular():
    summary = {"folder": "set", "pictures": 1, "shards": 1, "generated": 0}
    assert summary_line(summary) == "set: 1 picture in 1 shard; all of them were there"


def test_pictures_that_are_not_finite(run, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a rose", "seed": 5}')
    nan = make_stub_bundle(tmp_path / "nan", nan=True)
    code, out, err = run(
        "generate-set",
        tmp_path / "p.jsonl",
        "--out",
        tmp_path / "set",
        "--bundle",
        nan,
        "--device",
        "cpu",
        "--json",
    )
    assert code == 3
    result = json.loads(out)
    assert (result["failed"], result["failures"][0]["seed"]) == (1, 5)
    assert "1 of 1 pictures are not finite" in err
    assert "prompt 0, seed 5: 'a rose'" in err


def test_mistakes(fail, bundle, tmp_path):
    (tmp_path / "p.csv").write_text("prompt\na, b\n")
    out = tmp_path / "set"
    assert "p.csv, line 2 has 2 cells" in fail(2, "generate-set", tmp_path / "p.csv", "--out", out)
    assert "cannot be read" in fail(4, "generate-set", tmp_path / "none.txt", "--out", out)
    (tmp_path / "p.txt").write_text("a rose")
    words = ["generate-set", tmp_path / "p.txt", "--out", out, "--bundle", bundle]
    assert "1,2,3 or 1-8" in fail(2, *words, "--seeds", "one")
    assert "not both" in fail(2, *words, "--workers", 2, "--ray", "auto")
    assert not out.exists()
