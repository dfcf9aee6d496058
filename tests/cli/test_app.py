"""The `galip` command: its options, help, exit codes and errors."""

import os
import subprocess
import sys

import galip_export
import galip_export.engines
import pytest
import typer.main
from galip_runtime.backends.tables import DEVICES
from galip_runtime.errors import ProviderUnavailable, QualityGateFailed
from galip_runtime.install import install_extra
from runtime.stub_bundle import make_stub_bundle

from galip.cli.app import app
from galip.cli.failures import as_galip_error

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


def test_help_imports_nothing_heavy():
    code = f"""
import sys
from galip.cli import main
try:
    main(["--help"])
except SystemExit as done:
    assert done.code == 0
print({{"heavy": [name for name in {HEAVY} if name in sys.modules]}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "{'heavy': []}" in done.stdout


COMMANDS = {
    "generate": "PROMPTS --bundle --model --seed --count --truncation --out --device --precision --threads "
    "--fallback --metadata --no-metadata --json",
    "generate-set": "PROMPTS --out --count --seeds --seed --truncation --bundle --device --precision "
    "--threads --shard-size --format --layout --workers --ray --json",
    "interpolate": "PROMPTS --steps --bundle --model --seed --square --truncation --out --device --precision "
    "--threads --fallback --metadata "
    "--no-metadata --json",
    "sample-grid": "PROMPTS --prompts-file --seed --count --truncation --labels --no-labels --bundle --model "
    "--out --device --precision --threads --fallback --metadata "
    "--no-metadata --json",
    "serve": "BUNDLE --host --port --device --precision --threads --max-batch --max-wait-ms --queue "
    "--timeout --grace --max-images --api-key-file --insecure --cors --workers "
    "--log-format --log-prompts --page",
    "evaluate": "SUBJECT --against --metrics --count --reference-count --split --layout --exclude --captions "
    "--protocol --size --clip --inception --batch-size --seed --save-statistics --cache --no-cache --device "
    "--precision --threads --ray --json",
    "bench": "--bundle --plain-bundle --model --subjects --batch --threads --launches --rounds --warmup "
    "--max-minutes --quick --cold-starts --pictures --fid --against --split --exclude --captions --inception "
    "--seed --worst --json --html --markdown --repeat --compare --tolerance",
    "export": "MODEL --out --precision --rewrites --int8-psnr --trt --trt-batch --trt-arch --trt-refit "
    "--trt-compatible --web --overwrite --json",
    "convert": "RELEASED --out --clip --allow-missing-text --json",
    "info": "PATH --verbose --json",
    "doctor": "--json",
    "data check": "PATH --layout --split --sheet --decode --no-decode --json",
    "data icons": "--out --size --from --skin-tones --no-skin-tones --exclude-group --variants --json",
    "train-clip": "--data --out --model --init --lock-image --no-lock-image --layout --crop "
    "--max-broken --steps --batch-size --lr --weight-decay --patch-dropout --whiten --no-whiten --teacher "
    "--teacher-weight --exclude --device --precision --seed --log-every --save-every --config --resume "
    "--json",
    "train": "--data --clip --out --init --model --layout --crop --flip --no-flip --caption-dropout "
    "--diff-augment --max-broken --workers --stream --exclude "
    "--steps --batch-size --accumulate --lr-g --lr-d --beta1 --beta2 "
    "--similarity-weight --penalty-weight --penalty-power --ema-decay --warmup-steps --warmup-lr "
    "--paired-steps --paired-pixel-weight --paired-feature-weight --range-weight --pose --no-pose "
    "--clip-shift --perceptual --perceptual-weight --projected-weight --perceptual-size "
    "--sample-prompts --evaluate-every --evaluate-against --evaluate-split "
    "--evaluate-count --device --precision --compile --no-compile --seed --log-every "
    "--save-every --keep --preset --config --resume --json",
    "": "--version --debug",
    "data": "",
}
"""Commands and their arguments: other people's scripts have them in, so nothing leaves this list lightly."""


def commands(group, name=""):
    for part, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{name} {part}".strip())
    yield name, group


def test_commands_and_options_are_frozen():
    frozen = {
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
    assert frozen == COMMANDS


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


def test_help_names_every_device(run):
    for command in ("generate", "generate-set", "interpolate", "sample-grid", "serve", "evaluate"):
        words = run(command, "--help")[1].replace(",", " ").replace(";", " ").split()
        assert set(DEVICES) <= set(words)


def test_version(run):
    assert run("--version") == (0, "galip 0.1.0\n", "")


MISTAKES = {
    "unknown command": (["nonsense"], ["'nonsense'", "galip --help"]),
    "no command": (["data"], ["galip data --help"]),
    "unknown option": (["info", "x", "--colour"], ["--colour", "galip info --help"]),
    "missing option": (["train", "--data", "x"], ["--clip", "--out"]),
    "missing argument": (["convert", "--out", "x"], ["'released'", "galip convert --help"]),
    "missing value": (["export", "--out"], ["'--out'"]),
    "one too many": (["info", "x", "y"], ["(y)"]),
    "no number": (["generate", "x", "--count", "two"], ["--count"]),
    "count 0": (["generate", "x", "--count", "0"], ["count", " 0"]),
    "seed -1": (["generate", "x", "--seed", "-1"], ["seed -1"]),
    "seed 2^64": (["generate", "x", "--seed", str(2**64)], [str(2**64)]),
    "picture of another kind": (["generate", "x", "--out", "x.pdf"], ["x.pdf"]),
    "folder that isn't there": (["generate", "x", "--out", "no/such/x.png"], ["no/such"]),
    "three prompts": (["interpolate", "a", "b", "c"], ["3 prompts"]),
    "two models": (["generate", "x", "--model", "a", "--bundle", "b"], ["--bundle", "--model"]),
    "truncation 0": (["generate", "x", "--truncation", "0"], ["truncation", "0.0"]),
    "no such metric": (["evaluate", "x", "--against", "y", "--metrics", "fdi"], ["fdi", "seed_psnr"]),
    "no prompts": (["sample-grid"], ["--prompts-file"]),
    "no prompts file": (["sample-grid", "--prompts-file", "no.txt"], ["no.txt"]),
    "one step": (["interpolate", "a", "b", "--steps", "1", "--bundle", "BUNDLE"], ["steps", " 1"]),
    "no CLIP": (["convert", "x.pth", "--out", "y"], ["--clip", "--allow-missing-text"]),
    "steps 0": (["train", "--data", "x", "--clip", "y", "--out", "z", "--steps", "0"], ["steps is 0"]),
    "no such preset": (
        ["train", "--data", "x", "--clip", "y", "--out", "z", "--preset", "huge"],
        ["'huge'", "quick, icons, cub, coco, cc3m, cc12m, table3-baseline"],
    ),
    "no such model": (
        ["train-clip", "--data", "x", "--out", "z", "--model", "huge"],
        ["'huge'", "released, default, default-64, tiny"],
    ),
    "no data": (["train", "--clip", "y"], ["--data", "--out"]),
    "no config file": (["train", "--config", "no.toml"], ["no.toml"]),
    "a bundle to export": (["export", "BUNDLE", "--out", "b"], ["BUNDLE", "--trt"]),
    "no batch sizes": (["bench", "--batch", "1,x"], ["--batch", "'1,x'"]),
    "no such port": (["serve", "BUNDLE", "--port", "65536"], ["port", "65536"]),
    "other machines without keys": (["serve", "BUNDLE", "--host", "0.0.0.0"], ["0.0.0.0", "--api-key-file"]),
    "no tolerance": (["bench", "--compare", "a", "b", "--tolerance", "-1"], ["--tolerance", "-1"]),
}
"""Command lines, and what their errors name: the offending value, the choices, where help is."""


@pytest.mark.parametrize(("arguments", "values"), MISTAKES.values(), ids=MISTAKES.keys())
def test_usage(fail, bundle, tmp_path, monkeypatch, arguments, values):
    monkeypatch.chdir(tmp_path)
    arguments = [str(bundle) if argument == "BUNDLE" else argument for argument in arguments]
    err = fail(2, *arguments)
    for value in values:
        assert value.replace("BUNDLE", str(bundle)) in err
    assert not list(tmp_path.iterdir())


def test_files_refused(fail, tmp_path, bundle):
    (tmp_path / "page.safetensors").write_text("<html>")
    (tmp_path / "folder").mkdir()
    broken = make_stub_bundle(tmp_path / "broken")
    (broken / "generator.onnx").write_bytes(b"")
    long, new, picture = "a" * 300, tmp_path / "new", tmp_path / "x.png"
    page, nothing = tmp_path / "page.safetensors", tmp_path / "nothing"
    for arguments, culprit in (
        (["info", nothing], nothing),
        (["info", page], page),
        (["info", long], long),
        (["generate", "x", "--bundle", long, "--out", picture], long),
        (["info", tmp_path / "folder"], tmp_path / "folder" / "manifest.json"),
        (["info", broken], broken / "generator.onnx"),
        (["export", nothing, "--out", new], nothing),
        (["serve", nothing], nothing),
        (["serve", bundle, "--api-key-file", nothing], nothing),
        (["generate", "x", "--bundle", broken, "--out", picture], broken / "generator.onnx"),
        (["convert", page, "--clip", "openai", "--out", new], page),
        (["train", "--data", tmp_path, "--clip", bundle, "--out", new, "--model", "tiny"], bundle),
    ):
        assert str(culprit) in fail(4, *arguments)
    assert not new.exists()
    assert not picture.exists()


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
    fail(130, "export", tiny_checkpoint, "--out", tmp_path / "b")


def test_unexpected(fail, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(galip_export, "export_bundle", raising(ZeroDivisionError("by zero")))
    err = fail(1, "export", tiny_checkpoint, "--out", tmp_path / "b")
    assert "ZeroDivisionError: by zero" in err
    assert "--debug" in err


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_debug_shows_the_traceback_from_anywhere(run, place):
    arguments = ["info", "nothing", "--json"]
    code, out, err = run(*arguments[:place], "--debug", *arguments[place:])
    assert (code, out) == (4, "")
    assert "Traceback" in err
    assert "FileRefused" in err
    assert err.splitlines()[-1].startswith("galip: nothing ")


def test_debug_behind_two_dashes_is_an_argument(fail):
    assert fail(4, "info", "--", "--debug").startswith("galip: --debug ")


def test_a_reader_that_goes_away(tiny_checkpoint):
    """As `galip info … | head -0`: nothing on stderr."""
    for arguments in (["--help"], ["info", str(tiny_checkpoint)]):
        with subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode in (0, 1)


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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


def test_a_command_whose_extra_is_not_installed_says_what_to_install():
    error = as_galip_error(ModuleNotFoundError("no such module", name="lightning_fabric"))
    assert type(error) is ProviderUnavailable
    for extra in ("train", "eval"):
        assert install_extra(extra, "galip") in str(error)
