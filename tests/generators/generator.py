"""How a generator is described. The list of all of them is in `catalog.py`.

`make generators` takes each description and

1. generates a client from a document that a running server serves (`generate`, after `prepare`),
2. compiles the client, and the program that walks the main job with it, in the strict mode of its
   language (`checks`),
3. runs that program (`walk`) and compares its result with what the server has.

To add a generator, write a `Generator` in `python_tools.py`, `typescript_tools.py` or `collection_tools.py`,
add its package to the group `generators` of `pyproject.toml` or to `tests/generators/package.json`, run
`make lock`, and run `make docs-reference`, which writes `docs/reference/generators.md` from the descriptions.
Nothing else needs to know it. Generated code is never edited: if it is wrong, correct the contract or the
server, or state a limit.

**Commands** are tuples of arguments. Each argument may have these placeholders:

| Placeholder | Value |
|---|---|
| `{document}` | the served document as a file, of the version that `document` names |
| `{output}` | the folder of the client, empty at the start, `.clients/generators/<slug>`; the work folder |
| `{tools}` | `tests/generators` |
| `{modules}` | `tests/generators/node_modules`; `{output}` finds these packages by a link above it |
| `{bin}` | the folder of the programs of the Python environment `.venv/generators` |
| `{url}` | URL of the server with `/api/v1` |
| `{photo}` | the JPEG file to upload |

A first argument `{node}` runs a script with Node.js. Python programs get `{output}` as `PYTHONPATH`.

**The walk** signs in as the demo user and creates an organization, and in it a brand, a product, its image
(upload of the file), a resolution preset of 192 x 256, a shooting with `default_guidelines` of that preset
and JPEG files, and a look with one shot type. It generates two predictions of the shot, waits, approves one
prediction, downloads its image, exports the shooting, waits, and downloads the archive. It prints one JSON
object on the last line of its standard output, with what `WalkResult` has.
`walks/openapi_generator_python.py` is an example.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypedDict

Command = tuple[str, ...]


class WalkResult(TypedDict):
    """What a walk prints: ids, and the SHA-256 digests (hexadecimal) of the downloaded files."""

    product_id: str
    prediction_id: str
    image_sha256: str
    export_id: str
    archive_sha256: str


@dataclass(frozen=True)
class Generator:
    """One generator with one set of options.

    Args:
        name: The name in tables and on the command line, for example `openapi-generator python`.
        package: The package that is locked; the documentation shows its version.
        language: The language of the generated code.
        document: The OpenAPI version of the document that it reads. Use 3.1 unless the generator cannot.
        generate: The command that writes the client.
        options: The options that a user needs, as they are shown in the documentation; "" if there are none.
        prepare: Commands that run before `generate`, for example to write a configuration.
        checks: Commands that compile or check the client and the walk.
        checked_by: What `checks` are, in a few words for the documentation.
        walk: The command that walks the main job, or None if the generated code cannot be run.
        limits: What does not work, one sentence each, for users of the generator.
        environment: Variables of all commands.
    """

    name: str
    package: str
    language: str
    document: Literal["3.1", "3.0"]
    generate: Command
    options: str = ""
    prepare: tuple[Command, ...] = ()
    checks: tuple[Command, ...] = ()
    checked_by: str = ""
    walk: Command | None = None
    limits: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The name of its folder."""
        return self.name.lower().replace("@", "").replace("/", "-").replace(" ", "-")
