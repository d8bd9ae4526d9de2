"""The real server in a process of its own, for everything that talks to it as a client does.

It knows how to start and stop one, and nothing of what is asked there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.contract.coverage.recording import recorded_command

ROOT = Path(__file__).resolve().parents[2]
COMPUTE_WEBHOOK_SECRET = "whsec_c2VjcmV0IG9mIHNlcnZlcnMgdW5kZXIgdGVzdA=="
BASE_PATH = "/api/v1"
# Where a test is not about limits. The documented defaults would stop the fuzzer, and callers by the dozen.
UNLIMITED = {
    f"LIMIT_{name}": "1000000"
    for name in (
        "ACCOUNT", "KEY", "ORGANIZATION", "ADDRESS", "SIGN_IN_ACCOUNT", "SIGN_IN_ADDRESS", "RECOVERY_ACCOUNT",
        "MAILS",
    )
}  # fmt: skip
SECONDS_TO_START = 60
SECONDS_TO_STOP = 30


class ServerDidNotStart(Exception):
    """The process ended or stayed silent; the message holds the end of its log."""


@dataclass(frozen=True)
class RunningServer:
    """A server that takes traffic: its address without a path, its files and its process."""

    origin: str
    folder: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """The address that the contract's paths are relative to."""
        return self.origin + BASE_PATH


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def build_environment(folder: Path, port: int) -> dict[str, str]:
    """What a server is told that keeps all its files below `folder`, by default on an SQLite file there."""
    return {
        "SARTIQ_ENV": "test",
        "SECRET_KEY": "a secret of servers under test that is long enough",
        "COMPUTE_WEBHOOK_SECRET": COMPUTE_WEBHOOK_SECRET,
        "DATA_DIR": str(folder),
        "MEDIA_DIR": str(folder / "media"),
        "OUTBOX_DIR": str(folder / "outbox"),
        "DATABASE_URL": f"sqlite:///{folder / 'sartiq.db'}",
        # People read it when a test fails, and the fuzzer looks for errors in it.
        "LOG_FORMAT": "lines",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        **UNLIMITED,
    }


@contextlib.contextmanager
def running_server(
    folder: Path,
    module: str = "handlers",
    *,
    port: int | None = None,
    python: str = sys.executable,
    **environment: str,
) -> Iterator[RunningServer]:
    """Run `python -m module` with all its files below `folder`, by default on an SQLite file there.

    `environment` wins over what the server inherits. Raises ServerDidNotStart. The process is stopped at the
    end.
    """
    # The recorder of `command` needs the development packages: another interpreter may lack them.
    arguments = recorded_command(module) if python == sys.executable else module.split()
    port = port or free_port()
    address = f"http://127.0.0.1:{port}"
    folder.mkdir(parents=True, exist_ok=True)
    own = build_environment(folder, port)
    log = folder / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [python, "-m", *arguments],
            cwd=ROOT,
            env={**os.environ, **own, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        server = RunningServer(address, folder, log, process)
        try:
            wait_until_ready(server)
            yield server
        finally:
            stop(process)


def wait_until_ready(server: RunningServer) -> None:
    """Return once the server takes traffic; raise ServerDidNotStart when it does not."""
    wait_for_response(f"{server.url}/utils/readiness", server.process, server.log)


def wait_for_response(
    url: str,
    process: subprocess.Popen[bytes],
    log: Path,
    headers: Mapping[str, str] | None = None,
    pause: float = 0.1,
) -> None:
    """Return once an address, asked every `pause` seconds, answers 200; raise ServerDidNotStart otherwise."""
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):  # it does not listen yet
            if httpx.get(url, headers=headers, timeout=5).status_code == 200:
                return
        time.sleep(pause)
    raise ServerDidNotStart(f"The server did not start:\n{log.read_text(errors='replace')[-4000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to end, and end it when it does not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
