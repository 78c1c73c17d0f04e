"""Settings of the ways to tell who asks."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, WithJsonSchema, field_validator, model_validator

from proxy.config.values import CREDENTIAL_HEADERS, HeaderName, Name, Section, Text, is_loopback, split_url

OneOrMore = Annotated[
    Annotated[Name, Tag("one")] | Annotated[tuple[Name, ...], Field(min_length=1), Tag("several")],
    Discriminator(lambda value: "one" if isinstance(value, str) else "several"),
]
"""One name, or a list of them."""

# Signatures that anyone with the published keys can check, and only their owner can make.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class ApiKeys(Section):
    """Callgate's own API keys."""

    kind: Literal["api_keys"]
    """Recognise by an API key of Callgate's own."""
    path: Path
    """YAML file: the SHA-256 of each key, in hex -> {id, roles, tenant, expires, created, note}."""


class Jwt(Section):
    """Signed tokens of an identity provider."""

    kind: Literal["jwt"]
    """Recognise by a signed token (JWT)."""
    jwks: Annotated[
        Annotated[str, Tag("url")] | Annotated[Path, Tag("file")],
        Discriminator(lambda value: "url" if isinstance(value, str) and "://" in value else "file"),
        WithJsonSchema({"type": "string"}),
    ]
    """The issuer's published keys: an https URL (http on this machine), or a file."""
    audience: OneOrMore
    """The audience (`aud`) that a token must be meant for; of several, any."""
    issuer: Name | None = None
    """The issuer (`iss`) that a token must come from; without it, any whose keys are in `jwks`."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256")
    """The signature algorithms that are accepted."""
    header: HeaderName = "authorization"
    """The header that tokens are sent in; another than `authorization` leaves that to a provider's key."""
    id_claim: Name = "sub"
    """Claim that is the principal's id; a path through claims has dots, as `realm_access.roles`."""
    roles_claim: Name = "roles"
    """Claim that lists the principal's roles: a list, or text with commas or spaces."""
    tenant_claim: Name | None = None
    """Claim that names the principal's tenant; a token without it is refused."""
    leeway_s: Annotated[float, Field(ge=0, le=300)] = 30.0
    """Seconds by which the clocks of issuer and Callgate may differ."""
    refresh_s: Annotated[float, Field(ge=10, le=86_400)] = 300.0
    """Seconds after which the keys at a URL are read again; sooner, when an unknown key turns up."""
    ca_file: Path | None = None
    """CA certificates (PEM) to trust for the URL, in place of the system's."""

    @field_validator("jwks")
    @classmethod
    def _over_tls(cls, place: str | Path) -> str | Path:
        if isinstance(place, str):
            local = place.startswith("http://") and is_loopback(split_url(place, ("http",)).hostname or "")
            split_url(place, ("http",) if local else ("https",))
        return place

    @field_validator("header")
    @classmethod
    def _of_its_own(cls, name: str) -> str:
        if name in (CREDENTIAL_HEADERS | {"x-callgate-key"}) - {"authorization"}:
            raise ValueError(f"{name} carries a key (name another header, or leave it out)")
        return name


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
