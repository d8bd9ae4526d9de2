"""The server under test: send requests to it, check each response, delete what was made."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import schemathesis
import yaml
from schemathesis.core.result import Err
from schemathesis.errors import FailureGroup, SchemathesisError
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sartiq_conformance.contract import set_closed_responses

# Reports quote responses, which may contain any character (XML 1.0, section 2.2).
INVALID_XML_CHARACTERS = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
RESPONSE_CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
HIDDEN_TOKEN = re.compile(r"-H '?Authorization: (?:\[Filtered\]|Bearer [^'\"]*)'?", re.IGNORECASE)
TOKEN_FROM_ENVIRONMENT = '-H "Authorization: Bearer $SARTIQ_TOKEN"'  # noqa: S105 - the name of a variable
MAX_PRINTED_BODY = 2_000
NO_CREDITS = (
    "the account of the token has no credits for one prediction. A superuser gives it a subscription "
    "with POST /subscriptions/{account_id}; `--skip flow` runs without one."
)
NO_PERMISSION = "The account of the token must be an owner or admin of the organization of `--organization`."
# A row can be deleted only after the rows that refer to it.
MAX_CLEAN_UP_ROUNDS = 5
# Another run with the same account shares its rate limit.
MAX_RATE_LIMITED_TRIES = 10
MAX_RETRY_AFTER_SECONDS = 60


class ServerNotUsable(Exception):
    """There is no server, contract, organization or account to check. The message has the cause."""


class NonConformance(AssertionError):
    """A response does not conform to the contract. The message names the request and repeats it with curl."""


def describe_error(error: BaseException) -> str:
    """Return an error's message, with requests to repeat that read the token from `SARTIQ_TOKEN`."""
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, FailureGroup):
        message = error.message.strip()
    elif isinstance(error, NonConformance):
        message = str(error)
    message = HIDDEN_TOKEN.sub(lambda _match: TOKEN_FROM_ENVIRONMENT, message)
    return INVALID_XML_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", message)


def describe_response(response: httpx.Response, message: str) -> str:
    """Return a message about a response, with the request as a curl command."""
    request = response.request
    command = ["curl", "-i", "-X", request.method]
    for name, value in request.headers.items():
        if name in ("accept", "content-type", "if-match", "idempotency-key", "prefer"):
            command += ["-H", f"{name}: {value}"]
    line = shlex.join(command)
    if "authorization" in request.headers:
        line += f" {TOKEN_FROM_ENVIRONMENT}"
    content = request.read()
    if content and "multipart" not in request.headers.get("content-type", ""):
        line += f" --data-raw {shlex.quote(content.decode(errors='replace')[:MAX_PRINTED_BODY])}"
    line += f" {shlex.quote(str(request.url))}"
    return f"{request.method} {request.url.path}: {message}\nReproduce with:\n\n    {line}"


def fail(response: httpx.Response, message: str) -> NonConformance:
    """Return the error for a response."""
    return NonConformance(describe_response(response, message))


def read_problem_code(response: httpx.Response) -> str | None:
    """Return the `code` of a problem, or None if the response is none."""
    try:
        return str(response.json()["code"])
    except (ValueError, LookupError, TypeError):
        return None


def find_external_reference(value: Any) -> str | None:
    """Return a reference of a document to another file, or None."""
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            return reference
        value = list(value.values())
    if isinstance(value, list):
        return next((found for one in value if (found := find_external_reference(one))), None)
    return None


class RateLimitedTransport(httpx.BaseTransport):
    """Send a request again, as its `Retry-After` says, while the response is 429."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the first response that is not 429, or the last one."""
        request.read()  # a form is sent as a stream, which could be sent once only
        for _ in range(MAX_RATE_LIMITED_TRIES - 1):
            response = self._inner.handle_request(request)
            delay = response.headers.get("retry-after", "")
            if response.status_code != 429 or not delay.isdecimal() or int(delay) > MAX_RETRY_AFTER_SECONDS:
                return response
            response.read()
            response.close()
            time.sleep(int(delay))
        return self._inner.handle_request(request)

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


@dataclass
class Target:
    """A server, its contract, and the organization that the run writes to.

    Args:
        base_url: The URL of the API.
        token: An access token.
        contract_file: The contract to check against; by default the one that the server publishes.
        allows_additional_properties: Whether responses may have properties that the contract lacks.
    """

    base_url: str
    token: str
    contract_file: Path | None = None
    allows_additional_properties: bool = False
    organization_id: str = ""
    created: Any = None
    schema: Any = None
    contract: dict[str, Any] = field(default_factory=dict)
    operations: list[Any] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    """The paths of the rows that the run has made, in order."""
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        """Read and parse the contract.

        Raises:
            ServerNotUsable: There is no readable contract.
        """
        source = str(self.contract_file or f"{self.base_url}/openapi.json")
        try:
            self.client = httpx.Client(
                base_url=self.base_url,
                timeout=90,
                transport=RateLimitedTransport(httpx.HTTPTransport()),
                event_hooks={"response": [self.remember]},
            )
            self.contract = self._read_contract()
            checked = set_closed_responses(self.contract, not self.allows_additional_properties)
            self.schema = schemathesis.openapi.from_dict(checked)
            self.schema.config.update(base_url=self.base_url)
            self.operations = list(self._read_operations())
        except httpx.HTTPStatusError as error:
            answer = f"{error.response.status_code} {error.response.reason_phrase}"
            hint = "The base URL is that of the API, such as https://host/api/v1."
            raise ServerNotUsable(f"{source}: {answer}. {hint}") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise ServerNotUsable(f"{source}: {error}") from error
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            yaml.YAMLError,
            SchemathesisError,
        ) as error:
            raise ServerNotUsable(f"{source} is not a contract: {describe_error(error)}") from error

    def _read_operations(self) -> Iterator[Any]:
        for found in self.schema.get_all_operations():
            if isinstance(found, Err):
                raise found.err()
            yield found.ok()

    def _read_contract(self) -> dict[str, Any]:
        if self.contract_file is None:
            return dict(self.client.get("/openapi.json").raise_for_status().json())
        text = self.contract_file.read_text(encoding="utf-8")
        contract = json.loads(text) if self.contract_file.suffix == ".json" else yaml.safe_load(text)
        if not isinstance(contract, dict):
            raise ValueError("it is no OpenAPI document: pass the bundle, openapi.json")
        if reference := find_external_reference(contract):
            raise ValueError(f"it refers to another file, {reference}: pass the bundle, openapi.json")
        return contract

    def find_mock_scenario(self) -> str | None:
        """Return a warning if the server is a mock whose scenario makes it misbehave."""
        url = httpx.URL(self.base_url).join("/mock/scenario")
        try:
            lists = [one for one in self.client.get(url).json().values() if isinstance(one, list)]
            rules = [rule for rules in lists for rule in rules]
            has_rules = any(rule["used"] < rule.get("times", rule["used"] + 1) for rule in rules)
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError):
            return None
        if not has_rules:
            return None
        return (
            "The server is a mock with a scenario, so it misbehaves as the scenario says. To end it:\n"
            f"  curl -X POST {url.join('/mock/reset')}"
        )

    def remember(self, response: Any) -> None:
        """Remember the path of a row that a response says was made."""
        location = response.headers.get("location")
        if response.status_code == 201 and location and location not in self.made:
            self.made.append(location)

    def use_organization(self, organization_id: str) -> None:
        """Write to an existing organization.

        Raises:
            ServerNotUsable: The caller cannot read it.
        """
        try:
            self._send("GET", "/organizations/{organization_id}", 200, {"organization_id": organization_id})
        except (NonConformance, httpx.HTTPError) as error:
            raise ServerNotUsable(describe_error(error)) from error
        self.organization_id = organization_id

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

    def clean_up(self) -> list[str]:
        """Delete what the run has made; return the paths of the rows that could not be deleted."""
        left = list(dict.fromkeys(self.made))
        for _ in range(MAX_CLEAN_UP_ROUNDS):
            remaining = [path for path in reversed(left) if not self._delete(path)][::-1]
            if not remaining or len(remaining) == len(left):
                return remaining
            left = remaining
        return left

    def _delete(self, path: str) -> bool:
        """Delete a row and return whether it is gone."""
        try:
            # `Location` is relative to the host.
            response = self.client.delete(httpx.URL(self.base_url).join(path), headers=self._authorization)
        except httpx.HTTPError:
            return False
        return response.status_code in (200, 204, 404)

    @property
    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def read_version(self) -> str:
        """Return the version that the server says it has, or "unknown"."""
        try:
            return str(self.client.get("/utils/version").json()["version"])
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            return "unknown"

    def request(
        self,
        method: str,
        template: str,
        status: int | tuple[int, ...],
        ids: dict[str, str] | None = None,
        **options: Any,
    ) -> Any:
        """Send a request and return its response.

        Raises:
            NonConformance: The response has another status, or does not conform to the contract.
        """
        response = self._send(method, template, status, ids, **options)
        self.check_response(method, template, response, ids)
        return response

    def create(self, template: str, ids: dict[str, str] | None = None, **options: Any) -> Any:
        """Create a row, check that it reads as it was created, and return it.

        Raises:
            NonConformance: The row reads differently, or a response does not conform to the contract.
        """
        response = self.request("POST", template, 201, ids, **options)
        url = httpx.URL(self.base_url).join(response.headers["location"])
        read = self.client.get(url, headers=self._authorization)
        if read.status_code != 200:
            raise fail(read, f"{read.status_code}, not 200, for the row that POST {template} has made")
        row = read.json()
        changed = [
            f"{name} was {json.dumps(value)}, is {json.dumps(row[name]) if name in row else 'missing'}"
            for name, value in response.json().items()
            if name not in row or row[name] != value
        ]
        if changed:
            raise fail(read, f"differs from the response of POST {template}: {'; '.join(changed)}")
        return response.json()

    def list_rows(
        self, template: str, ids: dict[str, str] | None = None, **params: Any
    ) -> list[dict[str, Any]]:
        """Return all rows of a list, following its cursors."""
        rows: list[dict[str, Any]] = []
        for response in self.list_pages(template, ids, **params):
            rows += response.json()["data"]
        return rows

    def list_pages(self, template: str, ids: dict[str, str] | None = None, **params: Any) -> Iterator[Any]:
        """Yield the responses of all pages of a list.

        Raises:
            NonConformance: A response does not conform, or the same cursor comes twice.
        """
        seen: set[str] = set()
        while True:
            response = self.request("GET", template, 200, ids, params=params)
            yield response
            page = response.json()
            cursor = page.get("next_cursor")
            # The cursor at the end of a feed returns later changes: such a page says that it is the last one.
            if cursor is None or page.get("has_more") is False:
                return
            if cursor in seen:
                raise fail(response, "the same next_cursor again")
            seen.add(cursor)
            params = {**params, "cursor": cursor}

    def check_response(
        self, method: str, template: str, response: Any, ids: dict[str, str] | None = None
    ) -> None:
        """Check that a response conforms to the contract.

        Raises:
            NonConformance: It does not.
        """
        try:
            case = self.schema[template][method].Case(path_parameters=ids or {})
        except LookupError as error:
            raise NonConformance(f"{method} {template}: not in the contract") from error
        response.request.read()  # a form is sent as a stream, and the checks read the request's body
        try:
            case.validate_response(response, checks=RESPONSE_CHECKS)
        except FailureGroup as error:
            # The curl command of Schemathesis lacks the query and body, which it did not generate.
            raise fail(response, error.message.partition("Reproduce with:")[0].strip()) from error

    def _send(
        self,
        method: str,
        template: str,
        status: int | tuple[int, ...],
        ids: dict[str, str] | None = None,
        *,
        anonymous: bool = False,
        **options: Any,
    ) -> Any:
        headers = {} if anonymous else self._authorization
        headers |= options.pop("headers", {})
        response = self.client.request(method, template.format(**(ids or {})), headers=headers, **options)
        expected = status if isinstance(status, tuple) else (status,)
        if response.status_code not in expected:
            if response.status_code == 409 and read_problem_code(response) == "out_of_credits":
                raise ServerNotUsable(NO_CREDITS)
            # In an organization that the run has made, its account is the owner.
            if (
                self.organization_id
                and self.created is None
                and response.status_code == 403
                and read_problem_code(response) == "not_enough_permissions"
            ):
                raise ServerNotUsable(f"{method} {template}: 403. {NO_PERMISSION}")
            named = " or ".join(map(str, expected))
            raise fail(response, f"{response.status_code}, not {named}: {response.text[:500]}")
        return response
