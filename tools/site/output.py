"""Make the built pages fit the Content-Security-Policy of the server: no script inside a page."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
UNUSED = ("404.html", "sitemap.xml", "objects.inv")
"""Files of the generator that the server does not need: it returns problem documents for unknown paths."""


def move_scripts_to_files(folder: Path) -> None:
    """Replace each script inside a page by a file, which equal scripts share, and add `site.js`."""
    scripts = folder / "assets" / "javascripts"
    for page in folder.rglob("*.html"):
        here = page.parent

        def move(match: re.Match[str], here: Path = here) -> str:
            digest = hashlib.sha256(match[1].encode()).hexdigest()[:8]
            file = scripts / f"inline.{digest}.js"
            file.write_text(match[1] + "\n", encoding="utf-8")
            return f'<script src="{Path(os.path.relpath(file, here)).as_posix()}"></script>'

        text = _INLINE_SCRIPT.sub(move, page.read_text(encoding="utf-8"))
        own = Path(os.path.relpath(folder / "assets" / "site.js", here)).as_posix()
        text = text.replace("</head>", f'<script src="{own}"></script></head>', 1)
        page.write_text(text, encoding="utf-8")


def remove_unused_files(folder: Path) -> None:
    """Delete the files that the server does not need."""
    for name in UNUSED:
        (folder / name).unlink(missing_ok=True)
