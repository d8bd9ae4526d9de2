"""Start and stop a real server process, for tools and tests that act as clients.

It knows nothing about their requests.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from tools.servers.prepared_folder import copy_prepared_folder
from tools.servers.server_databases import database_of

ROOT = Path(__file__).resolve().parents[2]
# A new one for each run: a secret in the repository is published.
SECRET_KEY = secrets.token_hex(32)
COMPUTE_WEBHOOK_SECRET = "whsec_c2VjcmV0IG9mIHNlcnZlcnMgdW5kZXIgdGVzdA=="  # noqa: S105 - of no real server
BASE_PATH = "/api/v1"
# For tests that are not about rate limits: the default limits would reject the fuzzer and parallel callers.
UNLIMITED = {
    f"LIMIT_{name}": "1000000"
    for name in (
        "ACCOUNT", "KEY", "ORGANIZATION", "ADDRESS", "CONCURRENT_REQUESTS", "SIGN_IN_ACCOUNT",
        "SIGN_IN_ADDRESS", "RECOVERY_ACCOUNT", "MAILS", "ACCOUNT_EXPORTS",
    )
}  # fmt: skip
REPORTS = ROOT / ".reports"
# The environment with the runtime packages only (`make .venv/server/.stamp`).
INSTALLED = ROOT / ".venv" / "server"
WRAPPER = "SERVER_WRAPPER"
"""The environment variable with a module that runs the server: `python -m WRAPPER handlers`. See `wrap`."""
SECONDS_TO_START = 60
SECONDS_TO_STOP = 30


class ServerDidNotStart(Exception):
    """The process ended or did not respond; the message contains the end of its log."""


@dataclass(frozen=True)
class RunningServer:
    """A server that accepts requests: its origin (URL without a path), its files and its process."""

    origin: str
    folder: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """The URL that the paths of the contract are relative to."""
        return self.origin + BASE_PATH


_FIRST_PORT, _LAST_PORT = 12_000, 32_000
_RESERVED = contextlib.ExitStack()
atexit.register(_RESERVED.close)


def free_port() -> int:
    """Return a free port of the loopback interface, which no other call returns while this process runs.

    A datagram socket with the same number reserves it: several processes start servers at the same time.
    """
    for number in itertools.count(os.getpid() * 100):
        # Not a port that the system gives to connections.
        port = _FIRST_PORT + number % (_LAST_PORT - _FIRST_PORT)
        reservation = socket.socket(type=socket.SOCK_DGRAM)
        try:
            reservation.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:  # in use: the next one is tried
            reservation.close()
        else:
            _RESERVED.enter_context(reservation)
            return port
    raise AssertionError("the numbers do not end")


def build_environment(folder: Path, port: int, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a server with all its files below `folder`.

    Args:
        folder: The folder of the server.
        port: The port of the server.
        settings: Settings that override the others. Without DATABASE_URL, the server has its own database.
    """
    settings = settings or {}
    if settings.get("SARTIQ_MODE") != "mock" and "DATABASE_URL" not in settings:
        settings = {"DATABASE_URL": database_of(folder), **settings}
    return {
        "SARTIQ_ENV": "test",
        "SECRET_KEY": SECRET_KEY,
        "COMPUTE_WEBHOOK_SECRET": COMPUTE_WEBHOOK_SECRET,
        "DATA_DIR": str(folder),
        "MEDIA_DIR": str(folder / "media"),
        "OUTBOX_DIR": str(folder / "outbox"),
        # Readable when a test fails; the fuzzer also searches it for errors.
        "LOG_FORMAT": "lines",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PYTHONFAULTHANDLER": "1",
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        **UNLIMITED,
        **settings,
    }


def wrap(module: str) -> list[str]:
    """Return the arguments for `python -m` that run a module: the server with its wrapper, if there is one.

    A wrapper adds to the server what a run of the tests wants to know of each, such as its responses.
    """
    wrapper, arguments = os.environ.get(WRAPPER), module.split()
    return [wrapper, *arguments] if wrapper and arguments[0] == "handlers" else arguments


def find_interpreter(module: str = "handlers") -> str:
    """Return the interpreter for `python -m module`: that of an installation, if it is up to date.

    Development packages would add up to a second of CPU to each start.
    """
    # A wrapper, and the modules of tools and tests, need the development packages.
    if module != "handlers" or wrap(module) != [module]:
        return sys.executable
    stamp = INSTALLED / ".stamp"
    is_current = stamp.exists() and stamp.stat().st_mtime >= (ROOT / "requirements.txt").stat().st_mtime
    return str(INSTALLED / "bin" / "python") if is_current else sys.executable


@contextlib.contextmanager
def running_server(
    folder: Path,
    module: str = "handlers",
    *,
    port: int | None = None,
    python: str | None = None,
    root: Path = ROOT,
    seconds_to_start: float = SECONDS_TO_START,
    prepares: bool = False,
    **environment: str,
) -> Iterator[RunningServer]:
    """Run `python -m module` as a server within the block, with all its files below `folder`.

    Servers with the same folder have the same database, unless the environment names another one.

    Args:
        python: The interpreter; by default that of `find_interpreter`. Others prepare the folder themselves.
        root: The folder with the code.
        seconds_to_start: How long the server may take to become ready.
        prepares: Whether the server prepares its database itself. By default, tests copy a prepared one.
        environment: Settings that override the inherited and the default ones.

    Raises:
        ServerDidNotStart: The server does not become ready.
    """
    prepares = prepares or python is not None
    if environment.get("SARTIQ_MODE") == "mock":
        python = python or sys.executable  # that of `find_interpreter` has no embedded PostgreSQL
    python = python or find_interpreter(module)
    # A wrapper needs the development packages, which another interpreter may not have.
    arguments = wrap(module) if python == sys.executable else module.split()
    port = port or free_port()
    origin = f"http://127.0.0.1:{port}"
    folder.mkdir(parents=True, exist_ok=True)
    if not prepares:
        copy_prepared_folder(folder, environment, prepare_folder)
    settings = build_environment(folder, port, environment)
    log = folder / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [python, "-m", *arguments],
            cwd=root,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        server = RunningServer(origin, folder, log, process)
        try:
            wait_until_ready(server, seconds_to_start)
            yield server
        finally:
            stop(process, log)


def prepare_folder(folder: Path, settings: Mapping[str, str]) -> None:
    """Create the tables, the rows and the files of a server, as its first start would do.

    The umask is 0: a test checks that others cannot read the files all the same.
    """
    environment = {**os.environ, **build_environment(folder, free_port(), {"MAIL": "off", **settings})}
    command = [find_interpreter(), "-m", "handlers", "--prepare-only"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, umask=0, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode != 0:
        raise ServerDidNotStart(done.stderr)


def wait_until_ready(server: RunningServer, seconds: float = SECONDS_TO_START) -> None:
    """Wait until the server accepts requests; raise ServerDidNotStart if it does not."""
    wait_for_response(f"{server.url}/utils/readiness", server.process, server.log, seconds=seconds)


def wait_for_response(
    url: str,
    process: subprocess.Popen[bytes],
    log: Path,
    headers: Mapping[str, str] | None = None,
    pause: float = 0.1,
    seconds: float = SECONDS_TO_START,
) -> None:
    """Request a URL every `pause` seconds until it returns 200; raise ServerDidNotStart if it does not."""
    deadline = time.monotonic() + seconds
    with httpx.Client(headers=headers, timeout=5) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.TransportError):  # the server does not listen yet
                if client.get(url).status_code == 200:
                    return
            time.sleep(pause)
    ended = process.poll()
    cause = f"was not ready after {seconds:g} s" if ended is None else f"ended with status {ended}"
    text = log.read_text(errors="replace")[-4000:] or "(its log is empty)"
    raise ServerDidNotStart(f"The server did not start: it {cause}.\n{text}")


def stop(process: subprocess.Popen[bytes], log: Path | None = None) -> None:
    """Terminate the process. If it does not end in time, abort it and keep its log with all stacks.

    The stacks need PYTHONFAULTHANDLER in the environment of the process.
    """
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        process.wait()
        if log is not None:
            REPORTS.mkdir(exist_ok=True)
            shutil.copyfile(log, REPORTS / f"server-{process.pid}-did-not-stop.log")
