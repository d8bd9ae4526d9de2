"""Entry points for ASGI and WSGI servers.

`app` is ASGI, for uvicorn or granian; prefer it. Enable the lifespan (`uvicorn wsgi:app --lifespan on`),
which starts and stops the generation workers. Set a shutdown timeout too (`--timeout-graceful-shutdown 10`):
unlike `python -m handlers`, other servers wait for event streams to end before they shut `app` down.

`application` is WSGI, for hosts without ASGI. WSGI has no lifespan, so the process serves requests but has no
generation workers, metrics port or traces. `Prefer: wait` is ignored, and an event stream ends after one
event.

In production, importing this module raises StartRejected while an active account has a published password. It
raises OwnersChanged while row-level security belongs to another role. It sets the umask of the process to
077, so that stored files are private. Outside production, requests at addresses other than loopback get 503,
unless ALLOW_PUBLIC_DEVELOPMENT=1.
"""

import os
from typing import Any

from a2wsgi import ASGIMiddleware

from db.rls.owners import require_owners_of
from handlers.app import create_app
from handlers.server.exposure import close_in_development
from studio.infrastructure.database import use_database
from studio.infrastructure.settings import PRIVATE_UMASK, Settings
from studio.infrastructure.telemetry.logs import configure_logging
from studio.seed.published_accounts import require_no_published_account

os.umask(PRIVATE_UMASK)
# The embedded database runs as long as the process, which holds its lock.
_database = use_database(Settings.from_environment())
settings = _database.__enter__()
configure_logging(settings.log_level, settings.log_format, settings.service_name)
app: Any = close_in_development(create_app(settings), settings)
require_no_published_account(settings)
require_owners_of(settings.database_url)
application = ASGIMiddleware(app)
