"""Rounds in which the peers take turns, and how far their pictures are from eager PyTorch's."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from galip_bench.models import Models
from galip_bench.prompts import PROMPTS
from galip_runtime.arrays import batches as parts_of
from galip_runtime.arrays import to_uint8
from galip_runtime.errors import ProviderUnavailable
from galip_runtime.hardware import usable_cpus
from galip_runtime.noise import noise as noise_of

from galip.eager import load_eager
from galip.metrics.psnr import psnr
from studies.harness import GeneratorFile
from studies.peers.instructions import Instructions
from studies.peers.loaders import BASE, PEERS, Floats, Task
from studies.peers.process import PeerFailed, PeerProcess

__all__ = ["SCHEMA", "Plan", "measure"]

SCHEMA = 1
_TIMED_ROWS = 512
_PAUSE = 0.05
"""Seconds between turns: idle threads of onnxruntime spin for 0.04, of OpenMP for 0.01."""
_EAGER_BATCH = 8


@dataclass(frozen=True)
class Plan:
    """What is measured, of which peers."""

    peers: Sequence[str] = tuple(PEERS)
    batches: Sequence[int] = (1,)
    rounds: int = 11
    warmup: int = 2
    """Rounds before those, which do not count."""
    threads: int | None = None
    """None: one for each CPU that may be used."""
    python: Path = Path(".venv-peers/bin/python")
    """Interpreter of the environment with MNN and ncnn."""

    @property
    def checked(self) -> int:
        """Pictures that are compared."""
        return self.rounds * sum(self.batches)


@dataclass
class _Samples:
    """What a peer has given so far."""

    loaded: dict[str, Any] = field(default_factory=dict)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    largest_error: float = 0.0
    least_psnr: float = float("inf")

    def result(self) -> dict[str, Any]:
        """Return what the result says of it."""
        finite = np.isfinite(self.least_psnr)
        return {
            **self.loaded,
            "seconds": self.seconds,
            "largest_error": self.largest_error,
            "least_psnr": self.least_psnr if finite else None,
        }


class _Peers:
    """The peers that run, and those that do not."""

    def __init__(self) -> None:
        self.running: dict[str, tuple[PeerProcess, _Samples]] = {}
        self.unavailable: dict[str, str] = {}

    def load(self, task: Task, python: Path, environment: Mapping[str, str]) -> None:
        """Start a peer's process and wait until it is ready. Raises as `leave_out`."""
        _report(f"loading {task.peer}")
        try:
            process = PeerProcess(task, python, environment)
        except PeerFailed as error:
            self.leave_out(task.peer, str(error))
            return
        self.running[task.peer] = process, (samples := _Samples())
        try:
            samples.loaded = process.loaded()
        except PeerFailed as error:
            self.leave_out(task.peer, str(error))

    def leave_out(self, peer: str, reason: str) -> None:
        """End a peer. Raises `ProviderUnavailable` for `BASE`."""
        if peer == BASE:
            raise ProviderUnavailable(f"{BASE}, which all are compared with, does not run: {reason}")
        _report(f"without {peer}: {reason}")
        self.unavailable[peer] = reason
        if peer in self.running:
            self.running.pop(peer)[0].close()

    def close(self) -> None:
        """End all processes."""
        for process, _ in self.running.values():
            process.close()


def measure(models: Models, plan: Plan, instructions: Instructions) -> dict[str, Any]:
    """Return the content of the result file: each peer's seconds, and its pictures' distance from eager's.

    `largest_error` is the largest difference over the standard deviation of eager's pictures. `least_psnr`,
    in dB, is of 8-bit pictures; None where all are equal.

    Raises as `GeneratorFile.of` and `load_eager`, and `ProviderUnavailable` if `BASE` fails.
    """
    generator, threads = GeneratorFile.of(models.bundle), plan.threads or usable_cpus()
    with tempfile.TemporaryDirectory() as name, contextlib.closing(_Peers()) as peers:
        folder = Path(name)
        reference = _write_inputs(models, plan, threads, folder / "inputs.npz")
        for peer in dict.fromkeys([BASE, *plan.peers]):
            task = _task(peer, models, plan, threads, folder)
            peers.load(task, plan.python, instructions.environment)
        _take_rounds(plan, reference, peers)
    return {
        "schema": SCHEMA,
        "benchmark": "peers",
        **generator.facts(threads),
        "instructions": {
            "title": instructions.title,
            "environment": dict(instructions.environment),
        },
        "rounds": plan.rounds,
        "pictures": len(reference),
        "peers": {peer: samples.result() for peer, (_, samples) in peers.running.items()},
        "unavailable": peers.unavailable,
    }


def _task(peer: str, models: Models, plan: Plan, threads: int, folder: Path) -> Task:
    """Return what the worker of `peer` loads, with a folder of its own in `folder`."""
    assert models.plain_bundle
    bundles = {"bundle": models.bundle, "plain": models.plain_bundle}
    own = folder / peer
    own.mkdir()
    return Task(
        peer=peer,
        checkpoint=str(models.checkpoint),
        bundle=str(models.bundle),
        graphs={kind: str(GeneratorFile.of(bundle).path("fp32")) for kind, bundle in bundles.items()},
        inputs=str(folder / "inputs.npz"),
        checked=plan.checked,
        image=str(own / "image.npy"),
        threads=threads,
        folder=str(own),
    )


def _write_inputs(models: Models, plan: Plan, threads: int, file: Path) -> Floats:
    """Write noise and sentences to `file`; return what eager PyTorch draws of those that are compared.

    A sentence lies somewhere between two prompts, as no two are to be equal.
    """
    eager = load_eager(models.checkpoint, "cpu", threads=threads)
    count = plan.checked + _TIMED_ROWS
    rng = np.random.default_rng(0)
    one = rng.integers(len(PROMPTS), size=count)
    other = (one + rng.integers(1, len(PROMPTS), size=count)) % len(PROMPTS)
    prompts, share = eager.encode_text(PROMPTS), rng.random((count, 1), np.float32)
    sentence = (1 - share) * prompts[one] + share * prompts[other]
    noise = noise_of(range(count), eager.dimensions.noise_dim)
    np.savez(file, noise=noise, sentence=sentence)
    noise, sentence = noise[: plan.checked], sentence[: plan.checked]
    parts = parts_of(plan.checked, _EAGER_BATCH)
    return np.concatenate([eager.decode(noise[part], sentence[part]) for part in parts])


def _take_rounds(plan: Plan, reference: Floats, peers: _Peers) -> None:
    """Let the peers take turns. One that fails is left out."""
    shown, deviation = to_uint8(reference), float(reference.std())
    for number, batch, first in _turns(plan):
        rows = slice(first, first + batch)
        for peer, (process, samples) in list(peers.running.items()):
            try:
                image, seconds = process.turn(batch, first)
            except PeerFailed as error:
                peers.leave_out(peer, str(error))
                continue
            time.sleep(_PAUSE)
            if not np.isfinite(image).all():
                peers.leave_out(peer, "a picture has NaN or infinity")
            elif number >= 0:
                error_of_turn = float(np.abs(image - reference[rows]).max()) / deviation
                samples.largest_error = max(samples.largest_error, error_of_turn)
                decibels = float(psnr(shown[rows], to_uint8(image), 255).min())
                samples.least_psnr = min(samples.least_psnr, decibels)
                samples.seconds.setdefault(batch, []).append(seconds)
        if batch == plan.batches[-1]:
            _report(f"round {number + 1} of {plan.rounds}")


def _turns(plan: Plan) -> Iterator[tuple[int, int, int]]:
    """Iterate over (round, batch size, first row of the turn's pictures); warm-up rounds are negative."""
    for number in range(-plan.warmup, plan.rounds):
        first = max(number, 0) * sum(plan.batches)
        for batch in plan.batches:
            yield number, batch, first
            first += batch


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
