"""The neutral words: tool calls, results, turns; and the one strict JSON reading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NoReturn

import orjson

# RFC 7493 (I-JSON) 2.2: beyond this, JavaScript clients run another number than Python clients do.
MAX_SAFE_INTEGER = 2**53 - 1

_BRIEF_CHARS = 200

CallKind = Literal["function", "custom"]


class Fault(ValueError):
    """The text has no reading that every client shares; the message says why, for the model to read."""


def loads(text: bytes | str) -> Any:
    """Read JSON in the one way that every client shares.

    Duplicate keys, NaN and infinities, lone surrogates, trailing data and nesting beyond the parser's
    depth raise ``Fault``. Integers of any size are kept exact.

    Text that is already compact (as nearly all clients and models write it) is proven unambiguous by
    writing it back; only other text pays for the slower parser.
    """
    try:
        raw = text.encode() if isinstance(text, str) else text
        value = orjson.loads(raw)
        if orjson.dumps(value) == raw:
            return value
    except (ValueError, TypeError):
        pass  # includes lone surrogates and integers beyond 64 bits: the slow reading words the fault
    return _read_slowly(text)


def _read_slowly(text: bytes | str) -> Any:
    try:
        decoded = text if isinstance(text, str) else text.decode()
        value = json.loads(
            decoded, object_pairs_hook=_unique, parse_constant=_not_a_number, parse_float=_finite
        )
        if "\\u" in decoded or not decoded.isascii():
            json.dumps(value, ensure_ascii=False).encode()
    except Fault:
        raise
    except UnicodeError:
        raise Fault("text that is not valid Unicode (a lone surrogate or broken UTF-8)") from None
    except RecursionError:
        raise Fault("nested too deeply") from None
    except ValueError as exc:
        raise Fault(f"not valid JSON: {_position(exc)}") from None
    return value


def _position(exc: ValueError) -> str:
    if isinstance(exc, json.JSONDecodeError):
        return f"{exc.msg[0].lower()}{exc.msg[1:]} at character {exc.pos + 1}"
    return "a number with too many digits"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Fault(f"duplicate key {key!r}")
            seen.add(key)
    return value


def _not_a_number(constant: str) -> NoReturn:
    raise Fault(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Fault(f"the number {text} is out of range")
    return value


def dumps(value: Any) -> bytes:
    """Write compact JSON, keys in their order; integers of any size are kept exact."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def loads_frame(data: bytes) -> Any:
    """Read one wire frame: as ``loads``, but a surrogate pair may be cut in two across frames.

    Providers that cut text by UTF-16 units send one half of an emoji a frame, so a lone half is no
    fault here; the call that is assembled from the frames is held to the strict reading.
    """
    try:
        return orjson.loads(data)
    except ValueError:
        pass
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_not_a_number)
    except RecursionError:
        raise Fault("nested too deeply") from None
    except Fault:
        raise
    except ValueError:
        raise Fault("not valid JSON") from None


def has_duplicate_keys(data: bytes) -> bool:
    """Whether some object of this JSON text names a key twice, or is too deep to be sure."""
    try:
        json.loads(data, object_pairs_hook=_unique)
    except (Fault, RecursionError):
        return True
    return False


def _unsafe_integer(value: Any) -> int | None:
    if isinstance(value, int):
        return value if abs(value) > MAX_SAFE_INTEGER else None
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            if (found := _unsafe_integer(item)) is not None:
                return found
    return None


@dataclass(frozen=True, slots=True)
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
        if len(arguments_json) >= 16 and (unsafe := _unsafe_integer(value)) is not None:
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


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the model is told a call came to."""

    call_id: str
    content: str


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Failure:
    """The upstream said in-band that it failed; nothing follows. ``raw`` is its own error frame."""

    raw: bytes
    message: str


Event = Passage | Failure


@dataclass(frozen=True, slots=True)
class Slot:
    """A call's place in its turn: which choice, and which of that choice's calls."""

    choice: int
    index: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class PastCall:
    """A call of an earlier turn, with the result that came back for it."""

    id: str
    name: str
    arguments_json: str
    result: str | None
    turn: int
    """The number of the user message that it was made for, from 1."""
    failed: bool = False
    """The application marked the result as a failure."""
    partial: bool = False
    """The result is more than its text: images, files."""

    def arguments(self) -> Any:
        """The arguments as JSON, or their text where they are none."""
        try:
            return loads(self.arguments_json or "{}")
        except Fault:
            return self.arguments_json


def brief(result: str | None) -> str | None:
    """As much of a result as tells it apart: a short one as it is, of a long one its beginning and a digest.

    What is brief already stays as it is.
    """
    if result is None or len(result) <= _BRIEF_CHARS:
        return result
    digest = hashlib.sha256(result.encode(errors="replace")).hexdigest()
    return f"{result[: _BRIEF_CHARS // 2]}… {digest}"


@dataclass(frozen=True, slots=True)
class PastResult:
    """A tool result as it stands in a request."""

    key: str
    """The name by which the codec knows this one result: call ids may come twice."""
    call_id: str
    tool: str
    """Empty where the request does not hold the call."""
    content: str


@dataclass(frozen=True, slots=True)
class History:
    """What is known of the conversation so far."""

    calls: tuple[PastCall, ...] = ()
    query: str = ""
    """The text of the last user message."""
    turn: int = 0
    """How many user messages there were."""
    opening: str = ""
    """The text of the first user message: with the principal, it names the conversation."""
    last_answer: str = ""
    """The text of the last assistant message."""
    fresh: frozenset[str] = frozenset()
    """Ids of the calls whose results came with this request, after the last assistant message."""

    def after(self, earlier: History) -> History:
        """This history with one that went before it."""
        later = (replace(call, turn=call.turn + earlier.turn) for call in self.calls)
        return History(
            calls=(*earlier.calls, *later),
            query=self.query or earlier.query,
            turn=self.turn + earlier.turn,
            opening=earlier.opening or self.opening,
            last_answer=self.last_answer or earlier.last_answer,
            fresh=self.fresh,
        )


@dataclass(slots=True)  # not frozen: there are many a request
class OfferedTool:
    """A tool as the application offers it to the model."""

    name: str
    parameters: Any = None
    """Its JSON Schema, or None where it takes free text or says nothing."""
    description: str = ""
    kind: str = "function"
    more: Any = None
    """What else the model may read of it; told by ``redefine`` only."""


@dataclass(frozen=True, slots=True)
class HostedTool:
    """A tool that the provider runs by itself, where no call of it can be judged."""

    type: str
    """As the API names it: ``web_search``, ``mcp``, ``code_interpreter``, ..."""
    label: str = ""
    """What tells two of a type apart: a remote server's label or URL."""
    approvable: bool = False
    """The API can make each use of it wait for an approval."""


@dataclass(frozen=True)
class Request:
    """A client's request: a view of ``body``, the wire object, beside ``raw``, the bytes that are sent."""

    protocol: str
    raw: bytes
    body: dict[str, Any]
    model: str
    stream: bool
    choices: int
    reader: Any = field(repr=False, compare=False)
    """The codec, which knows where tools and history stand in ``body``."""
    earlier: History | None = None
    """What the provider remembers of the conversation and ``body`` does not say."""
    hidden: frozenset[str] = frozenset()
    """Names of what the provider knows of the conversation and the client does not, in the codec's words."""
    changed: Mapping[str, str] = field(default_factory=dict)
    """The arguments of calls that the client was given with others than the provider knows, by call id."""
    owned: str = ""
    """The conversation that it goes on, where that was begun through Callgate for this principal."""

    @cached_property
    def tools(self) -> Mapping[str, OfferedTool]:
        """The tools that the application offers, by name."""
        tools: Mapping[str, OfferedTool] = self.reader.offered_tools(self.body)
        return tools

    @cached_property
    def hosted(self) -> Sequence[HostedTool]:
        """The tools in the request that the provider would run by itself."""
        hosted: Sequence[HostedTool] = self.reader.hosted_tools(self.body)
        return hosted

    @cached_property
    def history(self) -> History:
        """The conversation so far, with what is known of it from elsewhere."""
        history: History = self.reader.history(self.body)
        return history.after(self.earlier) if self.earlier is not None else history

    @cached_property
    def results(self) -> Sequence[PastResult]:
        """Every tool result that the request holds, in its order."""
        results: Sequence[PastResult] = self.reader.tool_results(self.body)
        return results

    @cached_property
    def handles(self) -> Sequence[str]:
        """The names in this request under which something may have been kept: ids of calls or answers."""
        handles: Sequence[str] = self.reader.handles(self.body)
        return handles

    @cached_property
    def continued(self) -> str:
        """The answer or the conversation, kept by the provider, that it goes on from; "" for none."""
        continued: str = self.reader.continued(self.body)
        return continued

    @cached_property
    def resumable(self) -> bool:
        """Whether the client may come back for the answer before its end was read."""
        resumable: bool = self.reader.resumable(self.body)
        return resumable

    @cached_property
    def scope(self) -> str:
        """What tells equal handles of one principal apart: providers reuse short ids."""
        scope: str = self.reader.scope(self)
        return scope


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. ``key`` separates what is kept for one principal from what is kept for another."""

    id: str
    roles: tuple[str, ...] = ()
    tenant: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "anonymous"

    @property
    def key(self) -> str:
        return f"{self.kind}:{len(self.tenant)}:{self.tenant}:{self.id}"
