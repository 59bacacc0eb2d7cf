"""File descriptors: how many connections the process can hold."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)

# Descriptors for everything but connections: models, logs, libraries, and connections about to be refused.
_RESERVED = 256


def fit_connections(wanted: int, listeners: int) -> int:
    """The number of connections that each of several listeners can hold, at most `wanted`.

    Raises the soft limit of descriptors if it is too low and the hard limit permits it. Without a free
    descriptor, none accepts a connection, and no model loads.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = listeners * wanted + _RESERVED
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    fitting = max(1, (soft - min(_RESERVED, soft // 4)) // listeners)
    log.warning(
        "--max_connections=%d needs %d file descriptors, and the limit is %d, so each port accepts %d; "
        "raise the limit (ulimit -n)",
        wanted, needed, soft, fitting,
    )  # fmt: skip
    return fitting
