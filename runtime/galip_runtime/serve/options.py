"""The options of `galip serve` and of `python -m galip_runtime.serve`: one table that both are made from."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from galip_runtime.backends.tables import DEVICES
from galip_runtime.serve.settings import LOG_FORMATS, ServeSettings

__all__ = ["BUNDLE", "DESCRIPTION", "OPTIONS", "Option", "default_of", "flag"]

DESCRIPTION = "Serve a bundle by HTTP: OpenAI's images API, pictures by URL, metrics. Ctrl-C ends it."
BUNDLE = "The folder that `galip export` wrote. Default: the shipped model's."


@dataclass(frozen=True)
class Option:
    """An option of the command line, which sets the setting of its name."""

    help: str
    kind: type
    """of its value; bool: none, it is a switch; tuple: it may be repeated"""
    metavar: str = ""


OPTIONS: Mapping[str, Option] = {
    "host": Option("Address to listen on; other machines need keys (--api-key-file).", str, "HOST"),
    "port": Option("Port to listen on; 0 for any free one.", int, "N"),
    "device": Option(
        f"{', '.join(DEVICES)}; cuda:1 is the second GPU. A device other than auto is used, or the command "
        "fails.",
        str,
        "DEVICE",
    ),
    "precision": Option("auto, or a precision that the bundle has.", str, "PRECISION"),
    "threads": Option("CPU threads of each worker. Default: the CPUs, divided by the workers.", int, "N"),
    "max_batch": Option("The most pictures drawn at once.", int, "N"),
    "max_wait_ms": Option("Milliseconds that a batch waits for more requests.", float, "MS"),
    "queue": Option("The most pictures that wait in a worker; beyond them the answer is 429.", int, "N"),
    "timeout": Option("Seconds that a request may take; then the answer is 504.", float, "S"),
    "grace": Option("Seconds to finish running and waiting requests when the service stops.", float, "S"),
    "max_images": Option("The most pictures in one request.", int, "N"),
    "api_key_file": Option("File of API keys, one a line; SIGHUP reads it again.", Path, "FILE"),
    "insecure": Option("Let other machines use the service without a key.", bool),
    "cors": Option("Origin of a web page that may use the service. May be repeated.", tuple, "ORIGIN"),
    "workers": Option("Processes that share the port, each with a model and a queue.", int, "N"),
    "log_format": Option(f"{' or '.join(LOG_FORMATS)}.", str, "FORMAT"),
    "log_prompts": Option("Log prompts and query strings, too.", bool),
    "page": Option("Folder of the page to serve at /.", Path, "DIR"),
}
"""What is not here, `max_steps` and `max_body`, only the variable `GALIP_SERVE` sets."""


def flag(name: str) -> str:
    """Return the option of the setting `name`, such as `--max-batch`."""
    return f"--{name.replace('_', '-')}"


def default_of(name: str) -> Any:
    """Return the default of the setting `name`."""
    return next(field.default for field in fields(ServeSettings) if field.name == name)
