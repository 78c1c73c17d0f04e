"""What a model answers: calls, passages of text, turns; and what calls come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.model.strict import Fault, dumps, loads, unsafe_integer
from proxy.model.value import value

CallKind = Literal["function", "custom"]


@value(frozen=True, slots=True)
class ToolCall:
    """One call as the model wrote it.

    ``arguments_json`` is exactly what will run; ``arguments`` its strict parse, or None with ``fault``
    saying why there is none. A custom tool's free text is its ``arguments_json``, read as
    ``{"input": text}``.
    """

    id: str
    name: str
    arguments_json: str
    arguments: dict[str, Any] | None
    fault: str | None = None
    kind: CallKind = "function"

    @classmethod
    def parse(cls, id: str, name: str, arguments_json: str, kind: CallKind = "function") -> ToolCall:
        """Read a call's arguments strictly; a call without any argument text has none: ``{}``."""
        if kind == "custom":
            return cls._parse_custom(id, name, arguments_json)
        arguments_json = arguments_json or "{}"
        try:
            value = loads(arguments_json)
        except Fault as exc:
            return cls(id, name, arguments_json, None, f"The arguments are {_as_clause(str(exc))}.")
        if not isinstance(value, dict):
            return cls(id, name, arguments_json, None, "The arguments must be one JSON object.")
        # Most arguments hold no digit run long enough to be unsafe: do not walk those.
        if len(arguments_json) >= 16 and (unsafe := unsafe_integer(value)) is not None:
            fault = f"The integer {str(unsafe)[:40]} is beyond what every client reads alike (2^53 - 1)."
            return cls(id, name, arguments_json, None, fault)
        return cls(id, name, arguments_json, value)

    @classmethod
    def _parse_custom(cls, id: str, name: str, text: str) -> ToolCall:
        try:
            text.encode()
        except UnicodeError:
            return cls(id, name, text, None, "The input is not valid Unicode.", "custom")
        return cls(id, name, text, {"input": text}, None, "custom")

    def with_arguments(self, arguments: dict[str, Any]) -> ToolCall:
        """The same call with other arguments, written compactly; a custom call's is its free text."""
        if self.kind == "custom":
            text = arguments.get("input")
            return ToolCall.parse(self.id, self.name, text if isinstance(text, str) else "", "custom")
        return ToolCall(self.id, self.name, dumps(arguments).decode(), arguments, None, self.kind)


def _as_clause(fault: str) -> str:
    return fault if fault.startswith(("not ", "nested", "text")) else f"not readable: {fault}"


@value(frozen=True, slots=True)
class ToolResult:
    """What the model is told a call came to."""

    call_id: str
    content: str


@value(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counts them."""

    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


@dataclass(slots=True)  # not frozen: there is one a read of a stream
class Passage:
    """Upstream bytes that carry no call: they go on at once, as they are.

    ``frames`` are the same bytes read, for an encoder that must write them again.
    """

    raw: bytes
    text: str = ""
    frames: tuple[Any, ...] = ()


@value(frozen=True, slots=True)
class Failure:
    """The upstream said in-band that it failed; nothing follows. ``raw`` is its own error frame."""

    raw: bytes
    message: str


Event = Passage | Failure


@value(frozen=True, slots=True)
class Slot:
    """A call's place in its turn: which choice, and which of that choice's calls."""

    choice: int
    index: int
    call: ToolCall


@value(frozen=True, slots=True)
class Turn:
    """One upstream answer, read to its clean end.

    ``slots`` are its calls in the order the client would see them, ``wire`` the codec's own view of
    what was held, out of which the encoder writes the rest of the answer.
    """

    id: str
    model: str
    slots: tuple[Slot, ...]
    text: str
    finish: str | None
    usage: Usage | None
    choices: int
    wire: Any = field(repr=False, default=None)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple(slot.call for slot in self.slots)
