"""What an application uses: Pillow's images, PNG bytes, progress, cancelling, closing, warnings."""

import io
import warnings

import galip_runtime
import numpy as np
import pytest
from error_checks import expect_error
from galip_runtime import PromptCut, UsageError
from galip_runtime.image import picture_metadata, save_picture
from PIL import Image

LONG = "red pan " * 40


def test_pillow_images(model):
    images = model.generate(["red", "a pan"], seeds=[1, 2], as_pil=True)
    assert [image.size for image in images] == [(8, 8), (8, 8)]
    assert (
        np.stack([np.asarray(image) for image in images]) == model.generate(["red", "a pan"], [1, 2])
    ).all()


def test_png_bytes_say_where_they_are_from(model):
    data = model.png("a red\npan ☃", 7, truncation=0.5)
    with Image.open(io.BytesIO(data)) as image:
        assert (np.asarray(image) == model.generate("a red\npan ☃", 7, truncation=0.5)[0]).all()
        assert image.text == {
            "prompt": "a red\npan ☃",
            "seed": "7",
            "truncation": "0.5",
            "bundle": model.manifest.digest,
        }


def test_a_png_without_a_seed_names_the_one_it_took(model):
    with Image.open(io.BytesIO(model.png("red"))) as image:
        assert (np.asarray(image) == model.generate("red", seed=int(image.text["seed"]))[0]).all()


@pytest.mark.parametrize("prompt", ["\ud800", "\0", "日本", "a" * 5000])
def test_any_prompt_fits_into_a_png(tmp_path, prompt):
    save_picture(
        np.zeros((2, 2, 3), np.uint8), tmp_path / "a.png", picture_metadata([prompt], [1], None, None)
    )
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.text["prompt"] == prompt.encode(errors="replace").decode()


def test_metadata_lists_each_prompt_and_seed_once():
    texts = picture_metadata(["a", "a", "b", "b"], [1, 2, 1, 2], 0.7, "d")
    assert texts == {"prompt": "a\nb", "seed": "1, 2", "truncation": "0.7", "bundle": "d"}


def test_seed_and_seeds(model):
    assert (model.generate("red", seed=3) == model.generate("red", seeds=[3])).all()
    assert (model.noise(seed=3) == model.noise([3])).all()
    assert (model.noise(3) == model.noise([3])).all()
    assert (
        model.interpolate(["red", "pan"], 2, seed=3) == model.interpolate(["red", "pan"], 2, seeds=[3])
    ).all()
    for call in (lambda: model.generate("red", 1, seed=2), lambda: model.noise(1, seed=2)):
        with expect_error(UsageError, "seed", "seeds"):
            call()
    with expect_error(UsageError, "seed", "seeds"):
        model.noise()
    for call in (model.noise, lambda **seed: model.generate("red", **seed)):
        for seed in ([1], 1.5, -1):
            with expect_error(UsageError, "seed"):
                call(seed=seed)


def test_progress_and_cancelling(model):
    calls = []
    model.generate("red", range(5), batch_size=2, progress=lambda *numbers: calls.append(numbers))
    assert calls == [(0, 5), (2, 5), (4, 5), (5, 5)]
    calls.clear()
    model.interpolate(
        ["red", "pan"], 3, seed=1, batch_size=2, progress=lambda *numbers: calls.append(numbers)
    )
    assert calls == [(0, 3), (2, 3), (3, 3)]

    class Cancelled(Exception):
        pass

    def cancel(done, total):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        model.generate("red", range(5), batch_size=2, progress=cancel)
    assert model.generate("red", 1).shape == (1, 8, 8, 3)


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_closing(bundle, device):
    with galip_runtime.load(bundle, device=device) as model:
        assert model.generate("red", 1).shape == (1, 8, 8, 3)
    model.close()
    assert "closed" in repr(model)
    for call in (lambda: model.generate("red", 1), model.info, lambda: model.encode_text("pan")):
        with expect_error(UsageError, "closed"):
            call()


def test_what_it_looks_like(model):
    assert all(part in repr(model) for part in ("Model", "8x8", "fp32", "cpu", str(model.path)))
    assert dir(galip_runtime) == sorted(galip_runtime.__all__)


def test_a_prompt_that_is_cut_is_a_warning(model):
    with pytest.warns(PromptCut, match=r"prompt 1 .* 22 tokens") as cuts:
        model.encode_text(["red", LONG, LONG])
    assert len(cuts) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_text(["red", "", "a pan"])


def test_what_is_left_out_of_a_prompt(model):
    tokenizer = model.tokenizer
    room = tokenizer.context_length - 2
    exact = " ".join("x" * room)
    assert tokenizer.left_out(exact) == ""
    assert tokenizer.left_out(exact + " y z") == "y z"
    assert tokenizer.left_out("x" * (room + 5)) == "x" * (room + 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_text(exact)
