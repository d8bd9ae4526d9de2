"""The types that generated modules build on: models of responses, omitted arguments and files to send."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, PrivateAttr

FileInput: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes] | tuple[str, bytes]
"""A file to send: its path, its bytes, an open binary file, or a name and the bytes. A `str` is a path."""


class Omit:
    """The type of arguments that were not passed. `None` is another value: it is sent as null."""

    def __repr__(self) -> str:
        return "OMIT"

    def __bool__(self) -> bool:
        return False


OMIT: Final = Omit()


@dataclass(frozen=True)
class ResponseInfo:
    """The status and the headers of the response that a model was read from."""

    status: int
    headers: Mapping[str, str]

    @property
    def etag(self) -> str | None:
        """Return the version of the resource, for `if_match`."""
        return self.headers.get("etag")

    @property
    def request_id(self) -> str | None:
        """Return the identifier of the request, which the server's log contains too."""
        return self.headers.get("x-request-id")

    @property
    def is_replayed(self) -> bool:
        """Return whether the server sent the stored response of an earlier attempt."""
        return self.headers.get("idempotency-replayed") == "true"


class Model(BaseModel):
    """A JSON object of the server. Properties that the contract gained later are in `model_extra`."""

    model_config = ConfigDict(extra="allow", populate_by_name=True, protected_namespaces=(), defer_build=True)
    _http: ResponseInfo | None = PrivateAttr(default=None)

    @property
    def http(self) -> ResponseInfo:
        """Return the status and headers of the response.

        Raises:
            AttributeError: The model is a part of another one.
        """
        if self._http is None:
            raise AttributeError("only the model that a method returned has the response")
        return self._http


class UnknownModel(Model):
    """A JSON object of a kind that is newer than this client."""
