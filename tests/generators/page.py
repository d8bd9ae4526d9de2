"""Write the documentation page of the generators from their descriptions: part of `make docs-reference`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.generators.catalog import GENERATORS
from tests.generators.generator import Generator

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "generators.md"

_HEAD = """\
---
title: Generators
kind: reference
readers: [api-consumers, contributors]
---

# Generators

<!-- Generated from tests/generators: change it there, then run `make docs-reference`. -->

`make generators` generates a client with each of these generators from the document that a running server
serves, checks it, and does the main job with it: sign in, create a brand and a product, upload an image,
create a shooting and a look, generate, wait, approve, export, and download the image and the archive, whose
bytes are compared. The nightly workflow runs it. Generated code is never edited.

The document is `/api/v1/openapi.json` (3.1) or `/api/v1/openapi-3.0.json` (3.0). Use the options that the
table names.

| Generator | Version | Language | Document | Options | Checked by | Main job |
|---|---|---|---|---|---|---|
"""


def render_generators() -> str:
    """Return the page: a table of all generators, and the limits of each."""
    versions = read_versions(ROOT)
    rows = "\n".join(_render_row(generator, versions) for generator in GENERATORS)
    limits = "\n\n".join(
        f"**{generator.name}**\n\n" + "\n".join(f"- {limit}" for limit in generator.limits)
        for generator in GENERATORS
        if generator.limits
    )
    return f"{_HEAD}{rows}\n\n## Limits\n\n{limits}\n"


def _render_row(generator: Generator, versions: dict[str, str]) -> str:
    cells = (
        generator.name,
        versions[generator.package],
        generator.language,
        generator.document,
        f"`{generator.options}`" if generator.options else "none",
        generator.checked_by,
        "yes" if generator.walk else "not run",
    )
    return f"| {' | '.join(cells)} |"


def read_versions(root: Path) -> dict[str, str]:
    """Return the locked version of each package of the generators by its name."""
    locked = (root / "requirements-generators.txt").read_text(encoding="utf-8")
    versions = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", locked, re.MULTILINE))
    package = json.loads((root / "tests" / "generators" / "package.json").read_text(encoding="utf-8"))
    return {**versions, **package["devDependencies"]}


if __name__ == "__main__":
    PAGE.write_text(render_generators(), encoding="utf-8")
