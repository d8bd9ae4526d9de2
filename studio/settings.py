"""Every setting of the product, read once from the environment into one frozen object.

Nothing else reads the environment; whoever needs a value is handed this object or the value.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

DEVELOPMENT_SECRET = "development-only-secret-never-use-it-in-production"  # noqa: S105 - refused outside development
DEVELOPMENT_WEBHOOK_SECRET = "whsec_ZGV2ZWxvcG1lbnQtb25seS1zZWNyZXQhIQ=="  # noqa: S105 - refused outside development
ENVIRONMENTS = ("development", "test", "production")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOG_FORMATS = ("json", "lines")
SEEDS = ("demo", "contract")
MODES = ("live", "mock")
MOCK_SECRET = "mock-only-secret-that-makes-the-same-token-every-time"  # noqa: S105 - a mock has nothing to hide
# By this name connections of one process share a database in memory, as long as one of them is open.
MOCK_DATABASE_URL = "sqlite:///file:sartiq-mock?mode=memory&cache=shared&uri=true&check_same_thread=false"
_MOCK_ENVIRONMENT = frozenset(
    (
        "SARTIQ_SEED",
        "HOST",
        "PORT",
        "PUBLIC_URL",
        "LOG_LEVEL",
        "LOG_FORMAT",
        "CORS_ORIGINS",
        "OUTBOX_DIR",
        "OUTBOUND_ALLOWED_HOSTS",
        "COMPUTE_WEBHOOK_SECRET",
        "WEBHOOK_SENDERS",
        "MAX_WAIT_SECONDS",
        "SSE_MAX_SECONDS",
    )
)


class InvalidSettings(Exception):
    """The environment holds a value with which the server must not start."""


def _parse_int(environment: Mapping[str, str], name: str, default: int, minimum: int, maximum: int) -> int:
    text = environment.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and minimum <= int(text) <= maximum):
        raise InvalidSettings(f"{name} must be a whole number from {minimum} to {maximum}, not {text!r}")
    return int(text)


def _parse_bucket_url(environment: Mapping[str, str]) -> str | None:
    address = environment.get("MEDIA_URL") or None
    if address is not None and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{2,62}(/[\w./-]*)?", address):
        raise InvalidSettings(f"MEDIA_URL must be s3://bucket or s3://bucket/folder, not {address!r}")
    return address


def _parse_signing_secret(environment: Mapping[str, str], name: str, environment_name: str) -> str | None:
    """A secret as Standard Webhooks writes it: whsec_ and base64 of 24 to 64 bytes."""
    secret = environment.get(name) or (
        DEVELOPMENT_WEBHOOK_SECRET if environment_name == "development" else None
    )
    if secret is None:
        return None
    try:
        length = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except ValueError:
        length = 0
    if not secret.startswith("whsec_") or not 24 <= length <= 64:
        raise InvalidSettings(f"{name} must be whsec_ and the base64 of 24 to 64 bytes")
    if environment_name != "development" and secret == DEVELOPMENT_WEBHOOK_SECRET:
        raise InvalidSettings(f"{name} must be your own outside development")
    return secret


def _parse_broker_url(environment: Mapping[str, str]) -> str | None:
    address = environment.get("CELERY_BROKER_URL") or None
    if address is not None and not address.startswith(("redis://", "rediss://")):
        # Without the address itself: it may hold a password.
        raise InvalidSettings("CELERY_BROKER_URL must be redis://host:port/number or rediss://...")
    return address


def _parse_networks(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    listed = tuple(one.strip() for one in (environment.get(name) or "").split(",") if one.strip())
    for one in listed:
        try:
            ip_network(one)
        except ValueError:
            raise InvalidSettings(
                f"{name} must be a list of addresses or networks, separated by commas, not {one!r}"
            ) from None
    return listed


def _build_mock_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What counts of the environment: a mock runs beside programs that have a DATABASE_URL of their own."""
    if environment.get("SARTIQ_ENV") == "production":
        raise InvalidSettings("SARTIQ_MODE must not be mock in production: everybody could sign in")
    kept = {name: value for name, value in environment.items() if name in _MOCK_ENVIRONMENT}
    names = [each.name.upper() for each in fields(Settings) if each.name.startswith("limit_")]
    limits = {name: environment.get(name) or "1000000" for name in names}
    own = {"DATABASE_URL": MOCK_DATABASE_URL, "SECRET_KEY": MOCK_SECRET, "MAX_RUNNING_PER_SCOPE": "0"}
    return {**kept, **limits, **own}


def _parse_limit(environment: Mapping[str, str], name: str, default: int) -> int:
    return _parse_int(environment, name, default, 1, 1_000_000)


def _parse_hosts(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    listed = (environment.get(name) or "").split(",")
    hosts = tuple(host.strip().lower() for host in listed if host.strip())
    wrong = next((host for host in hosts if not re.fullmatch(r"[a-z0-9_.:-]+:[0-9]{1,5}", host)), None)
    if wrong is not None:
        raise InvalidSettings(f"{name} must be a list of host:port, separated by commas, not {wrong!r}")
    return hosts


def _parse_origins(environment: Mapping[str, str]) -> tuple[str, ...]:
    listed = (environment.get("CORS_ORIGINS") or "").split(",")
    origins = tuple(origin.strip() for origin in listed if origin.strip())
    wrong = next(
        (one for one in origins if not re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?", one)), None
    )
    if wrong is not None:
        raise InvalidSettings(
            f"CORS_ORIGINS must be a list of https://host, separated by commas, not {wrong!r}"
        )
    return origins


def _parse_contact(environment: Mapping[str, str], public_url: str) -> str:
    contact = environment.get("SECURITY_CONTACT") or f"mailto:security@{urlsplit(public_url).hostname}"
    if not re.fullmatch(r"(mailto:[^\s@]+@\S+|https://\S+|tel:\+[0-9-]+)", contact):
        raise InvalidSettings(
            f"SECURITY_CONTACT must be mailto:..., https://... or tel:+..., not {contact!r}"
        )
    return contact


@dataclass(frozen=True)
class Settings:
    """The values one process runs with. Paths are absolute, times are seconds."""

    environment: str = "development"
    mode: str = "live"
    seed: str = "demo"
    secret_key: str = field(default=DEVELOPMENT_SECRET, repr=False)
    data_dir: Path = Path(".data")
    database_url: str = field(default="", repr=False)
    migration_database_url: str = field(default="", repr=False)
    media_dir: Path = Path(".data/media")
    media_url: str | None = None
    s3_endpoint_url: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str = "http://localhost:8000"
    log_level: str = "INFO"
    log_format: str = "lines"
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    otlp_endpoint: str | None = field(default=None, repr=False)
    service_name: str = "sartiq-api"
    request_threads: int = 8
    request_seconds: int = 60
    slow_client_seconds: int = 20
    render_workers: int = 2
    lease_seconds: int = 20
    webhook_senders: int = 4
    max_running_per_scope: int = 4
    celery_broker_url: str | None = field(default=None, repr=False)
    smtp_url: str | None = field(default=None, repr=False)
    mail_from: str = "Sartiq <no-reply@example.com>"
    outbox_dir: Path = Path(".data/outbox")
    access_token_seconds: int = 3600
    refresh_token_seconds: int = 30 * 24 * 3600
    outbound_allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    security_contact: str = "mailto:security@localhost"
    compute_webhook_secret: str | None = field(default=None, repr=False)
    max_json_bytes: int = 1_000_000
    max_upload_bytes: int = 52_428_800
    trusted_proxies: tuple[str, ...] = ()
    limit_account: int = 1_200
    limit_key: int = 1_200
    limit_organization: int = 6_000
    limit_address: int = 600
    limit_sign_in_account: int = 10
    limit_sign_in_address: int = 100
    limit_recovery_account: int = 5
    limit_mails: int = 60
    max_wait_seconds: int = 60
    sse_max_seconds: int = 300

    @property
    def pool_size(self) -> int:
        """Database connections that all threads of this process can hold at once."""
        # Four more for what runs beside: upkeep, exports, and watching.
        return self.request_threads + self.render_workers + self.webhook_senders + 4

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, service_name: str = service_name
    ) -> Settings:
        """Return the settings of this process, which is called `service_name` unless they say otherwise.

        Raises SettingsRefused for unreadable values, and outside development for a missing,
        default or short SECRET_KEY.
        """
        values = os.environ if environment is None else environment
        mode = values.get("SARTIQ_MODE") or "live"
        if mode not in MODES:
            raise InvalidSettings(f"SARTIQ_MODE must be one of {', '.join(MODES)}, not {mode!r}")
        if mode == "mock":
            values = _build_mock_environment(values)
        name = values.get("SARTIQ_ENV") or "development"
        if name not in ENVIRONMENTS:
            raise InvalidSettings(f"SARTIQ_ENV must be one of {', '.join(ENVIRONMENTS)}, not {name!r}")
        seed = values.get("SARTIQ_SEED") or "demo"
        if seed not in SEEDS:
            raise InvalidSettings(f"SARTIQ_SEED must be one of {', '.join(SEEDS)}, not {seed!r}")
        log_level = values.get("LOG_LEVEL") or cls.log_level
        if log_level not in LOG_LEVELS:
            raise InvalidSettings(f"LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}, not {log_level!r}")
        log_format = values.get("LOG_FORMAT") or ("lines" if name == "development" else "json")
        if log_format not in LOG_FORMATS:
            raise InvalidSettings(f"LOG_FORMAT must be one of {', '.join(LOG_FORMATS)}, not {log_format!r}")
        secret = values.get("SECRET_KEY") or DEVELOPMENT_SECRET
        if name != "development" and (secret == DEVELOPMENT_SECRET or len(secret.encode()) < 32):
            raise InvalidSettings(
                "SECRET_KEY must be set to at least 32 bytes of your own outside development"
            )
        port = _parse_int(values, "PORT", 8000, 1, 65535)
        public_url = (values.get("PUBLIC_URL") or f"http://localhost:{port}").rstrip("/")
        data_dir = Path(values.get("DATA_DIR") or ".data").absolute()
        return cls(
            environment=name,
            mode=mode,
            seed=seed,
            secret_key=secret,
            data_dir=data_dir,
            database_url=values.get("DATABASE_URL") or f"sqlite:///{data_dir / 'sartiq.db'}",
            migration_database_url=values.get("MIGRATION_DATABASE_URL") or "",
            media_dir=Path(values.get("MEDIA_DIR") or data_dir / "media").absolute(),
            media_url=_parse_bucket_url(values),
            s3_endpoint_url=values.get("S3_ENDPOINT_URL") or None,
            host=values.get("HOST") or cls.host,
            port=port,
            public_url=public_url,
            log_level=log_level,
            log_format=log_format,
            metrics_host=values.get("METRICS_HOST") or cls.metrics_host,
            metrics_port=_parse_int(values, "METRICS_PORT", 0, 0, 65535),
            otlp_endpoint=(values.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "").rstrip("/") or None,
            service_name=values.get("OTEL_SERVICE_NAME") or service_name,
            request_threads=_parse_int(values, "REQUEST_THREADS", 8, 1, 256),
            request_seconds=_parse_int(values, "REQUEST_SECONDS", cls.request_seconds, 1, 600),
            slow_client_seconds=_parse_int(values, "SLOW_CLIENT_SECONDS", cls.slow_client_seconds, 1, 600),
            render_workers=_parse_int(values, "RENDER_WORKERS", 2, 0, 64),
            lease_seconds=_parse_int(values, "LEASE_SECONDS", 20, 2, 3_600),
            webhook_senders=_parse_int(values, "WEBHOOK_SENDERS", 4, 0, 32),
            max_running_per_scope=_parse_int(values, "MAX_RUNNING_PER_SCOPE", 4, 0, 1_000),
            celery_broker_url=_parse_broker_url(values),
            smtp_url=values.get("SMTP_URL") or None,
            mail_from=values.get("MAIL_FROM") or cls.mail_from,
            outbox_dir=Path(values.get("OUTBOX_DIR") or data_dir / "outbox").absolute(),
            outbound_allowed_hosts=_parse_hosts(values, "OUTBOUND_ALLOWED_HOSTS"),
            cors_origins=_parse_origins(values),
            security_contact=_parse_contact(values, public_url),
            trusted_proxies=_parse_networks(values, "TRUSTED_PROXIES"),
            limit_account=_parse_limit(values, "LIMIT_ACCOUNT", cls.limit_account),
            limit_key=_parse_limit(values, "LIMIT_KEY", cls.limit_key),
            limit_organization=_parse_limit(values, "LIMIT_ORGANIZATION", cls.limit_organization),
            limit_address=_parse_limit(values, "LIMIT_ADDRESS", cls.limit_address),
            limit_sign_in_account=_parse_limit(values, "LIMIT_SIGN_IN_ACCOUNT", cls.limit_sign_in_account),
            limit_sign_in_address=_parse_limit(values, "LIMIT_SIGN_IN_ADDRESS", cls.limit_sign_in_address),
            limit_recovery_account=_parse_limit(values, "LIMIT_RECOVERY_ACCOUNT", cls.limit_recovery_account),
            limit_mails=_parse_limit(values, "LIMIT_MAILS", cls.limit_mails),
            max_wait_seconds=_parse_int(values, "MAX_WAIT_SECONDS", 60, 1, 600),
            sse_max_seconds=_parse_int(values, "SSE_MAX_SECONDS", 300, 1, 3_600),
            compute_webhook_secret=_parse_signing_secret(values, "COMPUTE_WEBHOOK_SECRET", name),
        )
