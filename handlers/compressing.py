"""Documents that are the same for everybody, compressed for whoever takes them so.

Only those: beside a secret, the length of a compressed answer tells about it (the BREACH attack).
"""

from __future__ import annotations

import gzip
from functools import cache

from flask import request
from werkzeug.datastructures import Accept

from handlers.answers import Answer, found_file, strong_etag


@cache
def _packed(document: bytes) -> bytes:
    """Return a document compressed: once, when it is first asked for; every server makes the same bytes."""
    return gzip.compress(document, mtime=0)


@cache
def _tag(document: bytes) -> str:
    """Return the tag of a document; made once, because whoever has the document asks for nothing else."""
    return strong_etag(document)


def takes_gzip(accepted: Accept) -> bool:
    """Return whether an Accept-Encoding (RFC 9110, 12.5.3) takes gzip, and likes nothing plain better."""
    weight = accepted.quality("gzip")
    return weight > 0 and weight >= accepted.quality("identity")


def found_document(content: bytes, media_type: str, **headers: str) -> Answer:
    """Answer 200 with a document, its compressed form where the caller takes that; each form has its own tag.

    Headers are named as for `found_file`.
    """
    headers["Vary"] = "Accept-Encoding"
    if not takes_gzip(request.accept_encodings):
        return found_file(content, media_type, _tag(content), **headers)
    packed = _packed(content)
    answer = found_file(content, media_type, _tag(packed), Content_Encoding="gzip", **headers)
    answer.packed = packed
    return answer
