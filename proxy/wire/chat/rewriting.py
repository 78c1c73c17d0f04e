"""What streams and bodies have in common when an answer has to be written again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.model import Turn
from proxy.wire.chat.calls import Building
from proxy.wire.chat.reading import CALL_KEYS, ChatTurn
from proxy.wire.writing import write_json

# What the first round said of itself holds for the whole answer: clients refuse a change.
_HEAD_KEYS = ("id", "object", "created", "model", "system_fingerprint")
# With these, a turn that forwards calls may end as the provider said.
_KEPT_FINISHES = {"length", "content_filter"}


def error_body(status: int, code: str, message: str, param: str | None = None) -> bytes:
    """An error in OpenAI's shape."""
    kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(status)
    kind = kind or ("invalid_request_error" if status < 500 else "server_error")
    return write_json({"error": {"message": message, "type": kind, "param": param, "code": code}})


def add_usage(total: Any, more: Any) -> Any:
    """The sum of two usage objects, key by key and level by level."""
    if isinstance(total, dict) and isinstance(more, dict):
        return {key: add_usage(total.get(key), more.get(key)) for key in {**total, **more}}
    if _is_number(total) and _is_number(more):
        return total + more
    return total if more is None else more


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Continuity:
    """What holds over all rounds of one answer."""

    def __init__(self) -> None:
        self.head: dict[str, Any] = {}
        self.usage: dict[str, Any] | None = None
        self.rounds = 0
        """How many rounds lie behind the one that is written."""

    def see(self, wire: Mapping[str, Any]) -> None:
        """Take the head from the first object that has an id."""
        if not self.head.get("id"):
            self.head = {key: wire[key] for key in _HEAD_KEYS if key in wire}

    def settle(self, turn: Turn) -> None:
        """A round is over that the client does not see."""
        self.usage = add_usage(self.usage, turn.wire.usage)
        self.rounds += 1

    def patch(self, wire: dict[str, Any]) -> dict[str, Any]:
        """A later round's object as part of the one answer."""
        patched = wire | self.head if self.rounds else dict(wire)
        if self.rounds and isinstance(usage := wire.get("usage"), dict):
            patched["usage"] = add_usage(self.usage, usage)
        return patched


def go_on_as_written(turn: Turn, arguments: Sequence[str | None]) -> bool:
    """Whether every call of the turn goes on, with the arguments that the model wrote."""
    return all(
        slot.call.arguments_json == forwarded for slot, forwarded in zip(turn.slots, arguments, strict=True)
    )


def without_calls(part: Mapping[str, Any]) -> dict[str, Any]:
    """A delta or a message without its calls."""
    return {key: value for key, value in part.items() if key not in CALL_KEYS}


class Forwarded:
    """The calls that go on, by choice, renumbered from 0."""

    def __init__(self, turn: Turn, arguments: Sequence[str | None], notices: Mapping[int, str]) -> None:
        self.notices = notices
        self._calls: dict[int, list[dict[str, Any]]] = {}
        self._legacy: dict[int, dict[str, Any]] = {}
        wire: ChatTurn = turn.wire
        for slot, forwarded in zip(turn.slots, arguments, strict=True):
            self._calls.setdefault(slot.choice, [])
            if forwarded is not None:
                self._add(slot.choice, wire.choices[slot.choice].calls.calls[slot.index], forwarded)

    def _add(self, choice: int, building: Building, arguments: str) -> None:
        if building.type == "legacy":
            self._legacy[choice] = {"name": building.name, "arguments": arguments}
        else:
            self._calls[choice].append(building.wire(arguments))

    @property
    def choices(self) -> list[int]:
        """The choices that had calls."""
        return sorted(self._calls)

    def any(self, choice: int) -> bool:
        """Whether a call of this choice goes on."""
        return bool(self._calls.get(choice)) or choice in self._legacy

    def message_fields(self, choice: int) -> dict[str, Any]:
        """The call fields of a whole message."""
        if choice in self._legacy:
            return {"function_call": self._legacy[choice]}
        return {"tool_calls": self._calls[choice]} if self._calls.get(choice) else {}

    def deltas(self, choice: int) -> Iterator[dict[str, Any]]:
        """One delta a call, whole: the shape that every client reads alike. Or the notice."""
        if choice in self._legacy:
            yield {"function_call": self._legacy[choice]}
        for index, call in enumerate(self._calls.get(choice, [])):
            yield {"tool_calls": [{"index": index, **call}]}
        if not self.any(choice) and self.notices.get(choice):
            yield {"content": self.notices[choice]}

    def finish(self, choice: int, said: str | None) -> str:
        """The finish reason that matches what is left of the choice."""
        if not self.any(choice):
            return "stop"
        if said in _KEPT_FINISHES:
            return str(said)
        return "function_call" if choice in self._legacy else "tool_calls"
