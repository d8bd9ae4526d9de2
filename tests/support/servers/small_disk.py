"""A server whose files, but not whose database, are on a small disk of its own, which a test can fill."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.requirements import skip_or_fail
from tools.servers.databases import let_in
from tools.servers.server import RunningServer, running_server

DISK = "64m"
# A user namespace with a file system of its own, which the test reaches through /proc.
MOUNT = f'mount -t tmpfs -o size={DISK} tmpfs "$DATA_DIR" && exec "$@"'


def can_mount() -> bool:
    """Return whether this process may mount a file system in a namespace of its own."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]  # noqa: S108 - in the namespace only
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def require_mounts() -> None:
    """Skip the running test where `can_mount` is false, or fail it if `CI=true`."""
    if not can_mount():
        setting = "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        skip_or_fail(f"user namespaces of Linux, to mount a small disk (on Ubuntu: {setting})")


@dataclass(frozen=True)
class SmallDisk:
    """A server whose files, temporary ones too, are on one small disk."""

    server: RunningServer

    @property
    def folder(self) -> Path:
        """The root of the disk."""
        return Path(f"/proc/{self.server.process.pid}/root{self.server.folder}")

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Fill the disk within the block."""
        filling = self.folder / "filling"
        with filling.open("wb", buffering=0) as file:
            try:
                for size in (1 << 20, 1 << 12):
                    with suppress(OSError):  # no space is left for a piece of this size
                        while True:
                            file.write(bytes(size))
                yield
            finally:
                filling.unlink()


@contextmanager
def run_on_small_disk(folder: Path, **environment: str) -> Iterator[SmallDisk]:
    """Run a server within the block. `can_mount` must be true."""
    # In the namespace, root has no rights on the socket of PostgreSQL, which runs with another user id.
    let_in(pwd.getpwuid(os.geteuid()).pw_name)
    python = folder.parent / "python-on-a-small-disk"
    python.write_text(f"#!/bin/sh\nexec unshare -rm sh -c '{MOUNT}' sh {sys.executable} \"$@\"\n")
    python.chmod(0o755)
    # The log is opened outside of the namespace, so it is not on the small disk.
    with running_server(folder, python=str(python), TMPDIR=str(folder), **environment) as server:
        yield SmallDisk(server)
