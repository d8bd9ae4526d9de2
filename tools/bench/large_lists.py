"""The other lists of a tenant with a million products: imports, their results, changes, and the review board.

One client sends the requests one by one, in turns. The 95th percentile of each page has a target. The board's
pages are what `handlers/pages/review` requests, with its page size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from tools.bench.processes import cpu_seconds
from tools.bench.statistics import percentile
from tools.bench.tables import markdown_table
from tools.demo import Api

IMPORTS, IMPORT_ROWS = 5_000, 50_000
"""The number of imports, and the rows of those that have results: the most that an import may have."""
LOOKS = 500
"""The looks of each shooting."""
LIMIT, SHOOTINGS = 100, 50
"""The rows of a page, and of a page of shootings, as the board requests them."""
PROVENANCE = {
    "model": "Local studio",
    "provider": "LOCAL_STUDIO",
    "renderer_version": "1.0",
    "cut_out": "alpha",
    "inputs": [],
    "settings": {},
    "ignored_inputs": [],
}
QUALITY = dict.fromkeys(
    ("score", "sharpness", "exposure", "cut_out_edge", "coverage", "clearance", "confidence"), 0.9
)
MAX_P95_MILLISECONDS = 100
STATEMENTS = Path(__file__).with_suffix(".sql")
TABLES = (
    "product_imports",
    "product_import_results",
    "changes",
    "shootings",
    "looks",
    "shots",
    "generations",
    "predictions",
)


class Kind(Enum):
    """A part of an id, by the kind of its row."""

    UPLOAD = 1
    IMPORT = 2
    RESULT = 3
    SHOOTING = 4
    LOOK = 5
    SHOT = 6
    GENERATION = 7
    PREDICTION = 8


@dataclass(frozen=True)
class LargeTenant:
    """The tenant whose rows are created: its owner, and rows that its others refer to."""

    organization: UUID
    owner: UUID
    media: UUID
    shot_type: UUID
    rows: int


@dataclass(frozen=True)
class Page:
    """A request for a page of a list."""

    path: str
    parameters: Mapping[str, Any]


def create_rows(connection: Connection, tenant: LargeTenant) -> None:
    """Create the rows, as a role that bypasses policies."""
    numbers = {
        **vars(tenant),
        **{kind.name: kind.value for kind in Kind},
        "imports": IMPORTS,
        "quality": json.dumps(QUALITY),
        "provenance": json.dumps(PROVENANCE),
        "import_rows": min(IMPORT_ROWS, tenant.rows),
        "looks": min(LOOKS, tenant.rows),
    }
    connection.execution_options(no_parameters=True).exec_driver_sql(
        STATEMENTS.read_text(encoding="utf-8").format_map(numbers)
    )


def list_pages(api: Api, organization_id: str) -> dict[str, Page]:
    """Return the measured pages by their names."""
    pages: dict[str, Page] = {}

    def add(name: str, path: str, **parameters: Any) -> dict[str, Any]:
        pages[name] = Page(path, {"limit": LIMIT, **parameters})
        return api.get(path, **pages[name].parameters)

    def add_two(name: str, path: str, **parameters: Any) -> dict[str, Any]:
        """Add the first page and, if there is one, the next."""
        first = add(name, path, **parameters)
        if first["next_cursor"]:
            add(f"{name}, a cursor", path, **parameters, cursor=first["next_cursor"])
        return first

    tenant = {"organization_id": organization_id}
    imports = add_two("imports", "/product-imports/", **tenant)
    add("imports that failed", "/product-imports/", **tenant, status="failed")
    results = f"/product-imports/{imports['data'][0]['id']}/results"
    add_two("results", results)
    for status in ("created", "failed"):
        add_two(f"results, {status}", results, status=status)

    add_two("changes", "/changes/", **tenant)
    latest = add("changes, from now on", "/changes/", **tenant, start="latest")
    add("changes, none", "/changes/", **tenant, cursor=latest["next_cursor"])

    # A text in no product, in few, in thousands, in more than the count reaches, and in all.
    for text in ("zzzz", "abcdef", "abc", "uct f", "product", "p"):
        add(f"products: q={text}", "/products/", **tenant, q=text)

    board = add("board: shootings", "/shootings/", **tenant, archived="false", limit=SHOOTINGS)
    add("board: search", "/shootings/", **tenant, archived="false", q="ing 19", limit=SHOOTINGS)
    half = api.get("/shootings/", **tenant, archived="false", skip=board["count"] // 2)
    for name, shooting in (("newest", board["data"][0]), ("middle", half["data"][0])):
        own = {**tenant, "shooting_id": shooting["id"]}
        for table in ("predictions", "shots"):
            first = add_two(f"board: {table}, {name}", f"/{table}/", **own, sort="created_at")
            since = max(row["updated_at"] for row in first["data"])
            add(f"board: {table}, {name}, changed", f"/{table}/", **own, updated_after=since)
        add_two(f"board: looks, {name}", f"/shootings/{shooting['id']}/looks")
    return pages


@dataclass
class Latencies:
    """The times of the responses of one page, in milliseconds."""

    elapsed: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """The CPU time of the server and of PostgreSQL, which other work on the machine changes little."""

    def list_cells(self) -> Iterator[str]:
        """Yield the cells of a table: median and 95th percentile, and the median of the CPU time."""
        for figure in (
            percentile(self.elapsed, 0.5),
            percentile(self.elapsed, 0.95),
            percentile(self.cpu, 0.5),
        ):
            yield f"{figure:,.1f}"


def measure(
    api: Api, pages: Mapping[str, Page], rounds: int, process_ids: Sequence[int]
) -> dict[str, Latencies]:
    """Return the times of each page by its name.

    Args:
        process_ids: The server, and the parent of PostgreSQL's processes.
    """
    results = {name: Latencies() for name in pages}
    for _ in range(rounds):
        for name, page in pages.items():
            before = sum(map(cpu_seconds, process_ids))
            response = api.client.get(page.path, params=page.parameters)
            assert response.status_code == 200, response.text
            results[name].cpu.append((sum(map(cpu_seconds, process_ids)) - before) * 1000)
            results[name].elapsed.append(response.elapsed.total_seconds() * 1000)
    return results


def list_lines(results: Mapping[str, Latencies]) -> list[str]:
    """Return the table of the results."""
    rows = [(name, *each.list_cells()) for name, each in results.items()]
    return list(markdown_table(("Page of 100 rows, milliseconds", "median", "p95", "CPU"), rows))
