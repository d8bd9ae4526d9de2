"""Render the requests of a code sample for bash and curl."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

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

_AUTHORIZATION = f'-H "Authorization: Bearer ${TOKEN}"'
_MARK = re.compile(r"<([A-Z_]+)>")

# Standard Webhooks: the base64 of the HMAC-SHA256 of id, timestamp and body, with a secret in base64.
_SIGNATURE = """\
ID=msg_$RANDOM TIMESTAMP=$(date +%s) BODY={body}
KEY=$(printf %s "${{COMPUTE_WEBHOOK_SECRET#whsec_}}" | base64 -d | od -An -vtx1 | tr -d ' \\n')
SIGNATURE=$(printf %s "$ID.$TIMESTAMP.$BODY" |
  openssl dgst -sha256 -mac HMAC -macopt "hexkey:$KEY" -binary | base64)"""
_SIGNATURE_HEADERS = (
    '-H "webhook-id: $ID"',
    '-H "webhook-timestamp: $TIMESTAMP"',
    '-H "webhook-signature: v1,$SIGNATURE"',
)


def render_curl(sample: Sample) -> str:
    """Return the sample as a bash script."""
    lines = [f"# {comment}" for comment in sample.comments]
    for request in sample.before:
        lines.append(
            _creating(request) if request.creates else f"{_command(request, '$URL')} \\\n  -o /dev/null"
        )
    base = f"${sample.url.name}" if sample.url else "$URL"
    request = sample.request
    if request.if_match:
        options = f"-sSf -o /dev/null -w '%header{{etag}}' {_AUTHORIZATION}"
        lines.append(f"ETAG=$(curl {options} \\\n  {_target(request, base)})")
    if request.is_signed:
        lines.append(_SIGNATURE.format(body=_quote(json.dumps(request.body, ensure_ascii=False))))
    lines.append(_command(request, base))
    return "\n".join(lines) + "\n"


def _creating(request: Request) -> str:
    """Return the assignment of the URL that the response has in `Location`."""
    command = _command(request, "$URL").removeprefix("curl -sS --fail-with-body")
    return f"URL={request.origin}$(curl -sSf -o /dev/null -w '%header{{location}}'{command})"


def _command(request: Request, base: str) -> str:
    arguments = ["curl -sS --fail-with-body"]
    # The default of curl is GET, and POST with a body.
    if request.method != "GET" and not (request.method == "POST" and request.media_type is not None):
        arguments[0] += f" -X {request.method}"
    if request.streams:
        arguments[0] += " -N"
    if request.polls:
        arguments[0] += f" --retry {request.seconds} --retry-delay 1 --retry-all-errors"
    elif request.seconds is not None:
        arguments[0] += f" --max-time {request.seconds}"
    arguments.append(_target(request, base))
    if request.token:
        arguments.append(_AUTHORIZATION)
    if request.waits:
        arguments.append(f"-H 'Prefer: wait={WAIT_SECONDS}'")
    if request.if_match:
        arguments.append('-H "If-Match: $ETAG"')
    if request.is_signed:
        arguments += _SIGNATURE_HEADERS
    output = [f"-o {request.file_name}"] if request.file_name and not request.creates else []
    return " \\\n  ".join([*arguments, *_body(request), *output])


def _target(request: Request, base: str) -> str:
    return f'"{base}{request.url}"' if request.is_relative else _quote(request.url)


def _body(request: Request) -> Iterator[str]:
    if request.is_signed:
        yield "-H 'Content-Type: application/json'"
        yield '-d "$BODY"'
    elif request.media_type == JSON:
        yield "-H 'Content-Type: application/json'"
        yield f"-d {_quote(json.dumps(request.body, ensure_ascii=False))}"
    elif request.media_type == FORM:
        for name, value in request.body.items():
            yield f"--data-urlencode {_quote(f'{name}={value}')}"
    elif request.media_type == MULTIPART:
        yield f"-F '{request.file_field}=@{FILE};type=image/jpeg'"
        for name, value in request.body.items():
            yield f"-F {_quote(f'{name}={value}')}"
    elif request.media_type:
        yield f"-H 'Content-Type: {request.media_type}'"
        yield f"--data-binary @{FILE}"


def _quote(text: str) -> str:
    """Return a text as one word of the shell, with the values of the variables in it."""
    if _MARK.search(text) and not set(text) & set('"$`\\'):
        return '"' + _MARK.sub(r"$\1", text) + '"'
    return _MARK.sub(r"""'"$\1"'""", shlex.quote(text))
