"""A loaded stub bundle whose runs a test can hold, watch and break."""

import threading

import galip_runtime
import numpy as np
from galip_runtime import QualityGateFailed

__all__ = ["HeldModel", "Notes"]

WAIT = 60.0
"""seconds; far more than any test needs"""


class HeldModel:
    """Replaces `decode_pictures` of a model. `batches` has the seeds (below 200) of each run, in order."""

    def __init__(self, bundle, threads=1):
        self.model = galip_runtime.load(bundle, device="cpu", threads=threads)
        self.generate = galip_runtime.load(bundle, device="cpu", threads=1).generate
        """of a model of its own, which nothing holds"""
        self.batches = []
        self.not_finite = set()
        """seeds whose pictures are not finite"""
        self.error = None
        """raised by each run"""
        self._decode = self.model.decode_pictures
        self._started = threading.Semaphore(0)
        self._go = threading.Event()
        self._go.set()
        self._seeds = {row.tobytes(): seed for seed, row in enumerate(self.model.noise(range(200)))}
        self.model.decode_pictures = self._run

    def hold(self):
        """Let runs that start from now on wait for `release`."""
        self._go.clear()

    def release(self):
        """Let all runs go on."""
        self._go.set()

    def wait_until_started(self):
        """Wait for one more run to start."""
        assert self._started.acquire(timeout=WAIT)

    def _run(self, noise, sentence):
        seeds = [self._seeds.get(row.tobytes()) for row in noise.astype(np.float32)]
        self.batches.append(seeds)
        self._started.release()
        assert self._go.wait(WAIT)
        if self.error is not None:
            raise self.error
        if self.not_finite.intersection(seeds):
            raise QualityGateFailed("the generator gave values that are not finite")
        return self._decode(noise, sentence)


class Notes:
    """An observer of a `Batcher` that keeps what it is notified of."""

    def __init__(self):
        self.batches, self.reasons, self.errors = [], [], []

    def batch_done(self, size, wait_seconds, encode_seconds, decode_seconds):
        assert size == len(wait_seconds)
        assert min(*wait_seconds, encode_seconds, decode_seconds) >= 0
        self.batches.append(size)

    def rejected(self, reason):
        self.reasons.append(reason)

    def failed(self, error):
        self.errors.append(error)
