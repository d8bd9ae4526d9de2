"""The MCP server (`sartiq.mcp`) over both transports, called by the client of the MCP SDK."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import BlobResourceContents, TextContent

from sartiq.mcp import build_server, connect_locally
from tests.clients.command_line import new_user
from tools.demo import EMAIL, PASSWORD
from tools.servers.server import ROOT, SECONDS_TO_START, RunningServer, free_port, running_server, stop

ORGANIZATION = "01990000-5eed-7000-8000-000200000001"
PRODUCT = "01990000-5eed-7000-8000-000500000001"
PREDICTION = "01990000-5eed-7000-8000-001300000001"
UNKNOWN = "01990000-5eed-7000-8000-0000000fffff"
GENERATION = "01990000-5eed-7000-8000-001200000001"
READ_ONLY = {
    "find_products", "review_shooting", "find_approved_images", "get_usage", "follow_changes",
    "wait_for_generation",
}  # fmt: skip
SAFE = {
    *READ_ONLY, "shoot_product_photo", "generate_images", "import_products", "create_shooting",
    "generate_shooting", "comment_on_prediction", "approve_prediction", "export_shooting",
}  # fmt: skip
DESTRUCTIVE = {"reject_prediction", "delete_prediction", "deliver_shooting", "publish_image"}
PYTHONPATH = str(ROOT / "clients" / "python" / "src")


@pytest.fixture(scope="module")
def demo_server(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[RunningServer]:
    """Yield a server with the demo accounts, which generates images for the slow test only."""
    is_slow = request.config.getoption("--slow") or request.config.getoption("--long")
    settings = {"SARTIQ_ENV": "development", "RENDER_WORKERS": "1" if is_slow else "0"}
    with running_server(tmp_path_factory.mktemp("server"), **settings) as server:
        yield server


@pytest.fixture(scope="module")
def token(demo_server: RunningServer) -> str:
    """An access token of the demo account."""
    form = {"username": EMAIL, "password": PASSWORD}
    response = httpx2.post(f"{demo_server.url}/login/access-token", data=form, timeout=60)
    return str(response.json()["access_token"])


@pytest.fixture(scope="module")
def mcp_origin(demo_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of an MCP server with HTTP. A credential in its environment must never be used."""
    port, log = free_port(), tmp_path_factory.mktemp("mcp") / "mcp.log"
    command = [sys.executable, "-m", "sartiq.mcp", "--transport", "http", "--port", str(port)]
    command += ["--organization", ORGANIZATION]
    environment = {
        "PYTHONPATH": PYTHONPATH,
        "SARTIQ_URL": demo_server.origin,
        "SARTIQ_EMAIL": EMAIL,
        "SARTIQ_PASSWORD": PASSWORD,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        wait_until_it_listens(port, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process, log)


def wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the MCP server accepts connections."""
    deadline = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        # suppressed: refused until the server listens
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text(encoding="utf-8"))


@contextlib.asynccontextmanager
async def connect(origin: str, token: str) -> AsyncIterator[Client]:
    """Connect over HTTP with a token."""
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=120) as http,
        Client(streamable_http_client(f"{origin}/mcp", http_client=http)) as client,
    ):
        yield client


async def call(client: Client, name: str, /, **arguments: Any) -> dict[str, Any]:
    """Call a tool that succeeds, and return its result."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def fail(client: Client, name: str, /, **arguments: Any) -> str:
    """Call a tool that fails, and return the message for the assistant without the name of the tool."""
    result = await client.call_tool(name, arguments)
    (content,) = result.content
    assert result.is_error
    assert isinstance(content, TextContent)
    prefix, _, message = content.text.partition(f"Error executing tool {name}: ")
    assert prefix == ""
    return message or content.text


def test_the_tools_say_what_they_change_and_destructive_ones_are_an_option() -> None:
    async def list_tools(allow: bool) -> dict[str, Any]:
        server = build_server(connect_locally(None, None), is_local=True, allow_destructive=allow)
        async with Client(server) as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    tools = asyncio.run(list_tools(False))
    assert set(tools) == SAFE
    assert {name for name, tool in tools.items() if tool.annotations.read_only_hint} == READ_ONLY
    assert not [name for name, tool in tools.items() if tool.annotations.destructive_hint]
    assert all(tool.description for tool in tools.values())
    more = asyncio.run(list_tools(True))
    assert more.keys() - tools.keys() == DESTRUCTIVE
    assert all(more[name].annotations.destructive_hint for name in DESTRUCTIVE)


def test_each_task_of_a_studio_has_a_tool() -> None:
    document = yaml.safe_load(
        (ROOT / "openapi" / "workflows" / "studio.arazzo.yaml").read_text(encoding="utf-8")
    )
    tools = {
        "shoot_a_product_photo": "shoot_product_photo",
        "import_products": "import_products",
        "create_a_shooting": "create_shooting",
        "generate_and_wait": "generate_images",
        "review_a_shooting": "review_shooting",
        "approve_a_prediction": "approve_prediction",
        "reject_a_prediction": "reject_prediction",
        "export_a_shooting": "export_shooting",
        "deliver_to_a_destination": "deliver_shooting",
        "publish_an_image": "publish_image",
        "find_approved_images_of_a_sku": "find_approved_images",
        "usage_of_the_month": "get_usage",
        "follow_changes": "follow_changes",
        # An assistant has no process that waits for events.
        "receive_events": None,
    }
    assert list(tools) == [workflow["workflowId"] for workflow in document["workflows"]]
    assert {tool for tool in tools.values() if tool} <= SAFE | DESTRUCTIVE


@pytest.fixture
def local_server(demo_server: RunningServer, token: str) -> StdioServerParameters:
    """The command of an MCP server with stdio, and the credential in its environment."""
    environment = {"PYTHONPATH": PYTHONPATH, "SARTIQ_URL": demo_server.origin, "SARTIQ_TOKEN": token}
    arguments = ["-c", "from sartiq.cli import main; main()", "mcp", "--organization", ORGANIZATION]
    return StdioServerParameters(command=sys.executable, args=arguments, env=environment)


def test_over_stdio_the_credential_is_that_of_the_environment(local_server: StdioServerParameters) -> None:
    async def steps() -> None:
        async with Client(local_server) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == SAFE
            assert (await call(client, "find_products", limit=1))["count"] > 0
            assert (await fail(client, "approve_prediction", prediction_id=UNKNOWN)).startswith("not_found: ")

    asyncio.run(steps())


def test_arguments_that_a_tool_does_not_have_are_rejected() -> None:
    async def steps() -> None:
        server = build_server(connect_locally(None, None), is_local=True, allow_destructive=True)
        async with Client(server) as client:
            for tool in (await client.list_tools()).tools:
                assert tool.input_schema["additionalProperties"] is False
            # Without the check it would return all products, or those of another organization.
            for name in ("quary", "organization_id"):
                assert name in await fail(client, "find_products", **{name: "mug"})

    asyncio.run(steps())


def test_a_generation_that_takes_long_is_waited_for_and_not_requested_again(
    demo_server: RunningServer, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sartiq.mcp_tools.WAIT_SECONDS", 0.0)
    monkeypatch.setenv("SARTIQ_TOKEN", token)

    async def steps() -> None:
        server = build_server(connect_locally(demo_server.origin, ORGANIZATION), is_local=True)
        async with Client(server) as client:
            started = await call(client, "generate_images", product_id=PRODUCT, count=1)
            assert started["status"] in ("pending", "running")
            assert started["next"].startswith("The images are not there yet. Call `wait_for_generation`")
            again = await call(client, "wait_for_generation", generation_id=started["generation_id"])
            assert again["generation_id"] == started["generation_id"]
            ended = await call(client, "wait_for_generation", generation_id=GENERATION)
            assert (ended["status"], len(ended["predictions"])) == ("completed", 2)
            assert "next" not in ended

    asyncio.run(steps())


@pytest.mark.slow("it starts a process; the first test uses the same transport")
def test_over_stdio_the_session_of_the_command_line_is_used_and_renewed(
    demo_server: RunningServer, tmp_path: Path
) -> None:
    user = new_user(tmp_path)
    arguments = ("login", "--url", demo_server.origin, "--email", EMAIL, "--password-stdin")
    assert user.run(*arguments, text=f"{PASSWORD}\n").exit_code == 0
    path = tmp_path / "home" / ".config" / "sartiq" / "session.json"
    session = json.loads(path.read_text(encoding="utf-8"))
    session["tokens"]["expires_at"] = 0
    path.write_text(json.dumps(session), encoding="utf-8")
    command = ["-c", "from sartiq.cli import main; main()", "mcp", "--organization", "maison-demo"]
    server = StdioServerParameters(command=sys.executable, args=command, env=user.environment)

    async def steps() -> None:
        async with Client(server) as client:
            assert (await call(client, "find_products", limit=1))["count"] > 0
            usage = await call(client, "get_usage", month="2026-11")
            assert usage["from"] == "2026-11-01"

    asyncio.run(steps())
    renewed = json.loads(path.read_text(encoding="utf-8"))["tokens"]
    assert renewed["access_token"] != session["tokens"]["access_token"]
    unknown = user.run("mcp", "--organization", "maison-dem")
    assert unknown.exit_code == 2
    assert "There is no organization maison-dem. Pass --organization with one of these:" in unknown.errors
    unknown = user.run("mcp", "--organization", UNKNOWN)
    assert unknown.exit_code == 2
    assert f"There is no organization {UNKNOWN}." in unknown.errors
    user.environment |= {"SARTIQ_URL": demo_server.origin, "SARTIQ_TOKEN": "sk_revoked"}
    revoked = user.run("mcp", "--organization", ORGANIZATION)
    assert revoked.exit_code == 3
    assert revoked.errors.endswith("The credential is that of the variable SARTIQ_TOKEN.\n")


@pytest.mark.slow("it generates an image; the tests of the other tools use the same transports")
def test_an_assistant_goes_from_a_photo_to_an_approved_image(
    local_server: StdioServerParameters, photo: Path
) -> None:
    async def steps() -> None:
        async with Client(local_server) as client:
            start = await call(client, "follow_changes")
            made = await call(
                client, "shoot_product_photo", photo=str(photo), name="Dress", sku="MCP-1", count=1
            )
            (prediction,) = made["predictions"]
            assert prediction["status"] == "pending_review"
            (image,) = (await client.read_resource(prediction["image"])).contents
            assert isinstance(image, BlobResourceContents)
            assert (image.mime_type, base64.b64decode(image.blob)[:2]) == ("image/jpeg", b"\xff\xd8")
            approved = await call(client, "approve_prediction", prediction_id=prediction["id"], note="Sharp.")
            assert approved["status"] == "approved"
            found = await call(client, "find_approved_images", sku="MCP-1")
            assert [each["id"] for each in found["images"]] == [prediction["id"]]
            changes = await call(client, "follow_changes", cursor=start["cursor"])
            assert made["product_id"] in {change["resource_id"] for change in changes["changes"]}

    asyncio.run(steps())


def test_a_shooting_is_made_over_http_with_the_token_of_the_request(mcp_origin: str, token: str) -> None:
    async def steps() -> None:
        async with connect(mcp_origin, token) as client:
            imported = await call(client, "import_products", csv="sku,name\nMCP-2,Scarf\nMCP-3,\n")
            assert (imported["created_count"], imported["failed_count"]) == (1, 1)
            imported = await call(client, "import_products", csv="sku,name\nMCP-2,Scarf\n")
            assert (imported["unchanged_count"], imported["failed_count"]) == (1, 0)
            assert (await call(client, "find_products", sku="MCP-2"))["count"] == 1
            made = await call(client, "create_shooting", name="Assistant", product_ids=[PRODUCT])
            assert made["shots_count"] == 1
            review = await call(client, "review_shooting", shooting_id=made["shooting_id"])
            assert [shot["status"] for shot in review["shots"]] == ["pending"]
            nothing = await fail(client, "export_shooting", shooting_id=made["shooting_id"])
            assert nothing.startswith("nothing_to_export: ")
            usage = await call(client, "get_usage", month="2026-11")
            assert (usage["from"], usage["to"]) == ("2026-11-01", "2026-11-30")
            # A server for other callers reads no files of its machine, and rejecting is off.
            rejected = await fail(client, "shoot_product_photo", photo="/etc/hostname", name="Host")
            assert rejected.startswith("invalid_photo: ")
            with pytest.raises(MCPError):
                await client.read_resource(f"sartiq://predictions/{UNKNOWN}/image")
            unknown = await client.call_tool("reject_prediction", {"prediction_id": UNKNOWN, "reason": "No"})
            assert unknown.is_error

    asyncio.run(steps())


def test_each_request_over_http_has_the_rights_of_its_own_token(
    demo_server: RunningServer, mcp_origin: str, token: str
) -> None:
    body = {"name": "Reader", "scopes": ["products:read"], "expires_in_days": 1}
    created = httpx2.post(
        f"{demo_server.url}/organizations/{ORGANIZATION}/api-keys",
        headers={"Authorization": f"Bearer {token}"},
        json=body,
    )
    key = created.json()["secret"]

    async def steps() -> None:
        async with connect(mcp_origin, key) as reader:
            assert (await call(reader, "find_products"))["count"] > 0
            denied = await fail(reader, "approve_prediction", prediction_id=PREDICTION)
            assert denied == "not_enough_permissions: Not enough permissions (needed: predictions:review)"
        async with connect(mcp_origin, token) as client, connect(mcp_origin, "sk_unknown") as stranger:
            assert (await fail(stranger, "find_products")).startswith("invalid_token: ")
            assert (await call(client, "find_products"))["count"] > 0
            assert (await fail(stranger, "find_products")).startswith("invalid_token: ")

    asyncio.run(steps())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Basic ZGVtbzpkZW1v"}, 401),
        ({"Authorization": "Bearer x", "Host": "studio.example.com"}, 421),
        ({"Authorization": "Bearer x", "Origin": "https://evil.example.com"}, 403),
    ],
)
def test_requests_without_a_token_for_another_host_or_from_another_page_are_rejected(
    mcp_origin: str, headers: dict[str, str], status: int
) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    accept = {"Accept": "application/json, text/event-stream"}
    response = httpx2.post(f"{mcp_origin}/mcp", content=json.dumps(body), headers={
        "Content-Type": "application/json", **accept, **headers,
    })  # fmt: skip
    assert response.status_code == status
