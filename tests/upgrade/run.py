"""`make upgrade`: start the last release with data, upgrade it to this tree, and compare what clients get.

The release, on SQLite or on PostgreSQL, does the main job and is stopped with work in its queue. This tree
moves the rows of SQLite to its embedded database, starts on them or on the PostgreSQL of the release, and on
its files. Everything that an account could read is the same, tokens, keys and links of the release work, the
work in the queue is completed, and the main job is done again. The release then continues on the embedded
database, and its accounts read what they read before. On PostgreSQL, servers of both read rows with values
that neither knows, as they do beside the next release, and their workers share all queues. Last, the schema
of a database that all releases have migrated is compared with a fresh one.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from standardwebhooks.webhooks import Webhook

from tests.e2e.generation_steps import make_phone_photo, wait_for_generation
from tests.upgrade.databases import (
    compare_schemas,
    create_target,
    move_from_sqlite,
    run_database_for,
)
from tests.upgrade.release import Release, UpgradeFailed, require, unpack_release
from tests.upgrade.responses import Reading, find_differences, read_everything
from tests.upgrade.side_by_side import list_failing, write_new_values
from tests.upgrade.workers import run_workers
from tools import demo
from tools.demo import EMAIL, PASSWORD, Api, DemoStopped
from tools.servers.databases import create_database
from tools.servers.http_recorder import HttpRecorder, run_http_recorder
from tools.servers.server import (
    RunningServer,
    ServerDidNotStart,
    build_environment,
    free_port,
    running_server,
)

DATABASES = ("sqlite", "postgresql")
PASSWORDS = {EMAIL: PASSWORD, "admin@example.com": "sartiq-admin"}
SCOPES = ["brands:read", "brands:write"]
NO_HOST = "127.0.0.1:9"
"""An address at which nothing listens."""
INDENTED = {"initial_indent": "    ", "subsequent_indent": "    "}
WITHOUT_WORKERS = {"RENDER_WORKERS": "0", "WEBHOOK_SENDERS": "0"}
SECONDS_TO_DELIVER = 60

Readings = dict[str, Reading]
"""What each account reads, by address."""


@dataclass
class Remembered:
    """What clients of the release keep: credentials, links, files and responses."""

    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    readings: Readings = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """The hash of each file, by path."""
    key: str = ""
    webhook_secret: str = ""
    share_link: str = ""
    created: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    """The body of a request with an Idempotency-Key, and its response."""
    upload_url: str = ""
    generation_id: str = ""


def sign_in(origin: str, email: str) -> dict[str, Any]:
    """Return the tokens of a demo account."""
    with Api(origin) as api:
        return api.post("/login/access-token", data={"username": email, "password": PASSWORDS[email]})


@contextmanager
def open_api(server: RunningServer, credential: str) -> Iterator[Api]:
    """Yield a client with an access token or an API key."""
    with Api(server.origin) as api:
        api.client.headers["Authorization"] = f"Bearer {credential}"
        yield api


def do_main_job(server: RunningServer, folder: Path) -> tuple[str, dict[str, str]]:
    """Sign in, and go from a photo to exported images.

    Returns:
        An approved prediction, and the hash of each downloaded file by path.
    """
    with Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        shots = demo.prepare_shots(api, "dress.jpg", make_phone_photo())
        generations = demo.generate(api, shots, 1)
        approved = [
            demo.approve_best(api, shot, generation)
            for shot, generation in zip(shots, generations, strict=True)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        demo.export_approved(api, shots[0]["shooting_id"], folder)
        shooting = {"shooting_id": shots[0]["shooting_id"], "organization_id": get_organization(api)}
        exports = api.get("/exports/", **shooting)["data"]
        paths = [f"/predictions/{prediction_id}/image" for prediction_id in approved]
        paths += [f"/exports/{export['id']}/file" for export in exports]
        require(len(paths) == 3, f"the export is not listed: {paths}")
        return approved[0], {path: hash_file(api, path) for path in paths}


def get_organization(api: Api) -> str:
    """Return the id of the first organization, which the main job uses."""
    return str(api.get("/organizations/", sort="created_at")["data"][0]["id"])


def hash_file(api: Api, path: str) -> str:
    """Return the hash of a file that the API returns."""
    return hashlib.sha256(api.download(path)).hexdigest()


def leave_work(
    server: RunningServer, receiver: HttpRecorder, prediction_id: str, contract: Path
) -> Remembered:
    """Create what clients keep, and work that waits in the queue of a server without workers."""
    kept = Remembered()
    kept.tokens = {email: sign_in(server.origin, email) for email in PASSWORDS}
    with open_api(server, kept.tokens[EMAIL]["access_token"]) as api:
        organization_id = get_organization(api)
        new_key = {"name": "Import", "scopes": SCOPES, "expires_in_days": 30}
        kept.key = api.post(f"/organizations/{organization_id}/api-keys", json=new_key)["secret"]
        hook = {"url": f"{receiver.url}/hooks", "event_types": ["generation.completed"]}
        kept.webhook_secret = api.post("/webhook-endpoints/", organization_id, json=hook)["secret"]
        kept.share_link = str(api.post(f"/predictions/{prediction_id}/share", json={})["url"])
        kept.created = (brand := {"name": "Made by the release"}, create_once(api, brand).json())
        photo = make_phone_photo()
        body = {"filename": "dress.jpg", "content_type": "image/jpeg"}
        upload = api.post("/uploads/presigned-url", json=body)
        url = urlsplit(str(upload["upload_url"]))
        sent = httpx.put(
            f"{server.origin}{url.path}?{url.query}", content=photo, headers={"content-type": "image/jpeg"}
        )
        require(sent.status_code == 204, f"the release rejects an upload: {sent.text}")
        kept.upload_url = str(upload["file_url"])
        product_id = api.get("/products/", organization_id=organization_id)["data"][-1]["id"]
        request = {"product_id": product_id, "width": 192, "height": 256}
        kept.generation_id = api.post("/generations/", organization_id, json=request)["id"]
    kept.readings = read_accounts(server, kept.tokens, contract)
    return kept


def read_accounts(server: RunningServer, tokens: dict[str, dict[str, Any]], contract: Path) -> Readings:
    """Read everything that accounts can read as a contract describes it."""
    readings = {}
    for email, credentials in tokens.items():
        with open_api(server, credentials["access_token"]) as api:
            readings[email] = read_everything(api, contract)
    return readings


def create_once(api: Api, brand: dict[str, Any]) -> httpx.Response:
    """Send a request that is executed once, however often it is sent."""
    return api.client.post("/brands/", json=brand, headers={"Idempotency-Key": "upgrade"})


def compare_readings(before: Readings, after: Readings) -> int:
    """Compare what accounts read with what they read before; return how many responses were compared."""
    differences = []
    for email, reading in before.items():
        missing = reading.keys() - after[email].keys()
        differences += [f"{email} {path} is missing" for path in missing]
        for path in reading.keys() & after[email].keys():
            found = find_differences(reading[path], after[email][path])
            differences += [f"{email} {path} {text}" for text in found]
    require(not differences, "\n  ".join([f"{len(differences)} differences:", *sorted(differences)[:40]]))
    return sum(map(len, before.values()))


def check_files_and_credentials(server: RunningServer, kept: Remembered) -> None:
    """Use what the release has issued."""
    with open_api(server, kept.tokens[EMAIL]["access_token"]) as api:
        for path, expected in kept.files.items():
            require(hash_file(api, path) == expected, f"{path} has other bytes")
        brand, created = kept.created
        again = create_once(api, brand)
        require(again.status_code == 201, f"a repeated request is executed again: {again.text}")
        require(again.json()["id"] == created["id"], "a repeated request creates a second brand")
        link = urlsplit(kept.share_link)
        shared = httpx.get(f"{server.origin}{link.path}?{link.query}")
        require(shared.status_code == 200, f"the share link returns {shared.status_code}")
        with_logo = api.post("/brands/", json={"name": "Uploaded before", "logo_url": kept.upload_url})
        require(with_logo["logo_url"], "an upload of the release cannot be used")
        organization_id = get_organization(api)
        refresh_token = kept.tokens[EMAIL]["refresh_token"]
        api.post("/login/refresh-token", json={"refresh_token": refresh_token})
    with open_api(server, kept.key) as api:
        brands = api.get("/brands/", organization_id=organization_id)["data"]
        require(brands, "the API key reads no brands")
        api.post("/brands/", organization_id, json={"name": "Made by a key"})


def check_queue(server: RunningServer, receiver: HttpRecorder, kept: Remembered) -> None:
    """Wait for the work that the release has left, and for the webhook about it."""
    with open_api(server, sign_in(server.origin, EMAIL)["access_token"]) as api:
        generation = wait_for_generation(api, kept.generation_id, "completed", "failed")
        require(generation["status"] == "completed", f"the queued generation failed: {generation['error']}")
    deadline = time.monotonic() + SECONDS_TO_DELIVER
    while not receiver.requests:
        require(time.monotonic() < deadline, "no webhook was delivered")
        time.sleep(0.1)
    request = receiver.requests[0]
    event = Webhook(kept.webhook_secret).verify(request.body, dict(request.headers))
    require(event["data"]["id"] == kept.generation_id, f"another event was delivered: {event}")


def upgrade(release: Release, kind: str, folder: Path) -> None:
    """Run the release, upgrade it and check the result.

    Raises:
        UpgradeFailed, DemoStopped, ServerDidNotStart: The upgrade is not what clients expect.
    """
    folder.mkdir()
    data, port, is_moved = folder / "data", free_port(), kind == "sqlite"
    with (
        create_target(data, is_embedded=is_moved) as database_url,
        run_http_recorder() as receiver,
    ):
        # The same port: signed URLs contain the origin.
        settings = {"DATABASE_URL": database_url, "OUTBOUND_ALLOWED_HOSTS": receiver.host}
        old: dict[str, Any] = {"port": port, "python": release.python, "root": release.folder, **settings}
        new: dict[str, Any] = {"port": port, "python": sys.executable, **settings}
        with running_server(data, **old) as server:
            prediction_id, files = do_main_job(server, folder / "released")
        print("  release: main job done", flush=True)
        with running_server(data, **old, **WITHOUT_WORKERS) as server:
            kept = leave_work(server, receiver, prediction_id, release.contract)
            kept.files = files
        if is_moved:
            began = time.monotonic()
            move_from_sqlite(build_environment(data, port, settings))
            print(f"  moved in {time.monotonic() - began:.1f} s", flush=True)
        began = time.monotonic()
        with running_server(data, **new, **WITHOUT_WORKERS) as server:
            print(f"  upgraded and started in {time.monotonic() - began:.1f} s", flush=True)
            count = compare_readings(kept.readings, read_accounts(server, kept.tokens, release.contract))
            print(f"  {count} responses are the same", flush=True)
            check_files_and_credentials(server, kept)
            print("  files, tokens, keys, links and stored responses work", flush=True)
        with running_server(data, **new) as server:
            check_queue(server, receiver, kept)
            print("  queued generation completed, webhook delivered", flush=True)
            files |= do_main_job(server, folder / "upgraded")[1]
        print("  this tree: main job done", flush=True)
        if is_moved:
            with running_server(data, **new, **WITHOUT_WORKERS) as server:
                kept.tokens = {email: sign_in(server.origin, email) for email in PASSWORDS}
                kept.readings = read_accounts(server, kept.tokens, release.contract)
            with run_database_for(release.version, build_environment(data, port, settings)) as url:
                check_return(release, kept, data, {**old, "DATABASE_URL": url}, folder / "returned")


def run_side_by_side(release: Release, folder: Path) -> None:
    """Run servers of the release and of this tree on one database, and print who cannot read a new value.

    Raises:
        UpgradeFailed: This tree answers an operation with 500.
    """
    with create_database() as database_url:
        settings = {"DATABASE_URL": database_url, "OUTBOUND_ALLOWED_HOSTS": NO_HOST, **WITHOUT_WORKERS}
        old: dict[str, Any] = {"python": release.python, "root": release.folder, **settings}
        with running_server(folder / "data", **old) as server:
            add_rows(server)
            tokens = {email: sign_in(server.origin, email) for email in PASSWORDS}
            readings = read_accounts(server, tokens, release.contract)
            # Its start migrates the database, beside the server of the release.
            with running_server(folder / "data", python=sys.executable, **settings) as new:
                write_new_values(database_url)
                failing: dict[str, set[str]] = {}
                for name, running in ((release.version, server), ("this tree", new)):
                    for email, credentials in tokens.items():
                        with open_api(running, credentials["access_token"]) as api:
                            found = list_failing(api, readings[email], release.contract)
                            failing.setdefault(name, set()).update(found)
    print(f"  {release.version} answers {len(failing[release.version])} operations with 500:", flush=True)
    print(textwrap.fill(", ".join(sorted(failing[release.version])), 100, **INDENTED), flush=True)
    require(not failing["this tree"], f"this tree answers 500: {', '.join(sorted(failing['this tree']))}")
    print("  this tree: none", flush=True)


def add_rows(server: RunningServer) -> None:
    """Create the rows that neither the demo data nor the main job has."""
    with Api(server.origin) as api:
        api.sign_in(EMAIL, PASSWORD)
        organization_id = get_organization(api)
        key = {"name": "Import", "scopes": SCOPES, "expires_in_days": 30}
        api.post(f"/organizations/{organization_id}/api-keys", json=key)
        rows = {"filename": "rows.csv", "content_type": "text/csv"}
        upload = api.post("/uploads/presigned-url", json=rows)
        url = urlsplit(str(upload["upload_url"]))
        path = f"{server.origin}{url.path}?{url.query}"
        httpx.put(
            path, content=b"sku,name\nA-1,Dress\n", headers={"content-type": "text/csv"}
        ).raise_for_status()
        api.post(
            "/product-imports/",
            organization_id,
            json={"file_url": upload["file_url"], "format": "csv", "mode": "create"},
        )
        hook = {"url": f"http://{NO_HOST}/hooks", "event_types": ["generation.completed"]}
        endpoint = api.post("/webhook-endpoints/", organization_id, json=hook)
        api.post(f"/webhook-endpoints/{endpoint['id']}/test", json={})


def check_return(
    release: Release, kept: Remembered, data: Path, options: dict[str, Any], downloads: Path
) -> None:
    """Run the release on the rows of this tree: its accounts read the same, and the main job is done."""
    with running_server(data, **options, **WITHOUT_WORKERS) as server:
        readings = read_accounts(server, kept.tokens, release.contract)
        # In this order: this tree may return more members than the release.
        count = compare_readings(readings, kept.readings)
        missing = [
            path for email in readings for path in kept.readings[email].keys() - readings[email].keys()
        ]
        require(not missing, f"the release does not return {missing[:40]}")
        with open_api(server, kept.tokens[EMAIL]["access_token"]) as api:
            for path, expected in kept.files.items():
                require(hash_file(api, path) == expected, f"{path} has other bytes")
    print(
        f"  returned to the release: {count} responses and {len(kept.files)} files are the same", flush=True
    )
    with running_server(data, **options) as server:
        do_main_job(server, downloads)
    print("  release: main job done again", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the upgrade on each database; return the exit status."""
    parser = argparse.ArgumentParser(prog="make upgrade ARGS=...", description=__doc__)
    parser.add_argument("--release", required=True, metavar="COMMIT", help="the commit of the release")
    parser.add_argument("--first", required=True, metavar="COMMIT", help="the commit of the first release")
    parser.add_argument("--python", required=True, help="an interpreter with the packages of the release")
    parser.add_argument("--database", choices=DATABASES, action="append", help="only this one")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sartiq-upgrade-") as name:
        release = Release(Path(name) / "release", options.python)
        unpack_release(options.release, release.folder)
        first = Release(Path(name) / "first", options.python)
        unpack_release(options.first, first.folder)
        for kind in options.database or DATABASES:
            print(f"\n{kind}", flush=True)
            began = time.monotonic()
            try:
                upgrade(release, kind, Path(name) / kind)
                if kind == "postgresql":
                    print(f"  {release.version} beside this tree, with values that neither knows", flush=True)
                    run_side_by_side(release, Path(name) / "side-by-side")
                    print(f"  workers of {release.version} beside those of this tree", flush=True)
                    run_workers(release, Path(name) / "workers")
            except (UpgradeFailed, DemoStopped, ServerDidNotStart, AssertionError) as error:
                print(f"\nThe upgrade failed: {error}", file=sys.stderr)
                return 1
            print(f"  {time.monotonic() - began:.0f} s", flush=True)
        print(f"\nschema of {first.version}, {release.version} and this tree", flush=True)
        try:
            print(f"  {compare_schemas(first, release)} lines are those of a fresh database", flush=True)
        except UpgradeFailed as error:
            print(f"\nThe upgrade failed: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
