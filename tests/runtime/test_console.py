"""What commands print: no text controls the terminal, and a broken stream loses no finished work."""

import errno
import io
import json
import os
import subprocess
import sys

import pytest
from error_checks import assert_names
from galip_runtime import console
from galip_runtime.errors import FileRefused, GalipError

HOSTILE = {
    "clears the screen": ("a\x1b[2Jb", r"a\x1b[2Jb"),
    "fills the clipboard": ("\x1b]52;c;aGk=\x07", r"\x1b]52;c;aGk=\x07"),
    "C1 control": ("a\x9b2Jb", r"a\x9b2Jb"),
    "another line": ("a\ngalip: done", r"a\ngalip: done"),
    "the same line again": ("a\rdone", r"a\rdone"),
    "backspace": ("no\b\byes", r"no\x08\x08yes"),
    "tab": ("a\tb", r"a\tb"),
    "line separators": ("a\x85b\u2028c\u2029d\x0be\x0cf", r"a\x85b\u2028c\u2029d\x0be\x0cf"),
    "right to left": ("gpj.\u202eexe\u2066", r"gpj.\u202eexe\u2066"),
    "no width": ("a\u200bb\u200dc\ufeffd\u2060\u00ade", r"a\u200bb\u200dc\ufeffd\u2060\xade"),
    "blank letters": ("a\u3164\u115fb", r"a\u3164\u115fb"),
    "tags": ("a\U000e0041", r"a\U000e0041"),
    "not UTF-8": ("a\udcffb", r"a\udcffb"),
    "delete and NUL": ("a\x7f\x00", r"a\x7f\x00"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_escaped(name, capsys):
    text, shown = HOSTILE[name]
    assert console.escape(text) == shown
    console.message(text)
    console.result(text)
    console.report(text)
    console.failure("galip", FileRefused(text, text))
    output = capsys.readouterr()
    assert output.out == f"{shown}\n" * 2
    assert output.err == f"{shown}\ngalip: {shown}\n  {shown}\n"


@pytest.mark.parametrize("text", ["a red apple", "café 😀 日本語", "a|b`c<d>", "e\u0301", "C:\\x", "\u3000"])
def test_visible_characters_stay(text):
    assert console.escape(text) == text


@pytest.mark.parametrize("name", HOSTILE)
def test_json_is_valid_and_exact(name):
    text, _ = HOSTILE[name]
    lines = console.json_lines({text: [text, 1.5, float("nan"), (float("-inf"),)]})
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert json.loads("\n".join(lines)) == {text: [text, 1.5, None, [None]]}


def test_each_detail_of_an_error_has_its_own_line(capsys):
    error = GalipError("does not fit:", "missing: a", "unknown: b")
    assert str(error) == "does not fit:\n  missing: a\n  unknown: b"
    console.failure("error", error)
    assert capsys.readouterr().err == "error: does not fit:\n  missing: a\n  unknown: b\n"


PROGRAM = """
import logging, sys, warnings
from galip_runtime import console

def command():
    for step in sys.argv[2:]:
        if step == "result":
            console.result("a result", *["more"] * 20000)
        elif step == "report":
            console.report("a report", *["more"] * 20000)
        elif step == "message":
            console.message("a message", *["more"] * 20000)
        elif step == "help":
            print("help\\n" * 20000)
        elif step == "warning":
            warnings.warn("a\\nwarning\\x1b[2J")
        elif step == "log":
            logging.getLogger("some.library").warning("a\\nlog %s", "\\x1b[2J")
        elif step == "unicode":
            console.result("caf\\xe9 \\U0001f600 \\udcff")
            print("caf\\xe9 \\U0001f600")
        elif step == "file":
            with open(sys.argv[1], "w") as file:
                assert file.fileno() > 2, file.fileno()
                console.report("a report")
                print("and more", flush=True)
                file.write("whole")
        elif step == "exit":
            raise SystemExit(2)
        elif step == "3":
            return 3
    return 0

sys.exit(console.run(command, "galip"))
"""


@pytest.fixture
def shell(tmp_path):
    """Run `PROGRAM file STEPS` in a shell with redirected or piped streams; its code, stdout and stderr."""
    (tmp_path / "program.py").write_text(PROGRAM)

    def call(steps, streams="", reader="", **environment):
        script = f"( {sys.executable} program.py file {steps} {streams}; echo $? >code ) {reader}"
        process = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, env={**os.environ, **environment}
        )
        return int((tmp_path / "code").read_text()), process.stdout.decode(), process.stderr.decode()

    return call


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ("result", 2),
        ("report", 0),
        ("help", 2),
        ("result 3", 3),
        ("report 3", 3),
        ("message", 0),
        ("exit", 2),
    ],
)
@pytest.mark.parametrize("streams", [">/dev/full", ">&-"])
def test_stdout_is_full_or_closed(shell, steps, code, streams):
    exit_code, out, err = shell(steps, streams)
    assert (exit_code, out) == (code, "")
    lines = [line for line in err.splitlines() if line not in ("a message", "more")]
    assert len(lines) == (steps not in ("message", "exit"))
    for line in lines:
        assert line.startswith("galip: ")
        assert_names(line, "stdout")


@pytest.mark.parametrize("streams", ["2>/dev/full", "2>&-", "2>&- <&-"])
@pytest.mark.parametrize(
    ("steps", "code"), [("message result", 0), ("message report 3", 3), ("warning log", 0)]
)
def test_stderr_is_full_or_closed(shell, steps, code, streams):
    exit_code, out, err = shell(steps, streams)
    assert (exit_code, err) == (code, "")
    assert out.count("more") == (20000 if "re" in steps else 0)


@pytest.mark.parametrize(
    "streams", [">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full", "<&- >&- 2>/dev/full"]
)
@pytest.mark.parametrize(("steps", "code"), [("file", 0), ("message result", 2), ("report 3", 3)])
def test_all_streams_are_full_or_closed(shell, tmp_path, steps, code, streams):
    assert shell(steps, streams) == (code, "", "")
    assert steps != "file" or (tmp_path / "file").read_text() == "whole"


@pytest.mark.parametrize(("steps", "code"), [("result", 0), ("report", 0), ("help", 0), ("result 3", 3)])
@pytest.mark.parametrize("reader", ["| true", "| head -c 1", "| (exec <&-; sleep 0.2)"])
def test_the_reader_is_gone(shell, steps, code, reader):
    exit_code, _, err = shell(steps, reader=reader)
    assert (exit_code, err) == (code, "")
    assert shell("message 3", "2>&1 >/dev/null", reader=reader)[0] == 3


def test_a_nonblocking_pipe(tmp_path):
    """Node.js and some shells leave one behind: what it does not take at once must still arrive."""
    (tmp_path / "program.py").write_text(PROGRAM)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen([sys.executable, tmp_path / "program.py", "file", "result"], stdout=writer)
    os.close(writer)
    with os.fdopen(reader) as file:
        assert file.read().count("more") == 20000
    assert process.wait() == 0


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, rb"caf\xe9 \U0001f600"),
        ({"PYTHONIOENCODING": "latin-1"}, b"caf\xe9 \\U0001f600"),
        ({"PYTHONIOENCODING": "utf-8"}, "café 😀".encode()),
        ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, rb"caf\xe9 \U0001f600"),
    ],
)
def test_encodings(tmp_path, environment, shown):
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.run(
        [sys.executable, tmp_path / "program.py", "file", "unicode"],
        capture_output=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, b"")
    assert process.stdout == shown + rb" \udcff" + b"\n" + shown + b"\n"


def test_warnings_and_logs_are_escaped(shell):
    code, out, err = shell("warning log")
    assert (code, out) == (0, "")
    warning, log = err.splitlines()
    assert warning.endswith(r"UserWarning: a\nwarning\x1b[2J")
    assert log == r"a\nlog \x1b[2J"


def test_ctrl_c():
    def command():
        raise KeyboardInterrupt

    assert console.run(command, "galip") == 130


def test_the_streams_are_restored(monkeypatch):
    """A program that calls a command has its own streams back afterwards, including their failures."""
    stream = io.TextIOWrapper(io.FileIO(os.open("/dev/full", os.O_WRONLY), "w"), write_through=True)
    for name in ("stdout", "__stdout__"):
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    assert console.run(lambda: console.result("lost") or 0, "galip") == 2
    assert sys.stdout is stream
    with pytest.raises(OSError) as info:  # noqa: PT011, its errno is checked
        stream.write("lost")
    assert info.value.errno == errno.ENOSPC
