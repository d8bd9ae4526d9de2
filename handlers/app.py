"""Puts the server together: contract, handlers, database and Connexion's middleware. Built whole at start.

A contract that does not compile, or handlers that do not fit it, stop the start.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from anyio import to_thread
from connexion.exceptions import ProblemException
from connexion.middleware import ConnexionMiddleware
from connexion.middleware.context import ContextMiddleware
from connexion.middleware.exceptions import ExceptionMiddleware
from connexion.middleware.lifespan import LifespanMiddleware
from connexion.middleware.security import SecurityMiddleware
from connexion.options import SwaggerUIOptions
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from db.engines import make_engine
from db.session import Database
from handlers.auditing import Auditing, Targets
from handlers.auth import load_caller, security_map, set_up_tokens
from handlers.contract.bodies import Limits
from handlers.contract.bridge import BridgedFlaskApp
from handlers.contract.bundle import Bundle
from handlers.contract.endpoint import CallerLoader, Endpoint
from handlers.contract.exemplary import Examples, Picked
from handlers.contract.limiting import CallersDoor, StrangersDoor
from handlers.contract.middleware import Check, Envelope, Gate, LastResort
from handlers.contract.operations import compile_operations
from handlers.contract.paths import PathTable
from handlers.contract.resolver import ContractResolver, find_handlers
from handlers.contract.surface import Surface, headers_of_answers, headers_of_requests
from handlers.contract.waiting import Waiting
from handlers.errors import error_handler
from handlers.observing import Observed
from handlers.pages import home, security_txt
from handlers.pages.discovery import CATALOG, api_catalog
from studio.exports.work import work_off_exports
from studio.jobs.prompt import PromptWork
from studio.jobs.repeating import Repeating
from studio.jobs.upkeep import UPKEEP, Upkeep, Workplace
from studio.jobs.workers import RenderWorkers
from studio.jobs.workshop import Workshop
from studio.limits.limits import Limits as RateLimits
from studio.media.backends import open_storage
from studio.outbound import Outbound
from studio.providers.renderers import SAMPLES
from studio.providers.samples import sample_file
from studio.settings import Settings, SettingsRefused
from studio.telemetry.metrics import MetricsPort
from studio.telemetry.traces import Tracing
from studio.watching import Watchers
from studio.webhooks.senders import WebhookSenders

BUNDLE = Path(__file__).parent.parent / "openapi" / "openapi.json"

Hook = Callable[[], object]


class Part(Protocol):
    """Something that lives as long as the server does."""

    def start(self) -> None:
        """Begin; called once."""

    def stop(self) -> None:
        """End; called once."""


class Application(BridgedFlaskApp):
    """The server as one ASGI application. `on_startup` and `on_shutdown` are called in order, in a thread."""

    def __init__(
        self,
        settings: Settings,
        database: Any,
        endpoints: dict[str, Endpoint],
        watchers: Watchers,
        **options: Any,
    ) -> None:
        self.settings = settings
        self.database = database
        self.endpoints = endpoints
        self.on_startup: list[Hook] = []
        self.watchers = watchers
        # First, so that nobody who waits keeps the server from ending.
        self.on_shutdown: list[Hook] = [watchers.close]
        self._draining = threading.Lock()
        super().__init__(
            __name__,
            threads=settings.request_threads,
            seconds=settings.request_seconds,
            lifespan=self._lifespan,
            **options,
        )

    @asynccontextmanager
    async def _lifespan(self, _app: object) -> AsyncIterator[None]:
        for hook in self.on_startup:
            await to_thread.run_sync(hook)
        self.watchers.open()
        yield
        await to_thread.run_sync(self.drain)
        await to_thread.run_sync(self.bridge.pool.shutdown)
        self.database.dispose()

    def drain(self) -> None:
        """Call the hooks of `on_shutdown`, each once; who asks second waits until the first is done.

        A server may ask as soon as it is told to end, while its clients are still being served.
        """
        with self._draining:
            while self.on_shutdown:
                self.on_shutdown.pop(0)()


def create_app(
    settings: Settings,
    *,
    bundle: Path | dict[str, Any] = BUNDLE,
    package: str = "handlers",
    database: Any = None,
    load_caller: CallerLoader = load_caller,
    outside: Mapping[str, ASGIApp] | None = None,
    tags: Collection[str] | None = None,
) -> Application:
    """Return the server, ready to serve.

    `database` offers `transaction(write)` and `dispose()`, by default that of the settings. `package` holds
    the handlers, `outside` maps paths that are not of the contract to ASGI applications, `tags`
    limits the server to a part of the contract. Raises ContractError when contract and handlers do not fit.
    """
    contract = Bundle.load(bundle) if isinstance(bundle, Path) else Bundle(bundle)
    if tags is not None:
        contract = contract.only(tags)
    if database is None:
        if settings.mode == "mock":
            raise SettingsRefused("SARTIQ_MODE=mock is served by `python -m handlers`, which furnishes it")
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        engine = make_engine(settings.database_url, settings.pool_size, settings.request_seconds)
        database = Database(engine)
    body_limits = Limits(settings.max_json_bytes, settings.max_upload_bytes, settings.slow_client_seconds)
    operations = compile_operations(contract, body_limits)
    handlers = find_handlers(operations, package)
    limits = RateLimits.from_settings(settings)
    table = PathTable(contract.base_path, operations)
    targets = Targets(table, operations)
    endpoints = {
        operation.operation_id: Endpoint(
            operation,
            handlers[operation.operation_id],
            database.transaction,
            load_caller,
            limits,
            Auditing(operation, targets) if package == "handlers" else None,
        )
        for operation in operations
    }
    gate = partial(
        Gate,
        table=table,
        base_path=contract.base_path,
        outside=_pages(settings) if outside is None else outside,
    )
    last_resort = partial(LastResort, public_url=settings.public_url)
    watchers = Watchers(database.transaction)
    waiting = partial(
        Waiting,
        watchers=watchers,
        max_wait=settings.max_wait_seconds,
        max_stream=settings.sse_max_seconds,
    )
    app = Application(
        settings,
        database,
        endpoints,
        watchers,
        middlewares=[
            last_resort,
            partial(Observed, base_path=contract.base_path),
            last_resort,
            partial(
                Surface,
                public_url=settings.public_url,
                origins=settings.cors_origins,
                sent=headers_of_requests(contract),
                shown=headers_of_answers(contract),
            ),
            partial(Envelope, public_url=settings.public_url),
            ExceptionMiddleware,
            waiting,
            gate,
            *([partial(Picked, examples=Examples(contract, sample_file))] if settings.mode == "mock" else ()),
            partial(StrangersDoor, limits=limits),
            SecurityMiddleware,
            partial(CallersDoor, limits=limits),
            Check,
            LifespanMiddleware,
            ContextMiddleware,
        ],
    )
    app.app.config["SETTINGS"] = settings
    app.app.config["STORAGE"] = open_storage(settings)
    app.app.config["LIMITS"] = limits
    app.app.config["OUTBOUND"] = Outbound.from_settings(settings)
    app.app.config["FETCHING"] = threading.BoundedSemaphore(max(1, settings.request_threads // 2))
    set_up_tokens(app.app, settings)
    app.app.config["CONTRACT_JSON"] = (
        bundle.read_bytes() if isinstance(bundle, Path) else json.dumps(bundle).encode("utf-8")
    )
    app.add_api(
        contract.outline(),
        resolver=ContractResolver(endpoints),
        security_map=security_map(settings.secret_key),
        swagger_ui_options=SwaggerUIOptions(serve_spec=False, swagger_ui=False),
    )
    for kind in (ProblemException, HTTPException, Exception):
        app.add_error_handler(kind, error_handler(settings.public_url))
    if package == "handlers":
        _run_in_background(app)
    _build_now(app.middleware)
    return app


def _pages(settings: Settings) -> dict[str, ASGIApp]:
    """What is served beside the contract."""
    return {
        "/": home(settings.public_url),
        CATALOG: api_catalog(settings.public_url),
        "/.well-known/security.txt": security_txt(settings.public_url, settings.security_contact),
    }


def _run_in_background(app: Application) -> None:
    """Let what this process does beside serving live as long as the server does."""
    settings = app.settings
    config = app.app.config
    workplace = Workplace(settings, app.database, config["STORAGE"], config["OUTBOUND"])
    # First to come and last to go: they see how the others end.
    watching: list[Part] = [
        Tracing(settings.otlp_endpoint, settings.service_name),
        MetricsPort(settings.metrics_host, settings.metrics_port, app.database, settings.database_url),
    ]
    parts = _work_of(workplace)
    app.on_startup.extend(part.start for part in (*watching, *parts))
    app.on_shutdown.extend(part.stop for part in (*parts, *watching))


def _work_of(at: Workplace) -> list[Part]:
    """What this process does beside serving: all there is, or, with a broker, to call others for it."""
    settings = at.settings
    if settings.celery_broker_url is not None:
        # Here, because a server that works for itself need not wait for Celery to load.
        from studio.jobs.messenger import Messenger

        return [Messenger(at)]
    if settings.mode == "mock":
        return _work_of_a_mock(at)
    return [
        RenderWorkers(
            at.database,
            at.storage,
            settings.render_workers,
            settings.lease_seconds,
            settings.max_running_per_scope,
            at.outbound,
        ),
        WebhookSenders(settings, at.database, at.outbound),
        *(_repeating(each, at) for each in UPKEEP),
    ]


def _work_of_a_mock(at: Workplace) -> list[Part]:
    """The same, but what somebody waits for is done before he is answered."""
    lease = at.settings.lease_seconds
    workshop = Workshop(at.database, at.storage, os.cpu_count() or 1, lease, renderer=SAMPLES)
    waited_for = PromptWork(workshop, lambda: work_off_exports(at.database, at.storage))
    unasked = [each for each in UPKEEP if each.woken_by is None]
    senders = WebhookSenders(at.settings, at.database, at.outbound)
    return [waited_for, senders, *(_repeating(each, at) for each in unasked)]


def _repeating(each: Upkeep, at: Workplace) -> Repeating:
    wake = each.woken_by.listen() if each.woken_by else None
    return Repeating(each.name, partial(each.work, at), each.pause_seconds, wake)


def _build_now(middleware: ConnexionMiddleware) -> None:
    """Build the middleware stack; Connexion would on the first request, and fail on every one."""
    middleware.app, middleware.middleware_stack = middleware._build_middleware_stack()
