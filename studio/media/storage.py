"""Where the bytes of pictures lie: a backend stores whole files under keys that the studio makes.

A client's file name never becomes part of a key. The local disk is the default. Nothing here knows what a
file means.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import UUID

from db.errors import NotFound

_KEY = re.compile(r"[a-z]+(/\.?[a-z0-9][a-z0-9.-]*){1,3}")


def media_folder(resource_id: UUID) -> str:
    """The folder of a stored picture's file and of its variants."""
    return f"media/{resource_id}"


def media_key(resource_id: UUID, extension: str) -> str:
    """The address of a stored picture's file."""
    return f"media/{resource_id}/file.{extension}"


def variant_key(resource_id: UUID, width: int, extension: str) -> str:
    """The address of a smaller or converted copy, beside the original so that both go together."""
    return f"media/{resource_id}/variants/{width}.{extension}"


def export_folder(export_id: UUID) -> str:
    """The folder of an export's archive."""
    return f"exports/{export_id}"


def export_key(export_id: UUID) -> str:
    """The address of an export's archive."""
    return f"exports/{export_id}/archive.zip"


def temporary_key(upload_id: UUID) -> str:
    """The address of an upload that nothing refers to yet."""
    return f"temp/{upload_id}"


def require_key(key: str) -> str:
    """The key; ValueError unless it is one. It guards against a mistake of ours, not against clients."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a storage key: {key!r}")
    return key


class StorageUnavailable(OSError):
    """The place where the files are does not answer, or does not let us."""


@dataclass(frozen=True)
class StoredFile:
    """A key with the moment of its last change."""

    key: str
    modified_at: datetime


class Storage(Protocol):
    """What every backend offers. A write is whole or absent, also after a crash."""

    def write(self, key: str, data: bytes) -> None:
        """Stores the bytes, replacing what was there."""

    def open_writer(self, key: str) -> AbstractContextManager[BinaryIO]:
        """A new file to write piece by piece; it is stored when the block ends without an exception."""

    def read(self, key: str) -> bytes:
        """The bytes; NotFound when there are none."""

    def exists(self, key: str) -> bool:
        """Whether there is a file at the key."""

    def path(self, key: str) -> Path:
        """A local file to serve from; NotFound when there is none."""

    def delete(self, key: str) -> None:
        """Removes a file, if there is one."""

    def delete_folder(self, folder: str) -> None:
        """Removes everything in a picture's folder."""

    def list_files(self, prefix: str) -> Iterator[StoredFile]:
        """All files below a folder."""

    def prepare(self) -> None:
        """Makes the place for the files, if it is not there."""

    def check(self) -> None:
        """OSError unless files can be written and read now."""


class LocalDisk:
    """Files below one folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, key: str, data: bytes) -> None:
        """Stores the bytes durably: other readers see the old file or the whole new one."""
        with self.open_writer(key) as file:
            file.write(data)

    @contextmanager
    def open_writer(self, key: str) -> Iterator[BinaryIO]:
        """A new file to write, read and seek in, which is stored durably and at once when the block ends.

        With an exception nothing is stored.
        """
        target = self._locate(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.parent / f".{target.name}.{secrets.token_hex(8)}"
        try:
            with partial.open("x+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)

    def read(self, key: str) -> bytes:
        """The bytes; NotFound when there are none."""
        return self.path(key).read_bytes()

    def exists(self, key: str) -> bool:
        """Whether there is a file at the key."""
        return self._locate(key).is_file()

    def path(self, key: str) -> Path:
        """The file itself; NotFound when there is none."""
        target = self._locate(key)
        if not target.is_file():
            raise NotFound
        return target

    def delete(self, key: str) -> None:
        """Removes a file, if there is one."""
        self._locate(key).unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        """Removes a picture's folder with everything in it."""
        shutil.rmtree(self._locate(folder), ignore_errors=True)

    def list_files(self, prefix: str) -> Iterator[StoredFile]:
        """All files below a folder, half-written ones of a crash included."""
        for path in sorted((self.root / prefix).rglob("*")):
            if path.is_file():
                moment = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                yield StoredFile(path.relative_to(self.root).as_posix(), moment)

    def prepare(self) -> None:
        """Makes the folder, if it is not there."""
        self.root.mkdir(parents=True, exist_ok=True)

    def check(self) -> None:
        """OSError unless the folder can be written to now."""
        self.prepare()
        probe = self.root / f".probe.{secrets.token_hex(8)}"
        probe.write_bytes(b"")
        probe.unlink()

    def _locate(self, key: str) -> Path:
        return self.root / require_key(key)


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable (the file's own fsync does not cover its name)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
