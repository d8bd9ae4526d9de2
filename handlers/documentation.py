"""The contract itself, and the pages that explain it."""

from __future__ import annotations

import json
from functools import cache
from typing import cast

import yaml
from flask import current_app

from handlers.answers import Answer, found_file, strong_etag


def _bundle_json() -> bytes:
    return cast(bytes, current_app.config["CONTRACT_JSON"])


@cache
def _as_yaml(bundle: bytes) -> bytes:
    """Return the same document as YAML; made once, because it takes a good part of a second."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(json.loads(bundle), Dumper=dumper, sort_keys=False, allow_unicode=True, width=110)
    return cast(str, text).encode("utf-8")


def get_openapi_json() -> Answer:
    """Answer the bundled contract, byte for byte as it is committed."""
    bundle = _bundle_json()
    return found_file(bundle, "application/json", strong_etag(bundle))


def get_openapi_yaml() -> Answer:
    """Answer the bundled contract as YAML."""
    document = _as_yaml(_bundle_json())
    return found_file(document, "application/yaml", strong_etag(document))
