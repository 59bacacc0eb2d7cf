"""Distributes calls to REST servers in turn, and skips servers that failed recently."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from tfserving.client.addresses import parse_address, split_addresses
from tfserving.client.options import DEFAULT_REST_PORT
from tfserving.errors import InvalidInputError

# Seconds for which a server that failed gets no calls while there are others.
_SKIP_SECONDS = 5.0


class RestEndpoints:
    """Base URLs such as "http://127.0.0.1:8501".

    Args:
        address: "host:port" or a URL (which may have a path, behind a proxy); several as a comma list or a
            sequence.
        tls: whether "host:port" means https.
        clock: monotonic time in seconds.

    Raises:
        InvalidInputError: an address is not valid.
    """

    def __init__(
        self, address: str | Sequence[str], *, tls: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._urls = [_base_url(part, tls) for part in split_addresses(address)]
        self._clock = clock
        self._turns = itertools.count()
        self._failed_at: dict[str, float] = {}
        self.text = ",".join(url.partition("://")[2] for url in self._urls)

    def pick(self) -> str:
        """The server for the next call."""
        count = len(self._urls)
        turn = next(self._turns)
        if count == 1:
            return self._urls[0]
        for step in range(count):
            url = self._urls[(turn + step) % count]
            since = self._failed_at.get(url)
            if since is None or self._clock() - since > _SKIP_SECONDS:
                return url
        return self._urls[turn % count]

    def mark_down(self, url: str) -> None:
        """The server did not respond."""
        self._failed_at[url] = self._clock()

    def mark_up(self, url: str) -> None:
        """The server responded."""
        if self._failed_at:
            self._failed_at.pop(url, None)


def _base_url(text: str, tls: bool) -> str:
    if "://" not in text:
        return f"{'https' if tls else 'http'}://{parse_address(text, DEFAULT_REST_PORT)}"
    try:
        url = urlsplit(text)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        good = False
    if not good or url.query or url.fragment:
        raise InvalidInputError(f"{text!r} is not a valid address; pass host:port or http://host:port")
    return text.rstrip("/")
