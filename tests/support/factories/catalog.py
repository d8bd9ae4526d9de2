"""Helpers of the API tests: a customer with an organization, form uploads and the code of a problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.models import Organization, User
from tests.support.client import ClientResponse

if TYPE_CHECKING:
    from tests.api.conftest import Client

BOUNDARY = "a-boundary"


@dataclass(frozen=True)
class Customer:
    """An organization and its owner, with a client that is signed in as the owner."""

    client: Client
    owner: User
    organization: Organization

    @property
    def organization_query(self) -> str:
        """The query string that selects the organization."""
        return f"?organization_id={self.organization.id}"

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create a row in the organization through the API and return its representation."""
        response = self.client("POST", f"{path}{self.organization_query}", body)
        assert response.status == 201, response.body
        row: dict[str, Any] = response.json()
        return row


def post_form(
    client: Client, path: str, file: bytes, filename: str = "a.jpg", **values: str
) -> ClientResponse:
    """Upload a file with more fields as multipart/form-data. The file name is sent unescaped."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in values.items()
    ]
    disposition = f'form-data; name="file"; filename="{filename}"'
    head = f"Content-Disposition: {disposition}\r\nContent-Type: image/jpeg"
    parts.append(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode("utf-8", "surrogateescape") + file + b"\r\n")
    body = b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    return client("POST", path, body=body, headers={"content-type": content_type})
