"""Who may use the service: API keys, the Host header, and the address that it listens on."""

import hmac
import ipaddress
import logging
import os
import re
import socket
import stat
import threading
import weakref
from contextlib import suppress

from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.files import StrPath, open_regular
from galip_runtime.serve.settings import ServeSettings

__all__ = ["KeyRing", "check_exposure", "host_is_allowed", "is_loopback", "reload_keys"]

SHORTEST_KEY = 16
"""characters"""
_LARGEST_FILE = 2**20
_LONGEST_TOKEN = 4096
_OPEN = stat.S_IRWXO | stat.S_IWGRP
"""Permissions that a file of keys must not give; its group may read it, as in a Kubernetes secret."""
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?")
_log = logging.getLogger("galip_runtime.serve")
_rings: "weakref.WeakSet[KeyRing]" = weakref.WeakSet()


class KeyRing:
    """The API keys of a file, any of which opens the service."""

    def __init__(self, path: StrPath) -> None:
        """Read the file. Raises FileRefused as `from_file`."""
        self._path = os.path.abspath(path)
        self._lock = threading.Lock()
        self._keys = _read_keys(self._path)
        _rings.add(self)

    @classmethod
    def from_file(cls, path: StrPath) -> "KeyRing":
        """Return the keys of the file at `path`, one a line. Blank lines and lines with # first are ignored.

        Raises FileRefused if the file is missing, not a regular file, larger than 1 MiB, open to other
        users, without a key, or has a key that is shorter than 16 characters or not printable ASCII.
        """
        return cls(path)

    def __len__(self) -> int:
        return len(self._keys)

    def accepts(self, token: str) -> bool:
        """Return whether `token` is a key, in a time that does not depend on which, or how nearly."""
        try:
            given = token.encode("ascii")
        except UnicodeEncodeError:
            return False
        if len(given) > _LONGEST_TOKEN:
            return False
        is_known = False
        for key in self._keys:
            is_known |= hmac.compare_digest(key, given)
        return is_known

    def reload(self) -> bool:
        """Read the file again, and return whether that worked; if not, log why and keep the keys."""
        with self._lock:
            try:
                keys = _read_keys(self._path)
            except FileRefused as error:
                _log.error("the API keys stay as they were: %s", error)
                return False
            self._keys = keys
        _log.info("the API keys were read again: %d", len(keys))
        return True


def reload_keys() -> None:
    """Read the file of every key ring of this process again, as SIGHUP asks for."""
    for ring in list(_rings):
        ring.reload()


def _read_keys(path: str) -> tuple[bytes, ...]:
    with open_regular(path, _LARGEST_FILE) as file:
        mode = os.fstat(file.fileno()).st_mode
        if os.name == "posix" and mode & _OPEN:
            raise FileRefused(
                f"{path} holds API keys, and other users may read it or write to it (mode "
                f"{stat.S_IMODE(mode):04o}): chmod 600 {path}"
            )
        try:
            data = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise FileRefused(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > _LARGEST_FILE:
        raise FileRefused(f"{path} has more than {_LARGEST_FILE:,} bytes, so it is no file of API keys")
    keys = []
    for number, line in enumerate(data.splitlines(), 1):
        key = line.strip()
        if not key or key.startswith(b"#"):
            continue
        if any(not 0x21 <= byte <= 0x7E for byte in key):  # the message must not show the key
            raise FileRefused(
                f"{path}, line {number}: an API key is printable ASCII without blanks, one key a line"
            )
        if len(key) < SHORTEST_KEY:
            raise FileRefused(
                f"{path}, line {number}: this API key has {len(key)} characters and must have at least "
                f"{SHORTEST_KEY}; a good one: python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        if len(key) > _LONGEST_TOKEN:
            raise FileRefused(f"{path}, line {number}: an API key has at most {_LONGEST_TOKEN} characters")
        keys.append(key)
    if not keys:
        raise FileRefused(f"{path} has no API key: write one on each line")
    return tuple(keys)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches `host`, an address or a name (then all of its addresses).

    Raises UsageError for a name that has no address.
    """
    with suppress(ValueError):  # a name, whose addresses decide
        return _address(host).is_loopback
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"the host {host!r} has no address ({error}): listen on an address of this machine, such as "
            "127.0.0.1 for this machine alone or 0.0.0.0 for all of its networks"
        ) from error
    return all(_address(str(entry[4][0])).is_loopback for entry in found)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0])  # without the zone of a link-local address
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def check_exposure(settings: ServeSettings) -> None:
    """Raise UsageError if other machines could use the service without a key and `insecure` is not set."""
    if settings.api_key_file is None and not settings.insecure and not is_loopback(settings.host):
        raise UsageError(
            f"on {settings.host} other machines can use the service, and no key would be asked for: name a "
            "file of keys with --api-key-file, listen on 127.0.0.1, or allow it with --insecure"
        )


def host_is_allowed(settings: ServeSettings, host: str | None) -> bool:
    """Return whether the service answers a request with this Host header.

    Without keys it answers on this machine's own names alone: a page elsewhere whose name was pointed at
    127.0.0.1 ("DNS rebinding") sends that name.
    """
    if settings.api_key_file is not None or settings.insecure:
        return True
    match = _HOST.fullmatch(host or "")
    if match is None:
        return False
    name = match[1].strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return _address(name).is_loopback
    except ValueError:
        return False
