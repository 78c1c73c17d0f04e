"""The settings as a whole: what holds between sections, their digest, their JSON Schema."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import Field, PrivateAttr, field_validator, model_validator

from proxy.config.identities import Anonymous, Jwt, Passthrough, Recogniser
from proxy.config.policies import Policies
from proxy.config.sections import (
    Admin,
    Approvals,
    Audit,
    Doors,
    Guards,
    Guidance,
    Limits,
    Listen,
    MemoryStore,
    Route,
    Status,
    Store,
)
from proxy.config.tools import Results, Tools
from proxy.config.upstreams import Upstream
from proxy.config.values import ConfigFault, SecretRef, Section, is_loopback


class Settings(Section):
    """Everything that an operator can set. Every key is optional."""

    listen: Listen = Listen()
    """Where clients connect."""
    admin: Admin = Admin()
    """Where operators and probes connect."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that serve; more than 1 needs `store.kind: redis`."""
    doors: Doors = Doors()
    """Which routes are open."""
    upstreams: Annotated[tuple[Upstream, ...], Field(min_length=1)] = (Upstream(),)
    """The providers, in order; the first whose `models` match serves a request."""
    identity: Annotated[tuple[Recogniser, ...], Field(min_length=1)] = (
        Passthrough(kind="passthrough"),
        Anonymous(kind="anonymous"),
    )
    """The ways to tell who asks, in order; the first that recognises a request names its principal."""
    policies: Policies = Policies()
    """Where decisions come from."""
    tools: Tools = Tools()
    """The tool registry."""
    guards: Guards = Guards()
    """The guards, in the order in which they judge a call."""
    routing: tuple[Route, ...] = ()
    """Other models for some turns; the first route that matches counts."""
    guidance: tuple[Guidance, ...] = ()
    """Instructions to add to requests, in this order."""
    status: Status = Status()
    """A line for the user while a tool runs."""
    results: Results = Results()
    """What of tool results the model may see."""
    approvals: Approvals = Approvals()
    """How a person approves a call."""
    store: Store = MemoryStore()
    """What is shared between requests."""
    audit: Audit = Audit()
    """The evidence."""
    limits: Limits = Limits()
    """What one request may cost Callgate."""

    _folder: Path = PrivateAttr(default=Path())

    @field_validator("upstreams")
    @classmethod
    def _named_apart(cls, upstreams: tuple[Upstream, ...]) -> tuple[Upstream, ...]:
        names = [upstream.name for upstream in upstreams]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two are named {twice[0]!r} (give each its own name)")
        return upstreams

    @field_validator("identity")
    @classmethod
    def _each_is_asked(cls, identity: tuple[Recogniser, ...]) -> tuple[Recogniser, ...]:
        if any(isinstance(way, Anonymous) for way in identity[:-1]):
            raise ValueError("anonymous recognises everyone, so what follows is never asked (put it last)")
        kinds = [way.kind for way in identity]
        for kind in ("api_keys", "jwt"):
            if "passthrough" in kinds and kind in kinds[kinds.index("passthrough") :]:
                raise ValueError(f"passthrough takes every key for a provider's (put {kind} before it)")
        _tell_issuers_apart([way.issuer for way in identity if isinstance(way, Jwt)])
        return identity

    @field_validator("store", mode="before")
    @classmethod
    def _in_memory(cls, store: Any) -> Any:
        """A store that does not say its kind is the default one, as ``store: {max_entries: 500}``."""
        return {"kind": "memory"} | store if isinstance(store, dict) else store

    @model_validator(mode="after")
    def _together(self) -> Settings:
        faults = [fault for fault in (self._ports(), self._workers(), self._open_door()) if fault]
        faults += self._routed()
        if faults:
            raise ConfigFault(faults)
        return self

    def _ports(self) -> str | None:
        if self.listen.port == self.admin.port != 0 and self.listen.host == self.admin.host:
            return f"admin.port: {self.admin.port} is listen.port too (give each its own port)"
        return None

    def _workers(self) -> str | None:
        if self.workers > 1 and isinstance(self.store, MemoryStore):
            return (
                f"workers: {self.workers} processes would each keep their own state, so that limits and "
                "tickets would not hold (set store.kind: redis, or workers: 1)"
            )
        return None

    def _routed(self) -> Iterator[str]:
        """A model that nobody serves would refuse every request that is sent to it."""
        globs = [glob for upstream in self.upstreams for glob in upstream.models]
        for number, route in enumerate(self.routing):
            for key, model in (("decide", route.decide), ("answer", route.answer)):
                if model is not None and not any(fnmatchcase(model, glob) for glob in globs):
                    yield f"routing[{number}].{key}: no upstream serves {model!r} (see upstreams[].models)"

    def _open_door(self) -> str | None:
        """Whoever reaches the port must not be served unless that is written down."""
        host = self.listen.host
        if is_loopback(host):
            return None
        if "identity" not in self.model_fields_set:
            return (
                f"identity: {host} is reachable from other machines and no identity is written down, so that "
                "anyone would be served (write identity: [{kind: passthrough}] to serve only clients that "
                "send a provider key, or end the list with {kind: anonymous} to serve anyone)"
            )
        own = next((upstream for upstream in self.upstreams if upstream.has_own_key), None)
        anyone = any(isinstance(way, Anonymous) for way in self.identity)
        if own and not anyone and any(isinstance(way, Passthrough) for way in self.identity):
            return (
                f"identity: passthrough leaves it to the provider to check the client's key, but upstream "
                f"{own.name!r} sends its own, so that anyone on {host} would be served with it (use api_keys "
                "or header instead, or end the list with {kind: anonymous} to serve anyone)"
            )
        return None

    def within(self, folder: Path) -> Settings:
        """The same settings with every relative path taken from ``folder``."""
        settings: Settings = _anchored(self, folder)
        settings._folder = folder
        return settings

    @property
    def folder(self) -> Path:
        """The folder from which relative paths were taken."""
        return self._folder

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the effective settings, wherever their folder is. No secret goes into it."""
        plain = _plain(self.model_dump(by_alias=True), self._folder)
        return hashlib.sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def secrets(self) -> Iterator[tuple[str, SecretRef]]:
        """Every secret that the settings refer to, with the path of its key."""
        yield from _secrets(self, "")


def _tell_issuers_apart(issuers: Sequence[str | None]) -> None:
    """Of several issuers' tokens each must be known by its issuer; raises ``ValueError``."""
    if len(issuers) > 1 and None in issuers:
        raise ValueError("several jwt cannot tell whose a token is (write the issuer of each)")
    if len(set(issuers)) < len(issuers):
        raise ValueError("two jwt are of one issuer (keep one, with the audiences of both)")


def settings_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the YAML file."""
    schema = Settings.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "callgate.yaml"}


def _anchored(value: Any, folder: Path) -> Any:
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, Section):
        update = {name: _anchored(getattr(value, name), folder) for name in type(value).model_fields}
        return value.model_copy(update=update)
    if isinstance(value, tuple):
        return tuple(_anchored(item, folder) for item in value)
    if isinstance(value, Mapping):
        return {key: _anchored(item, folder) for key, item in value.items()}
    return value


def _plain(value: Any, folder: Path) -> Any:
    if isinstance(value, Path):
        return str(value.relative_to(folder) if value.is_relative_to(folder) else value)
    if isinstance(value, Mapping):
        return {key: _plain(item, folder) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item, folder) for item in value]
    return value


def _secrets(value: Any, path: str) -> Iterator[tuple[str, SecretRef]]:
    if isinstance(value, SecretRef):
        yield path, value
    elif isinstance(value, Section):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _secrets(item, f"{path}[{index}]")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _secrets(item, f"{path}.{key}")
