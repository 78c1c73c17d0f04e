"""Every route through which a call could reach a client, and what is done about it: one table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote

from proxy.http import azure


class Disposition(StrEnum):
    """What happens to a request on a route."""

    JUDGED = "judged"
    """Every call in the answer is judged."""
    PASSED = "passed"
    """The route carries no calls; bytes go both ways."""
    REFUSED = "refused"
    """Calls could walk past here, or nothing is known of the route."""


@dataclass(frozen=True, slots=True)
class Door:
    """One route: its methods, its path below ``/v1``, and what is done."""

    methods: frozenset[str]
    path: str
    disposition: Disposition
    protocol: str = ""
    """The codec that judges it, or in whose shape errors are told; OpenAI's where it is empty."""
    why: str = ""
    """For a refusal: what to tell the client."""
    stored: bool = False
    """It reads or changes what the provider stores; so does any method but POST on a judged route."""


def _judged(path: str, protocol: str, *more: str) -> Door:
    return Door(frozenset({"POST", *more}), path, Disposition.JUDGED, protocol)


def _stored(path: str, protocol: str) -> Door:
    """What else there is below is refused by whoever serves it, and so are other methods."""
    methods = frozenset({"GET", "POST", "DELETE"})
    return Door(methods, path, Disposition.JUDGED, protocol, stored=True)


def _passed(path: str, *methods: str) -> Door:
    return Door(frozenset(methods), path, Disposition.PASSED)


def _refused(path: str, why: str, protocol: str = "") -> Door:
    return Door(frozenset(), path, Disposition.REFUSED, protocol, why)


_NOT_YET = "tool calls on this route cannot be judged yet, so it is closed"

# A path segment in braces stands for any one segment; a trailing "/*" for everything below.
DOORS: tuple[Door, ...] = (
    _judged("/chat/completions", "chat", "GET"),
    _stored("/chat/completions/*", "chat"),
    _judged("/messages", "messages"),
    _judged("/responses", "responses"),
    _judged("/responses/compact", "responses"),
    _stored("/responses/*", "responses"),
    _stored("/conversations", "responses"),
    _stored("/conversations/*", "responses"),
    # Carry no calls.
    _passed("/models", "GET"),
    _passed("/models/*", "GET", "DELETE"),
    _passed("/embeddings", "POST"),
    _passed("/completions", "POST"),
    _passed("/moderations", "POST"),
    _passed("/audio/speech", "POST"),
    _passed("/audio/transcriptions", "POST"),
    _passed("/audio/translations", "POST"),
    _passed("/images/generations", "POST"),
    _passed("/images/edits", "POST"),
    _passed("/images/variations", "POST"),
    Door(frozenset({"POST"}), "/messages/count_tokens", Disposition.PASSED, "messages"),
    Door(frozenset({"POST"}), "/responses/input_tokens", Disposition.PASSED, "responses"),
    # Carry calls that nobody would judge.
    _refused("/messages/batches", "the answers of a batch are files that nobody judges", "messages"),
    _refused("/messages/*", "Callgate does not know this route", "messages"),
    _refused("/batches", "the answers of a batch are files that nobody judges"),
    _refused("/batches/*", "the answers of a batch are files that nobody judges"),
    _refused("/files", "the answers of a batch are read as files, and nobody judges them there"),
    _refused("/files/*", "the answers of a batch are read as files, and nobody judges them there"),
    _refused("/realtime", _NOT_YET),
    _refused("/realtime/*", "its sessions lead around Callgate"),
    _refused("/assistants", _NOT_YET),
    _refused("/assistants/*", _NOT_YET),
    _refused("/threads", _NOT_YET),
    _refused("/threads/*", _NOT_YET),
)

_UNKNOWN = Door(frozenset(), "", Disposition.REFUSED, why="Callgate does not know this route")


_ALL_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})


class DoorTable:
    """Finds the door of a request."""

    def __init__(self, doors: tuple[Door, ...] = DOORS, passed: Sequence[str] = ()) -> None:
        """``passed`` are routes that an operator has said carry no calls; raises ``ValueError`` for a judged
        one."""
        judged = {door.path for door in doors if door.disposition is Disposition.JUDGED}
        for path in passed:
            if path in judged:
                raise ValueError(f"{path} is judged, and cannot be passed")
        doors += tuple(Door(_ALL_METHODS, path, Disposition.PASSED) for path in passed)
        self._exact = {door.path: door for door in doors if not door.path.endswith("/*")}
        self._below = {door.path[:-2]: door for door in doors if door.path.endswith("/*")}

    def find(self, path: str) -> tuple[Door, str]:
        """The door of a request's path, and the path below ``/v1`` under which the provider knows it.

        Azure's paths (``/openai/…``) are known to the provider as they are.

        Doubled slashes, a trailing slash and percent-encoding name the same route as without; what is
        still odd after that is an unknown route.
        """
        if path.startswith("/v1") and (door := self._exact.get(path[3:])):
            return door, door.path
        plain = _plain(path)
        if plain is None:
            return _UNKNOWN, path
        if plain.startswith(azure.PREFIX):
            route = azure.route(plain)
            return (_UNKNOWN if route is None else self._find(route)), plain
        return self._find(plain), plain

    def _find(self, plain: str) -> Door:
        if door := self._exact.get(plain):
            return door
        parts = plain.split("/")
        for depth in range(len(parts) - 1, 1, -1):
            if door := self._below.get("/".join(parts[:depth])):
                return door
        return _UNKNOWN


_ODD = re.compile(r"[^A-Za-z0-9/._~:@+,=-]")


def _plain(path: str) -> str | None:
    """The one spelling of a path, below ``/v1``; None for a path with two readings."""
    decoded = re.sub("/+", "/", unquote(path)).rstrip("/")
    if _ODD.search(decoded) or any(part in (".", "..") for part in decoded.split("/")):
        return None
    return decoded.removeprefix("/v1") if decoded == "/v1" or decoded.startswith("/v1/") else decoded
