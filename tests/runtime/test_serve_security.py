"""Who may use the service: files of keys, Host headers, addresses to listen on."""

import hmac
import os

import pytest
from error_checks import assert_names
from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.serve import security
from galip_runtime.serve.security import (
    KeyRing,
    check_exposure,
    host_is_allowed,
    is_loopback,
    reload_keys,
)
from galip_runtime.serve.settings import ServeSettings

FIRST, SECOND = "first-key-first-key", "second-key-second-key"


@pytest.fixture
def write(tmp_path):
    def to_file(content, mode=0o600):
        path = tmp_path / "keys"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    return to_file


def test_any_key_of_the_file_opens_and_nothing_else(write):
    ring = KeyRing.from_file(write(f"# keys of the team\n\n  {FIRST}  \r\n#{FIRST}x\n{SECOND}"))
    assert len(ring) == 2
    assert ring.accepts(FIRST)
    assert ring.accepts(SECOND)
    for token in (
        "",
        "#",
        FIRST[:-1],
        FIRST + "x",
        FIRST.upper(),
        f"{FIRST}\n",
        "ключ" * 5,
        "\ud800",
        "x" * 10**6,
    ):
        assert not ring.accepts(token)


def test_every_key_is_compared_whichever_fits(write, monkeypatch):
    ring, compared, compare = KeyRing.from_file(write(f"{FIRST}\n{SECOND}\n")), [], hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(a) or compare(a, b))
    for token in (FIRST, SECOND, "neither"):
        ring.accepts(token)
    assert compared == [FIRST.encode(), SECOND.encode()] * 3


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ("", ["no API key"]),
        ("# nothing\n\n", ["no API key"]),
        (f"{FIRST}\nfifteen-letters\n", ["line 2", 15, 16]),
        ("ключ-ключ-ключ-ключ\n", ["line 1", "ASCII"]),
        (b"\xff" * 20, ["line 1", "ASCII"]),
        (f"{FIRST} {SECOND}\n", ["line 1", "one key a line"]),
        (b"abcdefgh\x00abcdefgh\n", ["line 1"]),
        ("x" * 5000, ["line 1", 4096]),
        ("#" * (2**20 + 1), ["1,048,576"]),
    ],
)
def test_bad_files_of_keys(write, content, values):
    path = write(content)
    with pytest.raises(FileRefused) as refused:
        KeyRing.from_file(path)
    assert_names(str(refused.value), path, *values)
    assert FIRST not in str(refused.value)


@pytest.mark.skipif(os.name != "posix", reason="permissions")
@pytest.mark.parametrize(("mode", "is_good"), [(0o600, True), (0o440, True), (0o604, False), (0o620, False)])
def test_permissions_of_the_file(write, mode, is_good):
    path = write(FIRST, mode)
    if is_good:
        assert KeyRing.from_file(path).accepts(FIRST)
        return
    with pytest.raises(FileRefused) as refused:
        KeyRing.from_file(path)
    assert_names(str(refused.value), path, f"{mode:04o}", "chmod 600")


def test_a_missing_file_a_folder_and_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, word in (("missing", "cannot be read"), (".", "folder"), ("pipe", "pipe")):
        with pytest.raises(FileRefused) as refused:
            KeyRing.from_file(tmp_path / name)
        assert word in str(refused.value)


def test_reading_again(write, caplog):
    ring = KeyRing.from_file(write(FIRST))
    write(SECOND)
    assert not ring.accepts(SECOND)
    reload_keys()
    assert ring.accepts(SECOND)
    assert not ring.accepts(FIRST)
    write("short")
    assert not ring.reload()
    assert ring.accepts(SECOND)
    assert "stay as they were" in caplog.text
    assert SECOND not in caplog.text


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
    ],
)
def test_loopback(host, expected):
    assert is_loopback(host) is expected


def test_a_name_is_loopback_if_all_of_its_addresses_are(monkeypatch):
    def resolve(*addresses):
        found = [(0, 0, 0, "", (address, 0)) for address in addresses]
        monkeypatch.setattr(security.socket, "getaddrinfo", lambda *_, **__: found)

    resolve("127.0.0.1", "::1")
    assert is_loopback("both")
    resolve("127.0.0.1", "192.0.2.1")
    assert not is_loopback("both")


def test_other_machines_need_keys_unless_it_is_allowed(write):
    with pytest.raises(UsageError) as refused:
        check_exposure(ServeSettings(host="0.0.0.0"))
    assert_names(str(refused.value), "0.0.0.0", "--api-key-file", "--insecure")
    check_exposure(ServeSettings(host="0.0.0.0", insecure=True))
    check_exposure(ServeSettings(host="0.0.0.0", api_key_file=write(FIRST)))
    check_exposure(ServeSettings())


def test_without_keys_the_host_must_be_this_machine(write):
    own = [
        "localhost",
        "LOCALHOST:8000",
        "galip.localhost",
        "127.0.0.1:8000",
        "127.1.1.1",
        "[::1]",
        "[::1]:80",
    ]
    foreign = [None, "", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.0.2.1"]
    foreign += ["::1", "localhost:80:80", "user@localhost", "localhost/", "[::2]", "notlocalhost"]
    assert [host for host in own if not host_is_allowed(ServeSettings(), host)] == []
    assert [host for host in foreign if host_is_allowed(ServeSettings(), host)] == []
    for settings in (ServeSettings(insecure=True), ServeSettings(api_key_file=write(FIRST))):
        assert all(host_is_allowed(settings, host) for host in (*own, *foreign))
