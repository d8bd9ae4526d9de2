"""Add the identity providers of organizations: their domains, linked identities, sign-ins and sessions."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import (
    IN_CALLER_ORGANIZATIONS,
    IS_CALLER_ACCOUNT,
    deny_all,
    disable_rls,
    enable_rls,
    give_to_system_role,
)

revision = "0060"
down_revision = "0059"
branch_labels = None
depends_on = None

TABLES = ("identity_providers", "identity_provider_domains", "user_identities", "provider_sign_ins")
LOST = {
    **dict.fromkeys(TABLES, ()),
    "token_families": ("organization_id", "identity_id"),
    "memberships": ("provider_only",),
}

# The owner can always sign in with the password. Otherwise a provider that fails would lock everyone out.
IS_PROVIDER_ONLY = """{row}.role <> 'owner' AND EXISTS (
    SELECT FROM identity_providers AS provider
    WHERE provider.organization_id = {row}.organization_id AND provider.is_required AND provider.is_enabled
)"""
FUNCTIONS = {
    "sartiq_set_provider_only()": (
        f"NEW.provider_only := {IS_PROVIDER_ONLY.format(row='NEW')}; RETURN NEW;",
        "BEFORE INSERT OR UPDATE OF role ON memberships",
    ),
    "sartiq_spread_provider_only()": (
        f"""UPDATE memberships SET provider_only = NOT provider_only
        WHERE organization_id = CASE TG_OP WHEN 'DELETE' THEN OLD.organization_id ELSE NEW.organization_id END
        AND provider_only <> ({IS_PROVIDER_ONLY.format(row="memberships")}); RETURN NULL;""",  # noqa: S608 - the names come from this module
        "AFTER INSERT OR DELETE OR UPDATE OF is_required, is_enabled ON identity_providers",
    ),
}
OF_PROVIDER = {"organization_id": "organizations", "identity_provider_id": "identity_providers"}


def upgrade() -> None:
    _create_table(
        "identity_providers",
        {"organization_id": "organizations"},
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("issuer", sa.String(500), nullable=False),
        sa.Column("client_id", sa.String(255), nullable=False),
        sa.Column("client_secret", sa.LargeBinary(), nullable=True),
        sa.Column("client_secret_key", sa.String(16), nullable=True),
        sa.Column("default_role", sa.String(20), nullable=True),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("is_required", sa.Boolean(), nullable=False),
        indexes=("organization_id", "client_secret_key"),
    )
    _create_table(
        "identity_provider_domains",
        OF_PROVIDER,
        sa.Column("domain", sa.String(253), nullable=False),
        sa.Column("challenge", sa.String(64), nullable=False),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True),
        unique=(("identity_provider_id", "domain"),),
        indexes=("organization_id",),
    )
    op.create_index(
        "uq_identity_provider_domains_verified",
        "identity_provider_domains",
        ["domain"],
        unique=True,
        postgresql_where=sa.text("verified_at IS NOT NULL"),
    )
    _create_table(
        "user_identities",
        {"user_id": "users", **OF_PROVIDER},
        sa.Column("issuer", sa.String(500), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("email", sa.String(320), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        unique=(("identity_provider_id", "subject"),),
        indexes=("user_id", "organization_id"),
    )
    _create_table(
        "provider_sign_ins",
        {"identity_provider_id": "identity_providers"},
        sa.Column("state_hash", sa.String(64), nullable=False),
        sa.Column("client_state", sa.String(128), nullable=False),
        sa.Column("code_challenge", sa.String(43), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("code_hash", sa.String(64), nullable=True),
        sa.Column("subject", sa.String(255), nullable=True),
        sa.Column("email", sa.String(320), nullable=True),
        sa.Column("full_name", sa.String(200), nullable=True),
        unique=(("state_hash",), ("code_hash",)),
        indexes=("identity_provider_id", "expires_at"),
    )
    for column, referred in (("organization_id", "organizations"), ("identity_id", "user_identities")):
        op.add_column("token_families", sa.Column(column, sa.Uuid(), nullable=True))
        name = op.f(f"fk_token_families_{column}")
        op.create_foreign_key(name, "token_families", referred, [column], ["id"], ondelete="CASCADE")
        op.create_index(op.f(f"ix_token_families_{column}"), "token_families", [column])
    op.add_column(
        "memberships", sa.Column("provider_only", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    enable_rls("identity_providers", IN_CALLER_ORGANIZATIONS)
    enable_rls("identity_provider_domains", IN_CALLER_ORGANIZATIONS)
    enable_rls("user_identities", IS_CALLER_ACCOUNT)
    deny_all("provider_sign_ins")
    for function, (body, event) in FUNCTIONS.items():
        # With the rights of the system: the caller may not see the providers, or not change the memberships.
        op.execute(
            f"CREATE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
            f"SET search_path = pg_catalog, public, pg_temp AS $$ BEGIN {body} END $$"
        )
        give_to_system_role(function)
        name = function.removesuffix("()").removeprefix("sartiq_")
        op.execute(f"CREATE TRIGGER {name} {event} FOR EACH ROW EXECUTE FUNCTION {function}")


def downgrade() -> None:
    # The older release would give these sessions all rights of their accounts.
    op.execute("DELETE FROM token_families WHERE organization_id IS NOT NULL")
    op.execute("DROP TRIGGER set_provider_only ON memberships")
    op.execute("DROP TRIGGER spread_provider_only ON identity_providers")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
    op.drop_column("memberships", "provider_only")
    for column in ("organization_id", "identity_id"):
        op.drop_index(op.f(f"ix_token_families_{column}"), "token_families")
        op.drop_constraint(op.f(f"fk_token_families_{column}"), "token_families", type_="foreignkey")
        op.drop_column("token_families", column)
    for table in reversed(TABLES):
        disable_rls(table)
        op.drop_table(table)


def _create_table(
    table: str,
    references: dict[str, str],
    *columns: sa.Column[Any],
    unique: tuple[tuple[str, ...], ...] = (),
    indexes: tuple[str, ...],
) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.Uuid(), nullable=False),
        *(sa.Column(name, sa.Uuid(), nullable=False) for name in references),
        *columns,
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
        *(
            sa.ForeignKeyConstraint(
                [name], [f"{referred}.id"], name=op.f(f"fk_{table}_{name}"), ondelete="CASCADE"
            )
            for name, referred in references.items()
        ),
        *(sa.UniqueConstraint(*names, name=op.f(f"uq_{table}_{'_'.join(names)}")) for names in unique),
    )
    for name in indexes:
        op.create_index(op.f(f"ix_{table}_{name}"), table, [name])
