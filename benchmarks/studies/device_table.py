"""The documentation's table of devices, from the runtime's."""

from __future__ import annotations

from galip_runtime.backends.tables import DEVICE_TABLE

__all__ = ["table"]

_COLUMNS = ("device", "hardware", "extra", "precisions", "`auto`", "tested on it")


def table() -> str:
    """Return the devices as a Markdown table, those that `auto` tries first."""
    names = sorted(DEVICE_TABLE, key=lambda name: (DEVICE_TABLE[name].auto is None, DEVICE_TABLE[name].auto))
    rows = []
    for name in names:
        device = DEVICE_TABLE[name]
        extras = " or ".join(f"`[{extra}]`" for extra in device.extras)
        order = "–" if device.auto is None else str(device.auto + 1)
        precisions = ", ".join(device.precisions)
        tested = "yes" if device.tested else "no"
        rows.append((f"`{name}`", device.hardware, extras, precisions, order, tested))
    lines = [_COLUMNS, ["---"] * len(_COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
