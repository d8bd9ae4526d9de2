"""Write the page of the targets of the Makefile, for the built site only: `make` prints the same."""

from __future__ import annotations

import re

from tools.site.documentation import ROOT

PATH = "reference/make-targets.md"
_HEAD = """\
---
title: Make targets
---

# Make targets

`make` prints this list. [Testing](../contributing/testing.md) says what each test proves.
"""


def render_make_targets() -> str:
    """Return the page, with a table for each group of targets."""
    parts = [_HEAD]
    for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines():
        if line.startswith("##@ "):
            parts.append(f"\n## {line[4:]}\n\n| Target | Does |\n|---|---|")
        elif target := re.match(r"([a-z-]+):.*## (.*)", line):
            parts.append(f"| `make {target[1]}` | {target[2]} |")
    return "\n".join([*parts, ""])
