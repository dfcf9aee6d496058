"""Progress on stderr."""

import io
import sys

import pytest

from galip.cli.output import ProgressBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (io.StringIO, "reading\nwriting 1/2\nwriting 2/2\n"),
        (
            Terminal,
            f"\r\x1b[Kreading\n\r\x1b[Kwriting {12 * '━'}{12 * '╌'} 1/2\r\x1b[Kwriting {24 * '━'} 2/2\n",
        ),
    ],
)
def test_progress(monkeypatch, stream, expected):
    monkeypatch.setattr(sys, "stderr", stream())
    with ProgressBar() as progress:
        progress("reading", 0, 1)
        progress("writing", 1, 2)
        progress("writing", 1, 2)  # too soon
        progress("writing", 2, 2)
    assert sys.stderr.getvalue() == expected
