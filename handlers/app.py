"""Build the application: contract, handlers, database, middleware and background services.

Everything is built before the first request. If the contract does not compile or the handlers do not match
it, the server does not start. This module only wires the parts; it holds no rules of its own.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from anyio import to_thread
from connexion.exceptions import ProblemException
from connexion.middleware import ConnexionMiddleware
from connexion.middleware.context import ContextMiddleware
from connexion.middleware.exceptions import ExceptionMiddleware
from connexion.middleware.lifespan import LifespanMiddleware
from connexion.middleware.security import SecurityMiddleware
from connexion.options import SwaggerUIOptions
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from db.audit import record_flush
from db.engine import build_engine
from db.session import Database
from handlers.common.context import AppServices, HttpRequest, use_services
from handlers.common.plain_writes import is_plain_write
from handlers.common.reads import is_read
from handlers.common.responses import EncodedResponse
from handlers.contract.body_checks import load_body_checks
from handlers.contract.document import Document
from handlers.contract.request_bodies import BodyLimits
from handlers.contract.resolver import ContractResolver, find_handlers
from handlers.contract.router import Router
from handlers.contract.used_parts import find_deprecated_parts
from handlers.pages import home, security_txt
from handlers.pages.api_catalog import CATALOG_PATH, api_catalog
from handlers.pages.guides import guides
from handlers.pages.review_board import review_board
from handlers.pipeline.admission.body_limits import UnfinishedBodies
from handlers.pipeline.admission.concurrency import ConcurrencyLimit, CredentialOwners
from handlers.pipeline.admission.lock_waits import LockWaits
from handlers.pipeline.admission.rate_limits import AnonymousRateLimit, CallerRateLimit
from handlers.pipeline.audit import AuditRecorder, TargetResolver
from handlers.pipeline.auth import build_security_map, configure_jwt, load_caller
from handlers.pipeline.endpoint import CallerLoader, Endpoint
from handlers.pipeline.errors import build_error_handler
from handlers.pipeline.event_loop import (
    EventLoopCallers,
    EventLoopLimits,
    EventLoopLockWaits,
    EventLoopOperations,
    PlainWrite,
    build_messages,
)
from handlers.pipeline.middleware.error_boundary import ErrorBoundary
from handlers.pipeline.middleware.image_conversion import ImageConversion
from handlers.pipeline.middleware.long_polling import LongPolling
from handlers.pipeline.middleware.mock_control import MockControl, load_scenario
from handlers.pipeline.middleware.mock_responses import ExampleResponses, MockResponseMiddleware
from handlers.pipeline.middleware.observability import ObservabilityMiddleware
from handlers.pipeline.middleware.request_validation import Authorize, RequestValidation
from handlers.pipeline.middleware.response_validation import ResponseValidation
from handlers.pipeline.middleware.routing import Routing
from handlers.pipeline.middleware.security_headers import (
    SecurityHeaders,
    declared_request_headers,
    declared_response_headers,
)
from handlers.pipeline.path_access import PathAccess, find_row_reads
from handlers.pipeline.policies import ServedOperation, compile_served_operations, find_policy_errors
from handlers.pipeline.prechecks import authorizes_files
from handlers.pipeline.reads.callers import KnownCallers
from handlers.pipeline.reads.endpoint import ReadEndpoint
from handlers.pipeline.request_context import REQUEST_CONTEXT
from handlers.pipeline.use_counter import FLUSH_SECONDS, UseCounter
from handlers.pipeline.wsgi_bridge import BridgedFlaskApp
from studio.account_exports.worker import run_pending_account_exports
from studio.accounts.identity_providers.protocol import OpenIdClient
from studio.cutouts.worker import make_sample, run_next_cutout
from studio.destinations.targets import Outcome
from studio.destinations.worker import run_pending_deliveries
from studio.exports.content_credentials import load_signer
from studio.exports.worker import run_pending_exports
from studio.generations.worker.executor import GenerationExecutor, GenerationWorkers
from studio.infrastructure.change_hub import ChangeHub
from studio.infrastructure.fair_slots import share_threads
from studio.infrastructure.http_client import SafeHttpClient
from studio.infrastructure.mask_models import MaskModel, choose_mask_model
from studio.infrastructure.settings import InvalidSettings, Settings
from studio.infrastructure.storage import Storage
from studio.infrastructure.storage_backends import open_storage
from studio.infrastructure.telemetry.metrics import MetricsServer
from studio.infrastructure.telemetry.traces import Tracing
from studio.jobs.maintenance import MAINTENANCE_TASKS, MaintenanceTask, Services, run_imports, run_task
from studio.jobs.periodic import PeriodicTask
from studio.mail.queue import run_pending_emails
from studio.media.ladder import LadderBuilder
from studio.mock import webhooks as mock_webhooks
from studio.mock.generations import MockRunner
from studio.mock.scenario import Scenario
from studio.providers.base import SAMPLE_RENDERER
from studio.providers.openai_images import ImagesServer
from studio.providers.sample import build_sample_file
from studio.queue.running import Worker
from studio.rate_limits.concurrency import ConcurrencyLimiter
from studio.rate_limits.limiter import RateLimiter
from studio.rate_limits.memory_store import MemoryStore
from studio.webhooks.dispatcher import WebhookDispatcher

BUNDLE = Path(__file__).parent.parent / "openapi" / "openapi.json"

NO_RESPONSE = EncodedResponse(204, "", {}, None)
"""The result of a check that rejects nothing."""

Hook = Callable[[], object]


class BackgroundService(Protocol):
    """A part that runs as long as the server does."""

    def start(self) -> None:
        """Start; called once."""

    def stop(self) -> None:
        """Stop; called once."""


@dataclass(frozen=True)
class Mock:
    """What only a mock server has: responses of the contract, a scenario, and hooks that undo all changes."""

    examples: ExampleResponses
    scenario: Scenario
    on_reset: list[Hook]

    def reset(self) -> None:
        """Return to the state at the start."""
        for hook in self.on_reset:
            hook()


class Application(BridgedFlaskApp):
    """The ASGI application.

    Its `on_startup` and `on_shutdown` hooks are called in order, in a thread.
    """

    def __init__(
        self,
        settings: Settings,
        database: Any,
        services: AppServices,
        endpoints: dict[str, Endpoint | ReadEndpoint],
        plain_writes: dict[str, PlainWrite],
        use_counter: UseCounter,
        change_hub: ChangeHub,
        mock: Mock | None = None,
        **options: Any,
    ) -> None:
        self.settings = settings
        self.mock = mock
        self.database = database
        self.services = services
        """What code that serves a request looks up."""
        self.endpoints, self.plain_writes = endpoints, plain_writes
        self.on_startup: list[Hook] = []
        self.use_counter = use_counter
        self.change_hub = change_hub
        # Close long-polling connections first. They would delay the shutdown by up to a minute.
        self.on_shutdown: list[Hook] = [change_hub.close]
        self._draining = threading.Lock()
        super().__init__(
            __name__,
            threads=settings.request_threads,
            seconds=settings.request_seconds,
            lifespan=self._lifespan,
            **options,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            use_services(self.services, HttpRequest.from_scope(scope))
        await super().__call__(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, _app: object) -> AsyncIterator[None]:
        for hook in self.on_startup:
            await to_thread.run_sync(hook)
        self.change_hub.open()
        yield
        await to_thread.run_sync(self.drain)
        await to_thread.run_sync(self.bridge.shutdown)
        await to_thread.run_sync(self.use_counter.flush_last, self.database)
        await self.services.rate_limiter.store.close()
        await self.database.close_reader()
        self.database.dispose()

    def drain(self) -> None:
        """Call each hook of `on_shutdown` once; a concurrent call waits until the first one is done.

        A server may call it as soon as it receives the signal to stop, while it still serves clients.
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
    """Create the application.

    Args:
        settings: the settings of the server.
        bundle: the OpenAPI document, or the path of its JSON file.
        package: the package with the handlers.
        database: an object with `transaction(write)` and `dispose()`; by default that of the settings.
        load_caller: loads the caller of a request from the claims of its credential.
        extra_routes: ASGI applications for paths outside the contract; by default the HTML pages.
        tags: serve only the operations with these tags.

    Raises:
        ContractError: the contract and the handlers do not match.
        InvalidSettings: the mock server was started without its database.
    """
    contract = Document.load(bundle) if isinstance(bundle, Path) else Document(bundle)
    # Also a server of some tags publishes the whole contract. Compressed, because it is rarely requested.
    published = zlib.compress(contract.to_json(settings.public_url), level=1)
    if tags is not None:
        contract = contract.with_tags(tags)
    if database is None:
        if settings.mode == "mock":
            raise InvalidSettings(
                "SARTIQ_MODE=mock needs the demo data: start the mock server by `python -m handlers`"
            )
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        threads = settings.pool_size - settings.read_connections
        engine = build_engine(settings.database_url, threads, settings.request_seconds)
        database = Database(engine, settings.read_connections)
    body_limits = BodyLimits(settings.max_json_bytes, settings.max_upload_bytes, settings.slow_client_seconds)
    declared = compile_served_operations(contract, body_limits)
    handlers = find_handlers(declared, package, find_policy_errors)
    rate_limiter = RateLimiter.from_settings(settings)
    router = Router(contract.base_path, declared)
    operations = [operation for operation in declared if not operation.has_ended]
    targets = TargetResolver(router, operations)
    lock_waits = LockWaits(settings.request_threads)
    row_reads = find_row_reads(operations, handlers)
    audited = operations if package == "handlers" else []
    recorders = {operation.operation_id: AuditRecorder(operation, targets) for operation in audited}
    endpoints = {
        operation.operation_id: Endpoint(
            operation,
            handlers[operation.operation_id],
            database.transaction,
            load_caller,
            rate_limiter,
            lock_waits,
            recorders.get(operation.operation_id),
        )
        for operation in operations
        if not is_read(handlers[operation.operation_id])
    }
    known_callers = KnownCallers()
    read_slots = share_threads(settings.read_connections)

    def build_read(operation: ServedOperation, read: Any, **options: Any) -> ReadEndpoint:
        recorder, seconds = recorders.get(operation.operation_id), settings.request_seconds
        return ReadEndpoint(
            operation, read, database, known_callers, rate_limiter, read_slots, seconds, recorder, **options
        )

    reads = {
        operation.operation_id: build_read(operation, handlers[operation.operation_id])
        for operation in operations
        if is_read(handlers[operation.operation_id])
    }
    accesses = {
        operation.operation_id: build_read(
            operation, PathAccess(operation, row_reads), finish=lambda *_: NO_RESPONSE
        )
        for operation in audited
        if operation.has_body
        and not (operation.is_public or authorizes_files(handlers[operation.operation_id]))
    }
    plain_writes = {
        operation.operation_id: PlainWrite(
            endpoints[operation.operation_id],
            Endpoint(
                operation,
                endpoints[operation.operation_id].call,
                partial(database.event_loop_transaction, record=record_flush),
                EventLoopCallers(known_callers).load,
                EventLoopLimits(rate_limiter),
                EventLoopLockWaits(),
                recorders.get(operation.operation_id),
                build_messages,
            ),
            known_callers,
            read_slots,
            settings.request_seconds,
        )
        for operation in operations
        if is_plain_write(handlers[operation.operation_id])
    }
    storage = open_storage(settings)
    use_counter = UseCounter(find_deprecated_parts(contract))
    change_hub = ChangeHub(database.transaction)
    concurrency_limiter = ConcurrencyLimiter(settings.limit_concurrent_requests)
    owners = CredentialOwners(database.transaction, settings.request_seconds)
    concurrency_limit = partial(ConcurrencyLimit, limiter=concurrency_limiter, owners=owners)
    mock = _build_mock(settings, contract, rate_limiter, owners) if settings.mode == "mock" else None

    async def authorize(operation: ServedOperation, scope: Scope) -> UUID | None:
        name = operation.operation_id
        if not authorizes_files(handlers[name]):
            if name in accesses:
                await accesses[name].serve(scope[REQUEST_CONTEXT])
            return None
        # Called while serving, when `app` exists.
        return await app.bridge.call(endpoints[name].authorize, scope)

    middlewares = _build_middlewares(
        settings,
        contract,
        router,
        rate_limiter,
        use_counter,
        concurrency_limit,
        change_hub,
        authorize,
        {**reads, **plain_writes},
        storage,
        _build_pages(settings) if extra_routes is None else extra_routes,
        mock,
    )
    http_client = SafeHttpClient.from_settings(settings)
    services = AppServices(
        settings=settings,
        storage=storage,
        http_client=http_client,
        openid_client=OpenIdClient(http_client),
        fetch_slots=share_threads(max(1, settings.request_threads // 2)),
        rate_limiter=rate_limiter,
        concurrency_limiter=concurrency_limiter,
        compressed_contract=published,
        audit_recorders=recorders,
    )
    app = Application(
        settings,
        database,
        services,
        {**endpoints, **reads},
        plain_writes,
        use_counter,
        change_hub,
        mock,
        lock_waits=lock_waits,
        middlewares=middlewares,
    )
    configure_jwt(app.app, settings)
    app.add_api(
        contract.connexion_spec(app.endpoints),
        resolver=ContractResolver(app.endpoints),
        security_map=build_security_map(settings.secret_keys),
        swagger_ui_options=SwaggerUIOptions(serve_spec=False, swagger_ui=False),
    )
    for kind in (ProblemException, HTTPException, Exception):
        app.add_error_handler(kind, build_error_handler(settings.public_url))
    if package == "handlers":
        _attach_services(app)
    _build_middleware_stack_eagerly(app.middleware)
    return app


def _build_middlewares(
    settings: Settings,
    contract: Document,
    router: Router[ServedOperation],
    rate_limiter: RateLimiter,
    use_counter: UseCounter,
    concurrency_limit: Callable[[ASGIApp], ASGIApp],
    change_hub: ChangeHub,
    authorize: Authorize,
    on_event_loop: Mapping[str, ReadEndpoint | PlainWrite],
    storage: Storage,
    extra_routes: Mapping[str, ASGIApp],
    mock: Mock | None,
) -> list[Callable[[ASGIApp], ASGIApp]]:
    """Return the middleware, outermost first, in the order that `handlers.pipeline.middleware` documents."""
    error_boundary = partial(ErrorBoundary, public_url=settings.public_url)
    observability = partial(
        ObservabilityMiddleware, base_path=contract.base_path, count_use=use_counter.count
    )
    security_headers = partial(
        SecurityHeaders,
        public_url=settings.public_url,
        allow_origins=settings.cors_origins,
        allow_headers=declared_request_headers(contract),
        expose_headers=declared_response_headers(contract),
    )
    response_validation = partial(ResponseValidation, public_url=settings.public_url)
    long_polling = partial(
        LongPolling,
        change_hub=change_hub,
        max_wait=settings.max_wait_seconds,
        max_stream=settings.sse_max_seconds,
    )
    routing = partial(Routing, router=router, base_path=contract.base_path, extra_routes=extra_routes)
    request_validation = partial(
        RequestValidation,
        authorize=authorize,
        unfinished_bodies=UnfinishedBodies(
            settings.max_account_body_bytes, settings.max_address_body_bytes, settings.max_body_bytes
        ),
    )
    mock_control, mock_responses = [], []
    if mock is not None:
        parts: dict[str, Any] = {"examples": mock.examples, "scenario": mock.scenario}
        mock_control = [partial(MockControl, **parts, reset=mock.reset)]
        mock_responses = [partial(MockResponseMiddleware, **parts, rate_limits=rate_limiter.policies)]
    return [
        error_boundary,
        observability,
        error_boundary,
        security_headers,
        response_validation,
        ExceptionMiddleware,
        *mock_control,
        long_polling,
        routing,
        *mock_responses,
        partial(AnonymousRateLimit, limits=rate_limiter),
        SecurityMiddleware,
        partial(CallerRateLimit, limits=rate_limiter),
        concurrency_limit,
        request_validation,
        partial(EventLoopOperations, endpoints=on_event_loop),
        partial(ImageConversion, storage=storage),
        LifespanMiddleware,
        ContextMiddleware,
    ]


def _build_mock(
    settings: Settings, contract: Document, rate_limiter: RateLimiter, owners: CredentialOwners
) -> Mock:
    """Return the parts of a mock server, with hooks that clear what this process remembers."""
    examples = ExampleResponses(contract, build_sample_file, settings.public_url)
    scenario = load_scenario(settings.mock_scenario, examples)

    def clear_counts() -> None:
        rate_limiter.store = MemoryStore()

    return Mock(examples, scenario, [scenario.reset, clear_counts, owners.clear])


def _build_pages(settings: Settings) -> dict[str, ASGIApp]:
    """Return the pages outside the contract, by path."""
    built_guides = guides(settings.site_dir)
    has_demo_accounts = settings.environment != "production"
    return {
        "/": home(settings.public_url, has_demo_accounts, has_guides=len(built_guides) > 2),
        CATALOG_PATH: api_catalog(settings.public_url),
        "/.well-known/security.txt": security_txt(settings.public_url, settings.security_contact),
        **review_board(),
        **built_guides,
    }


def _attach_services(app: Application) -> None:
    """Start and stop this process's background services with the server."""
    settings = app.settings
    # Only the process that exports needs the certificate.
    sign_file = load_signer(settings) if settings.celery_broker_url is None else None
    find_violations = load_body_checks(BUNDLE)
    worker = Worker(app.database, app.services.storage, timedelta(seconds=settings.lease_seconds))
    services = Services(settings, worker, app.services.http_client, sign_file, find_violations)
    # They start first and stop last, so that they record how the other services start and stop.
    telemetry: list[BackgroundService] = [
        Tracing(settings.otlp_endpoint, settings.service_name),
        MetricsServer(settings, app.database),
        PeriodicTask("API usage", partial(app.use_counter.flush, app.database), FLUSH_SECONDS),
    ]
    workers = _background_services(services) if app.mock is None else _mock_services(services, app.mock)
    app.on_startup.extend(service.start for service in (*telemetry, *workers))
    app.on_shutdown.extend(service.stop for service in (*workers, *telemetry))


def _background_services(services: Services) -> list[BackgroundService]:
    """Return the workers of this process; with a broker, only those that a Celery worker cannot run."""
    settings = services.settings
    if settings.celery_broker_url is not None:
        # Imported here: a server without a broker does not wait for Celery to load.
        from studio.jobs.celery.relay import WakeupRelay

        return [WakeupRelay(services), LadderBuilder(services.storage)]
    choose_mask_model(MaskModel.from_settings(settings))
    return [
        GenerationWorkers(
            services.worker,
            settings.render_workers,
            settings.max_running_per_scope,
            services.http_client,
            ImagesServer.from_settings(settings),
        ),
        WebhookDispatcher(settings, services.worker, services.http_client),
        LadderBuilder(services.storage),
        *(_periodic_task(task, services) for task in MAINTENANCE_TASKS),
    ]


def _mock_services(services: Services, mock: Mock) -> list[BackgroundService]:
    """Return the workers of the mock server, which completes jobs before it responds."""
    executor = GenerationExecutor(services.worker, os.cpu_count() or 1, renderer=SAMPLE_RENDERER)
    runner = MockRunner(
        executor,
        mock.scenario,
        partial(_run_exports, services),
        lambda: run_imports(services),
        lambda: run_pending_emails(services.worker, services.settings),
        partial(run_next_cutout, services.worker, make_sample),
    )
    # Tasks with a trigger are the jobs that the runner completes.
    untriggered = [task for task in MAINTENANCE_TASKS if task.trigger is None]
    deliver = partial(mock_webhooks.deliver, mock.scenario)
    dispatcher = WebhookDispatcher(services.settings, services.worker, services.http_client, deliver)
    return [runner, dispatcher, *(_periodic_task(task, services) for task in untriggered)]


def _run_exports(services: Services) -> None:
    """Write the archives of exports. A mock sends nothing: every destination accepts every file."""
    worker, accept = services.worker, Outcome(status_code=200)
    run_pending_exports(worker)
    run_pending_deliveries(services.settings, worker, services.http_client, lambda *_: accept)
    run_pending_account_exports(worker)


def _periodic_task(task: MaintenanceTask, services: Services) -> PeriodicTask:
    wakeup = task.trigger.listen() if task.trigger else None
    return PeriodicTask(task.name, partial(run_task, task, services), task.interval_seconds, wakeup)


def _build_middleware_stack_eagerly(middleware: ConnexionMiddleware) -> None:
    """Build the middleware stack at start.

    Connexion builds it on the first request, where an error in the contract would fail every request.
    """
    middleware.app, middleware.middleware_stack = middleware._build_middleware_stack()
