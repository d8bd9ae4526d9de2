"""Limit the open connections of this process, and let it open as many files as they need.

It knows peers and counts, and neither requests nor operations. It runs on the event loop and needs no lock.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Iterable
from enum import Enum
from ipaddress import ip_address, ip_network

from studio.infrastructure.held_counts import HeldCounts
from studio.infrastructure.settings import InvalidSettings
from studio.rate_limits.client_address import get_rate_limit_address

logger = logging.getLogger(__name__)

ANSWERED_BEYOND_LIMIT = 64
"""Connections beyond a limit that get a response. Probes are served on them; further ones are closed."""
ANSWERED_OF_ADDRESS = 8
"""How many of these one address can have."""
FILES_PER_CONNECTION = 2
"""The socket, and a file: a large body that arrives, or a file that is sent."""
MIN_CONNECTIONS = 32
"""With fewer, the server does not start."""
SECONDS_BETWEEN_WARNINGS = 10.0


class Admission(Enum):
    """What happens to a new connection. The value of a rejected one is the detail of the response."""

    SERVED = ""
    REJECTED = "The server has too many connections; try again in a moment"
    REJECTED_OF_ADDRESS = "Too many connections from your address; use one for several requests, or wait"
    CLOSED = "closed"


class ConnectionLimits:
    """Counts open connections, in total and by the address of the peer.

    Args:
        total: How many connections are served at the same time.
        per_address: How many of them one address can have; an IPv6 /64 network counts as one address.
        trusted_proxies: Addresses and networks without a limit of their own: many clients share them.
    """

    def __init__(self, total: int, per_address: int, trusted_proxies: Iterable[str]) -> None:
        self._total, self._per_address = total, per_address
        self._trusted = [ip_network(proxy) for proxy in trusted_proxies]
        self._open = 0
        self._open_of = HeldCounts()
        self._warned_at = float("-inf")

    def admit(self, peer: str | None) -> Admission:
        """Count a new connection, whatever happens to it; `peer` is None for a Unix domain socket."""
        address = self._counted_address(peer)
        total, of_address = self._open, self._open_of[address] if address else 0
        self._open += 1
        self._open_of.add(address)
        if total < self._total and of_address < self._per_address:
            return Admission.SERVED
        is_of_address = of_address >= self._per_address
        self._warn(address if is_of_address else "all addresses")
        if (
            total >= self._total + ANSWERED_BEYOND_LIMIT
            or of_address >= self._per_address + ANSWERED_OF_ADDRESS
        ):
            return Admission.CLOSED
        return Admission.REJECTED_OF_ADDRESS if is_of_address else Admission.REJECTED

    def release(self, peer: str | None) -> None:
        """Count the end of a connection."""
        address = self._counted_address(peer)
        self._open -= 1
        self._open_of.add(address, -1)

    def _counted_address(self, peer: str | None) -> str:
        """Return what the connections of a peer are counted by; empty if it has no limit of its own."""
        if peer is None or self._is_trusted(peer):
            return ""
        return get_rate_limit_address(peer)

    def _is_trusted(self, peer: str) -> bool:
        if not self._trusted:
            return False
        address = ip_address(peer.partition("%")[0])
        # A socket for both families has IPv4 peers as IPv6 addresses.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._trusted)

    def _warn(self, address: str) -> None:
        # A flood of connections must not become a flood of log lines.
        if time.monotonic() - self._warned_at > SECONDS_BETWEEN_WARNINGS:
            self._warned_at = time.monotonic()
            logger.warning("connections rejected: too many of %s", address)


def fit_connections(max_connections: int, other_files: int) -> int:
    """Raise this process's limit of open files, and return how many connections fit into it.

    Args:
        max_connections: How many connections the settings allow.
        other_files: Files that the process opens for other purposes.

    Raises:
        InvalidSettings: So few connections fit that the server would be of no use.
    """
    reserved = FILES_PER_CONNECTION * ANSWERED_BEYOND_LIMIT + other_files
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES_PER_CONNECTION * max_connections + reserved
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return max_connections
    available = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (available, hard))
    fitting = (available - reserved) // FILES_PER_CONNECTION
    if fitting < min(MIN_CONNECTIONS, max_connections):
        raise InvalidSettings(
            f"the limit of open files is {hard}, and the server needs {needed}: raise it (`ulimit -Hn`)"
        )
    if fitting < max_connections:
        logger.warning("MAX_CONNECTIONS is lowered to %s: the limit of open files is %s", fitting, hard)
    return fitting
