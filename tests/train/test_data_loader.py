"""Training batches: the same for any number of workers and ranks, after any stop, whatever is broken."""

import logging
import os
import signal
import time
import types

import numpy as np
import pytest
import torch
from galip_runtime.errors import FileRefused, QualityGateFailed, UsageError
from galip_runtime.tokenizer import Tokenizer
from PIL import Image
from train.layout_fixtures import captions, encoded, picture, write, write_folder, write_shards

from galip.data import batches
from galip.data import loader as loaders
from galip.data import stream as streams
from galip.data import workers as data_workers
from galip.data.batches import BatchResult
from galip.data.broken_pictures import BrokenPictureCounter
from galip.data.crop import to_square
from galip.data.decode import FORMATS
from galip.data.layouts import shards as shard_layout
from galip.data.loader import LoaderConfig, TrainingLoader
from galip.data.workers import LoaderFailed

SIZE = 16
TOKENIZER = Tokenizer([], context_length=40)


def make_folder(root, count=20, broken=()):
    """Pictures of one colour each, its red part being their number."""
    for index in range(count):
        content = encoded(Image.new("RGB", (20, SIZE), (index, 0, 0)), "PNG")
        write(root / f"{index:03}.png", content[:40] if index in broken else content)
        write(root / f"{index:03}.txt", f"caption {index}\nalso {index}\nthird {index}\n")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), 4, 6)


def make(data, rank=0, world_size=1, **options):
    options = {"batch_size": 6, "seed": 5, **options}
    return TrainingLoader(
        LoaderConfig(str(data), **options), size=SIZE, tokenizer=TOKENIZER, rank=rank, world_size=world_size
    )


def numbers(batch):
    """Of the pictures of `make_folder`."""
    return batch.pictures[:, 0, 0, 0].tolist()


def batches_of(loader, count):
    return [loader.batch(step) for step in range(count)]


def same(left, right):
    return (
        torch.equal(left.pictures, right.pictures)
        and torch.equal(left.tokens, right.tokens)
        and torch.equal(left.rows, right.rows)
        and left.captions == right.captions
    )


VARIED = {"crop": "random", "flip": True, "caption_dropout": 0.3}


def test_a_batch(folder):
    loader = make(folder)
    batch = loader.batch(0)
    assert (batch.pictures.dtype, batch.pictures.shape) == (torch.uint8, (6, 3, SIZE, SIZE))
    assert (batch.tokens.dtype, batch.rows.tolist()) == (torch.int64, [*range(6)])
    for number, caption, row in zip(numbers(batch), batch.captions, batch.tokens, strict=True):
        assert caption in (f"caption {number}", f"also {number}", f"third {number}")
        expected = TOKENIZER.encode(caption)[0]
        assert np.array_equal(row, expected[: len(row)])
        assert not expected[len(row) :].any()
    assert batch.tokens.shape[1] == 16  # the longest caption's 13, in eights
    assert len(loader) == 20
    assert loader.describe() == "20 pictures (layout folder, train), 3.0 captions each"
    assert loader.sample_captions(2) == ["caption 0", "caption 1"]


def test_an_epoch_has_every_picture_once_and_captions_vary(folder):
    loader = make(folder, batch_size=5)
    batches_of_epochs = [loader.batch(step) for step in range(8)]
    first, second = (
        [number for batch in batches_of_epochs[i : i + 4] for number in numbers(batch)] for i in (0, 4)
    )
    assert sorted(first) == sorted(second) == [*range(20)]
    assert first != second
    kinds = {caption.split()[0] for batch in batches_of_epochs for caption in batch.captions}
    assert kinds == {"caption", "also", "third"}


def test_the_global_generator_is_left_alone(folder, shards):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for data in (folder, shards):
        make(data, **VARIED).batch(0)
    assert torch.equal(before, torch.get_rng_state())


def test_the_seed_decides(folder):
    assert same(make(folder, **VARIED).batch(0), make(folder, **VARIED).batch(0))
    assert not same(make(folder, **VARIED).batch(0), make(folder, seed=6, **VARIED).batch(0))


def test_two_ranks_see_one_s_batches(folder):
    whole = make(folder, **VARIED)
    parts = [make(folder, rank, 2, **VARIED) for rank in range(2)]
    for step in range(5):
        expected = whole.batch(step)
        for rank, part in enumerate(parts):
            batch = part.batch(step)
            assert batch.rows.tolist() == [rank, rank + 2, rank + 4]
            assert torch.equal(batch.pictures, expected.pictures[rank::2])
            assert batch.captions == expected.captions[rank::2]


def test_it_goes_on_where_it_stopped(folder, tmp_path):
    whole = make(folder, **VARIED)
    expected = [whole.batch(step) for step in range(9)]
    for stop in (1, 3, 4, 7):  # 3 is within the first epoch's last batch
        first = make(folder, **VARIED)
        for step in range(stop):
            first.batch(step)
        torch.save(first.state(), tmp_path / "state.pt")
        again = make(folder, **VARIED)
        again.restore(torch.load(tmp_path / "state.pt", weights_only=True), stop)
        assert all(same(again.batch(step), expected[step]) for step in range(stop, 9))


def test_steps_come_one_after_the_other(folder):
    loader = make(folder)
    with pytest.raises(AssertionError, match=r"\b1\b.*\b0\b"):
        loader.batch(1)


# Workers. Starting some costs seconds, so each test starts few.


def test_workers_see_the_same(tmp_path):
    root = make_folder(tmp_path, 120, broken={3})
    plain, working = make(root, **VARIED), make(root, workers=2, **VARIED)
    for step in range(25):
        assert same(plain.batch(step), working.batch(step))
    assert plain.broken == working.broken == 1
    assert plain.state() | {"places": 0} == working.state() | {"places": 0}
    state = working.state()
    working.close()
    fresh = make(root, workers=1, **VARIED)
    fresh.restore(state, 25)
    assert same(fresh.batch(25), plain.batch(25))
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, and a batch system's stop, reach all processes
        os.kill(fresh._iterator._workers[0].pid, number)
    for step in range(26, 34):  # beyond what was made in advance
        assert same(fresh.batch(step), plain.batch(step))
    fresh.close()


def test_an_error_in_a_worker_is_raised_with_its_own_words(shards, tmp_path):
    root = write_shards(tmp_path, 2, 6)
    content = bytearray((root / "00001.tar").read_bytes())
    content[content.index(b"000010004.jpg")] ^= 1  # in the middle, which is seen when its turn comes
    (root / "00001.tar").write_bytes(content)
    loader = make(root, stream="yes", workers=1)
    with pytest.raises(FileRefused, match=r"00001\.tar") as refused:
        batches_of(loader, 9)
    assert "Traceback" not in str(refused.value)
    loader.close()


def test_a_worker_that_is_killed_or_hangs_is_an_error(folder, monkeypatch):
    loader = make(folder, workers=1)
    loader.batch(0)
    os.kill(loader._iterator._workers[0].pid, signal.SIGKILL)
    with pytest.raises(LoaderFailed):
        batches_from(loader, 1, 40)
    loader.close()
    loader = make(folder, workers=1)
    monkeypatch.setattr(data_workers, "MAX_WAIT", 3.0)
    monkeypatch.setattr(data_workers, "_outlive_stop_signals", hang)
    with pytest.raises(LoaderFailed, match="--workers"):
        loader.batch(0)
    loader.close()


def batches_from(loader, first, count):
    for step in range(first, first + count):
        loader.batch(step)


def hang(worker):
    time.sleep(60)


def test_shared_memory_that_is_too_small_is_known_before(folder, monkeypatch):
    usage = types.SimpleNamespace(free=1000)
    monkeypatch.setattr(data_workers.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UsageError, match="--workers 0"):
        make(folder, workers=2).batch(0)
    make(folder, workers=0).batch(0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_where_it_stopped(shards, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(streams, "BLOCK_SAMPLES", 4)  # here; in workers, which are new, it stays as it is
    options = {"stream": "yes", "workers": workers, "batch_size": 5, **VARIED}
    whole = make(shards, **options)
    expected, states = [], []
    for step in range(12):
        states.append(whole.state())
        expected.append(whole.batch(step))
    whole.close()
    for stop in range(12) if not workers else (7,):
        torch.save(states[stop], tmp_path / "state.pt")
        again = make(shards, **options)
        again.restore(torch.load(tmp_path / "state.pt", weights_only=True), stop)
        assert all(same(again.batch(step), expected[step]) for step in range(stop, 12))
        assert again.left_out_in_stream.state() == whole.left_out_in_stream.state()
        again.close()


def test_ranks_share_a_stream(shards):
    captions_of_ranks = []
    for rank in range(2):
        loader = make(shards, rank, 2, stream="yes", batch_size=8)
        captions_of_ranks += [caption for step in range(3) for caption in loader.batch(step).captions]
    assert len(set(captions_of_ranks)) == 24  # an epoch


# Streams


def test_a_stream_tells_what_it_is(shards, monkeypatch):
    loader = make(shards, stream="yes")
    assert len(loader) == 24
    assert loader.describe() == "24 pictures in 4 shards, streamed (readers: 1)"
    assert loader.sample_captions(2) == ["a red disc number 0", "a green disc number 1"]
    assert "layout shards" in make(shards).describe()
    monkeypatch.setattr(shard_layout, "STREAM_FROM", 1000)
    assert "streamed" in make(shards).describe()
    assert "streamed" not in make(shards, stream="no").describe()


def test_a_stream_of_other_shards_ranks_or_workers_is_another(shards, folder):
    state = make(shards, stream="yes").state()
    with pytest.raises(UsageError, match="readers 1, now 2"):
        make(shards, stream="yes", workers=2).restore(state, 1)
    with pytest.raises(UsageError, match=r"kind 'stream', now 'pictures'; shards 4\b"):
        make(shards, stream="no").restore(state, 1)
    with pytest.raises(UsageError, match="readers 1, now 2"):
        make(shards, 0, 2, stream="yes").restore(state, 1)
    with pytest.raises(UsageError, match="pictures 20, now 24"):
        make(shards).restore(make(folder).state(), 1)
    with pytest.raises(UsageError, match="layout folder"):
        make(folder, stream="yes")


# Broken pictures


def test_a_broken_picture_is_replaced_and_counted_once(tmp_path, caplog):
    root = make_folder(tmp_path, 20, broken={4})
    loader = make(root, max_broken=0.1)
    with caplog.at_level(logging.WARNING):
        epochs = [loader.batch(step) for step in range(20)]  # six epochs
    assert loader.broken == 1
    assert [record.message for record in caplog.records if "004.png" in record.message] == [
        f"skipped: {root}/004.png: broken picture: it is none of {', '.join(FORMATS)}"
    ]
    assert 4 not in {number for batch in epochs for number in numbers(batch)}
    state = loader.state()
    again = make(root, max_broken=0.1)
    again.restore(state, 20)
    again.batch(20)
    assert again.broken == 1


def test_ranks_replace_alike(tmp_path):
    root = make_folder(tmp_path, 20, broken={4, 9})
    whole, part = make(root, max_broken=1), make(root, 1, 2, max_broken=1)
    for step in range(8):
        assert whole.batch(step).captions[1::2] == part.batch(step).captions


def test_too_many_broken_pictures_stop_the_run(tmp_path):
    root = make_folder(tmp_path, 20, broken={4, 9})
    loader = make(root, max_broken=0.05)
    with pytest.raises(QualityGateFailed, match=r"\b2 of 20\b.*10\.0%") as failed:
        batches_of(loader, 9)
    assert "004.png" in str(failed.value)
    assert "009.png" in str(failed.value)


def test_of_a_large_set_a_hundred_are_enough(tmp_path):
    root = make_folder(tmp_path, 300, broken=range(0, 300, 10))
    loader = make(root, batch_size=10)
    with pytest.raises(QualityGateFailed, match=r"of 1\d\d\b"):
        batches_of(loader, 30)


@pytest.mark.parametrize("share", [0.005, 0.01])
def test_chance_stops_no_run_at_the_share_allowed(share):
    """Nor does asking at every step, on eight ranks: here 80 ranks of 20,000 pictures each."""
    rng = np.random.default_rng(0)
    for _ in range(80):
        counter = BrokenPictureCounter(0.01, None)
        for broken in rng.binomial(20, share, 1_000):
            counter.add(BatchResult(tried=20, broken=[(-1, "x")] * broken))
        assert counter.tried == 20_000


def test_twice_the_share_allowed_is_noticed_soon():
    counter, rng = BrokenPictureCounter(0.01, None), np.random.default_rng(0)

    def add_many():
        for broken in rng.binomial(20, 0.02, 500):
            counter.add(BatchResult(tried=20, broken=[(-1, "x")] * broken))

    with pytest.raises(QualityGateFailed, match=r"\b1\.0%"):
        add_many()


def test_a_whole_set_is_counted_exactly():
    counter = BrokenPictureCounter(0.01, 1_000)
    counter.add(BatchResult(tried=999, broken=[(index, "x") for index in range(11)]))
    with pytest.raises(QualityGateFailed, match=r"\b11 of 1000\b"):
        counter.add(BatchResult(tried=1))


def test_nothing_but_broken_pictures(tmp_path, monkeypatch):
    for module in (batches, loaders):
        monkeypatch.setattr(module, "ATTEMPTS", 10)
    root = make_folder(tmp_path, 20, broken=range(20))
    with pytest.raises(QualityGateFailed, match=r"\b10\b"):
        make(root, max_broken=1).batch(0)


def test_in_a_stream_too(tmp_path):
    root = write_shards(tmp_path, 2, 6)
    content = (root / "00000.tar").read_bytes()
    (root / "00000.tar").write_bytes(content.replace(b"\xff\xd8\xff", b"\xff\xd8\xfe"))
    loader = make(root, stream="yes", max_broken=0.5)
    for step in range(6):
        batch = loader.batch(step)
        assert all(int(caption.split()[-1]) >= 6 for caption in batch.captions)
    assert loader.broken >= 12
    loader = make(root, stream="yes", max_broken=0.2)
    with pytest.raises(QualityGateFailed, match=r"\b20\.0%"):
        batches_of(loader, 30)


def test_a_caption_that_cannot_be_tokenised_is_broken(tmp_path):
    root = make_folder(tmp_path, 20)
    write(root / "003.txt", "x" * 200_000)
    loader = make(root, max_broken=0.1, batch_size=20)
    assert 3 not in numbers(loader.batch(0))
    assert loader.broken == 1


# Crops, captions, what is left out


def test_exact():
    wide = Image.new("RGB", (40, 20), "white")
    wide.paste("red", (10, 0, 30, 20))
    assert (to_square(wide, SIZE, "exact") == np.reshape((255, 0, 0), (3, 1, 1))).mean() > 0.9
    fits = picture(2).resize((SIZE, SIZE))
    assert np.array_equal(to_square(fits, SIZE, "exact", 0.9, 0.9).transpose(1, 2, 0), fits)
    mirrored = to_square(fits, SIZE, "exact", mirrored=True)
    assert np.array_equal(mirrored.transpose(1, 2, 0)[:, ::-1], fits)


@pytest.mark.parametrize("size", [(64, 64), (90, 30), (33, 57), (SIZE, SIZE), (500, 333), (19, 19)])
def test_random_crops_as_the_released_code(size):
    """Resize of the shorter side to int(S · 76/64), then a window: torchvision's order of things."""
    whole = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))
    resized_sides = [max(side * 19 // min(size), 19) for side in size]
    resized = whole.resize(resized_sides, Image.Resampling.BILINEAR)
    for x, y in ((0, 0), (0.5, 0.3), (0.999, 0.999)):
        left, top = int(x * (resized_sides[0] - SIZE + 1)), int(y * (resized_sides[1] - SIZE + 1))
        expected = np.asarray(resized.crop((left, top, left + SIZE, top + SIZE)), int)
        crop = to_square(whole, SIZE, "random", x, y).transpose(1, 2, 0).astype(int)
        assert abs(crop - expected).max() <= 1, (x, y)


def test_a_panorama_costs_no_more_than_a_square():
    assert to_square(Image.new("RGB", (60_000, 1)), 256, "random", 0.5).shape == (3, 256, 256)
    assert to_square(Image.new("RGB", (1, 60_000)), 256, "exact").shape == (3, 256, 256)


def test_half_is_mirrored_and_crops_vary(folder, tmp_path):
    half = Image.new("RGB", (SIZE, SIZE), "white")
    half.paste("black", (0, 0, SIZE // 2, SIZE))
    for index in range(20):
        write(tmp_path / f"{index}.png", encoded(half, "PNG"))
        write(tmp_path / f"{index}.txt", "half")
    loader = make(tmp_path, batch_size=20, flip=True)
    dark_left = torch.cat([loader.batch(step).pictures[:, 0, 0, 0] for step in range(10)]) == 0
    assert 70 < dark_left.sum() < 130
    loader = make(tmp_path, batch_size=20, crop="random")
    widths = {int((picture[0, 0] < 128).sum()) for picture in loader.batch(0).pictures}
    assert len(widths) >= 3


def test_dropped_captions_are_the_empty_prompt(folder):
    loader = make(folder, batch_size=20, caption_dropout=0.25)
    results = [loader.batch(step) for step in range(20)]
    dropped = [(batch.captions[i], batch.tokens[i]) for batch in results for i in range(20)]
    empty = [tokens for caption, tokens in dropped if not caption]
    assert 70 < len(empty) < 130
    expected = TOKENIZER.encode("")[0]
    assert all(np.array_equal(tokens, expected[: len(tokens)]) for tokens in empty)
    assert not any(caption for caption in make(folder, caption_dropout=1.0).batch(0).captions)


def test_some_are_left_out(shards):
    loader = make(shards, exclude=("width=48", "height>60"), batch_size=4)
    assert len(loader) == 18
    remaining = {caption for step in range(8) for caption in loader.batch(step).captions}
    assert not any("red" in caption or "blue" in caption for caption in remaining)
    with pytest.raises(UsageError, match="status=success"):
        make(shards, exclude=("status=success",))


def test_splits(tmp_path):
    root = write_folder(tmp_path)
    assert make(root, split="val", batch_size=1).sample_captions(3) == [captions(4, 1)[0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "centre"}, "crop is 'centre'"),
        ({"stream": "maybe"}, "stream is 'maybe'"),
        ({"caption_dropout": 1.5}, "caption_dropout is 1.5"),
        ({"max_broken": -1}, "max_broken is -1"),
        ({"workers": -1}, "workers -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 21}, r"\b20\b.*\b21\b"),
    ],
)
def test_values_out_of_range(folder, options, message):
    with pytest.raises(UsageError, match=message):
        make(folder, **options)


def test_a_batch_that_ranks_cannot_share(folder):
    with pytest.raises(UsageError, match=r"\b6\b.*\b4\b"):
        make(folder, 0, 4)
