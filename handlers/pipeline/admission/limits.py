"""The closed list of what can keep the server from accepting a request, and what an operator does about it.

A response above 399 has a problem code. Several causes share one code, so a 503 and a 429 also name the
limit that rejected the request, in the access log and in a metric. Clients do not see it. The page
`docs/operations/admission-control.md` is generated from this module, which enforces nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Limit(StrEnum):
    """What rejected a request: the values of `limit` in the access log and in `sartiq_problems_total`.

    Rate limits have the name of their policy, as the headers of the response have it.
    """

    CONNECTIONS = "connections"
    PUBLIC_ADDRESS = "public_address"
    BODY_BYTES = "body_bytes"
    LARGE_JSON = "large_json"
    REQUEST_THREADS = "request_threads"
    REQUEST_TIME = "request_time"
    ROW_LOCKED = "row_locked"
    FETCH_SLOTS = "fetch_slots"
    DECODE_SLOTS = "decode_slots"
    STORE_SLOTS = "store_slots"
    VARIANT_LOST = "variant_lost"
    LONG_POLL = "long_poll"
    CONCURRENT_REQUESTS = "concurrent-requests"
    ACCOUNT = "account"
    KEY = "key"
    ADDRESS = "address"
    ORGANIZATION = "organization"
    GUESTS = "guests"
    GUEST_SESSIONS = "guest-sessions"
    PUBLIC_IMAGES = "public-images"
    SIGN_IN_ACCOUNT = "sign-in-account"
    SIGN_IN_ADDRESS = "sign-in-address"
    RECOVERY_ACCOUNT = "recovery-account"
    MAILS = "mails"
    ACCOUNT_EXPORTS = "account-exports"
    DATABASE = "database"
    DATABASE_CONNECTIONS = "database_connections"
    STORAGE = "storage"
    DISK = "disk"
    OPEN_FILES = "open_files"
    BROKER = "broker"
    STORED_RESPONSE = "stored_response"
    MAIL = "mail"
    MOCK = "mock"


@dataclass(frozen=True)
class AdmissionControl:
    """One kind of admission control, a row of the page for operators.

    Attributes:
        bounds: What it limits, and to how much.
        settings: The settings that change it.
        status: The status of a response to a rejected request; None if the request only waits.
        code: The problem code of that response; empty if there is none.
        limits: What the access log names. Empty if the code says it already.
        remedy: What an operator does about it.
    """

    bounds: str
    settings: tuple[str, ...]
    status: int | None
    code: str
    limits: tuple[Limit, ...]
    remedy: str


ADMISSION_CONTROLS = (
    AdmissionControl(
        "Open connections of a process and of one address. 64 beyond the limit, and 8 of an address, get a "
        "response; further ones are closed",
        ("MAX_CONNECTIONS", "MAX_ADDRESS_CONNECTIONS", "TRUSTED_PROXIES"),
        503,
        "unavailable",
        (Limit.CONNECTIONS,),
        "Set `TRUSTED_PROXIES` behind a proxy, or all clients share one address. Else start another server",
    ),
    AdmissionControl(
        "Size of a request head: 64 kB and 100 fields",
        (),
        400,
        "malformed_request",
        (),
        "Nothing: a client, often a browser with many cookies, sends too much",
    ),
    AdmissionControl(
        "Time in which head and body of a request arrive, 32 kB of a body per second",
        ("SLOW_CLIENT_SECONDS",),
        408,
        "request_timeout",
        (),
        "Raise the setting for clients with a slow network",
    ),
    AdmissionControl(
        "Size of one body, by operation",
        (),
        413,
        "too_large",
        (),
        "Nothing: the contract has the sizes",
    ),
    AdmissionControl(
        "Bytes of unfinished bodies: of an account, of an address, of a process",
        ("MAX_ACCOUNT_BODY_BYTES", "MAX_ADDRESS_BODY_BYTES", "MAX_BODY_BYTES"),
        503,
        "too_many_body_bytes",
        (Limit.BODY_BYTES,),
        "See whether one client uploads too many files at once; raise the settings if `TMPDIR` has the space",
    ),
    AdmissionControl(
        "JSON bodies of more than 1 MB of an account, 2 at the same time",
        (),
        429,
        "too_many_concurrent_requests",
        (Limit.LARGE_JSON,),
        "Nothing: the client waits for its other requests",
    ),
    AdmissionControl(
        "Requests of one address per minute without a valid credential",
        ("LIMIT_ADDRESS", "TRUSTED_PROXIES"),
        429,
        "rate_limited",
        (Limit.ADDRESS,),
        "Set `TRUSTED_PROXIES` behind a proxy, or all clients share one address",
    ),
    AdmissionControl(
        "Requests of an account, an API key or the session of a guest per minute",
        ("LIMIT_ACCOUNT", "LIMIT_KEY"),
        429,
        "rate_limited",
        (Limit.ACCOUNT, Limit.KEY),
        "Raise the setting if the client is in the right",
    ),
    AdmissionControl(
        "Requests per minute that touch rows of one organization, and those of its guests",
        ("LIMIT_ORGANIZATION", "LIMIT_GUEST_SESSIONS"),
        429,
        "rate_limited",
        (Limit.ORGANIZATION, Limit.GUESTS, Limit.GUEST_SESSIONS),
        "Raise the setting if the organization is in the right",
    ),
    AdmissionControl(
        "Requests per minute for shared and published images of one organization, without a credential",
        ("LIMIT_PUBLIC_IMAGES",),
        429,
        "rate_limited",
        (Limit.PUBLIC_IMAGES,),
        "Raise the setting, or put a CDN before published images",
    ),
    AdmissionControl(
        "Attempts to guess a password or a token, recovery e-mails, e-mails to chosen addresses, copies of "
        "personal data",
        (
            "LIMIT_SIGN_IN_ACCOUNT",
            "LIMIT_SIGN_IN_ADDRESS",
            "LIMIT_RECOVERY_ACCOUNT",
            "LIMIT_MAILS",
            "LIMIT_ACCOUNT_EXPORTS",
        ),
        429,
        "rate_limited",
        (
            Limit.SIGN_IN_ACCOUNT,
            Limit.SIGN_IN_ADDRESS,
            Limit.RECOVERY_ACCOUNT,
            Limit.MAILS,
            Limit.ACCOUNT_EXPORTS,
        ),
        "See whether an address guesses passwords. The owner signs in from an address that the account knows",
    ),
    AdmissionControl(
        "Requests of an account, or of an address without a credential, in progress in a process",
        ("LIMIT_CONCURRENT_REQUESTS",),
        429,
        "too_many_concurrent_requests",
        (Limit.CONCURRENT_REQUESTS,),
        "Raise it together with `REQUEST_THREADS`, for example for a proxy with HTTP/2",
    ),
    AdmissionControl(
        "Probes of one address: 20 a second at once, further ones 0.25 seconds later",
        (),
        None,
        "",
        (),
        "Nothing: they are served",
    ),
    AdmissionControl(
        "Time of a request, including the wait for a request thread. An account gets half of the threads, a "
        "quarter while others send requests",
        ("REQUEST_THREADS", "REQUEST_SECONDS"),
        503,
        "took_too_long",
        (Limit.REQUEST_THREADS, Limit.REQUEST_TIME),
        "`request_threads`: start another server, or raise the setting on a machine with free cores. "
        "`request_time`: the request itself is slow; see its trace. PostgreSQL aborts a statement at the "
        "same time (`unavailable`)",
    ),
    AdmissionControl(
        "Request threads that wait for a row lock, half of them; 10 seconds for a slot",
        ("REQUEST_THREADS",),
        503,
        "unavailable",
        (Limit.ROW_LOCKED,),
        "See which clients write the same rows at once, and which transaction holds the lock (`pg_locks`)",
    ),
    AdmissionControl(
        "Requests that call other servers, half of the request threads; an account gets half of these, and "
        "429 beyond it",
        ("REQUEST_THREADS",),
        503,
        "unavailable",
        (Limit.FETCH_SLOTS,),
        "See which host is slow, or let clients upload images instead of URLs",
    ),
    AdmissionControl(
        "Decoded images in the memory of a process: 2, one above 16 megapixels, one per account; 10 seconds "
        "for a slot",
        (),
        503,
        "unavailable",
        (Limit.DECODE_SLOTS, Limit.VARIANT_LOST),
        "`decode_slots`: start another server. `variant_lost`: a file disappeared as soon as it was made; "
        "see what deletes files of the storage",
    ),
    AdmissionControl(
        "Files of imports that are stored at the same time in a process: 10 seconds for a slot",
        (),
        503,
        "unavailable",
        (Limit.STORE_SLOTS,),
        "See why the storage is slow",
    ),
    AdmissionControl(
        "Pixels that the render threads of a process decode, cut out and compose at the same time",
        ("RENDER_WORKERS",),
        None,
        "",
        (),
        "Nothing: jobs wait. Start another worker if the queue grows",
    ),
    AdmissionControl(
        "Event streams and requests with `Prefer: wait` of a process, 1,000 and 250 of an account. Beyond "
        "it, a wait ends at once, and a stream is rejected",
        (),
        503,
        "unavailable",
        (Limit.LONG_POLL,),
        "Start another server, or let clients use webhooks",
    ),
    AdmissionControl(
        "Images that imports download from one host at the same time",
        (),
        None,
        "",
        (),
        "Nothing: images wait",
    ),
    AdmissionControl(
        "Generations of a tenant that run at the same time",
        ("MAX_RUNNING_PER_SCOPE",),
        None,
        "",
        (),
        "Nothing: others are pending",
    ),
    AdmissionControl(
        "Open generations of a tenant",
        (),
        409,
        "queue_full",
        (),
        "Start another worker if the queue does not shrink",
    ),
    AdmissionControl(
        "Open exports of a tenant, 10", (), 409, "too_many_exports", (), "See why exports do not end"
    ),
    AdmissionControl(
        "Open imports of a tenant, 10", (), 409, "too_many_imports", (), "See why imports do not end"
    ),
    AdmissionControl(
        "Uploads of an account whose bytes have not arrived, 100",
        (),
        409,
        "too_many_uploads",
        (),
        "Nothing: their URLs expire",
    ),
    AdmissionControl(
        "Uploads of an account that are not used, 1 GB",
        (),
        409,
        "too_many_upload_bytes",
        (),
        "Nothing: they expire after 24 hours",
    ),
    AdmissionControl(
        "Links to a shooting or prediction, 50, and of an account, 1,000",
        (),
        409,
        "too_many_links",
        (),
        "Nothing: links expire",
    ),
    AdmissionControl(
        "Storage of a plan",
        (),
        409,
        "storage_full",
        (),
        "Nothing: the account frees space or changes the plan",
    ),
    AdmissionControl(
        "The database: reachable, and with a free connection",
        ("DATABASE_URL", "REQUEST_THREADS"),
        503,
        "unavailable",
        (Limit.DATABASE, Limit.DATABASE_CONNECTIONS),
        "`database`: see [Outage of the database](production.md#outage-of-the-database). "
        "`database_connections`: all connections of the process are in use; see "
        "`sartiq_database_connections_in_use`",
    ),
    AdmissionControl(
        "The storage: reachable, with space, and files that can be opened",
        ("MEDIA_URL", "MEDIA_DIR", "DATA_DIR"),
        503,
        "unavailable",
        (Limit.STORAGE, Limit.DISK, Limit.OPEN_FILES),
        "`storage`: see the log line before it. `disk`: see [Full disk](production.md#full-disk). "
        "`open_files`: raise `ulimit -Hn`",
    ),
    AdmissionControl(
        "`/utils/readiness` and `/utils/db-check`: the database, the storage (`storage`) or Redis works",
        ("CELERY_BROKER_URL",),
        503,
        "unavailable",
        (Limit.BROKER,),
        "See the log of Redis. Rate limits count in each process meanwhile",
    ),
    AdmissionControl(
        "A stored response of an `Idempotency-Key` that cannot be decrypted",
        ("SECRET_KEY", "SECRET_KEY_PREVIOUS"),
        503,
        "unavailable",
        (Limit.STORED_RESPONSE,),
        "[Rotate `SECRET_KEY`](production.md#rotate-secret_key) in steps",
    ),
    AdmissionControl(
        "E-mail that is turned off",
        ("MAIL", "SMTP_URL"),
        503,
        "mail_disabled",
        (Limit.MAIL,),
        "Set `SMTP_URL`",
    ),
    AdmissionControl(
        "A development server at a public address",
        ("SARTIQ_ENV", "ALLOW_PUBLIC_DEVELOPMENT"),
        503,
        "unavailable",
        (Limit.PUBLIC_ADDRESS,),
        "Set `SARTIQ_ENV=production`",
    ),
    AdmissionControl(
        "A mock server that is being reset, or an error that its scenario or a client asks for",
        ("MOCK_SCENARIO",),
        503,
        "unavailable",
        (Limit.MOCK,),
        "Nothing: it is a test",
    ),
)
"""All kinds, in the order in which a request meets them; then what a request needs besides."""
