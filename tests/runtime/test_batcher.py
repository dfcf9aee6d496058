"""Batcher: pictures for many callers, in common batches; refusals, deadlines, failures, closing."""

import asyncio
import concurrent.futures
import gc
import threading
import time
import warnings
import weakref

import galip_runtime
import numpy as np
import pytest
from error_checks import expect_error
from galip_runtime import (
    Batcher,
    DeadlineExceeded,
    PromptCut,
    ProviderUnavailable,
    QualityGateFailed,
    ServiceUnavailable,
    UsageError,
)
from galip_runtime.batching.queue import Call, PictureQueue
from galip_runtime.picture_request import PictureRequest
from held_model import WAIT, HeldModel, Notes
from PIL import Image


@pytest.fixture
def held(shared_bundle):
    held = HeldModel(shared_bundle)
    yield held
    held.release()


@pytest.fixture
def batcher(held):
    """A batcher with one lane that draws a picture already; `held.release()` lets it go on."""
    batcher = Batcher(held.model, max_batch=4, max_wait_ms=0, queue=12, lanes=1, observer=Notes())
    held.hold()
    batcher.first = batcher.submit("red", 100)
    held.wait_until_started()
    yield batcher
    held.release()
    batcher.close()


def same(pictures, expected):
    return pictures.dtype == np.uint8 and np.array_equal(pictures, expected)


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_pictures_are_those_of_generate(model, lanes):
    prompts = [f"the {word} pan" for word in ("red", "in", "apple", "car")]

    async def main():
        batcher = Batcher(model, lanes=lanes, queue=200)
        calls = [
            batcher.generate(prompts, [i, i + 1, i, i + 7], truncation=None if i % 2 else 0.5)
            for i in range(30)
        ]
        many = await asyncio.gather(*calls)
        for i, pictures in enumerate(many):
            truncation = None if i % 2 else 0.5
            assert same(pictures, model.generate(prompts, [i, i + 1, i, i + 7], truncation=truncation))
        assert same(await batcher.generate("red", [1, 2, 3]), model.generate("red", [1, 2, 3]))
        assert same(await batcher.generate(["red", "the"], seed=3), model.generate(["red", "the"], seed=3))
        await batcher.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("prompts", "options"),
    [
        (["red", "the pan"], {"seed": 3}),
        ("red", {"seeds": [1, 2]}),
        (["red", "the pan"], {"seeds": [1, 2], "truncation": 0.7}),
        (["red", "the pan", "in", "apple"], {"steps": 3, "seed": 1}),
        ("red", {"steps": 3, "seeds": [1, 2, 3, 4]}),
        (["red", "the pan"], {"steps": 4, "seeds": [1, 2], "square": True}),
    ],
)
def test_interpolations_are_those_of_the_model(model, prompts, options):
    async def main():
        batcher = Batcher(model, max_batch=3, lanes=2)
        return await batcher.interpolate(prompts, **options)

    assert same(asyncio.run(main()), model.interpolate(prompts, **options))


def test_calls_are_drawn_together(held, batcher):
    prompts = ("red", "the", "red", "in", "pan")
    futures = [batcher.submit(prompt, seed) for seed, prompt in enumerate(prompts)]
    assert (batcher.length, batcher.capacity) == (5, 12)
    held.release()
    assert concurrent.futures.wait(futures, WAIT).not_done == set()
    assert all(
        same(future.result(), held.generate(prompt, seed))
        for seed, (prompt, future) in enumerate(zip(prompts, futures, strict=True))
    )
    assert held.batches[:3] == [[100], [0, 1, 2, 3], [4]]
    assert batcher.length == 0


def test_a_batch_waits_for_others_but_a_lone_caller_for_nobody(held):
    batcher = Batcher(held.model, max_batch=3, max_wait_ms=60_000, lanes=1)
    began = time.monotonic()
    for seed in (1, 2):  # one caller, one after another
        batcher.submit("red", seed).result(WAIT)
    assert time.monotonic() - began < 50
    held.hold()
    first = batcher.submit("red", 3)
    held.wait_until_started()
    held.wait_until_started()
    held.wait_until_started()
    others = [batcher.submit("red", seed) for seed in (4, 5)]
    held.release()
    first.result(WAIT)
    time.sleep(0.05)
    assert held.batches == [[1], [2], [3]]  # the two wait for a third
    others.append(batcher.submit("red", 6))
    assert concurrent.futures.wait(others, WAIT).not_done == set()
    assert held.batches[3:] == [[4, 5, 6]]
    batcher.close()


def test_idle_lanes_share_what_waits(held):
    batcher = Batcher(held.model, lanes=2, queue=8)
    held.hold()
    future = batcher.submit("red", range(4))
    held.wait_until_started()
    held.wait_until_started()
    assert sorted(held.batches) == [[0, 1], [2, 3]]
    held.release()
    assert same(future.result(WAIT), held.generate("red", range(4)))
    batcher.close()


def test_lanes_are_chosen_by_device_and_threads(shared_bundle, model):
    assert Batcher(model).lanes == 1
    assert Batcher(galip_runtime.load(shared_bundle, device="cpu", threads=2)).lanes == 2
    assert Batcher(galip_runtime.load(shared_bundle, device="openvino", threads=2)).lanes == 1
    assert Batcher(model, lanes=3).lanes == 3


def test_calls_take_turns(held, batcher):
    many = batcher.submit("red", range(6))
    few = [batcher.submit("red", [20]), batcher.submit("red", [30, 31])]
    held.release()
    assert concurrent.futures.wait([many, *few], WAIT).not_done == set()
    assert held.batches[1:] == [[0, 20, 30, 1], [31, 2, 3, 4], [5]]
    assert same(many.result(), held.generate("red", range(6)))


def test_many_small_calls_do_not_starve_a_large_one(held, batcher):
    many = batcher.submit("red", range(6))
    small = [batcher.submit("red", 20 + number) for number in range(6)]
    held.release()
    for number in range(30):  # somebody new comes as soon as somebody leaves
        small.pop(0).result(WAIT)
        small.append(batcher.submit("red", 50 + number))
    many.result(WAIT)
    drawn = [seed for batch in held.batches for seed in batch]
    assert drawn.index(5) <= 1 + 6 * 7 + 4  # in each round, one of each of at most seven calls


@pytest.mark.parametrize("how", ["task", "future"])
def test_a_call_that_is_cancelled_costs_no_picture(held, batcher, how):
    async def by_task():
        task = asyncio.create_task(batcher.generate("red", [1, 2]))
        await asyncio.sleep(0)
        assert batcher.length == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    if how == "task":
        asyncio.run(by_task())
    else:
        future = batcher.submit("red", [1, 2])
        assert future.cancel()
        assert concurrent.futures.wait([future], WAIT).not_done == set()
    assert batcher.length == 0
    other = batcher.submit("red", [3])
    held.release()
    other.result(WAIT)
    assert held.batches == [[100], [3]]
    assert batcher._observer.reasons == ["cancelled"]


def test_a_call_that_is_cancelled_while_it_is_drawn_frees_the_rest(held, batcher):
    held.release()
    batcher.first.result(WAIT)
    held.hold()
    future = batcher.submit("red", range(10))
    held.wait_until_started()
    assert batcher.length == 6
    assert future.cancel()
    assert batcher.length == 0
    held.release()
    assert same(batcher.submit("red", 50).result(WAIT), held.generate("red", 50))
    assert held.batches[1:3] == [[0, 1, 2, 3], [50]]


def test_a_full_queue_takes_all_of_a_call_or_nothing(held, batcher):
    accepted = batcher.submit("red", range(10))
    with pytest.raises(ServiceUnavailable, match=r"10 of 12 .* 3 more") as info:
        batcher.submit("red", [20, 21, 22])
    assert info.value.retry_after > 0
    assert batcher.length == 10
    last = batcher.submit("red", [23, 24])
    with pytest.raises(ServiceUnavailable):
        batcher.submit("red", 25)
    with expect_error(UsageError, 13, 12):
        batcher.submit("red", range(13))
    with expect_error(UsageError, 16, 12):
        asyncio.run(batcher.interpolate(["red", "the", "pan", "in"], 4))
    assert batcher.seconds_to_wait() > 0
    held.release()
    assert concurrent.futures.wait([accepted, last], WAIT).not_done == set()
    assert batcher._observer.reasons == ["queue_full"] * 2


def test_a_deadline_that_passes_in_the_queue_costs_no_picture(held, batcher):
    async def main():
        with pytest.raises(DeadlineExceeded):
            await batcher.generate("red", [1, 2], timeout=0.01)
        with pytest.raises(TimeoutError):
            async for _ in batcher.stream("red", [1, 2], timeout=0.01):
                pass

    asyncio.run(main())
    late = batcher.submit("red", [3], timeout=-1)
    assert batcher.length == 1
    held.release()
    with pytest.raises(DeadlineExceeded):
        late.result(WAIT)
    assert batcher.submit("red", [4], timeout=float("inf")).result(WAIT).shape == (1, 8, 8, 3)
    assert batcher.submit("red", [5], timeout=10**400).result(WAIT).shape == (1, 8, 8, 3)
    assert held.batches == [[100], [4], [5]]
    assert batcher._observer.reasons == ["deadline"] * 3


def test_a_deadline_that_passes_while_drawing(held, batcher):
    held.release()
    batcher.first.result(WAIT)
    held.hold()

    async def main():
        with pytest.raises(DeadlineExceeded):
            await batcher.generate("red", [1], timeout=0.05)

    asyncio.run(main())
    held.release()
    held.hold()
    future = batcher.submit("red", [2], timeout=0.1)
    held.wait_until_started()
    time.sleep(0.15)
    held.release()
    with pytest.raises(DeadlineExceeded):
        future.result(WAIT)


def test_those_past_their_deadline_make_room(held, batcher):
    late = batcher.submit("red", range(12), timeout=0)
    future = batcher.submit("red", 20)
    with pytest.raises(DeadlineExceeded):
        late.result(0)
    held.release()
    future.result(WAIT)


def test_a_picture_that_is_not_finite_fails_nobody_else(held, batcher):
    held.not_finite = {1}
    futures = [batcher.submit("red", seeds) for seeds in (0, 1, 2, 3)]
    held.release()
    for seed in (0, 2, 3):
        assert same(futures[seed].result(WAIT), held.generate("red", seed))
    with pytest.raises(QualityGateFailed):
        futures[1].result(WAIT)
    notes = batcher._observer
    assert [type(error) for error in notes.errors] == [QualityGateFailed]
    assert not batcher.is_broken


def test_the_rest_of_a_call_that_fails_is_not_drawn(held, batcher):
    held.not_finite = {1}
    future = batcher.submit("red", range(12))
    held.release()
    with pytest.raises(QualityGateFailed):
        future.result(WAIT)
    assert batcher.length == 0
    batcher.submit("red", 50).result(WAIT)
    assert held.batches == [[100], [0, 1, 2, 3], [0], [1], [50]]


def test_a_device_that_fails_and_works_again(held, batcher):
    held.release()
    batcher.first.result(WAIT)
    held.error = ProviderUnavailable("the device is gone")
    for _ in range(2):
        with expect_error(ProviderUnavailable, "gone"):
            batcher.submit("red", 1).result(WAIT)
        assert batcher.is_broken
        assert batcher.device_error is held.error
    held.error = None
    assert same(batcher.submit("red", 1).result(WAIT), held.generate("red", 1))
    assert not batcher.is_broken
    assert batcher.device_error is None
    assert batcher._observer.errors == [batcher._observer.errors[0]] * 2


@pytest.mark.parametrize("error", [RuntimeError("a bug"), SystemExit(3), MemoryError()])
def test_an_unexpected_error_ends_the_call_and_the_lane_goes_on(held, batcher, error):
    held.release()
    batcher.first.result(WAIT)
    held.error = error
    with pytest.raises(type(error)):
        batcher.submit("red", 1).result(WAIT)
    held.error = None
    assert batcher.submit("red", 1).result(WAIT).shape == (1, 8, 8, 3)


@pytest.mark.parametrize("error", [RuntimeError, StopIteration, SystemExit])
def test_an_observer_that_fails_costs_nobody_a_picture(model, caplog, error):
    class Broken:
        def batch_done(self, *_):
            raise error("broken observer")

        rejected = failed = batch_done

    batcher = Batcher(model, observer=Broken())
    assert batcher.submit("red", [1, 2]).result(WAIT).shape == (2, 8, 8, 3)
    assert "observer" in caplog.text


def test_errors_of_arguments_come_before_anything_is_queued(model):
    batcher = Batcher(model, queue=4)
    calls = [
        ("prompt", {"prompts": ["red", 3]}),
        ("prompt", {"prompts": []}),
        ("seed", {"prompts": "red", "seeds": [1, -1]}),
        ("seeds", {"prompts": "red", "seeds": [1], "seed": 1}),
        ("together", {"prompts": ["red"] * 2, "seeds": [1, 2, 3]}),
        ("truncation", {"prompts": "red", "truncation": 0}),
        ("timeout", {"prompts": "red", "timeout": "soon"}),
        ("timeout", {"prompts": "red", "timeout": float("nan")}),
        ("timeout", {"prompts": "red", "timeout": True}),
    ]
    for word, arguments in calls:
        with pytest.raises(UsageError, match=word):
            batcher.submit(**arguments)
        with pytest.raises(UsageError, match=word):
            asyncio.run(batcher.generate(**arguments))
    assert batcher.length == 0
    with expect_error(UsageError, "square"):
        asyncio.run(batcher.interpolate(["red"] * 2, 2, square=3))
    with pytest.raises(UsageError, match="seed"):
        batcher.stream("red", -1)
    with expect_error(UsageError, "grace"):
        batcher.close(grace=float("nan"))
    batcher.close(grace=float("inf"))


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("max_batch", [0, 1.5, True, None]),
        ("max_wait_ms", [-1, float("nan"), 1e9, "5", True, 10**400]),
        ("queue", [0, -1, float("inf")]),
        ("lanes", [0, 65, 1.5]),
    ],
)
def test_options_are_checked(model, option, values):
    for value in values:
        with expect_error(UsageError, option):
            Batcher(model, **{option: value})


def test_the_caller_is_warned_of_a_cut(model):
    batcher = Batcher(model)
    with pytest.warns(PromptCut, match="prompt 0") as cuts:
        batcher.submit("red pan " * 40, 1).result(WAIT)
    assert len(cuts) == 1
    assert cuts[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PromptCut):
            asyncio.run(batcher.generate("red pan " * 40, 1))
    assert batcher.length == 0
    with pytest.warns(PromptCut) as cuts:
        asyncio.run(model.generate_async("red pan " * 40, 1))
    assert len(cuts) == 1


def test_pillow_images(model):
    async def main():
        batcher = Batcher(model)
        images = await batcher.generate("red", [1, 2], as_pil=True)
        images += await batcher.interpolate(["red", "pan"], 2, seed=1, as_pil=True)
        return images + [image async for _, image in batcher.stream("red", 1, as_pil=True)]

    images = asyncio.run(main())
    assert [type(image) for image in images] == [Image.Image] * 5
    assert same(np.stack(images[:2]), model.generate("red", [1, 2]))
    assert same(np.stack(images[2:4]), model.interpolate(["red", "pan"], 2, seed=1))


def test_a_stream_gives_pictures_as_they_are_ready(held):
    batcher = Batcher(held.model, max_batch=1, lanes=1)

    async def main():
        stream = batcher.stream("red", [1, 2, 3])
        assert batcher.length == 0  # nothing is queued before the first step
        held.hold()
        step = asyncio.ensure_future(anext(stream))
        await asyncio.to_thread(held.wait_until_started)
        assert not step.done()
        held.release()
        index, picture = await step
        found = {index: picture} | {index: picture async for index, picture in stream}
        assert same(np.stack([found[index] for index in range(3)]), held.generate("red", [1, 2, 3]))

    asyncio.run(main())


def test_a_stream_that_is_closed_cancels_the_rest(held, batcher):
    async def main():
        stream = batcher.stream("red", range(10))
        step = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert batcher.length == 10
        held.release()
        await step
        held.hold()
        await stream.aclose()
        assert batcher.length == 0
        held.release()

    asyncio.run(main())


def test_a_stream_gives_what_there_is_before_it_fails(held):
    held.not_finite = {2}
    batcher = Batcher(held.model, max_batch=1, lanes=1)
    found = []

    async def main():
        async for index, _ in batcher.stream("red", [1, 2, 3]):
            found.append(index)

    with pytest.raises(QualityGateFailed):
        asyncio.run(main())
    assert found == [0]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # asyncio's, of the closed loop
def test_a_stream_whose_loop_is_gone_fails_nobody_else(held, batcher):
    loop = asyncio.new_event_loop()
    step = loop.create_task(anext(batcher.stream("red", [1, 2])))
    loop.run_until_complete(asyncio.sleep(0.01))
    other = batcher.submit("red", 3)
    loop.close()
    held.release()
    assert other.result(WAIT).shape == (1, 8, 8, 3)
    step._log_destroy_pending = False  # it was left behind on purpose
    del step
    gc.collect()


def test_several_event_loops_and_threads(model):
    batcher, results = Batcher(model, queue=200, lanes=2), {}

    def work(number):
        async def main():
            return await asyncio.gather(*[batcher.generate("red", [number, i]) for i in range(10)])

        results[number] = asyncio.run(main())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    for number in range(4):
        for i, pictures in enumerate(results[number]):
            assert same(pictures, model.generate("red", [number, i]))


def test_closing_finishes_what_was_accepted(held, batcher):
    futures = [batcher.submit("red", range(4)), batcher.submit("red", 5)]
    closer = threading.Thread(target=batcher.close)
    closer.start()
    while not batcher.is_closed:
        time.sleep(0.001)
    with pytest.raises(ServiceUnavailable, match="closed"):
        batcher.submit("red", 1)
    assert closer.is_alive()
    held.release()
    closer.join(WAIT)
    assert not closer.is_alive()
    assert [future.result(0).shape[0] for future in futures] == [4, 1]
    assert batcher._observer.reasons == ["closed"]
    assert not any(thread.is_alive() for thread in batcher._lanes._threads)


@pytest.mark.parametrize("how", ["close", "aclose"])
def test_after_the_grace_the_rest_ends_with_an_error(held, batcher, how):
    future = batcher.submit("red", range(4))
    if how == "close":
        batcher.close(grace=0.05)
    else:
        asyncio.run(batcher.aclose(0.05))
    for each in (future, batcher.first):
        with pytest.raises(ServiceUnavailable, match="closed"):
            each.result(0)
    assert batcher.length == 0
    held.release()
    batcher.close()
    assert held.batches == [[100]]


def test_closing_without_waiting(held, batcher):
    future = batcher.submit("red", 1)
    batcher.close(wait=False)
    assert not future.done()
    held.release()
    assert future.result(WAIT).shape == (1, 8, 8, 3)


def test_a_batcher_that_is_dropped_ends_its_threads_and_frees_the_model(shared_bundle):
    model = galip_runtime.load(shared_bundle, device="cpu", threads=1)
    batcher = Batcher(model, lanes=2)
    future = batcher.submit("red", 1)
    threads, alive = list(batcher._lanes._threads), weakref.ref(model)
    del batcher
    gc.collect()
    assert future.result(WAIT).shape == (1, 8, 8, 3)
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    del model, future
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("by", ["submit", "generate"])
def test_pictures_are_freed_with_their_last_reference(model, by):
    batcher = Batcher(model, lanes=1)
    gc.collect()
    gc.disable()
    try:
        if by == "submit":
            pictures = weakref.ref(batcher.submit("red", [1, 2]).result(WAIT))
        else:
            pictures = weakref.ref(asyncio.run(batcher.generate("red", [1, 2])))
        check_freed(pictures)
    finally:
        gc.enable()
    batcher.close()


def check_freed(pictures):
    until = time.monotonic() + WAIT
    while pictures() is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert pictures() is None


def test_a_listener_that_fails_ends_its_own_call_alone():
    def broken(index, picture):
        raise RuntimeError("broken listener")

    queue = PictureQueue(9, max_batch=4, max_wait=0, lanes=1, rejected=lambda reason: None)
    request = PictureRequest(np.zeros((1, 3), np.int64), np.zeros((2, 2), np.float32))
    pictures = np.zeros((2, 1, 1, 3), np.uint8)
    calls = [Call(None, request, pictures, None, listener) for listener in (broken, None)]
    for call in calls:
        queue.put(call, lambda: 1.0)
    jobs = queue.take()
    for job in jobs:
        queue.deliver(job, pictures[0])
    queue.done(jobs)
    with pytest.raises(RuntimeError, match="listener"):
        calls[0].future.result(0)
    assert calls[1].future.result(0) is pictures
