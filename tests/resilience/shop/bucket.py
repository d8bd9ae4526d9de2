"""The bucket of the shop, on an S3 server in a process of its own that checks signatures and permissions.

The API gets a user that may do what the policy in docs/guides/destinations.md says, and nothing else. The
server's log says what it received, in order.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import boto3
import httpx

from tools.servers.server import ROOT, free_port, stop, wait_for_response

NAME, PREFIX, REGION = "images-of-the-shop", "sartiq", "eu-central-1"
GUIDE = ROOT / "docs" / "guides" / "destinations.md"
BUCKET_OF_GUIDE = "atelier-nord-images"
ALL_ACTIONS = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}
SECONDS_TO_START = 300
_PUT = re.compile(rf'"PUT /{NAME}/(\S+) HTTP/1\.1" 200')


@dataclass(frozen=True)
class ShopBucket:
    """The bucket, the key of the API's user, and an SDK of a user that may read."""

    url: str
    access_key: dict[str, str]
    sdk: Any
    log: Path

    @property
    def host(self) -> str:
        """Host and port of the server."""
        return urlsplit(self.url).netloc

    @property
    def body(self) -> dict[str, Any]:
        """The properties of a destination in the bucket."""
        return {"url": self.url, "region": REGION, "bucket": NAME, "prefix": PREFIX, **self.access_key}

    def list_received(self) -> list[str]:
        """Return the key of each PUT request that the server accepted, in order."""
        text = self.log.read_text(errors="replace")
        return [unquote(key) for key in _PUT.findall(text)]

    def read_objects(self) -> dict[str, bytes]:
        """Return the content of each object by its key."""
        pages = self.sdk.get_paginator("list_objects_v2").paginate(Bucket=NAME)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {key: self.sdk.get_object(Bucket=NAME, Key=key)["Body"].read() for key in keys}


@contextmanager
def run_shop_bucket(folder: Path) -> Iterator[ShopBucket]:
    """Run the server within the block; its log goes to `folder`."""
    port, log = free_port(), folder / "s3-of-the-shop.log"
    url = f"http://127.0.0.1:{port}"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_for_response(f"{url}/moto-api/", process, log, seconds=SECONDS_TO_START)
        owner = {"access_key_id": "owner", "secret_access_key": "owner"}
        _connect("s3", url, owner).create_bucket(
            Bucket=NAME, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        users = _connect("iam", url, owner)
        policy = read_policy_of_guide()
        keys = [
            _create_user(users, name, text)
            for name, text in (("sartiq", policy), ("shop", json.dumps(ALL_ACTIONS)))
        ]
        # From now on the server checks the signature and the permission of each request.
        httpx.post(f"{url}/moto-api/reset-auth", content=b"0").raise_for_status()
        yield ShopBucket(url, keys[0], _connect("s3", url, keys[1]), log)
    finally:
        stop(process, log)


def read_policy_of_guide() -> str:
    """Return the policy that the guide tells customers to give to the user, with the name of the bucket."""
    found = re.search(r"```json\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    assert BUCKET_OF_GUIDE in found[1]
    return found[1].replace(BUCKET_OF_GUIDE, NAME)


def _connect(service: Literal["s3", "iam"], url: str, key: dict[str, str]) -> Any:
    key_id, secret = key["access_key_id"], key["secret_access_key"]
    session = boto3.Session(aws_access_key_id=key_id, aws_secret_access_key=secret, region_name=REGION)
    return session.client(service, endpoint_url=url)


def _create_user(users: Any, name: str, policy: str) -> dict[str, str]:
    users.create_user(UserName=name)
    users.put_user_policy(UserName=name, PolicyName="access", PolicyDocument=policy)
    key = users.create_access_key(UserName=name)["AccessKey"]
    return {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}
