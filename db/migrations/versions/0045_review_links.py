"""Add the links with which guests review a shooting, and the policies that limit guests to it."""

import sqlalchemy as sa
from alembic import op

from db.migrations.frozen.policies import (
    APPLICATION_ROLE,
    USER_ID,
    disable_rls,
    enable_rls,
    parent_is_visible,
)

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None

TABLE = "review_links"

# PL/pgSQL, which the planner does not inline: the policies of the tables that they read would otherwise be
# planned with every statement of every caller. For callers who are no guests they return at once.
FUNCTIONS = {
    "sartiq_guest_sees_shot": "EXISTS (SELECT FROM public.shots WHERE id = $1)",
    "sartiq_guest_sees_prediction": "EXISTS (SELECT FROM public.predictions WHERE id = $1)",
    "sartiq_guest_sees_product": "EXISTS (SELECT FROM public.looks WHERE main_product_id = $1)",
    "sartiq_guest_sees_media": "EXISTS (SELECT FROM public.predictions WHERE media_id = $1)",
    "sartiq_guest_sees_metadata": (
        "EXISTS (SELECT FROM public.shots WHERE id = $1) OR EXISTS (SELECT FROM public.looks WHERE id = $1)"
    ),
}
# Photos of a visible product, shot types of a visible shot and lists of a visible look have policies already.
READABLE = {
    "shootings": "id = sartiq_shooting_id()",
    "looks": "shooting_id = sartiq_shooting_id()",
    "shots": "shooting_id = sartiq_shooting_id()",
    "generations": "sartiq_guest_sees_shot(shot_id)",
    "predictions": "sartiq_guest_sees_shot(shot_id)",
    "prediction_comments": "sartiq_guest_sees_prediction(prediction_id)",
    "products": "sartiq_guest_sees_product(id)",
    "media_resources": "sartiq_guest_sees_media(id)",
    "metadata_entries": "sartiq_guest_sees_metadata(resource_id)",
}
# A guest locks the rows that a decision is about; the decision itself runs as the system.
LOCKABLE = ("shots", "predictions")
OWN_COMMENT = f"review_link_id = {USER_ID} AND sartiq_guest_sees_prediction(prediction_id)"
# Their policies follow from visible parents, and would let a guest write them too.
WRITTEN_BY_MEMBERS = ("look_shot_types", "look_products", "look_guidelines")


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("shooting_id", sa.Uuid(), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=False),
        sa.Column("membership_id", sa.Uuid(), nullable=True),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        *(
            sa.ForeignKeyConstraint(
                [column], [f"{parent}.id"], name=op.f(f"fk_{TABLE}_{column}"), ondelete="CASCADE"
            )
            for column, parent in (
                ("shooting_id", "shootings"),
                ("created_by_id", "users"),
                ("membership_id", "memberships"),
            )
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{TABLE}")),
        sa.UniqueConstraint("token_hash", name=op.f(f"uq_{TABLE}_token_hash")),
    )
    op.create_index(f"ix_{TABLE}_shooting", TABLE, ["shooting_id", "created_at", "id"])
    for column in ("created_by_id", "membership_id", "expires_at"):
        op.create_index(op.f(f"ix_{TABLE}_{column}"), TABLE, [column])
    op.add_column("prediction_comments", sa.Column("review_link_id", sa.Uuid(), nullable=True))
    enable_rls(TABLE, parent_is_visible("shootings", "shooting_id"))
    _limit_guests()


def _limit_guests() -> None:
    op.execute(
        "CREATE FUNCTION sartiq_shooting_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE "
        "RETURN nullif(current_setting('sartiq.shooting_id', true), '')::uuid"
    )
    for name, condition in FUNCTIONS.items():
        op.execute(
            f"CREATE FUNCTION {name}(uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS "
            f"$$ BEGIN IF sartiq_shooting_id() IS NULL THEN RETURN false; END IF; RETURN {condition}; END $$"
        )
    for table, condition in READABLE.items():
        _create_policy(table, "guest_select", f"FOR SELECT TO {APPLICATION_ROLE} USING ({condition})")
    for table in LOCKABLE:
        # FOR UPDATE requires an UPDATE policy; `WITH CHECK (false)` rejects every actual change.
        rule = f"FOR UPDATE TO {APPLICATION_ROLE} USING ({READABLE[table]}) WITH CHECK (false)"
        _create_policy(table, "guest_lock", rule)
    for command, rule in (
        ("INSERT", f"WITH CHECK ({OWN_COMMENT})"),
        ("UPDATE", f"USING ({OWN_COMMENT})"),
        ("DELETE", f"USING ({OWN_COMMENT})"),
    ):
        name = f"guest_{command.lower()}"
        _create_policy("prediction_comments", name, f"FOR {command} TO {APPLICATION_ROLE} {rule}")
    for table in (TABLE, "prediction_shares"):
        _create_policy(
            table, "guest_none", f"AS RESTRICTIVE TO {APPLICATION_ROLE} USING (sartiq_shooting_id() IS NULL)"
        )
    for table in WRITTEN_BY_MEMBERS:
        for command, word in (("INSERT", "WITH CHECK"), ("UPDATE", "USING"), ("DELETE", "USING")):
            rule = f"AS RESTRICTIVE FOR {command} TO {APPLICATION_ROLE} {word} (sartiq_shooting_id() IS NULL)"
            _create_policy(table, f"guest_no_{command.lower()}", rule)


def _create_policy(table: str, name: str, rule: str) -> None:
    op.execute(f"CREATE POLICY {name} ON {table} {rule}")


def downgrade() -> None:
    policies = [(table, "guest_select") for table in READABLE]
    policies += [(table, "guest_lock") for table in LOCKABLE]
    policies += [("prediction_comments", f"guest_{verb}") for verb in ("insert", "update", "delete")]
    policies += [(TABLE, "guest_none"), ("prediction_shares", "guest_none")]
    policies += [
        (table, f"guest_no_{verb}") for table in WRITTEN_BY_MEMBERS for verb in ("insert", "update", "delete")
    ]
    for table, name in policies:
        op.execute(f"DROP POLICY {name} ON {table}")
    for name in (*(f"{name}(uuid)" for name in FUNCTIONS), "sartiq_shooting_id()"):
        op.execute(f"DROP FUNCTION {name}")
    disable_rls(TABLE)
    op.drop_column("prediction_comments", "review_link_id")
    op.drop_table(TABLE)
