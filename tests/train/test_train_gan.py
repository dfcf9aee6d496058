"""`galip train` on tiny pictures: exact resume, every option, and stops that lose nothing."""

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from error_checks import expect_error
from galip_runtime.errors import FileRefused, QualityGateFailed, UsageError
from PIL import Image
from safetensors.torch import load_file
from train.layout_fixtures import WRITERS, write_shards

from galip import losses
from galip.assets import default_checkpoint
from galip.checkpoint import PARTS, load_galip, read_info, save_galip
from galip.data.layouts import LAYOUTS
from galip.model import Galip
from galip.presets import preset
from galip.sheets import labelled_size
from galip.train import checkpointing, gan
from galip.train.collapse import CollapseDetector
from galip.train.config import GanConfig
from galip.train.gan import train
from galip.train.initialization import create_model
from galip.train.states import newest_state
from galip.train.stop_signals import TrainingStopped

pytestmark = pytest.mark.usefixtures("one_thread")


def quiet(line):
    pass


@pytest.fixture
def config(tiny_data, tiny_clip, tmp_path):
    """A run of six steps; the fifth batch crosses the border of two epochs (24 pictures, five a step)."""

    def make(out="run", **changes):
        options = {"model": "tiny", "steps": 6, "batch_size": 5, "log_every": 1, "save_every": 3}
        options |= {"precision": "fp32", "device": "cpu", "seed": 7, **changes}
        return GanConfig(data=str(tiny_data), clip=str(tiny_clip), out=str(tmp_path / out), **options)

    return make


def interrupt_at(step, signal_number=signal.SIGINT, times=1):
    """An echo that sends this process a signal when the line of `step` is printed."""

    def echo(line):
        if line.startswith(f"step {step}/"):
            for _ in range(times):
                os.kill(os.getpid(), signal_number)

    return echo


# Exact resume


@pytest.mark.parametrize(
    "options", [{}, {"precision": "bf16", "pose": True, "paired_steps": 5}], ids=["fp32", "bf16"]
)
def test_stopped_and_resumed_equals_one_go(config, same_state, saved, options):
    whole, parts = config("whole", **options), config("parts", **options)
    assert train(whole, echo=quiet).name == "model.safetensors"
    train(dataclasses.replace(parts, steps=3), echo=quiet)
    assert saved(parts.out)["step"] == 3
    train(dataclasses.replace(parts, steps=4), resume=True, echo=quiet)
    train(parts, resume=True, echo=quiet)
    assert saved(whole.out).keys() >= {"generator", "discriminator", "ema", "optimizer_g", "optimizer_d"}
    same_state(saved(whole.out), saved(parts.out))
    same_state(*(dict(sorted(load_file(f"{run.out}/model.safetensors").items())) for run in (whole, parts)))


def test_interrupted_and_resumed_equals_one_go(config, same_state, saved, logged):
    whole, parts = config("whole", save_every=100), config("parts", save_every=100)
    train(whole, echo=quiet)
    for step, number in ((2, signal.SIGINT), (4, signal.SIGTERM)):
        handler = signal.getsignal(number)
        with pytest.raises(TrainingStopped, match=rf"\b{step}\b"):
            train(parts, resume=True, echo=interrupt_at(step, number))
        assert signal.getsignal(number) is handler
        assert saved(parts.out)["step"] == step
        assert load_galip(Path(parts.out, "model.safetensors"), needs=PARTS).config == preset("tiny")
    train(parts, resume=True, echo=quiet)
    same_state(saved(whole.out), saved(parts.out))
    assert [line["step"] for line in logged(parts.out)] == [1, 2, 3, 4, 5, 6]
    scalars = [
        [
            {name: value for name, value in line.items() if name not in ("time", "pictures_per_second")}
            for line in log
        ]
        for log in (logged(whole.out), logged(parts.out))
    ]
    assert scalars[0] == scalars[1]


def test_a_second_signal_stops_at_once(config, saved, monkeypatch):
    monkeypatch.setattr("galip.train.stop_signals.PATIENCE", -1.0)  # which the second one outlasts
    run = config(save_every=2)
    with pytest.raises(KeyboardInterrupt):
        train(run, echo=interrupt_at(3, times=2))
    assert saved(run.out)["step"] == 2
    assert not [path for path in os.listdir(run.out) if path.endswith(".tmp") or path.startswith(".")]


def test_resuming_a_finished_run_changes_nothing(config, saved, same_state):
    run = config(steps=2)
    train(run, echo=quiet)
    before = saved(run.out)
    train(run, resume=True, echo=quiet)
    same_state(before, saved(run.out))


def test_resume_takes_the_new_learning_rates(config, saved):
    run = config(steps=1)
    train(run, echo=quiet)
    train(dataclasses.replace(run, steps=2, lr_g=1e-5, lr_d=2e-5), resume=True, echo=quiet)
    state = saved(run.out)
    assert state["optimizer_g"]["param_groups"][0]["lr"] == 1e-5
    assert state["optimizer_d"]["param_groups"][0]["lr"] == 2e-5


def test_the_rate_falls_during_the_warm_up(config, saved):
    """Half a cosine from --warmup-lr to --lr-g; then --lr-g and the paper's decays."""
    for steps, lr, betas in ((1, 1e-3, [0.9, 0.99]), (3, 0.55e-3, [0.9, 0.99]), (5, 1e-4, [0.0, 0.9])):
        run = config(f"run{steps}", steps=steps, warmup_steps=4, warmup_lr=1e-3, lr_g=1e-4)
        train(run, echo=quiet)
        group = saved(run.out)["optimizer_g"]["param_groups"][0]
        assert group["lr"] == pytest.approx(lr)
        assert list(group["betas"]) == betas


def test_sigint_to_the_command(config, saved):
    """As Ctrl-C in a terminal does: exit code 130, no traceback, nothing on stdout, and resume goes on."""
    run = config(steps=100_000, save_every=100_000)
    options = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in dataclasses.asdict(run).items()
        if not isinstance(value, bool | tuple)
    ]
    command = [sys.executable, "-c", "from galip.cli import main; main()", "train", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("step 3/"):
                process.send_signal(signal.SIGINT)
        stdout = process.stdout.read()
    assert process.returncode == 130, "".join(lines)
    assert stdout == ""
    assert "Traceback" not in "".join(lines)
    assert f"galip train --resume --out {run.out}" in lines[-2]
    assert "interrupted" in lines[-1]
    done = saved(run.out)["step"]
    assert done >= 3
    train(dataclasses.replace(run, steps=done + 1), resume=True, echo=quiet)
    assert saved(run.out)["step"] == done + 1


# What a run leaves behind


def test_a_run_s_folder(config, tiny_clip, saved, logged):
    echoed = []
    run = config(sample_prompts=("a red box", "a blue box"), log_every=2)
    path = train(run, echo=echoed.append)
    assert json.loads(Path(run.out, "config.json").read_text())["lr_g"] == 1e-4
    (options,) = [line for line in echoed if line.startswith("options: ")]
    given = {"--sample-prompts 'a red box' --sample-prompts 'a blue box'", "--log-every 2", "--model tiny"}
    assert all(option in options for option in given)
    assert "--lr-d" not in options, "it has its default"
    assert [line["step"] for line in logged(run.out)] == [2, 4, 6]
    assert all(math.isfinite(value) for line in logged(run.out) for value in line.values())
    assert set(logged(run.out)[0]) == {
        "step",
        "time",
        "pictures_per_second",
        "d_real",
        "d_mis",
        "d_fake",
        "magp",
        "g_adv",
        "clip_sim",
    }
    assert any(name.startswith("events.") for name in os.listdir(f"{run.out}/tensorboard"))
    assert sorted(os.listdir(f"{run.out}/samples")) == ["0000003.png", "0000006.png"]
    sheet = Image.open(f"{run.out}/samples/0000006.png")
    assert sheet.size[::-1] == labelled_size(2, 4, 28, 28)
    info = read_info(path)
    assert info.parts == PARTS
    assert info.note["step"] == 6
    assert info.note["pictures_seen"] == 30

    # CLIP is as it was, in both places; the generator in the file is the averaged one
    tensors, clip = load_file(path), load_file(tiny_clip)
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part in ("text", "image"):
            assert torch.equal(tensor, clip[rest if part == "text" else f"visual.{rest}"])
    assert all(name in info.aliases for name in load_galip(path).state_dict() if ".clip_vit." in name)
    state = saved(run.out)
    assert torch.equal(tensors["generator.to_rgb.weight"], state["ema"]["to_rgb.weight"])
    assert not torch.equal(tensors["generator.to_rgb.weight"], state["generator"]["to_rgb.weight"])
    assert torch.equal(
        tensors["discriminator.assessor.convs.0.weight"], state["discriminator"]["assessor.convs.0.weight"]
    )


def test_fid_on_a_schedule(config, logged, saved, monkeypatch, small_inception):
    """The best checkpoint is the one with the lowest FID, also after a resume; judging changes nothing."""
    monkeypatch.setattr("galip.metrics.inception.find_weights", lambda path=None: small_inception)
    options = {"evaluate_every": 2, "evaluate_count": 12}
    whole = config("whole", **options)
    train(whole, echo=quiet)
    fids = {line["step"]: line["fid"] for line in logged(whole.out) if "fid" in line}
    assert list(fids) == [2, 4, 6]
    best = read_info(Path(whole.out, "best.safetensors"))
    assert best.note["step"] == min(fids, key=fids.get)
    assert best.note["figures"]["fid"] == pytest.approx(min(fids.values()))
    parts = config("parts", **options)
    train(dataclasses.replace(parts, steps=4), echo=quiet)
    train(parts, resume=True, echo=quiet)
    assert saved(parts.out)["best"] == saved(whole.out)["best"]
    stopped = config("stopped", **options)
    with pytest.raises(TrainingStopped, match=r"\b4\b"):
        train(stopped, echo=interrupt_at(4))
    assert [line["step"] for line in logged(stopped.out) if "fid" in line] == [2]  # a stop doesn't wait
    train(stopped, resume=True, echo=quiet)
    assert {line["step"]: line["fid"] for line in logged(stopped.out) if "fid" in line} == fids
    assert saved(stopped.out)["best"] == saved(whole.out)["best"]
    plain = config("plain")
    train(plain, echo=quiet)
    assert torch.equal(
        saved(plain.out)["generator"]["to_rgb.weight"], saved(whole.out)["generator"]["to_rgb.weight"]
    )


OPTIONS = {
    "paired": ({"paired_steps": 2}, {"pixel", "feature"}),
    "pose, range, shift": ({"pose": True, "range_weight": 1.0, "clip_shift": 2}, {"excess"}),
    "warm-up": ({"warmup_steps": 2, "paired_steps": 4}, {"pixel"}),
    "bf16": ({"precision": "bf16", "paired_steps": 9, "clip_shift": 1}, {"pixel", "feature"}),
    "excluded": ({"exclude": ("colour=red", "colour=blue")}, set()),
    "plain losses": ({"similarity_weight": 0.0, "penalty_weight": 0.0, "beta1": 0.5, "beta2": 0.99}, set()),
}


@pytest.mark.parametrize(("options", "scalars"), OPTIONS.values(), ids=OPTIONS.keys())
def test_options(config, logged, options, scalars):
    run = config(steps=3, **options)
    train(run, echo=quiet)
    first, _, last = logged(run.out)
    assert scalars <= first.keys()
    assert all(math.isfinite(value) for line in (first, last) for value in line.values())
    if options.get("paired_steps") == 2:
        assert not scalars & last.keys()  # faded out


def test_each_network_learns_and_nothing_else(config, saved):
    run = config(steps=1, save_every=1)
    train(run, echo=quiet)
    one = saved(run.out)
    train(dataclasses.replace(run, steps=2), resume=True, echo=quiet)
    two = saved(run.out)
    for part, frozen in (("generator", ".clip_vit."), ("discriminator", "nothing")):
        for name, tensor in one[part].items():
            assert torch.equal(tensor, two[part][name]) == (frozen in f".{name}"), name


# Stops


def poison(monkeypatch, at_call, what):
    """Lets `what` of the generator's loss break in its `at_call`-th step."""
    calls = []
    original = losses.clip_similarity

    def poisoned(embedding, sentence):
        calls.append(None)
        value = original(embedding, sentence)
        if len(calls) != at_call:
            return value
        return value * float("nan") if what == "loss" else value + (value - value.detach()).sqrt()

    monkeypatch.setattr(losses, "clip_similarity", poisoned)


@pytest.mark.parametrize(("what", "log_every"), [("loss", 100), ("gradient", 1)])
def test_nan_stops_and_keeps_the_last_good_state(config, monkeypatch, saved, same_state, what, log_every):
    """A NaN loss, or a loss that is finite while its gradient isn't, in a step that would be saved."""
    run = config(log_every=log_every, save_every=2)
    with monkeypatch.context() as patch:
        poison(patch, 4, what)
        with pytest.raises(QualityGateFailed, match=re.escape(run.out)):
            train(run, echo=quiet)
    assert saved(run.out)["step"] == 2
    assert read_info(Path(run.out, "model.safetensors")).note["step"] == 2
    train(run, resume=True, echo=quiet)
    whole = config("whole")
    train(whole, echo=quiet)
    same_state(saved(whole.out), saved(run.out))


def test_a_learning_rate_far_too_high(config):
    with pytest.raises(QualityGateFailed):
        train(config(steps=50, lr_g=1e30, lr_d=1e30), echo=quiet)


def test_the_discriminator_has_won(config, monkeypatch, saved):
    monkeypatch.setattr(CollapseDetector, "HISTORY", 3)
    for name in ("hinge_real", "hinge_fake"):
        monkeypatch.setattr(losses, name, lambda logits: logits.mean() * 0)
    run = config(save_every=2)
    with pytest.raises(QualityGateFailed, match="--lr-d"):
        train(run, echo=quiet)
    assert saved(run.out)["step"] == 2  # three steps are needed to tell


def test_all_pictures_are_the_same(config, monkeypatch, saved):
    create_model = gan.create_model

    def constant(config):
        model = create_model(config)
        with torch.no_grad():
            model.generator.to_rgb.weight.zero_()
        return model

    monkeypatch.setattr(gan, "create_model", constant)
    monkeypatch.setattr(CollapseDetector, "HISTORY", 3)
    run = config(save_every=2, lr_g=1e-12)
    with pytest.raises(QualityGateFailed, match="--lr-g"):
        train(run, echo=quiet)
    assert saved(run.out)["step"] == 2


def test_healthy_runs_pass_the_check(config, monkeypatch):
    monkeypatch.setattr(CollapseDetector, "HISTORY", 3)
    train(config(), echo=quiet)


# Mistakes


def test_a_folder_that_holds_a_run(config, saved):
    run = config(steps=1)
    train(run, echo=quiet)
    before = {name: Path(run.out, name).read_bytes() for name in ("config.json", "states/0000001.pt")}
    with pytest.raises(UsageError, match=re.escape(run.out)):
        train(config(steps=2), echo=quiet)
    assert {name: Path(run.out, name).read_bytes() for name in before} == before


def test_damaged_state(config):
    run = config(steps=1)
    train(run, echo=quiet)
    with open(f"{run.out}/states/0000001.pt", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(FileRefused, match=r"0000001\.pt"):
        train(run, resume=True, echo=quiet)


def test_a_state_of_another_model(config, saved):
    run = config(steps=1)
    train(run, echo=quiet)
    state = saved(run.out)
    del state["discriminator"]["assessor.convs.0.weight"]
    torch.save(state, f"{run.out}/states/0000001.pt")
    before = Path(run.out, "config.json").read_text()
    with pytest.raises(UsageError, match=r"0000001\.pt"):
        train(dataclasses.replace(run, steps=9), resume=True, echo=quiet)
    assert Path(run.out, "config.json").read_text() == before
    torch.save(
        {"step": 1, "clip": {}, "optimizer": {}}, f"{run.out}/states/0000001.pt"
    )  # of galip train-clip
    with pytest.raises(UsageError, match=r"0000001\.pt"):
        train(run, resume=True, echo=quiet)


def test_a_save_cut_short_is_done_again(config, saved, monkeypatch):
    """The disk is full when the model is written: resuming does the last steps again and writes it."""

    def full(*arguments, **options):
        raise UsageError("no space left on device")

    run = config(steps=4, save_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(checkpointing, "save_galip", full)
        with pytest.raises(UsageError, match="no space left"):
            train(run, echo=quiet)
    assert newest_state(Path(run.out)) is None
    assert not Path(run.out, "model.safetensors").exists()
    path = train(run, resume=True, echo=quiet)
    assert read_info(path).note["step"] == saved(run.out)["step"] == 4


def test_pictures_all_the_same_in_the_warm_up(config, monkeypatch):
    create_model = gan.create_model

    def constant(config):
        model = create_model(config)
        model.generator.to_rgb.requires_grad_(False).weight.zero_()
        return model

    monkeypatch.setattr(gan, "create_model", constant)
    monkeypatch.setattr(CollapseDetector, "HISTORY", 3)
    with pytest.raises(QualityGateFailed, match="--lr-g"):
        train(config(warmup_steps=6), echo=quiet)


@pytest.mark.parametrize("layout", [name for name in WRITERS if name.partition("_")[0] in LAYOUTS])
def test_every_layout_trains(config, tmp_path, logged, layout):
    """Pictures of any size are brought to the model's, by a random crop as released."""
    data = WRITERS[layout](tmp_path / layout)
    echoed = []
    run = dataclasses.replace(config(steps=2, batch_size=2, crop="random", max_broken=0.9), data=str(data))
    train(run, echo=echoed.append)
    assert any(layout.partition("_")[0] in line for line in echoed if line.startswith("data: "))
    assert all(math.isfinite(value) for line in logged(run.out) for value in line.values())


def test_what_is_left_out_is_said_and_a_refused_caption_keeps_the_state(config, tmp_path, saved):
    data = WRITERS["folder_table"](tmp_path / "data")
    (data / "notes.md").write_text("x")
    refused = {"file": "0.png", "caption": f"\uff06#{'9' * 5000};"}
    with (data / "captions.jsonl").open("a") as table:
        table.write(json.dumps(refused))
    Image.new("RGB", (8, 8)).save(data / "0.png")
    echoed = []
    run = dataclasses.replace(config(steps=2, batch_size=2, save_every=1, max_broken=0.5), data=str(data))
    train(run, echo=echoed.append)
    assert [line for line in echoed if "notes.md" in line and ".md" in line]
    assert saved(run.out)["step"] == 2


def test_what_a_stream_leaves_out_is_said_once_it_is_known(config, tmp_path):
    shards = write_shards(tmp_path / "shards", 3, 4)
    for number in range(3):
        with tarfile.open(shards / f"{number:05}.tar", "a") as tar:
            tar.addfile(tarfile.TarInfo(f"{number}.mp3"))
    (shards / "notes.md").write_text("x")
    echoed = []
    options = {"steps": 6, "batch_size": 4, "save_every": 1, "stream": "yes"}
    train(dataclasses.replace(config(**options), data=str(shards)), echo=echoed.append)
    lines = [line for line in echoed if line.startswith("left out: ")]
    beside = [line for line in lines if "notes.md" in line]
    assert len(beside) == len(lines) - len(beside) + 1  # at the start, too
    assert lines[0] == beside[0]
    assert "3 files in tars ending in .mp3" in lines[-1]
    assert all(f"{number}.mp3" in lines[-1] for number in range(3))
    before = len(echoed)
    train(
        dataclasses.replace(config(**options | {"steps": 8}), data=str(shards)),
        resume=True,
        echo=echoed.append,
    )
    assert lines[-1] in echoed[before:]


def test_fp16_keeps_its_loss_scale(config, saved):
    """The scaler is part of the state, and a resumed run goes on with it."""
    train(config(precision="fp16", steps=2, save_every=2), echo=quiet)
    before = saved(config().out)["scaler"]
    train(config(precision="fp16", steps=3), resume=True, echo=quiet)
    after = saved(config().out)["scaler"]
    assert after["scale"] >= 64
    assert after != before


def test_a_clip_for_another_preset(config):
    with pytest.raises(UsageError, match=r"clip\.safetensors"):
        train(config(model="default"), echo=quiet)
    with pytest.raises(UsageError, match="huge"):
        train(config(model="huge"), echo=quiet)


def test_beginning_with_a_checkpoint(config, tiny_checkpoint, tmp_path):
    """Towers, generator and discriminator are the checkpoint's; the one step is too small to show."""
    begun = load_galip(tiny_checkpoint, needs=PARTS)
    still = {"steps": 1, "lr_g": 1e-12, "lr_d": 1e-12, "precision": "fp32", "ema_decay": 0.0}
    run = config(**still)
    path = train(dataclasses.replace(run, clip=str(tiny_checkpoint), init=str(tiny_checkpoint)), echo=quiet)
    for name, tensor in load_galip(path, needs=PARTS).state_dict().items():
        torch.testing.assert_close(tensor, begun.state_dict()[name], atol=1e-6, rtol=0)
    other = tmp_path / "other.safetensors"
    save_galip(other, Galip(preset("default")))
    with pytest.raises(UsageError, match=re.escape(str(other))):
        train(dataclasses.replace(config("b"), init=str(other)), echo=quiet)
    with pytest.raises(UsageError, match=re.escape(str(other))):
        train(dataclasses.replace(config("c"), clip=str(other)), echo=quiet)


def resized(sizes, channels, tiny_checkpoint):
    """Return a tiny model of other pictures with the towers of `tiny_checkpoint`."""
    begun, shape = load_galip(tiny_checkpoint, needs=PARTS), preset("tiny")
    generator = dataclasses.replace(shape.generator, channels=channels, sizes=sizes)
    model = Galip(dataclasses.replace(shape, generator=generator))
    model.use_towers(begun.text, begun.image)
    return model


@pytest.mark.parametrize(
    ("sizes", "channels", "shared"),
    [((8, 16), (16, 16, 12), {"0", "1"}), ((8, 16, 28, 56), (16, 16, 12, 8, 4), {"0", "1", "2"})],
)
def test_a_checkpoint_of_other_pictures(config, tmp_path, tiny_checkpoint, sizes, channels, shared):
    """All blocks that both have are the checkpoint's; the convolution to RGB is not."""
    other = resized(sizes, channels, tiny_checkpoint)
    path = tmp_path / "other.safetensors"
    save_galip(path, other)
    model = create_model(dataclasses.replace(config(), init=str(path)))
    ours, theirs = model.generator.state_dict(), other.generator.state_dict()
    taken = {name for name in ours.keys() & theirs if not name.startswith("to_rgb.")}
    assert {name.split(".")[1] for name in taken if name.startswith("blocks.")} == shared
    for name in taken:
        assert torch.equal(ours[name], theirs[name]), name
    for name, value in other.discriminator.state_dict().items():
        assert torch.equal(model.discriminator.state_dict()[name], value)


def test_a_checkpoint_whose_blocks_differ(config, tmp_path, tiny_checkpoint):
    path = tmp_path / "other.safetensors"
    save_galip(path, resized((8, 28), (16, 16, 12), tiny_checkpoint))
    with expect_error(UsageError, path):
        create_model(dataclasses.replace(config(), init=str(path)))


def test_the_shipped_model_begins_one_of_smaller_pictures(config, monkeypatch, tmp_path):
    """`default` is the shipped checkpoint, also where a file has that name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").write_text("not this one")
    model = create_model(dataclasses.replace(config(model="default-64"), clip="default", init="default"))
    shipped = load_galip(default_checkpoint(), needs=PARTS)
    for name, value in shipped.text.state_dict().items():
        assert torch.equal(model.text.state_dict()[name], value)
    first = "blocks.3."
    names = [name for name in model.generator.state_dict() if name.startswith(first)]
    assert names
    for name in names:
        assert torch.equal(model.generator.state_dict()[name], shipped.generator.state_dict()[name])


def test_what_is_not_there(config, tmp_path, tiny_checkpoint):
    run = config()
    with pytest.raises(UsageError, match="nothing"):
        train(dataclasses.replace(run, data=str(tmp_path / "nothing")), echo=quiet)
    with pytest.raises(FileRefused, match=r"nothing\.safetensors"):
        train(dataclasses.replace(run, clip=str(tmp_path / "nothing.safetensors")), echo=quiet)
    with pytest.raises(UsageError, match=r"\b25\b"):
        train(config(batch_size=25), echo=quiet)
    with pytest.raises(UsageError, match=re.escape(str(tiny_checkpoint / "run"))):
        train(dataclasses.replace(run, out=str(tiny_checkpoint / "run")), echo=quiet)
