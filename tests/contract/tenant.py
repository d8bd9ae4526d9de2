"""A tenant with a row of every kind, and for each operation a request on these rows that succeeds."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

import pytest
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session, object_session

from db.base import new_id, utc_now
from db.models import Membership, Organization, PasswordResetToken, RefreshToken, TokenFamily, User
from handlers.app import Application
from handlers.common.permissions import EVERY_KEY, SUPERUSER_ONLY
from studio.accounts.identity.tokens import generate_token, hash_token
from studio.infrastructure.settings import Settings
from studio.infrastructure.storage import LocalDisk, export_key, media_key
from studio.media.data_files import store_data_file
from studio.media.memory_gate import load_slot
from studio.media.signing import sign_share, sign_upload
from studio.media.variants import make_variants
from studio.publications import publish
from studio.publications.files import list_published_variants, to_original
from tests.contract.operations import CONTRACT, OPERATIONS, Operation, Request, encode, resolve
from tests.support import factories
from tests.support.accounts import (
    ACCOUNT_PREPARATIONS,
    make_account_export,
    make_second_factor,
    make_session,
)
from tests.support.app import REACHABLE_HOST, auth_headers
from tests.support.factories.api_keys import api_key_headers, make_api_key, make_api_usage
from tests.support.factories.identity_providers import (
    make_domain,
    make_identity,
    make_identity_provider,
    make_sign_in,
)
from tests.support.factories.invitations import make_invitation
from tests.support.servers.compute import signature_headers

SEEDED = "01990000-5eed-7000-8000-"
KINDS = {
    0x01: "user", 0x02: "organization", 0x03: "subscription", 0x04: "brand", 0x05: "product", 0x06: "image",
    0x07: "shooting", 0x08: "look", 0x09: "shot", 0x0A: "subject", 0x0B: "base_image", 0x0C: "style",
    0x0D: "guidelines", 0x0E: "shot_type", 0x0F: "background_preset", 0x10: "resolution_preset",
    0x11: "model", 0x12: "generation", 0x13: "prediction", 0x14: "resource", 0x15: "upload",
    0x1A: "endpoint", 0x1B: "delivery",
    0x2A: "invitation",
    0x2C: "api_key",
    0x20: "export", 0x32: "share", 0x35: "comment", 0x36: "account_export", 0x37: "review_link",
    0x3A: "factor",
    0x2B: "import", 0x62: "import_result",
}  # fmt: skip


# Properties that the renderer sets on a prediction, with the values of the contract's examples.
REVIEW_FIELDS = {
    name: CONTRACT["components"]["schemas"][name.title()]["example"] for name in ("quality", "provenance")
}


def make_image(file_format: str = "PNG", size: tuple[int, int] = (48, 64)) -> bytes:
    """Return a small image file."""
    target = io.BytesIO()
    Image.new("RGB", size, "#c8b49a").save(target, file_format)
    return target.getvalue()


class Tenant:
    """A tenant. `rows` has one row of every kind by the name of its path parameter, without `_id`.

    The rows of a personal tenant belong to the owner and to no organization.
    """

    def __init__(self, settings: Settings, personal: bool = False) -> None:
        self.settings, self.personal = settings, personal
        self.storage = LocalDisk(settings.media_dir)
        self.owner: User = factories.make_user()
        self.organization: Organization = factories.make_organization(self.owner)
        ownership = self.ownership
        subscription = factories.make_subscription(self.owner)
        brand = factories.make_brand(**ownership)
        shot_type, second_shot_type = (
            factories.make_shot_type(**ownership),
            factories.make_shot_type(**ownership),
        )
        style = factories.make_style(**ownership)
        subject = factories.make_subject(**ownership)
        product = factories.make_product(
            **ownership,
            brand_id=brand.id,
            external_id="shop-2041",
            custom_metadata={"season": "spring-2027"},
        )
        media = self.write_file(factories.make_media(**ownership, extension="png", content_type="image/png"))
        base_image = factories.make_base_image(subject, shot_type_id=shot_type.id, media_id=media.id)
        image = factories.make_product_image(product, media_id=media.id)
        factories.make_product_image_cutout(image, media_id=media.id, **MADE_CUTOUT)
        background = factories.make_background_preset(**ownership)
        resolution = factories.make_resolution_preset(**ownership)
        guidelines = factories.make_guidelines(**ownership)
        model = factories.make_generation_model(recommended=True)
        shooting = factories.make_shooting(**ownership, brand_id=brand.id)
        look = factories.make_look(shooting, main_product_id=product.id, shot_type_ids=[shot_type.id])
        shot = factories.make_shot(look, shot_type_id=shot_type.id, status="pending_review")
        generation = factories.make_generation(shot, model_id=model.id, status="completed", progress=100)
        prediction = factories.make_prediction(
            generation, media_id=media.id, content_type="image/png", width=48, height=64, **REVIEW_FIELDS
        )
        upload = factories.make_upload(**ownership)
        membership = None if self.personal else self.find_membership(self.owner)
        share = factories.make_prediction_share(prediction, membership)
        endpoint = factories.make_webhook_endpoint(**ownership)
        product_import = factories.make_product_import(**ownership)
        # No server listens there, so that a sign-in fails at once.
        provider = make_identity_provider(self.organization, issuer=f"http://{REACHABLE_HOST}")
        self.member = factories.make_user()
        factories.make_membership(self.organization, self.member)
        self.viewer, self.admin = factories.make_user(), factories.make_user()
        factories.make_membership(self.organization, self.viewer, role="viewer")
        factories.make_membership(self.organization, self.admin, role="admin")
        self.second_shot_type = second_shot_type
        self.rows: dict[str, Any] = {
            "organization": self.organization, "subscription": subscription, "brand": brand,
            "product": product, "image": image, "shooting": shooting, "look": look, "shot": shot,
            "subject": subject, "base_image": base_image, "style": style, "guidelines": guidelines,
            "shot_type": shot_type,
            "background_preset": background, "resolution_preset": resolution, "model": model,
            "generation": generation, "prediction": prediction, "share": share,
            "comment": factories.make_prediction_comment(prediction, self.owner),
            "review_link": factories.make_review_link(shooting, membership),
            "resource": media, "upload": upload,
            "user": self.member, "endpoint": endpoint, "export": factories.make_export(shooting, prediction),
            "account_export": make_account_export(self.owner),
            "factor": make_second_factor(self.owner),
            "delivery": factories.make_webhook_delivery(endpoint),
            "import": product_import, "import_result": factories.make_product_import_result(product_import),
            "destination": factories.make_destination(**ownership),
            "invitation": make_invitation(self.organization),
            "api_key": make_api_key(self.organization),
            "identity_provider": provider, "provider": provider, "domain": make_domain(provider),
            "identity": make_identity(provider, self.owner),
        }  # fmt: skip

    def reload(self, session: Session) -> None:
        """Load all rows again, so that they have plain columns and can be copied."""
        self.rows = {name: _read(session, row) for name, row in self.rows.items()}
        self.organization, self.member = self.rows["organization"], self.rows["user"]
        self.owner, self.viewer = _read(session, self.owner), _read(session, self.viewer)
        self.admin = _read(session, self.admin)
        self.second_shot_type = _read(session, self.second_shot_type)

    def attach_to(self, session: Session) -> None:
        """Attach all rows to another session."""
        session.add_all([self.owner, self.viewer, self.admin, self.second_shot_type, *self.rows.values()])

    @property
    def ownership(self) -> dict[str, Any]:
        """The arguments of factories for rows of this tenant."""
        return {"owner": self.owner} if self.personal else {"organization": self.organization}

    def find_membership(self, user: User) -> Membership:
        """Return the membership of a user in the organization."""
        members = (Membership.organization_id == self.organization.id, Membership.user_id == user.id)
        session = object_session(self.organization)
        assert session is not None
        return session.scalars(select(Membership).where(*members)).one()

    @cached_property
    def superuser(self) -> User:
        """A superuser who is no member of the organization."""
        return factories.make_user(is_superuser=True)

    @cached_property
    def sibling_organization(self) -> Organization:
        """Another organization of the owner, with other members."""
        return factories.make_organization(self.owner)

    def write_file(self, media: Any) -> Any:
        """Write a real file for a media row and return the row."""
        self.storage.write(media_key(media.id, media.extension), make_image())
        return media

    def caller_for(self, operation: Operation) -> User:
        """Return an account with the permission to call an operation, by itself or with an API key."""
        return self.superuser if is_for_superusers(operation) else self.owner

    def headers_for(self, app: Application, operation: Operation) -> dict[str, str]:
        """Return the Authorization header of a caller with the permission to call an operation."""
        if operation.raw.get("x-permission") in EVERY_KEY:
            # Its use is not recorded again within a minute, so the key stays as it is.
            return api_key_headers(app, self.organization, ["brands:read"], last_used_at=utc_now())
        return auth_headers(app, self.caller_for(operation))

    def request_for(self, operation_id: str, is_prepared: bool = True) -> Request:
        """Return a request to which the operation should return its success status.

        `is_prepared` changes rows where success needs it: an account that is deleted leaves its organization.
        """
        operation = OPERATIONS[operation_id]
        request = Request(operation)
        for name in operation.path_names():
            request.path[name] = self.path_value(operation, name)
        for parameter in operation.parameters:
            if parameter["in"] == "query" and (
                parameter.get("required") or (parameter["name"] == "organization_id" and not self.personal)
            ):
                request.query[parameter["name"]] = self.replace_seed_ids(parameter["schema"].get("example"))
        if operation.media_types:
            request.media_type = operation.media_types[0]
            request.body = self.body_for(operation, request.media_type)
        prepare = PREPARATIONS.get(operation_id)
        if prepare is not None and is_prepared:
            prepare(self, request)
        return request

    def path_value(self, operation: Operation, name: str) -> str:
        """Return the value of a path parameter that names a row of this tenant."""
        row = self.rows.get(name.removesuffix("_id"))
        if row is not None and name.endswith("_id"):
            return str(row.id)
        parameter = next(parameter for parameter in operation.parameters if parameter["name"] == name)
        return str(parameter["schema"]["example"])

    def body_for(self, operation: Operation, media_type: str) -> Any:
        """Return the contract's example of a body, with the ids of this tenant."""
        if media_type.startswith("image/") or media_type == "application/octet-stream":
            return make_image("PNG")
        schema = operation.body_schema(media_type)
        if media_type == "multipart/form-data":
            parts = {
                name: self.replace_seed_ids(resolve(part).get("example"))
                for name, part in schema["properties"].items()
            }
            return {**parts, "file": make_image()}
        return self.replace_seed_ids(schema.get("example", {}))

    def replace_seed_ids(self, value: Any) -> Any:
        """Return an example with the demo rows' ids replaced by ids of this tenant."""
        if isinstance(value, dict):
            return {name: self.replace_seed_ids(item) for name, item in value.items()}
        if isinstance(value, list):
            items = [self.replace_seed_ids(item) for item in value]
            return items if any(isinstance(item, dict) for item in items) else list(dict.fromkeys(items))
        if isinstance(value, str) and value.startswith(SEEDED):
            kind = KINDS[int(value.removeprefix(SEEDED)[:4], 16)]
            return str(self.rows[kind].id)
        if isinstance(value, str) and "/files/media/" in value:
            return self.file_url(self.rows["resource"].id)
        return value

    def file_url(self, resource_id: object) -> str:
        """Return the URL of a stored image."""
        return f"{self.settings.public_url}/api/v1/files/media/{resource_id}/file.png"


def _read(session: Session, row: Any) -> Any:
    return session.get_one(type(row), row.id)


def is_for_superusers(operation: Operation) -> bool:
    """Return whether only superusers can call an operation."""
    return operation.raw.get("x-permission") in SUPERUSER_ONLY


def sign_upload_request(tenant: Tenant, request: Request) -> None:
    """Add a valid signature to an upload request."""
    upload_id = UUID(request.path["upload_id"])
    signed = sign_upload(tenant.settings.secret_key, upload_id, utc_now(), timedelta(minutes=15))
    request.query = {"expires": signed.expires, "signature": signed.signature}
    request.media_type = "image/png"


def _share(tenant: Tenant, request: Request) -> None:
    request.path["share_token"] = sign_share(tenant.settings.secret_key, tenant.rows["share"].id)


def _exchange(tenant: Tenant, request: Request) -> None:
    token, membership = (
        generate_token("rl"),
        None if tenant.personal else tenant.find_membership(tenant.owner),
    )
    factories.make_review_link(tenant.rows["shooting"], membership, token_hash=hash_token(token))
    request.body["token"] = token


def _approve_prediction(tenant: Tenant, request: Request) -> None:
    prediction = factories.make(tenant.rows["prediction"])
    # A request may have changed the status since the row was loaded.
    prediction.status = "approved"
    factories.make(prediction)


def _publish(tenant: Tenant, request: Request) -> None:
    # A prediction of its own: a prediction has one publication, and a request may be prepared twice.
    shot, model, media = tenant.rows["shot"], tenant.rows["model"], tenant.rows["resource"]
    generation = factories.make_generation(shot, model_id=model.id, status="completed", progress=100)
    prediction = factories.make_prediction(generation, media_id=media.id, status="approved")
    publication_id = new_id()
    token = publish.derive_token(tenant.settings.secret_key, publication_id)
    factories.make_publication(prediction, id=publication_id, token_hash=publish.hash_token(token))
    request.path |= {"publish_token": token, "file_name": f"{media.content_hash}.{media.extension}"}
    original = to_original(media)
    with load_slot():
        assert make_variants(tenant.storage, original, list_published_variants(original), lambda: True)


def _user_without_subscription(tenant: Tenant, request: Request) -> None:
    request.path["subscription_id"] = str(factories.make_user().id)


def _png_file_name(tenant: Tenant, request: Request) -> None:
    request.path["file_name"] = "file.png"


def _unused_row(kind: str, make: Callable[..., Any]) -> Callable[[Tenant, Request], None]:
    def prepare(tenant: Tenant, request: Request) -> None:
        request.path[f"{kind}_id"] = str(make(**tenant.ownership).id)

    return prepare


def _to_its_own_tenant(tenant: Tenant, request: Request) -> None:
    """Transfer a row to where it is: unlike other transfers, an API key can do this."""
    if tenant.personal:
        request.body = {"organization_id": None}


def _own_comment(tenant: Tenant, request: Request) -> None:
    comment = factories.make_prediction_comment(tenant.rows["prediction"], tenant.owner)
    request.path["comment_id"] = str(comment.id)


def _unused_model(tenant: Tenant, request: Request) -> None:
    request.path["model_id"] = str(factories.make_generation_model().id)


def _empty_organization(tenant: Tenant, request: Request) -> None:
    organization = factories.make_organization(tenant.owner)
    for role, account in (("admin", tenant.admin), ("member", tenant.member), ("viewer", tenant.viewer)):
        factories.make_membership(organization, account, role=role)
    request.path["organization_id"] = str(organization.id)


def _open_session(tenant: Tenant, request: Request) -> None:
    until = utc_now() + timedelta(days=1)
    family = factories.make(TokenFamily(user_id=tenant.owner.id, expires_at=until))
    token = generate_token("rt_")
    factories.make(RefreshToken(family_id=family.id, token_hash=hash_token(token), expires_at=until))
    request.body = {"refresh_token": token}


def _open_session_token(tenant: Tenant, request: Request) -> None:
    form = request.body
    _open_session(tenant, request)
    request.body = {**form, "token": request.body["refresh_token"]}


def _mailed_token(tenant: Tenant, request: Request) -> None:
    token = generate_token("pr_")
    until = utc_now() + timedelta(hours=1)
    factories.make(
        PasswordResetToken(user_id=tenant.owner.id, token_hash=hash_token(token), expires_at=until)
    )
    request.body["token"] = token


def _set_shot_state(status: str, **columns: Any) -> Callable[[Tenant, Request], None]:
    def prepare(tenant: Tenant, request: Request) -> None:
        for kind in ("shot", "prediction"):
            row = tenant.rows[kind]
            row.status = status
            if kind == "shot" and status == "approved":
                row.approved_prediction_id = tenant.rows["prediction"].id
            factories.make(row)

    return prepare


def _set_generation_state(status: str) -> Callable[[Tenant, Request], None]:
    def prepare(tenant: Tenant, request: Request) -> None:
        tenant.rows["generation"].status = status
        factories.make(tenant.rows["generation"])

    return prepare


def _made_cutout(tenant: Tenant, request: Request) -> None:
    # A photo of its own: an update of the tenant's photo makes its cut-out pending.
    image = factories.make_product_image(tenant.rows["product"])
    factories.make_product_image_cutout(image, media_id=tenant.rows["resource"].id, **MADE_CUTOUT)
    request.path["image_id"] = str(image.id)


def _completed_export(tenant: Tenant, request: Request) -> None:
    export = tenant.rows["export"]
    export.status, export.content_hash = "completed", "0" * 64
    factories.make(export)
    with tenant.storage.open_writer(export_key(export.id)) as file:
        file.write(b"PK")


def _own_account_export(tenant: Tenant, request: Request) -> None:
    export = tenant.rows["account_export"]
    if export.user_id != tenant.owner.id:
        export = make_account_export(tenant.owner)
        request.path["account_export_id"] = str(export.id)
    with tenant.storage.open_writer(export_key(export.id)) as file:
        file.write(b"PK")


def upload_rows(tenant: Tenant, request: Request) -> None:
    """Upload a CSV file, and refer to it."""
    stored = store_data_file(tenant.storage, io.BytesIO(b"sku,name\nA-1,Dress\n"))
    upload = factories.make_upload(
        **tenant.ownership, content_type="text/csv", file_id=stored.id, file_hash=stored.content_hash
    )
    request.body["file_url"] = f"{tenant.settings.public_url}/api/v1/files/media/{upload.id}/file.csv"


def _finished_import(tenant: Tenant, request: Request) -> None:
    tenant.rows["import"].status = "completed"
    factories.make(tenant.rows["import"])


def _sign_callback(tenant: Tenant, request: Request) -> None:
    request.headers |= signature_headers(encode("application/json", request.body), "msg_of_the_suite")


def _reachable_url(tenant: Tenant, request: Request) -> None:
    request.body["url"] = f"http://{REACHABLE_HOST}/hooks"


def _message_to_poll(tenant: Tenant, request: Request) -> None:
    """Let the delivery of the example wait at an endpoint without a URL."""
    endpoint, delivery = tenant.rows["endpoint"], tenant.rows["delivery"]
    endpoint.delivery, endpoint.url = "pull", None
    delivery.status = "pending"
    factories.make(endpoint)
    factories.make(delivery)


def _reachable_issuer(tenant: Tenant, request: Request) -> None:
    request.body["issuer"] = f"http://{REACHABLE_HOST}"


def _verified_domain(tenant: Tenant, request: Request) -> None:
    """Verify the domain before: no DNS server has its record."""
    tenant.rows["domain"].verified_at = utc_now()
    factories.make(tenant.rows["domain"])


def _confirmed_sign_in(tenant: Tenant, request: Request) -> None:
    provider = tenant.rows["provider"]
    # A caller who is no member joins.
    domain = make_domain(provider, verified_at=utc_now()).domain
    email = {"email": f"demo@{domain}"}
    request.body["code"] = make_sign_in(provider, request.body["code_verifier"], **email)


def _own_identity(tenant: Tenant, request: Request) -> None:
    if tenant.rows["identity"].user_id != tenant.owner.id:
        request.path["identity_id"] = str(make_identity(tenant.rows["provider"], tenant.owner).id)


def _reachable_bucket(tenant: Tenant, request: Request) -> None:
    request.body["s3"]["url"] = f"http://{REACHABLE_HOST}"


# Preparations of requests that the contract's example alone does not make succeed.
PREPARATIONS: dict[str, Callable[[Tenant, Request], None]] = {
    **ACCOUNT_PREPARATIONS,
    "refresh_token": _open_session,
    "revoke_token": _open_session_token,
    "reset_password": _mailed_token,
    "put_upload": sign_upload_request,
    "exchange_review_link": _exchange,
    "get_shared_image": _share,
    "get_published_image": _publish,
    "publish_prediction": _approve_prediction,
    "get_file": _png_file_name,
    "get_product_image_cutout": _made_cutout,
    "create_subscription": _user_without_subscription,
    "delete_organization": _empty_organization,
    "delete_product": _unused_row("product", factories.make_product),
    "delete_subject": _unused_row("subject", factories.make_subject),
    "delete_style": _unused_row("style", factories.make_style),
    "delete_guidelines": _unused_row("guidelines", factories.make_guidelines),
    "delete_shot_type": _unused_row("shot_type", factories.make_shot_type),
    "delete_background_preset": _unused_row("background_preset", factories.make_background_preset),
    "delete_resolution_preset": _unused_row("resolution_preset", factories.make_resolution_preset),
    "delete_generation_model": _unused_model,
    **dict.fromkeys(
        ("transfer_brand", "transfer_product", "transfer_style", "transfer_subject", "transfer_guidelines"),
        _to_its_own_tenant,
    ),
    "update_prediction_comment": _own_comment,
    "delete_prediction_comment": _own_comment,
    "reopen_shot": _set_shot_state("approved"),
    "reopen_prediction": _set_shot_state("approved"),
    "cancel_generation": _set_generation_state("pending"),
    "retry_generation": _set_generation_state("failed"),
    "receive_task_webhook": _sign_callback,
    "create_webhook_endpoint": _reachable_url,
    "poll_webhook_messages": _message_to_poll,
    "acknowledge_webhook_messages": _message_to_poll,
    "create_destination": _reachable_bucket,
    "create_identity_provider": _reachable_issuer,
    "verify_identity_provider_domain": _verified_domain,
    "add_identity": _confirmed_sign_in,
    **dict.fromkeys(("get_identity", "remove_identity"), _own_identity),
    "create_export": _set_shot_state("approved"),
    "download_export": _completed_export,
    **dict.fromkeys(("get_account_export", "download_account_export"), _own_account_export),
    "create_product_import": upload_rows,
    "download_product_import_results": _finished_import,
}


def _in_organization(make: Callable[..., Any]) -> Callable[[Tenant], Any]:
    return lambda tenant: make(organization=tenant.organization)


def _make_prediction(tenant: Tenant) -> Any:
    generation = factories.make_generation(
        tenant.rows["shot"], model_id=tenant.rows["model"].id, status="completed"
    )
    return factories.make_prediction(generation, media_id=tenant.rows["resource"].id, **REVIEW_FIELDS)


MADE_CUTOUT = {"status": "completed", "method": "u2netp", "confidence": 0.97, "made_at": utc_now()}


# Functions that add one more row to a list, by operation.
def _make_usage_of_two(tenant: Tenant) -> None:
    """Create usage of the tenant and of another one: the index of all usage is not that of a tenant's."""
    other = make_api_key(factories.make_organization(tenant.owner))
    for key in (tenant.rows["api_key"], other, other):
        make_api_usage(key)


MORE_ROWS: dict[str, Callable[[Tenant], Any]] = {
    "list_users": lambda tenant: factories.make_user(),
    "list_sessions": lambda tenant: make_session(tenant.owner),
    "list_second_factors": lambda tenant: make_second_factor(tenant.owner),
    "list_account_exports": lambda tenant: make_account_export(tenant.owner),
    "list_identities": lambda tenant: make_identity(tenant.rows["provider"], tenant.owner),
    "list_identity_providers": lambda tenant: make_identity_provider(tenant.organization),
    "list_identity_provider_domains": lambda tenant: make_domain(tenant.rows["provider"]),
    "list_organizations": lambda tenant: factories.make_organization(tenant.owner),
    "list_members": lambda tenant: factories.make_membership(tenant.organization),
    "list_invitations": lambda tenant: make_invitation(tenant.organization),
    "list_audit_events": _in_organization(factories.make_audit_event),
    "list_own_audit_events": lambda tenant: factories.make_audit_event(account_id=tenant.owner.id),
    "list_api_keys": lambda tenant: make_api_key(tenant.organization),
    "list_organization_api_usage": _make_usage_of_two,
    "list_api_usage": lambda tenant: make_api_usage(tenant.rows["api_key"]),
    "list_subscriptions": lambda tenant: factories.make_subscription(tenant.owner, is_active=False),
    "list_subscription_usage": lambda tenant: factories.make_credit_movement(tenant.rows["subscription"]),
    "list_brands": _in_organization(factories.make_brand),
    "list_products": lambda tenant: factories.make_product_image(
        factories.make_product(organization=tenant.organization)
    ),
    "list_product_images": lambda tenant: factories.make_product_image(tenant.rows["product"]),
    "list_subjects": lambda tenant: factories.make_base_image(
        factories.make_subject(organization=tenant.organization)
    ),
    "list_styles": _in_organization(factories.make_style),
    "list_guidelines": _in_organization(factories.make_guidelines),
    "list_shot_types": _in_organization(factories.make_shot_type),
    "list_background_presets": _in_organization(factories.make_background_preset),
    "list_resolution_presets": _in_organization(factories.make_resolution_preset),
    "list_generation_models": lambda tenant: factories.make_generation_model(),
    "list_shootings": _in_organization(factories.make_shooting),
    "list_looks": lambda tenant: factories.make_shot(
        factories.make_look(tenant.rows["shooting"], shot_type_ids=[tenant.rows["shot_type"].id])
    ),
    "list_shots": lambda tenant: factories.make_shot(tenant.rows["look"]),
    "list_generations": _make_prediction,
    "list_predictions": _make_prediction,
    "list_prediction_comments": lambda tenant: factories.make_prediction_comment(
        tenant.rows["prediction"], tenant.owner
    ),
    "list_prediction_shares": lambda tenant: factories.make_prediction_share(tenant.rows["prediction"]),
    "list_review_links": lambda tenant: factories.make_review_link(tenant.rows["shooting"]),
    "list_webhook_endpoints": _in_organization(factories.make_webhook_endpoint),
    "list_webhook_deliveries": lambda tenant: factories.make_webhook_delivery(tenant.rows["endpoint"]),
    "list_product_imports": lambda tenant: factories.make_product_import_result(
        factories.make_product_import(organization=tenant.organization)
    ),
    "list_product_import_results": lambda tenant: factories.make_product_import_result(tenant.rows["import"]),
    "list_destinations": _in_organization(factories.make_destination),
    "list_export_deliveries": lambda tenant: factories.make_export_delivery(tenant.rows["export"]),
    "list_exports": lambda tenant: factories.make_export(tenant.rows["shooting"], tenant.rows["prediction"]),
}


def make_more_rows(tenant: Tenant, name: str, count: int) -> None:
    """Create rows of a list.

    Args:
        name: The operationId of the list.
    """
    if name not in MORE_ROWS:
        pytest.fail(
            f"The suite cannot create rows of `{name}`: add a function that creates one row to MORE_ROWS in "
            "tests/contract/tenant.py.",
            pytrace=False,
        )
    for _ in range(count):
        MORE_ROWS[name](tenant)
