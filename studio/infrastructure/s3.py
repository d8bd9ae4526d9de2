"""Storage backend for an S3 bucket, shared by any number of machines; files are served from a local cache.

Credentials and region are found as by every AWS client (environment, profile, instance role).
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from db.errors import NotFound
from studio.infrastructure.storage import StorageUnavailable, StoredFile, require_key

CACHE_BYTES = 2_000_000_000
CACHE_GRACE_SECONDS = 600
"""Copies used within this time are not evicted: a response may still be sending them."""

MAX_DELETIONS = 5
"""How often a folder is listed to delete what was stored meanwhile."""

# CreateBucket rejects a location constraint that names the default region.
_NO_LOCATION_CONSTRAINT = (None, "us-east-1", "aws-global")
_ABSENT = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})


class S3Storage:
    """Storage in the objects below one prefix of a bucket, with local copies of at most about 2 GB."""

    def __init__(self, bucket: str, prefix: str, cache: Path, endpoint_url: str | None = None) -> None:
        """Create the client; no request is sent.

        Args:
            cache: Folder for local copies. It can be deleted at any time.
            endpoint_url: Another S3-compatible server than Amazon's.
        """
        self._bucket, self._prefix, self._cache = bucket, prefix.strip("/"), cache
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            config=Config(
                connect_timeout=5,
                read_timeout=30,
                retries={"mode": "standard", "max_attempts": 4},
                # Most other S3-compatible servers have no host name for each bucket.
                s3={"addressing_style": "path" if endpoint_url else "auto"},
            ),
        )
        self._cache_lock = threading.Lock()
        self._cached_bytes: int | None = None

    def write(self, key: str, data: bytes) -> None:
        """Store the bytes; concurrent readers get the old object or the complete new one."""
        with _translate_errors():
            self._client.put_object(Bucket=self._bucket, Key=self._object_name(key), Body=data)
        self._delete_copy(key)

    @contextmanager
    def open_writer(self, key: str) -> Iterator[BinaryIO]:
        """Open a new seekable local file; it is uploaded as the object when the block ends.

        If the block raises, nothing is stored.
        """
        partial = self._partial_path(self._copy_path(key))
        try:
            with partial.open("x+b") as file:
                yield file
            with partial.open("rb") as complete, _translate_errors():
                self._client.upload_fileobj(complete, self._bucket, self._object_name(key))
        finally:
            partial.unlink(missing_ok=True)
        self._delete_copy(key)

    def read(self, key: str) -> bytes:
        """Return the content of an object; raise NotFound if it does not exist."""
        with _translate_errors():
            body = self._client.get_object(Bucket=self._bucket, Key=self._object_name(key))["Body"]
            return bytes(body.read())

    def exists(self, key: str) -> bool:
        """Return whether the object exists."""
        try:
            with _translate_errors():
                self._client.head_object(Bucket=self._bucket, Key=self._object_name(key))
        except NotFound:
            return False
        return True

    def path(self, key: str) -> Path:
        """Return a local copy, downloaded on first use; raise NotFound if the object does not exist."""
        copy = self._copy_path(key)
        if copy.is_file():
            os.utime(copy)
            return copy
        partial = self._partial_path(copy)
        try:
            with _translate_errors():
                self._client.download_file(self._bucket, self._object_name(key), str(partial))
            partial.replace(copy)
        finally:
            partial.unlink(missing_ok=True)
        self._evict(copy.stat().st_size)
        return copy

    def delete(self, key: str) -> None:
        """Delete an object if it exists."""
        with _translate_errors():
            self._client.delete_object(Bucket=self._bucket, Key=self._object_name(key))
        self._delete_copy(key)

    def delete_folder(self, folder: str) -> None:
        """Delete all objects of a folder, also those that are stored meanwhile."""
        # One request per object: S3-compatible servers differ in their support of DeleteObjects. The names of
        # variants come after that of their original.
        for _ in range(MAX_DELETIONS):
            files = list(self.list_files(folder))
            for file in files:
                self.delete(file.key)
            if not files:
                break
        shutil.rmtree(self._copy_path(folder), ignore_errors=True)

    def list_files(self, prefix: str, after: str = "") -> Iterator[StoredFile]:
        """Yield all objects below a folder, or those after a key, in order."""
        start = self._object_name(prefix) + "/"
        options = {"StartAfter": start + after.removeprefix(f"{prefix}/")} if after else {}
        with _translate_errors():
            paginator = self._client.get_paginator("list_objects_v2")
            pages = paginator.paginate(Bucket=self._bucket, Prefix=start, **options)
            for page in pages:
                for entry in page.get("Contents", ()):
                    key = prefix + "/" + entry["Key"][len(start) :]
                    yield StoredFile(key, entry["LastModified"], entry["Size"])

    def prepare(self) -> None:
        """Create the bucket if it does not exist.

        Without the permission to create buckets, the bucket must exist already.
        """
        try:
            with _translate_errors():
                self._client.head_bucket(Bucket=self._bucket)
        except NotFound:
            region = self._client.meta.region_name
            configuration = {"CreateBucketConfiguration": {"LocationConstraint": region}}
            with _translate_errors():
                self._client.create_bucket(
                    Bucket=self._bucket, **({} if region in _NO_LOCATION_CONSTRAINT else configuration)
                )

    def check(self) -> None:
        """Raise OSError unless objects can be written and read."""
        key = f"probe/{secrets.token_hex(8)}"
        try:
            self.write(key, b"probe")
            self.read(key)
            self.delete(key)
        except NotFound as error:
            raise StorageUnavailable("the bucket does not exist or does not store objects") from error

    def _object_name(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _copy_path(self, key: str) -> Path:
        return self._cache / key if "/" not in key else self._cache / require_key(key)

    def _partial_path(self, copy: Path) -> Path:
        copy.parent.mkdir(parents=True, exist_ok=True)
        return copy.parent / f".{copy.name}.{secrets.token_hex(8)}"

    def _delete_copy(self, key: str) -> None:
        self._copy_path(key).unlink(missing_ok=True)

    def _evict(self, added: int) -> None:
        """Evict the least recently used local copies once they exceed `CACHE_BYTES`, down to 3/4 of it."""
        with self._cache_lock:
            if self._cached_bytes is None:
                self._cached_bytes = sum(size for _, size, _ in self._copies())
            else:
                self._cached_bytes += added
            if self._cached_bytes <= CACHE_BYTES:
                return
            # Recounted at the next download: simpler than tracking every deletion.
            self._cached_bytes = None
            remaining, evict_before = CACHE_BYTES * 3 // 4, time.time() - CACHE_GRACE_SECONDS
            for used_at, size, path in sorted(self._copies(), reverse=True):
                remaining -= size
                if remaining < 0 and used_at < evict_before:
                    path.unlink(missing_ok=True)

    def _copies(self) -> Iterator[tuple[float, int, Path]]:
        for path in self._cache.rglob("*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.is_file():
                yield status.st_mtime, status.st_size, path


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise NotFound for a missing object, and StorageUnavailable for every other error of the client."""
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _ABSENT:
            raise NotFound from error
        raise StorageUnavailable(str(error)) from error
    except BotoCoreError as error:
        raise StorageUnavailable(str(error)) from error
