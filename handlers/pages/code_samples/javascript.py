"""Render the requests of a code sample for JavaScript (Node.js 20 or newer) and fetch."""

from __future__ import annotations

import json
import re
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
_QUOTED_MARK = re.compile(r'"<([A-Z_]+)>"')
_FAIL = "if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);"

_SIGNATURE = """\
const id = randomUUID();
const timestamp = String(Math.floor(Date.now() / 1000));
const key = Buffer.from(process.env.COMPUTE_WEBHOOK_SECRET.replace("whsec_", ""), "base64");
const signature = createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64");"""
_SIGNATURE_HEADERS = (
    '"webhook-id": id',
    '"webhook-timestamp": timestamp',
    '"webhook-signature": `v1,${signature}`',
)


def render_javascript(sample: Sample) -> str:
    """Return the sample as a JavaScript module."""
    request = sample.request
    requests = (*sample.before, request)
    lines = [f"// {comment}" for comment in sample.comments]
    if sample.token:
        lines.append(f"const token = {{ Authorization: `Bearer ${{process.env.{TOKEN}}}` }};")
    if sample.before:
        lines.append("let url, response;")
    for step in sample.before:
        lines += [*_prepare(step), f"response = await {_call(step)};", _FAIL]
        if step.creates:
            lines.append(f'url = "{step.origin}" + response.headers.get("Location");')
    if sample.url:
        lines.append(f"const url = process.env.{sample.url.name};")
    elif not request.is_relative:
        lines.append(f"const url = {_literal(request.url)};")
    lines += _prepare(request)
    if request.if_match:
        lines.append('const etag = (await fetch(url, { headers: token })).headers.get("ETag");')
    declaration = "" if sample.before else "const "
    if request.polls:
        lines += [
            f"for (let attempt = 0; attempt < {request.seconds}; attempt++) {{",
            f"  response = await {_call(request, '  ')};",
            "  if (response.status !== 409) break;",
            "  await new Promise((resolve) => setTimeout(resolve, 1000));",
            "}",
        ]
    else:
        lines.append(f"{declaration}response = await {_call(request)};")
    lines += [_FAIL, *_show(request)]
    imports = _imports(requests)
    return "\n".join([*imports, *([""] if imports else []), *lines]) + "\n"


def _imports(requests: tuple[Request, ...]) -> list[str]:
    uploads = any(request.media_type == MULTIPART for request in requests)
    last = requests[-1]
    raw = last.media_type and last.media_type not in (JSON, FORM, MULTIPART)
    imports = {
        'import { createHmac, randomUUID } from "node:crypto";': last.is_signed,
        'import { openAsBlob } from "node:fs";': uploads,
        'import { readFile } from "node:fs/promises";': raw,
        'import { writeFile } from "node:fs/promises";': last.file_name,
    }
    return [line for line, needed in imports.items() if needed]


def _prepare(request: Request) -> list[str]:
    """Return the lines that build a body that is not an expression."""
    if request.is_signed:
        return [f"const body = JSON.stringify({_literal(request.body)});", _SIGNATURE]
    if request.media_type != MULTIPART:
        return []
    return [
        "const body = new FormData();",
        f'const file = await openAsBlob("{FILE}", {{ type: "image/jpeg" }});',
        f'body.append("{request.file_field}", file, "{FILE}");',
        *(f"body.append({json.dumps(name)}, {_literal(value)});" for name, value in request.body.items()),
    ]


def _show(request: Request) -> list[str]:
    """Return the lines that show the response, or write it to a file."""
    if request.streams:
        return [
            "const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();",
            "for (let part = await reader?.read(); part && !part.done; part = await reader.read()) {",
            "  process.stdout.write(part.value);",
            "}",
        ]
    if request.file_name:
        return [f'await writeFile("{request.file_name}", Buffer.from(await response.arrayBuffer()));']
    if request.response_media_type == JSON:
        return ["console.log(await response.json());"]
    return ["console.log(await response.text());"] if request.response_media_type else []


def _call(request: Request, indent: str = "") -> str:
    target = "url"
    if request.is_relative:
        target = f"`${{url}}{request.url}`" if request.url else "url"
    elif request.creates:
        target = _literal(request.url)
    headers = ["...token"] if request.token else []
    if request.waits:
        headers.append(f'Prefer: "wait={WAIT_SECONDS}"')
    if request.if_match:
        headers.append('"If-Match": etag')
    if request.is_signed:
        headers += _SIGNATURE_HEADERS
    if request.media_type and request.media_type not in (FORM, MULTIPART):
        headers.append(f'"Content-Type": "{request.media_type}"')
    options = [f'method: "{request.method}"'] if request.method != "GET" else []
    if headers == ["...token"]:
        options.append("headers: token")
    elif len(headers) > 3:
        options.append("headers: {\n" + "".join(f"    {header},\n" for header in headers) + "  }")
    elif headers:
        options.append(f"headers: {{ {', '.join(headers)} }}")
    if request.media_type:
        options.append(_body(request))
    if request.seconds is not None:
        options.append(f"signal: AbortSignal.timeout({request.seconds}_000)")
    text = "".join(f"{indent}  {option},\n" for option in options)
    return f"fetch({target}, {{\n{text}{indent}}})" if options else f"fetch({target})"


def _body(request: Request) -> str:
    if request.is_signed or request.media_type == MULTIPART:
        return "body"
    if request.media_type == JSON:
        return f"body: JSON.stringify({_literal(request.body, 2)})"
    if request.media_type == FORM:
        return f"body: new URLSearchParams({_literal(request.body)})"
    return f'body: await readFile("{FILE}")'


def _literal(value: Any, indent: int = 0) -> str:
    """Return a JSON value as a JavaScript expression; with `indent`, an object on several lines."""
    text = json.dumps(value, indent=2 if indent else None, ensure_ascii=False)
    text = _QUOTED_MARK.sub(r"process.env.\1", text.replace("\n", "\n" + " " * indent))
    if isinstance(value, str) and _MARK.search(text):
        return "`" + _MARK.sub(r"${process.env.\1}", text)[1:-1] + "`"
    return text
