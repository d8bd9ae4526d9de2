"""Generate code samples of each operation in curl, Python (httpx) and JavaScript from the examples.

The samples run as they are, on the demo data: tokens are read from environment variables, and `photo.jpg` in
the working directory is uploaded. A sample that needs more says so in a comment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from handlers.contract.document import Document
from handlers.pages.code_samples.curl import render_curl
from handlers.pages.code_samples.javascript import render_javascript
from handlers.pages.code_samples.python import render_python
from handlers.pages.code_samples.requests import Sample, SampleBuilder

EXTENSION = "x-codeSamples"
"""The extension that Redoc and other documentation tools show."""

# Language (the name of its highlighter), label and renderer.
_LANGUAGES: tuple[tuple[str, str, Callable[[Sample], str]], ...] = (
    ("Shell", "curl", render_curl),
    ("Python", "Python", render_python),
    ("JavaScript", "JavaScript", render_javascript),
)


def add_code_samples(contract: dict[str, Any], public_url: str) -> None:
    """Add `x-codeSamples` to each operation of a bundle, in place.

    Args:
        contract: The bundle.
        public_url: The URL of the server as clients see it, without a path.
    """
    bundle = Document(contract)
    builder = SampleBuilder(bundle, public_url)
    for operation in list(bundle.operations()):
        sample = builder.build(operation.operation_id)
        operation.definition[EXTENSION] = [
            {"lang": language, "label": label, "source": render(sample)}
            for language, label, render in _LANGUAGES
        ]


def list_code_samples(contract: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the code samples of a bundle that has them: by operationId and lower-case label."""
    return {
        operation.operation_id: {
            sample["label"].lower(): sample["source"] for sample in operation.definition[EXTENSION]
        }
        for operation in Document(contract).operations()
    }
