"""Enable row-level security on PostgreSQL, which keeps the rows of tenants apart."""

from alembic import op

from db.rls.policies import (
    ALL,
    NONE,
    OWNED,
    PUBLIC,
    USER_ID,
    create_functions,
    drop_functions,
)
from db.rls.policies import (
    IN_CALLER_ORGANIZATIONS as OF_MY_ORGANIZATIONS,
)
from db.rls.policies import (
    IS_CALLER_ACCOUNT as OF_MY_ACCOUNT,
)
from db.rls.policies import (
    create_reference_check as show_referred,
)
from db.rls.policies import (
    deny_all as close,
)
from db.rls.policies import (
    disable_rls as open_up,
)
from db.rls.policies import (
    drop_reference_check as hide_referred,
)
from db.rls.policies import (
    enable_rls as protect,
)
from db.rls.policies import (
    is_referenced as referred,
)
from db.rls.policies import (
    parent_is_visible as through,
)
from db.rls.session_role import APPLICATION_ROLE, SYSTEM_ROLE

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

OF_TENANTS = (
    "brands", "exports", "generations", "guidelines", "looks", "predictions", "shootings", "shots", "uploads",
    "webhook_endpoints",
)  # fmt: skip
# A public row may be made private again. Rows that already refer to it must still show it and its images.
PUBLISHED = {
    "background_presets": [
        ("brands", "default_background_preset_id"),
        ("guidelines", "background_preset_id"),
    ],
    "media_resources": [
        ("background_presets", "image_media_id"),
        ("product_images", "media_id"),
        ("products", "cover_media_id"),
        ("styles", "cover_media_id"),
        ("subject_base_images", "media_id"),
        ("subjects", "cover_media_id"),
    ],
    "resolution_presets": [
        ("brands", "default_resolution_preset_id"),
        ("guidelines", "resolution_preset_id"),
    ],
    "shot_types": [
        ("guidelines_shot_types", "shot_type_id"),
        ("look_shot_types", "shot_type_id"),
        ("shots", "shot_type_id"),
        ("subject_base_images", "shot_type_id"),
    ],
    "styles": [("brands", "default_style_id"), ("looks", "style_id")],
    "subjects": [("guidelines_subjects", "subject_id"), ("looks", "subject_id")],
}
OF_PARENTS = {
    "credit_movements": ("subscriptions", "subscription_id"),
    "export_items": ("exports", "export_id"),
    "guidelines_shot_types": ("guidelines", "guidelines_id"),
    "guidelines_subjects": ("guidelines", "guidelines_id"),
    "look_guidelines": ("looks", "look_id"),
    "look_products": ("looks", "look_id"),
    "look_shot_types": ("looks", "look_id"),
    "refresh_tokens": ("token_families", "family_id"),
    "webhook_deliveries": ("webhook_endpoints", "endpoint_id"),
}
OF_ACCOUNTS = ("email_changes", "idempotency_keys", "password_reset_tokens", "token_families")

# Attempts are counted before a caller is authenticated; callbacks of the Compute API belong to no tenant.
OF_THE_SYSTEM = ("known_addresses", "task_callbacks", "try_counts")

# A member spends the credits of the owner. A refund goes to the account that paid, even if the organization
# has another owner by then.
PAYS_FOR_ME = """
(SELECT true FROM memberships WHERE memberships.user_id = subscriptions.user_id AND role = 'owner' LIMIT 1)
OR (SELECT true FROM generations WHERE generations.subscription_id = subscriptions.id LIMIT 1)
"""
COLLEAGUE = "(SELECT true FROM memberships WHERE memberships.user_id = users.id LIMIT 1)"

# A caller may know how many generations are ahead in the queue, and nothing else about them.
QUEUE_POSITION = """
CREATE FUNCTION sartiq_queue_position(priority integer, created_at timestamptz, id uuid) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public
RETURN (
    SELECT count(*) + 1 FROM generations AS earlier
    WHERE earlier.status = 'pending' AND (
        earlier.priority > $1 OR (earlier.priority = $1 AND (earlier.created_at, earlier.id) < ($2, $3))
    )
)
"""


def upgrade() -> None:
    create_functions()
    for table in OF_TENANTS:
        protect(table, OWNED)
    for table, references in PUBLISHED.items():
        show_referred(table, references)
        protect(table, OWNED, readable=f"{PUBLIC} OR {referred(table)}")
    protect("products", OWNED, readable=PUBLIC)
    protect("subject_base_images", OWNED, readable=PUBLIC)
    protect("product_images", OWNED, readable=through("products", "product_id"))
    for table, (parent, column) in OF_PARENTS.items():
        protect(table, through(parent, column))
    for table in OF_ACCOUNTS:
        protect(table, OF_MY_ACCOUNT)
    protect("organizations", OF_MY_ORGANIZATIONS.replace("organization_id", "id"))
    # A caller must not make themselves a member of another organization.
    protect("memberships", OF_MY_ORGANIZATIONS, readable=OF_MY_ACCOUNT)
    protect("invitations", OF_MY_ORGANIZATIONS)
    protect("api_keys", OF_MY_ORGANIZATIONS)
    protect("users", f"id = {USER_ID}", readable=COLLEAGUE, lockable=COLLEAGUE)
    protect("subscriptions", f"({OF_MY_ACCOUNT} OR {PAYS_FOR_ME})")
    protect("generation_models", NONE, readable=ALL)
    # Triggers reject changes of events by every role.
    protect(
        "audit_events",
        f"({OF_MY_ORGANIZATIONS} OR (organization_id IS NULL AND account_id = {USER_ID}))",
        privileges="SELECT, INSERT",
    )
    for table in OF_THE_SYSTEM:
        close(table)
    op.execute(QUEUE_POSITION)
    # Only the system role sees the generations of all tenants, so it must own the function.
    op.execute(f"GRANT CREATE ON SCHEMA public TO {SYSTEM_ROLE}")
    op.execute(f"ALTER FUNCTION sartiq_queue_position OWNER TO {SYSTEM_ROLE}")
    op.execute(f"REVOKE CREATE ON SCHEMA public FROM {SYSTEM_ROLE}")
    op.execute(f"GRANT USAGE ON SCHEMA public TO {APPLICATION_ROLE}, {SYSTEM_ROLE}")


def downgrade() -> None:
    op.execute("DROP FUNCTION sartiq_queue_position")
    for table in (
        *OF_TENANTS, *PUBLISHED, *OF_PARENTS, *OF_ACCOUNTS, "product_images",
        "products", "subject_base_images", "organizations", "memberships",
        "api_keys", "invitations", "users", "subscriptions", "generation_models", "audit_events",
        *OF_THE_SYSTEM,
    ):  # fmt: skip
        open_up(table)
    for table in PUBLISHED:
        hide_referred(table)
    drop_functions()
