"""The ways to tell who asks, and what keeps up with their keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from proxy.config import ConfigFault, Settings
from proxy.config.identities import Anonymous, ApiKeys, Header, Jwt, Passthrough, Recogniser
from proxy.http import identity as identities
from proxy.http.identity.claims import Claims
from proxy.parts.places import authorities


def recognisers(settings: Settings) -> list[identities.Recogniser]:
    """The ways to tell who asks, in their order; raises ``ConfigFault`` with every fault."""
    made: list[identities.Recogniser] = []
    faults: list[str] = []
    for way in settings.identity:
        try:
            made.append(_recogniser(way, settings.identity))
        except (identities.IdentityFault, ConfigFault) as exc:
            faults.extend(exc.faults)
    if faults:
        raise ConfigFault(faults)
    return made


def identity_followers(
    ways: Sequence[identities.Recogniser],
) -> list[identities.FileFollower | identities.Issuer]:
    """What keeps the keys of these ways at what their files and issuers say."""
    followers: list[identities.FileFollower | identities.Issuer] = []
    for way in ways:
        source = way.keys if isinstance(way, identities.Tokens) else way
        if isinstance(source, identities.Issuer):
            followers.append(source)
        elif isinstance(source, identities.ApiKeys | identities.KeysFile):
            followers.append(identities.FileFollower(source.path, source.reload))
    return followers


def _recogniser(way: Recogniser, ways: Sequence[Recogniser]) -> identities.Recogniser:
    match way:
        case ApiKeys():
            files = [other for other in ways if isinstance(other, ApiKeys)]
            return identities.ApiKeys(way.path, last=way is files[-1])
        case Jwt():
            return _tokens(way, [other for other in ways if isinstance(other, Jwt) and other is not way])
        case Header():
            return identities.TrustedHeaders(way.id, way.roles, way.tenant, way.trusted)
        case Passthrough():
            return identities.Passthrough()
        case Anonymous():
            return identities.Anonymous(way.roles, way.tenant)


def _tokens(way: Jwt, others: Sequence[Jwt]) -> identities.Tokens:
    return identities.Tokens(
        _keys(way),
        [way.audience] if isinstance(way.audience, str) else way.audience,
        way.issuer,
        others=[other.issuer for other in others if other.issuer is not None],
        claims=Claims(way.id_claim, way.roles_claim, way.tenant_claim),
        leeway_s=way.leeway_s,
        header=way.header,
    )


def _keys(way: Jwt) -> identities.KeysFile | identities.Issuer:
    if isinstance(way.jwks, Path):
        return identities.KeysFile(way.jwks, way.algorithms)
    tls = authorities(way.ca_file) if way.ca_file else True
    return identities.Issuer(identities.HttpKeys(way.jwks, tls), way.algorithms, way.refresh_s)
