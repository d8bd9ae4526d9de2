"""Write `openapi/asyncapi.json`, webhooks and event streams as AsyncAPI 3: part of `make openapi`.

For tools that read AsyncAPI only. The contract stays the source: nothing is described here a second time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from tools.project import Document, join_pointer

Node = dict[str, Any]
FOLDER = Path(__file__).parents[1] / "openapi"
BUNDLE, EXPORT = FOLDER / "openapi.json", FOLDER / "asyncapi.json"
EVENT_STREAM = "text/event-stream"
INFO = {
    "description": "The webhooks and event streams of the API, exported from its OpenAPI document.",
}


def export(document: Document) -> Node:
    """Return the AsyncAPI 3 document of the webhooks and event streams of a bundle."""
    channels: Node = {}
    operations: Node = {}
    for event_type, item in document.spec["webhooks"].items():
        _add_webhook(document, event_type, item["post"], channels, operations)
    for raw in document.operations():
        content = raw.definition["responses"].get("200", {}).get("content", {}).get(EVENT_STREAM)
        if content is not None:
            channel, operation = _stream(document, raw.path, raw.definition, content, raw.parameters)
            channels[raw.operation_id], operations[raw.operation_id] = channel, operation
    info = document.spec["info"]
    exported: Node = {
        "asyncapi": "3.0.0",
        "info": {"title": info["title"], "version": info["version"], "license": info["license"], **INFO},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
    }
    schemas = document.spec["components"]["schemas"]
    exported["components"] = {"schemas": {name: schemas[name] for name in _used(exported, schemas)}}
    return exported


def _add_webhook(document: Document, event_type: str, post: Node, channels: Node, operations: Node) -> None:
    """Add a message to the one channel of webhooks: the URL that the client registered."""
    body = post["requestBody"]["content"]["application/json"]
    parameters = [document.resolve(parameter) for parameter in post["parameters"]]
    headers = {
        parameter["name"]: {**parameter["schema"], "description": parameter["description"]}
        for parameter in parameters
    }
    channel = channels.setdefault(
        "webhooks", {"address": None, "description": "The URL of a webhook endpoint.", "messages": {}}
    )
    name = event_type.replace(".", "_")
    channel["messages"][name] = {
        "name": event_type,
        "title": post["summary"],
        "contentType": "application/json",
        "headers": {"type": "object", "required": list(headers), "properties": headers},
        "payload": body["schema"],
        "examples": [{"payload": document.resolve(body["schema"])["example"]}],
    }
    operations[name] = {
        "action": "send",
        "channel": {"$ref": "#/channels/webhooks"},
        "summary": post["summary"],
        "description": post["description"],
        "messages": [{"$ref": f"#/channels/webhooks/messages/{name}"}],
    }


def _stream(
    document: Document, path: str, definition: Node, content: Node, parameters: list[Node]
) -> tuple[Node, Node]:
    """Return the channel and the operation of an event stream. The payload is the `data` of an event."""
    name = definition["operationId"]
    fields = document.resolve(content["schema"])
    channel = {
        "address": document.base_path + path,
        "description": f"{definition['description']} ({EVENT_STREAM})",
        "parameters": {
            parameter["name"]: {"description": parameter["description"]}
            for parameter in parameters
            if parameter["in"] == "path"
        },
        "messages": {
            "event": {
                "name": "event",
                "title": "Server-sent event",
                "contentType": "application/json",
                "description": fields["description"],
                "payload": content["x-event-data"],
            }
        },
    }
    operation = {
        "action": "send",
        "channel": {"$ref": f"#{join_pointer(['channels', name])}"},
        "summary": definition["summary"],
        "messages": [{"$ref": f"#{join_pointer(['channels', name, 'messages', 'event'])}"}],
    }
    return channel, operation


def _used(node: Any, schemas: Node) -> list[str]:
    """Return the names of the schemas that a node refers to, directly or indirectly, in their order."""
    prefix, used, pending = "#/components/schemas/", set[str](), [node]
    while pending:
        part = pending.pop()
        pending.extend(part.values() if isinstance(part, dict) else part if isinstance(part, list) else ())
        name = str(part.get("$ref", "")).removeprefix(prefix) if isinstance(part, dict) else ""
        if name in schemas and name not in used:
            used.add(name)
            pending.append(schemas[name])
    return [name for name in schemas if name in used]


def encode(document: Document) -> bytes:
    """Return the content of `asyncapi.json`."""
    return orjson.dumps(export(document), option=orjson.OPT_INDENT_2) + b"\n"


if __name__ == "__main__":
    EXPORT.write_bytes(encode(Document.load(BUNDLE)))
