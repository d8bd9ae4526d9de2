"""Check addresses before a process listens at them. Knows nothing of what is served."""

from __future__ import annotations

import errno
import os
import socket

from studio.infrastructure.settings import InvalidSettings


def require_free_address(host: str, port: int, prefix: str = "") -> None:
    """Check that this process can listen, before the seconds in which it prepares its work.

    Args:
        host: The value of the setting HOST.
        port: The value of the setting PORT.
        prefix: Before the names of both settings: `METRICS_`.

    Raises:
        InvalidSettings: It cannot; the message names the settings.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _name, address in addresses:
            with socket.socket(family, kind, protocol) as probe:
                if os.name == "posix":  # as asyncio does: connections of an earlier server may be closing
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as error:
        # `localhost` has an IPv6 address on machines without IPv6.
        if error.errno == errno.EADDRNOTAVAIL and len(addresses) > 1:
            return
        reason = (error.strerror or str(error)).lower()
        if error.errno == errno.EADDRINUSE:
            reason = f"address already in use: stop the other process, or set another {prefix}PORT"
        raise InvalidSettings(f"{prefix}HOST={host} {prefix}PORT={port}: {reason}") from error
