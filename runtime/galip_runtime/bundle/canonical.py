"""The manifest's text: one canonical form with a digest inside, so that any change is noticed.

The digest guards against accidents: anyone who alters a manifest on purpose can recompute it.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from galip_runtime.errors import FileRefused

__all__ = ["DIGEST", "REVISION", "check_text", "manifest_text"]

DIGEST = "digest"
"""the name of the digest's field"""
REVISION = {"format_revision": 1}
"""the field that counts additions to the format, which older readers ignore: 1 added the digest"""
_FIRST_FIELDS = {
    "dimensions", "files", "format", "format_version", "graphs", "model", "noise", "source", "tokenizer",
    "versions",
}  # fmt: skip
"""the exact fields of a manifest from before the digest"""
_ALTERED = "it was cut short or altered; copy the bundle again from where it came, or export it again"


def manifest_text(document: Mapping[str, Any]) -> str:
    """Return the manifest's text for `document`, with a new digest.

    The digest is the sha256 of the text without the digest's line.
    """
    fields = {name: value for name, value in document.items() if name != DIGEST}
    return _canonical({**fields, DIGEST: hashlib.sha256(_canonical(fields).encode()).hexdigest()})


def check_text(document: Mapping[str, Any], text: str | bytes) -> None:
    """Raise FileRefused unless `text` is, byte for byte, the text that was written for `document`."""
    if DIGEST in document:
        original = manifest_text(document)
    elif document.keys() == _FIRST_FIELDS:
        original = _canonical(document)
    else:  # the digest's name was altered or its line is missing
        raise FileRefused(
            f"it has neither a digest nor the fields of a manifest from before the digest: {_ALTERED}"
        )
    if (original.encode() if isinstance(text, bytes) else original) != text:
        raise FileRefused(f"its digest or its form does not match its content: {_ALTERED}")
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which nothing could print
        raise FileRefused(f"it contains text that is not Unicode ({error})") from error


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
