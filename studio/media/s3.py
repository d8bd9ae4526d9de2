"""Pictures in an S3 bucket, so that any number of machines share them; files are served from a local copy.

Credentials and region come from where every AWS client looks for them (environment, profile, instance role).
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
from studio.media.storage import StorageUnavailable, StoredFile, require_key

CACHE_BYTES = 2_000_000_000
CACHE_GRACE_SECONDS = 600
"""A local copy that was used so lately may be on its way to a client: it stays."""

# Amazon's first region must not be named when a bucket is made there.
_NO_LOCATION_CONSTRAINT = (None, "us-east-1", "aws-global")
_ABSENT = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})


class S3Storage:
    """Objects below one prefix of a bucket. `cache` is a folder for local copies, at most about 2 GB."""

    def __init__(self, bucket: str, prefix: str, cache: Path, endpoint_url: str | None = None) -> None:
        self._bucket, self._prefix, self._cache = bucket, prefix.strip("/"), cache
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            config=Config(
                connect_timeout=5,
                read_timeout=30,
                retries={"mode": "standard", "max_attempts": 4},
                # Servers other than Amazon's seldom have a host name for every bucket.
                s3={"addressing_style": "path" if endpoint_url else "auto"},
            ),
        )
        self._cache_lock = threading.Lock()
        self._cached_bytes: int | None = None

    def write(self, key: str, data: bytes) -> None:
        """Stores the bytes; other readers see the old object or the whole new one."""
        with _translate_errors():
            self._client.put_object(Bucket=self._bucket, Key=self._object_name(key), Body=data)
        self._delete_copy(key)

    @contextmanager
    def open_writer(self, key: str) -> Iterator[BinaryIO]:
        """A new local file to write, read and seek in, which becomes the object when the block ends.

        With an exception nothing is stored.
        """
        partial = self._partial_path(self._copy_path(key))
        try:
            with partial.open("x+b") as file:
                yield file
            with partial.open("rb") as whole, _translate_errors():
                self._client.upload_fileobj(whole, self._bucket, self._object_name(key))
        finally:
            partial.unlink(missing_ok=True)
        self._delete_copy(key)

    def read(self, key: str) -> bytes:
        """The bytes; NotFound when there are none."""
        with _translate_errors():
            body = self._client.get_object(Bucket=self._bucket, Key=self._object_name(key))["Body"]
            return bytes(body.read())

    def exists(self, key: str) -> bool:
        """Whether there is an object at the key."""
        try:
            with _translate_errors():
                self._client.head_object(Bucket=self._bucket, Key=self._object_name(key))
        except NotFound:
            return False
        return True

    def path(self, key: str) -> Path:
        """A local copy, fetched when there is none; NotFound when there is no object."""
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
        """Removes an object, if there is one."""
        with _translate_errors():
            self._client.delete_object(Bucket=self._bucket, Key=self._object_name(key))
        self._delete_copy(key)

    def delete_folder(self, folder: str) -> None:
        """Removes everything in a picture's folder."""
        # One by one: deleting in bulk is where other makers' servers differ.
        for file in list(self.list_files(folder)):
            self.delete(file.key)
        shutil.rmtree(self._copy_path(folder), ignore_errors=True)

    def list_files(self, prefix: str) -> Iterator[StoredFile]:
        """All objects below a folder."""
        start = self._object_name(prefix) + "/"
        with _translate_errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=start)
            for page in pages:
                for entry in page.get("Contents", ()):
                    yield StoredFile(prefix + "/" + entry["Key"][len(start) :], entry["LastModified"])

    def prepare(self) -> None:
        """Makes the bucket, if it is not there; who may not list buckets brings one that is."""
        try:
            with _translate_errors():
                self._client.head_bucket(Bucket=self._bucket)
        except NotFound:
            region = self._client.meta.region_name
            place = {"CreateBucketConfiguration": {"LocationConstraint": region}}
            with _translate_errors():
                self._client.create_bucket(
                    Bucket=self._bucket, **({} if region in _NO_LOCATION_CONSTRAINT else place)
                )

    def check(self) -> None:
        """OSError unless objects can be written and read now."""
        key = f"probe/{secrets.token_hex(8)}"
        try:
            self.write(key, b"probe")
            self.read(key)
            self.delete(key)
        except NotFound as error:
            raise StorageUnavailable("the bucket does not exist or loses what is written") from error

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
        """Keep the local copies below their limit: those that were not used for the longest time go."""
        with self._cache_lock:
            if self._cached_bytes is None:
                self._cached_bytes = sum(size for _, size, _ in self._copies())
            else:
                self._cached_bytes += added
            if self._cached_bytes <= CACHE_BYTES:
                return
            self._cached_bytes = None
            rest, newest = CACHE_BYTES * 3 // 4, time.time() - CACHE_GRACE_SECONDS
            for used_at, size, path in sorted(self._copies(), reverse=True):
                rest -= size
                if rest < 0 and used_at < newest:
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
    """Say what a failure of the client means: NotFound, or that the storage cannot be used now."""
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _ABSENT:
            raise NotFound from error
        raise StorageUnavailable(str(error)) from error
    except BotoCoreError as error:
        raise StorageUnavailable(str(error)) from error
