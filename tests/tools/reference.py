"""Write the reference pages that are generated from the code: `make docs-reference`.

`python -m tests.tools.reference` writes all pages, `python -m tests.tools.reference settings` one of them. A
test compares each page with what this module would write. To add a page, write a function that returns its
text and add it to `PAGES`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import Field
from itertools import groupby
from pathlib import Path
from typing import Any

from studio.settings import Variable, list_settings
from tests.generators.page import render_generators

FOLDER = Path(__file__).parents[2] / "docs" / "reference"

_SETTINGS_HEAD = """\
---
title: Configuration
kind: reference
readers: [operators, contributors]
---

# Configuration

<!-- Generated from studio/settings.py: change it there, then run `make docs-reference`. -->

The server and its workers read their settings from environment variables. An empty variable counts as
missing. If variables are invalid, the process does not start, and one message names all of them.

**Secrets from files.** A setting whose description starts with *Secret* can also be read from a file: set
`SECRET_KEY_FILE` to the path of a file that holds the value, for example a Docker or Kubernetes secret. A
newline at the end of the file is not part of the value. Setting both `SECRET_KEY` and `SECRET_KEY_FILE` is
an error.

**`.env` in development.** `make run` and `python -m handlers` read the file `.env` in the working folder,
or the file that `ENV_FILE` names. Variables that are set in the environment win. The file is ignored
outside development and by a mock.
"""


def render_settings() -> str:
    """Return the page of all settings, a table for each group."""
    parts = [_SETTINGS_HEAD]
    for group, settings in groupby(list_settings(), key=lambda setting: setting[1].group):
        parts.append(f"## {group}\n")
        parts.append("| Setting | Default | Accepts | Description |\n|---|---|---|---|")
        parts += [_setting_row(item, variable) for item, variable in settings]
        parts[-1] += "\n"
    return "\n".join(parts)


def _setting_row(item: Field[Any], variable: Variable) -> str:
    default = variable.default_note or _format_default(item.default)
    mark = "*Secret.* " if variable.secret else ""
    cells = (f"`{variable.name}`", default, variable.parse.accepts or "any text", mark + variable.description)
    return f"| {' | '.join(cells)} |"


def _format_default(value: object) -> str:
    return f"`{value}`" if isinstance(value, str | int) and value != "" else "none"


PAGES: dict[str, Callable[[], str]] = {
    "settings": render_settings,
    "generators": render_generators,
}
"""The generated pages by name, which is also the name of the file."""


def main(arguments: list[str] | None = None) -> int:
    """Write the named pages, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.reference", description=__doc__)
    parser.add_argument("pages", nargs="*", help="pages to write, by default all")
    pages = parser.parse_args(arguments).pages or list(PAGES)
    unknown = sorted(set(pages) - set(PAGES))
    if unknown:
        parser.error(f"unknown page {unknown[0]}: choose from {', '.join(PAGES)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in pages:
        (FOLDER / f"{name}.md").write_text(PAGES[name](), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
