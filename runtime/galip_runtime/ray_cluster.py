"""A connection to a Ray cluster, for commands that spread their work over several machines.

Ray is an optional package: this module imports it where it is needed.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from galip_runtime.errors import ProviderUnavailable, ServiceUnavailable, UsageError
from galip_runtime.install import install_extra
from galip_runtime.signals import stop_as_ctrl_c

__all__ = ["check_address", "connect", "import_ray", "no_ray", "quiet_data"]

CONNECT_SECONDS = 30.0
"""How long a cluster may take to answer."""
_HERE = ("local", "auto")
_PROBE = (
    "import sys, ray; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False, "
    "configure_logging=True)"
)
"""Connects to a cluster and ends. Ray itself goes on trying for minutes where none answers, and ends the
process in some cases, so that another process asks first."""


def import_ray() -> None:
    """Import Ray with its usage reports off. Raises `ProviderUnavailable` if it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors that matter are raised, too
    # what Ray is going to do anyway; set, it does not warn of that
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise no_ray() from error


def no_ray() -> ProviderUnavailable:
    """Return the error for a Python without Ray."""
    return ProviderUnavailable(
        f"Ray is not installed: {install_extra('ray')}, or leave out --ray to work on this machine alone"
    )


@contextmanager
def connect(
    address: str, *, cpus: int | None = None, seconds: float = CONNECT_SECONDS
) -> Iterator[ModuleType]:
    """Connect this process to a Ray cluster while the block runs, which is given the package `ray`.

    `address`: `HOST:PORT` of the cluster's head, as `ray start --head` prints it; `auto`: the cluster that
    `RAY_ADDRESS` or this machine's `ray start` names; `local`: start Ray here, with `cpus` CPUs (None: all),
    and end it afterwards. If this process is connected already, as in a Ray job, that connection is used and
    kept. This process must run on a machine of the cluster. SIGTERM raises KeyboardInterrupt in the block.

    Raises `UsageError` for another form of address, `ServiceUnavailable` if nothing answers within `seconds`
    or what answers is no cluster that fits, `ProviderUnavailable` without Ray.
    """
    check_address(address)
    import_ray()
    import ray

    if ray.is_initialized():
        yield ray
        return
    if address != "local":
        _check_answers(address, seconds)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        options |= {"num_cpus": cpus, "include_dashboard": False}
    with stop_as_ctrl_c():  # and afterwards the handlers of before, which Ray replaces and leaves replaced
        try:
            ray.init(address=address, **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _not_there(address, str(error)) from error
        try:
            with stop_as_ctrl_c():  # Ray's own handler of SIGTERM prints its stack
                yield ray
        finally:
            ray.shutdown()


def check_address(address: str) -> None:
    """Raise `UsageError` unless `address` is `local`, `auto` or `HOST:PORT`."""
    if address in _HERE:
        return
    if "://" in address:
        raise UsageError(
            f"{address!r} is an address of Ray Client, which Ray Data does not work with; run the command on "
            "a machine of the cluster with --ray auto, or submit it with `ray job submit`"
        )
    host, _, port = address.rpartition(":")
    is_name = ":" not in host or (host.startswith("[") and host.endswith("]"))
    if not host or not is_name or not port.isascii() or not port.isdecimal() or not 0 < int(port[:6]) < 2**16:
        raise UsageError(f"{address!r} is no address of a Ray cluster; give HOST:PORT, auto or local")


def quiet_data() -> None:
    """Turn off Ray Data's progress bars and its log on the console; the log in Ray's folder goes on."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_rich_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.util.actor_pool"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _check_answers(address: str, seconds: float) -> None:
    """Raise `ServiceUnavailable` unless a cluster answers at `address` within `seconds`."""
    if address not in _HERE:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=min(seconds, 10)).close()
        except OSError as error:
            raise _not_there(address, str(error)) from error
    command = [sys.executable, "-c", _PROBE, address]
    try:
        probe = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise _not_there(address, f"no answer within {seconds:g} s") from error
    if probe.returncode:
        raise _not_there(address, probe.stderr)


def _not_there(address: str, text: str) -> ServiceUnavailable:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = lines[-1] if lines else "no answer"
    with suppress(ValueError):  # `ConnectionError: ...` is shown without the name of its class
        reason = reason[reason.index("Error: ") + len("Error: ") :]
    return ServiceUnavailable(
        f"no Ray cluster to work with at {address} ({reason:.300}); check the address, that `ray status` "
        "answers on this machine, and that all machines have the same versions of Python and Ray, or start "
        "Ray here with --ray local"
    )
