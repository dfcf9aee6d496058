"""What an error must say: its type, its exit code and the values to act on. Its wording is free to change."""

import re
from contextlib import contextmanager

import pytest
from galip_runtime import FileRefused, ProviderUnavailable, QualityGateFailed, UsageError

EXIT_CODES = {UsageError: 2, QualityGateFailed: 3, FileRefused: 4, ProviderUnavailable: 5}


@contextmanager
def expect_error(kind, *values):
    """Expect an error of exactly this type, with its exit code, whose message names all `values`."""
    __tracebackhide__ = True
    with pytest.raises(kind) as info:
        yield info
    assert type(info.value) is kind
    assert info.value.exit_code == EXIT_CODES[kind]
    assert_names(str(info.value), *values)


def assert_names(text, *values):
    """Check that `text` names all `values`, each as a whole word; a number may have its thousands grouped."""
    __tracebackhide__ = True
    missing = [value for value in values if not is_named(text, value)]
    assert not missing, f"{missing} not named in {text!r}"


def is_named(text, value):
    """Return whether `text` has `value` as a whole word: 2 is neither in "12" nor in "run-2" nor in "1.2"."""
    if isinstance(value, int | float):
        forms, before, after = {str(value), f"{value:,}"}, r"(?<![\w-])(?<!\d\.)", r"(?![\w-]|\.\d)"
    else:
        forms, before, after = {str(value)}, r"(?<![\w-])", r"(?![\w-])"
    return any(re.search(before + re.escape(form) + after, text) for form in forms)


def warnings_of(caplog):
    """Return the messages that galip_runtime logged as warnings."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "galip_runtime" and record.levelname == "WARNING"
    ]
