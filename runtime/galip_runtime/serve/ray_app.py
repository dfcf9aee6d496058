"""The service on a Ray cluster: Ray Serve runs replicas of it on the machines, as many as the load needs.

    serve run galip_runtime.serve.ray_app:build bundle=/models/bundle device=cpu

or `serve deploy ray-serve.yaml`, whose `import_path` is `galip_runtime.serve.ray_app:build`. Each replica has
a model and a queue of its own. Ray's proxy listens, with the `http_options` of Ray's configuration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve import Application

from galip_runtime.backends.tables import is_nvidia
from galip_runtime.errors import GalipError, UsageError
from galip_runtime.serve.settings import ServeSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["build", "replica_options", "settings_of"]

NAME = "galip"
"""The deployment's name in Ray's configuration."""
_NOT_OURS = {
    "host": "http_options of Ray's configuration say where it listens",
    "port": "http_options of Ray's configuration say where it listens",
    "workers": "autoscaling_config of Ray's configuration says how many replicas there are",
}
_REPLICAS = {"min_replicas": 1, "max_replicas": 4}
_STOP_SECONDS = 5.0
"""Beyond the grace, until Ray ends a replica."""


def build(arguments: Mapping[str, Any]) -> Application:
    """Return the application for `import_path`. `arguments`, all optional: `ServeSettings` by name,
    `min_replicas` (1) and `max_replicas` (4).

    Numbers may be text, as `serve run` gives them. Paths have to exist on every machine. Without
    `api_key_file` or `insecure` only requests to `localhost` are answered. Raises UsageError for settings
    that cannot be used.
    """
    ours = {name: int(arguments.get(name, default)) for name, default in _REPLICAS.items()}
    settings = settings_of({name: value for name, value in arguments.items() if name not in ours})
    options = replica_options(settings, **ours)
    deployment = serve.deployment(name=NAME, **options)(serve.ingress()(_Replica))
    return deployment.bind(settings)


def settings_of(arguments: Mapping[str, Any]) -> ServeSettings:
    """Return the settings for a replica. Raises UsageError."""
    known = {field.name: field for field in fields(ServeSettings) if field.name not in _NOT_OURS}
    for name in arguments:
        if name in _NOT_OURS:
            raise UsageError(f"{name!r} is not a setting of a replica: {_NOT_OURS[name]}")
        if name not in known:
            raise UsageError(f"there is no setting {name!r}; there are {', '.join(known)}")
    values = {name: _value(value) for name, value in arguments.items()}
    if isinstance(cors := values.get("cors"), str):
        values["cors"] = tuple(cors.split(","))
    values.setdefault("threads", 1 if is_nvidia(str(values.get("device", "auto"))) else 2)
    return ServeSettings(**values)


def replica_options(settings: ServeSettings, min_replicas: int, max_replicas: int) -> dict[str, Any]:
    """Return Ray's options for a deployment of `settings`; Ray's configuration may override it.

    A replica is given as many requests as its queue takes, and as many again, which it refuses with 429; Ray
    answers those beyond with 503. It is stopped only after its grace.
    """
    return {
        "ray_actor_options": {"num_cpus": settings.threads, "num_gpus": int(is_nvidia(settings.device))},
        "max_ongoing_requests": 2 * settings.queue,
        "max_queued_requests": 4 * settings.queue,
        "autoscaling_config": {
            "min_replicas": min_replicas,
            "max_replicas": max(min_replicas, max_replicas),
            "target_ongoing_requests": 2 * settings.max_batch,  # a batch that runs, and the next one
        },
        "graceful_shutdown_timeout_s": math.ceil(settings.grace + _STOP_SECONDS),
        "health_check_period_s": 5,
    }


class _Replica:
    """A model with a queue, and the app that draws with it; Ray runs the app's lifespan."""

    def __init__(self, settings: ServeSettings) -> None:
        from galip_runtime.serve import logs
        from galip_runtime.serve.service import load_model

        logs.configure(settings)
        self._settings = settings
        # here, so that an error is in Ray's status of the deployment rather than in a replica's log alone
        self._model = load_model(settings)

    def __serve_build_asgi_app__(self) -> FastAPI:
        from galip_runtime.serve.app import create_app

        self._app = create_app(self._settings, self._model)
        return self._app

    def check_health(self) -> None:
        """Raise GalipError if the device has failed: Ray replaces the replica then."""
        batcher = self._app.state.service.batcher
        if batcher is not None and batcher.is_broken:
            raise GalipError("the device has failed, and this replica cannot draw any more")


def _value(value: Any) -> Any:
    """Return the number or flag that a text of `serve run` stands for; other values as they are."""
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
