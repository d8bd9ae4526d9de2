"""A balancer for servers under test: HAProxy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tools.servers.pgbouncer import require_program, run_program

HAPROXY = """
global
    maxconn 2000
defaults
    mode http
    retries 3
    option redispatch
    timeout check 10s
    option forwardfor
    timeout connect 5s
    timeout client 120s
    timeout server 120s
{sections}
"""
SECTION = """
frontend {name}
    bind 127.0.0.1:{port}
    default_backend {name}_servers
backend {name}_servers
    balance roundrobin
    option httpchk GET /api/v1/utils/readiness
{servers}
"""


def require_programs() -> None:
    """Raise `DependencyMissing` if a program is not installed."""
    for program in ("haproxy", "pgbouncer"):
        require_program(program)


@contextlib.contextmanager
def run_haproxy(folder: Path, backends: Mapping[str, tuple[int, Sequence[int]]]) -> Iterator[None]:
    """Run HAProxy within the block.

    Args:
        backends: The port to listen on and the ports of the servers, by a name for each group.
    """
    sections = [
        SECTION.format(
            name=name,
            port=port,
            servers="\n".join(f"    server s{each} 127.0.0.1:{each} check" for each in ports),
        )
        for name, (port, ports) in backends.items()
    ]
    configuration = folder / "haproxy.cfg"
    configuration.write_text(HAPROXY.format(sections="".join(sections)), encoding="utf-8")
    (first, _), *_ = backends.values()
    with run_program(
        [require_program("haproxy"), "-db", "-f", str(configuration)], folder / "haproxy.log", first
    ):
        yield
