"""Decide which requests a code sample sends, from the examples of the contract. Knows no language."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

from handlers.contract.document import Document, RawOperation

JSON, FORM, MULTIPART = "application/json", "application/x-www-form-urlencoded", "multipart/form-data"
EVENT_STREAM = "text/event-stream"
FILE = "photo.jpg"

TOKEN = "SARTIQ_TOKEN"  # noqa: S105 (the name of a variable)
WAIT_SECONDS = 30
"""How long samples of generations ask the server to wait."""
TIMEOUT_SECONDS = 45
"""When samples that wait give up."""
STREAM_SECONDS = 300
"""When samples that read events give up."""

# Optional parameters that samples include. Without `organization_id` rows are personal, which API keys cannot
# have; without `format` the extension of the file that is written is unknown.
_ALWAYS_INCLUDED = ("organization_id", "format")
# The origin in the examples of the contract.
_EXAMPLE_ORIGIN = "http://localhost:8000"


@dataclass(frozen=True)
class Variable:
    """A value that the caller sets in the environment, and the comment that says where it comes from."""

    name: str
    comment: str

    @property
    def mark(self) -> str:
        """The text that stands for the value in a body or URL, until a renderer replaces it."""
        return f"<{self.name}>"


MAILED_TOKEN = Variable(
    "MAILED_TOKEN", "Needs an e-mailed token: set MAILED_TOKEN to the token in the e-mail."
)
REFRESH_TOKEN = Variable("REFRESH_TOKEN", "Set REFRESH_TOKEN to the `refresh_token` that `login` returned.")
SESSION_ID = Variable("SESSION_ID", "Set SESSION_ID to an `id` that `list_sessions` returned.")
UPLOAD_URL = Variable(
    "UPLOAD_URL", "Set UPLOAD_URL to the `upload_url` that `create_presigned_url` returned."
)
SHARE_URL = Variable("SHARE_URL", "Set SHARE_URL to the `url` that `share_prediction` returned.")
PUBLISHED_URL = Variable(
    "PUBLISHED_URL", "Set PUBLISHED_URL to the `url` that `publish_prediction` returned."
)
REVIEW_TOKEN = Variable(
    "REVIEW_TOKEN", "Set REVIEW_TOKEN to the part after `#` of the `url` that `create_review_link` returned."
)
SIGNING_SECRET = Variable(
    "COMPUTE_WEBHOOK_SECRET",
    "Set COMPUTE_WEBHOOK_SECRET to the secret that the Compute API shares with the server.",
)

_SUPERUSER = "Needs a superuser: set SARTIQ_TOKEN to the token of one (demo data: admin@example.com)."
_COLLEAGUE = "`add_member` adds this member of the demo data first."

_ENABLED = "The endpoint must be enabled: `update_webhook_endpoint` can set `is_enabled`."

# What the contract does not say about single operations.
_COMMENTS = {
    "add_member": "Needs a superuser, or an account that is a colleague of yours in another organization.",
    "update_member": _COLLEAGUE,
    "remove_member": _COLLEAGUE,
    "transfer_ownership": _COLLEAGUE,
    "create_webhook_endpoint": "The host must be on the public internet.",
    "test_webhook_endpoint": _ENABLED,
    "redeliver_webhooks": _ENABLED,
    "redeliver_webhook": _ENABLED,
    "get_current_api_key": "Needs an API key as the token: `create_api_key` returns one.",
    "create_subscription": "The account must not have an active subscription.",
    "create_export": "The prediction must be approved: `approve_prediction` does it.",
    "publish_prediction": "The prediction must be approved: `approve_prediction` does it.",
}
_URLS = {"put_upload": UPLOAD_URL, "get_shared_image": SHARE_URL, "get_published_image": PUBLISHED_URL}
_VALUES = {
    "refresh_token": {"refresh_token": REFRESH_TOKEN},
    "revoke_token": {"token": REFRESH_TOKEN},
    "end_session": {"session_id": SESSION_ID},
    "exchange_review_link": {"token": REVIEW_TOKEN},
}
_EXAMPLES = {
    # The example of the contract is the owner of the organization, who cannot be changed or removed.
    "update_member": {"user_id": "01990000-5eed-7000-8000-000100000002"},
    "remove_member": {"user_id": "01990000-5eed-7000-8000-000100000002"},
    # An import that the sample creates can be completed before the sample cancels it.
    "cancel_product_import": {"import_id": "01990000-5eed-7000-8000-002b00000002"},
}
SIGNED = "receive_task_webhook"
"""The operation whose requests have a signature (Standard Webhooks)."""
DOWNLOAD = "download_export"
"""The operation that returns 409 until the archive exists."""
REDIRECTS = ("start_oidc_login", "finish_oidc_login")
"""The operations of a sign-in, whose responses a browser follows."""

# A sample that deletes creates what it deletes, so that it can run again and the demo data stays. These
# change a resource that the demo account cannot change or that the demo data lacks: (what is called before,
# the rest of the path).
_STEPS: dict[str, tuple[tuple[str, ...], str]] = {
    "update_user": (("create_user",), ""),
    "update_subject": (("create_subject",), ""),
    "update_style": (("create_style",), ""),
    "transfer_subject": (("create_subject",), "/transfer"),
    "transfer_style": (("create_style",), "/transfer"),
    "update_shot_type": (("create_shot_type",), ""),
    "update_background_preset": (("create_background_preset",), ""),
    "update_resolution_preset": (("create_resolution_preset",), ""),
    "add_base_image": (("create_subject",), "/base-images"),
    "get_export": (("create_export",), ""),
    "delete_export": (("create_export",), ""),
    DOWNLOAD: (("create_export",), "/file"),
    "cancel_generation": (("create_generation",), "/cancel"),
    # A generation can be retried when it is canceled.
    "retry_generation": (("create_generation", "cancel_generation", "get_generation"), "/retry"),
}
# The demo account cannot create these again.
_DELETED_FROM_DEMO_DATA = ("remove_member", "delete_webhook_endpoint")


@dataclass(frozen=True)
class Request:
    """A request with the values of the examples.

    `url` is the whole URL, or the rest after the URL of a resource that an earlier request created. `body` is
    JSON or the fields of a form.
    """

    operation_id: str
    method: str
    url: str
    is_relative: bool
    token: bool
    if_match: bool
    seconds: int | None
    """When the client gives up; None for the default of the client."""
    waits: bool
    media_type: str | None
    body: Any
    file_field: str | None
    response_media_type: str | None
    """The media type of the successful response; None if it has no body."""
    creates: bool = False
    """Whether the next requests use the URL in `Location`, which is relative to the origin."""
    origin: str = ""

    @property
    def is_signed(self) -> bool:
        """Whether headers sign the body."""
        return self.operation_id == SIGNED

    @property
    def polls(self) -> bool:
        """Whether the client repeats the request until the response is not 409."""
        return self.operation_id == DOWNLOAD

    @property
    def redirects(self) -> bool:
        """Whether the response sends the browser to another page."""
        return self.operation_id in REDIRECTS

    @property
    def streams(self) -> bool:
        """Whether the response is a stream of events."""
        return self.response_media_type == EVENT_STREAM

    @property
    def file_name(self) -> str | None:
        """The file that the response is written to; None for text."""
        kind = self.response_media_type or ""
        if kind == "application/zip":
            return "export.zip"
        if not kind.startswith("image/"):
            return None
        last = self.url.split("?")[0].rsplit("/", 1)[-1]
        return last if "." in last else "image.webp"


@dataclass(frozen=True)
class Sample:
    """The requests of a sample in order. Those `before` create what the last one, the operation's, needs."""

    comments: tuple[str, ...]
    url: Variable | None
    """The variable with the URL of the last request; None if the request has its URL."""
    before: tuple[Request, ...]
    request: Request

    @property
    def token(self) -> bool:
        """Whether one of the requests needs the token."""
        return any(request.token for request in (*self.before, self.request))


class SampleBuilder:
    """Builds the samples of one bundle for the server at a URL."""

    def __init__(self, bundle: Document, public_url: str) -> None:
        self._bundle = bundle
        self._public_url = public_url
        self._operations = {operation.operation_id: operation for operation in bundle.operations()}
        self._by_route = {(one.method, one.path): one.operation_id for one in self._operations.values()}

    def build(self, operation_id: str) -> Sample:
        """Return the sample of an operation."""
        before, rest = self._steps(operation_id)
        url = _URLS.get(operation_id)
        request = self._request(operation_id, rest if before else "" if url else None)
        if not before:
            return Sample(self._comments(operation_id), url, (), request)
        if request.method == "DELETE":
            # Nobody else changes what the sample has created, but its job may do so.
            request = replace(request, if_match=False)
        # Created resources may lie in others that are created first.
        first = self.build(before[0])
        created = (*first.before, first.request)
        later = tuple(self._request(name, self._steps(name)[1]) for name in before[1:])
        comments = dict.fromkeys((*first.comments, *self._comments(operation_id)))
        return Sample(tuple(comments), None, (*(_creating(one) for one in created), *later), request)

    def _steps(self, operation_id: str) -> tuple[tuple[str, ...], str]:
        """Return the operations to call before, and the rest of the path after the created resource."""
        if operation_id in _STEPS:
            return _STEPS[operation_id]
        operation = self._operations[operation_id]
        collection = operation.path.rpartition("/")[0]
        creating = self._by_route.get(("POST", collection)) or self._by_route.get(("POST", collection + "/"))
        if operation.method != "DELETE" or operation_id in _DELETED_FROM_DEMO_DATA or creating is None:
            return (), ""
        return (creating,), ""

    def _request(self, operation_id: str, rest: str | None) -> Request:
        """Return the request of an operation; `rest` follows the URL of the created resource."""
        operation = self._operations[operation_id]
        media_type, body, file_field = self._body(operation)
        response_media_type = self._response_media_type(operation)
        headers = {parameter["name"] for parameter in operation.parameters if parameter["in"] == "header"}
        waits = "Prefer" in headers
        streams = response_media_type == EVENT_STREAM
        return Request(
            operation_id=operation_id,
            method=operation.method,
            url=self._public_url + self._bundle.base_path + self._path(operation) if rest is None else rest,
            is_relative=rest is not None,
            token=bool(operation.definition.get("security", self._bundle.spec.get("security"))),
            if_match="If-Match" in headers,
            seconds=STREAM_SECONDS if streams else TIMEOUT_SECONDS if waits or _is_slow(operation) else None,
            waits=waits,
            media_type=media_type,
            body=body,
            file_field=file_field,
            response_media_type=response_media_type,
            origin=self._public_url,
        )

    def _comments(self, operation_id: str) -> tuple[str, ...]:
        definition = self._operations[operation_id].definition
        comments = [_COMMENTS[operation_id]] if operation_id in _COMMENTS else []
        roles = self._bundle.spec.get("x-permissions", {}).get(definition.get("x-permission"), ())
        if list(roles) == ["superuser"]:
            comments.append(_SUPERUSER)
        comments += [variable.comment for variable in self._variables(operation_id).values()]
        comments += [_URLS[operation_id].comment] if operation_id in _URLS else []
        comments += [SIGNING_SECRET.comment] if operation_id == SIGNED else []
        return tuple(comments)

    def _variables(self, operation_id: str) -> Mapping[str, Variable]:
        """Return the variables of an operation, by the name of the parameter or property."""
        if "e-mailed token" in self._operations[operation_id].definition.get("x-public", ""):
            return {"token": MAILED_TOKEN}
        return _VALUES.get(operation_id, {})

    def _path(self, operation: RawOperation) -> str:
        """Return the path with the examples of its parameters, and the query if it has one."""
        variables = self._variables(operation.operation_id)
        values = _EXAMPLES.get(operation.operation_id, {})
        examples = {
            place: {
                parameter["name"]: values.get(parameter["name"], parameter["schema"].get("example", ""))
                for parameter in operation.parameters
                if parameter["in"] == place
                and (parameter.get("required") or parameter["name"] in _ALWAYS_INCLUDED)
            }
            for place in ("path", "query")
        }
        path = operation.path
        for name, example in examples["path"].items():
            value = variables[name].mark if name in variables else quote(str(example), safe="@")
            path = path.replace(f"{{{name}}}", value)
        return f"{path}?{urlencode(examples['query'])}" if examples["query"] else path

    def _body(self, operation: RawOperation) -> tuple[str | None, Any, str | None]:
        """Return the media type, the example and the name of the file field of the body, if there are any."""
        content = self._bundle.resolve(operation.definition.get("requestBody", {})).get("content", {})
        if not content:
            return None, None, None
        media_type = next(iter(content))
        schema = self._bundle.resolve(content[media_type]["schema"])
        if schema.get("format") == "binary":
            return media_type, None, None
        files = [name for name, field in schema["properties"].items() if field.get("format") == "binary"]
        text = json.dumps(self._example(schema), ensure_ascii=False)
        example = json.loads(text.replace(_EXAMPLE_ORIGIN, self._public_url))
        variables = self._variables(operation.operation_id)
        body = {
            name: variables[name].mark if name in variables else value
            for name, value in example.items()
            if name not in files
        }
        return media_type, body, next(iter(files), None)

    def _example(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the example of an object schema, or the examples of its required properties."""
        if "example" in schema:
            return dict(schema["example"])
        required = schema.get("required", ())
        fields = {name: self._bundle.resolve(schema["properties"][name]) for name in required}
        return {name: field["example"] for name, field in fields.items() if "example" in field}

    def _response_media_type(self, operation: RawOperation) -> str | None:
        """Return the media type of the first successful response that the contract lists."""
        # The statuses are in order: 2xx, or 303 for a redirect.
        success = next(iter(sorted(operation.definition["responses"])))
        content = self._bundle.resolve(operation.definition["responses"][success]).get("content", {})
        return next(iter(content), None)


def _is_slow(operation: RawOperation) -> bool:
    """Return whether the server fetches an image or converts the contract, or sends an archive."""
    return operation.operation_id in ("add_product_image_from_url", "get_openapi_yaml", DOWNLOAD)


def _creating(request: Request) -> Request:
    """Return the request whose `Location` the next ones use. It does not wait for the result."""
    return replace(request, creates=True, waits=False, seconds=None)
