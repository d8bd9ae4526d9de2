"""Declare the permission of a handler. `studio/accounts/permissions.py` has the permissions of roles."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from studio.accounts.permissions import (
    ACCOUNT_WIDE,
    API_KEYS,
    EVERY_KEY,
    GUESTS,
    PERSONAL,
    ROLES,
    SUPERUSER_ONLY,
    Permission,
    key_permissions,
    link_permissions,
    may_have_guests,
    may_share_predictions,
)

__all__ = [
    "ACCOUNT_WIDE",
    "API_KEYS",
    "EVERY_KEY",
    "GUESTS",
    "PERSONAL",
    "ROLES",
    "SUPERUSER_ONLY",
    "Permission",
    "authenticates_itself",
    "is_self_authenticating",
    "key_permissions",
    "link_permissions",
    "may_have_guests",
    "may_share_predictions",
    "required_permission",
    "requires",
]

Handler = TypeVar("Handler", bound=Callable[..., object])


def requires(permission: Permission) -> Callable[[Handler], Handler]:
    """Declare the permission of a handler. `db.caller` checks it when the handler loads or creates rows."""

    def mark(handler: Handler) -> Handler:
        vars(handler)["__permission__"] = permission
        return handler

    return mark


def authenticates_itself(handler: Handler) -> Handler:
    """Declare that a handler without a caller checks a credential in the request itself.

    Its transaction has the database role of the system, because only the credential tells which tenant's rows
    are needed. Other public operations see public rows only.
    """
    vars(handler)["__authenticates_itself__"] = True
    return handler


def is_self_authenticating(handler: Callable[..., object]) -> bool:
    """Return whether a handler is marked with `authenticates_itself`."""
    return getattr(handler, "__authenticates_itself__", False)


def required_permission(handler: Callable[..., object]) -> Permission | None:
    """Return the permission that a handler declares, None for a handler without one."""
    return getattr(handler, "__permission__", None)
