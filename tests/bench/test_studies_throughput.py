import json
from pathlib import Path

import pytest
import torch
from galip_runtime.errors import QualityGateFailed
from studies import throughput
from studies.throughput import ThroughputConfig, main, measure, table

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_result_has_what_it_says(tmp_path, capsys):
    out = tmp_path / "result.json"
    options = ["--model", "tiny", "--batch-size", "4", "--rounds", "3", "--warmup", "1", "--device", "cpu"]
    main([*options, "--out", str(out)])
    result = json.loads(out.read_text())
    assert result["schema"] == 1
    assert result["config"]["model"] == "tiny"
    assert result["machine"]["versions"]["torch"] == torch.__version__
    times = result["seconds"]
    assert {name: len(each) for name, each in times.items()} == {"galip": 3, "released_order": 3}
    assert result["pictures_per_second"]["galip"] == pytest.approx(4 / sorted(times["galip"])[1])
    low, high = result["speedup"]["interval_95"]
    assert low <= result["speedup"]["median"] <= high
    assert result["largest_difference"] < 1e-4
    assert f"{result['speedup']['median']:.2f} times as fast" in capsys.readouterr().out


def test_no_figure_for_different_losses(monkeypatch):
    right = throughput.released_step

    def wrong(*arguments):
        terms = right(*arguments)
        return {**terms, "magp": terms["magp"] + 1}

    monkeypatch.setattr(throughput, "released_step", wrong)
    with pytest.raises(QualityGateFailed, match="losses are"):
        measure(ThroughputConfig(model="tiny", batch_size=4, rounds=1, warmup=0, device="cpu"))


def test_a_wrong_model_is_told(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--model", "large"])
    assert stopped.value.code == 2
    assert "no preset 'large'" in capsys.readouterr().err


def test_the_documentation_quotes_the_results():
    root = Path(__file__).parents[2]
    files = [root / "benchmarks" / "results" / f"training_{name}.json" for name in ("default", "released")]
    results = [json.loads(file.read_text()) for file in files]
    assert table(results) in (root / "docs" / "results.md").read_text()
    for result in results:
        assert not result["machine"]["commit"].endswith("+")
        assert result["largest_difference"] < 1e-3
        assert result["speedup"]["median"] >= 1.3
