"""Chat Completions (``/v1/chat/completions``), with its legacy ``functions``."""

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
from proxy.wire.chat import flat, stored, tools
from proxy.wire.chat import request as requests
from proxy.wire.chat import settlement as settlements
from proxy.wire.chat.body import BodyEncoder
from proxy.wire.chat.decoder import StreamDecoder, body_decoder
from proxy.wire.chat.replay import replayed
from proxy.wire.chat.rewriting import error_body
from proxy.wire.chat.stream import StreamEncoder
from proxy.wire.codec import UNTOLD, Caps, Decoder, Encoder, Ending, Rounds, Settlement, read_request
from proxy.wire.known import ToolsMemo
from proxy.wire.redefining import Define
from proxy.wire.writing import write_json


class ChatCodec:
    """Reads and writes Chat Completions."""

    protocol = "chat"
    keepalive = b": keep-alive\n\n"

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
            choices=body.get("n") or 1,
            reader=self,
        )

    def offered_tools(self, body: Mapping[str, Any]) -> dict[str, OfferedTool]:
        """The tools that the application offers, by name."""
        return requests.offered_tools(body)

    def history(self, body: Mapping[str, Any]) -> History:
        """What the messages tell of the conversation so far."""
        return requests.history(body)

    def handles(self, body: Mapping[str, Any]) -> list[str]:
        """The ids of the calls that the conversation holds."""
        return requests.past_call_ids(body)

    def scope(self, request: Request) -> str:
        """The conversation: servers that count their calls from 0 use the same ids in each."""
        return request.history.opening

    def decoder(self, stream: bool, caps: Caps) -> Decoder:
        """A decoder for one answer."""
        return StreamDecoder(caps) if stream else body_decoder(caps)

    def encoder(self, stream: bool) -> Encoder:
        """An encoder for the one answer that the client sees."""
        return StreamEncoder() if stream else BodyEncoder()

    def extend(self, request: Request, turn: Turn, results: Sequence[ToolResult], relax: bool) -> Request:
        """Append the assistant turn as it was and a result for each of its calls."""
        message = turn.wire.message()
        messages = [*request.body["messages"], message, *requests.result_messages(message, results)]
        relaxed = requests.relaxed_choice(request.body) if relax else {}
        return requests.changed(request, messages=messages, **relaxed)

    def forbid_tools(self, request: Request, notice: str) -> Request:
        """Turn tools off but keep their definitions: the prompt's prefix, and so its cache, holds."""
        off: dict[str, Any] = {}
        if request.body.get("tools"):
            off["tool_choice"] = "none"
        if request.body.get("functions"):
            off["function_call"] = "none"
        messages = requests.with_notice(request.body["messages"], notice)
        return requests.changed(request, messages=messages, **off)

    def flattened(self, request: Request) -> Request | None:
        """The request without tools: some servers of this API know no ``tool_choice: none``."""
        body = flat.without_calls(request.body)
        return None if body is None else requests.with_body(request, body)

    def hosted_tools(self, body: Mapping[str, Any]) -> list[HostedTool]:
        """The tools that the provider runs by itself."""
        return tools.hosted(body)

    def without_tools(
        self, request: Request, functions: Collection[str], hosted: Collection[HostedTool]
    ) -> Request:
        """Take tools out of the request."""
        return tools.without(request, functions, hosted)

    def redefine(self, request: Request, define: Define) -> Request:
        """Put other definitions in the place of the application's."""
        return tools.redefined(request, define)

    def with_approval(self, request: Request, hosted: Collection[HostedTool]) -> Request:
        """Chat Completions has no such wait: the request stays as it is, and policy has to strip or deny."""
        return request

    def tool_results(self, body: Mapping[str, Any]) -> list[PastResult]:
        """Every tool result in the messages."""
        return requests.tool_results(body)

    def with_results(self, request: Request, contents: Mapping[str, str]) -> Request:
        """Put other text into tool results."""
        messages = requests.with_contents(request.body["messages"], contents)
        return requests.changed(request, messages=messages)

    def with_model(self, request: Request, model: str) -> Request:
        """Ask another model."""
        return replace(requests.changed(request, model=model), model=model)

    def with_guidance(self, request: Request, text: str) -> Request:
        """Add a system message after those that open the conversation."""
        messages = request.body["messages"]
        opening = ("system", "developer")
        at = next((i for i, m in enumerate(messages) if m.get("role") not in opening), len(messages))
        role = messages[at - 1]["role"] if at else "system"
        added = {"role": role, "content": text}
        request = stored.hiding_words(request, text)
        return requests.changed(request, messages=[*messages[:at], added, *messages[at:]])

    def settlement(
        self,
        request: Request,
        hidden: Rounds,
        turn: Turn,
        settled: Sequence[ToolResult],
        ending: Ending = UNTOLD,
    ) -> Settlement | None:
        """Keep the hidden rounds as messages, the turn's calls as they were, and the results written; of a
        completion that the provider stores, how it was told."""
        found = settlements.settlement(hidden, turn, settled)
        if not stored.is_stored(request.body) or not "".join(ending.rounds[:1]):
            return found
        kept = stored.noted(request, hidden, turn, settled, ending)
        return replace(found or Settlement((), b""), stored=(ending.rounds[0], kept))

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
        messages = settlements.restored(request.body["messages"], kept)
        if stored.is_stored(request.body):
            request = stored.hiding(request, messages)
        return requests.changed(request, messages=messages)

    def hold(self, turn: Turn) -> bytes:
        """Keep the assistant message as it was."""
        return write_json({"id": turn.id, "model": turn.model, "message": turn.wire.message()})

    def replay(self, held: bytes, stream: bool) -> bytes:
        """Write a held message as an answer of its own."""
        return replayed(loads_frame(held), stream)

    def error(self, status: int, code: str, message: str, param: str | None = None) -> bytes:
        """An error body in OpenAI's shape."""
        return error_body(status, code, message, param)
