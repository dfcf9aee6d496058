"""FID parity: figures against an independent implementation, and what is said of a changed model."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from galip_bench import benchmark, run
from galip_bench.fid import FidStudy, compare_sets
from galip_runtime.errors import ProviderUnavailable, QualityGateFailed, UsageError
from PIL import Image

from galip.clip import import_open_clip
from galip.eager import load_eager
from galip.metrics import EvaluationConfig, Inception, Statistics, evaluate

pytestmark = pytest.mark.usefixtures("one_thread", "no_workers")


@pytest.fixture
def of_fid(config, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv("GALIP_CACHE", str(tmp_path / "cache"))
    return lambda **changes: config(
        **{"fid": 30, "against": str(tiny_data), "rounds": 1, "pictures": 0, **changes}
    )


@pytest.fixture
def plant(with_subject):
    """`plant(config, change)`: a subject `planted`, an eager model that `change` has changed."""

    def planting(config, change):
        def load():
            model = load_eager(Path(config.model), "cpu")
            with torch.no_grad():
                change(model)
            return model

        with_subject("planted", load)

    return planting


def test_a_bundle_s_fid(of_fid):
    report = run(of_fid())
    eager, bundle = (subject.fid for subject in report.subjects.values())
    assert eager.delta == 0
    assert eager.fid > 0
    assert bundle.fid == pytest.approx(eager.fid, rel=1e-3)
    assert abs(bundle.delta) < 1e-3 * eager.fid
    assert bundle.delta_interval_95[0] <= bundle.delta <= bundle.delta_interval_95[1]
    assert abs(bundle.direct) < 1e-3 * eager.fid
    assert report.fid.against["pictures"] == 24
    assert report.fid.captions == "against"
    assert report.fid.seeds == (0, 29)


def test_the_same_fid_as_galip_evaluate(of_fid, tiny_data, small_inception):
    ours = run(of_fid()).subjects["eager-fp32"].fid.fid
    theirs = evaluate(
        EvaluationConfig(
            of_fid().model, str(tiny_data), metrics=("fid",), count=30, inception=str(small_inception)
        )
    ).figures["fid"]
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_a_worse_model_s_fid(of_fid, plant):
    config = of_fid(subjects=("planted",), fid=60)
    plant(config, lambda model: model.model.generator.to_rgb.bias.add_(-3.0))
    planted = run(config).subjects["planted"].fid
    assert planted.direct > 1
    assert planted.delta_interval_95[0] > 0
    assert planted.delta_interval_95[0] < planted.delta < planted.delta_interval_95[1]


def test_nan_has_no_fid(of_fid, plant):
    config = of_fid(subjects=("planted",))

    def break_some(model):
        generate = model._run_generator

        def broken(noise, sentence):
            image = np.array(generate(noise, sentence))
            image[noise[:, 0] > 1] = np.nan
            return image

        model._run_generator = broken

    plant(config, break_some)
    number = int((load_eager(Path(config.model), "cpu").noise(range(30))[:, 0] > 1).sum())
    assert 0 < number < 30
    planted = run(config).subjects["planted"].fid
    assert planted.not_finite == number
    assert (planted.fid, planted.delta, planted.direct) == (None, None, None)


def test_a_reference_with_nan_is_refused(of_fid, monkeypatch):
    """One that the few pictures compared for parity don't show."""
    all_subjects = benchmark.all_subjects

    def planted(*arguments):
        reference, *others = all_subjects(*arguments)

        def load():
            model = reference.load()
            generate = model._run_generator

            def broken(noise, sentence):
                image = np.array(generate(noise, sentence))
                image[noise[:, 0] > 1.5] = np.nan
                return image

            model._run_generator = broken
            return model

        return [benchmark.Subject(reference.name, load), *others]

    monkeypatch.setattr(benchmark, "all_subjects", planted)
    numbers = load_eager(Path(of_fid().model), "cpu").noise(range(30))[:, 0] > 1.5
    assert numbers.any()
    assert not numbers[:4].any()
    with pytest.raises(QualityGateFailed, match=rf"eager-fp32 .* {numbers.sum()} of 30\b"):
        run(of_fid())


def test_without_real_pictures(of_fid, tmp_path):
    report = run(of_fid(against=""))
    bundle = report.subjects["bundle-cpu-fp32"].fid
    assert (bundle.fid, bundle.delta, bundle.delta_interval_95) == (None, None, None)
    assert bundle.direct < 1e-3
    assert report.fid.captions == "galip_bench.prompts"
    assert report.fid.against is None


def test_against_a_plain_folder_and_statistics(of_fid, tmp_path, small_inception):
    rng = np.random.default_rng(0)
    folder, saved = tmp_path / "real", tmp_path / "real.npz"
    folder.mkdir()
    for index in range(12):
        Image.fromarray(rng.integers(0, 256, (28, 28, 3), np.uint8)).save(folder / f"{index}.png")
    inception = Inception(small_inception)
    pictures = [torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in folder.iterdir()]
    Statistics.of(inception(torch.stack(pictures))).save(saved)
    captions = tmp_path / "captions.txt"
    captions.write_text("a red box\na blue box\n")
    distances = []
    for against in (folder, saved):
        report = run(of_fid(against=str(against), captions=str(captions)))
        assert report.fid.captions == "file"
        distances.append(report.subjects["eager-fp32"].fid.fid)
    assert distances[0] == pytest.approx(distances[1], rel=1e-5)


def test_fid_of_folders_agrees_with_torchmetrics(tmp_path, small_inception):
    """The same pictures, the same features: another's running sums and matrix root."""
    import_open_clip()  # torchmetrics imports torchvision, which this makes possible where it doesn't match
    from torchmetrics.image.fid import FrechetInceptionDistance

    rng = np.random.default_rng(0)
    inception = Inception(small_inception)

    class Extractor(torch.nn.Module):
        num_features = inception.width

        def forward(self, pictures):
            return torch.from_numpy(inception(pictures))

    theirs = FrechetInceptionDistance(feature=Extractor(), input_img_size=(3, 28, 28)).set_dtype(
        torch.float64
    )
    for name, tint, is_real in (("a", 0, False), ("b", 60, True)):
        (tmp_path / name).mkdir()
        for index in range(80):
            pixels = rng.integers(0, 196, (28, 28, 3)).astype(np.uint8)
            pixels[..., 0] += tint
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
            theirs.update(torch.from_numpy(pixels).permute(2, 0, 1)[None], real=is_real)
    ours = evaluate(
        EvaluationConfig(
            str(tmp_path / "a"),
            str(tmp_path / "b"),
            metrics=("fid",),
            inception=str(small_inception),
            cache=False,
        )
    ).figures["fid"]
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-3)


def test_the_interval_of_a_change_covers_it():
    """Pictures of two models in pairs, whose true FID differ by 0.5: the second's mean is further."""
    rng = np.random.default_rng(0)
    against = Statistics.of(rng.normal(size=(20_000, 4)))
    first, second = np.array([1.0, 0, 0, 0]), np.array([1.5**0.5, 0, 0, 0])
    covered = 0
    for _ in range(100):
        noise = rng.normal(size=(5, 400, 4))
        noise_too = noise + 0.3 * rng.normal(size=noise.shape)
        noise_too /= (1 + 0.3**2) ** 0.5
        fid = compare_sets(
            [Statistics.of(features + second) for features in noise_too],
            [Statistics.of(features + first) for features in noise],
            against,
        )
        low, high = fid.delta_interval_95
        covered += low <= 0.5 <= high
        assert fid.delta == pytest.approx(0.5, abs=0.3)
    assert covered / 100 >= 0.88


def test_every_picture_is_in_one_set(of_fid, small_inception, tiny_checkpoint):
    seeds_used = []
    study = FidStudy(of_fid(fid=13, against=""), Inception(small_inception), 28, lambda *_: None)

    class Recorded:
        def __init__(self, model):
            self.model = model

        def __getattr__(self, name):
            return getattr(self.model, name)

        def noise(self, seeds):
            seeds_used.extend(seeds)
            return self.model.noise(seeds)

    assert study.measure("recorded", Recorded(load_eager(tiny_checkpoint, "cpu"))).pictures == 13
    assert seeds_used == list(range(13))


def test_statistics_of_another_network(of_fid, tmp_path):
    other = tmp_path / "other.npz"
    Statistics.of(np.random.default_rng(0).normal(size=(9, 5))).save(other)
    with pytest.raises(UsageError, match=r"other\.npz.*\b5\b.*\b48\b"):
        run(of_fid(against=str(other)))


def test_pictures_that_are_not_there(of_fid):
    with pytest.raises(UsageError, match="/nowhere"):
        run(of_fid(against="/nowhere"))


def test_without_inception_s_weights(of_fid, monkeypatch):
    def nothing(*_):
        raise ProviderUnavailable("no weights")

    monkeypatch.setattr("galip.metrics.Inception", nothing)
    with pytest.raises(ProviderUnavailable, match="no weights"):
        run(of_fid())
    report = run(dataclasses.replace(of_fid(), fid=0, against="", pictures=2))
    assert "no weights" in report.warnings[0]
    assert report.subjects["eager-fp32"].parity.feature_distance_max is None
