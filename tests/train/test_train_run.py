"""What both trainings share: batches, random numbers, the moving average, pictures on the way in and out."""

import dataclasses
import json
import re
import signal
import sys

import numpy as np
import pytest
import torch
from galip_runtime.errors import FileRefused, ProviderUnavailable, QualityGateFailed, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from galip.clip import clip_tokenizer
from galip.data.crop import crop_from, to_square, uncropped
from galip.data.sampler import BatchSampler, generator_for
from galip.early_checks import check_batch_size
from galip.train import augment
from galip.train import run as runs
from galip.train.config import ContrastiveConfig, GanConfig
from galip.train.ema import EMA
from galip.train.fabric import FlooredScaler, choose_device, make_fabric
from galip.train.in_memory import InMemoryPictures
from galip.train.run import Run
from galip.train.states import newest_state
from galip.train.stop_signals import TrainingStopped

pytestmark = pytest.mark.usefixtures("one_thread")


# BatchSampler and random numbers


@given(count=st.integers(2, 40), share=st.floats(0, 1), seed=st.integers(0, 2**63), steps=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_each_epoch_sees_every_picture_once(count, share, seed, steps):
    size = max(1, round(count * share))
    batches = BatchSampler(count, size, seed)
    indices = torch.cat([batches[step] for step in range(steps)]).tolist()
    assert len(indices) == steps * size
    for first in range(
        0, len(indices) - count + 1, count
    ):  # also where a batch crosses the border of two epochs
        assert sorted(indices[first : first + count]) == list(range(count))
    assert (
        batches[steps - 1].tolist() == BatchSampler(count, size, seed)[steps - 1].tolist()
    )  # no state needed
    assert batches[0].tolist() == indices[:size]  # nor the order of asking


def test_epochs_and_seeds_differ():
    batches = BatchSampler(50, 50, 3)
    assert batches[0].tolist() != batches[1].tolist() != BatchSampler(50, 50, 4)[1].tolist()


def test_fewer_pictures_than_a_batch():
    with pytest.raises(UsageError, match=r"\b3\b.*\b4\b"):
        BatchSampler(3, 4, 0)


def test_random_numbers_depend_on_seed_stream_and_step_alone():
    def draw(*place):
        return torch.rand(4, generator=generator_for(*place)).tolist()

    assert draw(1, "gan", 5) == draw(1, "gan", 5)
    places = [(1, "gan", 5), (2, "gan", 5), (1, "clip", 5), (1, "gan", 6), (2**63, "gan", 5), (0, "", 0)]
    assert len({tuple(draw(*place)) for place in places}) == len(places)


# The moving average


def test_moving_average_warms_up():
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    ema = EMA(module, decay=0.5)
    expected = 0.0
    for step in range(20):
        module.weight.data.fill_(float(step + 1))
        ema.update(module, step)
        decay = min(0.5, (1 + step) / (10 + step))  # 0.1, 0.18, 0.25, … 0.5 from step 8 on
        expected = decay * expected + (1 - decay) * (step + 1)
        assert ema.values["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_moving_average_is_applied_and_taken_back():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).requires_grad_(False))
    ema = EMA(module, decay=0.9)
    assert set(ema.values) == {"0.weight", "0.bias"}  # frozen weights have no average
    live = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    ema.values["0.weight"].add_(1)
    with ema.applied(module):
        assert torch.equal(module[0].weight, live["0.weight"] + 1)
        assert torch.equal(module[1].weight, live["1.weight"])
    assert all(torch.equal(tensor, live[name]) for name, tensor in module.state_dict().items())


# A run's folder


def state_of(run):
    states = []
    run.restore(lambda state: states.append(state) or state["step"])
    (state,) = states
    return state


@dataclasses.dataclass
class Config:
    steps: int = 3


@pytest.fixture
def start(tmp_path):
    def make(resume=False, log_every=1, keep=1):
        return Run(
            tmp_path / "run", Config(), make_fabric("cpu", "fp32"), resume=resume, log_every=log_every,
            echo=lambda line: None, keep=keep,
        )  # fmt: skip

    return make


def test_a_state_that_cannot_be_written_leaves_the_old_one(start, monkeypatch):
    with start() as run:
        run.save_state({"step": 1, "weight": torch.ones(3)})

        def full(state, path):
            path.write_bytes(b"half")
            raise RuntimeError("unexpected pos 64 vs 0: no space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(torch, "save", full)
            with pytest.raises(UsageError, match=r"0000002\.pt"):
                run.save_state({"step": 2, "weight": torch.zeros(3)})
        assert state_of(run)["step"] == 1
        assert not list(run.out.rglob("*.tmp"))


def test_a_state_with_nan_weights_is_not_saved(start):
    """Losses are those before the update, so a step may break the weights and not show it yet."""
    with start() as run:
        run.save_state({"step": 1, "weights": {"a": torch.ones(3)}})
        broken = {"step": 2, "weights": {"a": torch.tensor([1, float("nan")])}}
        optimizer = {"step": 2, "optimizer": {"state": [{"exp_avg": torch.tensor([float("inf")])}]}}
        for state, name in ((broken, "weights.a"), (optimizer, "optimizer.state.0.exp_avg")):
            with pytest.raises(QualityGateFailed, match=re.escape(name)):
                run.save_state(state)
        assert state_of(run)["step"] == 1


def test_no_state_is_saved_after_a_nan_between_log_lines(start):
    with start(log_every=100) as run:
        run.log.log_step(1, 1000, 2, {"loss": torch.tensor(1.0)})
        run.save_state({"step": 1})
        run.log.log_step(2, 1000, 2, {"loss": torch.tensor(float("nan"))})
        with pytest.raises(QualityGateFailed, match="loss"):
            run.save_state({"step": 2})
        assert state_of(run)["step"] == 1


def test_a_signal_is_never_lost(start, monkeypatch):
    """Whenever it comes, also just after the processes have asked each other whether to stop."""
    asked = []

    def any_process(fabric, flag):
        asked.append(flag)
        if len(asked) == 2:
            signal.raise_signal(signal.SIGTERM)
        return flag

    monkeypatch.setattr(runs, "any_process", any_process)
    with start() as run, pytest.raises(TrainingStopped, match=r"\b3\b"):
        run.loop(
            0,
            9,
            2,
            9,
            lambda step: {},
            lambda done, saving, stopping: run.save_state({"step": done}) if saving else None,
        )
    assert asked == [False, False, True]
    assert state_of(run)["step"] == 3


@pytest.mark.parametrize("copies", [(signal.SIGTERM,) * 3, (signal.SIGINT, signal.SIGINT, signal.SIGTERM)])
def test_copies_of_a_signal_are_one(start, copies):
    """A terminal or a scheduler signals every process, and torchrun its own once more."""

    def step(index):
        if index == 1:
            for number in copies:
                signal.raise_signal(number)
        return {}

    def after(done, saving, stopping):
        assert stopping == (done == 2)

    with start() as run, pytest.raises(TrainingStopped, match=r"\b2\b"):
        run.loop(0, 9, 2, 9, step, after)


def test_the_rate_is_the_steps_alone(start, monkeypatch):
    """Not what comes before them, nor saving and judging in between."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def passing(seconds):
        now[0] += seconds

    with start() as run:
        passing(100)
        run.loop(4, 8, 10, 2, lambda index: passing(2) or {}, lambda *_: passing(50))
    rates = [json.loads(line)["pictures_per_second"] for line in (run.out / "log.jsonl").open()]
    assert rates == [5.0] * 4


def test_steps_that_are_done_again_are_logged_once(start, tmp_path):
    with start() as run:
        for step in (1, 2, 3):
            run.log.log_step(step, 9, 1, {"loss": torch.tensor(float(step))})
            if step == 1:
                run.save_state({"step": 1})
    with (run.out / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')  # a hard stop in the middle
    with start(resume=True) as run:
        run.log.log_step(2, 9, 1, {"loss": torch.tensor(20.0)})
    lines = [json.loads(line) for line in (run.out / "log.jsonl").open()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 20.0)]


@pytest.mark.parametrize("line", [b"\xff\n", b"null\n", b'{"step": "1"}\n', b"[" * 100_000 + b"\n"])
def test_a_log_that_is_damaged_is_kept(start, line):
    with start() as run:
        run.save_state({"step": 1})
        log = run.out / "log.jsonl"
    log.write_bytes(line)
    with pytest.raises(FileRefused, match=r"log\.jsonl"):
        start(resume=True)
    assert log.read_bytes() == line


@pytest.mark.parametrize("resume", [False, True])
def test_steps_of_a_run_that_saved_no_state_are_forgotten(start, resume):
    with start() as run:
        run.log.log_step(1, 9, 1, {"loss": torch.tensor(1.0)})
        log = run.out / "log.jsonl"
    with start(resume=resume) as run:
        assert log.read_text() == ""
        run.log.log_step(1, 9, 1, {"loss": torch.tensor(2.0)})
    assert [json.loads(line)["loss"] for line in log.open()] == [2.0]


def test_a_folder_is_one_training_s_at_a_time(start):
    with start() as run:
        with pytest.raises(UsageError, match=str(run.out)):
            start()
        run.log.log_step(1, 1, 1, {"loss": torch.tensor(1.0)})
        run.save_state({"step": 1})
    with start(resume=True):
        pass


def test_what_a_killed_training_left_is_removed(start, tmp_path):
    with start() as run:
        out = run.out
    for folder in (out, out / "states", out / "samples"):
        folder.mkdir(exist_ok=True)
        (folder / ".galip-0123456789ab").mkdir()
        (folder / ".galip-0123456789ab" / "file").write_bytes(b"half")
    with start():
        assert not list(out.rglob(".galip-*"))


def test_figures_that_are_measured_again_are_logged_once(start, tmp_path):
    with start() as run:
        run.log.log_step(1, 1, 1, {"loss": torch.tensor(1.0)})
        run.log.log_figures({"fid": 3.0}, 1)
        run.log.log_figures({"fid": 4.0}, 1)
        run.log.log_figures({"fid": 5.0}, 2)
        log = run.out / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["step"], line.get("fid")) for line in lines] == [(1, None), (1, 4.0), (2, 5.0)]


def test_changed_options_are_told_and_the_batch_can_t_change(tmp_path):
    @dataclasses.dataclass
    class Options:
        lr: float = 0.1
        seed: int = 1

    def run(config, resume):
        said = []
        Run(tmp_path, config, make_fabric("cpu", "fp32"), resume=resume, log_every=1, echo=said.append)
        return said

    run(Options(), False)
    (tmp_path / "states" / "0000001.pt").touch()
    assert "changed since the run began: lr 0.1, now 0.5" in run(Options(lr=0.5), True)
    assert not any(line.startswith("changed") for line in run(Options(), True))
    with pytest.raises(UsageError, match=r"seed.*\b1\b.*\b2\b"):
        run(Options(seed=2), True)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(60)])
def test_damaged_state(start, content):
    with start() as run:
        run.save_state({"step": 1})
    newest_state(run.out).write_bytes(content)
    with start(resume=True) as run, pytest.raises(FileRefused, match=r"0000001\.pt"):
        state_of(run)


def test_a_state_is_never_run(start, tmp_path):
    with start() as run:
        run.save_state({"step": 1})
    torch.save({"step": 1, "path": tmp_path}, newest_state(run.out))  # a harmless class, but a class
    with start(resume=True) as run, pytest.raises(FileRefused, match=r"0000001\.pt"):
        state_of(run)


def test_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ProviderUnavailable, match=r"tensorboard>="):
        Run(tmp_path / "run", Config(), make_fabric("cpu", "fp32"), resume=False, log_every=1, echo=print)
    assert not (tmp_path / "run").exists()


def test_a_batch_that_processes_cannot_share(monkeypatch):
    check_batch_size(2)
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_batch_size(8)
    check_batch_size(8, accumulate=2)
    for size, accumulate in ((6, 1), (9, 1), (4, 2)):
        with pytest.raises(UsageError, match=rf"\b{size}\b.*\b4\b"):
            check_batch_size(size, accumulate)


def test_the_newest_states_are_kept(start):
    with start(keep=2) as run:
        for step in (9, 10, 9_999_999, 10_000_000):
            run.save_state({"step": step})
    assert sorted(path.name for path in (run.out / "states").iterdir()) == ["10000000.pt", "9999999.pt"]
    with start(resume=True) as run:
        assert state_of(run)["step"] == 10_000_000


def test_the_loss_scale_has_a_floor():
    """As released: 64 at least, and found again by a resumed run."""
    scaler = FlooredScaler("cpu", init_scale=256.0)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    for expected in (128.0, 64.0, 64.0, 64.0):
        scaler.scale(weight * float("inf")).backward()  # an overflow: no step, half the scale
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert scaler.get_scale() == expected
    assert weight.item() == 1
    other = FlooredScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.get_scale() == 64


def test_a_fresh_run_has_no_state(start):
    with start(resume=True) as run:
        assert run.restore(lambda state: 1 / 0) == 0


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match=re.escape(str(out))):
            Run(out, Config(), make_fabric("cpu", "fp32"), resume=False, log_every=1, echo=print)


# Options


def test_devices():
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_cuda_where_there_is_none():
    with pytest.raises(ProviderUnavailable):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"device": "tpu"}, "tpu"),
        ({"precision": "fp8"}, "fp8"),
        ({"lr_g": 0.0}, "lr_g is 0"),
        ({"lr_d": float("nan")}, "lr_d is nan"),
        ({"ema_decay": 1.0}, "ema_decay is 1"),
        ({"beta2": 1.0}, "beta2 is 1"),
        ({"beta1": -0.1}, "beta1 is -0.1"),
        ({"penalty_power": -1.0}, "penalty_power is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"clip_shift": -1}, "clip_shift is -1"),
        ({"perceptual_weight": 1.0}, "--perceptual"),
        ({"projected_weight": 1.0}, "--perceptual"),
        ({"perceptual": "p"}, "projected_weight"),
        ({"projected_weight": -1.0}, "projected_weight is -1"),
        ({"perceptual_size": 15}, "perceptual_size is 15"),
        ({"log_every": 0}, "log_every is 0"),
        ({"save_every": 0}, "save_every is 0"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"keep": 0}, "keep is 0"),
        ({"caption_dropout": 1.0}, "caption_dropout is 1"),
        ({"crop": "left"}, "crop is 'left'"),
        ({"stream": "maybe"}, "stream is 'maybe'"),
        ({"diff_augment": ("blur",)}, "diff_augment.*blur"),
    ],
)
def test_options_out_of_range(changes, message):
    with pytest.raises(UsageError, match=message):
        GanConfig(data="d", clip="c", out="o", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_dropout": 1.0}, "patch_dropout is 1"),
        ({"lr": -1.0}, "lr is -1"),
        ({"teacher_weight": -1.0}, "teacher_weight is -1"),
        ({"lock_image": True}, "lock_image.*--init"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"crop": "left"}, "crop is 'left'"),
        ({"max_broken": 2.0}, "max_broken is 2"),
        ({"max_broken": -0.1}, "max_broken is -0.1"),
    ],
)
def test_options_of_train_clip_out_of_range(changes, message):
    with pytest.raises(UsageError, match=message):
        ContrastiveConfig(data="d", out="o", **changes)


# Pictures


def test_pictures_and_tokens(tiny_data):
    tokenizer = clip_tokenizer(64, 16)
    data = InMemoryPictures(tiny_data, "train", 28, tokenizer)
    assert data.pictures.shape == (24, 3, 28, 28)
    assert data.pictures.dtype is torch.uint8
    first = tokenizer.encode([captions[0] for captions in data.captions])
    tokens = data.tokens(torch.arange(24), None)
    assert np.array_equal(tokens, first[:, : tokens.shape[1]])
    assert not first[:, tokens.shape[1] :].any()
    drawn = {
        tuple(row)
        for seed in range(20)
        for row in data.tokens(torch.tensor([5]), generator_for(seed, "t", 0)).tolist()
    }
    assert len({row[: row.index(577) + 1] for row in drawn}) == 3  # all captions of picture 5 come up


def test_random_views_are_the_crops_of_training(tmp_path):
    """As `to_square` makes them of the picture, up to one level by rounding."""
    pixels = np.random.default_rng(0).integers(0, 256, (45, 80, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((160, 90), Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("noise")
    tokenizer = clip_tokenizer(64, 16)
    data = InMemoryPictures(tmp_path, "train", 28, tokenizer, crop="random")
    assert np.array_equal(data.pictures[0], to_square(image, 28, "exact"))
    places = torch.rand(40, 2, generator=generator_for(3, "crop", 0)).tolist()
    views = data.views(torch.zeros(40, dtype=torch.long), generator_for(3, "crop", 0))
    assert views.shape == (40, 3, 28, 28)
    for view, (x, y) in zip(views, places, strict=True):
        expected = to_square(image, 28, "random", x, y).astype(int)
        assert np.abs(view.numpy().astype(int) - expected).max() <= 1
    exact = InMemoryPictures(tmp_path, "train", 28, tokenizer)
    assert torch.equal(exact.views(torch.tensor([0]), generator_for(3, "crop", 0)), exact.pictures)


def test_a_panorama_costs_no_more_than_its_middle():
    panorama = Image.new("L", (60_000, 10), 0).convert("RGB")
    panorama.paste((255, 0, 0), (29_990, 0, 30_010, 10))
    kept = uncropped(panorama, 28)
    assert kept.shape == (3, 33, 8 * 33)
    red = np.flatnonzero(kept[0, 16] > 128)
    assert abs(red.mean() - kept.shape[2] / 2) < 2
    assert crop_from(kept, 28, 0.999, 0.999).shape == (3, 28, 28)


def test_pictures_left_out(tiny_data):
    def count(*exclude):
        return len(InMemoryPictures(tiny_data, "train", 28, clip_tokenizer(64, 16), exclude))

    assert count() == count("style") == count("colour=pink") == 24
    assert count("colour=red") == count("colour=red", "style") == 18
    assert count("colour=red", "colour=blue") == 12
    assert count("rank>11") == 12
    assert count("rank>5.5", "colour=red") == 4
    with pytest.raises(UsageError, match="tiny_data"):
        count("colour")
    with pytest.raises(UsageError, match="tiny_data"):
        count("place>3")  # no number there: left out
    with pytest.raises(UsageError, match="rank>few"):
        count("rank>few")


def test_pose():
    pictures = torch.rand(1, 3, 28, 28) * 2 - 1
    as_it_is = torch.tensor([[1.0, 0.5, 0.5]])
    torch.testing.assert_close(augment.pose(pictures, as_it_is), pictures, atol=1e-4, rtol=0)
    black = torch.full((1, 3, 28, 28), -1.0)
    small = augment.pose(black, torch.tensor([[0.0, 0.5, 0.5]]))
    assert small[0, :, 0].min() == 1  # white moves in
    assert small[0, :, 14, 14].max() == pytest.approx(-1)
    moved = augment.pose(black, torch.tensor([[1.0, 1.0, 0.5]]))
    assert moved[0, 0, 14, 0] == pytest.approx(-1)
    assert moved[0, 0, 14, 27] == 1
    assert moved[0, 0, 0].tolist() == pytest.approx(moved[0, 0, 14].tolist(), abs=1e-5)  # moved sideways only
    noise = torch.tensor([[0.0, -10, 1.0, 5.0]])
    expected = torch.tensor([[0.5, 0, 0.8413]])
    torch.testing.assert_close(augment.pose_from_noise(noise), expected, atol=1e-4, rtol=0)


def test_diff_augment():
    pictures = torch.rand(3, 3, 16, 16, dtype=torch.float64) * 2 - 1
    neutral = torch.full((3, 7), 0.5, dtype=torch.float64)
    same = augment.diff_augment(pictures, ("color", "translation"), neutral)
    torch.testing.assert_close(same, pictures)
    assert torch.equal(augment.diff_augment(pictures, (), torch.rand(3, 7)), pictures)
    left = neutral.clone()
    left[:, 3] = 0.0  # two of 16 pixels to the left: white comes in on the right
    moved = augment.diff_augment(pictures, ("translation",), left)
    assert torch.equal(moved[..., :14], pictures[..., 2:])
    assert (moved[..., 14:] == 1).all()
    down = neutral.clone()
    down[:, 4] = 0.999
    moved = augment.diff_augment(pictures, ("translation",), down)
    assert torch.equal(moved[:, :, 2:], pictures[:, :, :14])
    hole = augment.diff_augment(pictures, ("cutout",), neutral)
    assert (hole[:, :, 4:12, 4:12] == 0).all()
    assert torch.equal(hole[:, :, :4], pictures[:, :, :4])
    bright = neutral.clone()
    bright[:, 0] = 1.0
    torch.testing.assert_close(augment.diff_augment(pictures, ("color",), bright), pictures + 0.5)
    grey = neutral.clone()
    grey[:, 1] = 0.0
    assert augment.diff_augment(pictures, ("color",), grey).std(dim=1).max() < 1e-12
    loud = neutral.clone()
    loud[:, 2] = 1.0
    widened = augment.diff_augment(pictures, ("color",), loud)
    torch.testing.assert_close(widened.std(dim=(1, 2, 3)), 1.5 * pictures.std(dim=(1, 2, 3)))


@settings(max_examples=25, deadline=None)
@given(numbers=st.lists(st.floats(0, 1), min_size=7, max_size=7), side=st.integers(8, 20))
def test_diff_augment_passes_gradients(numbers, side):
    pictures = torch.zeros(1, 3, side, side, requires_grad=True)
    augmented = augment.diff_augment(pictures, ("color", "translation", "cutout"), torch.tensor([numbers]))
    assert augmented.shape == pictures.shape
    augmented.sum().backward()
    assert torch.isfinite(pictures.grad).all()


@pytest.mark.parametrize("offset", [(0, 0), (2, 0), (-2, 0), (0, 3), (1, -3), (-28, 28)])
def test_shift(offset):
    pictures = torch.rand(1, 3, 28, 28)
    right, down = offset
    rows = (torch.arange(28) - down).clamp(0, 27)
    columns = (torch.arange(28) - right).clamp(0, 27)
    assert torch.equal(augment.shift(pictures, offset), pictures[:, :, rows][:, :, :, columns])


def test_random_offsets_reach_both_ends():
    offsets = {augment.random_offset(1, generator_for(0, "shift", step)) for step in range(100)}
    assert offsets == {(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)}
