"""What the tests of the catalogue share: somebody with an organization, and pictures in forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.models import Organization, User
from tests.support.client import ClientResponse

if TYPE_CHECKING:
    from tests.api.conftest import Client

BOUNDARY = "a-line-between"


@dataclass(frozen=True)
class Customer:
    """An organization with its owner, who talks to the API; `scope` is the query that names it."""

    client: Client
    owner: User
    organization: Organization

    @property
    def organization_query(self) -> str:
        """The query of lists and creates in this organization."""
        return f"?organization_id={self.organization.id}"

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make a row in the organization and return it."""
        reply = self.client("POST", f"{path}{self.organization_query}", body)
        assert reply.status == 201, reply.body
        row: dict[str, Any] = reply.json()
        return row


def post_form(
    client: Client, path: str, file: bytes, filename: str = "a.jpg", **values: str
) -> ClientResponse:
    """Send a file with further fields as a browser does; the name goes out as it is, unescaped."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in values.items()
    ]
    named = f'form-data; name="file"; filename="{filename}"'
    head = f"Content-Disposition: {named}\r\nContent-Type: image/jpeg"
    parts.append(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode("utf-8", "surrogateescape") + file + b"\r\n")
    body = b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    return client("POST", path, body=body, headers={"content-type": content_type})


def status_and_code(reply: ClientResponse) -> tuple[int, str]:
    """Status and code of a problem."""
    return reply.status, reply.json()["code"]
