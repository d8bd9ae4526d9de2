"""Encode and decode JSON columns of PostgreSQL.

Most of these values are empty objects, such as the metadata of a product. `json.loads` looks for the encoding
of bytes first, which takes longer than decoding a short text.

Benchmark: `make bench-profile`, stage "psycopg", column "list 100".
"""

from __future__ import annotations

import json
from typing import Any

import orjson


def load_json(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8."""
    return {} if data == b"{}" else json.loads(data.decode())


def dump_json(value: Any) -> str:
    """Return the JSON text of a value."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # Such as integers of more than 64 bits.
        return json.dumps(value)
