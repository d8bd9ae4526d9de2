"""Write values as cells of a CSV file that spreadsheets do not run as formulas (OWASP: CSV injection)."""

from __future__ import annotations

import json
import re

# Spreadsheets run a cell that starts with =, +, - or @ as a formula, in East Asia also with the full-width
# forms. Many locales separate cells by semicolons, and imports may split at tabs or bars. The quotes of our
# cell are then not at the start of a cell, so that line breaks inside it count too.
_CELL_START = re.compile(r"(^|[;|\t\r\n])([\s\"]*+)([=+\-@＝＋－＠]?)")


def format_cell(value: object) -> object:
    """Return a value as a cell: integers and None unchanged, lists and objects as JSON, formulas quoted."""
    if value is None or isinstance(value, int):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    text = _CELL_START.sub(_quote_formula, text)
    return f"'{text}" if text.startswith(("\t", "\r", "\n")) else text


def _quote_formula(start: re.Match[str]) -> str:
    """Return the start of a cell with an apostrophe before the character that would start a formula."""
    separator, space, formula = start.groups()
    return f"{separator}{space}'{formula}" if formula else start[0]
