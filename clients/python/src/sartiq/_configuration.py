"""Turn the arguments of a client and the environment into its options and credentials. It sends nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from sartiq._call import guess_type, read_file
from sartiq._credentials import Credentials, Tokens, TokenStore
from sartiq._model import FileInput
from sartiq._transport import Options
from sartiq.errors import ConfigurationError

DEFAULT_URL = "http://localhost:8000"
BASE_PATH = "/api/v1"


def resolve_url(url: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Return the URL that the paths of the contract are relative to. A URL without a path gets the base path.

    Raises:
        ConfigurationError: It is not an HTTP URL.
    """
    url = (url or environment.get("SARTIQ_URL") or DEFAULT_URL).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"{url!r} is not a URL such as https://studio.example.com.")
    return url if parts.path else url + BASE_PATH


def resolve_credentials(
    token: str | None,
    email: str | None,
    password: str | None,
    store: TokenStore | None,
    environment: Mapping[str, str] = os.environ,
) -> Credentials:
    """Return the credentials of the arguments or, if none was passed, of the environment or the store.

    Raises:
        ConfigurationError: There is an e-mail address without a password, or the other way round.
    """
    names = "`email` and `password`"
    if token is None and email is None and password is None and store is None:
        token = environment.get("SARTIQ_TOKEN") or None
        if token is None:
            email, password = (
                environment.get("SARTIQ_EMAIL") or None,
                environment.get("SARTIQ_PASSWORD") or None,
            )
            names = "SARTIQ_EMAIL and SARTIQ_PASSWORD"
    if (email is None) != (password is None):
        raise ConfigurationError(f"Pass both {names}, not one of them.")
    tokens = Tokens(token) if token else (store.load() if store else None)
    return Credentials(tokens, email, password, store)


def change_options(
    options: Options, organization_id: str | None, timeout: float | None, max_retries: int | None
) -> Options:
    """Return options with the values that are not None."""
    return replace(
        options,
        organization_id=options.organization_id if organization_id is None else organization_id,
        timeout=options.timeout if timeout is None else timeout,
        retries=options.retries if max_retries is None else replace(options.retries, max_retries=max_retries),
    )


def describe_upload(file: FileInput, content_type: str | None) -> tuple[str, int, str]:
    """Return the name, the size and the media type of a file."""
    if isinstance(file, str | os.PathLike):
        path = Path(file)
        return path.name, path.stat().st_size, content_type or guess_type(path.name)
    name, content, guessed = read_file(file)
    return name, len(content), content_type or guessed
