"""Prove that a domain belongs to an organization: a TXT record of the DNS has a random text.

Knows no rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from db.errors import Conflict

DNS_TIMEOUT_SECONDS = 5.0
MAX_RECORDS = 100
_LABEL = "_sartiq-verification"
_PREFIX = "sartiq-domain-verification="


class DomainNotVerified(Conflict):
    """The TXT record is missing, has another value, or cannot be read."""

    code = "domain_not_verified"
    default_detail = "The TXT record of the domain is missing or has another value"


def record_name(domain: str) -> str:
    """Return the name of the TXT record of a domain."""
    return f"{_LABEL}.{domain}"


def record_value(challenge: str) -> str:
    """Return the text that the TXT record must have."""
    return f"{_PREFIX}{challenge}"


def require_record(domain: str, challenge: str, servers: Sequence[str]) -> None:
    """Check the TXT record of a domain. Takes up to `DNS_TIMEOUT_SECONDS`.

    Args:
        domain: The domain.
        challenge: The random text of the domain.
        servers: The DNS servers to ask ("address:port"); empty for those of the system.

    Raises:
        DomainNotVerified: There is no such record, or no DNS server answered.
    """
    # Imported here: few processes verify a domain.
    import dns.exception
    import dns.nameserver
    import dns.resolver

    name, value = record_name(domain), record_value(challenge)
    resolver = dns.resolver.Resolver(configure=not servers)
    if servers:
        parts = [server.rpartition(":") for server in servers]
        resolver.nameservers = [
            dns.nameserver.Do53Nameserver(address.strip("[]"), int(port)) for address, _, port in parts
        ]
    try:
        answer = resolver.resolve(name, "TXT", search=False, lifetime=DNS_TIMEOUT_SECONDS)
    except dns.exception.DNSException as error:
        raise DomainNotVerified(
            f"The DNS has no TXT record {name} that can be read. Create it with the value {value}; a new "
            "record can take an hour to be visible"
        ) from error
    # A long text is stored in several parts.
    texts = [b"".join(record.strings) for record in list(answer)[:MAX_RECORDS]]
    if value.encode() not in texts:
        raise DomainNotVerified(f"No TXT record {name} has the value {value}")
