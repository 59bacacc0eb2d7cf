"""The REST servers behind a client: asked in turn, past those that failed a moment ago."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from tfserving.client.addresses import parse, split
from tfserving.client.options import DEFAULT_REST_PORT
from tfserving.errors import InvalidInputError

# Seconds for which a server that did not answer is passed over while there are others.
_REST = 5.0


class Endpoints:
    """Base URLs such as "http://127.0.0.1:8501".

    Args:
        address: "host:port" or a URL (which may have a path, behind a proxy); several as a comma list or a
            sequence.
        tls: whether "host:port" stands for https.
        clock: seconds.

    Raises:
        InvalidInputError: an address that is none.
    """

    def __init__(
        self, address: str | Sequence[str], *, tls: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._urls = [_base_url(part, tls) for part in split(address)]
        self._clock = clock
        self._turns = itertools.count()
        self._resting: dict[str, float] = {}
        self.text = ",".join(url.partition("://")[2] for url in self._urls)

    def pick(self) -> str:
        """Whom to ask now."""
        count = len(self._urls)
        turn = next(self._turns)
        if count == 1:
            return self._urls[0]
        for step in range(count):
            url = self._urls[(turn + step) % count]
            since = self._resting.get(url)
            if since is None or self._clock() - since > _REST:
                return url
        return self._urls[turn % count]

    def failed(self, url: str) -> None:
        """This one did not answer."""
        self._resting[url] = self._clock()

    def answered(self, url: str) -> None:
        """This one did."""
        if self._resting:
            self._resting.pop(url, None)


def _base_url(text: str, tls: bool) -> str:
    if "://" not in text:
        return f"{'https' if tls else 'http'}://{parse(text, DEFAULT_REST_PORT)}"
    try:
        url = urlsplit(text)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        good = False
    if not good or url.query or url.fragment:
        raise InvalidInputError(f"{text!r} is no address: give host:port, or http://host:port")
    return text.rstrip("/")
