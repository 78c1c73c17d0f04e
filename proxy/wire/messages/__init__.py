"""Anthropic's Messages (``/v1/messages``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from proxy.model import (
    History,
    HostedTool,
    OfferedTool,
    Passage,
    PastResult,
    Request,
    ToolResult,
    Turn,
    loads_frame,
)
from proxy.wire.codec import UNTOLD, Caps, Decoder, Encoder, Ending, Rounds, Settlement, read_request
from proxy.wire.known import ToolsMemo
from proxy.wire.messages import request as requests
from proxy.wire.messages import settlements, tools
from proxy.wire.messages.decoder import StreamDecoder, body_decoder
from proxy.wire.messages.encoder import BodyEncoder, StreamEncoder
from proxy.wire.messages.frames import PING, error_body, replayed
from proxy.wire.messages.reading import MessagesTurn
from proxy.wire.redefining import Define
from proxy.wire.writing import write_json


class MessagesCodec:
    """Reads and writes Messages."""

    protocol = "messages"
    keepalive = PING

    def __init__(self, memo: ToolsMemo | None = None) -> None:
        self.memo = ToolsMemo() if memo is None else memo

    def read(self, raw: bytes) -> Request:
        """Read a client's request; raises ``BadRequest``."""
        body = read_request(raw, self.memo)
        requests.check_shape(body)
        return Request(
            protocol=self.protocol,
            raw=raw,
            body=body,
            model=body["model"],
            stream=bool(body.get("stream")),
            choices=1,
            reader=self,
        )

    def offered_tools(self, body: Mapping[str, Any]) -> dict[str, OfferedTool]:
        """The tools that the application offers, by name."""
        return tools.offered(body)

    def hosted_tools(self, body: Mapping[str, Any]) -> list[HostedTool]:
        """The tools that the provider runs by itself."""
        return tools.hosted(body)

    def history(self, body: Mapping[str, Any]) -> History:
        """What the messages tell of the conversation so far."""
        return requests.history(body)

    def handles(self, body: Mapping[str, Any]) -> list[str]:
        """The ids of the calls that the conversation holds, and the names of its thinking."""
        return requests.handles(body)

    def scope(self, request: Request) -> str:
        """The conversation: Anthropic's ids are unique, those of local servers are used again in each."""
        return request.history.opening

    def decoder(self, stream: bool, caps: Caps) -> Decoder:
        """A decoder for one answer."""
        return StreamDecoder(caps) if stream else body_decoder(caps)

    def encoder(self, stream: bool) -> Encoder:
        """An encoder for the one answer that the client sees."""
        return StreamEncoder() if stream else BodyEncoder()

    def extend(self, request: Request, turn: Turn, results: Sequence[ToolResult], relax: bool) -> Request:
        """Append the assistant turn as it was and a user message with a result for each of its calls."""
        wire: MessagesTurn = turn.wire
        content = wire.content()
        answered = [{"role": "assistant", "content": content}, requests.result_message(content, results)]
        changes: dict[str, Any] = requests.relaxed_choice(request.body) if relax else {}
        changes |= requests.in_container(request.body, wire.container)
        return requests.changed(request, messages=[*request.body["messages"], *answered], **changes)

    def forbid_tools(self, request: Request, notice: str) -> Request:
        """Turn tools off but keep their definitions; the notice stands after the results."""
        told = requests.with_notice(request, notice)
        has_tools = any(True for _ in tools.entries(request.body)) or request.body.get("mcp_servers")
        return requests.changed(told, tool_choice={"type": "none"}) if has_tools else told

    def flattened(self, request: Request) -> Request | None:
        """Nothing: every server of this API knows how to turn tools off."""
        return None

    def without_tools(
        self, request: Request, functions: Collection[str], hosted: Collection[HostedTool]
    ) -> Request:
        """Take tools out of the request."""
        return tools.without(request, functions, hosted)

    def redefine(self, request: Request, define: Define) -> Request:
        """Put other definitions in the place of the application's."""
        return tools.redefined(request, define)

    def with_approval(self, request: Request, hosted: Collection[HostedTool]) -> Request:
        """Messages has no such wait: the request stays as it is, and policy has to strip or deny."""
        return request

    def tool_results(self, body: Mapping[str, Any]) -> list[PastResult]:
        """Every tool result in the messages."""
        return requests.tool_results(body)

    def with_results(self, request: Request, contents: Mapping[str, str]) -> Request:
        """Put other text into tool results."""
        messages = requests.with_results(request.body["messages"], contents)
        return requests.changed(request, messages=messages)

    def with_model(self, request: Request, model: str) -> Request:
        """Ask another model."""
        return replace(requests.changed(request, model=model), model=model)

    def with_guidance(self, request: Request, text: str) -> Request:
        """Add to the system prompt, after what it says."""
        return requests.with_system(request, text)

    def settlement(
        self,
        request: Request,
        hidden: Rounds,
        turn: Turn,
        settled: Sequence[ToolResult],
        ending: Ending = UNTOLD,
    ) -> Settlement | None:
        """Keep the hidden rounds and the settled calls. This API stores no answer that could be read back."""
        return settlements.settlement(hidden, turn, settled)

    def continued(self, body: Mapping[str, Any]) -> str:
        """Nothing: with this API a request brings its conversation."""
        return ""

    def resumable(self, body: Mapping[str, Any]) -> bool:
        """This API makes no answer in the background."""
        return False

    def begun(self, request: Request, hidden: Rounds, passage: Passage, ending: Ending) -> Settlement | None:
        """Nothing: no answer is resumable."""
        return None

    def restore(self, request: Request, kept: Mapping[str, bytes]) -> Request:
        """Put settled calls, their results and hidden rounds back into the messages."""
        return requests.changed(request, messages=settlements.restored(request.body["messages"], kept))

    def hold(self, turn: Turn) -> bytes:
        """Keep the assistant's blocks as they were, thinking with its signature among them."""
        wire: MessagesTurn = turn.wire
        return write_json({"id": turn.id, "model": turn.model, "content": wire.content()})

    def replay(self, held: bytes, stream: bool) -> bytes:
        """Write a held turn as an answer of its own."""
        return replayed(loads_frame(held), stream)

    def error(self, status: int, code: str, message: str, param: str | None = None) -> bytes:
        """An error body in Anthropic's shape."""
        return error_body(status, code, message)
