"""The service's settings, and the two command lines that are made from them."""

import argparse
import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from error_checks import assert_names
from galip_runtime.errors import UsageError
from galip_runtime.serve import __main__ as command
from galip_runtime.serve.listening import announce
from galip_runtime.serve.options import OPTIONS, default_of
from galip_runtime.serve.settings import VARIABLE, ServeSettings


def test_settings_pass_through_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ServeSettings(
        bundle="b", port=0, threads=3, cors=("https://a.example", "*"), log_prompts=True, max_wait_ms=1
    )
    copy = ServeSettings.from_environment(settings.to_environment())
    assert copy == dataclasses.replace(settings, bundle=tmp_path / "b")
    assert ServeSettings.from_environment({}) == ServeSettings()
    assert ServeSettings.from_environment({VARIABLE: '{"queue": 3}'}) == ServeSettings(queue=3)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("{", ["JSON"]),
        ("[1]", ["object", "[1]"]),
        ('{"que": 3}', ["'que'", "queue"]),
        ('{"queue": "3"}', ["queue", "'3'"]),
        ('{"cors": "https://a.example"}', ["cors"]),
        ('{"bundle": 3}', ["bundle", 3]),
    ],
)
def test_bad_variables(text, values):
    with pytest.raises(UsageError) as refused:
        ServeSettings.from_environment({VARIABLE: text})
    assert_names(str(refused.value), *values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("port", True),
        ("port", "80"),
        ("threads", 0),
        ("workers", 0),
        ("max_batch", 0),
        ("queue", 1.5),
        ("max_steps", 1),
        ("max_body", 1),
        ("timeout", 0),
        ("timeout", float("nan")),
        ("timeout", float("inf")),
        ("grace", -1),
        ("max_wait_ms", "5"),
        ("insecure", 1),
        ("host", ""),
        ("host", "a\nb"),
        ("device", None),
        ("log_format", "xml"),
        ("page", ""),
        ("cors", ("example.org",)),
        ("cors", ("https://example.org/path",)),
        ("cors", ("https://example.org\r\nX: y",)),
        ("cors", (3,)),
    ],
)
def test_impossible_values(name, value):
    with pytest.raises(UsageError) as refused:
        ServeSettings(**{name: value})
    assert name in str(refused.value) or repr(value[0]) in str(refused.value)


def test_the_two_commands_have_the_same_options_and_defaults():
    typer = pytest.importorskip("typer.main")
    from galip.cli.app import app

    ours = {
        action.dest: (action.default or None, action.help.rpartition(" (")[0] or action.help)
        for action in command._parser()._actions
        if not isinstance(action, argparse._HelpAction)
    }
    theirs = {
        parameter.name: (parameter.default or None, parameter.help)
        for parameter in typer.get_command(app).commands["serve"].params
    }
    assert ours.keys() == theirs.keys() == {"bundle", *OPTIONS}
    assert {name: default for name, (default, _) in ours.items()} == {
        name: default for name, (default, _) in theirs.items()
    }
    for name, (_, text) in theirs.items():
        assert text.startswith(ours[name][1][:40])


def test_every_setting_is_an_option_except_two():
    names = {field.name for field in dataclasses.fields(ServeSettings)}
    assert names - OPTIONS.keys() == {"bundle", "max_steps", "max_body"}
    assert OPTIONS.keys() <= names


def test_all_options_reach_the_service(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr("galip_runtime.serve.server.run", lambda settings: given.append(settings) or 0)
    values = {
        "host": "::1", "port": 1, "device": "cpu", "precision": "fp32", "threads": 2, "max_batch": 3,
        "max_wait_ms": 4.5, "queue": 5, "timeout": 6.5, "grace": 7.5, "max_images": 8,
        "api_key_file": tmp_path, "insecure": True, "cors": ("https://a.example", "http://b.example:80"),
        "workers": 9,
        "log_format": "json", "log_prompts": True, "page": tmp_path,
    }  # fmt: skip
    words = ["bundle"]
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, tuple) else (value,):
            words += [flag] if one is True else [flag, str(one)]
    assert command.main(words) == 0
    from galip.cli import main

    with pytest.raises(SystemExit) as done:
        main(["serve", *words])
    assert done.value.code == 0
    assert given == [ServeSettings(bundle=Path("bundle"), **values)] * 2
    assert values.keys() == OPTIONS.keys()
    assert all(value != default_of(name) for name, value in values.items())


def test_help_imports_neither_numpy_nor_the_server():
    code = """
import sys
from galip_runtime.serve.__main__ import main
try:
    main(["--help"])
except SystemExit as done:
    assert done.code == 0
print({"numpy", "fastapi", "uvicorn", "onnxruntime"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
    assert "Exit codes: 0" in done.stdout


def test_importing_the_runtime_does_not_import_the_service():
    code = "import sys, galip_runtime; print('galip_runtime.serve' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_app_for_other_servers(shared_bundle):
    pytest.importorskip("fastapi")
    code = """
import uvicorn.importer
app = uvicorn.importer.import_from_string("galip_runtime.serve:app")
import galip_runtime.serve, sys
assert app is galip_runtime.serve.app
print(type(app).__name__, app.state.service.settings.queue, "onnxruntime" in sys.modules)
"""
    environment = ServeSettings(bundle=shared_bundle, queue=7).to_environment()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    assert done.stdout == "FastAPI 7 False\n"


def test_a_picture_cannot_wait_longer_than_its_request():
    with pytest.raises(UsageError, match="cannot wait that long for others"):
        ServeSettings(timeout=2, max_wait_ms=2000)
    assert ServeSettings(timeout=2, max_wait_ms=1999).max_wait_ms == 1999


@pytest.mark.parametrize(
    ("host", "shown"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("localhost", "localhost")],
)
def test_the_address_that_is_announced_can_be_opened(capsys, host, shown):
    with socket.create_server(("127.0.0.1", 0)) as bound:
        announce(ServeSettings(host=host, insecure=True), [bound])
        port = bound.getsockname()[1]
    assert f"serving the shipped model at http://{shown}:{port}/ " in capsys.readouterr().err
