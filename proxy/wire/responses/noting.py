"""What is noted beside a kept answer, so that what the provider stores of it can be read back."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from proxy.model import Request, ToolCall, Turn
from proxy.wire.codec import ALL, Ending, Rounds, hidden_name, mark
from proxy.wire.responses import items
from proxy.wire.responses.items import Json

_MAX_NAMES = 1000
_MAX_CHANGED_CHARS = 64 * 1024


def own_words(text: str) -> str:
    """The name of something that the proxy said to the model, out of the client's sight."""
    return "said:" + hashlib.sha256(text.encode(errors="replace")).hexdigest()[:24]


def hiding(request: Request, added: Iterable[Mapping[str, Any]], *known: Iterable[str]) -> Request:
    """The request, which now holds these items of the proxy's own, and what has these hidden names.

    Results are known by the calls that they answer.
    """
    said = (item for item in added if item.get("role") in ("developer", "system"))
    names = {own_words(items.text_of(item.get("content"))) for item in said}.union(*known)
    return replace(request, hidden=request.hidden | names) if names else request


def noted(asked: Request, hidden: Rounds, turn: Turn, told: Collection[str], ending: Ending) -> Json:
    """How the answer was told, and what of its conversation the client does not see; empty members are left
    out."""
    unseen = [call for one, _ in hidden for call in one.calls]
    unseen += [call for call in turn.calls if call.id in told]
    names = asked.hidden
    if names:
        # What was held, and is released now, is hidden no more.
        names = names.difference(map(hidden_name, (call for call in turn.calls if call.id not in told)))
    names = names.union(map(hidden_name, unseen))
    changed = {**asked.changed, **_changed(turn.calls, ending.arguments)}
    if len(names) > _MAX_NAMES or sum(map(len, changed.values())) > _MAX_CHANGED_CHARS or ALL in names:
        names, changed = frozenset({ALL}), {}
    members = {
        "rounds": list(ending.rounds),
        "made": [mark(call) for call in turn.calls[-_MAX_NAMES:]],
        "hidden": sorted(names),
        "changed": changed,
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
