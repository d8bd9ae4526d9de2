"""Render the requests of a code sample for Python and httpx."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from handlers.pages.code_samples.requests import (
    FILE,
    FORM,
    JSON,
    MULTIPART,
    TOKEN,
    WAIT_SECONDS,
    Request,
    Sample,
)

_MARK = re.compile(r"<([A-Z_]+)>")

_SIGNATURE = """\
message_id, timestamp = secrets.token_hex(8), str(int(time.time()))
key = base64.b64decode(os.environ["COMPUTE_WEBHOOK_SECRET"].removeprefix("whsec_"))
signature = hmac.digest(key, f"{message_id}.{timestamp}.{body}".encode(), "sha256")"""
_SIGNATURE_HEADERS = (
    '"webhook-id": message_id',
    '"webhook-timestamp": timestamp',
    '"webhook-signature": "v1," + base64.b64encode(signature).decode()',
    '"Content-Type": "application/json"',
)


def render_python(sample: Sample) -> str:
    """Return the sample as a Python module."""
    request = sample.request
    lines = [f"# {comment}" for comment in sample.comments]
    if sample.token:
        lines.append(f'token = {{"Authorization": f"Bearer {{os.environ[{TOKEN!r}]}}"}}')
    for step in sample.before:
        if step.creates:
            lines.append(f"created = {_call(step)}")
            lines.append(f'url = "{step.origin}" + created.raise_for_status().headers["Location"]')
        else:
            lines.append(f"{_call(step)}.raise_for_status()")
    if sample.url:
        lines.append(f'url = os.environ["{sample.url.name}"]')
    elif not request.is_relative:
        lines.append(f"url = {_literal(request.url)}")
    if request.is_signed:
        lines += [f"body = json.dumps({_lines(request.body, 0)})", _SIGNATURE]
    if request.if_match:
        lines.append('etag = httpx.get(url, headers=token).raise_for_status().headers["ETag"]')
    lines += _final(request)
    text = "\n".join(lines)
    standard = [name for name in ("base64", "hmac", "json", "os", "secrets", "time") if f"{name}." in text]
    imports = "".join(f"import {name}\n" for name in standard)
    return f"{imports}{imports and chr(10)}import httpx\n\n{text}\n"


def _final(request: Request) -> Iterator[str]:
    """Yield the lines that send the last request and show its response."""
    if request.streams:
        yield f"with {_call(request, 'stream')} as response:"
        yield "    response.raise_for_status()"
        yield "    for line in response.iter_lines():"
        yield "        print(line)"
        return
    if request.polls:
        yield f"for _ in range({request.seconds}):"
        yield f"    response = {_call(request)}"
        yield "    if response.status_code != 409:"
        yield "        break"
        yield "    time.sleep(1)"
    else:
        yield f"response = {_call(request)}"
    if request.redirects:
        yield 'print(response.headers["Location"])'
        return
    yield "response.raise_for_status()"
    if request.file_name:
        yield f'open("{request.file_name}", "wb").write(response.content)'
    elif request.response_media_type == JSON:
        yield "print(response.json())"
    elif request.response_media_type:
        yield "print(response.text)"


def _call(request: Request, function: str = "") -> str:
    target = "url"
    if request.is_relative:
        target = f"url + {_literal(request.url)}" if request.url else "url"
    elif request.creates:
        target = _literal(request.url)
    arguments = [f'"{request.method}"', target] if function else [target]
    headers = ["**token"] if request.token else []
    if request.waits:
        headers.append(f'"Prefer": "wait={WAIT_SECONDS}"')
    if request.if_match:
        headers.append('"If-Match": etag')
    if request.is_signed:
        headers += _SIGNATURE_HEADERS
    elif request.media_type and request.media_type not in (JSON, FORM, MULTIPART):
        headers.append(f'"Content-Type": "{request.media_type}"')
    if headers == ["**token"]:
        arguments.append("headers=token")
    elif len(headers) > 3:
        arguments.append("headers={\n" + "".join(f"        {header},\n" for header in headers) + "    }")
    elif headers:
        arguments.append(f"headers={{{', '.join(headers)}}}")
    arguments += _body(request)
    if request.seconds is not None:
        arguments.append(f"timeout={request.seconds}")
    text = ", ".join(arguments)
    if len(text) > 70 or "\n" in text:
        text = "\n" + "".join(f"    {argument},\n" for argument in arguments)
    return f"httpx.{function or request.method.lower()}({text})"


def _body(request: Request) -> Iterator[str]:
    if request.is_signed:
        yield "content=body"
    elif request.media_type == JSON:
        yield f"json={_lines(request.body)}"
    elif request.media_type == FORM:
        yield f"data={_lines(request.body)}"
    elif request.media_type == MULTIPART:
        yield f'files={{"{request.file_field}": open("{FILE}", "rb")}}'
        if request.body:
            yield f"data={_lines(request.body)}"
    elif request.media_type:
        yield f'content=open("{FILE}", "rb").read()'


def _literal(value: Any) -> str:
    """Return a JSON value as a Python expression, an object on one line."""
    if isinstance(value, str):
        if mark := _MARK.fullmatch(value):
            return f'os.environ["{mark[1]}"]'
        text = json.dumps(value, ensure_ascii=False)
        return "f" + _MARK.sub(r"{os.environ['\1']}", text) if _MARK.search(text) else text
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(_items(value))}}}"
    return repr(value)


def _lines(body: dict[str, Any], indent: int = 4) -> str:
    """Return an object as a Python expression, a property on each line."""
    space = " " * indent
    return "{\n" + "".join(f"{space}    {item},\n" for item in _items(body)) + f"{space}}}"


def _items(value: dict[str, Any]) -> Iterator[str]:
    return (f"{json.dumps(name)}: {_literal(item)}" for name, item in value.items())
