"""The temporary folder of a mock, and the prepared one that it is copied from.

Each holds an embedded PostgreSQL and stored files. A process that was killed leaves its temporary folder
behind; the next mock deletes it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from db.embedded import EmbeddedDatabaseError, copy_cluster, remove_cluster

logger = logging.getLogger(__name__)

CLUSTER, FILES = "postgresql", "start"
"""Names in the folder of a mock: its PostgreSQL, and the stored files as they are at the start."""
PREFIX = "sartiq-mock."
"""Begins the name of each temporary folder. Those of the releases before 0.3 begin `sartiq-mock-`."""
TEMPLATE_PREFIX = "mock-template-"
MAX_TEMPLATE_SECONDS = 3 * 24 * 3600
"""The seeded rows end with time: an invitation after seven days, links after thirty."""

_LOCK, _NEW = "mock-template.lock", "mock-template.new"

Prepare = Callable[[Path], object]
"""Creates the cluster and the files in an empty folder, and returns when the cluster has no more users."""


@contextmanager
def temporary_folder(prefix: str = PREFIX, parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder for the files of this process, which is deleted at the end with its cluster.

    The folders of processes that were killed are deleted first.

    Args:
        prefix: Begins the name of the folder.
        parent: The folder that it is in; by default that of temporary files.
    """
    parent = parent or Path(tempfile.gettempdir())
    _remove_abandoned(parent, prefix)
    folder, lock = _create_locked(parent, prefix)
    try:
        yield folder
    finally:
        remove_folder(folder)
        os.close(lock)


def remove_folder(folder: Path) -> None:
    """Stop the cluster in the folder of a mock, and delete both."""
    remove_cluster(folder / CLUSTER)
    shutil.rmtree(folder, ignore_errors=True)


def _create_locked(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        # Another mock found the new folder without a lock, and has deleted it.
        os.close(lock)


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Delete the folders of this user whose lock no process holds."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_folder(folder)
            finally:
                os.close(lock)


def create_from_template(folder: Path, place: Path, kind: str, digest: str, prepare: Prepare) -> None:
    """Fill the folder of a mock with a copy of a prepared one. The first call prepares it.

    Without a place where a prepared folder can be kept, this prepares `folder` itself.

    Args:
        folder: The folder of the mock.
        place: The folder of the prepared ones.
        kind: A word for the rows of the mock. One prepared folder of each kind is kept.
        digest: Stands for everything that the prepared folder is made from.
        prepare: Prepares a folder.

    Raises:
        EmbeddedDatabaseError: As `prepare`.
    """
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Held while the files are copied: no other process replaces them meanwhile.
        with (place / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            template = place / f"{TEMPLATE_PREFIX}{kind}-{digest}"
            if not _is_fresh(template):
                _prepare_template(template, place.glob(f"{TEMPLATE_PREFIX}{kind}-*"), prepare)
            copy_cluster(template / CLUSTER, folder / CLUSTER)
            shutil.copytree(template / FILES, folder / FILES)
    except (OSError, shutil.Error, EmbeddedDatabaseError) as error:
        logger.warning("%s cannot keep the start of the mock, so each start takes longer: %s", place, error)
        for name in (CLUSTER, FILES):
            shutil.rmtree(folder / name, ignore_errors=True)
        prepare(folder)


def _is_fresh(template: Path) -> bool:
    try:
        return time.time() - template.stat().st_mtime < MAX_TEMPLATE_SECONDS
    except FileNotFoundError:
        return False


def _prepare_template(template: Path, former: Iterable[Path], prepare: Prepare) -> None:
    """Prepare a folder and give it its name when it is complete; delete the former ones."""
    new = template.with_name(_NEW)
    remove_folder(new)  # an attempt that was killed leaves it
    new.mkdir(mode=0o700)
    try:
        prepare(new)
        # The cluster was written without fsync. A crash of the machine must not leave a template with holes.
        os.sync()
        for path in former:
            shutil.rmtree(path)
        new.rename(template)
    except BaseException:
        remove_folder(new)
        raise
