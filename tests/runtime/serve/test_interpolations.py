"""`POST /v1/interpolations`: strips and squares, as animations and sheets."""

import io

import numpy as np
import pytest
from galip_runtime.image import grid
from PIL import Image, ImageSequence
from serve_answers import error_of, pixels

INTERPOLATIONS = "/v1/interpolations"


def frames_of(response):
    assert response.status_code == 200, response.text
    with Image.open(io.BytesIO(response.content)) as image:
        frames = []
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            frames.append((np.asarray(image.convert("RGB")), round(image.info["duration"])))
    return np.stack([frame for frame, _ in frames]), {duration for _, duration in frames}


def test_a_webp_is_lossless(client, model):
    body = {"prompts": ["a red apple", "a dog"], "steps": 5, "seed": 3, "frame_seconds": 0.25}
    response = client.post(INTERPOLATIONS, json=body)
    frames, durations = frames_of(response)
    assert response.headers["Content-Type"] == "image/webp"
    assert response.headers["X-Seeds"] == "3"
    assert (frames == model.interpolate(["a red apple", "a dog"], 5, seed=3)).all()
    assert durations == {250}


def test_a_gif_has_256_colours(client, model):
    body = {"prompts": ["a", "b"], "steps": 4, "seed": 3, "output_format": "gif"}
    response = client.post(INTERPOLATIONS, json=body)
    frames, _ = frames_of(response)
    assert response.headers["Content-Type"] == "image/gif"
    assert np.abs(frames.astype(int) - model.interpolate(["a", "b"], 4, seed=3)).max() < 64


@pytest.mark.parametrize(
    ("prompts", "seeds", "square", "count"),
    [
        (["a", "b"], [1], False, 3),
        (["a"], [1, 2], False, 3),
        (["a", "b"], [1, 2], False, 3),
        (["a", "b"], [1, 2], True, 9),
        (["a", "b", "c", "d"], [1], False, 9),
        (["a"], [1, 2, 3, 4], False, 9),
        (["a", "b", "c", "d"], [1, 2, 3, 4], None, 9),
    ],
)
def test_a_sheet(client, model, prompts, seeds, square, count):
    body = {"prompts": prompts, "steps": 3, "seeds": seeds, "square": square, "output_format": "sheet"}
    response = client.post(INTERPOLATIONS, json=body)
    expected = model.interpolate(prompts, 3, seeds=seeds, square=bool(square))
    assert len(expected) == count
    assert response.headers["Content-Type"] == "image/png"
    assert (pixels(response.content) == grid(expected, columns=3)).all()
    with Image.open(io.BytesIO(response.content)) as image:
        assert image.text["seed"] == ", ".join(map(str, seeds))


def test_a_sheet_in_one_row_without_gaps(client, model):
    body = {"prompts": ["a", "b"], "steps": 4, "seed": 1, "output_format": "sheet", "columns": 4, "gap": 0}
    sheet = pixels(client.post(INTERPOLATIONS, json=body).content)
    expected = model.interpolate(["a", "b"], 4, seed=1)
    assert (np.split(sheet, 4, axis=1) == expected).all()


def test_without_a_seed_the_answer_names_the_one_it_took(client):
    body = {"prompts": ["a", "b"], "steps": 2}
    first = client.post(INTERPOLATIONS, json=body)
    again = client.post(INTERPOLATIONS, json={**body, "seeds": [first.headers["X-Seeds"]]})
    assert first.content == again.content


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompts": "a"}, "prompts"),
        ({"prompts": []}, "prompts"),
        ({"prompts": ["a"]}, None),
        ({"prompts": ["a", "b", "c"]}, None),
        ({"prompts": ["a"] * 5}, "prompts"),
        ({"prompts": ["a", 1]}, "prompts[1]"),
        ({"seeds": [1, 2, 3]}, None),
        ({"seeds": [1], "seed": 1}, "seed"),
        ({"square": True}, None),
        ({"square": 1}, "square"),
        ({"steps": 1}, "steps"),
        ({"steps": 65}, "steps"),
        ({"steps": 9, "seeds": [1, 2], "square": True}, "steps"),
        ({"output_format": "mp4"}, "output_format"),
        ({"frame_seconds": 0}, "frame_seconds"),
        ({"columns": 0}, "columns"),
        ({"gap": -1}, "gap"),
        ({"n": 1}, "n"),
    ],
)
def test_a_wrong_parameter_is_named(client, change, param):
    response = client.post(INTERPOLATIONS, json={"prompts": ["a", "b"]} | change)
    error_of(response, 400, param=param)


def test_equal_pictures_are_shown_for_all_of_their_time(client):
    body = {"prompts": ["a", "a"], "steps": 60, "seed": 1, "output_format": "gif", "frame_seconds": 10}
    with Image.open(io.BytesIO(client.post(INTERPOLATIONS, json=body).content)) as image:
        assert sum(frame.info["duration"] for frame in ImageSequence.all_frames(image)) == 600_000


def test_an_animation_that_is_too_long_is_refused_before_it_is_drawn(start):
    client = start(queue=100, max_steps=100)
    body = {"prompts": ["a", "b"], "steps": 80, "output_format": "gif", "frame_seconds": 10}
    message = error_of(client.post(INTERPOLATIONS, json=body), 400)["message"]
    assert "80 pictures of 10 seconds each do not fit into a GIF" in message
    assert "galip_pictures_total 0" in client.get("/metrics").text


def test_a_sheet_is_no_wider_than_its_pictures(client):
    body = {"prompts": ["a", "b"], "steps": 3, "output_format": "sheet", "columns": 1000, "gap": 2}
    with Image.open(io.BytesIO(client.post(INTERPOLATIONS, json=body).content)) as image:
        assert image.size == (3 * 8 + 2 * 2, 8)


def test_no_more_pictures_than_the_queue_holds(start):
    client = start(queue=4)
    body = {"prompts": ["a", "b"], "steps": 5}
    assert "at most 4" in error_of(client.post(INTERPOLATIONS, json=body), 400, param="steps")["message"]
    assert client.post(INTERPOLATIONS, json={**body, "steps": 4}).status_code == 200
