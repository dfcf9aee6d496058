"""The settings of the service, checked; the command lines and the environment variable are made from them."""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from galip_runtime.errors import UsageError

__all__ = ["LOG_FORMATS", "METRICS_FOLDER", "VARIABLE", "ServeSettings"]

VARIABLE = "GALIP_SERVE"
"""The environment variable that holds settings as a JSON object."""
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names the folder where worker processes share their metrics."""
LOG_FORMATS = ("text", "json")

_PATHS = ("bundle", "api_key_file", "page")
_COUNTS = {
    "port": (0, 65535),
    "max_batch": (1, 1024),
    "queue": (1, 1_000_000),
    "max_images": (1, 1_000_000),
    "max_steps": (2, 1_000_000),
    "max_body": (1024, 2**30),
    "workers": (1, 256),
}
_SECONDS = {"max_wait_ms": 60_000.0, "timeout": 86_400.0, "grace": 86_400.0}
"""Times and their upper limits, in the unit of the setting; the lower limit is 0."""
_FLAGS = ("insecure", "log_prompts")
_TEXTS = ("host", "device", "precision")
_ORIGIN = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


@dataclass(frozen=True)
class ServeSettings:
    """What a service serves, where it listens, and what it allows. Raises UsageError for impossible ones."""

    bundle: Path | None = None
    """the bundle's folder; None for the shipped model's"""
    host: str = "127.0.0.1"
    """the address or name to listen on"""
    port: int = 8000
    """the port to listen on; 0 for any free one"""
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    """CPU threads of each worker; None to divide the CPUs between the workers"""
    max_batch: int = 8
    """the most pictures in one run of the graphs"""
    max_wait_ms: float = 5.0
    """how long a batch waits for more requests, in milliseconds"""
    queue: int = 64
    """the most pictures that wait in each worker; requests beyond them are refused"""
    timeout: float = 30.0
    """seconds that a request may take before it is given up"""
    grace: float = 30.0
    """seconds that running and waiting requests have to finish when the service stops"""
    max_images: int = 10
    """the most pictures in one request"""
    max_steps: int = 64
    """the most pictures in one interpolation"""
    max_body: int = 65536
    """the most bytes in a request's body"""
    api_key_file: Path | None = None
    """a file with an API key on each line; None: no keys are asked for"""
    insecure: bool = False
    """whether other machines may use the service without a key"""
    cors: tuple[str, ...] = ()
    """origins of other web pages that may use the service, such as https://example.org; * for all"""
    workers: int = 1
    """processes that share the port, each with a model and a queue of its own"""
    log_format: str = "text"
    """text or json"""
    log_prompts: bool = False
    """whether prompts and query strings are logged"""
    page: Path | None = None
    """the folder of the page to serve at /; None for none"""

    def __post_init__(self) -> None:
        for name in _PATHS:
            value = getattr(self, name)
            if value is not None:
                if not isinstance(value, str | os.PathLike) or not os.fspath(value):
                    raise UsageError(f"{name} must be a path or None, not {value!r:.80}")
                object.__setattr__(self, name, Path(value))
        for name, limits in _COUNTS.items():
            _check_count(name, getattr(self, name), *limits)
        if self.threads is not None:
            _check_count("threads", self.threads, 1, 1024)
        for name, most in _SECONDS.items():
            object.__setattr__(self, name, _checked_time(name, getattr(self, name), most))
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} must be True or False, not {getattr(self, name)!r:.80}")
        for name in _TEXTS:
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip() or not value.isprintable():
                raise UsageError(f"{name} must be a printable, non-empty text, not {value!r:.80}")
        if self.log_format not in LOG_FORMATS:
            raise UsageError(f"log_format must be {' or '.join(LOG_FORMATS)}, not {self.log_format!r:.80}")
        object.__setattr__(self, "cors", _checked_origins(self.cors))
        if self.timeout == 0:
            raise UsageError("timeout must be more than 0 seconds: no picture takes no time")
        if self.max_wait_ms >= 1000 * self.timeout:
            raise UsageError(
                f"max_wait_ms is {self.max_wait_ms:g}, and requests are given up after {self.timeout:g} "
                "seconds: a picture cannot wait that long for others"
            )

    def to_environment(self) -> dict[str, str]:
        """Return the settings as the variable `GALIP_SERVE`, by its name; paths become absolute."""
        values = asdict(self)
        for name in _PATHS:
            if values[name] is not None:
                values[name] = os.path.abspath(values[name])
        return {VARIABLE: json.dumps(values)}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "ServeSettings":
        """Return the settings of the variable `GALIP_SERVE`; what it leaves out has its default.

        Raises UsageError if it is not a JSON object of settings.
        """
        text = environment.get(VARIABLE, "{}")
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UsageError(f"the variable {VARIABLE} is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise UsageError(
                f'the variable {VARIABLE} must be a JSON object such as {{"queue": 64}}, not {text!r:.80}'
            )
        known = [field.name for field in fields(cls)]
        if unknown := sorted(values.keys() - set(known)):
            raise UsageError(
                f"the variable {VARIABLE} has unknown settings: {', '.join(map(repr, unknown))}; "
                f"there are {', '.join(known)}"
            )
        return cls(**values)


def _check_count(name: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{name} must be a whole number from {least} to {most:,}, not {value!r:.80}")


def _checked_time(name: str, value: Any, most: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 <= value <= most:
        unit = "milliseconds" if name.endswith("_ms") else "seconds"
        raise UsageError(f"{name} must be a number of {unit} from 0 to {most:,.0f}, not {value!r:.80}")
    return float(value)


def _checked_origins(origins: Any) -> tuple[str, ...]:
    if isinstance(origins, str) or not isinstance(origins, tuple | list):
        raise UsageError(f"cors must be a tuple of origins, not {origins!r:.80}")
    for origin in origins:
        if not isinstance(origin, str) or (origin != "*" and not _ORIGIN.fullmatch(origin)):
            raise UsageError(
                f"{origin!r:.80} is no origin: an origin is scheme, host and port alone, such as "
                "https://example.org or http://localhost:3000 (no path, no / at the end), or * for all"
            )
    return tuple(origins)
