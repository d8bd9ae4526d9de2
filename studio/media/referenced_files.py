"""List the stored files that the rows of a database refer to, and check their content against the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, select

from db.errors import NotFound
from db.models.account_exports import AccountExport
from db.models.exports import Export, ExportStatus
from db.models.imports import ImportStatus, ProductImport
from db.models.media import MediaResource
from studio.infrastructure.storage import Storage, data_file_key, export_key, media_key

CHUNK_BYTES = 1 << 20


def list_referenced_files(connection: Connection) -> Iterator[tuple[str, str]]:
    """Yield the key and the SHA-256 of every file that the rows of a database refer to."""
    # unscoped: the whole database is copied
    images: Any = select(MediaResource.id, MediaResource.extension, MediaResource.content_hash)
    for media_id, extension, content_hash in connection.execute(images):
        yield media_key(media_id, extension), content_hash
    for model in (Export, AccountExport):
        # unscoped: the whole database is copied
        archives: Any = select(model.id, model.content_hash).where(model.status == ExportStatus.COMPLETED)
        for export_id, content_hash in connection.execute(archives):
            yield export_key(export_id), content_hash
    # unscoped: the whole database is copied
    files: Any = select(ProductImport.file_id, ProductImport.file_hash).distinct()
    # The file of an import that has ended is not read any more.
    unfinished = ProductImport.status.in_((ImportStatus.PENDING, ImportStatus.RUNNING))
    for file_id, content_hash in connection.execute(files.where(unfinished)):
        yield data_file_key(file_id), content_hash
    # unscoped: the whole database is copied
    archives = select(ProductImport.images_file_id, ProductImport.images_file_hash).distinct()
    archives = archives.where(unfinished, ProductImport.images_file_id.is_not(None))
    for file_id, content_hash in connection.execute(archives):
        yield data_file_key(file_id), content_hash


def find_file_error(storage: Storage, key: str, content_hash: str) -> str | None:
    """Return why a file does not have the given SHA-256, or None if it has."""
    digest = hashlib.sha256()
    try:
        with storage.path(key).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    except NotFound:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    # compared: a file of this server with its row; no client sends either
    return None if digest.hexdigest() == content_hash else "has other content than its row says"
