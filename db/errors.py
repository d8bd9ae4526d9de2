"""The refusals that the whole house raises when it says no to a caller, each with a stable code.

There is no HTTP in here: which status a refusal becomes is decided in one place,
`handlers/pipeline/errors.py`.
A business rule is a subclass of `Conflict` named for what happened; it lives where it is raised.
"""

from __future__ import annotations

from typing import Any, ClassVar


class DomainError(Exception):
    """Something asked for is not done; `code` is stable, `detail` for people, `extra` for programs."""

    code: ClassVar[str] = "refused"
    default_detail: ClassVar[str] = "Refused"

    def __init__(self, detail: str | None = None, **extra: Any) -> None:
        self.detail = detail if detail is not None else self.default_detail
        self.extra = extra
        super().__init__(self.detail)


class NotFound(DomainError):
    """The row does not exist, or belongs to someone else: the two must not be told apart."""

    code = "not_found"
    default_detail = "Not found"


class PermissionDenied(DomainError):
    """The caller may see the row, but its role does not allow the action."""

    code = "not_enough_permissions"
    default_detail = "Not enough permissions"


class Unauthenticated(DomainError):
    """Nobody is signed in."""

    code = "not_authenticated"
    default_detail = "Not authenticated"


class InvalidToken(Unauthenticated):
    """A token came along, but it is malformed, expired or revoked, or its user is gone."""

    code = "invalid_token"
    default_detail = "Could not validate credentials"


class IncorrectCredentials(Unauthenticated):
    """Unknown address, wrong password or inactive account: one answer for all three."""

    code = "incorrect_credentials"
    default_detail = "Incorrect email or password"


class RateLimited(DomainError):
    """Somebody asks more than a limit allows; `policy` names it, `retry_after` is in seconds."""

    code = "rate_limited"
    default_detail = "Too many requests"

    def __init__(self, policy: str, retry_after: int) -> None:
        self.policy, self.retry_after = policy, max(1, retry_after)
        unit = "second" if self.retry_after == 1 else "seconds"
        super().__init__(f"Too many requests; try again in {self.retry_after} {unit}")


class Conflict(DomainError):
    """A business rule that the contract's schema cannot say forbids the change."""

    code = "conflict"
    default_detail = "Conflict"


class InUse(Conflict):
    """Other rows still refer to the row that was to be deleted."""

    code = "in_use"
    default_detail = "The record is in use and cannot be deleted"


class ScopeMismatch(Conflict):
    """A referenced row is visible to the caller but of another scope than the row that refers to it."""

    code = "scope_mismatch"
    default_detail = "The referenced record belongs to another organization"


class SlugTaken(Conflict):
    """Another row of the same scope already has this slug."""

    code = "slug_taken"
    default_detail = "The slug is already taken"


class SkuTaken(Conflict):
    """Another product of the same scope already has this SKU."""

    code = "sku_taken"
    default_detail = "The SKU is already taken"


class EmailTaken(Conflict):
    """Another account already has this address, in whatever letter case."""

    code = "email_taken"
    default_detail = "The email address is already registered"


class AlreadyMember(Conflict):
    """The user is already a member of the organization."""

    code = "already_member"
    default_detail = "The user is already a member of the organization"


class SubscriptionExists(Conflict):
    """The account already has an active subscription."""

    code = "subscription_exists"
    default_detail = "The account already has an active subscription"


class InvalidTransition(Conflict):
    """The state machine has no such step from the current state."""

    code = "invalid_transition"
    default_detail = "This transition is not allowed from the current state"


class OutOfCredits(Conflict):
    """Whoever pays has no subscription or too few credits left."""

    code = "out_of_credits"
    default_detail = "Not enough credits"


class PublicRequiresSuperuser(Conflict):
    """Only superusers may publish a row to everybody."""

    code = "public_requires_superuser"
    default_detail = "Only superusers may make a record public"


class TargetNotAllowed(Conflict):
    """An address leads where this server does not go, or not for this purpose."""

    code = "target_not_allowed"
    default_detail = "This server does not connect to the address"


class PreconditionFailed(DomainError):
    """The caller's copy, named by `If-Match`, is not the current one."""

    code = "precondition_failed"
    default_detail = "The record has changed since it was read"


class TooLarge(DomainError):
    """The upload has more bytes or pixels than are accepted."""

    code = "too_large"
    default_detail = "The upload is too large"


class UnsupportedImageType(DomainError):
    """The upload is of a type that is not accepted."""

    code = "unsupported_media_type"
    default_detail = "The media type is not supported"


class NotAnImage(UnsupportedImageType):
    """The uploaded bytes are not an image, whatever their name or declared type says."""

    code = "not_an_image"
    default_detail = "The file is not an image"


class UnreadableImage(DomainError):
    """The upload looks like an image but cannot be decoded."""

    code = "unreadable_image"
    default_detail = "The image cannot be read"
