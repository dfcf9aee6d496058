"""Iterators of pictures, and `generate_async`, which needs no batcher of the caller's own."""

import asyncio
import re
import threading
from pathlib import Path

import galip_runtime
import numpy as np
import pytest
from error_checks import expect_error
from galip_runtime import ServiceUnavailable, UsageError
from held_model import WAIT, HeldModel
from PIL import Image

EMBED = Path(__file__).parents[2] / "docs" / "embed.md"


def test_the_example_of_the_documentation(bundle, monkeypatch, capsys):
    (code,) = [
        block
        for block in re.findall(r"^```python\n(.*?)^```", EMBED.read_text(), re.M | re.S)
        if "Batcher" in block
    ]
    monkeypatch.chdir(bundle.rename(bundle.with_name("my_bundle")).parent)
    names = {}
    exec(code.replace("asyncio.run(main())", "pictures = asyncio.run(main())"), names)
    assert [len(pictures) for pictures in names["pictures"]] == [1, 2]
    assert sorted(capsys.readouterr().out.splitlines()) == [f"{index} (8, 8, 3)" for index in range(3)]


def test_a_stream_is_generate_picture_by_picture(model):
    prompts, seeds = ["red", "the pan", "in", "red", "apple"], [5, 4, 3, 2, 1]
    for size in (1, 2, 8):
        pictures = list(model.stream(prompts, seeds, truncation=0.5, batch_size=size))
        assert [picture.shape for picture in pictures] == [(8, 8, 3)] * 5
        assert np.array_equal(pictures, model.generate(prompts, seeds, truncation=0.5))
    assert len(list(model.stream(["red", "pan"]))) == 2


def test_a_stream_draws_as_it_is_asked_and_reports(shared_bundle):
    held, calls = HeldModel(shared_bundle), []
    stream = held.model.stream("red", range(5), batch_size=2, progress=lambda *numbers: calls.append(numbers))
    assert held.batches == []
    next(stream)
    assert (held.batches, calls) == ([[0, 1]], [(0, 5), (2, 5)])
    next(stream)
    next(stream)
    assert (held.batches, calls[2:]) == ([[0, 1], [2, 3]], [(4, 5)])
    stream.close()
    assert list(stream) == []
    assert held.batches == [[0, 1], [2, 3]]


def test_progress_can_end_a_stream(model):
    def cancel(done, total):
        if done == 4:
            raise InterruptedError

    stream = model.stream("red", range(9), batch_size=2, progress=cancel)
    assert [next(stream).shape for _ in range(2)] == [(8, 8, 3)] * 2
    with pytest.raises(InterruptedError):
        next(stream)


def test_the_arguments_of_a_stream_are_checked_at_once(model):
    with expect_error(UsageError, "seed"):
        model.stream("red", -1)
    with expect_error(UsageError, "batch_size"):
        model.stream("red", 1, batch_size=0)
    with expect_error(UsageError, "prompt"):
        model.stream([])


def test_pillow_images(model):
    images = list(model.stream("red", [1, 2, 3], batch_size=2, as_pil=True))
    assert [type(image) for image in images] == [Image.Image] * 3
    assert np.array_equal(np.stack(images), model.generate("red", [1, 2, 3]))
    frames = model.interpolate(["red", "pan"], 3, seed=1, as_pil=True)
    assert [type(frame) for frame in frames] == [Image.Image] * 3
    assert np.array_equal(np.stack(frames), model.interpolate(["red", "pan"], 3, seed=1))


def test_generate_async_from_two_event_loops(model):
    results = {}

    def work(number):
        async def main():
            calls = [model.generate_async(["red", "pan"], seed=number + i) for i in range(20)]
            stream = {index: picture async for index, picture in model.stream_async("red", [1, number])}
            return await asyncio.gather(*calls), stream

        results[number] = asyncio.run(main())

    threads = [threading.Thread(target=work, args=(number,)) for number in (10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    for number in (10, 20):
        calls, stream = results[number]
        for i, pictures in enumerate(calls):
            assert np.array_equal(pictures, model.generate(["red", "pan"], seed=number + i))
        assert np.array_equal([stream[0], stream[1]], model.generate("red", [1, number]))


def test_generate_async_batches_calls(shared_bundle):
    held = HeldModel(shared_bundle)

    async def main():
        return await asyncio.gather(*[held.model.generate_async("red", seed) for seed in range(40)])

    assert np.array_equal(np.concatenate(asyncio.run(main())), held.generate("red", range(40)))
    assert len(held.batches) <= 20


def test_closing_a_model_ends_what_generate_async_has_not_drawn(shared_bundle):
    held = HeldModel(shared_bundle)
    held.hold()

    async def main():
        calls = [asyncio.create_task(held.model.generate_async("red", seed)) for seed in range(3)]
        await asyncio.to_thread(held.wait_until_started)
        held.model.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [ServiceUnavailable] * 3
        held.release()
        with expect_error(UsageError, "closed"):
            await held.model.generate_async("red", 1)

    asyncio.run(main())


def test_closing_a_model_that_never_had_a_batcher(shared_bundle):
    with galip_runtime.load(shared_bundle, device="cpu"):
        pass
