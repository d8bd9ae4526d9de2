"""The parent process of an embedded PostgreSQL: it stops the server behind its last user.

Each process that uses the cluster holds a shared lock on `users.lock` in its folder. The supervisor waits for
an exclusive lock on that file, which it gets when the last user has ended, however it has ended. It starts
PostgreSQL again when it was killed. If the supervisor is killed, PostgreSQL ends with it (Linux), or the next
supervisor ends it.

The module is a program that starts in a twentieth of a second. It imports the standard library only.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

DATA, USERS, SOCKET = "data", "users.lock", "socket"
"""Names in the folder of a cluster: PostgreSQL's files, the lock of the users, the path of the socket."""
_SUPERVISOR = "supervisor.lock"

PROGRAM_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}
"""The environment of PostgreSQL's programs, which read variables such as PGPORT."""
POLL_SECONDS = 0.05
USERS_POLL_SECONDS = 0.5
STOP_SECONDS = 60
LEFTOVER_SECONDS = 5
"""How long processes of a killed PostgreSQL may take to end by themselves."""
RESTART_SECONDS = 5
"""How long the supervisor waits after a restart that failed, for instance because the disk is full."""

_FAILING = "failing"
_PROCESSES = Path("/proc/self")
_PR_SET_PDEATHSIG = 1

# A few clients on one machine, little memory, and no process for replication.
_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "max_locks_per_transaction": "256",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "min_wal_size": "32MB",
    "max_wal_size": "512MB",
    "io_method": "sync",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Errors of statements can hold personal data. The process that sent the statement logs them.
    "log_min_messages": "log",
    "log_checkpoints": "off",
}
_VOLATILE_OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def start(folder: Path, binaries: Path, log: Path, *, is_durable: bool) -> None:
    """Start the supervisor of a cluster, which starts PostgreSQL. Use it as soon as `find_ready` names it.

    Args:
        folder: The folder of the cluster.
        binaries: The folder of PostgreSQL's programs.
        log: The file for the messages of both, which is replaced.
        is_durable: Whether commits survive a crash of the machine.
    """
    # -S: without the packages of the environment.
    command = [sys.executable, "-I", "-S", __file__, "run", str(folder), str(binaries)]
    with log.open("wb") as output:
        subprocess.run(  # noqa: S603 - this program
            command if is_durable else [*command, "--volatile"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )


def stop(folder: Path) -> bool:
    """Stop the cluster of a folder, also if processes use it. Return whether it was running."""
    was_running = is_running(folder)
    while is_running(folder):
        # Without a number, the supervisor has only just started.
        if state := (folder / _SUPERVISOR).read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(state[0]), signal.SIGTERM)
        time.sleep(POLL_SECONDS)
    return was_running


def remove(folder: Path) -> None:
    """Stop the cluster of a folder and delete its files. No process may use it or start it meanwhile."""
    stop(folder)
    end_leftovers(folder / DATA)
    with suppress(OSError):
        shutil.rmtree((folder / SOCKET).read_text())
    shutil.rmtree(folder, ignore_errors=True)


def is_running(folder: Path) -> bool:
    """Return whether the supervisor of a cluster runs."""
    try:
        with (folder / _SUPERVISOR).open() as file:
            return not _try_lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def is_failing(folder: Path) -> bool:
    """Return whether the supervisor starts PostgreSQL again and again without success."""
    return (folder / _SUPERVISOR).read_text().endswith(_FAILING)


def find_ready(folder: Path) -> int | None:
    """Return the process number of the PostgreSQL that accepts connections, as it writes to its own file.

    It may have been killed since. None if it starts or stops.
    """
    lines = _read_postmaster_file(folder / DATA)
    return int(lines[0]) if len(lines) > 7 and lines[7].strip() == "ready" else None


def as_account(account: int) -> dict[str, Any]:
    """Return the arguments of `Popen` that run a program with this user id."""
    if account == os.geteuid():
        return {}
    return {"user": account, "group": account, "extra_groups": []}


def path_for(data: Path, account: int) -> str:
    """Return the path of the data folder for a program with this user id that starts in the folder.

    The folders above it may be private to root. A process needs no access to them to use its working folder.
    """
    return str(data) if account == os.geteuid() else "/proc/self/cwd"


def _run(folder: Path, binaries: Path, options: dict[str, str]) -> int:
    """Return at once; a process in the background runs PostgreSQL until its last user has ended."""
    lock = (folder / _SUPERVISOR).open("a+")
    if not _try_lock(lock, fcntl.LOCK_EX):
        return 1
    # By now, another process may have the number of the last supervisor.
    _overwrite(folder / _SUPERVISOR, " ")
    # The lock belongs to the open file, which the child has too.
    if os.fork() != 0:
        return 0
    os.setsid()  # Ctrl-C in the terminal is not for PostgreSQL
    _note(folder, "")
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.append(received))
    with (folder / USERS).open("a") as users:
        _keep_running(folder, binaries, options, users, signals)
        with suppress(OSError):
            shutil.rmtree((folder / SOCKET).read_text())
    return 0


def _keep_running(
    folder: Path, binaries: Path, options: dict[str, str], users: IO[str], signals: list[int]
) -> None:
    """Run PostgreSQL until its last user has ended or this process gets a signal, again if it was killed.

    If the first start fails, the supervisor ends; who waits for it says why. A later one is repeated: the
    users wait for the database, for example until there is space on the disk.
    """

    def is_needed() -> bool:
        return not signals and not _try_lock(users, fcntl.LOCK_EX)

    was_ready = False
    while is_needed():
        process = _start_postgres(folder, binaries, options)
        is_up = _watch(process, folder, is_needed)
        was_ready = was_ready or is_up
        if process.returncode is None:
            return _stop_postgres(process)
        if not was_ready:
            return None
        if not is_up:
            _note(folder, _FAILING)
            _wait(is_needed)
    return None


def _watch(process: subprocess.Popen[bytes], folder: Path, is_needed: Callable[[], bool]) -> bool:
    """Wait until PostgreSQL has ended or is not needed. Return whether it accepted connections."""
    while process.poll() is None and is_needed():
        if find_ready(folder) == process.pid:
            _note(folder, "")
            break
        time.sleep(POLL_SECONDS)
    else:
        return False
    while process.poll() is None and is_needed():
        time.sleep(USERS_POLL_SECONDS)
    return True


def _wait(is_needed: Callable[[], bool]) -> None:
    """Wait before the next start, as long as there are users."""
    until = time.monotonic() + RESTART_SECONDS
    while time.monotonic() < until and is_needed():
        time.sleep(USERS_POLL_SECONDS)


def _note(folder: Path, state: str) -> None:
    """Write the process number and the state of the supervisor, also on a full disk."""
    _overwrite(folder / _SUPERVISOR, f"{os.getpid()} {state}".rstrip())


def _overwrite(path: Path, content: str) -> None:
    """Replace the content of a file in its place on the disk, which may have no other."""
    with path.open("r+") as file:
        file.write(content)
        file.truncate()


def _start_postgres(folder: Path, binaries: Path, options: dict[str, str]) -> subprocess.Popen[bytes]:
    data, socket_folder = folder / DATA, Path((folder / SOCKET).read_text())
    account = data.stat().st_uid
    end_leftovers(data)
    for path in socket_folder.iterdir():  # a killed PostgreSQL leaves its socket and a file with its number
        path.unlink()
    arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return subprocess.Popen(  # noqa: S603 - a program of the package
        [binaries / "postgres", "-D", path_for(data, account), "-k", socket_folder, *arguments],
        cwd=data,
        env=PROGRAM_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        preexec_fn=_end_with_parent,  # this process has one thread
        **as_account(account),
    )


def _end_with_parent() -> None:
    """Stop this process when its parent is killed."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _stop_postgres(process: subprocess.Popen[bytes]) -> None:
    """Disconnect the clients of PostgreSQL and end it; all changes are in its files then."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGQUIT)  # the next start recovers
        process.wait()


def end_leftovers(data: Path) -> None:
    """End the processes of a PostgreSQL that was killed, or whose supervisor was.

    The next start recovers what they have committed. A process that still works on the files would damage
    them.
    """
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while pids := _list_processes(data):
        number = signal.SIGQUIT if time.monotonic() < deadline else signal.SIGKILL
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(POLL_SECONDS)
    lines = _read_postmaster_file(data)
    if lines:
        # PostgreSQL does not start while any process has the number in this file, unless it is its parent.
        # The rest of the file stays: by the shared memory that it names, PostgreSQL finds running processes.
        _overwrite(data / "postmaster.pid", "\n".join([str(os.getpid()), *lines[1:], ""]))


def _read_postmaster_file(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _list_processes(data: Path) -> list[int]:
    """Return the processes of PostgreSQL that work on these files; on macOS the first of them only."""
    if _PROCESSES.exists():
        pids = [path.name for path in _PROCESSES.parent.glob("[0-9]*")]
    else:
        pids = _read_postmaster_file(data)[:1]
    return [int(pid) for pid in pids if _is_postgres(pid, data)]


def _is_postgres(pid: str, data: Path) -> bool:
    """Return whether a process is of PostgreSQL and, on Linux, works on these files."""
    if not _PROCESSES.exists():
        command = ["/bin/ps", "-o", "comm=", "-p", pid]
        name = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - a number
        return Path(name.strip()).name == "postgres"
    process = _PROCESSES.with_name(pid)
    try:
        return (process / "comm").read_text().startswith("postgres") and (process / "cwd").samefile(data)
    except OSError:  # it has ended, or belongs to another user
        return False


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run the supervisor of a cluster, or stop a cluster, and return the exit status."""
    parser = argparse.ArgumentParser(description="Run or stop the embedded PostgreSQL of a folder.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    stopping = commands.add_parser("stop", help="stop it, also if processes use it")
    stopping.add_argument("folder", type=Path)
    running = commands.add_parser("run", help="start it in the background; servers and commands do this")
    running.add_argument("folder", type=Path)
    running.add_argument("binaries", type=Path)
    running.add_argument("--volatile", action="store_true", help="commits need not survive a crash")
    options = parser.parse_args(arguments)
    if options.command == "stop":
        stop(options.folder)
        return 0
    return _run(options.folder, options.binaries, _OPTIONS | (_VOLATILE_OPTIONS if options.volatile else {}))


if __name__ == "__main__":
    raise SystemExit(main())
