"""Trials in processes of their own: a crash, a hang or a hunger for memory is the fault of one trial.

A target is a module of this package with

    SECONDS            the most that a trial may take
    MEGABYTES          the most memory that a trial may add to its process, or None
    start(home)        makes what its trials share in the folder `home`, once a process, and gives `trial`
    trial(rng, folder) tries one case, whose files go into the empty `folder`, and says in a word or two what
                       came of it; whatever it raises is a fault

The target's name, the seed and the trial's number decide a case; what it took is left in `folder`.
"""

import contextlib
import faulthandler
import fcntl
import importlib
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

import numpy as np
from galip_runtime.errors import GalipError

__all__ = ["TARGETS", "Fault", "Result", "Trial", "out_of_memory", "resident_megabytes", "run", "serve"]

TARGETS = (
    "mutated_bundles",
    "forged_bundles",
    "checkpoints",
    "datasets",
    "captions",
    "killed_exports",
    "killed_trainings",
    "threads",
)
"""Names of modules."""

Trial = Callable[[np.random.Generator, Path], str]

_START_SECONDS = 600
_KEPT_ALIKE = 3
"""inputs kept of faults that look the same"""
_NO_MEMORY = re.compile(r"bad_alloc|MemoryError|[Ff]ailed to allocate|[Cc]annot allocate|[Oo]ut of memory")
_PLACE = re.compile(r'File "[^"]*?([^"/]+/[^"/]+)", line (\d+),? in')
_RAISED = re.compile(
    r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Failed|Refused|Unavailable)\b.*", re.MULTILINE
)


@dataclass(frozen=True)
class Fault:
    """A trial that did not hold."""

    number: int
    what: str
    """In a line; the same for faults that look the same."""
    detail: str
    """The traceback, or what a process that died left on stderr."""
    folder: Path | None
    """The input and how to reproduce it; None where enough of its kind are kept."""


@dataclass
class Result:
    """What trials of a target came to."""

    target: str
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Of the trials that held: how often each came out."""
    faults: list[Fault] = field(default_factory=list)

    @property
    def held(self) -> int:
        """Trials without a fault."""
        return self.outcomes.total()

    @property
    def tried(self) -> int:
        """All trials."""
        return self.held + len(self.faults)


@dataclass
class _Answer:
    """What a worker says of a trial."""

    outcome: str = ""
    what: str | None = None
    detail: str = ""


def run(
    target: str,
    seed: int,
    home: Path,
    keep: Path,
    *,
    seconds: float = float("inf"),
    numbers: Iterator[int] | None = None,
    jobs: int = 1,
    patience: float = 1,
    report: Callable[[str], None] = print,
) -> Result:
    """Try `numbers` (0, 1, 2, … without) until they or the `seconds` end, `jobs` at a time.

    `home`: a folder for what trials share; `keep`: where the inputs of faults are moved to;
    `patience`: times as long as `SECONDS` that a trial may take.
    """
    home.mkdir(parents=True, exist_ok=True)
    result, numbers = Result(target), numbers or itertools.count()
    workers = [_Worker(target, seed, home / f"worker{index}", home, patience) for index in range(jobs)]
    began = None
    try:
        while True:
            for worker in workers:
                if worker.ready and (began is None or time.monotonic() - began < seconds):
                    began = began or time.monotonic()  # what trials share is made by now
                    if (number := next(numbers, None)) is not None:
                        worker.try_(number)
            busy = [worker for worker in workers if worker.number is not None]
            if not busy and all(worker.ready for worker in workers):
                break
            wait([worker.connection for worker in workers if not worker.ready], timeout=0.2)
            for worker in workers:
                if (answer := worker.answer()) is not None:
                    _count(result, answer, worker, seed, keep, report)
    finally:
        result.seconds = time.monotonic() - (began or time.monotonic())
        for worker in workers:
            worker.end()
    return result


def _count(
    result: Result, answer: _Answer, worker: "_Worker", seed: int, keep: Path, report: Callable[[str], None]
) -> None:
    number, worker.number = worker.number, None
    assert number is not None
    if answer.what is None:
        result.outcomes[answer.outcome] += 1
    else:
        kept = None
        if sum(fault.what == answer.what for fault in result.faults) < _KEPT_ALIKE:
            kept = keep / f"{result.target}-{seed}-{number}"
            command = (
                f"make fuzz FUZZ_TARGETS={result.target} FUZZ_SEED={seed} FUZZ_OPTIONS='--only {number}'"
            )
            shutil.rmtree(kept, ignore_errors=True)
            keep.mkdir(parents=True, exist_ok=True)
            shutil.move(worker.folder, kept)
            (kept / "FAULT.txt").write_text(
                f"{command}\n\n{answer.what}\n\n{answer.detail}", errors="backslashreplace"
            )
            report(f"{result.target} {number}: {answer.what}\n  {command}")
        result.faults.append(Fault(number, answer.what, answer.detail, kept))
    shutil.rmtree(worker.folder, ignore_errors=True)


class _Worker:
    """A process that tries cases of a target, and is started anew when it dies."""

    def __init__(self, target: str, seed: int, folder: Path, home: Path, patience: float) -> None:
        self.folder, self.number = folder, None
        self._arguments = (target, seed, home)
        self._log = folder.with_suffix(".log")
        self._seconds = importlib.import_module(f"fuzz.{target}").SECONDS * patience
        self._start()

    number: int | None
    """of the trial in progress"""

    def _start(self) -> None:
        self.connection, theirs = Pipe()
        target, seed, home = self._arguments
        code = f"from fuzz.harness import serve; serve({theirs.fileno()}, {target!r}, {seed}, {str(home)!r})"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "GALIP_CACHE": str(self.folder.with_suffix(".cache")),
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # so that all that it starts can be ended with it
            )
        theirs.close()
        self.ready, self._until = False, time.monotonic() + _START_SECONDS

    def try_(self, number: int) -> None:
        """Begin a trial."""
        self.number, self.ready = number, False
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self._until = time.monotonic() + self._seconds
        self.connection.send((number, self.folder))

    def answer(self) -> _Answer | None:
        """What came of the trial; None while it goes on. Raises RuntimeError where no trial can begin."""
        if self.ready:
            return None
        try:
            if self.connection.poll():
                answer = self.connection.recv()
                self.ready = True
                return answer if self.number is not None else None
            if time.monotonic() < self._until:
                return None
            answer = _Answer(what=f"no end within {self._seconds:g} s")
            # Its stacks, for the log
            self._process.send_signal(signal.SIGABRT)
            self._wait()
        except (EOFError, OSError):
            self._wait()
            answer = _Answer(what=f"the process died: {_ending(self._process.returncode)}")
        self.end()
        answer.detail = self._log.read_text(errors="backslashreplace")[-8000:]
        answer.what = f"{answer.what}{_place(answer.detail, latest_first=True)}"
        if self.number is None:
            raise RuntimeError(f"{self._arguments[0]} does not start: {answer.what}\n{answer.detail}")
        self._start()
        return answer

    def end(self) -> None:
        """Kill the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.connection.close()

    def _wait(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name


def serve(descriptor: int, target: str, seed: int, home: str) -> None:
    """Be a worker, at the other end of the pipe `descriptor`."""
    faulthandler.enable()
    connection = Connection(descriptor)
    module = importlib.import_module(f"fuzz.{target}")
    with _alone(Path(home)):
        trial = module.start(Path(home))
    connection.send(None)
    while True:
        number, folder = connection.recv()
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        rng = np.random.default_rng([seed, zlib.crc32(target.encode()), number])
        connection.send(_tried(trial, rng, folder, module.MEGABYTES))


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """What trials share is made by one worker."""
    with (home / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _tried(trial: Trial, rng: np.random.Generator, folder: Path, megabytes: int | None) -> _Answer:
    try:
        with _bounded_memory(megabytes) as memory:
            answer = _Answer(trial(rng, folder))
        if megabytes is not None and memory() > megabytes:
            what = f"more memory than {megabytes} MB"
            answer = _Answer(what=what, detail=f"{memory():.0f} MB, and then: {answer.outcome}")
    except Exception as error:
        answer = _Answer(what=_described(error), detail="".join(traceback.format_exception(error)))
    return answer


def _described(error: Exception) -> str:
    """What was raised and where, in a line; of a command's traceback within the message, that one's."""
    text = "".join(traceback.format_exception(error))
    raised = [line for line in _RAISED.findall(text) if "ends with exit code" not in line]
    last = raised[-1] if raised else text.strip().splitlines()[-1]
    # Numbers and paths differ from one input to the next
    return re.sub(r"/[^\s:,']+|[\w.+-]*\d[\w.+-]*", "…", last)[:120] + _place(text)


def _place(text: str, latest_first: bool = False) -> str:
    """Where a traceback within `text` ends, outside of the trials."""
    places = [match for match in _PLACE.finditer(text) if not match[1].startswith("fuzz/")]
    place = places[0 if latest_first else -1] if places else None
    return f" at {place[1]}:{place[2]}" if place else ""


def out_of_memory(error: BaseException | None) -> bool:
    """Whether `error` comes of memory that was not there: a bound caught what nothing else would have."""
    while error is not None:
        if not isinstance(error, GalipError) and _NO_MEMORY.search(f"{type(error).__name__}: {error}"):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def _bounded_memory(megabytes: int | None) -> Iterator[Callable[[], float]]:
    """Within the block no more address space than three times so much can be had; gives what tells how many
    more MB were in use at most. Linux alone tells and bounds.
    """
    if megabytes is None or sys.platform != "linux":
        yield lambda: 0.0
        return
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before, (soft, hard) = _status("VmRSS"), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(_status("VmSize") + 3 * megabytes) * 2**20, hard))
    try:
        yield lambda: _status("VmHWM") - before
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def resident_megabytes() -> float:
    """What this process has in memory; 0 where the system does not say."""
    return _status("VmRSS") if sys.platform == "linux" else 0.0


def _status(name: str) -> float:
    """MB that this process's status gives for `name`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
