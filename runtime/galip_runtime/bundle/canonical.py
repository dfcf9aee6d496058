"""The manifest as text: there is one way to write what it says, and a digest in it, so every change shows.

The digest is for accidents: whoever alters a manifest on purpose can compute another one.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from galip_runtime.errors import FileRefused

__all__ = ["DIGEST", "REVISION", "check_text", "manifest_text"]

DIGEST = "digest"
"""the field that has it"""
REVISION = {"format_revision": 1}
"""the field and number of what was added to the format, which older readers pass over: 1, the digest"""
_FIRST_FIELDS = {
    "dimensions", "files", "format", "format_version", "graphs", "model", "noise", "source", "tokenizer",
    "versions",
}  # fmt: skip
"""of a manifest before there was a digest: exactly these"""
_ALTERED = "it was cut short or altered; copy the bundle again from where it came, or export it again"


def manifest_text(document: Mapping[str, Any]) -> str:
    """Return the text of the manifest that says `document`, with a new digest.

    The digest is the sha256 of the text without the digest's line.
    """
    plain = {name: value for name, value in document.items() if name != DIGEST}
    return _canonical({**plain, DIGEST: hashlib.sha256(_canonical(plain).encode()).hexdigest()})


def check_text(document: Mapping[str, Any], text: str | bytes) -> None:
    """Raise FileRefused unless `text` is, byte for byte, what was once written of `document`."""
    if DIGEST in document:
        written = manifest_text(document)
    elif document.keys() == _FIRST_FIELDS:
        written = _canonical(document)
    else:  # the digest's name was altered, or its line is lost
        raise FileRefused(
            f"it has no digest, and not the fields of a manifest from before there was one: {_ALTERED}"
        )
    if (written.encode() if isinstance(text, bytes) else written) != text:
        raise FileRefused(f"it is not what was written, by its digest and the form it is in: {_ALTERED}")
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which nothing could print
        raise FileRefused(f"text in it is not Unicode ({error})") from error


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
