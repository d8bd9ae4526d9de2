"""Read every setting of the product from environment variables into one frozen object.

Only this module reads environment variables. Other modules receive a `Settings` object or a value. The fields
of `Settings` are the only list of settings: each has its variable, parser, default and description.
`docs/reference/settings.md` is generated from them.
"""

from __future__ import annotations

import base64
import os
import re
import tomllib
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import Field, dataclass, field, fields
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from environs import Env, EnvValidationError, ValidationError

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"
VERSION: str = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["version"]
"""The release of this product."""
DEVELOPMENT_SECRET = "development-only-secret-never-use-it-in-production"  # noqa: S105 - rejected outside development
DEVELOPMENT_WEBHOOK_SECRET = "whsec_ZGV2ZWxvcG1lbnQtb25seS1zZWNyZXQhIQ=="  # noqa: S105 - rejected outside development
MIN_SECRET_BYTES = 32
MIN_SECRET_CHARACTERS = 10
"""Different characters of a secret; a random one of 32 bytes has at least 10 in each common notation."""
SECRET_COMMAND = "python -c 'import secrets; print(secrets.token_hex(32))'"  # noqa: S105 - a command
PRIVATE_UMASK = 0o077
"""The umask of each process that stores files: other users of the machine have no access to them."""
SMTP_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
"""URL schemes of a mail server, and the port that each has by default."""

MOCK_SECRET = "mock-only-secret-that-makes-the-same-token-every-time"  # noqa: S105 - a mock has nothing to protect
PUBLISHED_SECRETS = frozenset({DEVELOPMENT_SECRET, MOCK_SECRET})
MOCK_LIMIT = "1000000"

MaskModelType = Literal["u2net", "isnet", "birefnet"]
"""The kinds of networks that `MASK_MODEL` can name."""


class InvalidSettings(Exception):
    """The process must not start: settings are missing or invalid. The message names all of them."""


# Parsers turn the text of a variable into its value. They raise ValidationError with the rest of a sentence
# that starts with the name of the variable. `accepts` is for the reference page.


@dataclass(frozen=True)
class Text:
    """Any text, or text that matches a pattern."""

    accepts: str = ""
    pattern: str = ""

    def __call__(self, text: str) -> str:
        if self.pattern and not re.fullmatch(self.pattern, text):
            raise ValidationError(f"must be {self.accepts}, not {text!r}")
        return text


@dataclass(frozen=True)
class OneOf:
    """One of a few words."""

    choices: tuple[str, ...]

    @property
    def accepts(self) -> str:
        """The words, for the reference page."""
        return ", ".join(f"`{choice}`" for choice in self.choices)

    def __call__(self, text: str) -> str:
        if text not in self.choices:
            raise ValidationError(f"must be one of {', '.join(self.choices)}, not {text!r}")
        return text


@dataclass(frozen=True)
class Integer:
    """A whole number within limits, in ASCII digits."""

    minimum: int
    maximum: int

    @property
    def accepts(self) -> str:
        """The limits, for the reference page."""
        return f"{self.minimum} to {self.maximum}"

    def __call__(self, text: str) -> int:
        if not (text.isascii() and text.isdigit() and self.minimum <= int(text) <= self.maximum):
            raise ValidationError(
                f"must be a whole number from {self.minimum} to {self.maximum}, not {text!r}"
            )
        return int(text)


@dataclass(frozen=True)
class ListOf:
    """Values that are separated by commas. Spaces around them do not count, and empty ones are skipped."""

    items: str
    is_valid: Callable[[str], object]
    normalize: Callable[[str], str] = str

    @property
    def accepts(self) -> str:
        """What the list consists of, for the reference page."""
        return f"{self.items}, separated by commas"

    def __call__(self, text: str) -> tuple[str, ...]:
        values = tuple(self.normalize(value.strip()) for value in text.split(",") if value.strip())
        for value in values:
            if not self.is_valid(value):
                raise ValidationError(f"must be a list of {self.accepts}, not {value!r}")
        return values


@dataclass(frozen=True)
class Convert:
    """Any text, converted by a function."""

    convert: Callable[[str], Any]
    accepts: str = ""

    def __call__(self, text: str) -> Any:
        return self.convert(text)


@dataclass(frozen=True)
class Flag:
    """A switch: `1` is on, `0` is off."""

    accepts: str = "`0`, `1`"

    def __call__(self, text: str) -> bool:
        if text not in ("0", "1"):
            raise ValidationError(f"must be 0 or 1, not {text!r}")
        return text == "1"


Parser = Text | OneOf | Integer | ListOf | Convert | Flag


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _parse_signing_secret(text: str) -> str:
    """Check a secret in the notation of Standard Webhooks: `whsec_` and base64 of 24 to 64 bytes."""
    try:
        length = len(base64.b64decode(text.removeprefix("whsec_"), validate=True))
    except ValueError:
        length = 0
    if not text.startswith("whsec_") or not 24 <= length <= 64:
        # Without the value: it is a secret.
        raise ValidationError("must be whsec_ and the base64 of 24 to 64 bytes")
    return text


def _parse_broker_url(text: str) -> str:
    if not text.startswith(("redis://", "rediss://")):
        # Without the value: the URL may hold a password.
        raise ValidationError("must be redis://host:port/number or rediss://...")
    return text


def _parse_database_url(text: str) -> str:
    scheme, _, path = text.partition(":")
    if scheme.startswith("sqlite"):
        raise ValidationError(
            f"must be the URL of a PostgreSQL database: this release does not use SQLite. Unset it, and run "
            f"`make move-from-sqlite FROM={path.removeprefix('///')}`, which copies the rows to PostgreSQL"
        )
    if scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
        # The URL may hold a password.
        raise ValidationError("must start with postgresql://")
    return text


def _parse_smtp_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        # Reading the port checks it.
        is_valid = parts.scheme in SMTP_PORTS and (parts.port is None or parts.port >= 0)
    except ValueError:
        is_valid = False
    if not is_valid:
        # Without the value: the URL may hold a password.
        raise ValidationError(
            f"must begin with {', '.join(SMTP_PORTS)} and ://, and its port must be a number"
        )
    return text


def _parse_server_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        # Reading the port checks it.
        is_valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        is_valid = False
    if not is_valid or parts.username or parts.query or parts.fragment:
        # Without the value: a URL may hold a password.
        raise ValidationError("must be https://host or http://host:port, without credentials")
    return text.rstrip("/")


_FOLDER = Convert(lambda text: Path(text).absolute(), "a path")
_HOSTS = ListOf(
    "host:port", lambda host: re.fullmatch(r"[a-z0-9_.:-]+:[0-9]{1,5}", host), normalize=str.lower
)
_ORIGINS = ListOf("https://host", lambda origin: re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?", origin))
_LIMIT = Integer(1, 1_000_000)
# At least one file of the maximum size.
_BODY_BYTES = Integer(60_000_000, 1_000_000_000_000)


@dataclass(frozen=True)
class Variable:
    """How one setting is read from the environment, and what the reference page says about it.

    `derive_default` returns the text of a default that depends on the settings before it, or None.
    `default_note` describes such a default. A `secret` is not in the repr of `Settings`, and can also be read
    from the file that `NAME_FILE` names. A mock reads only the variables with `in_mock`.
    """

    group: str
    name: str
    description: str
    parse: Parser
    derive_default: Callable[[Mapping[str, Any]], str | None] | None
    default_note: str
    in_mock: bool
    secret: bool


def _setting(
    group: str,
    name: str,
    default: Any,
    description: str,
    parse: Parser = Text(),
    *,
    derive_default: Callable[[Mapping[str, Any]], str | None] | None = None,
    default_note: str = "",
    in_mock: bool = False,
    secret: bool = False,
) -> Any:
    """Return a field of `Settings` that is read from an environment variable."""
    variable = Variable(group, name, description, parse, derive_default, default_note, in_mock, secret)
    return field(default=default, repr=not secret, metadata={"variable": variable})


@dataclass(frozen=True)
class Settings:
    """The values one process runs with. Paths are absolute, times are seconds."""

    environment: str = _setting(
        "General",
        "SARTIQ_ENV",
        "development",
        "Demo accounts exist in development and test only. Outside development the server does not "
        "start without a `SECRET_KEY`; in production it does not start while a demo account has its "
        "published password. The container image sets `production`.",
        OneOf(("development", "test", "production")),
    )
    mode: str = _setting(
        "General",
        "SARTIQ_MODE",
        "live",
        "`mock` serves the API on a temporary database with sample images, for tests of clients: all data is "
        "lost on exit.",
        OneOf(("live", "mock")),
    )
    seed: str = _setting(
        "General",
        "SARTIQ_SEED",
        "demo",
        "Rows of a new database: a demonstration, or the rows that the contract tests expect.",
        OneOf(("demo", "contract")),
        in_mock=True,
    )
    mock_scenario: Path | None = _setting(  # noqa: RUF009 - immutable
        "General",
        "MOCK_SCENARIO",
        None,
        "File with the [scenario](../guides/mock-server.md#misbehave-on-request) of a mock, in YAML or JSON.",
        _FOLDER,
        in_mock=True,
    )
    secret_key: str = _setting(
        "General",
        "SECRET_KEY",
        DEVELOPMENT_SECRET,
        "Signs tokens, API keys, cursors and signed URLs, and encrypts stored responses, credentials of "
        "destinations and secrets of identity providers and authenticator apps. Outside development it must "
        "be your own.",
        Convert(str, f"at least {MIN_SECRET_BYTES} bytes with {MIN_SECRET_CHARACTERS} different characters"),
        default_note="for development only",
        secret=True,
    )
    secret_key_previous: str | None = _setting(
        "General",
        "SECRET_KEY_PREVIOUS",
        None,
        "The other key while you [rotate](../operations/production.md#rotate-secret_key) `SECRET_KEY`: what "
        "it signed or encrypted stays valid, and webhooks are signed with both.",
        Convert(str, f"at least {MIN_SECRET_BYTES} bytes with {MIN_SECRET_CHARACTERS} different characters"),
        secret=True,
    )
    host: str = _setting(
        "HTTP server",
        "HOST",
        "127.0.0.1",
        "Address that the server listens on; `0.0.0.0` is all IPv4 addresses. Outside production it must be "
        "a loopback address; the mock may listen on any address.",
        Convert(str, "an address"),
        in_mock=True,
    )
    allow_public_development: bool = _setting(
        "HTTP server",
        "ALLOW_PUBLIC_DEVELOPMENT",
        False,
        "`1` lets a server outside production listen on any `HOST`, with demo accounts whose passwords are "
        "published.",
        Flag(),
        default_note="`0`",
    )
    port: int = _setting(
        "HTTP server", "PORT", 8000, "Port that the server listens on.", Integer(1, 65535), in_mock=True
    )
    public_url: str = _setting(
        "HTTP server",
        "PUBLIC_URL",
        "http://localhost:8000",
        "URL at which clients reach the server. URLs in responses start with it.",
        Convert(lambda text: text.rstrip("/"), "a URL"),
        derive_default=lambda values: f"http://localhost:{values['port']}",
        default_note="`http://localhost:PORT`",
        in_mock=True,
    )
    request_threads: int = _setting(
        "HTTP server",
        "REQUEST_THREADS",
        8,
        "Requests handled at the same time. The pool of database connections grows with it.",
        Integer(1, 256),
    )
    request_seconds: int = _setting(
        "HTTP server",
        "REQUEST_SECONDS",
        60,
        "Seconds after which a request is aborted, with the PostgreSQL statement that it runs. It waits as "
        "long for the user of its API key.",
        Integer(1, 600),
    )
    batch_seconds: int = _setting(
        "HTTP server",
        "BATCH_SECONDS",
        10,
        "Seconds that a batch works on its items. It holds locks that other requests of the tenant wait for; "
        "the remaining items get `not_attempted`.",
        Integer(1, 30),
    )
    slow_client_seconds: int = _setting(
        "HTTP server",
        "SLOW_CLIENT_SECONDS",
        20,
        "Seconds that the server waits for a slow client. A body must arrive at 32 kB per second on average "
        "over these seconds.",
        Integer(1, 600),
    )
    max_connections: int = _setting(
        "HTTP server",
        "MAX_CONNECTIONS",
        1_000,
        "Connections that this process serves at the same time. Requests on further ones get 503, except "
        "operations below `/utils/`. Each needs two open files: the server raises its limit accordingly.",
        Integer(1, 100_000),
        in_mock=True,
    )
    max_address_connections: int = _setting(
        "HTTP server",
        "MAX_ADDRESS_CONNECTIONS",
        300,
        "How many of these connections one address can have; those of `TRUSTED_PROXIES` do not count. Set "
        "`TRUSTED_PROXIES` behind a load balancer, or this limit counts for all clients together.",
        Integer(1, 100_000),
        in_mock=True,
    )
    max_body_bytes: int = _setting(
        "HTTP server",
        "MAX_BODY_BYTES",
        1_000_000_000,
        "Bytes of unfinished request bodies that this process holds. Large ones are temporary files.",
        _BODY_BYTES,
    )
    max_account_body_bytes: int = _setting(
        "HTTP server",
        "MAX_ACCOUNT_BODY_BYTES",
        250_000_000,
        "Bytes of unfinished request bodies of one account; API keys count for their user.",
        _BODY_BYTES,
    )
    max_address_body_bytes: int = _setting(
        "HTTP server",
        "MAX_ADDRESS_BODY_BYTES",
        250_000_000,
        "Bytes of unfinished request bodies of one client address.",
        _BODY_BYTES,
    )
    max_wait_seconds: int = _setting(
        "HTTP server",
        "MAX_WAIT_SECONDS",
        60,
        "Longest wait that `Prefer: wait` can request.",
        Integer(1, 600),
        in_mock=True,
    )
    sse_max_seconds: int = _setting(
        "HTTP server",
        "SSE_MAX_SECONDS",
        300,
        "Seconds after which an event stream ends. Clients reconnect by themselves.",
        Integer(1, 3_600),
        in_mock=True,
    )
    published_max_age: int = _setting(
        "HTTP server",
        "PUBLISHED_MAX_AGE",
        300,
        "Seconds for which caches may store published images. A revocation takes as long to reach them.",
        Integer(0, 86_400),
        in_mock=True,
    )
    cors_origins: tuple[str, ...] = _setting(
        "HTTP server",
        "CORS_ORIGINS",
        (),
        "Sites whose scripts may read responses in a browser: exact origins, no wildcards.",
        _ORIGINS,
        in_mock=True,
    )
    trusted_proxies: tuple[str, ...] = _setting(
        "HTTP server",
        "TRUSTED_PROXIES",
        (),
        "Your load balancers, such as `10.0.0.0/8, ::1`. `X-Forwarded-For` counts only when one of them "
        "sends it; rate limits count by the address in it.",
        ListOf("addresses or networks", _is_network),
    )
    security_contact: str = _setting(
        "HTTP server",
        "SECURITY_CONTACT",
        "mailto:security@localhost",
        "Contact in `/.well-known/security.txt`.",
        Text("mailto:..., https://... or tel:+...", r"(mailto:[^\s@]+@\S+|https://\S+|tel:\+[0-9-]+)"),
        derive_default=lambda values: f"mailto:security@{urlsplit(values['public_url']).hostname}",
        default_note="`mailto:security@` and the host of `PUBLIC_URL`",
    )
    site_dir: Path = _setting(  # noqa: RUF009 - immutable
        "HTTP server",
        "SITE_DIR",
        Path(".site"),
        "Folder of the built documentation, which `make docs` writes. The server serves it below `/guides/`.",
        _FOLDER,
        derive_default=lambda _: ".site",
        default_note="`.site`",
    )
    data_dir: Path = _setting(  # noqa: RUF009 - immutable
        "Storage",
        "DATA_DIR",
        Path(".data"),
        "Folder of all files that the server stores.",
        _FOLDER,
        derive_default=lambda _: ".data",
        default_note="`.data`",
    )
    database_url: str = _setting(
        "Storage",
        "DATABASE_URL",
        "",
        "The PostgreSQL database. An attempt to connect ends after 5 seconds; `?connect_timeout=10` at the "
        "end of the URL sets another time, as other parameters of libpq.",
        Convert(_parse_database_url, "`postgresql://user:password@host/name`"),
        default_note="an embedded PostgreSQL in `DATA_DIR`",
        secret=True,
    )
    migration_database_url: str = _setting(
        "Storage",
        "MIGRATION_DATABASE_URL",
        "",
        "The same database with the login that owns the tables.",
        default_note="`DATABASE_URL`",
        secret=True,
    )
    media_dir: Path = _setting(  # noqa: RUF009 - immutable
        "Storage",
        "MEDIA_DIR",
        Path(".data/media"),
        "Folder of the images.",
        _FOLDER,
        derive_default=lambda values: str(values["data_dir"] / "media"),
        default_note="`DATA_DIR/media`",
    )
    min_free_percent: int = _setting(
        "Storage",
        "MIN_FREE_PERCENT",
        0,
        "Free space of the disk of `MEDIA_DIR` in percent, below which `/utils/readiness` is 503. 0 is off.",
        Integer(0, 50),
        derive_default=lambda values: "5" if values["environment"] == "production" else "0",
        default_note="5 in production, else 0",
    )
    media_url: str | None = _setting(
        "Storage",
        "MEDIA_URL",
        None,
        "Bucket that stores the images instead of `MEDIA_DIR`, for several hosts. Credentials come from "
        "`AWS_ACCESS_KEY_ID` and the other sources of AWS clients.",
        Text("s3://bucket or s3://bucket/folder", r"s3://[a-z0-9][a-z0-9.-]{2,62}(/[\w./-]*)?"),
    )
    s3_endpoint_url: str | None = _setting(
        "Storage", "S3_ENDPOINT_URL", None, "URL of the S3 service, if it is not AWS.", Convert(str, "a URL")
    )
    render_workers: int = _setting(
        "Background work",
        "RENDER_WORKERS",
        2,
        "Generations that this process renders at the same time.",
        Integer(0, 64),
    )
    mask_model: str = _setting(
        "Background work",
        "MASK_MODEL",
        "u2netp",
        "What finds products in photos: the network that ships with the server, colors alone, or the path "
        "of another network. The file is needed only where generations run.",
        Text("`u2netp`, `color` or a path that ends with `.onnx`", r"u2netp|colou?r|.+\.onnx"),
    )
    mask_model_type: MaskModelType = _setting(  # noqa: RUF009 - immutable
        "Background work",
        "MASK_MODEL_TYPE",
        "u2net",
        "Kind of the network in the file of `MASK_MODEL`: U-2-Net with an input of 320 x 320 pixels, IS-Net "
        "or BiRefNet with 1024 x 1024.",
        OneOf(("u2net", "isnet", "birefnet")),
    )
    lease_seconds: int = _setting(
        "Background work",
        "LEASE_SECONDS",
        20,
        "Seconds after which another worker takes over the work of a crashed one.",
        Integer(2, 3_600),
    )
    max_running_per_scope: int = _setting(
        "Background work",
        "MAX_RUNNING_PER_SCOPE",
        4,
        "Generations of one tenant that all processes render at the same time; `0` is no limit.",
        Integer(0, 1_000),
    )
    audit_retention_months: int | None = _setting(
        "Background work",
        "AUDIT_RETENTION_MONTHS",
        None,
        "Whole months after which [audit events](../guides/audit-log.md#retention) are deleted, a month at a "
        "time. Read by the process whose login owns the tables. Without it, none are deleted.",
        Integer(1, 1_200),
    )
    celery_broker_url: str | None = _setting(
        "Background work",
        "CELERY_BROKER_URL",
        None,
        "Redis server of the workers. With it, workers beside the server do all background work, and "
        "all processes share the counts of rate limits.",
        Convert(_parse_broker_url, "`redis://host:port/number` or `rediss://...`"),
        secret=True,
    )
    webhook_senders: int = _setting(
        "Background work",
        "WEBHOOK_SENDERS",
        4,
        "Webhook messages that this process sends at the same time: at most one to each endpoint, and half "
        "of them to one tenant.",
        Integer(0, 32),
        in_mock=True,
    )
    outbound_allowed_hosts: tuple[str, ...] = _setting(
        "Background work",
        "OUTBOUND_ALLOWED_HOSTS",
        (),
        "Servers that webhooks, deliveries, image URLs and (identity) providers may reach outside the public "
        "internet, with HTTP too. All other targets need HTTPS, port 443 and a public address.",
        _HOSTS,
        in_mock=True,
    )
    dns_servers: tuple[str, ...] = _setting(
        "Background work",
        "DNS_SERVERS",
        (),
        "DNS servers that are asked for the TXT records of domains, by IP address, if those of the system "
        "do not see the public DNS.",
        _HOSTS,
        in_mock=True,
    )
    compute_webhook_secret: str | None = _setting(
        "Background work",
        "COMPUTE_WEBHOOK_SECRET",
        None,
        "Secret with which a Compute API signs its callbacks. Without one, callbacks are rejected "
        "outside development and tasks are polled.",
        Convert(_parse_signing_secret, "`whsec_` and base64 of 24 to 64 bytes"),
        derive_default=lambda values: (
            DEVELOPMENT_WEBHOOK_SECRET if values["environment"] == "development" else None
        ),
        default_note="for development only",
        in_mock=True,
        secret=True,
    )
    c2pa_certificate: str | None = _setting(
        "Background work",
        "C2PA_CERTIFICATE",
        None,
        "Certificate that signs the files of exports with C2PA manifests, with those of its issuers. Needs "
        "`requirements-c2pa.txt`, see [Signed exports](../guides/digital-source-type.md#signed-exports).",
        Convert(str, "certificates in PEM, the signing one first"),
        secret=True,
    )
    c2pa_private_key: str | None = _setting(
        "Background work",
        "C2PA_PRIVATE_KEY",
        None,
        "Key of `C2PA_CERTIFICATE`.",
        Convert(str, "a key in PEM without a password"),
        secret=True,
    )
    openai_images_url: str | None = _setting(
        "Background work",
        "OPENAI_IMAGES_URL",
        None,
        "Server with an [Images API](../guides/generative-images.md), for models whose configuration names "
        "none. It may be in your network and use HTTP: only this provider reaches it.",
        Convert(_parse_server_url, "`https://host` or `http://host:port`"),
    )
    openai_images_api_key: str | None = _setting(
        "Background work",
        "OPENAI_IMAGES_API_KEY",
        None,
        "API key of that server. It is sent to no other one.",
        secret=True,
    )
    openai_images_timeout_seconds: int = _setting(
        "Background work",
        "OPENAI_IMAGES_TIMEOUT_SECONDS",
        180,
        "Seconds in which an Images API must return the images of a request.",
        Integer(1, 900),
    )
    mail: str = _setting(
        "E-mail",
        "MAIL",
        "on",
        "`off` sends no e-mails: operations that send one return 503. Production needs `SMTP_URL` or `off`.",
        OneOf(("on", "off")),
    )
    smtp_url: str | None = _setting(
        "E-mail",
        "SMTP_URL",
        None,
        "Mail server. Without one, e-mails are files in `OUTBOX_DIR`, except in production.",
        Convert(_parse_smtp_url, "`smtp://user:password@host:25`, `smtp+starttls://...` or `smtps://...`"),
        secret=True,
    )
    mail_from: str = _setting("E-mail", "MAIL_FROM", "Sartiq <no-reply@example.com>", "Sender of e-mails.")
    outbox_dir: Path = _setting(  # noqa: RUF009 - immutable
        "E-mail",
        "OUTBOX_DIR",
        Path(".data/outbox"),
        "Folder of e-mails when there is no mail server. Each file is deleted when its token expires.",
        _FOLDER,
        derive_default=lambda values: str(values["data_dir"] / "outbox"),
        default_note="`DATA_DIR/outbox`",
        in_mock=True,
    )
    log_level: str = _setting(
        "Observability",
        "LOG_LEVEL",
        "INFO",
        "Lowest level that is logged to standard error. `INFO` has one line for each request.",
        OneOf(("DEBUG", "INFO", "WARNING", "ERROR")),
        in_mock=True,
    )
    log_format: str = _setting(
        "Observability",
        "LOG_FORMAT",
        "lines",
        "`lines` is for people, `json` for log collectors.",
        OneOf(("json", "lines")),
        derive_default=lambda values: "lines" if values["environment"] == "development" else "json",
        default_note="`lines` in development, else `json`",
        in_mock=True,
    )
    metrics_host: str = _setting(
        "Observability",
        "METRICS_HOST",
        "127.0.0.1",
        "Address of the metrics port.",
        Convert(str, "an address"),
    )
    metrics_port: int = _setting(
        "Observability",
        "METRICS_PORT",
        0,
        "Port at which Prometheus reads the metrics of this process; `0` opens none.",
        Integer(0, 65535),
    )
    otlp_endpoint: str | None = _setting(
        "Observability",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        None,
        "Collector that traces are sent to. Without one, no traces are recorded.",
        Convert(lambda text: text.rstrip("/") or None, "`http://host:4318` (OTLP over HTTP)"),
        secret=True,
    )
    service_name: str = _setting(
        "Observability",
        "OTEL_SERVICE_NAME",
        "sartiq-api",
        "Name of this process in logs and traces.",
        default_note="`sartiq-api`, `sartiq-worker` or `sartiq-beat`",
    )
    limit_account: int = _setting(
        "Rate limits", "LIMIT_ACCOUNT", 1_200, "Requests of one account per minute.", _LIMIT
    )
    limit_key: int = _setting(
        "Rate limits", "LIMIT_KEY", 1_200, "Requests of one API key per minute.", _LIMIT
    )
    limit_organization: int = _setting(
        "Rate limits",
        "LIMIT_ORGANIZATION",
        6_000,
        "Requests per minute that touch rows of one organization. Guests with review links get at most half.",
        _LIMIT,
    )
    limit_guest_sessions: int = _setting(
        "Rate limits",
        "LIMIT_GUEST_SESSIONS",
        100,
        "Exchanges of one review link from one address in 15 minutes. Each makes a session of a guest, which "
        "has `LIMIT_ACCOUNT` of its own.",
        _LIMIT,
    )
    limit_public_images: int = _setting(
        "Rate limits",
        "LIMIT_PUBLIC_IMAGES",
        6_000,
        "Requests per minute for the shared and published images of one organization. They never use up the "
        "limits of its members and keys.",
        _LIMIT,
    )
    limit_address: int = _setting(
        "Rate limits",
        "LIMIT_ADDRESS",
        600,
        "Requests of one address per minute without a valid credential.",
        _LIMIT,
    )
    limit_concurrent_requests: int = _setting(
        "Rate limits",
        "LIMIT_CONCURRENT_REQUESTS",
        32,
        "Requests that one process runs at the same time for one account, or for one address without a "
        "credential. They get at most half of `REQUEST_THREADS`, a quarter while others send requests.",
        _LIMIT,
    )
    limit_sign_in_account: int = _setting(
        "Rate limits", "LIMIT_SIGN_IN_ACCOUNT", 10, "Wrong passwords for one account in 15 minutes.", _LIMIT
    )
    limit_sign_in_address: int = _setting(
        "Rate limits",
        "LIMIT_SIGN_IN_ADDRESS",
        100,
        "Wrong passwords, wrong tokens and recovery requests from one address in 15 minutes.",
        _LIMIT,
    )
    limit_recovery_account: int = _setting(
        "Rate limits", "LIMIT_RECOVERY_ACCOUNT", 5, "Recovery e-mails for one account per hour.", _LIMIT
    )
    limit_mails: int = _setting(
        "Rate limits",
        "LIMIT_MAILS",
        60,
        "E-mails per hour that one account sends to addresses of its choice: invitations and changes of "
        "address.",
        _LIMIT,
    )
    limit_account_exports: int = _setting(
        "Rate limits",
        "LIMIT_ACCOUNT_EXPORTS",
        5,
        "Copies of its personal data that one account requests per day.",
        _LIMIT,
    )

    # No settings: the contract and the lifetime of sessions are the same for every installation.
    access_token_seconds: int = 3600
    refresh_token_seconds: int = 30 * 24 * 3600
    max_json_bytes: int = 1_000_000
    max_upload_bytes: int = 52_428_800

    @property
    def secret_keys(self) -> tuple[str, ...]:
        """The keys that signatures are verified with. The first one signs."""
        return (self.secret_key, *filter(None, [self.secret_key_previous]))

    @property
    def pool_size(self) -> int:
        """Database connections that all threads of this process can hold at once."""
        # Five more for maintenance tasks, exports, the watching of generations and the users of API keys,
        # four for images of imports, and six for the threads of the health checks that query the database.
        return self.request_threads + self.render_workers + self.webhook_senders + 15

    @property
    def read_connections(self) -> int:
        """Those of the `pool_size` connections that reads on the event loop can hold."""
        return max(2, self.request_threads // 2)

    @property
    def is_closed_development(self) -> bool:
        """Whether requests of other machines must be rejected, because passwords are published."""
        # A mock has no data to protect.
        is_open = self.environment == "production" or self.mode == "mock" or self.allow_public_development
        return not is_open

    @property
    def other_files(self) -> int:
        """Files that this process can have open at once, apart from those of client connections."""
        # 100 are for logs, sockets to other servers and subprocesses.
        return self.pool_size + 100

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, service_name: str | None = None
    ) -> Settings:
        """Return the settings of this process.

        An empty variable counts as missing.

        Args:
            environment: The variables to read, by default those of the process.
            service_name: The default of `OTEL_SERVICE_NAME`.

        Raises:
            InvalidSettings: Variables are invalid, or a required secret is missing outside development. The
                message names all of them.
        """
        variables = dict(os.environ if environment is None else environment)
        if variables.get("SARTIQ_MODE") == "mock":
            variables = _build_mock_environment(variables)
        errors = _read_secret_files(variables)
        reader = _Reader(variables)
        values: dict[str, Any] = {}
        for item, variable in list_settings():
            default = variable.derive_default(values) if variable.derive_default else None
            # Read like a variable that has the default's text, so that a derived default is checked too.
            value = reader.parse(variable.name, default, parser=variable.parse)
            values[item.name] = item.default if value is None else value
        if service_name is not None and not variables.get("OTEL_SERVICE_NAME"):
            values["service_name"] = service_name
        try:
            reader.seal()
        except EnvValidationError as error:
            messages: Any = error.error_messages
            errors |= {name: texts[0] for name, texts in messages.items()}
        errors = (
            _check_secrets(values, errors) | _check_exposure(values) | _check_mail(values, errors) | errors
        )
        if errors:
            raise InvalidSettings(_format_errors(errors))
        return cls(**values)


def list_settings() -> list[tuple[Field[Any], Variable]]:
    """Return the fields of `Settings` that are read from the environment, with their variables."""
    return [(item, item.metadata["variable"]) for item in fields(Settings) if "variable" in item.metadata]


def load_env_file(environment: MutableMapping[str, str] = os.environ) -> None:
    """Add the variables of `.env` in the working folder to the environment, in development only.

    Variables that are set already keep their values. `ENV_FILE` names another file.

    Raises:
        InvalidSettings: The file cannot be read, or sets `SARTIQ_ENV` to something else than development.
    """
    if (environment.get("SARTIQ_ENV") or "development") != "development":
        return
    # A mock runs beside programs that have a file of this name too.
    if environment.get("SARTIQ_MODE") == "mock":
        return
    path = Path(environment.get("ENV_FILE") or ".env")
    if not path.exists():
        return
    try:
        loaded = dotenv_values(path)
    except (OSError, UnicodeError) as error:
        raise InvalidSettings(f"{path} cannot be read: {error}") from error
    if loaded.get("SARTIQ_ENV", "development") not in ("development", "", None):
        raise InvalidSettings(
            f"{path} is read in development only and must not set SARTIQ_ENV: set it in the environment"
        )
    for name, value in loaded.items():
        if value is not None:
            environment.setdefault(name, value)


def set_metrics_folder(folder: str) -> None:
    """Have the metrics library of this process keep values in a folder. It reads only this variable."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder


class _Reader(Env):
    """Reads variables from a mapping, and collects all errors until it is sealed."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(eager=False)
        self._variables = variables
        self.add_parser("parse", lambda text, parser: None if text is None else parser(text))

    def _get_value(self, env_key: str, default: Any) -> Any:
        return self._variables.get(env_key) or default


def _build_mock_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that count for a mock.

    A mock runs beside programs with a DATABASE_URL of their own, so most of the environment is ignored.
    """
    if environment.get("SARTIQ_ENV") == "production":
        raise InvalidSettings("SARTIQ_MODE must not be mock in production: its token is published")
    variables = [variable for _, variable in list_settings()]
    names = {name for each in variables if each.in_mock for name in (each.name, f"{each.name}_FILE")}
    own = {name: value for name, value in environment.items() if name in names}
    limits = {
        variable.name: environment.get(variable.name) or MOCK_LIMIT
        for variable in variables
        if variable.group == "Rate limits"
    }
    fixed = {
        "SARTIQ_MODE": "mock",
        "SECRET_KEY": MOCK_SECRET,
        "MAX_RUNNING_PER_SCOPE": "0",
    }
    return own | limits | fixed


def _read_secret_files(variables: dict[str, str]) -> dict[str, str]:
    """Set each secret whose `NAME_FILE` is set to the content of that file; return the errors by variable."""
    errors = {}
    for _, variable in list_settings():
        name, file_name = variable.name, f"{variable.name}_FILE"
        path = variables.get(file_name)
        if not variable.secret or not path:
            continue
        if variables.get(name):
            errors[file_name] = f"and {name} must not both be set"
            continue
        try:
            content = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            errors[file_name] = f"names a file that cannot be read: {error}"
            continue
        variables[name] = content.removesuffix("\n").removesuffix("\r")
    return errors


def _check_secrets(values: Mapping[str, Any], errors: Mapping[str, str]) -> dict[str, str]:
    """Return the errors of secrets that are good enough for development only, by variable."""
    if values["environment"] == "development":
        return {}
    found = {}
    for name in ("SECRET_KEY", "SECRET_KEY_PREVIOUS"):
        secret = values[name.lower()]
        # A file that cannot be read is reported already.
        if secret is not None and _is_guessable(secret) and f"{name}_FILE" not in errors:
            found[name] = (
                f"must be set to at least {MIN_SECRET_BYTES} bytes with at least {MIN_SECRET_CHARACTERS} "
                f"different characters, and to none that is published. Make one and keep it: {SECRET_COMMAND}"
            )
    if values["secret_key_previous"] == values["secret_key"]:
        found["SECRET_KEY_PREVIOUS"] = "must differ from SECRET_KEY"  # noqa: S105 - a message
    if values["compute_webhook_secret"] == DEVELOPMENT_WEBHOOK_SECRET:
        found["COMPUTE_WEBHOOK_SECRET"] = "must be your own outside development"  # noqa: S105 - a message
    return found


def _is_guessable(secret: str) -> bool:
    """Return whether a secret is too short, repeats few characters, or is in this repository."""
    is_weak = len(secret.encode()) < MIN_SECRET_BYTES or len(set(secret)) < MIN_SECRET_CHARACTERS
    return is_weak or secret.strip() in PUBLISHED_SECRETS


def _check_exposure(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the error of a server with published passwords that other machines could reach, by variable."""
    # A mock has no data to protect.
    if values["environment"] == "production" or values["mode"] == "mock":
        return {}
    if values["allow_public_development"] or is_loopback(values["host"]):
        return {}
    return {
        "HOST": f"must be a loopback address in {values['environment']}, not {values['host']!r}: passwords "
        "of the demo accounts are published. Set SARTIQ_ENV=production, or ALLOW_PUBLIC_DEVELOPMENT=1"
    }


def _check_mail(values: Mapping[str, Any], errors: Mapping[str, str]) -> dict[str, str]:
    """Return the error of production without a mail server, whose e-mails would stay on its disk."""
    is_decided = values["environment"] != "production" or values["smtp_url"] or values["mail"] == "off"
    if is_decided or "SMTP_URL_FILE" in errors:
        return {}
    return {"SMTP_URL": "must be set in production, or MAIL=off: operations that send e-mail then return 503"}


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host; a name other than `localhost` does not count."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _format_errors(errors: Mapping[str, str]) -> str:
    lines = [f"{name} {message}" for name, message in errors.items()]
    if len(lines) == 1:
        return lines[0]
    return "\n  - ".join([f"{len(lines)} settings are invalid:", *lines])
