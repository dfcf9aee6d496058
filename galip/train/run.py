"""A training run on disk and on screen: its folder, exact resume, scalars, progress, stop signals."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from galip_runtime.arrays import to_uint8
from galip_runtime.errors import FileRefused, GalipError, ProviderUnavailable, QualityGateFailed, UsageError
from galip_runtime.files import lock_folder, remove_leftovers, staged_file, write_atomically
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from galip.data.loader import PATIENCE, LoaderFailed
from galip.train.presets import stored_options

__all__ = ["EMA", "MOST_LOGIT_SCALE", "Run", "TrainingStopped", "newest_state", "save_grid"]


STATES, SAMPLES = "states", "samples"
"""Folder of what a run is resumed from, within its own: STEP.pt, the newest ones."""
FIXED = frozenset({"batch_size", "seed"})
"""Options that decide which pictures and random numbers a step has: a run keeps them."""
MOST_LOGIT_SCALE = math.log(100)
"""CLIP's bound on the logarithm of the factor that similarities are multiplied by."""


class TrainingStopped(Exception):
    """A stop signal came; the run's state is saved."""


def newest_state(out: Path) -> Path | None:
    """The newest state of the run in `out`; None if it has none yet."""
    return max((out / STATES).glob("*.pt"), default=None, key=lambda path: (len(path.name), path.name))


class EMA:
    """Exponential moving average of a module's trainable parameters, with a warm-up for short runs."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards `module` after `step` steps; the decay is min(decay, (1 + step) / (10 + step))."""
        decay = min(self.decay, (1 + step) / (10 + step))
        live = dict(module.named_parameters())
        torch._foreach_lerp_(
            list(self.values.values()), [live[name].detach() for name in self.values], 1 - decay
        )

    @contextlib.contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Within the block `module` has the averaged weights."""
        live = {name: p.detach().clone() for name, p in module.named_parameters() if name in self.values}
        module.load_state_dict(self.values, strict=False)
        try:
            yield
        finally:
            module.load_state_dict(live, strict=False)


@dataclass
class _Meter:
    """Sums of scalars since the last log line."""

    sums: dict[str, Tensor]
    count: int = 0


class Run:
    """One run's folder: `config.json`, `states/` for resume, `log.jsonl`, TensorBoard events, samples.

    As a context manager it turns SIGINT, SIGTERM and SIGHUP into `stop_requested`; a second SIGINT,
    `PATIENCE` later, stops at once. Of several processes the first writes and prints.
    """

    def __init__(
        self,
        out: Path,
        config: Any,
        fabric: Fabric,
        *,
        resume: bool,
        log_every: int,
        echo: Callable[[str], None],
        keep: int = 1,
    ) -> None:
        self.out, self.config, self.fabric, self.log_every, self.keep = out, config, fabric, log_every, keep
        self._print, self._log = echo, out / "log.jsonl"
        self.stop_requested = False
        self._stop_came = math.inf
        self._meter = _Meter({})
        self._previous: dict[signal.Signals, Any] = {}
        self._clock, self._clock_step = time.monotonic(), 0
        self._unlock: Callable[[], object] = lambda: None
        self.writer: Any = None
        if fabric.is_global_zero:
            self._open(resume)
        fabric.barrier()

    def echo(self, line: str) -> None:
        """Print `line`, in the first process only; a terminal that is gone ends no training."""
        if self.fabric.is_global_zero:
            with contextlib.suppress(OSError):  # EIO after SIGHUP, EPIPE: log.jsonl has the figures
                self._print(line)

    def _open(self, resume: bool) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ProviderUnavailable(
                "training needs tensorboard, which is not installed: pip install 'galip[train]'"
            ) from error
        out = self.out
        try:
            (out / STATES).mkdir(parents=True, exist_ok=True)
            self._lock(out)
            for folder in (out, out / STATES, out / SAMPLES):
                remove_leftovers(folder)
            state = newest_state(out)
            if state and not resume:
                raise UsageError(
                    f"{out} holds a run already; --resume goes on with it, or choose another --out"
                )
            if state:
                self._tell_changes()
            else:
                self._write_config()
            self._forget_after(int(state.stem) if state else 0)
        except OSError as error:
            raise UsageError(
                f"cannot write to {out}: {error.strerror}; choose a folder you may write to"
            ) from error
        self.echo(f"resolved config: {json.dumps(asdict(self.config))}")
        done = int(state.stem) if state else 0
        self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=done + 1 if done else None)

    def _lock(self, out: Path) -> None:
        """Keep other trainings out of `out` until this run ends. Raises `UsageError` if one is in it."""
        try:
            lock = lock_folder(out)
        except BlockingIOError as error:
            raise UsageError(
                f"another training writes to {out}; wait for it, or choose another --out"
            ) from error
        if lock is not None:
            self._unlock = weakref.finalize(self, os.close, lock)

    def _tell_changes(self) -> None:
        """Say which options are others than the run began with. Raises `UsageError` for those that decide
        which pictures and random numbers a step has.
        """
        now = asdict(self.config)
        began = stored_options(self.out, now)
        changed = [name for name, value in began.items() if now[name] != value]
        told = ", ".join(f"{name} {began[name]!r}, now {now[name]!r}" for name in changed)
        if FIXED.intersection(changed):
            raise UsageError(
                f"the run in {self.out} began with {told}; keep {' and '.join(sorted(FIXED))}, or "
                "begin a new run (--init takes the weights)"
            )
        if told:
            self.echo(f"changed since the run began: {told}")

    def _forget_after(self, step: int) -> None:
        """Take steps after `step` out of the log: they are done again."""
        kept = [line for line in self._log_lines() if self._entry(line)["step"] <= step]
        if self._log.exists():
            write_atomically(self._log, "".join(kept).encode())

    def _log_lines(self) -> list[str]:
        """Whole lines of the log; a kill may have cut the last one."""
        text = self._log.read_bytes().decode(errors="replace") if self._log.exists() else ""
        return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def _entry(self, line: str) -> dict[str, Any]:
        """What a line of the log says. Raises `FileRefused` for one that no training wrote."""
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or type(entry.get("step")) is not int:
            raise FileRefused(
                f"{self._log} has a line that is damaged: {line!r:.80}; mend or remove the line, or move the "
                "file elsewhere"
            )
        return entry

    def _write_config(self) -> None:
        (self.out / "config.json").write_text(json.dumps(asdict(self.config), indent=1) + "\n")

    def __enter__(self) -> Run:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup: the run outlives its terminal
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self.writer:
            self.writer.close()
        self._unlock()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stop_requested:
            if number == signal.SIGINT and time.monotonic() - self._stop_came > PATIENCE:
                raise KeyboardInterrupt
            return
        self.stop_requested, self._stop_came = True, time.monotonic()
        # not print: the signal may have come in the middle of one, and Python's streams can't be re-entered
        with contextlib.suppress(OSError):  # a full or closed stderr: the state is saved all the same
            os.write(2, b"stopping after this step; Ctrl-C again to stop at once\n")

    def loop(
        self,
        start: int,
        steps: int,
        batch_size: int,
        save_every: int,
        step: Callable[[int], Mapping[str, Tensor]],
        after: Callable[[int, bool, bool], None],
    ) -> None:
        """Do the steps from `start` on: `step(index)` gives scalars to log, `after(done, saving, stopping)`
        comes after each and saves all there is where `saving` says so, soon where `stopping` does.

        Raises `TrainingStopped` after a stop signal, `QualityGateFailed` when a scalar is not finite.
        """
        self._clock, self._clock_step = time.monotonic(), start
        for done in range(start + 1, steps + 1):
            try:
                scalars = step(done - 1)
            except LoaderFailed:  # before anything of this step was computed
                if self.fabric.world_size == 1 and done - 1 > start and (done - 1) % save_every:
                    after(done - 1, True, True)
                raise
            self.log(done, steps, batch_size, scalars)
            # the flag is the signal handler's alone to set
            stopping = self._any_process(self.stop_requested) and done < steps
            began = time.monotonic()
            after(done, done % save_every == 0 or done == steps or stopping, stopping)
            self._clock += time.monotonic() - began  # the rate is the steps' alone
            if stopping:
                raise TrainingStopped(f"stopped after step {done}; go on with --resume")

    def _any_process(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.fabric.world_size == 1:
            return flag
        flags = self.fabric.all_reduce(torch.tensor(float(flag)), reduce_op="sum")
        assert isinstance(flags, Tensor)
        return bool(flags > 0)

    def load_state(self) -> dict[str, Any] | None:
        """The newest state, None in a fresh run. Raises `FileRefused` if it is damaged."""
        path = newest_state(self.out)
        if path is None:
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise FileRefused(
                f"{path} is damaged ({type(error).__name__}); remove it to go on from the state before, or "
                "from the start if there is none, or put back a copy"
            ) from error
        assert isinstance(state, dict)
        return state

    def restore(self, take_up: Callable[[dict[str, Any]], int]) -> int:
        """Hand the saved state to `take_up`, which says how many steps are done; 0 in a fresh run.

        Raises `FileRefused` when the state is damaged, `UsageError` when it is another model's.
        """
        state = self.load_state()
        if state is None:
            return 0
        try:
            done = take_up(state)
        except GalipError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"{newest_state(self.out)} is of another model ({str(error).splitlines()[0]}); resume with "
                "the command and --model that began the run, or choose another --out"
            ) from error
        meter = state.get("meter")
        if meter:
            sums = {name: total.to(self.fabric.device) for name, total in meter["sums"].items()}
            self._meter = _Meter(sums, int(meter["count"]))
        if self.writer:
            self._write_config()  # only now: another model's run keeps its own
        return done

    def check_finite(self, state: Mapping[str, Any]) -> None:
        """Raises `QualityGateFailed` when a scalar since the last log line or a number of `state` is NaN or
        infinite; losses don't show yet what the last update did.
        """
        self._check_finite(self._meter.sums.items())
        self._check_finite(_tensors_in(state))

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the state of step `state["step"]`, whole or not at all; then drop all but the newest `keep`.

        All processes call this, and the first one writes: what is not logged yet is the mean over them.

        Raises `QualityGateFailed` as `check_finite`, `UsageError` when it can't be written.
        """
        self.check_finite(state)
        meter = {"sums": self._over_processes(self._meter.sums), "count": self._meter.count}
        if not self.fabric.is_global_zero:
            return
        path = self.out / STATES / f"{state['step']:07}.pt"
        try:
            with staged_file(path) as temporary:
                torch.save({**state, "meter": meter}, temporary)
        except (UsageError, RuntimeError) as error:  # RuntimeError: torch's for a disk that is full
            raise UsageError(f"cannot write {path}: {error}; the last state is kept") from error
        for old in sorted(path.parent.glob("*.pt"), key=lambda path: (len(path.name), path.name))[
            : -self.keep
        ]:
            old.unlink(missing_ok=True)

    def _check_finite(self, named: Iterable[tuple[str, Tensor]]) -> None:
        broken = [name for name, tensor in named if not tensor.isfinite().all()]
        if broken:
            more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
            raise QualityGateFailed(
                f"{', '.join(broken[:5])}{more} became NaN or infinite; the last good state is kept in "
                f"{self.out}. Resume with a lower learning rate"
            )

    def log(self, step: int, total: int, batch_size: int, scalars: Mapping[str, Tensor]) -> None:
        """Count the scalars of `step` (from 1); every `log_every` steps write and print their means.

        Raises `QualityGateFailed` when one is not finite: the state on disk is then the last good one.
        """
        for name, value in scalars.items():
            value = value.detach().float()  # stays on its device: asking for it would make that one wait
            self._meter.sums[name] = self._meter.sums[name] + value if name in self._meter.sums else value
        self._meter.count += 1
        if step % self.log_every and step != total:
            return
        sums, count = self._over_processes(self._meter.sums), self._meter.count
        self._check_finite(sums.items())
        self._meter = _Meter({})
        if self.writer is None:
            return
        means = {name: total.item() / count for name, total in sums.items()}
        seconds, steps = time.monotonic() - self._clock, max(step - self._clock_step, 1)
        self._clock, self._clock_step = time.monotonic(), step
        rate = steps * batch_size / seconds
        for name, mean in {**means, "pictures_per_second": rate}.items():
            self.writer.add_scalar(name, mean, step)
        with self._log.open("a") as log:
            log.write(
                json.dumps({"step": step, "time": time.time(), "pictures_per_second": rate, **means}) + "\n"
            )
        left = int(seconds / steps * (total - step))
        figures = "  ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        self.echo(
            f"step {step}/{total}  {figures}  {rate:.0f} pictures/s  "
            f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        )

    def _over_processes(self, scalars: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Their means over all processes, which work on parts of the same batches."""
        if self.fabric.world_size == 1 or not scalars:
            return scalars
        means = self.fabric.all_reduce(torch.stack([*scalars.values()]), reduce_op="mean")
        assert isinstance(means, Tensor)
        return dict(zip(scalars, means, strict=True))

    def show(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """Put a picture (H, W, 3) into TensorBoard."""
        self.writer.add_image(name, picture, step, dataformats="HWC")

    def note(self, figures: Mapping[str, float], step: int) -> None:
        """Put figures that are not a step's losses, such as FID, into TensorBoard, the log and on screen."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        # a run that was killed before it saved that it had judged does so again
        known = [line for line in self._log_lines() if not _is_note(self._entry(line), figures, step)]
        line = json.dumps({"step": step, "time": time.time(), **figures}) + "\n"
        write_atomically(self._log, "".join([*known, line]).encode())
        self.echo(f"step {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items()))


def _is_note(entry: Mapping[str, Any], figures: Mapping[str, float], step: int) -> bool:
    """Whether an entry of the log has these figures of this step."""
    return entry["step"] == step and figures.keys() <= entry.keys()


def _tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dicts and lists, named by their place: `optimizer.state.0.exp_avg`."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping | list):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors_in(item, f"{name}.{key}" if name else str(key))


def save_grid(pictures: Tensor, path: Path, columns: int) -> NDArray[np.uint8]:
    """Write pictures (N, 3, S, S) in [-1, 1] as one PNG, `columns` in a row; returns it (H, W, 3)."""
    from galip_runtime.image import grid, save_picture

    sheet = grid(to_uint8(pictures.detach().float().cpu().numpy()), columns=columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(sheet, path)
    return sheet
