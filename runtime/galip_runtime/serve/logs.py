"""The service's logs, as text or JSON: a line for each request, and errors with the request's id.

The app gives a record its parts as attributes (`_FIELDS`, path, query, prompts). Prompts and query strings
are logged only where the settings ask for them. Control characters are escaped, so that no
request can write a line of its own.
"""

import json
import logging
import re
import traceback
from datetime import UTC, datetime
from typing import Any

from galip_runtime import console
from galip_runtime.serve.settings import ServeSettings

__all__ = ["configure"]

_access = logging.getLogger("galip_runtime.serve.access")
_log = logging.getLogger("galip_runtime.serve")
_FIELDS = ("status", "seconds", "pictures", "problem", "client", "request_id")
"""what a line of the access log tells beside method and path, as the record has it"""


def configure(settings: ServeSettings) -> None:
    """Let all of the process's logs go to stderr, one line each, in the settings' format.

    uvicorn's own access log is turned off: it has the query strings.
    """
    handler = _Handler()
    formatter = _JsonFormatter if settings.log_format == "json" else _TextFormatter
    handler.setFormatter(formatter(settings.log_prompts))
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old, _Handler):
            root.removeHandler(old)
    root.addHandler(handler)
    logging.captureWarnings(True)
    _log.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)


class _Handler(logging.Handler):
    """Writes each record as a line to stderr, whatever stderr is at that time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            console.message(*self.format(record).split("\n"))
        except Exception:  # as every handler of `logging`: a log that fails must not fail the request
            self.handleError(record)


def _fields(record: logging.LogRecord, log_prompts: bool) -> dict[str, Any]:
    """Return what a record tells beside its message."""
    fields: dict[str, Any] = {}
    if record.name == _access.name:
        path, query = getattr(record, "path", ""), getattr(record, "query", "")
        fields["method"] = getattr(record, "method", "")
        fields["path"] = f"{path}?{query}" if log_prompts and query else path
    for name in _FIELDS:
        value = getattr(record, name, None)
        if value not in (None, ""):
            fields[name] = round(value, 6) if isinstance(value, float) else value
    if log_prompts and getattr(record, "prompts", None):
        fields["prompts"] = list(record.prompts)  # type: ignore[attr-defined]
    return fields


def _message(record: logging.LogRecord, log_prompts: bool) -> str:
    return _shown(record, record.getMessage(), log_prompts)


def _trace(record: logging.LogRecord, log_prompts: bool) -> str:
    if not record.exc_info:
        return ""
    return _shown(record, "".join(traceback.format_exception(*record.exc_info)), log_prompts)


def _shown(record: logging.LogRecord, text: str, log_prompts: bool) -> str:
    """Return `text`, without the record's prompts, however they are quoted, unless they are logged."""
    prompts = [] if log_prompts else sorted(getattr(record, "prompts", None) or (), key=len, reverse=True)
    for prompt in prompts:
        for form in {prompt, repr(prompt)[1:-1], json.dumps(prompt)[1:-1]} - {""}:
            text = text.replace(form, "(prompt)")
    return text


class _TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info a message, name=value …`; a traceback's lines are indented."""

    def __init__(self, log_prompts: bool) -> None:
        super().__init__()
        self._log_prompts = log_prompts

    def format(self, record: logging.LogRecord) -> str:
        words = [_moment(record), record.levelname.lower()]
        fields = _fields(record, self._log_prompts)
        if record.name == _access.name:
            words += [str(fields.pop("method")), _word(fields.pop("path"))]
        else:
            words.append(console.escape(_message(record, self._log_prompts)))
        words += [f"{name}={_word(value)}" for name, value in fields.items()]
        trace = [f"    {console.escape(line)}" for line in _trace(record, self._log_prompts).splitlines()]
        return "\n".join([" ".join(words), *trace])


class _JsonFormatter(logging.Formatter):
    """An object a line: time, level, logger, message, then what the record has."""

    def __init__(self, log_prompts: bool) -> None:
        super().__init__()
        self._log_prompts = log_prompts

    def format(self, record: logging.LogRecord) -> str:
        is_access = record.name == _access.name
        line: dict[str, Any] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": "request" if is_access else _message(record, self._log_prompts),
            **_fields(record, self._log_prompts),
        }
        if trace := _trace(record, self._log_prompts):
            line["traceback"] = trace
        return json.dumps(line, default=str)


def _moment(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")


def _word(value: Any) -> str:
    """Return a value without blanks that could pass for the next field's beginning."""
    if isinstance(value, str) and value and re.fullmatch(r"[!#-<>-~]+", value):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
