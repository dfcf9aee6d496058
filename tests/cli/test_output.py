"""Progress on stderr."""

import io
import sys
import time

import pytest

from galip.cli import output
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


def test_a_clock_where_there_is_nothing_to_count(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(output, "_TICK", 0.01)
    with ProgressBar() as progress:
        progress("reading", 0, 1)
        while "reading 2 s" not in sys.stderr.getvalue():
            time.sleep(0.01)
        progress("writing", 1, 2)
        written = sys.stderr.getvalue()
        time.sleep(0.05)
        assert sys.stderr.getvalue() == written


@pytest.mark.parametrize(
    ("done", "expected"),
    [(0, "measuring 0/40"), (10, "measuring 10/40, 60 s left"), (1, "measuring 1/40, 13 min left"),
     (39, "measuring 39/40")],
)  # fmt: skip
def test_the_time_left(monkeypatch, done, expected):
    clock = [100.0]
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(output.time, "monotonic", lambda: clock[0])
    with ProgressBar(shows_time_left=True) as progress:
        progress("measuring", 0, 40)
        clock[0] += 20
        progress("measuring", done, 40)
    assert sys.stderr.getvalue().splitlines()[-1] == expected
