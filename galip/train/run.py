"""A training run on disk and on screen: its folder, exact resume, scalars, progress, stop signals."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from galip_runtime.errors import FileRefused, ProviderUnavailable, QualityGateFailed, UsageError
from torch import Tensor, nn

from galip.train import parallel

__all__ = [
    "EMA",
    "MOST_LOGIT_SCALE",
    "STATE_FILE",
    "Batches",
    "Run",
    "TrainingStopped",
    "autocast",
    "choose_device",
    "generator_for",
    "save_grid",
]


STATE_FILE = "state.pt"
"""What a run is resumed from, in its folder."""
MOST_LOGIT_SCALE = math.log(100)
"""CLIP's bound on the logarithm of the factor that similarities are multiplied by."""


class TrainingStopped(Exception):
    """A stop signal came; the run's state is saved."""


def generator_for(seed: int, stream: str, step: int) -> torch.Generator:
    """Random numbers that depend on (seed, stream, step) alone, so that a resumed run draws the same."""
    words = np.random.SeedSequence([seed, step, *stream.encode()]).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def choose_device(name: str) -> torch.device:
    """The device `cpu` or `cuda`; `auto` is CUDA where there is one. Raises `ProviderUnavailable`."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ProviderUnavailable(
            f"PyTorch {torch.__version__} finds no CUDA device; check the driver and that this is "
            "a CUDA build of PyTorch, or train with --device cpu"
        )
    return torch.device(
        "cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu")
    )


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bf16 autocast for `bf16`, nothing for `fp32`; `auto` is bf16 where the hardware multiplies it."""
    cuda = device.type == "cuda"
    fast = torch.cuda.is_bf16_supported() if cuda else torch.cpu._is_avx512_bf16_supported()
    wanted = precision == "bf16" or (precision == "auto" and fast)
    return torch.autocast(device.type, torch.bfloat16) if wanted else contextlib.nullcontext()


class Batches:
    """Which pictures a step sees: each epoch all of them once, shuffled by (seed, epoch)."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        if count < batch_size:
            raise UsageError(f"{count} pictures are fewer than one batch of {batch_size}; lower --batch-size")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._orders: dict[int, Tensor] = {}

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            self._orders = {known: order for known, order in self._orders.items() if known >= epoch - 1}
            self._orders[epoch] = torch.randperm(
                self.count, generator=generator_for(self.seed, "order", epoch)
            )
        return self._orders[epoch]

    def __getitem__(self, step: int) -> Tensor:
        """Indices (batch_size) of step `step`, counted from 0."""
        position = step * self.batch_size
        epoch, start = divmod(position, self.count)
        indices = self._order(epoch)[start : start + self.batch_size]
        missing = self.batch_size - len(indices)
        return torch.cat([indices, self._order(epoch + 1)[:missing]]) if missing else indices


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
    """One run's folder: `config.json`, `state.pt` for resume, `log.jsonl`, TensorBoard events, samples.

    As a context manager it turns the first SIGINT or SIGTERM into `stop_requested`.
    """

    def __init__(
        self, out: Path, config: Any, *, resume: bool, log_every: int, echo: Callable[[str], None]
    ) -> None:
        self.out, self.log_every = out, log_every
        self.echo = echo if parallel.is_lead() else lambda line: None
        self.state_path = out / STATE_FILE
        self.stop_requested = False
        self._meter = _Meter({})
        self._previous: dict[signal.Signals, Any] = {}
        self._clock, self._clock_step = time.monotonic(), -1
        self.writer: Any = None
        if parallel.is_lead():
            self._open(config, resume)

    def _open(self, config: Any, resume: bool) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ProviderUnavailable(
                "training needs tensorboard, which is not installed: pip install 'galip[train]'"
            ) from error
        self._resolved = json.dumps(asdict(config), indent=1, default=str)
        out = self.out
        try:
            out.mkdir(parents=True, exist_ok=True)
            if self.state_path.exists() and not resume:
                raise UsageError(
                    f"{out} holds a run already; --resume goes on with it, or choose another --out"
                )
            if not self.state_path.exists():
                self._write_config()
        except OSError as error:
            raise UsageError(
                f"cannot write to {out}: {error.strerror}; choose a folder you may write to"
            ) from error
        self.echo(f"resolved config: {json.dumps(json.loads(self._resolved))}")
        self.writer = SummaryWriter(str(out / "tensorboard"))

    def _write_config(self) -> None:
        (self.out / "config.json").write_text(self._resolved + "\n")

    def __enter__(self) -> Run:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)
        self._clock = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self.writer:
            self.writer.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stop_requested:
            raise KeyboardInterrupt
        self.stop_requested = True
        # not print: the signal may have come in the middle of one, and Python's streams can't be re-entered
        os.write(2, b"stopping after this step; again to stop at once\n")

    def loop(
        self,
        start: int,
        steps: int,
        batch_size: int,
        save_every: int,
        step: Callable[[int], Mapping[str, Tensor]],
        save: Callable[[int], None],
    ) -> None:
        """Do the steps from `start` on: `step(index)` gives scalars to log, `save(done)` saves all there is.

        Raises `TrainingStopped` after a stop signal, `QualityGateFailed` when a scalar is not finite.
        """
        for done in range(start + 1, steps + 1):
            self.log(done, steps, batch_size, step(done - 1))
            stopping = parallel.any_process(
                self.stop_requested
            )  # the flag is the signal handler's alone to set
            if done % save_every == 0 or done == steps or stopping:
                save(done)
            if stopping and done < steps:
                raise TrainingStopped(f"stopped after step {done}; go on with --resume")

    def load_state(self) -> dict[str, Any] | None:
        """The state that `save_state` wrote, None in a fresh run. Raises `FileRefused` if it is damaged."""
        if not self.state_path.exists():
            return None
        try:
            state = torch.load(self.state_path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise FileRefused(
                f"{self.state_path} is damaged ({type(error).__name__}); remove it to start over, or "
                "put back a copy"
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
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"{self.state_path} is of another model ({str(error).splitlines()[0]}); resume with the "
                "command and --preset that began the run, or choose another --out"
            ) from error
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
        """Replace the run's state, whole or not at all.

        Raises `QualityGateFailed` as `check_finite`, `UsageError` when it can't be written.
        """
        self.check_finite(state)
        temporary = self.state_path.with_suffix(".tmp")
        try:
            torch.save(dict(state), temporary)
            os.replace(temporary, self.state_path)
        except (OSError, RuntimeError) as error:  # RuntimeError: torch's for a disk that is full
            raise UsageError(f"cannot write {self.state_path}: {error}; the last state is kept") from error
        finally:
            temporary.unlink(missing_ok=True)

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
            self._meter.sums[name] = (
                self._meter.sums.get(name, torch.zeros(())) + value.detach().float().cpu()
            )
        self._meter.count += 1
        if self._clock_step < 0:
            self._clock_step = step - 1
        if step % self.log_every and step != total:
            return
        self._check_finite(self._meter.sums.items())
        if self.writer is None:
            self._meter = _Meter({})
            return
        means = {name: total.item() / self._meter.count for name, total in self._meter.sums.items()}
        self._meter = _Meter({})
        seconds, steps = time.monotonic() - self._clock, max(step - self._clock_step, 1)
        self._clock, self._clock_step = time.monotonic(), step
        rate = steps * batch_size / seconds
        for name, mean in {**means, "pictures_per_second": rate}.items():
            self.writer.add_scalar(name, mean, step)
        with (self.out / "log.jsonl").open("a") as log:
            log.write(
                json.dumps({"step": step, "time": time.time(), "pictures_per_second": rate, **means}) + "\n"
            )
        left = int(seconds / steps * (total - step))
        figures = "  ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        self.echo(
            f"step {step}/{total}  {figures}  {rate:.0f} pictures/s  "
            f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        )


def _tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dicts and lists, named by their place: `optimizer.state.0.exp_avg`."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping | list):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors_in(item, f"{name}.{key}" if name else str(key))


def save_grid(pictures: Tensor, path: Path, columns: int) -> None:
    """Write pictures (N, 3, S, S) in [-1, 1] as one PNG, row by row, `columns` in a row."""
    from PIL import Image

    n, c, height, width = pictures.shape
    rows = -(-n // columns)
    pixels = ((pictures.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    sheet = torch.full((rows * columns, c, height, width), 255, dtype=torch.uint8)
    sheet[:n] = pixels
    sheet = (
        sheet.view(rows, columns, c, height, width)
        .permute(0, 3, 1, 4, 2)
        .reshape(rows * height, columns * width, c)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    try:
        Image.fromarray(sheet.numpy()).save(temporary, "PNG")
        os.replace(temporary, path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
