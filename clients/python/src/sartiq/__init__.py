"""Python client of the Sartiq Backend API: `Sartiq` for threads, `AsyncSartiq` for asyncio."""

from sartiq import errors, webhooks
from sartiq._credentials import Tokens, TokenStore
from sartiq._downloads import AsyncDownload, Download
from sartiq._generated import VERSION as __version__
from sartiq._generated import enums, models, params
from sartiq._model import OMIT, FileInput, Omit
from sartiq._pages import AsyncPage, Page
from sartiq.client import AsyncSartiq, Sartiq
from sartiq.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    AuthenticationError,
    ConflictError,
    JobFailedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    SartiqError,
    UnprocessableError,
    WaitTimeoutError,
    WebhookVerificationError,
)

__all__ = [
    "OMIT",
    "APIConnectionError",
    "APIError",
    "APITimeoutError",
    "AsyncDownload",
    "AsyncPage",
    "AsyncSartiq",
    "AuthenticationError",
    "ConflictError",
    "Download",
    "FileInput",
    "JobFailedError",
    "NotFoundError",
    "Omit",
    "Page",
    "PermissionDeniedError",
    "RateLimitError",
    "Sartiq",
    "SartiqError",
    "TokenStore",
    "Tokens",
    "UnprocessableError",
    "WaitTimeoutError",
    "WebhookVerificationError",
    "__version__",
    "enums",
    "errors",
    "models",
    "params",
    "webhooks",
]
