"""Converters to collections of requests, and the programs that run them."""

from __future__ import annotations

from tests.generators.generator import Generator

GENERATORS = (
    Generator(
        name="openapi-to-postmanv2",
        package="openapi-to-postmanv2",
        language="Postman collection",
        document="3.1",
        options="folderStrategy=Tags",
        generate=(
            "{node}", "{modules}/openapi-to-postmanv2/bin/openapi2postmanv2.js", "--spec", "{document}",
            "--output", "{output}/collection.json", "--options", "folderStrategy=Tags",
        ),
        checked_by="newman reads each request that it sends",
        walk=("{node}", "{tools}/walks/newman.mjs", "{url}", "{photo}", "{output}/collection.json"),
        limits=("Optional headers such as `If-Match` and `Idempotency-Key` are enabled; disable them.",),
    ),
)  # fmt: skip
