"""Records read back from the lines of an audit log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from proxy.model import Fault
from proxy.record import (
    GEN_AI_INPUT_TOKENS,
    GEN_AI_OUTPUT_TOKENS,
    GEN_AI_REQUEST_MODEL,
    GEN_AI_TOOL_CALL_ID,
    GEN_AI_TOOL_NAME,
    DecisionRecord,
    DefinitionRecord,
    DifferenceRecord,
    ExchangeRecord,
    PolicyRecord,
    Record,
    ResultRecord,
    Step,
    TicketRecord,
)

_RECORDS: tuple[type[Record], ...] = (
    *(DecisionRecord, ExchangeRecord, TicketRecord, ResultRecord, PolicyRecord),
    DefinitionRecord,
)
_KINDS = {kind.kind: kind for kind in _RECORDS}
_ATTRIBUTES = {
    GEN_AI_REQUEST_MODEL: "model",
    GEN_AI_TOOL_NAME: "tool",
    GEN_AI_TOOL_CALL_ID: "call_id",
    GEN_AI_INPUT_TOKENS: "input_tokens",
    GEN_AI_OUTPUT_TOKENS: "output_tokens",
}


def record_of(entry: Mapping[str, Any]) -> Record | None:
    """The record that a line was written from, or None where the line is of another kind.

    Fields that this version does not know are left out; raises ``Fault`` where one is missing.
    """
    kind = _KINDS.get(entry.get("kind", ""))
    if kind is None:
        return None
    if kind is PolicyRecord and entry.get("event") == DifferenceRecord.event:
        kind = DifferenceRecord
    known = {field.name for field in fields(kind)}
    values = {name: value for key, value in entry.items() if (name := _ATTRIBUTES.get(key, key)) in known}
    for name in {"reasons", "decisions", "labels", "faults", "pinned"} & values.keys():
        values[name] = tuple(values[name])
    try:
        if "trail" in values:
            values["trail"] = tuple(map(_step, values["trail"]))
        return kind(**values)
    except TypeError as exc:
        raise Fault(f"not a whole {kind.kind} record: {exc}") from None


def _step(step: Mapping[str, Any]) -> Step:
    return Step(**{**step, "reasons": tuple(step.get("reasons", ()))})
