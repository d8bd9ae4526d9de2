"""Write the pages that are generated from the code: `make docs-reference`.

`python -m tools.reference` writes all pages, `python -m tools.reference reference/settings` one of them. A
test compares each page with what this module would write. To add a page, write a function that returns its
text and add it to `PAGES`. `tests/generators/page.py` writes the page of the generators.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import Field
from itertools import groupby
from pathlib import Path
from typing import Any

from studio.infrastructure.settings import Variable, list_settings
from studio.infrastructure.telemetry.metrics import describe_metrics
from tools.project import ADMISSION_CONTROLS, PROBLEMS, AdmissionControl

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

_SETTINGS_HEAD = """\
---
title: Configuration
kind: reference
readers: [operators, contributors]
---

# Configuration

<!-- Generated from studio/infrastructure/settings.py: change it there, then run `make docs-reference`. -->

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


_PAGE_HEAD = """\
---
title: {title}
kind: reference
readers: [{readers}]
---

# {title}

<!-- Generated from {source}: change it there, then run `make docs-reference`. -->

{text}
"""


def render_problems() -> str:
    """Return the page of all problem codes, a table for each status."""
    text = (
        "The `code` of a problem document, what it means and what to do. "
        "[Errors](../guides/errors.md)\n"
        "describes the document. A server has a page for each code: the URL in `type`."
    )
    parts = [
        _PAGE_HEAD.format(
            title="Problem codes",
            readers="api-consumers, ci-engineers",
            source="handlers/pipeline/problem_types.py",
            text=text,
        )
    ]
    by_status = sorted(PROBLEMS.items(), key=lambda item: (item[1].status, item[0]))
    for status, problems in groupby(by_status, key=lambda item: item[1].status):
        rows = [f"| `{code}` | {problem.meaning} | {problem.advice} |" for code, problem in problems]
        parts.append(
            "\n".join([f"## {status}\n", "| Code | Meaning | What to do |\n|---|---|---|", *rows, ""])
        )
    return "\n".join(parts)


def render_events() -> str:
    """Return the page of all webhook messages of the contract."""
    contract = json.loads((ROOT / "openapi" / "openapi.json").read_bytes())
    text = (
        "The types of webhook messages, as `webhooks` of the contract describes them. "
        "[Webhooks](../guides/webhooks.md)\nsays how messages are signed and delivered."
    )
    head = _PAGE_HEAD.format(
        title="Events", readers="api-consumers", source="`webhooks` of the contract", text=text
    )
    rows = []
    for name, item in contract["webhooks"].items():
        message = item["post"]
        schema = message["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        rows.append(f"| `{name}` | {' '.join(message['description'].split())} | `{schema}` |")
    return "\n".join([head, "| Type | When, and what to do | Schema |\n|---|---|---|", *rows, ""])


def render_metrics() -> str:
    """Return the page of all metrics."""
    text = (
        "The metrics that a process serves at `METRICS_PORT`. "
        "[Observability](../operations/observability.md)\n"
        "says how to scrape them and which alerts use them."
    )
    head = _PAGE_HEAD.format(
        title="Metrics", readers="operators", source="studio/infrastructure/telemetry/metrics.py", text=text
    )
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.meaning} |"
        for metric in describe_metrics()
    ]
    return "\n".join([head, "| Metric | Type | Labels | Meaning |\n|---|---|---|---|", *rows, ""])


_ADMISSION_TEXT = """\
Everything that rejects or delays a request before its handler decides. The line of a rejected request in the
access log has the problem code as `problem`, and for a 503 or 429 what rejected it as `limit`.
`sartiq_problems_total` counts both.

```text
POST /api/v1/products/{product_id}/images 503 10021.3ms unavailable decode_slots
```

To find out why a client gets 503: take the `limit` of its line, or of the series that grows in
`sum by (limit) (rate(sartiq_problems_total{status="503"}[5m]))`, and look it up in the last two columns. Rate
limits are counted per installation if the processes share a Redis, attempts in the database, all others per
process.
[Rate limits](../guides/rate-limits.md) describes them for clients.\
"""


def render_admission_control() -> str:
    """Return the page of everything that rejects or delays a request."""
    head = _PAGE_HEAD.format(
        title="Admission control",
        readers="operators",
        source="handlers/pipeline/admission/limits.py",
        text=_ADMISSION_TEXT,
    )
    rows = [_admission_row(control) for control in ADMISSION_CONTROLS]
    columns = "| What it limits | Settings | Status | Problem | `limit` | What to do |"
    return "\n".join([head, columns, "|---|---|---|---|---|---|", *rows, ""])


def _admission_row(control: AdmissionControl) -> str:
    cells = (
        control.bounds,
        _quote_all(control.settings),
        str(control.status or "waits"),
        _quote_all(filter(None, [control.code])),
        _quote_all(control.limits),
        control.remedy,
    )
    return f"| {' | '.join(cells)} |"


def _quote_all(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


PAGES: dict[str, Callable[[], str]] = {
    "reference/settings": render_settings,
    "reference/problems": render_problems,
    "reference/events": render_events,
    "reference/metrics": render_metrics,
    "operations/admission-control": render_admission_control,
}
"""The generated pages by their path below `docs`, without `.md`."""


def main(arguments: list[str] | None = None) -> int:
    """Write the named pages, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m tools.reference", description=__doc__)
    parser.add_argument("pages", nargs="*", help="pages to write, by default all")
    pages = parser.parse_args(arguments).pages or list(PAGES)
    unknown = sorted(set(pages) - set(PAGES))
    if unknown:
        parser.error(f"unknown page {unknown[0]}: choose from {', '.join(PAGES)}")
    for name in pages:
        (DOCS / f"{name}.md").write_text(PAGES[name](), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
