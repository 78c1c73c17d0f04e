"""The Responses API (``/v1/responses``).

What policies see as a call, and under which name, is listed in ``proxy.wire.responses.items``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from proxy.model import (
    History,
    HostedTool,
    OfferedTool,
    Passage,
    PastCall,
    PastResult,
    Request,
    ToolResult,
    Turn,
    loads_frame,
)
from proxy.wire.chat.rewriting import error_body
from proxy.wire.codec import UNTOLD, Caps, Decoder, Encoder, Ending, Rounds, Settlement, read_request
from proxy.wire.known import ToolsMemo
from proxy.wire.redefining import Define
from proxy.wire.responses import request as requests
from proxy.wire.responses import state, tools
from proxy.wire.responses.decoder import StreamDecoder, body_decoder
from proxy.wire.responses.encoder import BodyEncoder, StreamEncoder
from proxy.wire.responses.events import replayed
from proxy.wire.responses.noting import hiding
from proxy.wire.writing import write_json


class ResponsesCodec:
    """Reads and writes responses.

    ``pending`` are calls that only the provider remembers, and that the requests read with it answer.
    """

    protocol = "responses"
    keepalive = b": keep-alive\n\n"

    def __init__(self, pending: Sequence[PastCall] = (), memo: ToolsMemo | None = None) -> None:
        self._pending = pending
        self.memo = ToolsMemo() if memo is None else memo

    def read(self, raw: bytes) -> Request:
        """Read a client's request; raises ``BadRequest``."""
        body = read_request(raw, self.memo)
        requests.check_shape(body)
        return Request(
            protocol=self.protocol,
            raw=raw,
            body=body,
            model=body.get("model", ""),
            stream=bool(body.get("stream")),
            choices=1,
            reader=self,
        )

    def offered_tools(self, body: Mapping[str, Any]) -> Mapping[str, OfferedTool]:
        """The tools that the application offers, by name; those of a namespace as ``namespace.name``."""
        return tools.offered(body)

    def hosted_tools(self, body: Mapping[str, Any]) -> list[HostedTool]:
        """The tools that the provider runs by itself."""
        return tools.hosted(body)

    def history(self, body: Mapping[str, Any]) -> History:
        """What the input tells of the conversation so far."""
        return requests.history(body, self._pending)

    def tool_results(self, body: Mapping[str, Any]) -> list[PastResult]:
        """Every tool result in the input."""
        return requests.tool_results(body, self._pending)

    def handles(self, body: Mapping[str, Any]) -> list[str]:
        """The answer that it goes on from, the calls that it answers, the messages that it brings."""
        return requests.handles(body)

    def scope(self, request: Request) -> str:
        """One for all: what goes on from a stored answer does not say how its conversation began."""
        return "responses"

    def decoder(self, stream: bool, caps: Caps) -> Decoder:
        """A decoder for one answer."""
        return StreamDecoder(caps) if stream else body_decoder(caps)

    def encoder(self, stream: bool) -> Encoder:
        """An encoder for the one answer that the client sees."""
        return StreamEncoder() if stream else BodyEncoder()

    def extend(self, request: Request, turn: Turn, results: Sequence[ToolResult], relax: bool) -> Request:
        """Append the turn's items as they were and an answer for each of its calls."""
        return requests.extended(request, turn, results, relax)

    def forbid_tools(self, request: Request, notice: str) -> Request:
        """Turn tools off but keep their definitions."""
        return requests.forbidden(request, notice)

    def flattened(self, request: Request) -> Request | None:
        """Nothing: every server of this API knows how to turn tools off."""
        return None

    def without_tools(
        self, request: Request, functions: Collection[str], hosted: Collection[HostedTool]
    ) -> Request:
        """Take tools out of the request; raises ``BadRequest`` where ``tool_choice`` names one."""
        return tools.without(request, functions, hosted)

    def redefine(self, request: Request, define: Define) -> Request:
        """Put other definitions in the place of the application's."""
        return tools.redefined(request, define)

    def with_approval(self, request: Request, hosted: Collection[HostedTool]) -> Request:
        """Make remote servers' tools ask at each use."""
        return tools.with_approval(request, hosted)

    def with_results(self, request: Request, contents: Mapping[str, str]) -> Request:
        """Put other text into tool results, by the keys of ``tool_results``."""
        return requests.with_results(request, contents)

    def with_model(self, request: Request, model: str) -> Request:
        """Ask another model."""
        return replace(requests.changed(request, model=model), model=model)

    def with_guidance(self, request: Request, text: str) -> Request:
        """Add to the instructions, after those that there are."""
        given = request.body.get("instructions")
        if given is not None and not isinstance(given, str):
            said = {"type": "message", "role": "developer", "content": text}
            request = hiding(request, [said])
            return requests.changed(request, input=[*requests.input_items(request.body), said])
        return requests.changed(request, instructions=f"{given}\n\n{text}" if given else text)

    def settlement(
        self,
        request: Request,
        hidden: Rounds,
        turn: Turn,
        settled: Sequence[ToolResult],
        ending: Ending = UNTOLD,
    ) -> Settlement | None:
        """Keep what the requests that follow need, and how the answer was told."""
        return state.settlement(request, hidden, turn, settled, ending)

    def continued(self, body: Mapping[str, Any]) -> str:
        """The conversation that the request goes on, or the answer that it goes on from."""
        return requests.conversation(body) or body.get("previous_response_id") or ""

    def resumable(self, body: Mapping[str, Any]) -> bool:
        """A stream that is made in the background can be asked for again at once."""
        return body.get("background") is True and body.get("stream") is True and requests.is_stored(body)

    def begun(self, request: Request, hidden: Rounds, passage: Passage, ending: Ending) -> Settlement | None:
        """Keep the answer's name as soon as the provider says it."""
        return state.begun(request, hidden, passage, ending)

    def restore(self, request: Request, kept: Mapping[str, bytes]) -> Request:
        """Put back hidden items, or exchange the name of an answer for that of its last round."""
        found = state.restored(request, kept)
        if found.earlier is None and not found.pending:
            return found.request
        return replace(found.request, earlier=found.earlier, reader=ResponsesCodec(found.pending, self.memo))

    def hold(self, turn: Turn) -> bytes:
        """Keep the calls as they were, and the response around them."""
        response = {k: v for k, v in turn.wire.response.items() if k not in ("output", "usage")}
        calls = [item.item for item in turn.wire.items if item.is_call]
        return write_json({"id": turn.id, "model": turn.model, "calls": calls, "response": response})

    def replay(self, held: bytes, stream: bool) -> bytes:
        """Write held calls as a response of their own, with an id that leads back to the first."""
        return replayed(loads_frame(held), stream)

    def error(self, status: int, code: str, message: str, param: str | None = None) -> bytes:
        """An error body in OpenAI's shape."""
        return error_body(status, code, message, param)
