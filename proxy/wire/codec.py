"""What every protocol's codec gives: reading answers and requests, and writing them again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any, Protocol

from proxy.model import (
    Event,
    Fault,
    History,
    HostedTool,
    Passage,
    PastCall,
    PastResult,
    Request,
    ToolCall,
    ToolResult,
    Turn,
    loads,
    loads_frame,
)
from proxy.model.value import value
from proxy.wire.known import ToolsMemo
from proxy.wire.redefining import Define
from proxy.wire.sse import SseDecoder

_OBJECTS = frozenset({dict})


class MalformedTurn(ValueError):
    """The provider sent what has no safe reading. Nothing that is held may be released."""


class IncompleteTurn(MalformedTurn):
    """The answer was cut before its end. Nothing that is held may be released."""


class BadRequest(ValueError):
    """The client's request has no reading; ``param`` names the part at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param = message, param


MAX_TOKENS = 10**12
"""More than any answer has."""
LEAST_BYTES = 128
"""What a frame counts for at least, however short it is: so much of memory and time it takes."""


@value(frozen=True, slots=True)
class Caps:
    """How much of one answer may be held."""

    max_event_bytes: int = 4 * 2**20
    max_held_bytes: int = 8 * 2**20
    max_response_bytes: int = 64 * 2**20
    max_calls: int = 256
    """Calls in one choice."""


class Decoder(Protocol):
    """Reads one answer. Fragments of calls never leave it before the answer's clean end."""

    done: bool
    """The protocol's own end was read: what follows is no part of the answer."""
    holding: bool
    """Something was read that waits for the end of the answer."""

    def feed(self, chunk: bytes) -> Sequence[Event]:
        """What these bytes complete; raises ``MalformedTurn``."""
        ...

    def close(self) -> tuple[Sequence[Event], Turn]:
        """The last events and the turn; raises ``IncompleteTurn`` when the answer was cut."""
        ...


class Encoder(Protocol):
    """Writes the one answer that the client sees, over all rounds behind it."""

    def passage(self, passage: Passage) -> bytes:
        """Bytes that carry no call, as the client should get them."""
        ...

    def settle(self, turn: Turn) -> bytes:
        """Take in a turn that the client does not see; returns what of it is for the client all the same."""
        ...

    def release(self, turn: Turn, arguments: Sequence[str | None], notices: Mapping[int, str]) -> bytes:
        """Write the end of the answer.

        ``arguments`` has, for each of the turn's slots, the JSON that goes on, or None for a call that
        does not; ``notices`` words for a choice that is left without any call.
        """
        ...

    def finish(self, text: str) -> bytes:
        """End the answer with the proxy's own words."""
        ...

    def status(self, text: str) -> bytes:
        """A line of the proxy's own before the end of a stream; a body has no place for one."""
        ...

    def error(self, status: int, code: str, message: str) -> bytes:
        """An error after the answer has begun."""
        ...


@value(frozen=True, slots=True)
class Settlement:
    """What must be put back into the requests that follow an answer."""

    handles: tuple[str, ...]
    """The names that those requests will know it by: ids of forwarded calls, or of the answer."""
    kept: bytes
    """What ``restore`` needs, in the codec's own words."""
    stored: tuple[str, bytes] | None = None
    """The name under which the provider's stored answer is read back, and what ``recall`` needs for it,
    where that is not among the handles."""
    owned: tuple[str, ...] = ()
    """Those of the names with which nobody else's request may go on."""


@value(frozen=True, slots=True)
class Ending:
    """How an answer was told to the client: what it takes to tell it again."""

    rounds: tuple[str, ...] = ()
    """The ids of the turns that the client heard of, in their order; the last one ended the answer."""
    arguments: Sequence[str | None] = ()
    """For each slot of the last turn the JSON that went on, or None for a call that did not."""
    notices: Mapping[int, str] = field(default_factory=dict)
    status: str = ""


UNTOLD = Ending()


@value(frozen=True, slots=True)
class Remembered:
    """What is known of something that the provider stores for a principal."""

    model: str
    rounds: tuple[str, ...] = ()
    """As in ``Ending``: none for what is no answer."""
    owned: str = ""
    """The conversation that it stands for."""
    given: frozenset[str] = frozenset()
    """Marks of the calls that the client was given, or brought."""
    names: frozenset[str] = frozenset()
    """All hidden names, as requests carry them."""
    unseen: frozenset[str] = frozenset()
    """Marks of the calls that the client was not given; what is here outweighs what is there."""
    hidden: frozenset[str] = frozenset()
    """Ids of these calls, and other names of what the client does not see."""
    changed: Mapping[str, str] = field(default_factory=dict)
    """The arguments of calls that were given with others than the model wrote, by call id."""
    notices: Mapping[int, str] = field(default_factory=dict)
    status: str = ""
    history: History = field(default_factory=History)

    def arguments(self, call: ToolCall) -> str | None:
        """With which arguments the client was given this call; None where it is not known to have been."""
        name = mark(call)
        if call.fault is not None or name in self.unseen or name not in self.given:
            return None
        return self.changed.get(call.id, call.arguments_json)

    def is_unseen(self, call: ToolCall) -> bool:
        """Whether the client is known not to have been given this call."""
        return mark(call) in self.unseen


ALL = "*"
"""Among hidden names: more than are kept. Then nothing counts as given, and everything is judged anew."""


def hidden_name(call: ToolCall | PastCall) -> str:
    """The name of a call that the client does not see."""
    return f"call:{mark(call)}:{call.id}"


def remembered_names(names: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Marks of hidden calls, and the ids of these beside whatever else is hidden."""
    calls = [name.split(":", 2)[1:] for name in names if name.startswith("call:")]
    others = [name for name in names if not name.startswith("call:")]
    return frozenset(mark for mark, _ in calls), frozenset(others).union(id for _, id in calls)


def mark(call: ToolCall | PastCall) -> str:
    """A name for exactly this call, with exactly these arguments."""
    text = "\0".join((call.id, call.name, call.arguments_json or "{}"))
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:32]


Rounds = Sequence[tuple[Turn, Sequence[ToolResult]]]
"""Turns that the client does not see, each with the results that the model was given for its calls."""


class Codec(Protocol):
    """One protocol."""

    protocol: str
    keepalive: bytes
    """Bytes that every client of the protocol skips."""

    def read(self, raw: bytes) -> Request:
        """Read a client's request; raises ``BadRequest``."""
        ...

    def decoder(self, stream: bool, caps: Caps) -> Decoder: ...

    def encoder(self, stream: bool) -> Encoder: ...

    def extend(self, request: Request, turn: Turn, results: Sequence[ToolResult], relax: bool) -> Request:
        """The request asked again: the turn as it was, and a result for every one of its calls.

        ``relax`` lifts a ``tool_choice`` that forces a call.
        """
        ...

    def forbid_tools(self, request: Request, notice: str) -> Request:
        """The request with tools turned off: the model has to answer."""
        ...

    def flattened(self, request: Request) -> Request | None:
        """The request without tools, with the calls of its history told as text, for providers that refuse
        to have tools turned off; None where there is nothing to flatten, or no provider needs it."""
        ...

    def without_tools(
        self, request: Request, functions: Collection[str], hosted: Collection[HostedTool]
    ) -> Request:
        """The request without these tools, the rest in its order and bytes' reading.

        Raises ``BadRequest`` where a ``tool_choice`` names one of them.
        """
        ...

    def redefine(self, request: Request, define: Define) -> Request:
        """The request with other definitions of the application's own tools, each in its place and order.

        ``define`` is told of every definition, the second of a name too, with all that the model may read
        of it. Names and settings stay; ``strict`` is lifted where the new schema is not for it. Where nothing
        changes, the very request is returned.
        """
        ...

    def with_approval(self, request: Request, hosted: Collection[HostedTool]) -> Request:
        """The request with these hosted tools made to wait for an approval at each use."""
        ...

    def tool_results(self, body: Mapping[str, Any]) -> Sequence[PastResult]:
        """Every tool result in a request's body, in its order; each has a key of its own."""
        ...

    def with_results(self, request: Request, contents: Mapping[str, str]) -> Request:
        """The request with other text in these results, by the keys that ``tool_results`` gives them.

        All of a result's content gives way to the text, images and the like too.
        """
        ...

    def with_model(self, request: Request, model: str) -> Request:
        """The request for another model."""
        ...

    def with_guidance(self, request: Request, text: str) -> Request:
        """The request with an instruction added after those that it has, so that their prefix holds."""
        ...

    def settlement(
        self,
        request: Request,
        hidden: Rounds,
        turn: Turn,
        settled: Sequence[ToolResult],
        ending: Ending = UNTOLD,
    ) -> Settlement | None:
        """What to keep of an answer: the rounds hidden before it, the calls of its last turn that the
        client does not run, with the results they were given, and how it was told; None where nothing has
        to be put back, and nothing can be read back."""
        ...

    def begun(self, request: Request, hidden: Rounds, passage: Passage, ending: Ending) -> Settlement | None:
        """What to keep of an answer that has begun, before the client hears of it; None where ``passage``
        is not its beginning."""
        ...

    def restore(self, request: Request, kept: Mapping[str, bytes]) -> Request:
        """Put back what belongs to this request; ``kept`` has the settlements by handle."""
        ...

    def hold(self, turn: Turn) -> bytes:
        """A turn as it can be kept until a person has decided, in the codec's own words."""
        ...

    def replay(self, held: bytes, stream: bool) -> bytes:
        """A held turn as a provider would send it: a stream or a body, to be read like any answer."""
        ...

    def error(self, status: int, code: str, message: str, param: str | None = None) -> bytes:
        """An error body in the protocol's own shape."""
        ...


class BodyReader:
    """Collects a whole body up to a cap. A body is a stream of one chunk."""

    holding = True

    def __init__(self, caps: Caps, read: Callable[[bytes], tuple[Sequence[Event], Turn]]) -> None:
        """``read`` is no method of this reader: with it, every body would wait for the collector."""
        self._caps, self._read = caps, read
        self._chunks: list[bytes] = []
        self._size = 0
        self.done = False

    def feed(self, chunk: bytes) -> Sequence[Event]:
        self._size += len(chunk)
        if self._size > self._caps.max_response_bytes:
            raise MalformedTurn("the answer is larger than limits.max_response_bytes")
        self._chunks.append(chunk)
        return ()

    def close(self) -> tuple[Sequence[Event], Turn]:
        return self._read(b"".join(self._chunks))


def sse(caps: Caps) -> SseDecoder:
    return SseDecoder(caps.max_event_bytes)


def read_object(raw: bytes) -> dict[str, Any]:
    """A request's JSON object, read strictly; raises ``BadRequest``."""
    try:
        body = loads(raw)
    except Fault as exc:
        raise BadRequest(f"The request body could not be read: {exc}.") from None
    if not isinstance(body, dict):
        raise BadRequest("The request body must be a JSON object.")
    return body


def read_request(raw: bytes, memo: ToolsMemo) -> dict[str, Any]:
    """As ``read_object``, its ``tools`` as known ones."""
    if (body := memo.read(raw)) is None:
        body = read_object(raw)
        tools = body.get("tools")
        if tools and are_objects(tools):
            body["tools"] = memo.known(tools)
    return body


def are_objects(value: Any) -> bool:
    """Whether a value that was read from JSON is an array of objects."""
    return isinstance(value, list) and _OBJECTS.issuperset(map(type, value))


def as_dict(value: Any, what: str) -> dict[str, Any]:
    """``value`` as an object, None as an empty one; raises ``MalformedTurn`` for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedTurn(f"{what} is not an object")
    return value


def as_list(value: Any, what: str) -> list[Any]:
    """``value`` as a list, None as an empty one; raises ``MalformedTurn`` for anything else."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedTurn(f"{what} is not a list")
    return value


def tokens(count: Any) -> int:
    """A provider's count of tokens, whole and within reason; 0 for what is no count.

    A round that said less than nothing would give back what another one used.
    """
    if isinstance(count, float) and count.is_integer():
        count = int(count)
    return min(count, MAX_TOKENS) if type(count) is int and count > 0 else 0


def check_lines(data: bytes, may_hold_calls: Callable[[bytes], bool], mark: str) -> None:
    """Raise ``MalformedTurn`` where a line of an event that has several is an event with a call by itself.

    Clients that read line by line would run it. ``mark`` is the member by which an event is known.
    """
    for line in data.splitlines():
        if may_hold_calls(line) and _has(line, mark):
            raise MalformedTurn("a line of an event is an event by itself")


def _has(line: bytes, name: str) -> bool:
    try:
        wire = loads_frame(line)
    except Fault:
        return False
    return isinstance(wire, dict) and any(key.casefold() == name for key in wire)


def holds_more(content: Any) -> bool:
    """Whether a tool result's content is more than text."""
    if content is None or isinstance(content, str):
        return False
    if not isinstance(content, list):
        return True
    return not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content)
