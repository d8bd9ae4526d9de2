"""A server for which three hosts are on the public internet: `python -m tests.e2e.public_host_server`.

The examples of the contract send webhooks to one, which does not exist, have a destination at the second, and
an identity provider at the third, which does not exist either.
"""

from __future__ import annotations

import handlers.server.cli as server
from studio.infrastructure import http_client

HOSTS = {"hooks.example.com", "s3.eu-central-1.amazonaws.com", "login.atelier-nord.example"}
PUBLIC_ADDRESS = "93.184.215.14"


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host; the system resolves all others."""
    return [PUBLIC_ADDRESS] if host in HOSTS else resolve_by_system(host, port)


resolve_by_system = http_client.resolve_host

if __name__ == "__main__":
    http_client.resolve_host = resolve
    raise SystemExit(server.main())
