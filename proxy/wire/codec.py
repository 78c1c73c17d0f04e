"""What every protocol's codec gives: reading answers and requests, and writing them again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.model import Event, Fault, HostedTool, Passage, PastResult, Request, ToolResult, Turn, loads
from proxy.wire.sse import SseDecoder


class MalformedTurn(ValueError):
    """The provider sent what has no safe reading. Nothing that is held may be released."""


class IncompleteTurn(MalformedTurn):
    """The answer was cut before its end. Nothing that is held may be released."""


class BadRequest(ValueError):
    """The client's request has no reading; ``param`` names the part at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param = message, param


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Settlement:
    """What must be put back into the requests that follow an answer."""

    handles: tuple[str, ...]
    """The names that those requests will know it by: ids of forwarded calls, or of the answer."""
    kept: bytes
    """What ``restore`` needs, in the codec's own words."""


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
        self, request: Request, hidden: Rounds, turn: Turn, settled: Sequence[ToolResult]
    ) -> Settlement | None:
        """What to keep of an answer: the rounds hidden before it, and the calls of its last turn that the
        client does not run, with the results they were given; None where nothing has to be put back."""
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

    def __init__(self, caps: Caps, read: Callable[[bytes], Turn]) -> None:
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
        return (), self._read(b"".join(self._chunks))


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


def holds_more(content: Any) -> bool:
    """Whether a tool result's content is more than text."""
    if content is None or isinstance(content, str):
        return False
    if not isinstance(content, list):
        return True
    return not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content)
