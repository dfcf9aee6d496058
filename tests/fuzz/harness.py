"""Runs trials in their own processes, so that a crash, a hang or excessive memory fails only one trial.

A target is a module of this package with

    SECONDS            time limit of a trial
    MEGABYTES          most memory that a trial may add to its process, or None
    start(home)        called once per process: prepares shared inputs in the folder `home`, returns `trial`
    trial(rng, folder) tries one case, writes its files to the empty `folder`, and returns the outcome in a
                       word or two; any exception is a fault

The target's name, the seed and the trial's number determine a case. Its input stays in `folder`.
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
"""Inputs to keep of faults that look the same."""
_NO_MEMORY = re.compile(r"bad_alloc|MemoryError|[Ff]ailed to allocate|[Cc]annot allocate|[Oo]ut of memory")
_PLACE = re.compile(r'File "[^"]*?([^"/]+/[^"/]+)", line (\d+),? in')
_RAISED = re.compile(
    r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Failed|Refused|Unavailable)\b.*", re.MULTILINE
)


@dataclass(frozen=True)
class Fault:
    """A failed trial."""

    number: int
    what: str
    """One line, the same for faults that look the same."""
    detail: str
    """The traceback, or the stderr of a process that died."""
    folder: Path | None
    """The input and how to reproduce it; None if enough of its kind are stored."""


@dataclass
class Result:
    """The outcomes of a target's trials."""

    target: str
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Count of each outcome among the trials that passed."""
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
    """A worker's report of a trial."""

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
    """Run the trials `numbers` (default 0, 1, 2, …) until they or the `seconds` end, `jobs` at a time.

    `home`: folder for shared inputs; `keep`: folder for the inputs of faults; `patience`: factor on the time
    limit `SECONDS`.
    """
    home.mkdir(parents=True, exist_ok=True)
    result, numbers = Result(target), numbers or itertools.count()
    workers = [_Worker(target, seed, home / f"worker{index}", home, patience) for index in range(jobs)]
    began = None
    try:
        while True:
            for worker in workers:
                if worker.ready and (began is None or time.monotonic() - began < seconds):
                    began = began or time.monotonic()  # the shared inputs exist by now
                    if (number := next(numbers, None)) is not None:
                        worker.start_trial(number)
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
    """A process that runs trials of a target, restarted when it dies."""

    def __init__(self, target: str, seed: int, folder: Path, home: Path, patience: float) -> None:
        self.folder, self.number = folder, None
        self._arguments = (target, seed, home)
        self._log = folder.with_suffix(".log")
        self._seconds = importlib.import_module(f"fuzz.{target}").SECONDS * patience
        self._start()

    number: int | None
    """Number of the running trial."""

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
                start_new_session=True,  # so that its children can be killed with it
            )
        theirs.close()
        self.ready, self._until = False, time.monotonic() + _START_SECONDS

    def start_trial(self, number: int) -> None:
        """Start a trial."""
        self.number, self.ready = number, False
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self._until = time.monotonic() + self._seconds
        self.connection.send((number, self.folder))

    def answer(self) -> _Answer | None:
        """Return the report of the trial, None while it runs. Raises RuntimeError if no trial can start."""
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
            # Dumps its stacks to the log
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
        """Kill the process and its children."""
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
    """Run as a worker, at the other end of the pipe `descriptor`."""
    faulthandler.enable()
    connection = Connection(descriptor)
    module = importlib.import_module(f"fuzz.{target}")
    with _exclusive(Path(home)):
        trial = module.start(Path(home))
    connection.send(None)
    while True:
        number, folder = connection.recv()
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        rng = np.random.default_rng([seed, zlib.crc32(target.encode()), number])
        connection.send(_run_trial(trial, rng, folder, module.MEGABYTES))


@contextlib.contextmanager
def _exclusive(home: Path) -> Iterator[None]:
    """Let one worker at a time into the block, so that only one prepares the shared inputs."""
    with (home / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run_trial(trial: Trial, rng: np.random.Generator, folder: Path, megabytes: int | None) -> _Answer:
    try:
        with _bounded_memory(megabytes) as memory:
            answer = _Answer(trial(rng, folder))
        if megabytes is not None and memory() > megabytes:
            what = f"more memory than {megabytes} MB"
            answer = _Answer(what=what, detail=f"{memory():.0f} MB, and then: {answer.outcome}")
    except Exception as error:
        answer = _Answer(what=_summary(error), detail="".join(traceback.format_exception(error)))
    return answer


def _summary(error: Exception) -> str:
    """Return in a line what was raised and where; of a command's traceback within it, that one's."""
    text = "".join(traceback.format_exception(error))
    raised = [line for line in _RAISED.findall(text) if "ends with exit code" not in line]
    last = raised[-1] if raised else text.strip().splitlines()[-1]
    # Numbers and paths differ from one input to the next
    return re.sub(r"/[^\s:,']+|[\w.+-]*\d[\w.+-]*", "…", last)[:120] + _place(text)


def _place(text: str, latest_first: bool = False) -> str:
    """Return where a traceback within `text` ends, outside of the trials."""
    places = [match for match in _PLACE.finditer(text) if not match[1].startswith("fuzz/")]
    place = places[0 if latest_first else -1] if places else None
    return f" at {place[1]}:{place[2]}" if place else ""


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether memory ran out: only the limit caught it, and no check of ours did."""
    while error is not None:
        if not isinstance(error, GalipError) and _NO_MEMORY.search(f"{type(error).__name__}: {error}"):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def _bounded_memory(megabytes: int | None) -> Iterator[Callable[[], float]]:
    """Limit the block to three times as much additional address space.

    Yields a function that returns the peak of additional memory in MB. Works only on Linux.
    """
    if megabytes is None or sys.platform != "linux":
        yield lambda: 0.0
        return
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before, (soft, hard) = _status("VmRSS"), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(_status("VmSize") + 3 * megabytes) * 2**20, hard))
    try:
        yield lambda: _status("VmHWM") - before
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def resident_megabytes() -> float:
    """Return the resident memory of this process in MB; 0 if the system does not report it."""
    return _status("VmRSS") if sys.platform == "linux" else 0.0


def _status(name: str) -> float:
    """Return the entry `name` of this process's status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
