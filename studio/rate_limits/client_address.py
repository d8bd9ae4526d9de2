"""Map client addresses to what rate limits count: an IPv4 address, or the IPv6 network of one subscriber."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

IPV6_PREFIX = 64
MAX_PEER_LENGTH = 64


@lru_cache(maxsize=4096)
def get_rate_limit_address(peer: str) -> str:
    """Return the address or network that the requests of a peer are counted for.

    An IPv6 subscriber has at least a /64 network and can use another of its addresses for each request. A
    peer that is not an address, such as the name of a socket, is returned unchanged.
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
