"""A server for which two hosts are on the public internet: `python -m tests.e2e.public_host_server`.

The examples of the contract send webhooks to one, which does not exist, and have a destination at the other.
"""

from __future__ import annotations

import handlers.server.cli as server
from studio.infrastructure import http_client

HOSTS, PUBLIC_ADDRESS = {"hooks.example.com", "s3.eu-central-1.amazonaws.com"}, "93.184.215.14"


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host; the system resolves all others."""
    return [PUBLIC_ADDRESS] if host in HOSTS else resolve_by_system(host, port)


resolve_by_system = http_client.resolve_host

if __name__ == "__main__":
    http_client.resolve_host = resolve
    raise SystemExit(server.main())
