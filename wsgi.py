"""The server, for two kinds of HTTP servers.

`app` is ASGI, for uvicorn or granian: use it. Run it with the lifespan on (`uvicorn wsgi:app --lifespan on`),
because start and stop of the render workers hang on it. `application` is WSGI, for hosts that speak nothing
else: the same through a2wsgi. WSGI has no lifespan, so such a process serves requests and renders nothing,
has neither a port for metrics nor traces, and answers without waiting: `Prefer: wait` is not applied, and a
stream of events is one event long.

A server other than `python -m handlers` does not tell `app` that it is about to end before its clients have
left: give it a limit (`--timeout-graceful-shutdown 10`), or streams keep it for as long as they last.

In production, loading this module raises StartRefused while an active account has a published password.
"""

from a2wsgi import ASGIMiddleware

from handlers.app import create_app
from studio.seed.published_accounts import require_no_published_account
from studio.settings import Settings
from studio.telemetry.logs import configure_logging

settings = Settings.from_environment()
configure_logging(settings.log_level, settings.log_format, settings.service_name)
app = create_app(settings)
require_no_published_account(settings)
application = ASGIMiddleware(app)
