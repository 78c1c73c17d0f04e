"""What a token's claims say of its holder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from proxy.http.identity.key_file import is_name
from proxy.model import MAX_SAFE_INTEGER, Principal

MAX_ROLES = 256


class Unfit(ValueError):
    """The claims do not say what they must; the message is for the client."""


class Claims(NamedTuple):
    """Which claims name the principal. A name is that of a claim, or a path of names with dots between."""

    id: str = "sub"
    roles: str = "roles"
    tenant: str | None = None

    def principal(self, claims: Mapping[str, Any], kind: str) -> Principal:
        """The principal that verified claims name, with all of them; raises ``Unfit``."""
        id = _name(claims, self.id)
        tenant = _name(claims, self.tenant) if self.tenant is not None else ""
        return Principal(id, _roles(claims, self.roles), tenant, claims, kind)


def timely(claims: Mapping[str, Any], now_s: float, leeway_s: float) -> float:
    """Until when a token is in force; raises ``Unfit`` where it is not (RFC 7519 4.1.4 to 4.1.6)."""
    moments = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if not all(map(_is_moment, moments.values())):
        raise Unfit("has a time that is no number of seconds")
    if "exp" not in moments:
        raise Unfit("never expires (exp)")
    if now_s >= moments["exp"] + leeway_s:
        raise Unfit("has expired")
    if any(now_s < moments[name] - leeway_s for name in ("nbf", "iat") if name in moments):
        raise Unfit("is not in force yet")
    return float(moments["exp"] + leeway_s)


def _is_moment(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_SAFE_INTEGER


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of this name, dots and all (as in a URL), else the one that the path leads to, else None."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _name(claims: Mapping[str, Any], path: str) -> str:
    value = _at(claims, path)
    if not isinstance(value, str) or not is_name(value):
        raise Unfit(f"does not hold one name as {path}")
    return value


def _roles(claims: Mapping[str, Any], path: str) -> tuple[str, ...]:
    value = _at(claims, path)
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(role, str) and is_name(role) for role in value):
        raise Unfit(f"does not hold a list of names as {path}")
    if len(value) > MAX_ROLES:
        raise Unfit(f"holds more than {MAX_ROLES} names as {path}")
    return tuple(dict.fromkeys(value))
