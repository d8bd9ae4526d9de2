"""The server that is judged: asks it, and holds every answer against its contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx
import schemathesis
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

AS_DECLARED = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


class NotConforming(AssertionError):
    """The server did what its contract, or the flow, does not have; the message names the request."""


@dataclass
class Target:
    """One server and the organization that the run made there: nothing else there is changed."""

    base_url: str
    token: str
    organization_id: str = ""
    schema: Any = None
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        """Fetch the contract and open the connection."""
        self.base_url = self.base_url.rstrip("/")
        self.client = httpx.Client(base_url=self.base_url, timeout=90)
        contract = self.client.get("/openapi.json").raise_for_status().json()

        self.schema = schemathesis.openapi.from_dict(contract)
        self.schema.config.update(base_url=self.base_url)

    def ask(
        self,
        method: str,
        template: str,
        status: int,
        ids: dict[str, str] | None = None,
        *,
        anonymous: bool = False,
        **options: Any,
    ) -> Any:
        """Return the answer; raise NotConforming when it has another status or is not as declared."""
        case = self.schema[template][method].Case(path_parameters=ids or {})
        headers = {} if anonymous else {"Authorization": f"Bearer {self.token}"}
        headers |= options.pop("headers", {})
        answer = self.client.request(method, template.format(**(ids or {})), headers=headers, **options)
        if answer.status_code != status:
            raise NotConforming(
                f"{method} {template}: {answer.status_code}, not {status}: {answer.text[:500]}"
            )
        answer.request.read()  # a form is sent as a stream, and the checks look at what was sent
        case.validate_response(answer, checks=AS_DECLARED)
        return answer
