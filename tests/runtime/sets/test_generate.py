"""Sets of pictures: equal bytes however they come about, whole or not at all, one run at a time."""

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import galip_runtime
import numpy as np
import pytest
from galip_runtime import PromptCut
from galip_runtime.errors import FileRefused, ProviderUnavailable, QualityGateFailed, UsageError
from galip_runtime.sets import SetOptions, generate_set
from galip_runtime.sets.progress import SetProgress, duration
from PIL import Image
from stub_bundle import make_stub_bundle

from galip.data.shards import read_samples
from galip.data.sources import open_source

PROMPTS = 50
COMMAND = [sys.executable, "-m", "galip_runtime.sets"]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("".join(f"a red apple, number {n}\n" for n in range(PROMPTS)))
    return path


@pytest.fixture
def options(shared_bundle, prompts, tmp_path):
    """Options for eight shards of the stub model in a folder of this test."""

    def choose(folder="set", **changes):
        values = {"prompts": prompts, "out": tmp_path / folder, "bundle": shared_bundle, "device": "cpu"}
        return SetOptions(**{**values, "shard_size": 7, "workers": 1, "precision": "fp32", **changes})

    return choose


@pytest.fixture(scope="module")
def whole(shared_bundle, prompts, tmp_path_factory):
    """The contents of the set that every way of generating it gives."""
    out = tmp_path_factory.mktemp("whole") / "set"
    chosen = SetOptions(
        prompts=prompts,
        out=out,
        bundle=shared_bundle,
        device="cpu",
        precision="fp32",
        shard_size=7,
        workers=1,
    )
    generate_set(chosen)
    return contents(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def command(chosen, **changes):
    flags = {"out": chosen.out, "bundle": chosen.bundle, "device": "cpu", "precision": "fp32"}
    flags |= {"shard-size": chosen.shard_size, "workers": 2, "threads": 1, **changes}
    return [
        *COMMAND,
        chosen.prompts,
        *(str(word) for name, value in flags.items() for word in (f"--{name}", value)),
    ]


def test_what_a_set_consists_of(options, whole, shared_bundle):
    chosen = options()
    result = generate_set(chosen)
    assert (result.pictures, result.shards, result.generated, result.failed) == (PROMPTS, 8, PROMPTS, 0)
    assert contents(chosen.out) == whole
    assert sorted(whole) == [*(f"{n:06d}.tar" for n in range(8)), "set.json"]
    plan = json.loads(whole["set.json"])
    model = galip_runtime.load(shared_bundle, device="cpu", threads=1)
    assert (plan["bundle"], plan["device"], plan["precision"]) == (model.digest, "cpu", "fp32")
    with tarfile.open(fileobj=io.BytesIO(whole["000001.tar"])) as tar:
        members = tar.getmembers()
        assert [member.name for member in members[:3]] == [
            f"000000007.{end}" for end in ("png", "txt", "json")
        ]
        assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "")}
        picture = np.asarray(Image.open(tar.extractfile("000000009.png")))
        meta = json.load(tar.extractfile("000000009.json"))
        assert tar.extractfile("000000009.txt").read() == b"a red apple, number 9"
    np.testing.assert_array_equal(picture, model.generate("a red apple, number 9", 9)[0])
    assert meta == {
        "number": 9, "prompt_number": 9, "prompt": "a red apple, number 9", "seed": 9, "truncation": None,
        "bundle": model.digest, "device": "cpu", "precision": "fp32", "parity": {},
    }  # fmt: skip


@pytest.mark.parametrize("changes", [{"workers": 2}, {"threads": 2}, {"workers": 3, "threads": 1}])
def test_workers_and_threads_change_no_byte(options, whole, changes):
    chosen = options(**changes)
    generate_set(chosen)
    assert contents(chosen.out) == whole


def test_only_what_is_missing_is_generated(options, whole):
    chosen = options()
    generate_set(chosen)
    times = {path.name: path.stat().st_mtime_ns for path in chosen.out.iterdir()}
    assert generate_set(chosen).generated == 0
    (chosen.out / "000002.tar").unlink()
    (chosen.out / "000007.tar").unlink()
    assert generate_set(chosen).generated == 7 + 1
    assert contents(chosen.out) == whole
    changed = {name for name, before in times.items() if (chosen.out / name).stat().st_mtime_ns != before}
    assert changed == {"000002.tar", "000007.tar"}


def test_another_plan_is_refused(options, whole, prompts, tmp_path):
    chosen = options()
    generate_set(chosen)
    other = tmp_path / "other.txt"
    other.write_text("a car\n")
    for changes, differs in (
        ({"count": 2}, "count: 1 there, 2 now"),
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"seeds": (1,)}, "seeds: None there, [1] now"),
        ({"truncation": 0.5}, "truncation: None there, 0.5 now"),
        ({"format": "webp"}, "format: 'png' there, 'webp' now"),
        ({"layout": "folder"}, "layout: 'webdataset' there, 'folder' now"),
        ({"device": "openvino"}, "device: 'cpu' there, 'openvino' now"),
        ({"prompts": other}, "prompts.sha256: "),
        ({"bundle": make_stub_bundle(tmp_path / "bundle")}, "bundle: "),
    ):
        with pytest.raises(UsageError, match="holds another set") as caught:
            generate_set(options(**changes))
        assert any(line.startswith(differs) for line in caught.value.args), caught.value
    assert contents(chosen.out) == whole


def test_a_folder_with_something_else_is_left_alone(options):
    chosen = options()
    chosen.out.mkdir()
    (chosen.out / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"holds something else \(thesis\.tex\)"):
        generate_set(chosen)
    assert contents(chosen.out) == {"thesis.tex": b""}


def test_nothing_is_there_after_a_bad_prompt(options, tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"a\nb\n\xff")
    with pytest.raises(UsageError, match="line 3"):
        generate_set(options(prompts=path))
    assert not options().out.exists()


def test_galips_data_layer_reads_the_shards(options):
    chosen = options(count=2)
    generate_set(chosen)
    samples = list(read_samples(chosen.out))
    assert [sample.caption for sample in samples] == [
        f"a red apple, number {n // 2}" for n in range(2 * PROMPTS)
    ]
    assert [sample.meta["seed"] for sample in samples] == list(range(2 * PROMPTS))
    source = open_source(chosen.out)
    assert len(source) == 2 * PROMPTS
    assert not source.left_out  # not even the set's record


def test_folders_of_pictures(options, whole):
    chosen = options(layout="folder", format="webp", workers=2)
    generate_set(chosen)
    assert sorted(path.name for path in chosen.out.iterdir()) == [*(f"{n:06d}" for n in range(8)), "set.json"]
    assert sorted(path.name for path in (chosen.out / "000007").iterdir()) == [
        "000000049.webp",
        "captions.jsonl",
    ]
    source = open_source(chosen.out)
    assert len(source) == PROMPTS
    assert not source.left_out
    read = [source[index] for index in range(PROMPTS)]
    assert [picture.captions for picture in read] == [(f"a red apple, number {n}",) for n in range(PROMPTS)]
    assert [picture.meta["seed"] for picture in read] == list(range(PROMPTS))


def test_pictures_that_are_not_finite_are_counted(options, tmp_path):
    bundle = make_stub_bundle(tmp_path / "nan", nan=True)
    chosen = options(bundle=bundle, workers=2)
    result = generate_set(chosen)
    assert (result.pictures, result.failed) == (PROMPTS, PROMPTS)
    with pytest.raises(QualityGateFailed, match=f"{PROMPTS} of {PROMPTS} pictures are not finite") as caught:
        result.check()
    assert caught.value.args[1] == "prompt 0, seed 0: 'a red apple, number 0'"
    assert caught.value.args[-1] == "…"
    failures = (chosen.out / "000007.failures.jsonl").read_text().splitlines()
    assert [(each["number"], each["seed"], each["reason"]) for each in map(json.loads, failures)] == [
        (49, 49, "not finite")
    ]
    again = generate_set(chosen)
    assert (again.generated, again.failed) == (0, PROMPTS)


def test_failures_of_prompts_with_odd_line_ends_are_read(options, tmp_path):
    """Python's `str.splitlines` ends a line at each of these; JSON does not escape them."""
    prompt = "a\u2028b\u2029c\x85d"
    prompts = tmp_path / "odd.jsonl"
    prompts.write_text(json.dumps({"prompt": prompt}))
    bundle = make_stub_bundle(tmp_path / "nan", nan=True)
    result = generate_set(options(prompts=prompts, bundle=bundle, workers=1))
    assert [failure["prompt"] for failure in result.failures] == [prompt]


def test_one_picture_that_is_not_finite_leaves_the_others(options, whole, monkeypatch):
    """With the worker in this process, where one seed can be made to fail."""
    from galip_runtime.sets import generate
    from galip_runtime.sets.worker import ShardWorker
    from galip_runtime.text_to_image import TextToImage

    plain = TextToImage.generate

    def failing(self, prompts, seeds, **others):
        if 10 in seeds:
            raise QualityGateFailed("not finite")
        return plain(self, prompts, seeds, **others)

    def here(job, shards, workers, done, progress):
        worker = ShardWorker(job)
        for shard in shards:
            done(worker.make(shard, progress))

    monkeypatch.setattr(TextToImage, "generate", failing)
    monkeypatch.setattr(generate, "run_local", here)
    chosen = options()
    result = generate_set(chosen)
    assert [failure["number"] for failure in result.failures] == [10]
    left = contents(chosen.out)
    assert sorted(left.keys() - whole.keys()) == ["000001.failures.jsonl"]
    assert [name for name in whole if left[name] != whole[name]] == ["000001.tar"]
    with (
        tarfile.open(fileobj=io.BytesIO(left["000001.tar"])) as now,
        tarfile.open(fileobj=io.BytesIO(whole["000001.tar"])) as before,
    ):
        assert set(before.getnames()) - set(now.getnames()) == {
            f"000000010.{e}" for e in ("png", "txt", "json")
        }
        for name in now.getnames():
            assert now.extractfile(name).read() == before.extractfile(name).read()


class Killing(SetProgress):
    """Kills a worker process each time that pictures are reported, at most `times` times."""

    def __init__(self, times):
        super().__init__()
        self.times, self.left = times, times
        self.done = 0

    def add(self, pictures):
        super().add(pictures)
        self.done += pictures
        if pictures > 0 and self.left:
            self.left -= 1
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_killed_worker_had_is_generated_by_another(options, whole, workers):
    chosen, progress = options(workers=workers), Killing(2)
    result = generate_set(chosen, progress)
    assert progress.left == 0
    assert progress.done == result.pictures
    assert contents(chosen.out) == whole
    assert not multiprocessing.active_children()


def test_a_shard_that_kills_its_workers_is_named(options, whole):
    chosen = options(shard_size=50)  # killed after its first batch
    with pytest.raises(
        ProviderUnavailable, match=r"3 worker processes died generating 000000\.tar, .* by SIGKILL"
    ):
        generate_set(chosen, Killing(100))
    assert sorted(contents(chosen.out)) == [".partial", "set.json"]
    assert not multiprocessing.active_children()


def test_what_a_worker_raises_arrives(options):
    chosen = options()

    class Changing(SetProgress):
        def start(self, total, done):
            chosen.prompts.write_text(before.replace("number 40", "number 41"))

    before = chosen.prompts.read_text()
    try:
        with pytest.raises(FileRefused, match="is not what it was when the set was planned"):
            generate_set(chosen, Changing())
    finally:
        chosen.prompts.write_text(before)
    assert not multiprocessing.active_children()
    assert not [name for name in contents(chosen.out) if name.startswith(".galip")]


def test_two_runs_at_once(options, whole):
    chosen = options()

    class Another(SetProgress):
        def start(self, total, done):
            with pytest.raises(UsageError, match="another run is at work in"):
                generate_set(chosen)

    generate_set(chosen, Another())
    assert contents(chosen.out) == whole


def test_a_folder_that_cannot_be_written(options, permissions_count, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot be written to"):
        generate_set(options())
    tmp_path.chmod(0o700)


def started(chosen, **changes):
    """Start the command and wait until it has written a shard."""
    process = subprocess.Popen(
        command(chosen, **changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list(chosen.out.glob("*.tar")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    path = tmp_path_factory.mktemp("many") / "prompts.txt"
    path.write_text("".join(f"a red apple, number {n}\n" for n in range(1500)))
    return path


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "SIGKILL"])
def test_an_interrupted_run_goes_on(options, many, how, tmp_path):
    chosen = options(prompts=many, shard_size=50)
    process = started(chosen)
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(getattr(signal, how))
    out, err = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if how == "SIGKILL" else 130), err
    assert "Traceback" not in err
    assert out == ""
    names = os.listdir(chosen.out)
    assert ".partial" in names
    assert len(names) < 32  # not finished yet
    with pytest.raises(FileRefused, match="cut short"):
        next(read_samples(chosen.out))
    if how != "SIGKILL":
        assert "the same command goes on" in err
        assert not [name for name in names if name.startswith(".galip")]
    result = generate_set(chosen)
    assert 0 < result.generated < 1500
    other = options("other", prompts=many, shard_size=50)
    generate_set(other)
    assert contents(chosen.out) == contents(other.out)


def test_the_command(options, whole):
    chosen = options()
    done = subprocess.run([*command(chosen), "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["pictures"] == PROMPTS
    assert contents(chosen.out) == whole
    done = subprocess.run(command(chosen, seeds="1-x"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: seeds must be whole numbers" in done.stderr
    done = subprocess.run([*COMMAND, chosen.prompts], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--out" in done.stderr
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert "--shard-size" in done.stdout


def test_what_importing_it_loads():
    """Neither a framework nor an engine; options alone not even numpy, so that --help comes at once."""
    code = """
import sys
import galip_runtime.sets, galip_runtime.sets.report
print({"numpy", "PIL"} & set(sys.modules))
import galip_runtime.sets.generate
print({"torch", "onnx", "galip", "ray", "pyarrow"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "set()"]


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_full_disk(options, whole):
    """A limit on the size of files stands for it: the system refuses the same way."""
    chosen = options()
    code = f"""
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
sys.argv = {[str(word) for word in command(chosen)[2:]]}
runpy.run_module("galip_runtime.sets", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert ".tar cannot be written (File too large); free some space" in done.stderr
    assert sorted(os.listdir(chosen.out)) == [".partial", "set.json"]
    generate_set(chosen)
    assert contents(chosen.out) == whole


def test_a_cut_prompt_is_said_once(options, tmp_path, capsys):
    path = tmp_path / "long.txt"
    path.write_text("a prompt of very many letters in one line\n" * 20)
    generate_set(options(prompts=path), SetProgress())
    assert capsys.readouterr().err.count("tokens and is cut") == 1
    with pytest.warns(PromptCut, match="tokens and is cut") as caught:
        generate_set(options(folder="silent", prompts=path))
    assert len(caught) == 1
    assert capsys.readouterr().err == ""


def test_progress(capsys):
    progress = SetProgress()
    progress.start(200, 50)
    progress.add(50)
    progress.add(50)  # within ten seconds
    line = capsys.readouterr().err
    assert line.startswith("100 of 200 pictures, 50.0%, ")
    assert line.count("\n") == 1
    progress.add(50)  # the end is always told
    assert capsys.readouterr().err.startswith("200 of 200 pictures, 100.0%, ")
    assert [duration(seconds) for seconds in (3, 61, 3600, 90000)] == [
        "3 s",
        "1 min 1 s",
        "1 h 0 min",
        "1 d 1 h",
    ]
