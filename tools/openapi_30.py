"""Write `openapi/openapi-3.0.json`, the bundle as OpenAPI 3.0: part of `make openapi`."""

from __future__ import annotations

from pathlib import Path

from tools.project import Document, to_openapi_30

FOLDER = Path(__file__).parents[1] / "openapi"
BUNDLE, DERIVED = FOLDER / "openapi.json", FOLDER / "openapi-3.0.json"


def derive() -> bytes:
    """Return the content of `openapi-3.0.json`."""
    return Document(to_openapi_30(Document.load(BUNDLE).spec)).to_json()


if __name__ == "__main__":
    DERIVED.write_bytes(derive())
