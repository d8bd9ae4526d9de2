"""Keep the monthly partitions of the audit log, and store for how many months its events are kept.

Only the owner of the tables may create and drop partitions, and servers and workers may sign in with a login
that owns nothing. So a function of the database does it with the rights of the owner
(`maintain_audit_partitions`, revision 0052). It reads the retention from a second function, which only the
owner can replace: a stolen login of a server cannot shorten it.
"""

from __future__ import annotations

import logging

from sqlalchemy import text

from db.engine import build_engine
from db.session import Database

logger = logging.getLogger(__name__)

DEFAULT_PARTITION = "audit_events_default"
"""The partition of events for whose time there is no other one. It should have none."""

_MAINTAIN = text("SELECT maintain_audit_partitions()")
_RETENTION = text("""
SELECT sartiq_audit_retention_months() AS months, pg_has_role(proowner, 'USAGE') AS is_owned
FROM pg_proc WHERE oid = to_regprocedure('public.sartiq_audit_retention_months()')
""")
_SET_RETENTION = (
    "CREATE OR REPLACE FUNCTION public.sartiq_audit_retention_months() RETURNS integer LANGUAGE sql STABLE "
    "RETURN CAST({months} AS integer)"
)


def maintain_partitions(database: Database) -> list[str]:
    """Create the partitions of the next 24 months, and drop those past the retention; return the dropped."""
    with database.transaction(write=True) as session:
        dropped: list[str] = session.scalars(_MAINTAIN).one()
    for name in dropped:
        logger.warning("dropped the partition %s of the audit log, which was past the retention", name)
    return dropped


def set_retention(url: str, months: int | None) -> None:
    """Store for how many months events are kept, if the login of the URL owns the tables.

    Another login leaves what the owner has stored, and logs a warning if that differs from its setting.

    Args:
        url: The URL of a database at the newest revision.
        months: The number of whole months; None keeps all events.
    """
    engine = build_engine(url, pool_size=1)
    try:
        with engine.begin() as connection:
            stored = connection.execute(_RETENTION).one()
            if stored.months == months:
                return
            if stored.is_owned:
                statement = _SET_RETENTION.format(months="NULL" if months is None else int(months))
                connection.execute(text(statement))
            elif months is not None:
                logger.warning(
                    "AUDIT_RETENTION_MONTHS is not used: the database keeps audit events for %s months, and "
                    "only the owner of its tables can change that (`python -m handlers --prepare-only`)",
                    "all" if stored.months is None else stored.months,
                )
    finally:
        engine.dispose()
