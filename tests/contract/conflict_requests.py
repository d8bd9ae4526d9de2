"""For each operation that declares 409: a function that prepares a request with a conflict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import object_session

from db.models import Look, PredictionComment, ProductImage, Upload
from handlers.common.cursors import cursor_serializer
from studio.accounts.api_keys import MAX_KEYS
from studio.catalog.image_limits import MAX_IMAGES
from studio.media.uploads import MAX_PENDING
from studio.review.comments import MAX_COMMENTS
from studio.shootings.look_batches import MAX_COPIED_SHOTS
from tests.contract.operations import Request
from tests.contract.tenant import Tenant, upload_rows
from tests.support import factories
from tests.support.accounts import make_account_export, schedule_deletion, use_email_change_token
from tests.support.factories.api_keys import make_api_key

Conflict = Callable[[Tenant, Request], None]


def _personal(make: Callable[..., Any], key: str, many: bool = False) -> Conflict:
    """Refer to a personal row of the caller, which is visible but belongs to another tenant."""

    def prepare(tenant: Tenant, request: Request) -> None:
        row_id = str(make(owner=tenant.owner).id)
        request.body = {**request.body, key: [row_id] if many else row_id}

    return prepare


def _duplicate_value(key: str, kind: str) -> Conflict:
    """Set a property to the value of another row of the tenant."""

    def prepare(tenant: Tenant, request: Request) -> None:
        request.body = {**request.body, key: getattr(tenant.rows[kind], key)}

    return prepare


def _duplicate_of_new_row(key: str, make: Callable[..., Any]) -> Conflict:
    def prepare(tenant: Tenant, request: Request) -> None:
        other = make(organization=tenant.organization)
        request.body = {**request.body, key: getattr(other, key)}

    return prepare


def _make_public(tenant: Tenant, request: Request) -> None:
    request.body = {**request.body, "public": True}


def _row_in_use(kind: str) -> Conflict:
    """Use the row that other rows refer to instead of an unused one."""

    def prepare(tenant: Tenant, request: Request) -> None:
        request.path[f"{kind}_id"] = str(tenant.rows[kind].id)

    return prepare


def _preset_in_use(kind: str) -> Conflict:
    def prepare(tenant: Tenant, request: Request) -> None:
        row = tenant.rows[kind]
        factories.make_guidelines(organization=tenant.organization, **{f"{kind}_id": row.id})
        request.path[f"{kind}_id"] = str(row.id)

    return prepare


def _look_in_use(column: str, kind: str) -> Conflict:
    def prepare(tenant: Tenant, request: Request) -> None:
        row = tenant.rows[kind]
        factories.make_look(tenant.rows["shooting"], **{column: row.id})
        request.path[f"{kind}_id"] = str(row.id)

    return prepare


def _guidelines_in_use(tenant: Tenant, request: Request) -> None:
    tenant.rows["shooting"].default_guidelines_id = tenant.rows["guidelines"].id
    factories.make(tenant.rows["shooting"])
    request.path["guidelines_id"] = str(tenant.rows["guidelines"].id)


def _generation_running(tenant: Tenant, request: Request) -> None:
    tenant.rows["generation"].status = "running"
    tenant.rows["shot"].status = "generating"
    factories.make(tenant.rows["generation"])
    factories.make(tenant.rows["shot"])


def _row_in_state(kind: str, status: str) -> Conflict:
    def prepare(tenant: Tenant, request: Request) -> None:
        tenant.rows[kind].status = status
        factories.make(tenant.rows[kind])

    return prepare


def _two_pending_predictions(tenant: Tenant, request: Request) -> None:
    factories.make_prediction(tenant.rows["generation"], media_id=tenant.rows["resource"].id, index=1)
    request.body = {}


def _other_format(tenant: Tenant, request: Request) -> None:
    upload_rows(tenant, request)
    request.body["format"] = "jsonl"


def _own_superuser_account(tenant: Tenant, request: Request) -> None:
    request.path["user_id"] = str(tenant.superuser.id)
    request.body = {"is_active": False} if request.operation.method == "PATCH" else None


def _owner_account(tenant: Tenant, request: Request) -> None:
    request.path["user_id"] = str(tenant.owner.id)


def _taken_email(tenant: Tenant, request: Request) -> None:
    request.body["email"] = tenant.owner.email


def _email_without_password(tenant: Tenant, request: Request) -> None:
    request.body = {"email": f"new-{tenant.owner.email}"}


def _email_taken_meanwhile(tenant: Tenant, request: Request) -> None:
    use_email_change_token(request, tenant.member.email)


def _duplicate_member(tenant: Tenant, request: Request) -> None:
    request.body["email"] = tenant.member.email


def _max_api_keys(tenant: Tenant, request: Request) -> None:
    for _ in range(MAX_KEYS):
        make_api_key(tenant.organization)


def _wrong_password(tenant: Tenant, request: Request) -> None:
    for key in {"current_password", "password"} & request.body.keys():
        request.body[key] = "not-the-password"


def _common_password(tenant: Tenant, request: Request) -> None:
    request.body["new_password"] = "password1"


def _scheduled_deletion(tenant: Tenant, request: Request) -> None:
    schedule_deletion(tenant.owner)


def _missing_password(tenant: Tenant, request: Request) -> None:
    del request.body["password"]


def _organization_with_rows(tenant: Tenant, request: Request) -> None:
    request.path["organization_id"] = str(tenant.organization.id)


def _slug_of_another_organization(tenant: Tenant, request: Request) -> None:
    request.body = {**request.body, "slug": factories.make_organization().slug}


def _second_subscription(tenant: Tenant, request: Request) -> None:
    request.path["subscription_id"] = str(tenant.owner.id)


def _disallowed_image_url(tenant: Tenant, request: Request) -> None:
    request.body = {"file_url": "https://localhost/dress.jpg", "type": "front"}


def _region_outside_image(tenant: Tenant, request: Request) -> None:
    request.body = {"region": {"x": 0.5, "y": 0, "width": 0.6, "height": 1}}


def _pending_cutout(tenant: Tenant, request: Request) -> None:
    image = factories.make_product_image(tenant.rows["product"])
    request.path["image_id"] = str(factories.make_product_image_cutout(image).product_image_id)


def _max_product_images(tenant: Tenant, request: Request) -> None:
    product = tenant.rows["product"]
    media_id = factories.make_product_image(product).media_id
    for _ in range(MAX_IMAGES[ProductImage] - 1):
        factories.make_product_image(product, media_id=media_id)


def _shot_type_with_predictions(tenant: Tenant, request: Request) -> None:
    request.body = {"shot_type_ids": [str(tenant.second_shot_type.id)]}


def _external_id_of_another_shot(tenant: Tenant, request: Request) -> None:
    factories.make_shot(tenant.rows["look"], external_id="front")
    request.body = {"external_id": "front"}


def _skipped_phase(tenant: Tenant, request: Request) -> None:
    request.body = {"phase": "AGREEMENT"}


def _max_pending_uploads(tenant: Tenant, request: Request) -> None:
    for _ in range(MAX_PENDING):
        factories.make_upload(owner=tenant.owner)


def _consumed_upload(tenant: Tenant, request: Request) -> None:
    upload: Upload = tenant.rows["upload"]
    upload.status, upload.media_resource_id = "ingested", tenant.rows["resource"].id
    factories.make(upload)


def _internal_webhook_url(tenant: Tenant, request: Request) -> None:
    request.body = {**request.body, "url": "https://localhost/hooks"}


def _push_endpoint(tenant: Tenant, request: Request) -> None:
    tenant.rows["endpoint"].delivery, tenant.rows["endpoint"].url = "push", "https://hooks.example.com/sartiq"
    factories.make(tenant.rows["endpoint"])


def _internal_bucket(tenant: Tenant, request: Request) -> None:
    request.body["s3"]["url"] = "https://localhost"


def _internal_folder(tenant: Tenant, request: Request) -> None:
    request.body = {"https": {"url": "https://localhost/files"}}


def _internal_issuer(tenant: Tenant, request: Request) -> None:
    request.body["issuer"] = "https://localhost"


def _require_in_other_session(tenant: Tenant, request: Request) -> None:
    request.body = {"is_required": True}


def _domain_of_provider(tenant: Tenant, request: Request) -> None:
    request.body["domain"] = tenant.rows["domain"].domain


def _domain_without_record(tenant: Tenant, request: Request) -> None:
    tenant.rows["domain"].verified_at = None
    factories.make(tenant.rows["domain"])


def _unknown_code(tenant: Tenant, request: Request) -> None:
    request.body["code"] = "oc_" + "a" * 43


def _open_delivery(tenant: Tenant, request: Request) -> None:
    tenant.rows["export"].destination_id = tenant.rows["destination"].id
    tenant.rows["export"].delivery_status = "pending"
    factories.make(tenant.rows["export"])


def _too_long_period(tenant: Tenant, request: Request) -> None:
    request.query = {"from": "2025-01-01", "to": "2026-01-02"}


def _disabled_endpoint(tenant: Tenant, request: Request) -> None:
    tenant.rows["endpoint"].is_enabled = False
    factories.make(tenant.rows["endpoint"])


def _transfer_row_in_use(conflict: Conflict) -> Conflict:
    def prepare(tenant: Tenant, request: Request) -> None:
        request.body = {"organization_id": str(tenant.sibling_organization.id)}
        conflict(tenant, request)

    return prepare


def _too_many_looks(tenant: Tenant, request: Request) -> None:
    look = tenant.rows["look"]
    columns = {name: getattr(look, name) for name in ("owner_id", "organization_id", "shooting_id")}
    values = [{**columns, "main_product_id": look.main_product_id} for _ in range(MAX_COPIED_SHOTS)]
    session = object_session(look)
    assert session is not None
    session.execute(insert(Look), values)


def _max_comments(tenant: Tenant, request: Request) -> None:
    prediction = tenant.rows["prediction"]
    columns = {name: getattr(prediction, name) for name in ("owner_id", "organization_id")}
    values = {**columns, "prediction_id": prediction.id, "author_name": "Demo", "text": "Sharper."}
    session = object_session(prediction)
    assert session is not None
    session.execute(insert(PredictionComment), [values] * MAX_COMMENTS)


def _expired_cursor(tenant: Tenant, request: Request) -> None:
    """Use a cursor of another database, from 1970."""
    parts = [f"changes {tenant.organization.id}", "other", 0, 0, 0]
    request.query = {**request.query, "organization_id": str(tenant.organization.id)}
    request.query["cursor"] = str(cursor_serializer(tenant.settings.secret_keys).dumps(parts))


def _open_account_export(tenant: Tenant, request: Request) -> None:
    make_account_export(tenant.owner, status="running")


def _wrong_otp(tenant: Tenant, request: Request) -> None:
    request.body["otp"] = "no code"


def _malformed_passkey(tenant: Tenant, request: Request) -> None:
    request.body["credential"] = "{}"


CONFLICTS: dict[str, Conflict] = {
    "create_prediction_comment": _max_comments,
    "list_changes": _expired_cursor,
    "create_user": _taken_email,
    "login": _scheduled_deletion,
    "request_account_deletion": _wrong_password,
    "request_account_export": _open_account_export,
    "download_account_export": _row_in_state("account_export", "failed"),
    "change_password": _wrong_password,
    "start_totp": _wrong_password,
    "confirm_totp": _wrong_otp,
    "start_passkey": _wrong_password,
    "register_passkey": _malformed_passkey,
    "replace_recovery_codes": _wrong_password,
    "remove_second_factor": _wrong_password,
    "reset_second_factors": _own_superuser_account,
    "reset_password": _common_password,
    "update_current_user": _email_without_password,
    "confirm_email_change": _email_taken_meanwhile,
    "update_user": _own_superuser_account,
    "delete_user": _own_superuser_account,
    "create_organization": _slug_of_another_organization,
    "update_organization": _slug_of_another_organization,
    "delete_organization": _organization_with_rows,
    "transfer_ownership": _wrong_password,
    "add_member": _duplicate_member,
    "create_invitation": _duplicate_member,
    "create_api_key": _max_api_keys,
    "accept_invitation": _missing_password,
    "update_member": _owner_account,
    "remove_member": _owner_account,
    "create_subscription": _second_subscription,
    "get_organization_usage": _too_long_period,
    "get_organization_usage_csv": _too_long_period,
    "create_brand": _duplicate_value("slug", "brand"),
    "update_brand": _duplicate_of_new_row("slug", factories.make_brand),
    "create_product": _duplicate_value("sku", "product"),
    "update_product": _duplicate_of_new_row("sku", factories.make_product),
    "put_product_by_external_id": _duplicate_of_new_row("sku", factories.make_product),
    "delete_product": _row_in_use("product"),
    "add_product_image": _max_product_images,
    "add_product_image_from_url": _disallowed_image_url,
    "update_product_image": _region_outside_image,
    "get_product_image_cutout": _pending_cutout,
    "create_subject": _duplicate_value("slug", "subject"),
    "update_subject": _duplicate_of_new_row("slug", factories.make_subject),
    "delete_subject": _look_in_use("subject_id", "subject"),
    "add_base_image": _personal(factories.make_shot_type, "shot_type_id"),
    "create_style": _duplicate_value("slug", "style"),
    "update_style": _make_public,
    "delete_style": _look_in_use("style_id", "style"),
    "create_guidelines": _personal(factories.make_shot_type, "shot_type_ids", many=True),
    "update_guidelines": _personal(factories.make_background_preset, "background_preset_id"),
    "delete_guidelines": _guidelines_in_use,
    "create_shot_type": _duplicate_value("slug", "shot_type"),
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
    "delete_shooting": _generation_running,
    "duplicate_shooting": _too_many_looks,
    "create_looks": _personal(factories.make_product, "main_product_ids", many=True),
    "transfer_brand": _transfer_row_in_use(_row_in_use("brand")),
    "transfer_product": _transfer_row_in_use(_row_in_use("product")),
    "transfer_style": _transfer_row_in_use(_look_in_use("style_id", "style")),
    "transfer_subject": _transfer_row_in_use(_look_in_use("subject_id", "subject")),
    "transfer_guidelines": _transfer_row_in_use(_guidelines_in_use),
    "create_look": _personal(factories.make_product, "main_product_id"),
    "update_look": _shot_type_with_predictions,
    "delete_look": _generation_running,
    "update_shot": _external_id_of_another_shot,
    "generate_shot": _row_in_state("shot", "approved"),
    "approve_shot": _two_pending_predictions,
    "reject_shot": _row_in_state("shot", "pending"),
    "request_shot_revision": _row_in_state("shot", "pending"),
    "reopen_shot": _row_in_state("shot", "pending"),
    "create_generation": _row_in_state("shot", "generating"),
    "cancel_generation": _row_in_state("generation", "completed"),
    "retry_generation": _row_in_state("generation", "completed"),
    "delete_prediction": _row_in_state("prediction", "approved"),
    "approve_prediction": _row_in_state("prediction", "rejected"),
    "reject_prediction": _row_in_state("prediction", "approved"),
    "reopen_prediction": _row_in_state("prediction", "pending_review"),
    "create_export": _row_in_state("prediction", "rejected"),
    "publish_prediction": _row_in_state("prediction", "rejected"),
    "download_export": _row_in_state("export", "failed"),
    "create_product_import": _other_format,
    "cancel_product_import": _row_in_state("import", "completed"),
    "download_product_import_results": _row_in_state("import", "running"),
    "create_presigned_url": _max_pending_uploads,
    "put_upload": _consumed_upload,
    "create_destination": _internal_bucket,
    "update_destination": _internal_folder,
    "delete_destination": _open_delivery,
    "create_identity_provider": _internal_issuer,
    "update_identity_provider": _require_in_other_session,
    "add_identity_provider_domain": _domain_of_provider,
    "verify_identity_provider_domain": _domain_without_record,
    "add_identity": _unknown_code,
    "create_webhook_endpoint": _internal_webhook_url,
    "update_webhook_endpoint": _internal_webhook_url,
    "poll_webhook_messages": _push_endpoint,
    "acknowledge_webhook_messages": _push_endpoint,
    "test_webhook_endpoint": _disabled_endpoint,
    "redeliver_webhook": _disabled_endpoint,
    "redeliver_webhooks": _disabled_endpoint,
}
