"""The definitions gate: what the model reads of a tool is what the operator knows of it.

Who can change a tool's description tells the model what to do: a remote server that was trusted once and then
words its tools anew ("rug pull"), or a dependency of the application. A pin notices; the registry's own
definition in its place leaves nothing of it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

from cachetools import LRUCache

from proxy.guards.base import Refused, Situation
from proxy.model import OfferedTool, Request, dumps
from proxy.pipeline import Capture, principal_fields
from proxy.ports import Sink, Unavailable
from proxy.record import DefinitionRecord
from proxy.tools import ToolSpec, definition_digest
from proxy.wire.redefining import Redefinition

log = logging.getLogger("callgate.gates")

UNREADABLE = "unreadable"
"""In place of a digest, where a definition cannot have one."""

_MAX_DEFINITION_BYTES = 64 * 1024
_MAX_KNOWN_BYTES = 16 * 1024 * 1024
_MAX_NAMES = 4096
# Clients can invent definitions: so many of one tool leave a record, and then one a minute.
_MAX_A_NAME = 16


class DefinitionsGate:
    """Compares definitions with their pins, puts the registry's in their place, and records new ones.

    Comes after policy has decided which tools the model is shown: those that it is not are not looked at.
    """

    def __init__(
        self,
        sink: Sink,
        override: bool = False,
        pin: Literal["off", "report", "refuse"] = "off",
        record: bool = False,
        capture: Capture = "full",
    ) -> None:
        self._override, self._pin, self._record = override, pin, record
        self._noticed = _Noticed(sink, capture)
        self._digests: dict[tuple[str, str, bytes], str] = {}
        self._known_bytes = 0
        # Found by identity, which the kept reference keeps unique.
        self._redefinitions: LRUCache[int, tuple[ToolSpec, Redefinition]] = LRUCache(_MAX_NAMES)

    async def admit(self, request: Request, situation: Situation) -> Request:
        """The request with the definitions that the model is to read; raises ``Refused`` (403) where one is
        not as it was pinned and that is refused."""
        if not self._concerns(request.tools, situation):
            return request
        drifted: list[str] = []
        redefined: list[str] = []

        def define(tool: OfferedTool) -> Redefinition | None:
            spec = situation.registry(tool.name)
            if self._has_drifted(tool, spec, situation):
                drifted.append(tool.name)
            if spec is None or not (self._override if spec.override is None else spec.override):
                return None
            redefined.append(tool.name)
            return self._redefinition(spec)

        admitted: Request = request.reader.redefine(request, define)
        if drifted:
            situation.admission["drifted"] = sorted(set(drifted))
            if self._pin == "refuse":
                raise _not_as_pinned(drifted[0])
        if admitted is not request:
            situation.admission["redefined"] = sorted(set(redefined))
        return admitted

    def _concerns(self, tools: Mapping[str, OfferedTool], situation: Situation) -> bool:
        if self._override or self._record or self._pin != "off":
            return bool(tools)
        return any(spec.override for spec in map(situation.registry, tools) if spec is not None)

    def _has_drifted(self, tool: OfferedTool, spec: ToolSpec | None, situation: Situation) -> bool:
        pins = spec.pin if spec is not None and self._pin != "off" else ()
        if not pins and not self._record:
            return False
        digest = self._digest(tool)
        has_drifted = bool(pins) and digest not in pins
        if has_drifted or self._record:
            self._noticed.note(tool, digest, pins if has_drifted else (), situation)
        return has_drifted

    def _digest(self, tool: OfferedTool) -> str:
        """The digest, known by the definition's own bytes, which cost less than canonical ones."""
        try:
            key = tool.name, tool.description, dumps((tool.parameters, tool.more))
            digest = self._digests.get(key)
            return digest if digest is not None else self._learn(key, definition_digest(tool))
        except (ValueError, RecursionError):
            return UNREADABLE

    def _learn(self, key: tuple[str, str, bytes], digest: str) -> str:
        size = sum(map(len, key)) + 200
        if size > _MAX_DEFINITION_BYTES:
            return digest
        if self._known_bytes + size > _MAX_KNOWN_BYTES:
            self._digests.clear()
            self._known_bytes = 0
        self._digests[key] = digest
        self._known_bytes += size
        return digest

    def _redefinition(self, spec: ToolSpec) -> Redefinition:
        known = self._redefinitions.get(id(spec))
        if known is None:
            known = spec, Redefinition(spec.description or None, spec.parameters)
            self._redefinitions[id(spec)] = known
        return known[1]


class _Noticed:
    """Says once of each definition that it was seen, or is not as it was pinned; within bounds."""

    def __init__(self, sink: Sink, capture: Capture) -> None:
        self._sink, self._capture = sink, capture
        self._known: dict[str, set[tuple[str, bool]]] = {}
        self._minutes: dict[str, str] = {}

    def note(self, tool: OfferedTool, digest: str, pinned: tuple[str, ...], situation: Situation) -> None:
        """Leave a record of a definition; ``pinned`` are the digests that it should have had."""
        name, one = tool.name, (digest, bool(pinned))
        known = self._known.get(name)
        if known is None:
            # Pinned names are the operator's, and not for others to use up.
            if not pinned and len(self._known) >= _MAX_NAMES:
                return
            known = self._known[name] = set()
        if one in known or (len(known) >= _MAX_A_NAME and not self._is_due(name, known, situation.time[:16])):
            return
        known.add(one)
        if pinned:
            log.warning("the definition of %r has drifted: it is %s, not as pinned", name, digest)
        try:
            self._sink.write(self._record(tool, digest, pinned, situation))
        except Unavailable as exc:
            known.discard(one)
            log.error("a definition of %r could not be recorded: %s", name, exc)

    def _is_due(self, name: str, known: set[tuple[str, bool]], minute: str) -> bool:
        """Whether a name with many definitions may have one more: one a minute."""
        if self._minutes.get(name) == minute:
            return False
        self._minutes[name] = minute
        if len(known) >= _MAX_NAMES:
            known.clear()
        return True

    def _record(
        self, tool: OfferedTool, digest: str, pinned: tuple[str, ...], situation: Situation
    ) -> DefinitionRecord:
        return DefinitionRecord(
            time=situation.time,
            trace_id=situation.trace_id,
            principal=principal_fields(situation.principal),
            protocol=situation.request.protocol,
            tool=tool.name,
            digest=digest,
            event="drifted" if pinned else "seen",
            pinned=pinned,
            definition=self._said(tool) if self._capture == "full" and digest != UNREADABLE else None,
        )

    @staticmethod
    def _said(tool: OfferedTool) -> dict[str, Any] | None:
        said: dict[str, Any] = {"description": tool.description, "parameters": tool.parameters}
        if tool.more:
            said["more"] = tool.more
        return said if len(dumps(said)) <= _MAX_DEFINITION_BYTES else None


def _not_as_pinned(name: str) -> Refused:
    message = (
        f"The definition of the tool {name!r} is not the one that the operator pinned, so the request was "
        "not sent. If the change is meant, have it reviewed and pinned: callgate schema pin."
    )
    return Refused(403, "tool_definition_changed", message, "tools")
