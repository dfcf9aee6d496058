"""The saved states that a run is resumed from: `states/STEP.pt`, the newest ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from galip_runtime.errors import FileRefused, QualityGateFailed, UsageError
from galip_runtime.files import staged_file
from torch import Tensor

__all__ = ["STATES", "check_finite", "load_newest_state", "named_tensors", "newest_state", "write_state"]

STATES = "states"
"""Folder of the states within the run's."""


def newest_state(out: Path) -> Path | None:
    """Return the newest state of the run in `out`; None if it has none yet."""
    return max((out / STATES).glob("*.pt"), default=None, key=_by_step)


def load_newest_state(out: Path) -> dict[str, Any] | None:
    """Load the newest state of the run in `out`; None in a fresh run. Raises `FileRefused` if damaged."""
    path = newest_state(out)
    if path is None:
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling a damaged file can raise anything
        raise FileRefused(
            f"{path} is damaged ({type(error).__name__}); remove it to resume from the state before, or "
            "from the start if there is none, or restore it from a copy"
        ) from error
    assert isinstance(state, dict)
    return state


def write_state(out: Path, state: Mapping[str, Any], keep: int) -> None:
    """Write the state of step `state["step"]`, whole or not at all; then drop all but the newest `keep`.

    Raises `UsageError` if it can't be written.
    """
    path = out / STATES / f"{state['step']:07}.pt"
    try:
        with staged_file(path) as temporary:
            torch.save(state, temporary)
    except (UsageError, RuntimeError) as error:  # RuntimeError: torch's, when the disk is full
        raise UsageError(f"cannot write {path}: {error}; the last state is kept") from error
    for old in sorted(path.parent.glob("*.pt"), key=_by_step)[:-keep]:
        old.unlink(missing_ok=True)


def check_finite(tensors: Iterable[tuple[str, Tensor]], out: Path) -> None:
    """Raise `QualityGateFailed` if a tensor has NaN or infinity; `out` is the run that stops for it."""
    broken = [name for name, tensor in tensors if not tensor.isfinite().all()]
    if broken:
        more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise QualityGateFailed(
            f"{', '.join(broken[:5])}{more} became NaN or infinite; the last good state is kept in "
            f"{out}. Resume with a lower learning rate"
        )


def named_tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in nested dicts and lists, named by their place: `optimizer.state.0.exp_avg`."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping | list):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from named_tensors(item, f"{name}.{key}" if name else str(key))


def _by_step(path: Path) -> tuple[int, str]:
    return len(path.name), path.name
