"""A loaded model: prompts and seeds to pictures, interpolation, and arguments that are refused."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import galip_runtime
import numpy as np
import pytest
from batches import check_batches
from error_checks import expect_error
from galip_runtime import QualityGateFailed, UsageError, seed_series
from galip_runtime.arrays import to_uint8
from galip_runtime.backends.openvino_runner import openvino_computes_in
from galip_runtime.interpolation import interpolate_corners, slerp
from galip_runtime.noise import MAX_SEED, noise
from stub_bundle import make_stub_bundle

WORDS = ["red", "apple", "pan", "thin", "a", "green", "car", "with", "two", "doors"]


def fresh(bundle):
    return galip_runtime.load(bundle, device="cpu", threads=1)


def test_the_documented_example(shared_bundle):
    model = galip_runtime.load(shared_bundle, device="auto", precision="auto", threads=None)
    sentence = model.encode_text(["a red apple"])
    assert (sentence.dtype, sentence.shape) == (np.float32, (1, 6))
    image = model.decode(noise([7], 5), sentence)
    assert (image.dtype, image.shape) == (np.float32, (1, 3, 8, 8))
    pictures = model.generate(["a red apple"], seeds=[7])
    assert (pictures.dtype, pictures.shape) == (np.uint8, (1, 8, 8, 3))
    assert (pictures == to_uint8(image)).all()
    frames = model.interpolate(["a red apple", "a green apple"], steps=8, seed=7)
    assert (frames.dtype, frames.shape) == (np.uint8, (8, 8, 8, 3))


def test_sentence_vectors(model):
    """The stub's sentence is the sum of its tokens' embeddings, so white space and case change nothing."""
    one, same, other = model.encode_text(["a red apple", "A  RED\tapple", "a red pan"])
    assert (one == same).all()
    assert (one != other).all()
    assert (model.encode_text("a red apple")[0] == one).all()


def test_repeated_captions_come_from_a_cache(bundle, monkeypatch):
    model = fresh(bundle)
    runner = model._runners["text_encoder"]
    rows = []
    run = runner.run
    monkeypatch.setattr(runner, "run", lambda inputs: rows.append(len(inputs["tokens"])) or run(inputs))
    first = model.encode_text(["red", "pan", "red"])
    assert (first[0] == first[2]).all()
    first[:] = 0  # the caller's own array
    again = model.encode_text(["pan", "red", "thin"])
    assert rows == [2, 1]
    assert (again == fresh(bundle).encode_text(["pan", "red", "thin"])).all()


def test_the_cache_is_bounded(bundle):
    model = fresh(bundle)
    prompts = [f"{first} {second} {number}" for first in WORDS for second in WORDS for number in range(15)]
    sentences = model.encode_text(prompts)
    assert len(prompts) == 1500
    assert len(model._sentences) == 1024
    assert (model.encode_text(prompts[::-1]) == sentences[::-1]).all()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_a_picture_is_the_same_whatever_it_is_batched_with(shared_bundle, device, threads):
    check_batches(shared_bundle, device, threads)


def test_numbers_of_prompts_and_seeds(model):
    one = model.generate("red", 7)
    assert (model.generate(["red"], [7]) == one).all()
    assert (model.generate("red", [5, 7])[1] == one[0]).all()
    assert (model.generate(["pan", "red"], 7)[1] == one[0]).all()
    assert (model.generate(["pan", "red"], [7])[1] == one[0]).all()
    assert (model.generate(("pan", "red"), np.array([5, 7]))[1] == one[0]).all()
    assert (model.generate(["red"] * 3, [7, 7, 7]) == one).all()
    assert (model.generate("red", np.uint64(7)) == one).all()


def test_the_largest_seed_and_the_smallest(model):
    pictures = model.generate("red", [0, MAX_SEED])
    assert (pictures[0] != pictures[1]).any()


def test_without_seeds_pictures_differ(model):
    pictures = model.generate(["red"] * 4)
    assert len(np.unique(pictures, axis=0)) == 4
    assert (model.generate("red") != model.generate("red")).any()


def test_seed_series():
    assert seed_series(5, 3) == [5, 6, 7]
    assert seed_series(MAX_SEED, 1) == [MAX_SEED]
    first, *others = seed_series(None, 3)
    assert others == [first + 1, first + 2]
    assert len({seed_series()[0] for _ in range(20)}) == 20
    for seed, count in [
        (MAX_SEED, 2),
        (-1, 1),
        (1.0, 1),
        (True, 1),
        (0, 0),
        (0, -1),
        (0, 2.0),
        (0, True),
        (0, None),
    ]:
        with expect_error(UsageError):
            seed_series(seed, count)


def test_two_prompts_are_interpolated_linearly(model):
    frames = model.interpolate(["red", "pan"], steps=5, seed=7)
    assert (frames[0] == model.generate("red", 7)[0]).all()
    assert (frames[-1] == model.generate("pan", 7)[0]).all()
    middle = model.encode_text(["red", "pan"]).astype(np.float64).mean(axis=0, keepdims=True)
    assert (frames[2] == to_uint8(model.decode(model.noise([7]), middle))[0]).all()
    assert len(np.unique(frames, axis=0)) == 5


def test_four_prompts_in_the_corners_of_a_square(model):
    prompts = ["red", "pan", "thin", "apple"]
    square = model.interpolate(prompts, steps=3, seed=7).reshape(3, 3, 8, 8, 3)
    corners = square[[0, 0, 2, 2], [0, 2, 0, 2]]
    assert (corners == model.generate(prompts, 7)).all()
    assert (square[0] == model.interpolate(prompts[:2], steps=3, seed=7)).all()
    assert (square[:, 0] == model.interpolate([prompts[0], prompts[2]], steps=3, seed=7)).all()
    middle = model.encode_text(prompts).astype(np.float64).mean(axis=0, keepdims=True)
    assert (square[1, 1] == to_uint8(model.decode(model.noise([7]), middle))[0]).all()


def test_interpolation_without_a_seed_has_one_noise(model):
    frames = model.interpolate(["red", "red"], steps=3)
    assert (frames == frames[0]).all()


def test_two_seeds_are_interpolated_on_the_sphere(model):
    frames = model.interpolate("red", steps=5, seeds=[7, 8])
    assert (frames[[0, -1]] == model.generate("red", [7, 8])).all()
    a, b = model.noise([7, 8]).astype(np.float64)
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    middle = (a + b) * np.sin(angle / 2) / np.sin(angle)
    assert (frames[2] == to_uint8(model.decode(middle[None], model.encode_text("red")))[0]).all()


def test_prompts_and_seeds_together(model):
    frames = model.interpolate(["red", "pan"], steps=4, seeds=[7, 8])
    assert frames.shape == (4, 8, 8, 3)
    assert (frames[[0, -1]] == model.generate(["red", "pan"], [7, 8])).all()
    square = model.interpolate(["red", "pan", "thin", "apple"], steps=3, seeds=[1, 2, 3, 4])
    corners = square.reshape(3, 3, 8, 8, 3)[[0, 0, 2, 2], [0, 2, 0, 2]]
    assert (corners == model.generate(["red", "pan", "thin", "apple"], [1, 2, 3, 4])).all()
    assert (
        model.interpolate("red", steps=3, seeds=[1, 2, 3, 4])[[0, 8]] == model.generate("red", [1, 4])
    ).all()


def test_a_square_of_prompts_and_seeds(model):
    square = model.interpolate(["red", "pan"], steps=3, seeds=[7, 8], square=True).reshape(3, 3, 8, 8, 3)
    assert (square[0] == model.interpolate(["red", "pan"], steps=3, seed=7)).all()
    assert (square[2] == model.interpolate(["red", "pan"], steps=3, seed=8)).all()
    assert (square[:, 0] == model.interpolate("red", steps=3, seeds=[7, 8])).all()


def test_the_same_seed_twice_gives_one_picture(model):
    frames = model.interpolate("red", steps=4, seeds=[7, 7])
    assert (frames == model.generate("red", 7)).all()


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({"seeds": [1, 2, 3]}, [2, 3]),
        ({"seeds": [1, 2, 3, 4]}, [2, 4]),
        ({"square": True, "seed": 1}, [2, 1]),
        ({"square": True, "seeds": [1, 2, 3, 4]}, [2, 4]),
        ({"seed": 1, "seeds": [1, 2]}, ["seed", "seeds"]),
    ],
    ids=str,
)
def test_interpolation_between_other_numbers_is_refused(model, arguments, values):
    with expect_error(UsageError, *values):
        model.interpolate(["red", "pan"], **arguments)


def test_truncation_reaches_the_noise(model):
    assert np.abs(model.noise(range(20), 0.5)).max() <= 0.5
    plain = to_uint8(model.decode(model.noise([7], 0.5), model.encode_text("red")))
    assert (model.generate("red", 7, truncation=0.5) == plain).all()
    assert (model.interpolate(["red", "pan"], 2, 7, truncation=0.5)[0] == plain[0]).all()


def test_colours_outside_the_range_are_clamped():
    values = [-9.0, -1.0, -0.999, 0.0, 0.9999, 1.0, 1e30, 2 / 255 - 1, 2.5 / 127.5 - 1]
    image = np.array(values, np.float32).reshape(1, 1, 1, -1).repeat(3, axis=1)
    picture = to_uint8(image)
    assert picture.shape == (1, 1, 9, 3)
    assert picture.flags.c_contiguous
    assert picture[0, 0, :, 0].tolist() == [0, 0, 0, 128, 255, 255, 255, 1, 2]


def test_channels_are_last_in_uint8():
    image = np.zeros((2, 3, 4, 5), np.float32)
    image[1, 0, 2, 3] = 1
    picture = to_uint8(image)
    assert picture.shape == (2, 4, 5, 3)
    assert picture[1, 2, 3].tolist() == [255, 128, 128]


def test_info_as_json(model, shared_bundle):
    info = json.loads(json.dumps(model.info()))
    assert info["path"] == str(shared_bundle)
    assert info["requested"] == {"device": "cpu", "precision": "auto", "threads": 1}
    assert info["threads"] == 1
    assert info["dimensions"]["image_height"] == 8
    assert info["source"] == {"name": "stub", "sha256": "0" * 64}
    assert len(info["files"]["generator.onnx"]["sha256"]) == 64
    assert info["versions"]["galip-runtime"] == galip_runtime.__version__
    assert info["made_with"] == {"stub": "1"}
    assert info["noise"] == "philox4x32-10/box-muller"


def test_threads_can_share_a_model(shared_bundle):
    jobs = [([f"{word} {n % 7}" for word in WORDS[: 1 + n % 5]], n) for n in range(80)]
    alone = [fresh(shared_bundle).generate(prompts, seed) for prompts, seed in jobs]
    model = galip_runtime.load(shared_bundle, device="cpu", threads=2)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            together = list(pool.map(lambda job: model.generate(*job), jobs))
            assert all((one == other).all() for one, other in zip(alone, together, strict=True))


def test_fp32_and_int8_of_the_same_graph_agree(shared_bundle):
    if not openvino_computes_in("int8"):
        pytest.skip("this CPU does not compute in int8")
    model = galip_runtime.load(shared_bundle, device="openvino")
    other = galip_runtime.load(shared_bundle, device="openvino", precision="int8")
    difference = model.generate("red", 7).astype(int) - other.generate("red", 7)
    assert np.abs(difference).max() <= 3  # what int8 leaves in float may be in bf16


def test_empty_and_unusual_prompts(model):
    prompts = ["", " ", "\0", "\0\0red", "🐦🐦", "\ud800", "&#0;", "x" * 100_000, "日" * 1000, "\n" * 1000]
    pictures = model.generate(prompts, 1)
    assert pictures.shape == (10, 8, 8, 3)
    assert (pictures[0] == pictures[1]).all()
    assert (pictures[0] == pictures[2]).all()


@pytest.mark.parametrize(
    ("prompts", "values"),
    [
        (None, ["NoneType"]),
        (5, ["int"]),
        (b"red", ["bytes"]),
        ([], []),
        ((), []),
        ([None], [0, "NoneType"]),
        (["red", 5], [1, "int"]),
        ([["red"]], [0, "list"]),
        ("x" * 10 * 2**20, [10 * 2**20, 100_000]),
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_invalid_prompts_are_refused(model, prompts, values):
    for call in (model.generate, model.encode_text, model.interpolate):
        with expect_error(UsageError, *values):
            call(prompts)


@pytest.mark.parametrize(
    "seeds",
    [-1, MAX_SEED + 1, [-1], [2**64], [1.5], 1.5, True, [True], "7", b"7", [], [[1]], [None], {1}, np.nan],
)
def test_invalid_seeds_are_refused(model, seeds):
    value = seeds[0] if isinstance(seeds, list) and seeds else seeds
    with expect_error(UsageError) as info:
        model.generate("red", seeds)
    assert repr(value) in str(info.value)


def test_two_prompts_and_three_seeds_are_refused(model):
    with expect_error(UsageError, 2, 3):
        model.generate(["red", "pan"], [1, 2, 3])


def test_a_refusal_of_corners_counts_in_words_that_agree(model):
    with expect_error(UsageError, "not 1 prompt and 1 seed"):
        model.interpolate("red", seed=3)
    with expect_error(UsageError, "not 3 prompts and 2 seeds"):
        model.interpolate(["red"] * 3, seeds=[1, 2])


@pytest.mark.parametrize("prompts", [["red"], ["red"] * 3, ["red"] * 5, "red"])
def test_other_numbers_of_corners_are_refused(model, prompts):
    with expect_error(UsageError, 1 if prompts == "red" else len(prompts)):
        model.interpolate(prompts)


@pytest.mark.parametrize(
    "arguments",
    [
        *({"steps": steps} for steps in (1, 0, -2, 2.0, "2", True, None)),
        *({"seed": seed} for seed in (-1, 2**64, [1], 1.0)),
        {"batch_size": 0},
    ],
    ids=str,
)
def test_invalid_arguments_of_interpolation_are_refused(model, arguments):
    ((name, value),) = arguments.items()
    with expect_error(UsageError, name) as info:
        model.interpolate(["red", "pan"], **arguments)
    assert repr(value) in str(info.value)


@pytest.mark.parametrize("batch_size", [0, -1, 1.0, None, True])
def test_an_invalid_batch_size_is_refused(model, batch_size):
    with expect_error(UsageError, "batch_size", repr(batch_size)):
        model.generate("red", 1, batch_size=batch_size)


VALID = {"noise": np.zeros((2, 5), np.float32), "sentence": np.zeros((2, 6), np.float32)}


@pytest.mark.parametrize("name", ["noise", "sentence"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e300], ids=str)
def test_values_that_are_not_finite_are_refused(model, name, number):
    values = VALID[name].astype(np.float64)
    values[1, 2] = number
    with expect_error(UsageError, name):
        model.decode(**VALID | {name: values})


@pytest.mark.parametrize("name", ["noise", "sentence"])
@pytest.mark.parametrize(
    "shape", [(0,), (5,), (6,), (0, 5), (0, 6), (2, 4), (2, 7), (2, 5, 1), (2, 6, 1), (), (3,)]
)
def test_other_shapes_are_refused(model, name, shape):
    with expect_error(UsageError, name) as info:
        model.decode(**VALID | {name: np.zeros(shape, np.float32)})
    assert str(shape) in str(info.value)


@pytest.mark.parametrize("name", ["noise", "sentence"])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool, complex, object, "U3"])
def test_other_dtypes_are_refused(model, name, dtype):
    values = VALID[name].astype(dtype)
    with expect_error(UsageError, name, values.dtype):
        model.decode(**VALID | {name: values})


@pytest.mark.parametrize("value", [None, [[0.0] * 5] * 2, 1.0, "noise"])
def test_other_types_than_arrays_are_refused(model, value):
    with expect_error(UsageError, "noise", type(value).__name__):
        model.decode(value, VALID["sentence"])


def test_different_numbers_of_rows_are_refused(model):
    with expect_error(UsageError, "noise", 2, "sentence", 1):
        model.decode(VALID["noise"], VALID["sentence"][:1])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_floats_and_layouts_are_rounded_to_float32(model, dtype):
    values = {name: np.asfortranarray(array + 0.5).astype(dtype) for name, array in VALID.items()}
    expected = model.decode(VALID["noise"] + np.float32(0.5), VALID["sentence"] + np.float32(0.5))
    assert (model.decode(**values) == expected).all()


def test_a_picture_that_is_not_finite_is_an_error(tmp_path):
    model = fresh(make_stub_bundle(tmp_path / "nan", nan=True))
    for call in (lambda: model.generate("red", 1), lambda: model.decode(**VALID)):
        with expect_error(QualityGateFailed, "generator", "fp32"):  # where, and the precision to use instead
            call()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the process's memory from /proc")
def test_many_pictures_take_the_memory_of_a_batch(tmp_path):
    """4,000 pictures of 64 x 64 are 47 MB; as float32 at once they would be 200 MB and more."""

    def peak():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

    model = fresh(make_stub_bundle(tmp_path / "large", image_size=64))
    model.generate("red", 1)
    before = peak()
    assert model.generate("red", range(4000)).nbytes > 45e6
    assert peak() - before < 100


def test_noise_between_seeds_keeps_its_length():
    """Also between two equal corners: whether to interpolate on the sphere is decided row by row."""
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 64))
    across, down = np.tile(np.linspace(0, 1, 5), 5), np.repeat(np.linspace(0, 1, 5), 5)
    noise = interpolate_corners(np.stack([one, two, two, one]), across, down, slerp)
    assert np.linalg.norm(noise, axis=1) == pytest.approx(8, rel=0.2)
