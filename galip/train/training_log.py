"""What a training run reports: lines of `log.jsonl`, TensorBoard events, and progress on screen."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from galip_runtime.bundle.decoding import parse
from galip_runtime.errors import FileRefused
from galip_runtime.files import write_atomically
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from galip.train.fabric import mean_over_processes
from galip.train.labels import in_words, label_of
from galip.train.states import check_finite

__all__ = ["LogFile", "TrainingLog", "as_code"]


def as_code(lines: Iterable[str]) -> str:
    """Return lines in TensorBoard's Markdown: shown as they are, whatever they hold."""
    return "\n".join(f"    {' '.join(line.splitlines())}" for line in lines)


class LogFile:
    """`log.jsonl`, a line for each logged step and each validation."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one line."""
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def remove_after(self, step: int) -> None:
        """Remove the lines of steps after `step`, which are done again, and a last line that a kill cut off.

        Raises `FileRefused` for a line that no training wrote.
        """
        lines = [line for line in self._lines() if self._parse(line)["step"] <= step]
        if self.path.exists():
            write_atomically(self.path, "".join(lines).encode())

    def replace(self, entry: Mapping[str, Any], names: Mapping[str, float]) -> None:
        """Add one line and remove any of the same step that has all of `names`."""
        lines = [
            line
            for line in self._lines()
            if (old := self._parse(line))["step"] != entry["step"] or not names.keys() <= old.keys()
        ]
        write_atomically(self.path, "".join([*lines, json.dumps(entry) + "\n"]).encode())

    def _lines(self) -> list[str]:
        """Return the whole lines; a kill may have cut off the last one."""
        text = self.path.read_bytes().decode(errors="replace") if self.path.exists() else ""
        return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def _parse(self, line: str) -> dict[str, Any]:
        try:
            entry = parse(line)
        except FileRefused:
            entry = None
        if not isinstance(entry, dict) or type(entry.get("step")) is not int:
            raise FileRefused(
                f"{self.path} has a line that is damaged: {line!r:.80}; mend or remove the line, or move the "
                "file elsewhere"
            )
        return entry


class TrainingLog:
    """Means of each step's scalars since the last log line. Of several processes the first writes them."""

    def __init__(
        self, out: Path, fabric: Fabric, writer: Any, *, log_every: int, echo: Callable[[str], None]
    ) -> None:
        """`writer`: TensorBoard's in the first process, None in the others."""
        self.out, self.fabric, self.writer, self.log_every, self.echo = out, fabric, writer, log_every, echo
        self.file = LogFile(out / "log.jsonl")
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._clock, self._clock_step = time.monotonic(), 0

    def start_clock(self, step: int) -> None:
        """Measure the rate from now on, at which `step` steps are done."""
        self._clock, self._clock_step = time.monotonic(), step

    @contextlib.contextmanager
    def clock_paused(self) -> Iterator[None]:
        """Leave the time that the block takes out of the rate."""
        start = time.monotonic()
        yield
        self._clock += time.monotonic() - start

    def log_step(
        self,
        step: int,
        total: int,
        batch_size: int,
        scalars: Mapping[str, Tensor],
        learning_rates: Mapping[str, float] | None = None,
    ) -> None:
        """Add the scalars of `step` (from 1); every `log_every` steps write and print their means. The step's
        `learning_rates`, by network, go into TensorBoard alone.

        Raises `QualityGateFailed` if one is not finite: the state on disk is then the last good one.
        """
        for name, value in scalars.items():
            value = value.detach().float()  # stays on its device: reading it would make that one wait
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1
        if step % self.log_every and step != total:
            return
        sums, count = mean_over_processes(self.fabric, self._sums), self._count
        check_finite(sums.items(), self.out)
        self._sums, self._count = {}, 0
        if self.writer is None:
            return
        means = {name: value.item() / count for name, value in sums.items()}
        seconds, steps = time.monotonic() - self._clock, max(step - self._clock_step, 1)
        self.start_clock(step)
        rate = steps * batch_size / seconds
        self._write_scalars({**means, "pictures_per_second": rate}, step)
        for network, learning_rate in (learning_rates or {}).items():
            self.writer.add_scalar(f"learning_rate/{network}", learning_rate, step)
        self.file.append({"step": step, "time": time.time(), "pictures_per_second": rate, **means})
        left = int(seconds / steps * (total - step))
        self.echo(
            f"step {step}/{total}  {in_words(means)} · {rate:.0f} pictures/s, "
            f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        )

    def log_figures(self, figures: Mapping[str, float], step: int) -> None:
        """Write and print figures that are not a step's losses, such as FID."""
        self._write_scalars(figures, step)
        # a run that was killed before it saved that it had validated does so again
        self.file.replace({"step": step, "time": time.time(), **figures}, figures)
        self.echo(f"step {step}  {in_words(figures, '.4g')}")

    def _write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Put scalars into TensorBoard, in groups, under the names that `log.jsonl` has."""
        for name, value in scalars.items():
            self.writer.add_scalar(f"{label_of(name).group}/{name}".lstrip("/"), value, step)

    def log_picture(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """Put a picture (H, W, 3) into TensorBoard."""
        self.writer.add_image(name, picture, step, dataformats="HWC")

    def log_lines(self, name: str, lines: Iterable[str], step: int) -> None:
        """Put lines of text into TensorBoard."""
        self.writer.add_text(name, as_code(lines), step)

    def check_finite(self) -> None:
        """Raise `QualityGateFailed` if a scalar since the last log line is not finite."""
        check_finite(self._sums.items(), self.out)

    def state(self) -> dict[str, Any]:
        """Return what is not logged yet, as a mean over all processes. Every process calls this."""
        return {"sums": mean_over_processes(self.fabric, self._sums), "count": self._count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._sums = {name: value.to(self.fabric.device) for name, value in state["sums"].items()}
        self._count = int(state["count"])

    def close(self) -> None:
        """Close TensorBoard's writer."""
        if self.writer:
            self.writer.close()
