"""The server, for two kinds of HTTP servers.

`app` is ASGI, for uvicorn or granian: use it. Run it with the lifespan on (`uvicorn wsgi:app --lifespan on`),
because start and stop of the render workers hang on it. `application` is WSGI, for hosts that speak nothing
else: the same through a2wsgi. WSGI has no lifespan, so such a process serves requests and renders nothing.
"""

from a2wsgi import ASGIMiddleware

from handlers.app import create_app
from studio.settings import Settings

app = create_app(Settings.from_environment())
application = ASGIMiddleware(app)
