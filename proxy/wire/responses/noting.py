"""What is noted beside a kept answer, so that what the provider stores of it can be read back."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from proxy.model import Request, ToolCall, Turn
from proxy.wire.codec import Ending, Rounds
from proxy.wire.responses import items
from proxy.wire.responses.items import Json

_MAX_NAMES = 1000
ALL = "*"
"""Stands for more names than are kept: then nothing counts as given, and everything is judged anew."""


def own_words(text: str) -> str:
    """The name of something that the proxy said to the model, out of the client's sight."""
    return "said:" + hashlib.sha256(text.encode(errors="replace")).hexdigest()[:24]


def hiding(request: Request, added: Iterable[Mapping[str, Any]], *known: Iterable[str]) -> Request:
    """The request, which now holds these items that the client does not see, beside those of these names."""
    names = {name for item in added for name in _names(item)}.union(*known)
    return replace(request, hidden=request.hidden | names) if names else request


def _names(item: Mapping[str, Any]) -> Sequence[str]:
    if item.get("role") in ("developer", "system"):
        return (own_words(items.text_of(item.get("content"))),)
    ids = (items.call_id(item), items.answered_id(item)) if item.get("type") else ()
    return [id for id in ids if id]


def noted(asked: Request, hidden: Rounds, turn: Turn, told: Collection[str], ending: Ending) -> Json:
    """How the answer was told, and what of its conversation the client does not see; empty members are left
    out."""
    unseen = [call.id for one, _ in hidden for call in one.calls]
    unseen += [call.id for call in turn.calls if call.id in told]
    # With a part of a batch hidden, the one result for all of it is not as the client wrote it.
    names = asked.hidden.union(unseen, map(items.wrapper_id, unseen))
    if len(names) > _MAX_NAMES or ALL in names:
        names = frozenset({ALL})
    members = {
        "rounds": list(ending.rounds),
        "hidden": sorted(names),
        "changed": _changed(turn.calls, ending.arguments),
        "notices": {str(choice): text for choice, text in ending.notices.items()},
        "status": ending.status,
        "mine": asked.owned,
    }
    return {name: value for name, value in members.items() if value}


def _changed(calls: Sequence[ToolCall], arguments: Sequence[str | None]) -> dict[str, str]:
    if not arguments:
        return {}
    pairs = zip(calls, arguments, strict=True)
    return {call.id: text for call, text in pairs if text is not None and text != call.arguments_json}
