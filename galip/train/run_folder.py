"""A training run's folder: locked while the run lasts, with the config that the run began with."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from galip_runtime.errors import UsageError
from galip_runtime.files import lock_folder, remove_leftovers, write_atomically

from galip.differences import describe_differences
from galip.train.commands import changed_options
from galip.train.options import stored_options
from galip.train.states import STATES, newest_state
from galip.train.training_log import LogFile

__all__ = ["FIXED", "SAMPLES", "RunFolder"]

CONFIG = "config.json"
SAMPLES = "samples"
"""Folder of the sample grids within the run's."""
FIXED = frozenset({"batch_size", "seed"})
"""Options that decide which pictures and random numbers a step has: a run keeps them."""


class RunFolder:
    """The folder `path` of a run with `config`, opened by the first process."""

    def __init__(self, path: Path, config: Any, echo: Callable[[str], None]) -> None:
        self.path, self.config, self.echo = path, config, echo
        self._unlock: Callable[[], object] = lambda: None

    def open(self, resume: bool) -> int:
        """Make or take up the folder and lock it; return the step of its newest state, 0 in a fresh run.

        Raises `UsageError` if it can't be written, if another training writes to it, if it holds a run that
        is not to `resume`, or one with other `FIXED` options.
        """
        try:
            (self.path / STATES).mkdir(parents=True, exist_ok=True)
            self._lock()
            for folder in (self.path, self.path / STATES, self.path / SAMPLES):
                remove_leftovers(folder)
            state = newest_state(self.path)
            if state and not resume:
                raise UsageError(
                    f"{self.path} already holds a run; --resume continues it, or choose another --out"
                )
            step = int(state.stem) if state else 0
            if state:
                self.echo(f"resuming {self.path} after step {step}")
                self._check_changes()
            else:
                self.write_config()
            LogFile(self.path / "log.jsonl").remove_after(step)
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.path}: {error.strerror}; choose a folder you may write to"
            ) from error
        self.echo(f"options: {changed_options(self.config)}")
        self.echo(f"the other options have their defaults; all of them are in {self.path / CONFIG}")
        return step

    def write_config(self) -> None:
        """Write all options to `config.json`."""
        text = json.dumps(asdict(self.config), indent=1) + "\n"
        write_atomically(self.path / CONFIG, text.encode())

    def close(self) -> None:
        """Let another training use the folder."""
        self._unlock()

    def _lock(self) -> None:
        """Lock the folder until `close` or this object goes. Raises `UsageError` if another training has."""
        try:
            lock = lock_folder(self.path)
        except BlockingIOError as error:
            raise UsageError(
                f"another training writes to {self.path}; wait for it, or choose another --out"
            ) from error
        if lock is not None:
            self._unlock = weakref.finalize(self, os.close, lock)

    def changes(self, names: Collection[str] | None = None) -> str:
        """Return in words how the options, or those in `names`, differ from those that the run began with."""
        options = asdict(self.config)
        first = {
            name: value
            for name, value in stored_options(self.path, options).items()
            if names is None or name in names
        }
        return describe_differences(first, {name: options[name] for name in first}, "now")

    def _check_changes(self) -> None:
        """Report options that differ from those the run began with. Raises `UsageError` for `FIXED` ones."""
        if fixed := self.changes(FIXED):
            raise UsageError(
                f"the run in {self.path} began with {fixed}; keep {' and '.join(sorted(FIXED))}, or "
                "begin a new run (--init takes the weights)"
            )
        if changes := self.changes():
            self.echo(f"changed since the run began: {changes}")
