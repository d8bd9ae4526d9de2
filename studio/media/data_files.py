"""Uploaded files that are no images: their media types, and how they are stored.

A file is stored as it arrives, under an id of its own, so that the content of an id never changes. Knows
nothing of what the files contain.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO
from uuid import UUID

from db.base import new_id
from studio.infrastructure.fair_slots import FairSlots
from studio.infrastructure.storage import Storage, data_file_key

MAX_DATA_FILE_BYTES = 200 * 1024 * 1024
DATA_EXTENSIONS_BY_TYPE = {"text/csv": "csv", "application/x-ndjson": "jsonl", "application/zip": "zip"}
MAX_STORED_FILES = 4
STORE_SLOTS = FairSlots(MAX_STORED_FILES, MAX_STORED_FILES // 2)
"""Slots to store files at the same time. They bound threads and the load of the disk, not memory: a file of
200 MB is copied in chunks. So they are not those of decoded images, which can be in use for seconds."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class StoredDataFile:
    """A stored file that no row refers to yet."""

    id: UUID
    content_hash: str
    size: int


def store_data_file(storage: Storage, file: BinaryIO) -> StoredDataFile:
    """Store a file and return its id and SHA-256. Garbage collection deletes it if no row refers to it."""
    stored_id, digest, size = new_id(), hashlib.sha256(), 0
    with storage.open_writer(data_file_key(stored_id)) as target:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)
            size += len(chunk)
    return StoredDataFile(stored_id, digest.hexdigest(), size)
