"""Hooks for operations on identity providers and sign-ins, with a provider that runs beside the server."""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Callable

import schemathesis

from studio.accounts.identity_providers.protocol import challenge_of
from tests.contract.fuzzing import client
from tests.contract.fuzzing.cases import SEEDED, coin_flip, get_sender, is_unlinked
from tests.support.servers.identity_provider import CLIENT_ID, SECRET, authorize, set_user

PATH = f"/organizations/{client.SEEDED_ORGANIZATION}/identity-providers"
STATE, VERIFIER = "s" * 43, "v" * 43
MAX_SPARE_PROVIDERS, MAX_SPARE_DOMAINS = 2, 10


@functools.cache
def _provider_id() -> str:
    """Return the id of the provider of the seeded organization, created once."""
    body = {"issuer": os.environ["SARTIQ_CONTRACT_PROVIDER"], "client_id": CLIENT_ID, "client_secret": SECRET}
    return client.create_row(PATH, {"name": "Fuzzed", **body})


def _delete_spare(path: str, count: int) -> None:
    """Delete rows of a list but for the one of the run and some that later requests may use."""
    header = client.long_lived_header("demo")
    rows = client.http_client().get(path, params={"sort": "created_at"}, headers=header).json()["data"]
    kept = (_provider_id(), SEEDED)
    spare = [row["id"] for row in rows if not row["id"].startswith(kept)]
    for row_id in spare[: max(0, len(spare) - count)]:
        client.http_client().delete(f"{path}/{row_id}", headers=header)


def _new_provider_id() -> str:
    _delete_spare(PATH, MAX_SPARE_PROVIDERS)
    body = {"issuer": f"http://{client.UNREACHABLE_HOST}", "client_id": "fuzzed"}
    return client.create_row(PATH, {"name": "Spare", **body})


def _new_domain_id() -> str:
    path = f"{PATH}/{_provider_id()}/domains"
    _delete_spare(path, MAX_SPARE_DOMAINS)
    return client.create_row(path, {"domain": f"{uuid.uuid4().hex}.example"})


def _new_code() -> str:
    """Sign in at the provider as a new user, and return the code."""
    subject = uuid.uuid4().hex
    set_user(os.environ["SARTIQ_CONTRACT_PROVIDER"], subject)
    path = f"/login/oidc/{_provider_id()}"
    query = {"code_challenge": challenge_of(VERIFIER), "state": STATE}
    started = client.http_client().get(f"{path}/start", params=query)
    callback = authorize(started.headers["location"], subject)
    finished = client.http_client().get(callback.partition("/api/v1")[2])
    return finished.headers["location"].split("/")[-2]


def _new_identity_id() -> str:
    _delete_spare("/users/me/identities", MAX_SPARE_DOMAINS)
    body = {"code": _new_code(), "code_verifier": VERIFIER}
    return client.create_row("/users/me/identities", body)


def create_with_an_allowed_issuer(case: schemathesis.Case) -> None:
    """Use an allowed server in half of the cases. The server rejects generated hosts."""
    _delete_spare(PATH, MAX_SPARE_PROVIDERS)
    if isinstance(case.body, dict) and not coin_flip(case):
        case.path_parameters["organization_id"] = client.SEEDED_ORGANIZATION
        case.body["issuer"] = f"http://{client.UNREACHABLE_HOST}"


def use_the_provider(case: schemathesis.Case) -> None:
    """Use the provider of the run. In a walk, links set the provider."""
    if not is_unlinked(case):
        return
    if "provider_id" in case.path_parameters:
        case.path_parameters["provider_id"] = _provider_id()
    elif get_sender(case) == "demo":
        case.path_parameters["identity_provider_id"] = _provider_id()
        _delete_spare(f"{PATH}/{_provider_id()}/domains", MAX_SPARE_DOMAINS)


def change_a_new_provider(case: schemathesis.Case) -> None:
    """Change or delete a new provider."""
    if get_sender(case) == "demo" and is_unlinked(case):
        case.path_parameters["identity_provider_id"] = _new_provider_id()


def use_a_new_domain(case: schemathesis.Case) -> None:
    """Use a new domain."""
    if get_sender(case) == "demo" and is_unlinked(case):
        case.path_parameters["identity_provider_id"] = _provider_id()
        case.path_parameters["domain_id"] = _new_domain_id()


def verify_a_new_domain(case: schemathesis.Case) -> None:
    """Verify a new domain, in half of the cases as a superuser: the DNS has no record."""
    use_a_new_domain(case)
    if get_sender(case) == "demo" and not coin_flip(case):
        case.headers.update(client.long_lived_header("admin"))


def link_a_real_user(case: schemathesis.Case) -> None:
    """Replace a generated code by one of a sign-in."""
    if isinstance(case.body, dict) and get_sender(case) == "demo":
        _delete_spare("/users/me/identities", MAX_SPARE_DOMAINS)
        case.body.update(code=_new_code(), code_verifier=VERIFIER)


def use_a_new_identity(case: schemathesis.Case) -> None:
    """Read or remove a new identity."""
    if get_sender(case) == "demo" and is_unlinked(case):
        case.path_parameters["identity_id"] = _new_identity_id()


PREPARATIONS: dict[str, Callable[[schemathesis.Case], None]] = {
    "create_identity_provider": create_with_an_allowed_issuer,
    "get_identity_provider": use_the_provider,
    "update_identity_provider": change_a_new_provider,
    "list_identity_provider_domains": use_the_provider,
    "add_identity_provider_domain": use_the_provider,
    "get_identity_provider_domain": use_a_new_domain,
    "verify_identity_provider_domain": verify_a_new_domain,
    "start_oidc_login": use_the_provider,
    "finish_oidc_login": use_the_provider,
    "add_identity": link_a_real_user,
    "get_identity": use_a_new_identity,
    "remove_identity": use_a_new_identity,
}
DELETIONS: dict[str, Callable[[schemathesis.Case], None]] = {
    "delete_identity_provider": change_a_new_provider,
    "delete_identity_provider_domain": use_a_new_domain,
}
