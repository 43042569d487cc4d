"""Whether a host can be reached, asked before a download. Without a network TFDS tries each host for minutes."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.parse
import urllib.request

_SECONDS = 5  # how long a host has to take a connection
_ENOUGH = 2  # after so many hosts without an answer, and none with one, there is no network
_PORTS = {"http": 80, "https": 443, "ftp": 21}

_answers: dict[tuple[str, int], bool] = {}  # by host and port, of this process


def is_reachable(url: str) -> bool:
    """Whether the host of an address, or the proxy before it, takes a connection.

    Each host is asked once in a process. If the first two do not answer, the others are not asked. An address without a
    host passes.
    """
    place = _place(url)
    if place is None:
        return True
    if place not in _answers:
        if len(_answers) >= _ENOUGH and not any(_answers.values()):
            return False
        _answers[place] = _connects(place)
    return _answers[place]


def _place(url: str) -> tuple[str, int] | None:
    """Host and port that a download from an address begins with."""
    try:
        found = urllib.parse.urlsplit(url)
        if found.hostname and not urllib.request.proxy_bypass(found.hostname):
            proxy = urllib.request.getproxies().get(found.scheme)
            found = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}") if proxy else found
        port = found.port or _PORTS.get(found.scheme)
    except ValueError:  # it is no address: whoever downloads from it says so
        return None
    return (found.hostname, port) if found.hostname and port else None


def _connects(place: tuple[str, int]) -> bool:
    reached = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError, UnicodeError), socket.create_connection(place, timeout=_SECONDS):
            reached.set()

    asking = threading.Thread(target=connect, daemon=True)  # a name has no limit of time of its own
    asking.start()
    asking.join(_SECONDS + 1)
    return reached.is_set()
