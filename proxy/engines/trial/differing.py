"""What the log is told where a candidate differs: enough to understand it, and nothing that is withheld.

A candidate is tried out; its reasons may quote what the policies in force mask. So whatever a record of the
call would not show is taken out of all that both sides say.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.gates.comparing import Change, Stand
from proxy.model import dumps
from proxy.pipeline import Capture
from proxy.record import MASKED, DifferenceRecord, masked

MAX_TEXTS, MAX_TEXT_CHARS = 20, 500
MAX_ARGUMENTS_BYTES = 16 * 1024
# More than this many values are not looked for one by one: then nothing is quoted at all.
_MAX_SECRETS = 2000
_SHORT_CHARS = 4


def difference(
    *,
    package: str,
    input: Mapping[str, Any],
    trace_id: str,
    change: Change,
    live: Stand,
    candidate: Stand,
    revision: str,
    candidate_revision: str,
    capture: Capture,
) -> DifferenceRecord:
    """The record of one difference."""
    # What either side masks is masked on both.
    masks = [*live.obligations.get("mask", ()), *candidate.obligations.get("mask", ())]
    veil = _Veil(_withheld(input, masks, capture))
    call, result, who = input.get("call") or {}, input.get("result") or {}, input["principal"]
    return DifferenceRecord(
        time=input["time"],
        trace_id=trace_id,
        conversation_id=input["conversation"]["id"],
        principal={name: who[name] for name in ("id", "roles", "tenant")},
        package=package,
        tool=call.get("name") or result.get("tool") or "",
        call_id=call.get("id") or result.get("call_id") or "",
        change=change,
        live=_said(live, veil, masks, capture),
        candidate=_said(candidate, veil, masks, capture),
        revision=revision,
        candidate_revision=candidate_revision,
    )


def _said(stand: Stand, veil: _Veil, masks: Sequence[str], capture: Capture) -> dict[str, Any]:
    obligations = {name: _bounded(veil.over(value)) for name, value in stand.obligations.items()}
    if "arguments" in obligations:
        arguments = veil.over(masked(stand.obligations["arguments"], masks))
        obligations["arguments"] = _captured(arguments, capture)
    if "content" in obligations:  # of a result, which no record shows
        obligations["content"] = MASKED
    return {
        "effect": stand.effect,
        "reasons": _bounded(veil.over(list(stand.reasons))),
        "obligations": obligations,
    }


def _captured(arguments: Any, capture: Capture) -> Any:
    if capture == "off":
        return MASKED
    written = dumps(arguments)
    if capture == "digest" or len(written) > MAX_ARGUMENTS_BYTES:
        return {"sha256": hashlib.sha256(written).hexdigest()}
    return arguments


def _bounded(value: Any) -> Any:
    """A list of texts, not longer than a log should be made by policies that are tried out."""
    if not isinstance(value, list | tuple):
        return value
    cut = [item[:MAX_TEXT_CHARS] if isinstance(item, str) else item for item in value[:MAX_TEXTS]]
    return [*cut, f"(and {len(value) - MAX_TEXTS} more)"] if len(value) > MAX_TEXTS else cut


def _withheld(input: Mapping[str, Any], masks: Sequence[str], capture: Capture) -> list[Any]:
    """What a record of the call would not show."""
    call, result = input.get("call") or {}, input.get("result") or {}
    withheld: list[Any] = [result.get("content")]
    if capture == "full":
        return [*withheld, *(_at(call.get("arguments"), pointer) for pointer in masks)]
    others = [*input.get("batch", ()), *(input.get("history") or {}).get("calls", ())]
    return [
        *(withheld, call.get("arguments"), [other.get("arguments") for other in others]),
        *((input.get("conversation") or {}).get("query"), (input.get("principal") or {}).get("claims")),
    ]


def _at(value: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isascii() and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


class _Veil:
    """Covers texts and numbers that must not be shown, wherever they stand."""

    def __init__(self, withheld: Sequence[Any]) -> None:
        secrets: set[str] = set()
        self._all = False
        for text in _leaves(withheld):
            secrets.add(text)
            if len(secrets) > _MAX_SECRETS:
                self._all = True
                break
        # The longest first: a part of one must not break it up.
        self._secrets = sorted(secrets - {""}, key=lambda text: (-len(text), text))

    def over(self, value: Any) -> Any:
        """The value with whatever it quotes covered."""
        if isinstance(value, str):
            return self._over_text(value)
        if isinstance(value, list | tuple):
            return [self.over(item) for item in value]
        if isinstance(value, dict):
            return {self._over_text(name): self.over(item) for name, item in value.items()}
        if isinstance(value, int | float) and not isinstance(value, bool):
            return MASKED if self._all or str(value) in self._secrets else value
        return value

    def _over_text(self, text: str) -> str:
        if self._all:
            return MASKED
        pieces = [text]
        for secret in self._secrets:
            if any(secret in piece for piece in pieces[::2]):
                pieces = [part for at, piece in enumerate(pieces) for part in _cut(piece, secret, at)]
        return "".join(pieces)


def _cut(piece: str, secret: str, at: int) -> list[str]:
    """A piece of open text (at an even place) cut at a secret: open and covered pieces by turns."""
    if at % 2:
        return [piece]
    # A short one is only looked for as a word: "5" is not meant in "15".
    pattern = re.escape(secret)
    if len(secret) < _SHORT_CHARS:
        pattern = rf"(?<!\w){pattern}(?!\w)"
    open_pieces = re.split(pattern, piece)
    return [part for open_piece in open_pieces for part in (open_piece, MASKED)][:-1]


def _leaves(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case bool() | None:
                pass
            case int() | float() as number:
                yield str(number)
            case dict() as members:
                waiting += [*members.keys(), *members.values()]
            case list() | tuple() as items:
                waiting += items
