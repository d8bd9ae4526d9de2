"""The seeded product imports of a tenant, with their file. Reads and writes no database.

The samples of the contract read the first import, import its file again, and cancel the second one.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from db.base import Base, utc_now
from db.models.imports import ImportStatus, ProductImport, ProductImportResult, ResultStatus
from db.models.media import Upload, UploadStatus
from db.models.products import Product
from studio.imports.create import LIFETIME
from studio.seed.rows import IMPORT, IMPORT_RESULT, UPLOAD, build_seed_id, get_seed_id, tenant_number

FILE = b"Article number,external_id,name,color,Stock\r\nAN-2041,shop-2041,Linen wrap dress,sand,12\r\n"


def build_import_rows(tenant: int, ownership: dict[str, Any]) -> Iterator[Base]:
    """Yield the upload of `FILE`, a completed import of it with its result, and a canceled import.

    The id of the upload is also the id of its file.
    """

    def number(position: int) -> int:
        return tenant_number(tenant, position)

    upload_id, file_hash, now = build_seed_id(UPLOAD, number(2)), sha256(FILE).hexdigest(), utc_now()
    yield Upload(
        id=upload_id,
        filename="products.csv",
        content_type="text/csv",
        size=len(FILE),
        status=UploadStatus.INGESTED,
        file_id=upload_id,
        file_hash=file_hash,
        expires_at=now,
        **ownership,
    )
    for position, status in enumerate((ImportStatus.COMPLETED, ImportStatus.CANCELED), 1):
        is_completed = status is ImportStatus.COMPLETED
        yield ProductImport(
            id=build_seed_id(IMPORT, number(position)),
            upload_id=upload_id,
            file_id=upload_id,
            file_hash=file_hash,
            format="csv",
            mode="upsert",
            match_by="sku",
            column_mapping={"Article number": "sku", "Stock": None},
            empty_cells="keep",
            status=status,
            total_count=1 if is_completed else None,
            updated_count=int(is_completed),
            rows_completed_at=now if is_completed else None,
            completed_at=now,
            expires_at=now + LIFETIME,
            **ownership,
        )
    yield ProductImportResult(
        id=build_seed_id(IMPORT_RESULT, number(1)),
        import_id=build_seed_id(IMPORT, number(1)),
        line=2,
        external_id="shop-2041",
        sku="AN-2041",
        status=ResultStatus.UPDATED,
        product_id=get_seed_id(Product, number(1)),
    )
