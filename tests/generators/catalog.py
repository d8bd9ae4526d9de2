"""All generators that `make generators` runs, in the order of the documentation."""

from __future__ import annotations

from tests.generators import collection_tools, python_tools, typescript_tools

GENERATORS = (
    *python_tools.GENERATORS,
    *typescript_tools.GENERATORS,
    *collection_tools.GENERATORS,
)
