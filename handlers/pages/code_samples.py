"""Generate code samples of each operation in curl, Python (httpx) and JavaScript from the examples.

The samples run as they are: the token is read from SARTIQ_TOKEN, and `photo.jpg` in the working directory is
uploaded. If the operation accepts If-Match, the sample reads the ETag of the row first.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from handlers.contract.document import Document, RawOperation

JSON, FORM, MULTIPART = "application/json", "application/x-www-form-urlencoded", "multipart/form-data"
FILE = "photo.jpg"
# Optional parameters that samples include. Without `organization_id` rows are personal, which API keys cannot
# have; without `format` the extension of the file that is written is unknown.
ALWAYS_INCLUDED = ("organization_id", "format")

Samples = Mapping[str, Mapping[str, str]]
"""operationId -> language -> text."""


@dataclass(frozen=True)
class SampleRequest:
    """A request with the values of the examples; `body` is JSON, the fields of a form, or a file name."""

    method: str
    url: str
    token: bool
    if_match: bool
    media_type: str | None
    body: Any
    file_field: str | None
    response_media_type: str | None
    """The media type of the successful response; None if it has no body."""


def build_code_samples(contract: dict[str, Any], public_url: str) -> Samples:
    """Return the samples of all operations of a bundle for the server at a URL."""
    bundle = Document(contract)
    samples = {}
    for operation in bundle.operations():
        request = _build_request(bundle, operation, public_url)
        samples[operation.operation_id] = {
            "curl": _curl(request),
            "python": _python(request),
            "javascript": _javascript(request),
        }
    return samples


def _build_request(bundle: Document, operation: RawOperation, public_url: str) -> SampleRequest:
    media_type, body, file_field = _body(bundle, operation)
    return SampleRequest(
        method=operation.method,
        url=public_url + bundle.base_path + _path(operation),
        token=bool(operation.definition.get("security", bundle.spec.get("security"))),
        if_match=any(parameter["name"] == "If-Match" for parameter in operation.parameters),
        media_type=media_type,
        body=body,
        file_field=file_field,
        response_media_type=_response_media_type(bundle, operation),
    )


def _path(operation: RawOperation) -> str:
    """Return the path with the examples of its parameters, and the query if it has one."""
    examples = {
        place: {
            parameter["name"]: parameter["schema"].get("example", "")
            for parameter in operation.parameters
            if parameter["in"] == place
            and (parameter.get("required") or parameter["name"] in ALWAYS_INCLUDED)
        }
        for place in ("path", "query")
    }
    path = operation.path
    for name, example in examples["path"].items():
        path = path.replace(f"{{{name}}}", quote(str(example), safe="@"))
    return f"{path}?{urlencode(examples['query'])}" if examples["query"] else path


def _body(bundle: Document, operation: RawOperation) -> tuple[str | None, Any, str | None]:
    """Return the media type, the example and the name of the file field of the body, if there are any."""
    content = bundle.resolve(operation.definition.get("requestBody", {})).get("content", {})
    if not content:
        return None, None, None
    media_type = next(iter(content))
    schema = bundle.resolve(content[media_type]["schema"])
    if schema.get("format") == "binary":
        return media_type, FILE, None
    files = [name for name, field in schema["properties"].items() if field.get("format") == "binary"]
    example = _example(bundle, schema)
    return media_type, {name: example[name] for name in example if name not in files}, next(iter(files), None)


def _example(bundle: Document, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the example of an object schema, or one built from the examples of its required properties."""
    if "example" in schema:
        return dict(schema["example"])
    required = schema.get("required", ())
    fields = {name: bundle.resolve(schema["properties"][name]) for name in required}
    return {name: field["example"] for name, field in fields.items() if "example" in field}


def _response_media_type(bundle: Document, operation: RawOperation) -> str | None:
    """Return the media type of the first successful response that the contract lists."""
    success = next(status for status in operation.definition["responses"] if status.startswith("2"))
    content = bundle.resolve(operation.definition["responses"][success]).get("content", {})
    return next(iter(content), None)


def _curl(request: SampleRequest) -> str:
    authorization = '-H "Authorization: Bearer $SARTIQ_TOKEN"'
    lines = []
    if request.if_match:
        lines.append(f"ETAG=$(curl -sS -o /dev/null -w '%header{{etag}}' {authorization} \\")
        lines.append(f"  {shlex.quote(request.url)})")
    arguments = ["curl -sS --fail-with-body"]
    # The default of curl is GET, and POST with a body.
    if request.method != "GET" and not (request.method == "POST" and request.body is not None):
        arguments[0] += f" -X {request.method}"
    arguments.append(shlex.quote(request.url))
    if request.token:
        arguments.append(authorization)
    if request.if_match:
        arguments.append('-H "If-Match: $ETAG"')
    lines.append(" \\\n  ".join([*arguments, *_curl_body(request), *_curl_output(request)]))
    return "\n".join(lines) + "\n"


def _curl_output(request: SampleRequest) -> list[str]:
    """Return the option that writes images and archives to a file."""
    return [f"-o {_file_name(request)}"] if _is_file(request) else []


def _curl_body(request: SampleRequest) -> Iterator[str]:
    if request.media_type == JSON:
        yield "-H 'Content-Type: application/json'"
        yield f"-d {shlex.quote(json.dumps(request.body, ensure_ascii=False))}"
    elif request.media_type == FORM:
        for name, value in request.body.items():
            yield f"--data-urlencode {shlex.quote(f'{name}={value}')}"
    elif request.media_type == MULTIPART:
        yield f"-F '{request.file_field}=@{FILE};type=image/jpeg'"
        for name, value in request.body.items():
            yield f"-F {shlex.quote(f'{name}={value}')}"
    elif request.media_type:
        yield f"-H 'Content-Type: {request.media_type}'"
        yield f"--data-binary @{FILE}"


def _python(request: SampleRequest) -> str:
    lines = (["import os", ""] if request.token else []) + [
        "import httpx",
        "",
        f"url = {json.dumps(request.url)}",
    ]
    headers = []
    if request.token:
        lines.append('token = {"Authorization": f"Bearer {os.environ[\'SARTIQ_TOKEN\']}"}')
        headers.append("**token")
    if request.if_match:
        lines.append('etag = httpx.get(url, headers=token).raise_for_status().headers["ETag"]')
        headers.append('"If-Match": etag')
    arguments = ["url"]
    if request.media_type and request.media_type not in (JSON, FORM, MULTIPART):
        headers.append(f'"Content-Type": "{request.media_type}"')
    if headers:
        arguments.append("headers=token" if headers == ["**token"] else f"headers={{{', '.join(headers)}}}")
    arguments += _python_body(request)
    text = ", ".join(arguments)
    if len(text) > 70 or "\n" in text:
        text = "\n" + "".join(f"    {argument},\n" for argument in arguments)
    lines += [f"response = httpx.{request.method.lower()}({text})", "response.raise_for_status()"]
    if _is_file(request):
        lines.append(f'open("{_file_name(request)}", "wb").write(response.content)')
    elif request.response_media_type == JSON:
        lines.append("print(response.json())")
    elif request.response_media_type:
        lines.append("print(response.text)")
    return "\n".join(lines) + "\n"


def _python_body(request: SampleRequest) -> Iterator[str]:
    if request.media_type == JSON:
        yield f"json={_python_lines(request.body)}"
    elif request.media_type == FORM:
        yield f"data={_python_lines(request.body)}"
    elif request.media_type == MULTIPART:
        yield f'files={{"{request.file_field}": open("{FILE}", "rb")}}'
        yield f"data={_python_lines(request.body)}"
    elif request.media_type:
        yield f'content=open("{FILE}", "rb").read()'


def _as_python(value: Any) -> str:
    """Return a JSON value as a Python literal, an object on one line."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_as_python, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(_python_items(value))}}}"
    return repr(value)


def _python_lines(body: dict[str, Any]) -> str:
    return "{\n" + "".join(f"        {item},\n" for item in _python_items(body)) + "    }"


def _python_items(value: dict[str, Any]) -> Iterator[str]:
    return (f"{json.dumps(name)}: {_as_python(item)}" for name, item in value.items())


def _javascript(request: SampleRequest) -> str:
    imports = []
    lines = [f"const url = {json.dumps(request.url)};"]
    headers = []
    if request.token:
        lines.append("const token = { Authorization: `Bearer ${process.env.SARTIQ_TOKEN}` };")
        headers.append("...token")
    if request.if_match:
        lines.append('const etag = (await fetch(url, { headers: token })).headers.get("ETag");')
        headers.append('"If-Match": etag')
    options: list[str] = []
    if request.media_type == JSON:
        headers.append('"Content-Type": "application/json"')
        body = json.dumps(request.body, indent=2, ensure_ascii=False).replace("\n", "\n  ")
        options.append(f"body: JSON.stringify({body})")
    elif request.media_type == FORM:
        options.append(f"body: new URLSearchParams({json.dumps(request.body, ensure_ascii=False)})")
    elif request.media_type == MULTIPART:
        imports.append('import { openAsBlob } from "node:fs";')
        lines.append("const body = new FormData();")
        lines.append(f'const file = await openAsBlob("{FILE}", {{ type: "image/jpeg" }});')
        lines.append(f'body.append("{request.file_field}", file, "{FILE}");')
        lines += [
            f"body.append({json.dumps(name)}, {json.dumps(value)});" for name, value in request.body.items()
        ]
        options.append("body")
    elif request.media_type:
        imports.append('import { readFile } from "node:fs/promises";')
        headers.append(f'"Content-Type": "{request.media_type}"')
        options.append(f'body: await readFile("{FILE}")')
    if headers:
        merged_headers = "token" if headers == ["...token"] else f"{{ {', '.join(headers)} }}"
        options.insert(0, f"headers: {merged_headers}")
    if request.method != "GET":
        options.insert(0, f'method: "{request.method}"')
    if _is_file(request):
        imports.append('import { writeFile } from "node:fs/promises";')
    text = "".join(f"  {option},\n" for option in options)
    arguments = f"url, {{\n{text}}}" if options else "url"
    lines += [
        f"const response = await fetch({arguments});",
        "if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);",
    ]
    if _is_file(request):
        lines.append(f'await writeFile("{_file_name(request)}", Buffer.from(await response.arrayBuffer()));')
    elif request.response_media_type == JSON:
        lines.append("console.log(await response.json());")
    elif request.response_media_type:
        lines.append("console.log(await response.text());")
    return "\n".join(imports + lines) + "\n"


def _is_file(request: SampleRequest) -> bool:
    return request.response_media_type is not None and request.response_media_type.startswith(
        ("image/", "application/zip")
    )


def _file_name(request: SampleRequest) -> str:
    if request.response_media_type == "application/zip":
        return "export.zip"
    last = request.url.split("?")[0].rsplit("/", 1)[1]
    return last if "." in last else "image.webp"
