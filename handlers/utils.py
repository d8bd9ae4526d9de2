"""Health checks, readiness and version of the server, and a test of its mail settings.

Anyone may call the GET operations: `handlers.pipeline.wsgi_bridge` runs each at most once per second.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from db.session import current_session
from handlers.common.context import current_settings, current_storage
from handlers.common.permissions import Permission, requires
from handlers.common.responses import ApiResponse, json_response
from handlers.contract.errors import ServiceUnavailable
from handlers.pipeline.admission.attempt_limits import consume_mail_quota
from handlers.pipeline.admission.limits import Limit
from studio.infrastructure.database import is_embedded
from studio.infrastructure.settings import VERSION
from studio.infrastructure.storage import check_writable, free_share
from studio.mail.emails import Email
from studio.mail.mailer import get_mailer

_LIMIT_BY_DEPENDENCY = {"database": Limit.DATABASE, "media": Limit.STORAGE, "broker": Limit.BROKER}


def health_check() -> ApiResponse:
    """Return 200 while the process serves requests (liveness)."""
    return json_response({"status": "ok"})


def health() -> ApiResponse:
    """Return 200 while the process serves requests (liveness)."""
    return health_check()


@requires(Permission.USERS_ADMIN)
def test_email(email_to: str) -> ApiResponse:
    """Send a message without a token, to check the settings of the mail server."""
    mailer = get_mailer(current_settings())
    consume_mail_quota()
    mailer.send(
        Email(
            kind="test",
            recipient=email_to,
            subject="Test e-mail",
            text="The mail settings of this server work.",
            label="This server",
            url=mailer.public_url,
        )
    )
    return json_response({"message": "Test email sent"})


def system_health_check() -> ApiResponse:
    """Return the state of each dependency; the response is always 200."""
    checks = {name: "ok" if is_usable() else "failed" for name, is_usable in list_dependencies().items()}
    return json_response(
        {"status": "ok" if "failed" not in checks.values() else "degraded", "checks": checks}
    )


def readiness() -> ApiResponse:
    """Return 200 if all dependencies work, 503 otherwise (readiness)."""
    for name, is_usable in list_dependencies().items():
        if not is_usable():
            raise ServiceUnavailable(_LIMIT_BY_DEPENDENCY[name])
    return json_response({"status": "ok"})


def db_check() -> ApiResponse:
    """Return 200 if the database works, 503 otherwise."""
    if not is_database_usable():
        raise ServiceUnavailable(Limit.DATABASE)
    return json_response({"status": "ok"})


def get_version() -> ApiResponse:
    """Return the versions of the server and of the API."""
    return json_response({"version": VERSION, "api_version": "v1"})


def is_database_usable() -> bool:
    """Return whether the database answers and, if it is embedded, whether its disk has space.

    The query has a connection of its own, because a failure would abort the transaction of the request.
    """
    engine = current_session().get_bind().engine
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        if is_embedded(current_settings()):
            check_writable(current_settings().data_dir)
    except (SQLAlchemyError, OSError):
        return False
    return True


def is_media_usable() -> bool:
    """Return whether images can be received and stored."""
    settings = current_settings()
    try:
        check_writable(Path(gettempdir()))
        current_storage().check()
    except OSError:
        return False
    return settings.media_url is not None or 100 * free_share(settings.media_dir) >= settings.min_free_percent


def list_dependencies() -> dict[str, Callable[[], bool]]:
    """Return the check of each dependency of this server, by name."""
    checks: dict[str, Callable[[], bool]] = {"database": is_database_usable, "media": is_media_usable}
    broker_url = current_settings().celery_broker_url
    if broker_url is not None:
        # Imported here: a server without a broker does not load the client of Redis.
        from studio.jobs.broker import get_broker_probe

        checks["broker"] = get_broker_probe(broker_url).is_usable
    return checks
