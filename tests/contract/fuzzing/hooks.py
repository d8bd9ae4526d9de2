"""Hooks of the contract run, which change generated requests before they are sent.

They protect the accounts, sessions and rows that the run depends on, and they insert values that only a
running server can create: signatures, mailed tokens and stored files. Other parts of a request are kept.
"""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Callable
from typing import Any

import jwt
import schemathesis
from schemathesis.core.deserialization import deserialize_yaml
from schemathesis.core.media_types import YAML_MEDIA_TYPES

from tests.contract.fuzzing import (
    accounts,
    checks,
    client,
    destinations,
    identity_providers,
    image_urls,
    second_factors,
    webhooks,
)
from tests.contract.fuzzing.cases import (
    SEEDED,
    coin_flip,
    get_sender,
    is_authenticated,
    is_unlinked,
    is_valid_case,
    seeded_id,
)
from tests.contract.fuzzing.deletions import DELETIONS, target_new_row
from tests.contract.fuzzing.images import image_bytes

SYSTEM_RESOURCES = ("subject", "style", "shot_type", "background_preset", "resolution_preset")
SUPERUSER_ONLY = ("users:admin", "subscriptions:write", "generation_models:write")
MEDIA_TYPES = (
    *(f"image/{name}" for name in ("jpeg", "png", "webp", "avif", "gif", "heic", "heif")),
    "application/octet-stream",
)

METADATA_KEY = re.compile(r"[^\x00:]{1,40}", re.DOTALL)
UUID_PATTERN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# The import registers the checks.
CUSTOM_CHECKS = (checks.oauth2_is_enforced, checks.idempotency_key_replays_response)

schemathesis.openapi.media_type(MEDIA_TYPES[0], image_bytes(), aliases=MEDIA_TYPES[1:])
schemathesis.openapi.format("binary", image_bytes())


@functools.lru_cache(maxsize=4)
def read_yaml(content: bytes) -> Any:
    """Parse a document and cache the result: the contract takes a second and is read hundreds of times."""
    return deserialize_yaml(content)


# Registered for every YAML media type, because Schemathesis uses the first match for all of them.
@schemathesis.deserializer(*YAML_MEDIA_TYPES)
def deserialize(_: schemathesis.DeserializationContext, response: schemathesis.Response) -> Any:
    """Return the parsed body of a YAML response."""
    return read_yaml(response.content)


def operation_id(case: schemathesis.Case) -> str:
    """Return the operationId of the operation that a case calls."""
    return str(case.operation.definition.raw["operationId"])


def protect_accounts(case: schemathesis.Case) -> None:
    """Use a new account in half of the valid cases, and never an account of the run.

    The other properties must not be reasons to reject such a case: all five cases of a run could be rejected.
    """
    if is_valid_case(case) and is_unlinked(case) and not coin_flip(case):
        case.path_parameters["user_id"] = client.new_account_id()
        case.headers.pop("If-Match", None)
        if isinstance(case.body, dict) and "email" in case.body:
            case.body["email"] = f"{uuid.uuid4().hex}@example.com"
    elif str(case.path_parameters.get("user_id", "")).startswith(SEEDED):
        case.path_parameters["user_id"] = str(uuid.uuid4())


def protect_password(case: schemathesis.Case) -> None:
    """Replace a correct current password by a wrong one: the run needs the password to sign in."""
    if isinstance(case.body, dict) and case.body.get("current_password") in client.PASSWORDS.values():
        case.body["current_password"] = "not-the-password"


def end_another_session(case: schemathesis.Case) -> None:
    """Sign out a new session instead of the session of the run."""
    if is_authenticated(case):
        case.headers["Authorization"] = f"Bearer {client.open_session()['access_token']}"


def request_a_first_copy(case: schemathesis.Case) -> None:
    """Request a copy of personal data as a new account: an account has one open copy at a time."""
    if is_authenticated(case):
        case.headers["Authorization"] = f"Bearer {client.open_session_of_new_account()['access_token']}"


def use_a_real_refresh_token(case: schemathesis.Case) -> None:
    """Replace a generated refresh token by one of a new session."""
    if isinstance(case.body, dict) and isinstance(case.body.get("refresh_token"), str):
        case.body["refresh_token"] = client.open_session()["refresh_token"]


def revoke_a_real_token(case: schemathesis.Case) -> None:
    """Replace a generated token by one of a new session."""
    if isinstance(case.body, dict) and isinstance(case.body.get("token"), str):
        case.body["token"] = client.open_session()["refresh_token" if coin_flip(case) else "access_token"]


def end_a_new_session(case: schemathesis.Case) -> None:
    """End the new session that sends the request."""
    token = client.open_session()["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    case.path_parameters["session_id"] = claims["sid"]
    if get_sender(case) == "demo" and is_authenticated(case):
        case.headers["Authorization"] = f"Bearer {token}"


def use_a_mailed_token(case: schemathesis.Case) -> None:
    """Replace a generated recovery token by one that was mailed to the guest account."""
    if isinstance(case.body, dict) and isinstance(case.body.get("token"), str):
        case.body["token"] = client.find_recovery_token() or case.body["token"]


def sign_upload(case: schemathesis.Case) -> None:
    """Use the id and the signature of a new presigned URL."""
    upload = client.create_upload_url()
    case.path_parameters["upload_id"] = upload["upload_id"]
    case.query.update(expires=upload["expires"], signature=upload["signature"])


def name_a_stored_file(case: schemathesis.Case) -> None:
    """Request an existing file that the identity can read."""
    found = client.find_stored_file("second" if get_sender(case) == "second" else "demo")
    if found:
        case.path_parameters["resource_id"], case.path_parameters["file_name"] = found


def open_a_real_link(case: schemathesis.Case) -> None:
    """Use the token of an existing share link."""
    case.path_parameters["share_token"] = client.find_share_token() or case.path_parameters["share_token"]


def exchange_a_real_link(case: schemathesis.Case) -> None:
    """Use the token of a new review link."""
    if isinstance(case.body, dict) and isinstance(case.body.get("token"), str):
        case.body["token"] = client.create_review_link()[1]


def open_a_published_image(case: schemathesis.Case) -> None:
    """Use the URL of an existing publication."""
    found = client.find_published_image()
    if found:
        case.path_parameters["publish_token"], case.path_parameters["file_name"] = found


def put_an_unconditional_product(case: schemathesis.Case) -> None:
    """Put a product without preconditions, which generated headers rarely meet, and with a SKU of its own."""
    for name in ("If-Match", "If-None-Match"):
        case.headers.pop(name, None)
    if isinstance(case.body, dict) and case.body.get("sku") is not None:
        case.body["sku"] = uuid.uuid4().hex


def import_an_uploaded_file(case: schemathesis.Case) -> None:
    """Import a file that was uploaded.."""
    if get_sender(case) != "demo" or not isinstance(case.body, dict):
        return
    case.body["file_url"] = client.upload_product_file()
    if case.body.get("images_zip_url") is not None:
        case.body["images_zip_url"] = client.upload_images_file()
    if not coin_flip(case):
        case.query["organization_id"] = seeded_id(0x02)


def read_an_import(case: schemathesis.Case) -> None:
    """Read an import. In a walk, links set the import."""
    if get_sender(case) == "demo" and is_unlinked(case):
        case.path_parameters["import_id"] = client.import_id()


def cancel_a_new_import(case: schemathesis.Case) -> None:
    """Cancel a new import."""
    if get_sender(case) == "demo" and is_unlinked(case):
        case.path_parameters["import_id"] = client.new_import_id()


def name_a_real_asset(case: schemathesis.Case) -> None:
    """Request an existing file of the documentation page."""
    case.path_parameters["asset_name"] = "docs.css"


def explain_a_real_problem(case: schemathesis.Case) -> None:
    """Request the page of an existing problem code."""
    case.path_parameters["code"] = "not_found"


def protect_seeded_rows(case: schemathesis.Case) -> None:
    """Replace the id of a seeded row in the last path parameter: later steps need the seeded rows.

    The last parameter names the row that the operation deletes or replaces; its parents are kept.
    """
    names = re.findall(r"{(\w+)}", case.path)
    if names and str(case.path_parameters.get(names[-1])).startswith(SEEDED):
        case.path_parameters[names[-1]] = str(uuid.uuid4())


# Path parameters with a seeded row that the demo account may change.
ROWS = {
    "organization_id": seeded_id(0x02),
    "subscription_id": seeded_id(0x03),
    "brand_id": seeded_id(0x04),
    "product_id": seeded_id(0x05),
    "image_id": seeded_id(0x06),
    "shooting_id": seeded_id(0x07),
    "look_id": seeded_id(0x08),
    "shot_id": seeded_id(0x09),
    "guidelines_id": seeded_id(0x0D),
    "generation_id": seeded_id(0x12),
    "prediction_id": seeded_id(0x13),
    "share_id": seeded_id(0x32),
    "review_link_id": seeded_id(0x37),
    "endpoint_id": seeded_id(0x1A),
    "delivery_id": seeded_id(0x1B),
    "invitation_id": seeded_id(0x2A),
    "api_key_id": seeded_id(0x2C),
    "account_export_id": seeded_id(0x36),
}


def target_seeded_rows(case: schemathesis.Case) -> None:
    """Use existing rows in writes and in half of the reads. In a walk, links set the rows."""
    if get_sender(case) != "demo" or not is_unlinked(case) or (case.method == "GET" and coin_flip(case)):
        return
    for name in ROWS.keys() & case.path_parameters.keys():
        case.path_parameters[name] = ROWS[name]


# Properties of bodies that must refer to existing rows, with the seeded rows.
REQUIRED_ROWS = {
    "main_product_id": seeded_id(0x05),
    "shot_type_id": seeded_id(0x0E),
    "shot_type_ids": [seeded_id(0x0E)],
    "main_product_ids": [seeded_id(5)],
}


# Ids that are never dropped: the target organization, the task of an external provider, messages, which need
# not exist, and what is required: the new owner, and the client at an identity provider.
KEPT_REFERENCES = ("organization_id", "task_id", "message_ids", "user_id", "client_id")


def drop_invented_references(case: schemathesis.Case) -> None:
    """Remove generated ids from half of the cases: they refer to no row, so requests with them return 404."""
    if coin_flip(case):
        return
    if "organization_id" in case.query and get_sender(case) == "demo":
        case.query["organization_id"] = seeded_id(0x02)
    # Schemathesis cannot validate a multipart body that a hook has changed, because the body is raw bytes.
    if not isinstance(case.body, dict) or case.media_type != "application/json":
        return
    for name in [key for key in case.body if str(key).endswith(("_id", "_ids"))]:
        if name in REQUIRED_ROWS:
            case.body[name] = REQUIRED_ROWS[name]
        elif name not in KEPT_REFERENCES:
            del case.body[name]


def drop_if_match(case: schemathesis.Case) -> None:
    """Remove If-Match from half of the cases, and from every case of a walk.

    A generated version never matches, so a request with If-Match returns 412 and changes nothing. A walk
    would end there.
    """
    if not coin_flip(case) or not is_unlinked(case):
        case.headers.pop("If-Match", None)


def use_unique_idempotency_key(case: schemathesis.Case) -> None:
    """Use a new key in every case: generated keys are short and repeat with other bodies."""
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())


def change_a_guest(case: schemathesis.Case) -> None:
    """Change the membership of the guest account. The peers must not become members, nor the owner leave."""
    case.path_parameters["organization_id"] = seeded_id(2)
    case.path_parameters["user_id"] = client.ensure_guest_membership(seeded_id(2))


def subscribe_a_new_account(case: schemathesis.Case) -> None:
    """Create the subscription of a new account: the path has the id of an account, which no link provides."""
    case.path_parameters["subscription_id"] = client.new_account_id()


def change_the_guest_subscription(case: schemathesis.Case) -> None:
    """Change a subscription that pays for no generation of the run."""
    case.path_parameters["subscription_id"] = client.guest_plan_id()


def replace_a_new_model(case: schemathesis.Case) -> None:
    """Replace a generation model that the run does not use."""
    case.path_parameters["model_id"] = client.unused_model_id()


def cancel_a_new_generation(case: schemathesis.Case) -> None:
    """Cancel a new generation."""
    case.path_parameters["generation_id"] = client.request_small_generation(1)


def retry_a_canceled_generation(case: schemathesis.Case) -> None:
    """Retry a generation that has just been canceled."""
    case.path_parameters["generation_id"] = client.canceled_generation_id()


def add_an_image_to_a_new_row(case: schemathesis.Case) -> None:
    """Add an image to a new row: some of the images are rejected, so the row must not be a reason too."""
    if get_sender(case) == "demo" and is_unlinked(case):
        target_new_row(case, next(iter(case.path_parameters)))


# A hook of the generation, because Schemathesis cannot validate a multipart body that is changed afterwards.
@schemathesis.hook.apply_to(operation_id="add_base_image")
def map_body(_: schemathesis.HookContext, body: Any) -> Any:
    """Use an existing shot type instead of a generated id."""
    if isinstance(body, dict) and UUID_PATTERN.fullmatch(str(body.get("shot_type_id"))):
        body["shot_type_id"] = seeded_id(0x0E)
    return body


def list_users_as_superuser(case: schemathesis.Case) -> None:
    """List accounts as a superuser in half of the cases, without a generated cursor, which gets 404."""
    if get_sender(case) == "demo" and not coin_flip(case):
        case.headers.update(client.long_lived_header("admin"))
        case.query.pop("cursor", None)


def read_as_superuser(case: schemathesis.Case) -> None:
    """Read what only superusers may read as one in half of the cases: others get 403."""
    if get_sender(case) == "demo" and not coin_flip(case):
        case.headers.update(client.long_lived_header("admin"))


def send_an_api_key(case: schemathesis.Case) -> None:
    """Describe an API key in half of the cases: a session has none and gets 404."""
    if get_sender(case) == "demo" and not coin_flip(case):
        case.headers.update(client.api_key_header())


def change_a_new_row(case: schemathesis.Case) -> None:
    """Change a new row in half of the cases, and never a seeded one: those belong to the system."""
    name = next(iter(case.path_parameters))
    is_seeded = str(case.path_parameters[name]).startswith(SEEDED)
    if get_sender(case) == "demo" and is_unlinked(case) and (is_seeded or not coin_flip(case)):
        target_new_row(case, name)


def export_an_approved_prediction(case: schemathesis.Case) -> None:
    """Export an approved prediction in half of the cases."""
    if coin_flip(case) or get_sender(case) != "demo" or not isinstance(case.body, dict):
        return
    case.path_parameters["shooting_id"] = seeded_id(0x07)
    case.body["prediction_ids"] = [client.approved_prediction_id()]


def read_a_completed_export(case: schemathesis.Case) -> None:
    """Read a completed export. In a walk, links set the export."""
    if get_sender(case) == "demo" and is_unlinked(case):
        case.path_parameters["export_id"] = client.completed_export_id()


def use_the_recommended_model(case: schemathesis.Case) -> None:
    """Remove the generated model id, so that the server chooses the recommended model."""
    if isinstance(case.body, dict):
        case.body.pop("model_id", None)


def request_a_real_product(case: schemathesis.Case) -> None:
    """Generate images of a seeded product in half of the cases; generated slugs refer to no row."""
    if coin_flip(case) or not isinstance(case.body, dict):
        return
    for name in [key for key in case.body if str(key).endswith(("_slug", "_image", "_string"))]:
        del case.body[name]
    case.body.update(product_id=seeded_id(0x05), generation_strategy="GENERATE")
    case.query["organization_id"] = seeded_id(0x02)


def send_as_superuser(case: schemathesis.Case) -> None:
    """Send writes that require a superuser as one: the demo account would only get 403 responses."""
    is_change = case.method.upper() != "GET"  # a read may check the access of a peer
    if is_change and case.operation.definition.raw.get("x-permission") in SUPERUSER_ONLY:
        case.headers.update(client.long_lived_header("admin"))


def make_room_for_links(case: schemathesis.Case) -> None:
    """Delete the oldest links of the row that gets one more."""
    path = case.formatted_path
    client.delete_oldest_links(f"{path}s" if path.endswith("/share") else path)


PREPARATIONS: dict[str, Callable[[schemathesis.Case], None]] = {
    "share_prediction": make_room_for_links,
    "create_review_link": make_room_for_links,
    "update_user": protect_accounts,
    "update_member": change_a_guest,
    "remove_member": change_a_guest,
    "create_subscription": subscribe_a_new_account,
    "generate_shot": use_the_recommended_model,
    "generate_shooting": use_the_recommended_model,
    "create_generation": request_a_real_product,
    "cancel_generation": cancel_a_new_generation,
    "retry_generation": retry_a_canceled_generation,
    "add_base_image": add_an_image_to_a_new_row,
    "list_users": list_users_as_superuser,
    "get_provider_config": read_as_superuser,
    "get_current_api_key": send_an_api_key,
    **{f"update_{name}": change_a_new_row for name in SYSTEM_RESOURCES},
    "create_export": export_an_approved_prediction,
    "get_export": read_a_completed_export,
    "download_export": read_a_completed_export,
    "put_product_by_external_id": put_an_unconditional_product,
    "create_product_import": import_an_uploaded_file,
    "get_product_import": read_an_import,
    "list_product_import_results": read_an_import,
    "download_product_import_results": read_an_import,
    "cancel_product_import": cancel_a_new_import,
    **webhooks.PREPARATIONS,
    **destinations.PREPARATIONS,
    **identity_providers.PREPARATIONS,
    **accounts.PREPARATIONS,
    **second_factors.PREPARATIONS,
    **DELETIONS,
    "request_account_export": request_a_first_copy,
    "change_password": protect_password,
    "logout": end_another_session,
    "revoke_token": revoke_a_real_token,
    "end_session": end_a_new_session,
    "refresh_token": use_a_real_refresh_token,
    "reset_password": use_a_mailed_token,
    "put_upload": sign_upload,
    "get_file": name_a_stored_file,
    "get_shared_image": open_a_real_link,
    "get_published_image": open_a_published_image,
    "exchange_review_link": exchange_a_real_link,
    "get_docs_asset": name_a_real_asset,
    "get_problem_page": explain_a_real_problem,
    "replace_subscription": change_the_guest_subscription,
    "renew_subscription": change_the_guest_subscription,
    "replace_generation_model": replace_a_new_model,
}

# Operations on the row in their path. In a walk this is the row of an earlier step.
ROW_OPERATIONS = {
    *DELETIONS, "cancel_generation", "retry_generation", "replace_subscription", "renew_subscription",
    "replace_generation_model", "remove_member", "remove_identity",
}  # fmt: skip


def replace_null_ids(case: schemathesis.Case) -> None:
    """Replace a null in the path by an unknown id.

    A personal brand has `organization_id: null`. Schemathesis 4.32.5 infers a link from it, sends
    `GET /organizations/None` as a valid request, and reports the correct response 422 as a failure.
    """
    for name, value in case.path_parameters.items():
        if value is None or value == "None":
            case.path_parameters[name] = str(uuid.uuid4())


def drop_keys_of_metadata(case: schemathesis.Case) -> None:
    """Remove what cannot be a key: OpenAPI 3.0 has no `propertyNames`, so its document does not say it."""
    bodies = [case.body, *(item.get("body") for item in _items(case.body))]
    for body in bodies:
        metadata = body.get("metadata") if isinstance(body, dict) else None
        if isinstance(metadata, dict):
            body["metadata"] = {key: value for key, value in metadata.items() if METADATA_KEY.fullmatch(key)}


def _items(body: Any) -> list[dict[str, Any]]:
    """Return the items of a batch; other bodies have none."""
    items = body.get("items") if isinstance(body, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def mark_numeric_references(case: schemathesis.Case) -> None:
    """Add a letter to a reference that is a number, in a filter of a list.

    The check of object-level authorization finds `external_id=0` in `"count": 0` of an empty list, and
    reports the equally empty list of another organization as the same object.
    """
    for name in {"external_id", "sku"} & set(case.query or {}):
        if str(case.query[name]).isdecimal():
            case.query[name] = f"x{case.query[name]}"


# Preparations of all cases, not only of valid ones: they protect the accounts of the run.
COMMON_PREPARATIONS = (
    protect_accounts,
    protect_password,
    end_another_session,
    accounts.transfer_a_new_organization,
    accounts.add_a_new_member,
)


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Prepare a case for its operation before it is sent."""
    prepare = PREPARATIONS.get(operation_id(case))
    if case.method.upper() in ("DELETE", "PUT"):
        protect_seeded_rows(case)
    if is_valid_case(case):
        replace_null_ids(case)
        send_as_superuser(case)
        drop_if_match(case)
        use_unique_idempotency_key(case)
        drop_invented_references(case)
        drop_keys_of_metadata(case)
        mark_numeric_references(case)
        image_urls.redirect_image_urls(case)
        if case.method.upper() not in ("DELETE", "PUT"):
            target_seeded_rows(case)
        if prepare is not None and (is_unlinked(case) or operation_id(case) not in ROW_OPERATIONS):
            prepare(case)
        if operation_id(case) == "receive_task_webhook":
            kwargs["auth"] = client.sign_callback
    elif prepare in COMMON_PREPARATIONS:
        prepare(case)
