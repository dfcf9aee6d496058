"""The `galip` command: its options, what it prints where, and what it exits with."""

import dataclasses
import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import galip_export
import galip_export.engines
import numpy as np
import pytest
import typer.main
from galip_runtime import doctor
from galip_runtime.errors import QualityGateFailed, UsageError
from PIL import Image
from runtime.stub_bundle import make_stub_bundle, relist

import galip.convert
from galip import assets
from galip.cli import main
from galip.cli.app import app
from galip.cli.common import Progress
from galip.train import contrastive, gan
from galip.train.config import ContrastiveConfig, GanConfig

COMMAND = [sys.executable, "-c", "from galip.cli import main; main()"]
HEAVY = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "open_clip",
    "safetensors",
    "numpy",
    "PIL",
    "tensorboard",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_stub_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture
def run(capsys):
    """Runs the command here; gives its exit code, stdout and stderr."""

    def call(*arguments):
        with pytest.raises(SystemExit) as done:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return done.value.code, said.out, said.err

    return call


@pytest.fixture
def fail(run):
    """Runs a command that a user got wrong; gives stderr."""

    def call(code, *arguments):
        found, out, err = run(*arguments)
        assert found == code, err
        assert out == ""
        assert "Traceback" not in err
        assert "\ngalip: " in "\n" + err  # progress may come before it
        return err

    return call


# Help


def test_help_imports_nothing_heavy_and_takes_no_time():
    """CPU time, so that a busy machine doesn't matter; the best of five."""
    code = f"""
import sys
from galip.cli import main
try:
    main(["--help"])
except SystemExit as done:
    assert done.code == 0
print({{"heavy": [name for name in {HEAVY} if name in sys.modules]}})
"""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert "{'heavy': []}" in done.stdout
    assert min(seconds) < 0.3, seconds


COMMANDS = {
    "generate": "PROMPTS --bundle --model --seed --count --truncation --out --device --precision --threads "
    "--json",
    "interpolate": "PROMPTS --steps --bundle --model --seed --square --truncation --out --device --precision "
    "--threads --json",
    "sample-grid": "PROMPTS --prompts-file --seed --count --truncation --labels --no-labels --bundle --model "
    "--out --device --precision --threads --json",
    "evaluate": "SUBJECT --against --metrics --count --reference-count --split --layout --exclude --captions "
    "--protocol --size --clip --inception --batch-size --seed --save-statistics --cache --no-cache --device "
    "--precision --threads --json",
    "bench": "--bundle --plain-bundle --model --subjects --batch --threads --launches --rounds --warmup "
    "--max-minutes --cold-starts --pictures --fid --against --split --exclude --captions --inception --seed "
    "--worst --json --html --markdown --repeat --compare --tolerance",
    "export": "MODEL --out --precision --rewrites --trt --trt-batch --trt-arch --trt-refit --trt-compatible "
    "--overwrite --json",
    "convert": "RELEASED --out --clip --allow-missing-text --json",
    "info": "PATH --json",
    "doctor": "--json",
    "data check": "PATH --layout --split --sheet --decode --no-decode --json",
    "data icons": "--out --size --from --skin-tones --no-skin-tones --exclude-group --json",
    "train-clip": "--data --out --model --steps --batch-size --lr --weight-decay --patch-dropout "
    "--whiten --no-whiten --exclude --device --precision --seed --log-every --save-every --config --resume "
    "--json",
    "train": "--data --clip --out --init --model --layout --crop --flip --no-flip --caption-dropout "
    "--diff-augment --max-broken --workers --stream --exclude "
    "--steps --batch-size --accumulate --lr-g --lr-d --beta1 --beta2 "
    "--similarity-weight --penalty-weight --penalty-power --ema-decay --warmup-steps --warmup-lr "
    "--paired-steps --paired-pixel-weight --paired-feature-weight --range-weight --pose --no-pose "
    "--clip-shift --sample-prompts --evaluate-every --evaluate-against --evaluate-split "
    "--evaluate-count --device --precision --compile --no-compile --seed --log-every "
    "--save-every --keep --preset --config --resume --json",
    "": "--version --debug",
    "data": "",
}
"""Commands and their arguments: other people's scripts have them in, so nothing leaves this list lightly."""


def commands(group, name=""):
    for each, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{name} {each}".strip())
    yield name, group


def test_commands_and_options_are_frozen():
    found = {
        name: " ".join(
            word
            for parameter in command.params
            for word in (
                [*parameter.opts, *parameter.secondary_opts]
                if parameter.param_type_name == "option"
                else [parameter.name.upper()]
            )
        )
        for name, command in commands(typer.main.get_command(app))
    }
    assert found == COMMANDS


def test_every_command_has_help_and_so_has_every_option(run):
    for name, command in commands(typer.main.get_command(app)):
        code, out, err = run(*name.split(), "--help")
        assert (code, err) == (0, "")
        assert f"Usage: galip {name}".strip() in out
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.name}"
    code, out, _ = run("--help")
    assert all(name.split()[0] in out for name in COMMANDS if name)
    assert "Exit codes: 0 done, 1 unexpected, 2 usage" in out
    assert run() == (0, out, "")


def test_version(run):
    assert run("--version") == (0, "galip 0.1.0\n", "")


# Exit codes


MISTAKES = {
    "unknown command": (["nonsense"], "No such command 'nonsense'. See galip --help."),
    "no command": (["data"], "See galip data --help."),
    "unknown option": (["info", "x", "--colour"], "--colour"),
    "missing option": (
        ["train", "--data", "x"],
        "--clip, --out is missing; give it on the command line or in",
    ),
    "missing argument": (["info"], "Missing argument 'path'. See galip info --help."),
    "missing value": (["export", "--out"], "requires an argument"),
    "one too many": (["info", "x", "y"], "unexpected extra argument"),
    "no number": (["generate", "x", "--count", "two"], "--count"),
    "count 0": (["generate", "x", "--count", "0"], "at least 1 "),
    "seed -1": (["generate", "x", "--seed", "-1"], "seed -1 is out of range"),
    "seed 2^64": (["generate", "x", "--seed", str(2**64)], "out of range"),
    "picture of another kind": (["generate", "x", "--out", "x.pdf"], "x.pdf"),
    "folder that isn't there": (["generate", "x", "--out", "no/such/x.png"], "no/such"),
    "three prompts": (["interpolate", "a", "b", "c"], "3 prompts and 1 seeds"),
    "two models": (["generate", "x", "--model", "a", "--bundle", "b"], "--bundle or --model, not both"),
    "truncation 0": (["generate", "x", "--truncation", "0"], "truncation"),
    "no such metric": (
        ["evaluate", "x", "--against", "y", "--metrics", "fdi"],
        "no metric fdi; there are fid",
    ),
    "no prompts": (["sample-grid"], "there is no prompt"),
    "no prompts file": (["sample-grid", "--prompts-file", "no.txt"], "no.txt cannot be read"),
    "one step": (["interpolate", "a", "b", "--steps", "1", "--bundle", "BUNDLE"], "steps"),
    "no CLIP": (["convert", "x.pth", "--out", "y"], "--allow-missing-text"),
    "steps 0": (["train", "--data", "x", "--clip", "y", "--out", "z", "--steps", "0"], "steps is 0"),
    "no such preset": (
        ["train", "--data", "x", "--clip", "y", "--out", "z", "--preset", "huge"],
        "cub, coco, cc3m, cc12m, icons, table3-baseline",
    ),
    "no such model": (
        ["train-clip", "--data", "x", "--out", "z", "--model", "huge"],
        "released, default, default-64, tiny",
    ),
    "no data": (["train", "--clip", "y"], "--data, --out is missing"),
    "no config file": (["train", "--config", "no.toml"], "no.toml cannot be read"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_usage(fail, bundle, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    arguments = [str(bundle) if argument == "BUNDLE" else argument for argument in arguments]
    assert message in fail(2, *arguments)
    assert not list(tmp_path.iterdir())


def test_files_refused(fail, tmp_path, bundle):
    (tmp_path / "page.safetensors").write_text("<html>")
    (tmp_path / "folder").mkdir()
    broken = make_stub_bundle(tmp_path / "broken")
    (broken / "generator.onnx").write_bytes(b"")
    for arguments, message in (
        (["info", tmp_path / "nothing"], "does not exist"),
        (["info", tmp_path / "page.safetensors"], "no whole safetensors file"),
        (["info", "a" * 300], "File name too long"),
        (["generate", "x", "--bundle", "a" * 300, "--out", tmp_path / "x.png"], "File name too long"),
        (["info", tmp_path / "folder"], "with manifest.json in it"),
        (["info", broken], "generator.onnx"),
        (["export", tmp_path / "nothing", "--out", tmp_path / "new"], "does not exist"),
        (["generate", "x", "--bundle", broken, "--out", tmp_path / "x.png"], "generator.onnx"),
        (
            ["convert", tmp_path / "page.safetensors", "--clip", "openai", "--out", tmp_path / "new"],
            "no whole safetensors file",
        ),
        (
            ["train", "--data", tmp_path, "--clip", bundle, "--out", tmp_path / "new", "--model", "tiny"],
            str(bundle),
        ),
    ):
        assert message in fail(4, *arguments)
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "x.png").exists()


def test_a_device_that_is_not_there(fail, bundle, tmp_path):
    err = fail(5, "generate", "x", "--bundle", bundle, "--device", "cuda", "--out", tmp_path / "x.png")
    assert "cuda" in err
    assert not (tmp_path / "x.png").exists()


def raising(error):
    def function(*arguments, **options):
        raise error

    return function


def test_gate(fail, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(galip_export, "export_bundle", raising(QualityGateFailed("image differs by 0.5")))
    assert fail(3, "export", tiny_checkpoint, "--out", tmp_path / "b") == "galip: image differs by 0.5\n"


def test_interrupted(fail, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(galip_export, "export_bundle", raising(KeyboardInterrupt()))
    assert "interrupted" in fail(130, "export", tiny_checkpoint, "--out", tmp_path / "b")


def test_unexpected(fail, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(galip_export, "export_bundle", raising(ZeroDivisionError("by zero")))
    err = fail(1, "export", tiny_checkpoint, "--out", tmp_path / "b")
    assert "unexpected: ZeroDivisionError: by zero" in err
    assert "--debug" in err


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_debug_shows_the_traceback_from_anywhere(run, place):
    arguments = ["info", "nothing", "--json"]
    code, out, err = run(*arguments[:place], "--debug", *arguments[place:])
    assert (code, out) == (4, "")
    assert "Traceback" in err
    assert "FileRefused" in err
    assert err.splitlines()[-1].startswith("galip: nothing does not exist")


def test_debug_behind_two_dashes_is_an_argument(fail):
    assert "--debug does not exist" in fail(4, "info", "--", "--debug")


def test_a_reader_that_goes_away(tiny_checkpoint):
    """As `galip info … | head -0`: nothing on stderr."""
    for arguments in (["--help"], ["info", str(tiny_checkpoint)]):
        with subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode in (0, 1)


# Results


def test_info_on_a_checkpoint(run, tiny_checkpoint):
    code, out, err = run("info", tiny_checkpoint, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["kind"] == "galip checkpoint"
    assert found["parts"] == ["text", "image", "generator", "discriminator"]
    assert found["config"]["generator"]["noise_dim"] == 8
    assert found["note"] == {"made": "for tests"}
    assert found["bytes"] == tiny_checkpoint.stat().st_size
    assert set(found["parameters"]) == set(found["parts"])
    assert 4 * sum(found["parameters"].values()) < found["bytes"] < 5 * sum(found["parameters"].values())
    code, out, err = run("info", tiny_checkpoint)
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
    found = json.loads(out)
    assert found["kind"] == "bundle"
    assert found["dimensions"]["image_width"] == 8
    assert set(found["graphs"]) == {"text_encoder", "generator"}
    assert "kind: bundle" in run("info", bundle)[1]


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
    assert "psnr_db: 85" in run("info", bundle)[1]


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
    assert "parity.json is refused" in fail(4, "info", bundle)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("changed", ["bit", "deep", "number", "lone surrogate", "pipe", "device", "folder"])
def test_every_command_refuses_a_manifest_that_was_altered(fail, tmp_path, changed):
    bundle = make_stub_bundle(tmp_path / "bundle")
    path = bundle / "manifest.json"
    text = path.read_text()
    stub = {"deep": "[" * 900 + "]" * 900, "number": "1e999", "lone surrogate": '"\\ud800"'}.get(changed)
    if stub:
        path.write_text(text.replace('"stub": true', f'"stub": {stub}'))
    elif changed == "bit":
        path.write_text(text.replace('"stub": "1"', '"stub": "3"'))
    else:
        path.unlink()
        if changed == "pipe":
            os.mkfifo(path)
        elif changed == "device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
    out = tmp_path / "out.png"
    for command in (
        ["info", bundle],
        ["generate", "a", "--bundle", bundle, "--out", out],
        ["interpolate", "a", "b", "--bundle", bundle, "--out", out],
        ["sample-grid", "a", "--bundle", bundle, "--out", out],
        ["export", bundle, "--trt", "--out", tmp_path / "new"],
        ["bench", "--bundle", bundle],
        ["evaluate", bundle, "--against", tmp_path],
    ):
        assert "manifest.json" in fail(4, *command), command
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bundle"]


def test_engines_of_a_bundle(run, fail, bundle, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(galip_export.engines, "add_engines", lambda *a, **k: calls.append((a, k)) or ())
    out = tmp_path / "out"
    code, told, _ = run(
        "export", bundle, "--trt", "--trt-batch", "2", "--trt-arch", "sm86", "--out", out, "--json"
    )
    assert code == 0
    assert json.loads(told) == {"bundle": str(out), "engines": []}
    (given, how), options = calls[0], galip_export.BuildOptions((2,), ("8.6",))
    assert (given, how["overwrite"]) == ((bundle, out, options), False)
    assert "--trt builds engines" in fail(2, "export", bundle, "--out", out)
    assert "--trt builds engines" in fail(2, "export", bundle, "--out", out, "--trt", "--precision", "fp16")
    assert "--trt builds engines" in fail(2, "export", bundle, "--out", out, "--trt", "--rewrites", "none")
    assert "add --trt" in fail(2, "export", "--trt-arch", "sm86", "--out", out)
    assert "add --trt" in fail(2, "export", "--trt-batch", "2", "--out", out)
    assert "architecture 'ampere'" in fail(2, "export", bundle, "--trt", "--trt-arch", "ampere", "--out", out)


def test_trt_asks_for_fp16(run, tiny_checkpoint, tmp_path, monkeypatch):
    asked = []

    def export(*arguments, precisions, engines, **options):
        asked.append((precisions, engines))
        raise UsageError("enough")

    monkeypatch.setattr(galip_export, "export_bundle", export)
    run("export", tiny_checkpoint, "--out", tmp_path / "a")
    run("export", tiny_checkpoint, "--out", tmp_path / "a", "--trt")
    run("export", tiny_checkpoint, "--out", tmp_path / "a", "--trt", "--precision", "fp16, int8")
    engines = galip_export.BuildOptions()
    assert asked == [(("fp32",), None), (("fp32", "fp16"), engines), (("fp16", "int8"), engines)]


def test_doctor(run, monkeypatch):
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    assert "  cpu: works, in fp32, w16a32" in out
    found = json.loads(run("doctor", "--json")[1])
    assert found["devices"]["cpu"]["works"] is True
    for name, device in found["devices"].items():
        device.update(works=False, why=f"no {name} here", precisions=[])
    found["onnxruntime"]["problem"] = "two builds"
    found["gpus"] = {
        "driver": "13.0",
        "why": None,
        "found": [{"name": "H200", "compute_capability": "9.0", "memory": 2**37}],
    }
    monkeypatch.setattr(doctor, "examine", lambda: found)
    code, out, _ = run("doctor")
    assert code == 5
    for line in (
        "  cpu: no: no cpu here",
        "  problem: two builds",
        "  0: H200, compute capability 9.0, 128 GiB",
    ):
        assert f"\n{line}\n" in f"\n{out}"


def test_generate(run, bundle, tmp_path):
    picture = tmp_path / "a.png"
    arguments = ["generate", "a red apple", "--bundle", bundle, "--seed", 7, "--device", "cpu", "--out"]
    code, out, _ = run(*arguments, picture, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["seeds"], found["prompts"], found["device"]) == ([7], ["a red apple"], "cpu")
    assert found["file"] == str(picture)
    assert Image.open(picture).size == (8, 8)
    code, out, _ = run(*arguments, tmp_path / "b.png")
    assert code == 0
    assert "seed 7" in out
    assert np.array_equal(np.asarray(Image.open(picture)), np.asarray(Image.open(tmp_path / "b.png")))


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
    code, said, _ = run(*arguments, "--steps", 3, "--square", "--out", out, "--json")
    assert code == 0
    assert json.loads(said) == {
        "file": str(out),
        "prompts": ["a red apple", "a tree"],
        "steps": 3,
        "seeds": [7, 8],
        "pictures": 9,
    }


def test_sample_grid(run, bundle, tmp_path):
    (tmp_path / "prompts.txt").write_text("a tree\n\n été 車 \n", encoding="utf-8")
    arguments = ["sample-grid", "a red apple", "--prompts-file", tmp_path / "prompts.txt", "--bundle", bundle]
    code, out, _ = run(*arguments, "--seed", 4, "--count", 2, "--out", tmp_path / "a.png", "--json")
    assert code == 0
    said = json.loads(out)
    assert said["prompts"] == ["a red apple", "a tree", "été 車"]
    assert said["seeds"] == [4, 5]
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


def test_resume_without_the_other_options(run, tiny_data, tiny_clip, tmp_path, one_thread):
    arguments = ["train", "--data", tiny_data, "--clip", tiny_clip, "--model", "tiny", "--batch-size", 4]
    arguments += ["--steps", 1, "--precision", "fp32", "--device", "cpu", "--out", tmp_path / "run"]
    code, _, err = run(*arguments)
    assert code == 0, err
    code, _, err = run("train", "--resume", "--out", tmp_path / "run", "--steps", 2)
    assert code == 0, err
    assert "changed since the run began: steps 1, now 2" in err
    assert "step 2/2" in err


def test_convert(run, tiny_checkpoint, tmp_path, monkeypatch):
    asked = []

    def convert_released(source, out, **options):
        asked.append((source, out, options))
        out.write_bytes(tiny_checkpoint.read_bytes())

    monkeypatch.setattr(galip.convert, "convert_released", convert_released)
    out = tmp_path / "out.safetensors"
    code, said, err = run("convert", "x.pth", "--clip", "openai", "--out", out, "--json")
    assert code == 0
    assert json.loads(said) == {
        "checkpoint": str(out),
        "parts": ["text", "image", "generator", "discriminator"],
    }
    assert "converting" in err
    assert asked == [(Path("x.pth"), out, {"clip": "openai", "allow_missing_text": False})]


def test_train_clip(run, tiny_data, tmp_path, one_thread):
    arguments = [
        "--data",
        tiny_data,
        "--model",
        "tiny",
        "--steps",
        1,
        "--batch-size",
        4,
        "--precision",
        "fp32",
    ]
    code, out, err = run("train-clip", *arguments, "--out", tmp_path / "clip", "--json", "--device", "cpu")
    assert code == 0, err
    assert json.loads(out) == {"checkpoint": str(tmp_path / "clip" / "clip.safetensors")}
    assert "step 1/1" in err


@pytest.mark.parametrize(
    ("command", "module", "config_class"),
    [("train", gan, GanConfig), ("train-clip", contrastive, ContrastiveConfig)],
)
def test_options_are_the_config_s_fields(run, monkeypatch, tmp_path, command, module, config_class):
    """Each option reaches its field; where none is given the config's own default holds."""
    configs = []
    name = command.replace("-", "_")
    monkeypatch.setattr(
        module, name, lambda config, resume, echo: configs.append((config, resume)) or Path("x")
    )
    required = [field for field in dataclasses.fields(config_class) if field.default is dataclasses.MISSING]
    given = [part for field in required for part in (f"--{field.name}", f"a {field.name}")]
    assert run(command, *given)[0] == 0
    plain = config_class(**{field.name: f"a {field.name}" for field in required})
    assert configs.pop() == (plain, False)

    others = {int: 7, float: 0.25, tuple: ("color", "cutout"), str: "fp32"}
    texts = {"device": "cpu", "crop": "random", "stream": "no"}
    values = {
        field.name: not field.default
        if isinstance(field.default, bool)
        else texts.get(field.name, others[type(field.default)])
        for field in dataclasses.fields(config_class)
        if field not in required
    }
    for field, value in values.items():
        option = f"--{'no-' if value is False else ''}{field.replace('_', '-')}"
        given += (
            [option]
            if isinstance(value, bool)
            else [
                part for each in (value if isinstance(value, tuple) else [value]) for part in (option, each)
            ]
        )
    monkeypatch.chdir(tmp_path)
    assert "holds no run to go on with" in run(command, *given, "--resume")[2]
    (tmp_path / "a out" / "states").mkdir(parents=True)
    (tmp_path / "a out" / "states" / "0000001.pt").touch()
    assert run(command, *given, "--resume")[0] == 0
    assert configs.pop() == (dataclasses.replace(plain, **values), True)


# The shipped model


def test_without_a_bundle_the_shipped_model_is_exported_once(run, tmp_path, monkeypatch):
    exported = []

    def export_bundle(checkpoint, out, **options):
        exported.append((checkpoint, out))
        make_stub_bundle(out)

    monkeypatch.setattr(galip_export, "export_bundle", export_bundle)
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
    for name in ("a.png", "b.png"):
        code, _, err = run("generate", "a red apple", "--out", tmp_path / name, "--device", "cpu")
        assert code == 0, err
    ((checkpoint, out),) = exported
    assert checkpoint == assets.default_checkpoint()
    assert out.parent == tmp_path / "cache"
    assert out.name.startswith("default-")


def test_two_at_once_export_the_shipped_model(tmp_path, monkeypatch):
    """The slower of two processes takes the faster one's bundle; any other mistake stays one."""

    def slower(checkpoint, out, **options):
        make_stub_bundle(out)
        raise UsageError("exists already")

    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(galip_export, "export_bundle", raising(UsageError("unwritable")))
    with pytest.raises(UsageError, match="unwritable"):
        assets.default_bundle()
    monkeypatch.setattr(galip_export, "export_bundle", slower)
    assert assets.default_bundle().exists()


# Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (io.StringIO, "reading\nwriting 1/2\nwriting 2/2\n"),
        (
            Terminal,
            f"\r\x1b[Kreading\n\r\x1b[Kwriting {12 * '━'}{12 * '╌'} 1/2\r\x1b[Kwriting {24 * '━'} 2/2\n",
        ),
    ],
)
def test_progress(monkeypatch, stream, expected):
    monkeypatch.setattr(sys, "stderr", stream())
    with Progress() as progress:
        progress("reading", 0, 1)
        progress("writing", 1, 2)
        progress("writing", 1, 2)  # too soon
        progress("writing", 2, 2)
    assert sys.stderr.getvalue() == expected


def test_train_clip_is_one_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from galip.cli import main; main()", "train-clip",
         "--data", str(tmp_path), "--out", str(tmp_path / "run")],
        env={**os.environ, "WORLD_SIZE": "2"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "without torchrun" in done.stderr
    assert not (tmp_path / "run").exists()
