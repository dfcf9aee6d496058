"""A training run: the loop over its steps, with exact resume, a log and stop signals."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from galip_runtime.errors import GalipError, ProviderUnavailable, UsageError
from galip_runtime.install import install_extra
from lightning_fabric import Fabric
from torch import Tensor

from galip.data.workers import LoaderFailed
from galip.train.fabric import any_process
from galip.train.run_folder import RunFolder
from galip.train.states import check_finite, load_newest_state, named_tensors, newest_state, write_state
from galip.train.stop_signals import StopSignals, TrainingStopped
from galip.train.training_log import TrainingLog, as_code

__all__ = ["Run"]


class Run:
    """One run and its folder: `config.json`, `states/` for resume, `log.jsonl`, TensorBoard events, samples.

    As a context manager it handles stop signals. Of several processes the first writes and prints.
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
        self.out, self.fabric, self.keep = out, fabric, keep
        self.echo = _first_process_only(echo, fabric)
        self.signals = StopSignals()
        self.folder = RunFolder(out, config, self.echo)
        writer = self._open(resume) if fabric.is_global_zero else None
        self.log = TrainingLog(out, fabric, writer, log_every=log_every, echo=self.echo)
        fabric.barrier()

    def _open(self, resume: bool) -> Any:
        """Open the folder and return TensorBoard's writer, which has got the options. Raises
        `ProviderUnavailable` without TensorBoard.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ProviderUnavailable(
                f"training needs tensorboard, which is not installed: {install_extra('train', 'galip')}"
            ) from error
        step = self.folder.open(resume)
        writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=step + 1 if step else None)
        options = (f"{name} = {value!r}" for name, value in asdict(self.folder.config).items())
        writer.add_text("options", as_code(options), step)
        return writer

    def __enter__(self) -> Run:
        self.signals.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.signals.__exit__(kind, error, tb)
        self.log.close()
        self.folder.close()

    def loop(
        self,
        start: int,
        steps: int,
        batch_size: int,
        save_every: int,
        step: Callable[[int], Mapping[str, Tensor]],
        after: Callable[[int, bool, bool], None],
        learning_rates: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """Do the steps from `start` on. `step(index)` returns scalars to log. `after(done, saving, stopping)`
        runs after each step and saves everything if `saving`, quickly if `stopping`. `learning_rates()`
        returns those of the last step, by network.

        Raises `TrainingStopped` after a stop signal, `QualityGateFailed` if a scalar is not finite.
        """
        if start >= steps:
            self.echo(f"all steps up to {steps} are done already")
        self.log.start_clock(start)
        for done in range(start + 1, steps + 1):
            try:
                scalars = step(done - 1)
            except LoaderFailed:  # before anything of this step was computed
                if self.fabric.world_size == 1 and done - 1 > start and (done - 1) % save_every:
                    after(done - 1, True, True)
                raise
            self.log.log_step(done, steps, batch_size, scalars, learning_rates())
            # only the signal handler sets the flag
            stopping = any_process(self.fabric, self.signals.requested) and done < steps
            with self.log.clock_paused():
                after(done, done % save_every == 0 or done == steps or stopping, stopping)
            if stopping:
                raise TrainingStopped(f"stopped after step {done}; the state is saved")

    def restore(self, load: Callable[[dict[str, Any]], int]) -> int:
        """Pass the saved state to `load`, which returns how many steps are done; 0 in a fresh run.

        Raises `FileRefused` if the state is damaged, `UsageError` if it is another model's.
        """
        state = load_newest_state(self.out)
        if state is None:
            return 0
        try:
            done = load(state)
        except GalipError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            why = self.folder.changes({"model"}) or str(error).splitlines()[0]
            raise UsageError(
                f"{newest_state(self.out)} is of another model ({why}); resume with the command and --model "
                "that began the run, or choose another --out"
            ) from error
        if state.get("meter"):
            self.log.restore(state["meter"])
        if self.fabric.is_global_zero:
            self.folder.write_config()  # only now: another model's run keeps its own
        return done

    def check_finite(self, state: Mapping[str, Any]) -> None:
        """Raise `QualityGateFailed` if a scalar since the last log line or a number of `state` is NaN or
        infinite. Losses don't show yet what the last update did.
        """
        self.log.check_finite()
        check_finite(named_tensors(state), self.out)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the state of step `state["step"]`, whole or not at all; then drop all but the newest `keep`.

        All processes call this, and the first one writes. Raises `QualityGateFailed` as `check_finite`,
        `UsageError` if it can't be written.
        """
        self.check_finite(state)
        meter = self.log.state()
        if self.fabric.is_global_zero:
            write_state(self.out, {**state, "meter": meter}, self.keep)


def _first_process_only(echo: Callable[[str], None], fabric: Fabric) -> Callable[[str], None]:
    """Return `echo` for the first process; the others print nothing."""

    def print_line(line: str) -> None:
        if fabric.is_global_zero:
            # EIO after SIGHUP, EPIPE: a terminal that is gone ends no training; log.jsonl has the figures
            with contextlib.suppress(OSError):
                echo(line)

    return print_line
