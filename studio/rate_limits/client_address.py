"""What counts as one address: an IPv4 address, or the network that one subscriber has of IPv6."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

IPV6_PREFIX = 64
MAX_PEER_LENGTH = 64


@lru_cache(maxsize=4096)
def get_rate_limit_address(peer: str) -> str:
    """The address that a peer is counted under.

    A subscriber of IPv6 has at least a /64 and could come from another of its addresses with each request.
    Whatever is no address, such as the name of a socket, is counted as it is.
    """
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return peer[:MAX_PEER_LENGTH] or "unknown"
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address, IPV6_PREFIX), strict=False))
