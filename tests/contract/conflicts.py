"""For each operation that declares 409: how to run into one of its rules that no schema can say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from db.models import Upload
from studio.api_keys import MOST_KEYS
from tests import factories
from tests.api_keys import make_api_key
from tests.contract.every_operation import Request
from tests.contract.people import prove_address
from tests.contract.world import World

Conflict = Callable[[World, Request], None]


def _personal(make: Callable[..., Any], key: str, many: bool = False) -> Conflict:
    """Refer to a row of the caller's own personal scope: seen, but of another scope."""

    def prepare(world: World, request: Request) -> None:
        row_id = str(make(owner=world.owner).id)
        request.body = {**request.body, key: [row_id] if many else row_id}

    return prepare


def _same(key: str, kind: str) -> Conflict:
    """Give a value that another row of the scope has."""

    def prepare(world: World, request: Request) -> None:
        request.body = {**request.body, key: getattr(world.rows[kind], key)}

    return prepare


def _same_as_new(key: str, make: Callable[..., Any]) -> Conflict:
    def prepare(world: World, request: Request) -> None:
        other = make(organization=world.organization)
        request.body = {**request.body, key: getattr(other, key)}

    return prepare


def _make_public(world: World, request: Request) -> None:
    request.body = {**request.body, "public": True}


def _row_in_use(kind: str) -> Conflict:
    """Ask for the row that the world's other rows refer to, not for the unused one."""

    def prepare(world: World, request: Request) -> None:
        request.path[f"{kind}_id"] = str(world.rows[kind].id)

    return prepare


def _preset_in_use(kind: str) -> Conflict:
    def prepare(world: World, request: Request) -> None:
        row = world.rows[kind]
        factories.make_guidelines(organization=world.organization, **{f"{kind}_id": row.id})
        request.path[f"{kind}_id"] = str(row.id)

    return prepare


def _look_in_use(column: str, kind: str) -> Conflict:
    def prepare(world: World, request: Request) -> None:
        row = world.rows[kind]
        factories.make_look(world.rows["shooting"], **{column: row.id})
        request.path[f"{kind}_id"] = str(row.id)

    return prepare


def _guidelines_in_use(world: World, request: Request) -> None:
    world.rows["shooting"].default_guidelines_id = world.rows["guidelines"].id
    factories.make(world.rows["shooting"])
    request.path["guidelines_id"] = str(world.rows["guidelines"].id)


def _running(world: World, request: Request) -> None:
    world.rows["generation"].status = "running"
    world.rows["shot"].status = "generating"
    factories.make(world.rows["generation"])
    factories.make(world.rows["shot"])


def _state(kind: str, status: str) -> Conflict:
    def prepare(world: World, request: Request) -> None:
        world.rows[kind].status = status
        factories.make(world.rows[kind])

    return prepare


def _two_pending(world: World, request: Request) -> None:
    factories.make_prediction(world.rows["generation"], media_id=world.rows["resource"].id, index=1)
    request.body = {}


def _own_account(world: World, request: Request) -> None:
    request.path["user_id"] = str(world.superuser.id)
    request.body = {"is_active": False} if request.operation.method == "PATCH" else None


def _owner(world: World, request: Request) -> None:
    request.path["user_id"] = str(world.owner.id)


def _taken_address(world: World, request: Request) -> None:
    request.body["email"] = world.owner.email


def _address_without_password(world: World, request: Request) -> None:
    request.body = {"email": f"new-{world.owner.email}"}


def _address_got_an_account(world: World, request: Request) -> None:
    prove_address(request, world.member.email)


def _member_again(world: World, request: Request) -> None:
    request.body["email"] = world.member.email


def _no_room_for_keys(world: World, request: Request) -> None:
    for _ in range(MOST_KEYS):
        make_api_key(world.organization)


def _wrong_password(world: World, request: Request) -> None:
    for key in {"current_password", "password"} & request.body.keys():
        request.body[key] = "not-the-password"


def _common_password(world: World, request: Request) -> None:
    request.body["new_password"] = "password1"


def _without_password(world: World, request: Request) -> None:
    del request.body["password"]


def _organization_with_rows(world: World, request: Request) -> None:
    request.path["organization_id"] = str(world.organization.id)


def _slug_of_another_organization(world: World, request: Request) -> None:
    request.body = {**request.body, "slug": factories.make_organization().slug}


def _plan_again(world: World, request: Request) -> None:
    request.path["subscription_id"] = str(world.owner.id)


def _foreign_address(world: World, request: Request) -> None:
    request.media_type = "application/json"
    request.body = {"file_url": "https://localhost/dress.jpg", "type": "front"}


def _shot_type_that_has_pictures(world: World, request: Request) -> None:
    request.body = {"shot_type_ids": [str(world.second_shot_type.id)]}


def _skipped_phase(world: World, request: Request) -> None:
    request.body = {"phase": "AGREEMENT"}


def _consumed(world: World, request: Request) -> None:
    upload: Upload = world.rows["upload"]
    upload.status, upload.media_resource_id = "ingested", world.rows["resource"].id
    factories.make(upload)


def _inner_address(world: World, request: Request) -> None:
    request.body = {**request.body, "url": "https://localhost/hooks"}


def _disabled(world: World, request: Request) -> None:
    world.rows["endpoint"].is_enabled = False
    factories.make(world.rows["endpoint"])


CONFLICTS: dict[str, Conflict] = {
    "create_user": _taken_address,
    "change_password": _wrong_password,
    "reset_password": _common_password,
    "update_current_user": _address_without_password,
    "confirm_email_change": _address_got_an_account,
    "update_user": _own_account,
    "delete_user": _own_account,
    "create_organization": _slug_of_another_organization,
    "update_organization": _slug_of_another_organization,
    "delete_organization": _organization_with_rows,
    "transfer_ownership": _wrong_password,
    "add_member": _member_again,
    "create_invitation": _member_again,
    "create_api_key": _no_room_for_keys,
    "accept_invitation": _without_password,
    "update_member": _owner,
    "remove_member": _owner,
    "create_subscription": _plan_again,
    "create_brand": _same("slug", "brand"),
    "update_brand": _same_as_new("slug", factories.make_brand),
    "create_product": _same("sku", "product"),
    "update_product": _same_as_new("sku", factories.make_product),
    "delete_product": _row_in_use("product"),
    "add_product_image": _foreign_address,
    "create_subject": _same("slug", "subject"),
    "update_subject": _same_as_new("slug", factories.make_subject),
    "delete_subject": _look_in_use("subject_id", "subject"),
    "add_base_image": _personal(factories.make_shot_type, "shot_type_id"),
    "create_style": _same("slug", "style"),
    "update_style": _make_public,
    "delete_style": _look_in_use("style_id", "style"),
    "create_guidelines": _personal(factories.make_shot_type, "shot_type_ids", many=True),
    "update_guidelines": _personal(factories.make_background_preset, "background_preset_id"),
    "delete_guidelines": _guidelines_in_use,
    "create_shot_type": _same("slug", "shot_type"),
    "update_shot_type": _make_public,
    "delete_shot_type": _row_in_use("shot_type"),
    "create_background_preset": _make_public,
    "update_background_preset": _make_public,
    "delete_background_preset": _preset_in_use("background_preset"),
    "create_resolution_preset": _make_public,
    "update_resolution_preset": _make_public,
    "delete_resolution_preset": _preset_in_use("resolution_preset"),
    "delete_generation_model": _row_in_use("model"),
    "create_shooting": _personal(factories.make_brand, "brand_id"),
    "update_shooting": _skipped_phase,
    "delete_shooting": _running,
    "create_look": _personal(factories.make_product, "main_product_id"),
    "update_look": _shot_type_that_has_pictures,
    "delete_look": _running,
    "generate_shot": _state("shot", "approved"),
    "approve_shot": _two_pending,
    "reject_shot": _state("shot", "pending"),
    "request_shot_revision": _state("shot", "pending"),
    "reopen_shot": _state("shot", "pending"),
    "create_generation": _state("shot", "generating"),
    "cancel_generation": _state("generation", "completed"),
    "retry_generation": _state("generation", "completed"),
    "delete_prediction": _state("prediction", "approved"),
    "approve_prediction": _state("prediction", "rejected"),
    "reject_prediction": _state("prediction", "approved"),
    "reopen_prediction": _state("prediction", "pending_review"),
    "create_export": _state("prediction", "rejected"),
    "download_export": _state("export", "failed"),
    "put_upload": _consumed,
    "create_webhook_endpoint": _inner_address,
    "update_webhook_endpoint": _inner_address,
    "test_webhook_endpoint": _disabled,
    "redeliver_webhook": _disabled,
    "redeliver_webhooks": _disabled,
}
