"""Settings of the ways to tell who asks."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from proxy.config.values import CREDENTIAL_HEADERS, HeaderName, Name, Section, Text, split_url

# Signatures that anyone with the published keys can check, and only their owner can make.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class ApiKeys(Section):
    """Callgate's own API keys."""

    kind: Literal["api_keys"]
    """Recognise by an API key of Callgate's own."""
    path: Path
    """YAML file: the SHA-256 of each key, in hex -> {id, roles, tenant}."""


class Jwt(Section):
    """Signed tokens of an identity provider."""

    kind: Literal["jwt"]
    """Recognise by a signed token in `Authorization: Bearer`. Not served by this version."""
    jwks: str
    """URL of the issuer's published keys (https)."""
    audience: Name
    """The audience (`aud`) that a token must be meant for."""
    issuer: Name | None = None
    """The issuer (`iss`) that a token must come from; without it, any whose keys are in `jwks`."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    """The signature algorithms that are accepted."""
    id_claim: Name = "sub"
    """Claim that is the principal's id."""
    roles_claim: Name = "roles"
    """Claim that lists the principal's roles."""
    tenant_claim: Name | None = None
    """Claim that names the principal's tenant."""
    leeway_s: Annotated[float, Field(ge=0, le=300)] = 30.0
    """Seconds by which the clocks of issuer and Callgate may differ."""

    @field_validator("jwks")
    @classmethod
    def _over_tls(cls, url: str) -> str:
        split_url(url, ("https",))
        return url


class Header(Section):
    """Headers that an authenticating proxy in front sets."""

    kind: Literal["header"]
    """Recognise by headers, which are believed only from `trusted` peers and never sent on."""
    id: HeaderName = "x-user"
    """Header that holds the principal's id."""
    roles: HeaderName | None = None
    """Header that lists the roles, with commas or spaces between them."""
    tenant: HeaderName | None = None
    """Header that names the tenant."""
    trusted: Annotated[tuple[str, ...], Field(min_length=1)]
    """Networks (CIDR) of the proxies in front, and of nobody else."""

    @field_validator("trusted")
    @classmethod
    def _narrow(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                wide = ip_network(network).prefixlen == 0
            except ValueError as exc:
                raise ValueError(f"{exc} (write CIDR, as in 10.0.0.0/8 or 10.1.2.3/32)") from None
            if wide:
                raise ValueError(
                    f"{network} trusts every peer, so that anyone could name themselves anything "
                    "(write the addresses of the proxies in front)"
                )
        return networks

    @model_validator(mode="after")
    def _distinct(self) -> Header:
        names = [name for name in (self.id, self.roles, self.tenant) if name]
        if len(set(names)) != len(names):
            raise ValueError("id, roles and tenant are read from one header (name one header for each)")
        if taken := (CREDENTIAL_HEADERS | {"x-callgate-key"}).intersection(names):
            raise ValueError(f"{min(taken)} carries a key (name another header)")
        return self


class Passthrough(Section):
    """The provider's own keys."""

    kind: Literal["passthrough"]
    """Recognise by the provider's key that the client sends: the principal is its digest."""


class Anonymous(Section):
    """Everyone else."""

    kind: Literal["anonymous"]
    """Recognise anyone. Comes last; off loopback, only if written down."""
    roles: tuple[Name, ...] = ()
    """Roles that everyone who is not recognised otherwise has."""
    tenant: Text = ""
    """Their tenant."""


Recogniser = Annotated[ApiKeys | Jwt | Header | Passthrough | Anonymous, Field(discriminator="kind")]
