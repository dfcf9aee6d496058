"""`galip doctor`."""

import json

from galip_runtime import doctor


def test_doctor(run, monkeypatch):
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    assert "  cpu: works, in fp32, w16a32" in out
    report = json.loads(run("doctor", "--json")[1])
    assert report["devices"]["cpu"]["works"] is True
    for name, device in report["devices"].items():
        device.update(works=False, why=f"no {name} here", precisions=[])
    report["onnxruntime"]["problem"] = "two builds"
    report["gpus"] = {
        "driver": "13.0",
        "why": None,
        "found": [{"name": "H200", "compute_capability": "9.0", "memory": 2**37}],
    }
    monkeypatch.setattr(doctor, "examine", lambda: report)
    code, out, _ = run("doctor")
    assert code == 5
    for line in (
        "  cpu: no: no cpu here",
        "  problem: two builds",
        "  0: H200, compute capability 9.0, 128 GiB",
    ):
        assert f"\n{line}\n" in f"\n{out}"
