"""A bounded queue of pictures that wait to be drawn, taken in batches. Threads share it.

The unit is the picture: a call for n pictures takes n places, or none and is refused. Calls take turns, one
picture each, so whoever asks for a few does not wait until somebody else's many are done: before a call's
k-th picture is drawn, at most k of any other call that waits are.
"""

import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from galip_runtime.errors import DeadlineExceeded, ServiceUnavailable
from galip_runtime.picture_request import PictureRequest

if TYPE_CHECKING:
    from galip_runtime.text_to_image import TextToImage

__all__ = ["Call", "Job", "PictureQueue"]

Picture = npt.NDArray[np.uint8]
"""(H, W, 3)"""

_CROWDED_SECONDS = 1.0  # for so long after two calls were there at once, a batch waits for more


@dataclass(eq=False)
class Call:
    """One caller's pictures. It has ended once `future` is done, in whatever way."""

    model: "TextToImage"
    request: PictureRequest
    pictures: Picture
    """(N, H, W, 3), filled as they are drawn"""
    deadline: float | None
    """of `time.monotonic()`; None: it may take as long as it takes"""
    on_picture: Callable[[int, Picture], object] | None = None
    """called by the lane for each picture, before `future` is done"""
    future: "Future[Picture]" = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    waiting: deque[int] = field(init=False)
    """indices of the pictures that no lane has taken yet"""
    missing: int = field(init=False)
    """pictures that are not drawn yet"""

    def __post_init__(self) -> None:
        self.waiting = deque(range(len(self.request)))
        self.missing = len(self.request)

    def is_late(self, now: float) -> bool:
        """Return whether the deadline has passed."""
        return self.deadline is not None and now >= self.deadline

    def fail(self, error: BaseException) -> bool:
        """End the call with `error`. Returns False if it had ended already."""
        try:
            self.future.set_exception(error)
        except InvalidStateError:
            return False
        return True

    def succeed(self) -> bool:
        """End the call with its pictures. Returns False if it had ended already."""
        try:
            self.future.set_result(self.pictures)
        except InvalidStateError:
            return False
        return True


@dataclass(frozen=True)
class Job:
    """One picture that a lane has taken."""

    call: Call
    index: int
    waited: float
    """seconds in the queue"""


class PictureQueue:
    """At most `capacity` pictures, taken by `lanes` threads in batches of at most `max_batch`."""

    def __init__(
        self, capacity: int, max_batch: int, max_wait: float, lanes: int, rejected: Callable[[str], object]
    ) -> None:
        """`max_wait`: the most seconds for which a picture waits for others to fill its batch.

        `rejected` is called with queue_full, deadline, cancelled or closed for each call that ends so.
        """
        self.capacity, self.max_batch, self.max_wait, self.lanes = capacity, max_batch, max_wait, lanes
        self._rejected = rejected
        self.closed = False
        self.forked()

    def forked(self) -> None:
        """Start empty: the calls belong to the parent process, whose threads end them."""
        self._changed = threading.Condition()  # reentrant: a destructor may cancel a call anywhere
        self._gathering = threading.Lock()  # held by the one lane that fills a batch
        self._calls: set[Call] = set()  # all that have not ended
        self._turns: OrderedDict[Call, None] = OrderedDict()  # those with waiting pictures, next one first
        self.length = self.running = self._busy_lanes = 0
        self._crowded_until = 0.0

    def put(self, call: Call, retry_after: Callable[[], float]) -> None:
        """Take in all of a call's pictures, or raise ServiceUnavailable."""
        self._drop_late()
        reason = None
        with self._changed:
            if self.closed:
                reason = "closed"
            elif self.length + len(call.request) > self.capacity:
                reason = "queue_full"
            else:
                if self._calls:
                    self._crowded_until = call.arrived + _CROWDED_SECONDS
                self._calls.add(call)
                self._turns[call] = None
                self.length += len(call.request)
                self._changed.notify_all()
        if reason is None:
            # a weak reference, since a future keeps its callbacks: the pictures go with the caller's last one
            call.future.add_done_callback(partial(self._ended, weakref.ref(call)))
            return
        self._rejected(reason)
        if reason == "closed":
            raise ServiceUnavailable("the batcher is closed and takes no more pictures: make another")
        raise ServiceUnavailable(
            f"the queue is full: {self.length} of {self.capacity} places are taken and {len(call.request)} "
            "more are asked for. Try again later",
            retry_after=retry_after(),
        )

    def take(self) -> list[Job]:
        """Wait for the next batch and return it; empty once the queue is closed and nothing is left.

        A batch waits for `max_batch` pictures, at most `max_wait` seconds after its first one came, and not
        at all if nobody else has called lately. Idle lanes share what waits. Call `done` after each batch.
        """
        while True:
            with self._gathering:
                if not self._gather():
                    return []
                self._drop_late()
                if jobs := self._pop():
                    return jobs

    def _gather(self) -> bool:
        """Wait until a batch should start. Returns False once the queue is closed and nothing is left."""
        with self._changed:
            while True:
                if not self._turns:
                    if self.closed:
                        return False
                    self._changed.wait()
                    continue
                now = time.monotonic()
                until = min(call.arrived for call in self._turns) + self.max_wait
                is_alone = now > self._crowded_until
                if self.length >= self.max_batch or now >= until or is_alone or self.closed:
                    return True
                self._changed.wait(until - now)

    def _pop(self) -> list[Job]:
        """Take the next pictures out of the queue, one of each call in turn; none if all were cancelled."""
        now = time.monotonic()
        jobs: list[Job] = []
        with self._changed:
            share = -(-self.length // (self.lanes - self._busy_lanes))
            while self._turns and len(jobs) < min(share, self.max_batch):
                call = next(iter(self._turns))
                if call.future.done():
                    self._drop(call)
                    continue
                jobs.append(Job(call, call.waiting.popleft(), now - call.arrived))
                self.length -= 1
                self._turns.move_to_end(call)
                if not call.waiting:
                    del self._turns[call]
            self.running += len(jobs)
            self._busy_lanes += bool(jobs)
        return jobs

    def done(self, jobs: list[Job]) -> None:
        """Say that the lane that took `jobs` is free again."""
        with self._changed:
            self.running -= len(jobs)
            self._busy_lanes -= 1

    def deliver(self, job: Job, picture: Picture) -> None:
        """Hand over a drawn picture. The last one of a call ends it."""
        call = job.call
        call.pictures[job.index] = picture
        if call.on_picture is not None and not call.future.done():
            try:
                call.on_picture(job.index, call.pictures[job.index])
            except Exception as error:  # the caller's, as where its event loop is closed: not its neighbours'
                call.fail(error)
        with self._changed:
            call.missing -= 1
            is_last = not call.missing
        if is_last:
            if call.is_late(time.monotonic()):
                self.expire(call)
            else:
                call.succeed()

    def expire(self, call: Call) -> None:
        """End a call whose deadline has passed."""
        if call.fail(DeadlineExceeded("the deadline passed before the pictures were there: allow more time")):
            self._rejected("deadline")

    def _drop_late(self) -> None:
        now = time.monotonic()
        with self._changed:
            late = [call for call in self._turns if call.is_late(now)]
        for call in late:
            self.expire(call)

    def _ended(self, reference: "weakref.ref[Call]", future: "Future[Picture]") -> None:
        """Drop what is left of a call that has ended."""
        call = reference()
        if call is not None:  # always, but in a process forked since, whose queue began anew
            with self._changed:
                self._calls.discard(call)
                self._drop(call)
                self._changed.notify_all()
        if future.cancelled():
            future.set_running_or_notify_cancel()  # wakes those who wait for it by `concurrent.futures.wait`
            self._rejected("cancelled")

    def _drop(self, call: Call) -> None:
        """Take a call's pictures out of the queue; the lock has to be held."""
        if call in self._turns:
            del self._turns[call]
            self.length -= len(call.waiting)
            call.waiting.clear()

    def close(self) -> None:
        """Take in no more calls."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def wait_until_empty(self, timeout: float | None) -> bool:
        """Wait until every call has ended, at most `timeout` seconds. Returns whether they have."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._calls, timeout)

    def fail_all(self, message: str) -> None:
        """End every call with ServiceUnavailable."""
        with self._changed:
            calls = list(self._calls)
        for call in calls:
            if call.fail(ServiceUnavailable(message)):
                self._rejected("closed")
