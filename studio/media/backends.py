"""Which storage the settings mean: the local disk, or a bucket when there is an address of one."""

from __future__ import annotations

from studio.media.storage import LocalDisk, Storage
from studio.settings import Settings


def open_storage(settings: Settings) -> Storage:
    """The storage of these settings; make it once for each process, it is shared by threads."""
    if settings.media_url is None:
        return LocalDisk(settings.media_dir)
    # Here, because a server without a bucket need not wait for Amazon's client to load.
    from studio.media.s3 import S3Storage

    bucket, _, prefix = settings.media_url.removeprefix("s3://").partition("/")
    return S3Storage(bucket, prefix, settings.data_dir / "cache", settings.s3_endpoint_url)
