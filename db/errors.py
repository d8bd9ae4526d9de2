"""The domain errors: exceptions with a stable problem code that reject a request.

This module does not know HTTP: `handlers/pipeline/errors.py` maps the errors to status codes. A business rule
is a subclass of `Conflict`, named after the problem and defined in the module that raises it. The subclasses
here are raised by more than one package or for a constraint of the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar


class DomainError(Exception):
    """A request is rejected.

    Attributes:
        code: The problem code, stable for clients.
        detail: The message for people.
        value: The value that is rejected, such as an unknown id. The problem names its place in the request.
        members: Further members of the problem document, for programs.
    """

    code: ClassVar[str] = "refused"
    default_detail: ClassVar[str] = "The request was rejected"

    def __init__(self, detail: str | None = None, *, value: Any = None, **members: Any) -> None:
        self.detail = detail if detail is not None else self.default_detail
        self.value = value
        self.members = members
        super().__init__(self.detail)


@contextmanager
def names_place(pointer: str) -> Iterator[None]:
    """Add a place in the request body, a JSON Pointer, to a domain error of the block that names none."""
    try:
        yield
    except DomainError as error:
        error.members.setdefault("pointer", pointer)
        raise


class NotFound(DomainError):
    """The row does not exist or belongs to another tenant. Clients must not be able to tell which."""

    code = "not_found"
    default_detail = "Not found: check the id, and that your account has access to the resource"


class PermissionDenied(DomainError):
    """The caller sees the row, but their role lacks the permission."""

    code = "not_enough_permissions"
    default_detail = "Not enough permissions"


class GuestNotAllowed(PermissionDenied):
    """The caller is a guest with a review link, and the operation is not for guests."""

    code = "guest_not_allowed"
    default_detail = "Guests with a review link cannot call this operation"


class ApiKeyNotAllowed(PermissionDenied):
    """The caller is an API key, and the operation is about an account."""

    code = "api_key_not_allowed"
    default_detail = "API keys cannot call this operation: sign in with an account"


class SecondFactorEnrollmentRequired(PermissionDenied):
    """The organization requires a second factor, and the account of the session has none."""

    code = "second_factor_enrollment_required"
    default_detail = (
        "The organization requires a second factor: add an authenticator app or a passkey to your account "
        "with `POST /users/me/second-factors/totp`, or on the page /review#/security"
    )


class ProviderSessionNotAllowed(PermissionDenied):
    """The session is from an identity provider, and the operation is about the whole account."""

    code = "provider_session_not_allowed"
    default_detail = "The session acts in one organization only: sign in with the password for this operation"


class ProviderSignInRequired(PermissionDenied):
    """The organization accepts only sessions from its identity provider, except those of its owner."""

    code = "provider_sign_in_required"
    default_detail = "The organization requires a sign-in through its identity provider"


class OrganizationSuspended(PermissionDenied):
    """The operator has suspended the organization: no member and no API key can use it."""

    code = "organization_suspended"
    default_detail = (
        "The organization is suspended: its owner can ask the operator of the server to resume it"
    )


class Unauthenticated(DomainError):
    """The request has no credentials."""

    code = "not_authenticated"
    default_detail = "Not authenticated"


class InvalidToken(Unauthenticated):
    """The token is malformed, expired or revoked, or its user is deleted or inactive.

    Attributes:
        reason: What a client may know about it, without quotation marks.
    """

    code = "invalid_token"
    default_detail = "Could not validate credentials"

    def __init__(self, reason: str = "The token is not valid") -> None:
        super().__init__()
        self.reason = reason


class IncorrectCredentials(Unauthenticated):
    """Unknown address, wrong password or inactive account: one error for all, against user enumeration."""

    code = "incorrect_credentials"
    default_detail = "Incorrect email or password"


class RateLimited(DomainError):
    """A rate limit is exceeded (RFC 6585, section 4).

    Attributes:
        policy: The name of the rate limit.
        limit: What the log and the metrics name: the policy, or what shares it with others.
        retry_after: When a retry may succeed, in seconds.
    """

    code = "rate_limited"
    default_detail = "Too many requests"

    def __init__(self, policy: str, retry_after: int, *, limit: str | None = None) -> None:
        self.policy, self.limit, self.retry_after = policy, limit or policy, max(1, retry_after)
        unit = "second" if self.retry_after == 1 else "seconds"
        super().__init__(f"Too many requests; try again in {self.retry_after} {unit}")


class TooManyConcurrentRequests(RateLimited):
    """The account, or the address without a credential, runs as many requests at once as it may."""

    code = "too_many_concurrent_requests"
    default_detail = "Too many requests are in progress: wait until one of them has ended"

    def __init__(self, detail: str | None = None, *, limit: str | None = None) -> None:
        super().__init__("concurrent-requests", retry_after=1, limit=limit)
        self.detail = detail or self.default_detail


class Conflict(DomainError):
    """A business rule that a JSON schema cannot express forbids the change."""

    code = "conflict"
    default_detail = "Conflict"


class TemporaryConflict(Conflict):
    """The same request succeeds later; `retry_after` says in how many seconds."""

    retry_after: ClassVar[int] = 1


class NotAttempted(Conflict):
    """A batch ended before it reached the item."""

    code = "not_attempted"
    default_detail = "The batch reached its time limit before this item: send the item again"


class InUse(Conflict):
    """The row cannot be deleted because other rows refer to it."""

    code = "in_use"
    default_detail = "Other resources refer to this resource: change or delete them first"


class ScopeMismatch(Conflict):
    """A referenced row is visible to the caller but belongs to another tenant than the referring row."""

    code = "scope_mismatch"
    default_detail = "A referenced resource belongs to another organization or user"


class SlugTaken(Conflict):
    """Another row of the tenant already has this slug."""

    code = "slug_taken"
    default_detail = "The slug is already in use"


class SkuTaken(Conflict):
    """Another product of the tenant already has this SKU."""

    code = "sku_taken"
    default_detail = "The SKU is already in use: `GET /products/` with the query `sku` finds the product"


class ExternalIdTaken(Conflict):
    """Another row of the same type and tenant already has this external id."""

    code = "external_id_taken"
    default_detail = (
        "The external id is already in use: a list with the query `external_id` finds the resource"
    )


class EmailTaken(Conflict):
    """Another account already has this address; letter case is ignored."""

    code = "email_taken"
    default_detail = "The e-mail address is already in use"


class DomainTaken(Conflict):
    """The domain is verified for another provider, or the provider has it already."""

    code = "domain_taken"
    default_detail = "The domain is in use already, by this provider or by another one"


class IdentityTaken(Conflict):
    """The user of the identity provider is linked to an account already."""

    code = "identity_taken"
    default_detail = "The user of the identity provider is linked to an account already"


class AlreadyMember(Conflict):
    """The user is already a member of the organization."""

    code = "already_member"
    default_detail = "The user is already a member of the organization"


class SubscriptionExists(Conflict):
    """The account already has an active subscription."""

    code = "subscription_exists"
    default_detail = "The account already has an active subscription"


class InvalidTransition(Conflict):
    """The state machine has no such transition from the current state."""

    code = "invalid_transition"
    default_detail = "The action is not allowed in the current status"


class OutOfCredits(Conflict):
    """The account that pays has no subscription or too few credits."""

    code = "out_of_credits"
    default_detail = "Not enough credits"


class PublicRequiresSuperuser(Conflict):
    """Only superusers may make a row public."""

    code = "public_requires_superuser"
    default_detail = "Only superusers can make a resource public: omit `public`"


class TargetNotAllowed(Conflict):
    """The server does not connect to this URL, for example because it leads to a private network (SSRF)."""

    code = "target_not_allowed"
    default_detail = "This server does not connect to the URL"


class PreconditionFailed(DomainError):
    """`If-Match` does not name the current version (RFC 9110, section 13.1.1)."""

    code = "precondition_failed"
    default_detail = "The resource has changed since you read it"


class TooLarge(DomainError):
    """The upload exceeds the limit of bytes or pixels."""

    code = "too_large"
    default_detail = "The upload is too large"


class UnsupportedImageType(DomainError):
    """The media type of the upload is not accepted."""

    code = "unsupported_media_type"
    default_detail = "The media type is not supported"


class NotAnImage(UnsupportedImageType):
    """The uploaded bytes are not an image, regardless of file name and declared type."""

    code = "not_an_image"
    default_detail = "The file is not an image"


class UnreadableImage(DomainError):
    """The upload has the signature of an image but cannot be decoded."""

    code = "unreadable_image"
    default_detail = "The image cannot be read"
