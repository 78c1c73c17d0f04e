"""The ways to tell who asks."""

from __future__ import annotations

from proxy.config.identities import Anonymous, ApiKeys, Header, Jwt, Passthrough, Recogniser
from proxy.http import identity as identities


def recogniser(way: Recogniser) -> identities.Recogniser:
    """One way to tell who asks; raises ``IdentityFault``."""
    match way:
        case ApiKeys():
            return identities.ApiKeys(way.path)
        case Header():
            return identities.TrustedHeaders(way.id, way.roles, way.tenant, way.trusted)
        case Passthrough():
            return identities.Passthrough()
        case Anonymous():
            return identities.Anonymous(way.roles, way.tenant)
        case Jwt():
            identities.jwt()
