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

from db.engine import build_engine
from db.session import Database
from handlers.common.permissions import HANDLER_RULES, SUPERUSER_ONLY
from handlers.contract.document import Document
from handlers.contract.operations import compile_operations
from handlers.contract.request_bodies import BodyLimits
from handlers.contract.resolver import ContractResolver, find_handlers
from handlers.contract.router import Router
from handlers.pages import home, security_txt
from handlers.pages.api_catalog import CATALOG_PATH, api_catalog
from handlers.pipeline.audit import AuditRecorder, TargetResolver
from handlers.pipeline.auth import build_security_map, configure_jwt, load_caller
from handlers.pipeline.endpoint import CallerLoader, Endpoint
from handlers.pipeline.errors import build_error_handler
from handlers.pipeline.middleware.error_boundary import ErrorBoundary
from handlers.pipeline.middleware.long_polling import LongPolling
from handlers.pipeline.middleware.mock_responses import ExampleResponses, MockResponseMiddleware
from handlers.pipeline.middleware.observability import ObservabilityMiddleware
from handlers.pipeline.middleware.rate_limits import AnonymousRateLimit, CallerRateLimit
from handlers.pipeline.middleware.request_validation import RequestValidation
from handlers.pipeline.middleware.response_validation import ResponseValidation
from handlers.pipeline.middleware.routing import Routing
from handlers.pipeline.middleware.security_headers import (
    SecurityHeaders,
    declared_request_headers,
    declared_response_headers,
)
from handlers.pipeline.wsgi_bridge import BridgedFlaskApp
from studio.exports.worker import run_pending_exports
from studio.generations.watch import ChangeHub
from studio.generations.worker.executor import GenerationExecutor
from studio.generations.worker.inline import InlineRunner
from studio.generations.worker.threads import GenerationWorkers
from studio.http_client import SafeHttpClient
from studio.jobs.maintenance import MAINTENANCE_TASKS, MaintenanceTask, Services
from studio.jobs.periodic import PeriodicTask
from studio.media.backends import open_storage
from studio.providers.base import SAMPLE_RENDERER
from studio.providers.sample import build_sample_file
from studio.rate_limits.limiter import RateLimiter as RateLimits
from studio.settings import InvalidSettings, Settings
from studio.telemetry.metrics import MetricsServer
from studio.telemetry.traces import Tracing
from studio.webhooks.dispatcher import WebhookDispatcher

BUNDLE = Path(__file__).parent.parent / "openapi" / "openapi.json"

Hook = Callable[[], object]


class BackgroundService(Protocol):
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
        change_hub: ChangeHub,
        **options: Any,
    ) -> None:
        self.settings = settings
        self.database = database
        self.endpoints = endpoints
        self.on_startup: list[Hook] = []
        self.change_hub = change_hub
        # First, so that nobody who waits keeps the server from ending.
        self.on_shutdown: list[Hook] = [change_hub.close]
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
        self.change_hub.open()
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
    extra_routes: Mapping[str, ASGIApp] | None = None,
    tags: Collection[str] | None = None,
) -> Application:
    """Return the server, ready to serve.

    `database` offers `transaction(write)` and `dispose()`, by default that of the settings. `package` holds
    the handlers, `outside` maps paths that are not of the contract to ASGI applications, `tags`
    limits the server to a part of the contract. Raises ContractError when contract and handlers do not fit.
    """
    contract = Document.load(bundle) if isinstance(bundle, Path) else Document(bundle)
    if tags is not None:
        contract = contract.with_tags(tags)
    if database is None:
        if settings.mode == "mock":
            raise InvalidSettings("SARTIQ_MODE=mock is served by `python -m handlers`, which furnishes it")
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        engine = build_engine(settings.database_url, settings.pool_size, settings.request_seconds)
        database = Database(engine)
    body_limits = BodyLimits(settings.max_json_bytes, settings.max_upload_bytes, settings.slow_client_seconds)
    operations = compile_operations(contract, body_limits, SUPERUSER_ONLY)
    handlers = find_handlers(operations, package, HANDLER_RULES)
    limits = RateLimits.from_settings(settings)
    table = Router(contract.base_path, operations)
    targets = TargetResolver(table, operations)
    endpoints = {
        operation.operation_id: Endpoint(
            operation,
            handlers[operation.operation_id],
            database.transaction,
            load_caller,
            limits,
            AuditRecorder(operation, targets) if package == "handlers" else None,
        )
        for operation in operations
    }
    gate = partial(
        Routing,
        router=table,
        base_path=contract.base_path,
        extra_routes=_pages(settings) if extra_routes is None else extra_routes,
    )
    last_resort = partial(ErrorBoundary, public_url=settings.public_url)
    watchers = ChangeHub(database.transaction)
    waiting = partial(
        LongPolling,
        change_hub=watchers,
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
            partial(ObservabilityMiddleware, base_path=contract.base_path),
            last_resort,
            partial(
                SecurityHeaders,
                public_url=settings.public_url,
                allow_origins=settings.cors_origins,
                allow_headers=declared_request_headers(contract),
                expose_headers=declared_response_headers(contract),
            ),
            partial(ResponseValidation, public_url=settings.public_url),
            ExceptionMiddleware,
            waiting,
            gate,
            *(
                [partial(MockResponseMiddleware, examples=ExampleResponses(contract, build_sample_file))]
                if settings.mode == "mock"
                else ()
            ),
            partial(AnonymousRateLimit, limits=limits),
            SecurityMiddleware,
            partial(CallerRateLimit, limits=limits),
            RequestValidation,
            LifespanMiddleware,
            ContextMiddleware,
        ],
    )
    app.app.config["SETTINGS"] = settings
    app.app.config["STORAGE"] = open_storage(settings)
    app.app.config["LIMITS"] = limits
    app.app.config["OUTBOUND"] = SafeHttpClient.from_settings(settings)
    app.app.config["FETCHING"] = threading.BoundedSemaphore(max(1, settings.request_threads // 2))
    configure_jwt(app.app, settings)
    app.app.config["CONTRACT_JSON"] = (
        bundle.read_bytes() if isinstance(bundle, Path) else json.dumps(bundle).encode("utf-8")
    )
    app.add_api(
        contract.connexion_spec(),
        resolver=ContractResolver(endpoints),
        security_map=build_security_map(settings.secret_key),
        swagger_ui_options=SwaggerUIOptions(serve_spec=False, swagger_ui=False),
    )
    for kind in (ProblemException, HTTPException, Exception):
        app.add_error_handler(kind, build_error_handler(settings.public_url))
    if package == "handlers":
        _attach_services(app)
    _build_middleware_stack_eagerly(app.middleware)
    return app


def _pages(settings: Settings) -> dict[str, ASGIApp]:
    """What is served beside the contract."""
    return {
        "/": home(settings.public_url),
        CATALOG_PATH: api_catalog(settings.public_url),
        "/.well-known/security.txt": security_txt(settings.public_url, settings.security_contact),
    }


def _attach_services(app: Application) -> None:
    """Let what this process does beside serving live as long as the server does."""
    settings = app.settings
    config = app.app.config
    workplace = Services(settings, app.database, config["STORAGE"], config["OUTBOUND"])
    # First to come and last to go: they see how the others end.
    watching: list[BackgroundService] = [
        Tracing(settings.otlp_endpoint, settings.service_name),
        MetricsServer(settings.metrics_host, settings.metrics_port, app.database, settings.database_url),
    ]
    parts = _background_services(workplace)
    app.on_startup.extend(part.start for part in (*watching, *parts))
    app.on_shutdown.extend(part.stop for part in (*parts, *watching))


def _background_services(services: Services) -> list[BackgroundService]:
    """What this process does beside serving: all there is, or, with a broker, to call others for it."""
    settings = services.settings
    if settings.celery_broker_url is not None:
        # Here, because a server that works for itself need not wait for Celery to load.
        from studio.jobs.celery.relay import WakeupRelay

        return [WakeupRelay(services)]
    if settings.mode == "mock":
        return _mock_services(services)
    return [
        GenerationWorkers(
            services.database,
            services.storage,
            settings.render_workers,
            settings.lease_seconds,
            settings.max_running_per_scope,
            services.http_client,
        ),
        WebhookDispatcher(settings, services.database, services.http_client),
        *(_periodic_task(each, services) for each in MAINTENANCE_TASKS),
    ]


def _mock_services(services: Services) -> list[BackgroundService]:
    """The same, but what somebody waits for is done before he is answered."""
    lease = services.settings.lease_seconds
    workshop = GenerationExecutor(
        services.database, services.storage, os.cpu_count() or 1, lease, renderer=SAMPLE_RENDERER
    )
    waited_for = InlineRunner(workshop, lambda: run_pending_exports(services.database, services.storage))
    unasked = [each for each in MAINTENANCE_TASKS if each.trigger is None]
    senders = WebhookDispatcher(services.settings, services.database, services.http_client)
    return [waited_for, senders, *(_periodic_task(each, services) for each in unasked)]


def _periodic_task(task: MaintenanceTask, services: Services) -> PeriodicTask:
    wake = task.trigger.listen() if task.trigger else None
    return PeriodicTask(task.name, partial(task.run, services), task.interval_seconds, wake)


def _build_middleware_stack_eagerly(middleware: ConnexionMiddleware) -> None:
    """Build the middleware stack; Connexion would on the first request, and fail on every one."""
    middleware.app, middleware.middleware_stack = middleware._build_middleware_stack()
