"""A few trials of the targets of `make fuzz`, always the same; without those that take a minute a trial."""

import pytest
from fuzz.fixtures import small_bundle
from fuzz.harness import run

TRIALS = {
    "mutated_bundles": 20,
    "forged_bundles": 15,
    "checkpoints": 20,
    "datasets": 40,
    "captions": 5,
    "killed_trainings": 2,
}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "target", [pytest.param(name, marks=pytest.mark.xdist_group(f"fuzz {name}")) for name in TRIALS]
)
def test_a_slice(target, traced_graphs, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    if target.endswith("_bundles"):
        small_bundle(home)  # sooner than the target's own process makes it
    result = run(target, 15, home, tmp_path / "faults", numbers=iter(range(TRIALS[target])), patience=6)
    assert not result.faults, "\n\n".join(f"{fault.what}\n{fault.detail}" for fault in result.faults)
    assert result.held == TRIALS[target]


@pytest.mark.xdist_group("fuzz harness")
@pytest.mark.parametrize(
    ("trial", "what"),
    [
        ("return 'well'", None),
        ("raise ValueError('no')", "ValueError: no"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the process died: SIGSEGV"),
        ("import os; os._exit(0)", "the process died: exit code 0"),
        ("import time; time.sleep(60)", "no end within 2 s"),
        ("return str(len(bytearray(150 * 2**20)))", "more memory than 100 MB"),
        ("return str(len(bytearray(10**10)))", "MemoryError"),
    ],
    ids=["holds", "raises", "dies", "leaves", "hangs", "large", "endless"],
)
def test_a_fault_is_one_trial_s(tmp_path, monkeypatch, trial, what):
    (tmp_path / "fuzz").mkdir()
    (tmp_path / "fuzz" / "planted.py").write_text(
        "from pathlib import Path\n"
        "SECONDS, MEGABYTES = 2, 100\n"
        "def start(home):\n"
        "    def trial(rng, folder):\n"
        "        number = rng.integers(10**9)\n"
        "        (folder / 'input').write_text(str(number))\n"
        f"        {trial}\n"
        "    return trial\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    lines: list[str] = []
    result = run(
        "planted", 3, tmp_path / "home", tmp_path / "faults", numbers=iter([0, 1]), report=lines.append
    )
    assert result.tried == 2
    if what is None:
        assert result.outcomes == {"well": 2}
        assert not (tmp_path / "faults").exists()
        return
    one, other = result.faults
    assert one.what.startswith(what)
    assert one.what == other.what
    assert (one.folder / "input").read_text() != (other.folder / "input").read_text()
    again = run("planted", 3, tmp_path / "home", tmp_path / "again", numbers=iter([1]), report=lines.append)
    assert (again.faults[0].folder / "input").read_text() == (other.folder / "input").read_text()
    assert "make fuzz FUZZ_TARGETS=planted FUZZ_SEED=3 FUZZ_OPTIONS='--only 1'" in lines[1]
