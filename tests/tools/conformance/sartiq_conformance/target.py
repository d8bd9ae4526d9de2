"""The server that is judged: asks it, and holds every answer against its contract."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import httpx
import schemathesis
from schemathesis.errors import FailureGroup, SchemathesisError
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

# What servers answer is quoted, and may be anything (XML 1.0, 2.2).
INVALID_XML_CHARACTERS = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
RESPONSE_CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


class ServerNotUsable(Exception):
    """There is nothing to judge: no contract, or no organization that could be used. The message says why."""


class NonConformance(AssertionError):
    """The server did what its contract, or the flow, does not have; the message names the request."""


def describe_error(error: BaseException) -> str:
    """Return what an error says, as text that XML can hold; with its kind, unless it says it all without."""
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, FailureGroup):
        words = error.message.strip()
    elif isinstance(error, NonConformance):
        words = str(error)
    return INVALID_XML_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", words)


@dataclass
class Target:
    """One server and the organization that the run made there: nothing else there is changed."""

    base_url: str
    token: str
    organization_id: str = ""
    created: Any = None
    schema: Any = None
    operations: list[Any] = field(default_factory=list)
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        """Fetch and read the contract; raise ServerNotUsable when that cannot be done."""
        self.base_url = self.base_url.rstrip("/")
        try:
            self.client = httpx.Client(base_url=self.base_url, timeout=90)
            contract = self.client.get("/openapi.json").raise_for_status().json()
            self.schema = schemathesis.openapi.from_dict(contract)
            self.schema.config.update(base_url=self.base_url)
            self.operations = [found.ok() for found in self.schema.get_all_operations()]
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerNotUsable(f"{self.base_url}/openapi.json: {error}") from error
        except (ValueError, LookupError, SchemathesisError) as error:
            message = f"{self.base_url}/openapi.json is no contract: {describe_error(error)}"
            raise ServerNotUsable(message) from error

    def create_organization(self, name: str) -> None:
        """Make the organization that the run works in, unjudged as yet; raise ServerNotUsable when it
        cannot."""
        try:
            self.created = self._send("POST", "/organizations/", 201, json={"name": name})
            self.organization_id = self.created.json()["id"]
        except (NonConformance, httpx.HTTPError, ValueError, LookupError) as error:
            raise ServerNotUsable(describe_error(error)) from error

    def request(
        self, method: str, template: str, status: int, ids: dict[str, str] | None = None, **options: Any
    ) -> Any:
        """Return the answer; raise NonConformance when it has another status or is not as declared."""
        answer = self._send(method, template, status, ids, **options)
        self.check_response(method, template, answer, ids)
        return answer

    def check_response(
        self, method: str, template: str, answer: Any, ids: dict[str, str] | None = None
    ) -> None:
        """Raise unless the answer is as the contract declares it."""
        try:
            case = self.schema[template][method].Case(path_parameters=ids or {})
        except LookupError as error:
            raise NonConformance(f"{method} {template}: the contract does not have it") from error
        answer.request.read()  # a form is sent as a stream, and the checks look at what was sent
        case.validate_response(answer, checks=RESPONSE_CHECKS)

    def _send(
        self,
        method: str,
        template: str,
        status: int,
        ids: dict[str, str] | None = None,
        *,
        anonymous: bool = False,
        **options: Any,
    ) -> Any:
        headers = {} if anonymous else {"Authorization": f"Bearer {self.token}"}
        headers |= options.pop("headers", {})
        answer = self.client.request(method, template.format(**(ids or {})), headers=headers, **options)
        if answer.status_code != status:
            raise NonConformance(
                f"{method} {template}: {answer.status_code}, not {status}: {answer.text[:500]}"
            )
        return answer
