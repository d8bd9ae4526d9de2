"""The server under test: send requests to it and check each response against its contract."""

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

# Reports quote responses, which may contain any character (XML 1.0, section 2.2).
INVALID_XML_CHARACTERS = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
RESPONSE_CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


class ServerNotUsable(Exception):
    """The server has no readable contract, or no organization can be created. The message has the cause."""


class NonConformance(AssertionError):
    """A response does not conform to the contract or to the main flow. The message names the request."""


def describe_error(error: BaseException) -> str:
    """Return an error's message without invalid XML characters, and its class if it is not a finding."""
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, FailureGroup):
        message = error.message.strip()
    elif isinstance(error, NonConformance):
        message = str(error)
    return INVALID_XML_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", message)


@dataclass
class Target:
    """A server and the organization that the run creates there. The run changes nothing else."""

    base_url: str
    token: str
    organization_id: str = ""
    created: Any = None
    schema: Any = None
    operations: list[Any] = field(default_factory=list)
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        """Fetch and parse the contract.

        Raises:
            ServerNotUsable: There is no readable contract.
        """
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
            message = f"{self.base_url}/openapi.json is not a contract: {describe_error(error)}"
            raise ServerNotUsable(message) from error

    def create_organization(self, name: str) -> None:
        """Create the organization of the run. `check_response` checks the response later.

        Raises:
            ServerNotUsable: The organization cannot be created.
        """
        try:
            self.created = self._send("POST", "/organizations/", 201, json={"name": name})
            self.organization_id = self.created.json()["id"]
        except (NonConformance, httpx.HTTPError, ValueError, LookupError) as error:
            raise ServerNotUsable(describe_error(error)) from error

    def request(
        self, method: str, template: str, status: int, ids: dict[str, str] | None = None, **options: Any
    ) -> Any:
        """Send a request and return its response.

        Raises:
            NonConformance: The response has another status, or does not conform to the contract.
        """
        response = self._send(method, template, status, ids, **options)
        self.check_response(method, template, response, ids)
        return response

    def check_response(
        self, method: str, template: str, response: Any, ids: dict[str, str] | None = None
    ) -> None:
        """Check that a response conforms to the contract; raise the findings otherwise."""
        try:
            case = self.schema[template][method].Case(path_parameters=ids or {})
        except LookupError as error:
            raise NonConformance(f"{method} {template}: not in the contract") from error
        response.request.read()  # a form is sent as a stream, and the checks read the request's body
        case.validate_response(response, checks=RESPONSE_CHECKS)

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
        response = self.client.request(method, template.format(**(ids or {})), headers=headers, **options)
        if response.status_code != status:
            raise NonConformance(
                f"{method} {template}: {response.status_code}, not {status}: {response.text[:500]}"
            )
        return response
