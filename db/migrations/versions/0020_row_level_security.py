"""Enable row-level security on PostgreSQL, which keeps the rows of tenants apart."""

from alembic import op

from db.migrations.frozen.policies import (
    ALL,
    APPLICATION_ROLE,
    IN_CALLER_ORGANIZATIONS,
    IS_CALLER_ACCOUNT,
    NONE,
    OWNED,
    PUBLIC,
    SYSTEM_ROLE,
    USER_ID,
    create_functions,
    create_reference_check,
    deny_all,
    disable_rls,
    drop_functions,
    drop_reference_check,
    enable_rls,
    give_to_system_role,
    is_referenced,
    parent_is_visible,
)

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
        enable_rls(table, OWNED)
    for table, references in PUBLISHED.items():
        create_reference_check(table, references)
        enable_rls(table, OWNED, readable=f"{PUBLIC} OR {is_referenced(table)}")
    enable_rls("products", OWNED, readable=PUBLIC)
    enable_rls("subject_base_images", OWNED, readable=PUBLIC)
    enable_rls("product_images", OWNED, readable=parent_is_visible("products", "product_id"))
    for table, (parent, column) in OF_PARENTS.items():
        enable_rls(table, parent_is_visible(parent, column))
    for table in OF_ACCOUNTS:
        enable_rls(table, IS_CALLER_ACCOUNT)
    enable_rls("organizations", IN_CALLER_ORGANIZATIONS.replace("organization_id", "id"))
    # A caller must not make themselves a member of another organization.
    enable_rls("memberships", IN_CALLER_ORGANIZATIONS, readable=IS_CALLER_ACCOUNT)
    enable_rls("invitations", IN_CALLER_ORGANIZATIONS)
    enable_rls("api_keys", IN_CALLER_ORGANIZATIONS)
    enable_rls("users", f"id = {USER_ID}", readable=COLLEAGUE, lockable=COLLEAGUE)
    enable_rls("subscriptions", f"({IS_CALLER_ACCOUNT} OR {PAYS_FOR_ME})")
    enable_rls("generation_models", NONE, readable=ALL)
    # Triggers reject changes of events by every role.
    enable_rls(
        "audit_events",
        f"({IN_CALLER_ORGANIZATIONS} OR (organization_id IS NULL AND account_id = {USER_ID}))",
        privileges="SELECT, INSERT",
    )
    for table in OF_THE_SYSTEM:
        deny_all(table)
    op.execute(QUEUE_POSITION)
    # Only the system role sees the generations of all tenants, so it must own the function.
    give_to_system_role("sartiq_queue_position")
    op.execute(f"GRANT USAGE ON SCHEMA public TO {APPLICATION_ROLE}, {SYSTEM_ROLE}")


def downgrade() -> None:
    op.execute("DROP FUNCTION sartiq_queue_position")
    for table in (
        *OF_TENANTS, *PUBLISHED, *OF_PARENTS, *OF_ACCOUNTS, "product_images",
        "products", "subject_base_images", "organizations", "memberships",
        "api_keys", "invitations", "users", "subscriptions", "generation_models", "audit_events",
        *OF_THE_SYSTEM,
    ):  # fmt: skip
        disable_rls(table)
    for table in PUBLISHED:
        drop_reference_check(table)
    drop_functions()
