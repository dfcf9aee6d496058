"""Batcher under random callers, and its queue step by step: every call ends, no place is lost or invented."""

import concurrent.futures
import time

import numpy as np
import pytest
from galip_runtime import Batcher, DeadlineExceeded, QualityGateFailed, ServiceUnavailable
from galip_runtime.batching.queue import Call, PictureQueue
from galip_runtime.picture_request import PictureRequest
from held_model import WAIT, HeldModel, Notes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

CAPACITY = 9
NOT_FINITE = 7
"""the seed whose picture fails"""


class Queue(RuleBasedStateMachine):
    """A `PictureQueue` against a plain list of what waits."""

    def __init__(self):
        super().__init__()
        self.reasons = []
        self.queue = PictureQueue(CAPACITY, max_batch=4, max_wait=0, lanes=2, rejected=self.reasons.append)
        self.waiting = {}  # by call, its indices
        self.running = []
        self.calls = []

    def _new(self, count, deadline=None):
        request = PictureRequest(np.zeros((1, 3), np.int64), np.zeros((count, 2), np.float32))
        return Call(None, request, np.zeros((count, 1, 1, 3), np.uint8), deadline)

    def _count(self):
        return sum(map(len, self.waiting.values()))

    @rule(count=st.integers(1, CAPACITY))
    def put(self, count):
        call = self._new(count)
        if self._count() + count > CAPACITY:
            with pytest.raises(ServiceUnavailable) as info:
                self.queue.put(call, lambda: 3.0)
            assert info.value.retry_after == 3.0
            assert not call.future.done()
        else:
            self.queue.put(call, lambda: 3.0)
            self.waiting[call] = list(range(count))
            self.calls.append(call)

    @rule(count=st.integers(1, 3))
    def put_late(self, count):
        """A call that is past its deadline leaves when somebody else comes, or a batch starts."""
        if self._count() + count <= CAPACITY:
            call = self._new(count, deadline=time.monotonic() - 1)
            self.queue.put(call, lambda: 3.0)
            self.queue._drop_late()
            with pytest.raises(DeadlineExceeded):
                call.future.result(0)

    @precondition(lambda self: self.waiting and len(self.running) < 2)
    @rule()
    def take(self):
        share = min(4, -(-self._count() // (2 - len(self.running))))
        jobs = self.queue.take()
        assert len(jobs) == share
        turns = list(self.waiting.items())
        expected = []
        while len(expected) < share:
            call, left = turns.pop(0)
            expected.append((call, left.pop(0)))
            del self.waiting[call]
            if left:
                turns.append((call, left))
                self.waiting[call] = left
        assert [(job.call, job.index) for job in jobs] == expected
        self.running.append(jobs)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data):
        self._draw(self.running.pop(data.draw(st.integers(0, len(self.running) - 1))))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data, fails):
        call = data.draw(st.sampled_from(self.calls))
        was_done = call.future.done()
        ended = call.fail(ValueError()) if fails else call.future.cancel()
        if not was_done:
            assert ended
            self.waiting.pop(call, None)

    @invariant()
    def counts_agree(self):
        assert self.queue.length == self._count() <= CAPACITY
        assert self.queue.running == sum(map(len, self.running))

    def _draw(self, jobs):
        for job in jobs:
            self.queue.deliver(job, np.full((1, 1, 3), job.index + 1, np.uint8))
        self.queue.done(jobs)

    def teardown(self):
        self.queue.close()
        for jobs in self.running:
            self._draw(jobs)
        while jobs := self.queue.take():
            self._draw(jobs)
        for call in self.calls:
            assert call.future.done()
            if not call.future.cancelled() and call.future.exception() is None:
                assert call.future.result()[:, 0, 0, 0].tolist() == [*range(1, len(call.request) + 1)]
        assert self.queue.wait_until_empty(0)


Queue.TestCase.settings = settings(max_examples=100, deadline=None)
TestQueue = Queue.TestCase

CALLS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 11), min_size=1, max_size=CAPACITY),  # seeds
        st.sampled_from([None, None, None, 0.0, 0.002, 10.0]),  # timeout
        st.sampled_from([None, None, 0, 1, 3]),  # cancel the call that many before
        st.sampled_from([0.0, 0.0, 0.001]),  # sleep
    ),
    max_size=25,
)


@pytest.fixture(scope="module")
def held(shared_bundle):
    held = HeldModel(shared_bundle)
    held.not_finite = {NOT_FINITE}
    return held


@pytest.fixture(scope="module")
def pictures(held):
    return held.generate("red", range(12))


@given(
    calls=CALLS,
    lanes=st.integers(1, 3),
    max_batch=st.integers(1, 5),
    grace=st.sampled_from([None, 0.0, 0.005]),
)
@settings(max_examples=60, deadline=None)
def test_every_call_ends_and_every_picture_is_right(held, pictures, calls, lanes, max_batch, grace):
    notes = Notes()
    batcher = Batcher(
        held.model, max_batch=max_batch, max_wait_ms=1, queue=CAPACITY, lanes=lanes, observer=notes
    )
    futures, refused = [], 0
    for seeds, timeout, cancel, sleep in calls:
        try:
            futures.append((seeds, timeout, batcher.submit("red", seeds, timeout=timeout)))
        except ServiceUnavailable:
            refused += 1
        assert batcher.length <= CAPACITY
        if cancel is not None and cancel < len(futures):
            futures[-1 - cancel][2].cancel()
        time.sleep(sleep)
    batcher.close(grace=grace)
    assert concurrent.futures.wait([future for *_, future in futures], WAIT).not_done == set()
    batcher.close()
    assert batcher.length == batcher._lanes.queue.running == 0
    for seeds, timeout, future in futures:
        if future.cancelled():
            continue
        error = future.exception()
        if error is None:
            assert np.array_equal(future.result(), pictures[seeds])
            assert NOT_FINITE not in seeds
        elif isinstance(error, DeadlineExceeded):
            assert timeout is not None
        elif isinstance(error, ServiceUnavailable):
            assert grace is not None
        else:
            assert type(error) is QualityGateFailed
            assert NOT_FINITE in seeds
    ends = [future.cancelled() or future.exception() is not None for *_, future in futures]
    assert len(notes.reasons) + len(notes.errors) == refused + sum(ends)
    assert all(size <= max_batch for size in notes.batches)
