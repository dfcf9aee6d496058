"""FID, KID, precision and recall, against independent implementations and hand-made sets."""

import contextlib
import io
import re
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from galip_runtime.errors import FileRefused, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from galip.clip import import_open_clip
from galip.metrics import Statistics, frechet_distance, kernel_distance, precision_recall


def features(count, width=24, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width))
    return (rng.normal(size=(count, width)) @ mixing + shift).astype(np.float32)


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), offset=st.sampled_from([0.0, 1e3, 1e6]))
@settings(max_examples=40, deadline=None)
def test_in_batches_as_at_once(sizes, offset):
    """Also far from zero, where a difference of sums would lose everything."""
    rows = np.random.default_rng(0).normal(size=(sum(sizes) + 2, 5)) + offset
    streamed, first = Statistics(5), 0
    for size in [*sizes, 2]:
        streamed.update(rows[first : first + size])
        first += size
    np.testing.assert_allclose(streamed.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(streamed.covariance, np.cov(rows.T), atol=1e-8, rtol=1e-8)
    assert streamed.count == len(rows)


def test_parts_merge_to_the_whole():
    rows = features(50).astype(np.float64)
    parts = [Statistics.of(rows[start::3]) for start in range(3)]
    whole = Statistics(24)
    for part in parts:
        whole.merge(part)
    np.testing.assert_allclose(whole.covariance, np.cov(rows.T), atol=1e-10)
    with pytest.raises(UsageError):
        _ = Statistics.of(rows[:1]).covariance


def test_fid_agrees_with_other_implementations():
    """torchmetrics' arithmetic, and the textbook's matrix root."""
    import_open_clip()  # torchmetrics imports torchvision, which this makes possible where it doesn't match
    from torchmetrics.image.fid import _compute_fid

    a, b = Statistics.of(features(400)), Statistics.of(features(300, seed=1, shift=0.7))
    ours = frechet_distance(a, b)
    tensors = [torch.from_numpy(x) for x in (a.mean, a.covariance, b.mean, b.covariance)]
    assert ours == pytest.approx(float(_compute_fid(*tensors)), rel=1e-3)
    root = sqrtm(a.covariance @ b.covariance).real
    difference = a.mean - b.mean
    textbook = difference @ difference + np.trace(a.covariance + b.covariance - 2 * root)
    assert ours == pytest.approx(textbook, rel=1e-6)


def test_fid_of_a_set_with_itself_is_nothing_and_of_halves_little():
    a = features(2000)
    whole = Statistics.of(a)
    assert abs(frechet_distance(whole, whole)) < 1e-6
    halves = frechet_distance(Statistics.of(a[::2]), Statistics.of(a[1::2]))
    noise = frechet_distance(whole, Statistics.of(np.random.default_rng(3).uniform(-30, 30, a.shape)))
    assert 0 < halves < 0.05 * noise
    few = Statistics.of(a[:10])  # a covariance without full rank
    assert abs(frechet_distance(few, few)) < 1e-6
    with pytest.raises(UsageError, match=r"\b\d+\b.*\b\d+\b"):
        frechet_distance(whole, Statistics.of(a[:, :5]))


def test_kid_agrees_with_another_implementation():
    import_open_clip()
    from torchmetrics.image.kid import poly_mmd

    a, b = features(60), features(50, seed=1, shift=0.5)
    ours, spread = kernel_distance(a[:50], b, subsets=1, size=50)
    theirs = poly_mmd(torch.from_numpy(a[:50]).double(), torch.from_numpy(b).double())
    assert ours == pytest.approx(float(theirs), rel=1e-3)
    assert spread == 0
    same = kernel_distance(features(500), features(500, seed=5), subsets=20, size=200)
    far = kernel_distance(features(500), features(500, seed=5, shift=3.0), subsets=20, size=200)
    assert abs(same[0]) < 3 * same[1] + 1e-9
    assert far[0] > 10 * abs(same[0])
    assert kernel_distance(a, b) == kernel_distance(a, b)
    with pytest.raises(UsageError):
        kernel_distance(a[:1], b)


def test_precision_and_recall_of_clusters():
    """A generator that covers one of two clusters well: precise, half the recall; noise far off: neither."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(0, 0.1, (200, 4)), rng.normal(10, 0.1, (200, 4))
    real = np.concatenate([left, right])
    precision, recall = precision_recall(real, rng.normal(0, 0.1, (400, 4)), block=64)
    assert precision > 0.9
    assert recall == pytest.approx(0.5, abs=0.06)
    assert precision_recall(real, rng.normal(100, 0.1, (50, 4))) == (0, 0)
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, left, block=7) == precision_recall(real, left, block=1000)
    with pytest.raises(UsageError):
        precision_recall(real[:3], real)


# Statistics files


def test_statistics_files_come_back(tmp_path):
    whole = Statistics.of(features(40))
    whole.save(tmp_path / "a.npz")
    back = Statistics.load(tmp_path / "a.npz")
    assert back.count == 40
    np.testing.assert_allclose(back.covariance, whole.covariance, rtol=1e-12)
    np.savez(tmp_path / "b.npz", mu=whole.mean.astype(np.float32), sigma=whole.covariance)  # pytorch-fid's
    other = Statistics.load(tmp_path / "b.npz")
    assert frechet_distance(other, whole) == pytest.approx(0, abs=1e-4)
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / "no"))):
        whole.save(tmp_path / "no" / "a.npz")


@pytest.mark.parametrize(
    "content",
    [
        {"mu": np.zeros(3)},
        {"mu": np.zeros((3, 1)), "sigma": np.eye(3)},
        {"mu": np.zeros(3), "sigma": np.eye(4)},
        {"mu": np.full(3, np.nan), "sigma": np.eye(3)},
        {"mu": np.array([None] * 3), "sigma": np.eye(3)},
        {"mu": np.array(["a"] * 3), "sigma": np.eye(3)},
        {"mu": np.zeros(3), "sigma": np.eye(3), "count": 1},
        {"mu": np.zeros(3), "sigma": np.eye(3), "count": np.inf},
        {"mu": np.zeros(3), "sigma": np.eye(3), "count": np.nan},
        {"mu": np.zeros(3), "sigma": np.eye(3), "count": -5},
        {"mu": np.zeros(3), "sigma": np.eye(3), "count": 1e300},
        {"mu": np.zeros(3), "sigma": np.eye(3), "count": np.array([5, 6])},
        {"mu": np.zeros(3, complex), "sigma": np.eye(3)},
        {"mu": np.zeros(0), "sigma": np.zeros((0, 0))},
        {"mu": np.zeros(3), "sigma": -np.eye(3)},
        {"mu": np.zeros(2), "sigma": np.array([[1.0, 2.0], [2.0, 1.0]])},  # a variance of -1
        {"mu": np.zeros(2), "sigma": np.array([[1.0, 0.9], [0.0, 1.0]])},  # not symmetric
        {"mu": np.zeros(2), "sigma": np.full((2, 2), 1e308)},
        {"mu": np.zeros(3), "sigma": np.zeros((3, 3), [("a", float)])},
    ],
    ids=str,
)
def test_other_files_are_refused(tmp_path, content):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(FileRefused, match=r"a\.npz"):
        Statistics.load(tmp_path / "a.npz")


def npz(path, **members):
    """An .npz of members as bytes, whatever they are."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def npy(shape, content=b""):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return header.getvalue() + content


@pytest.mark.parametrize(
    "sigma",
    [
        npy((10**6, 10**6)),  # 7 TiB claimed
        npy((2**40,)),
        npy((-1, 3)),
        npy((3, 3), bytes(2**24)),  # more than the shape says
        npy((3, 3), bytes(8)),  # less
        b"\x93NUMPY\x09\x09",
        npy((3, 3))[:20],
        npy((True,), bytes(8)),
        npy((0, 10**20)),
    ],
    ids=["huge", "long", "negative", "more", "less", "format", "cut", "truth", "nothing"],
)
def test_what_a_file_claims_is_checked_before_memory_is_taken(tmp_path, sigma):
    npz(tmp_path / "a.npz", mu=npy((3,), bytes(24)), sigma=sigma)
    tracemalloc.start()
    try:
        with pytest.raises(FileRefused, match=r"a\.npz"):
            Statistics.load(tmp_path / "a.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_an_archive_of_many_members_is_not_listed(tmp_path):
    entry = b"PK\1\2" + bytes(24) + b"\1" + bytes(17) + b"a"
    end = b"PK\5\6" + bytes(8) + (len(entry) * 50_000).to_bytes(4, "little") + bytes(6)
    (tmp_path / "a.npz").write_bytes(entry * 50_000 + end)
    with pytest.raises(FileRefused, match=r"\.npz"):
        Statistics.load(tmp_path / "a.npz")


@given(st.integers(0, 1200), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_refused_or_still_holds_statistics(position, flipped):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.npz")
        Statistics.of(features(8)).save(path)
        content = bytearray(path.read_bytes())
        content[position % len(content)] ^= flipped
        path.write_bytes(content)
        with contextlib.suppress(FileRefused):
            statistics = Statistics.load(path)
            assert np.isfinite(statistics.covariance).all()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"hello"])
def test_broken_files_are_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(FileRefused, match=r"\.npz"):
        Statistics.load(tmp_path / "a.npz")
    with pytest.raises(FileRefused):
        Statistics.load(tmp_path / "nothing.npz")
