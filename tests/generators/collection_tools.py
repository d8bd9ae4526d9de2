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
    Generator(
        name="Bruno converter",
        package="@usebruno/converters",
        language="Bruno collection",
        document="3.1",
        options="--collection-format bru",
        generate=(
            "{node}", "{modules}/@usebruno/cli/bin/bru.js", "import", "openapi", "--source", "{document}",
            "--output", "{output}/collection", "--collection-format", "bru",
        ),
        checked_by="the Bruno CLI reads each request that it sends",
        walk=("{node}", "{tools}/walks/bruno.mjs", "{url}", "{photo}", "{output}/collection"),
        limits=(
            "All optional headers and some optional query parameters are enabled; disable them.",
            "The address of the token in the collection's authentication is relative; set a bearer token.",
            "Scripts for links use `$request` and `res.body.predictions/0/id`, which fail; delete them.",
            "The CLI reads the whole collection for each run; with the examples it takes about a minute.",
            "The CLI's report has no binary bodies; a script with `--sandbox developer` can read them.",
        ),
    ),
)  # fmt: skip
