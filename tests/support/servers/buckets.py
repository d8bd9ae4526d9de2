"""A bucket of a customer on the local S3 server, read with the customer's own SDK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3

from studio.infrastructure.http_client import SafeHttpClient
from tests.support.servers.s3 import CREDENTIALS, run_s3_server

REGION = CREDENTIALS["AWS_DEFAULT_REGION"]
ACCESS_KEY = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG"}


@dataclass(frozen=True)
class Bucket:
    """A bucket and the server that it is on."""

    url: str
    name: str
    sdk: Any

    @property
    def http_client(self) -> SafeHttpClient:
        """A guarded client that may connect to the server."""
        return SafeHttpClient([urlsplit(self.url).netloc])

    @property
    def body(self) -> dict[str, Any]:
        """The properties of a destination in the bucket."""
        return {"url": self.url, "region": REGION, "bucket": self.name, "prefix": "sartiq", **ACCESS_KEY}

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of a destination in the bucket, with its credentials as plain text."""
        names = ("url", "region", "bucket", "prefix")
        return {
            "kind": "s3",
            "path_style": True,
            "credentials": ACCESS_KEY,
            **{name: self.body[name] for name in names},
        }

    def list_keys(self) -> list[str]:
        """Return the keys of all objects."""
        return [item["Key"] for item in self.sdk.list_objects_v2(Bucket=self.name).get("Contents", [])]

    def get(self, key: str) -> Any:
        """Return an object."""
        return self.sdk.get_object(Bucket=self.name, Key=key)


@contextmanager
def run_bucket() -> Iterator[Bucket]:
    """Yield a new bucket on a running server."""
    with run_s3_server() as (url, name):
        sdk = boto3.client("s3", endpoint_url=url)
        sdk.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield Bucket(url, name, sdk)
