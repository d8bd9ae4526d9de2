"""Select the storage backend from the settings.

It is not part of `storage`, because `s3` imports `storage` and this module imports `s3`.
"""

from __future__ import annotations

from studio.infrastructure.settings import Settings
from studio.infrastructure.storage import LocalDisk, Storage


def open_storage(settings: Settings) -> Storage:
    """Return the S3 bucket of `media_url`, or the local disk if none is set.

    Create one storage per process: it is safe to share between threads.
    """
    if settings.media_url is None:
        return LocalDisk(settings.media_dir)
    # Imported here: a server without a bucket does not pay the start-up time of boto3.
    from studio.infrastructure.s3 import S3Storage

    bucket, _, prefix = settings.media_url.removeprefix("s3://").partition("/")
    return S3Storage(bucket, prefix, settings.data_dir / "cache", settings.s3_endpoint_url)
