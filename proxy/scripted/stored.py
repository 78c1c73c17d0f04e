"""What a provider stores, and the routes that read it back: as the provider saw it, every round by itself."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from proxy.model import dumps, loads
from proxy.scripted import chat, responses
from proxy.scripted.dialect import BadRequest, Dialect, Shape
from proxy.scripted.reply import STREAM_TYPE, Reply, plain_reply
from proxy.scripted.script import Played

Json = dict[str, Any]

_ROUTE = re.compile(r".*?/(responses|conversations|chat/completions)((?:/[^/]+)*)")


class Missing(KeyError):
    """Nothing of this id is stored."""


@dataclass
class _Response:
    whole: Json
    frames: list[bytes]
    context: list[Json]
    """The input, with that of the responses before it, and what they put out."""


@dataclass
class _Completion:
    whole: Json
    messages: list[Json]


@dataclass
class _Conversation:
    whole: Json
    items: list[Json]


@dataclass
class StoredObjects:
    """Everything that a provider keeps."""

    responses: dict[str, _Response] = field(default_factory=dict)
    completions: dict[str, _Completion] = field(default_factory=dict)
    conversations: dict[str, _Conversation] = field(default_factory=dict)
    pause_s: float = 0
    """How long to wait between two events of a stream that is read again."""
    _numbers: Any = field(default_factory=itertools.count)

    # -- what is kept ---------------------------------------------------------------------------

    def keep(self, dialect: Dialect, body: Json, played: Played, shape: Shape) -> Reply | None:
        """Keep an answer as its request asks for; the reply to one that is made in the background."""
        if dialect is chat and body.get("store") is True:
            whole = loads(chat.body(played, shape._replace(stream=False)))
            whole |= {"metadata": body.get("metadata") or {}, "tools": body.get("tools")}
            messages = [
                {"content_parts": None, **message, "id": f"{whole['id']}-{number}"}
                for number, message in enumerate(body["messages"])
            ]
            self.completions[whole["id"]] = _Completion(whole, messages)
        if dialect is responses and body.get("store") is not False:
            return self._keep_response(body, played, shape)
        return None

    def _keep_response(self, body: Json, played: Played, shape: Shape) -> Reply | None:
        whole = loads(responses.body(played, shape._replace(stream=False)))
        whole |= {"tools": body.get("tools") or [], "background": body.get("background") is True}
        given = self._numbered(body.get("input"))
        conversation = self._conversation(body)
        before = self.responses.get(str(body.get("previous_response_id")))
        earlier = [*before.context, *before.whole["output"]] if before else []
        if conversation is not None:
            earlier = list(conversation.items)
            conversation.items += [*given, *whole["output"]]
        tools = b'"tools":' + dumps(whole["tools"])
        frames = [
            frame.replace(b'"tools":[]', tools)
            for frame in responses.frames(played, shape._replace(stream=True))
        ]
        self.responses[whole["id"]] = _Response(whole, frames, [*earlier, *given])
        if body.get("background") is True and not shape.stream:
            return plain_reply(200, dumps({**whole, "status": "queued", "output": [], "usage": None}))
        return None

    def _conversation(self, body: Json) -> _Conversation | None:
        named = body.get("conversation")
        id = named.get("id") if isinstance(named, dict) else named
        if id is None:
            return None
        if id not in self.conversations:
            raise BadRequest(f"Conversation with id '{id}' not found.")
        return self.conversations[id]

    def _numbered(self, given: Any) -> list[Json]:
        """Items as they are stored: each with an id of the provider's own."""
        items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given or ())
        return [self._stored(item) for item in items]

    def _stored(self, item: Json) -> Json:
        kind = item.get("type", "message")
        prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc"}.get(kind, "fco")
        item = {"type": kind, **item, "id": item.get("id") or f"{prefix}_in{next(self._numbers)}"}
        if isinstance(item.get("content"), str):
            text = "output_text" if item.get("role") == "assistant" else "input_text"
            item["content"] = [{"type": text, "text": item["content"]}]
        return item

    # -- what is read back ----------------------------------------------------------------------

    def reply(self, method: str, path: str, query: str, raw: bytes) -> Reply | None:
        """The reply on a route of stored objects; None for any other."""
        match = _ROUTE.fullmatch(path)
        if match is None or (method == "POST" and match[1] != "conversations" and not match[2]):
            return None
        parts, asked = match[2].split("/")[1:], dict(parse_qsl(query))
        serve = {"responses": self._response, "conversations": self._of_conversation}
        found = serve.get(match[1], self._completion)
        try:
            answer = found(method, parts, asked, loads(raw) if raw else {})
        except Missing as exc:
            message = f"Nothing with id {exc.args[0]!r} is stored."
            return plain_reply(404, chat.error(404, message, "not_found"))
        if isinstance(answer, Reply):
            return answer
        return plain_reply(200, dumps(answer))

    def _response(self, method: str, parts: Sequence[str], asked: Mapping[str, str], body: Json) -> Any:
        match method, *parts:
            case "POST", "compact":
                return self._compacted(body)
            case "POST", "input_tokens":
                return {"object": "response.input_tokens", "input_tokens": 11}
            case "GET", id:
                kept = _found(self.responses, id)
                if asked.get("stream") != "true":
                    return kept.whole
                return _streamed(kept.frames, asked, self.pause_s)
            case "DELETE", id:
                _found(self.responses, id)
                del self.responses[id]
                return {"id": id, "object": "response", "deleted": True}
            case "POST", id, "cancel":
                return _found(self.responses, id).whole
            case "GET", id, "input_items":
                return _page(_found(self.responses, id).context, asked, "desc")
        raise Missing("/".join(parts))

    def _compacted(self, body: Json) -> Json:
        given = self._numbered(body.get("input"))
        said = [item for item in given if item.get("role") == "user"]
        sealed = {"type": "compaction", "id": f"cmp_{next(self._numbers)}", "encrypted_content": "gAAAA"}
        usage = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
        return {
            "id": f"resp_cmp{next(self._numbers)}",
            "object": "response.compaction",
            "created_at": chat.CREATED,
            "output": [*said, sealed],
            "usage": usage,
        }

    def _of_conversation(
        self, method: str, parts: Sequence[str], asked: Mapping[str, str], body: Json
    ) -> Any:
        if not parts:
            id = f"conv_{next(self._numbers):08x}"
            whole = {"id": id, "object": "conversation", "created_at": chat.CREATED}
            whole["metadata"] = body.get("metadata") or {}
            self.conversations[id] = _Conversation(whole, self._numbered(body.get("items")))
            return whole
        kept = _found(self.conversations, parts[0])
        match method, *parts[1:]:
            case ("GET",):
                return kept.whole
            case ("POST",):
                kept.whole["metadata"] = body["metadata"]
                return kept.whole
            case ("DELETE",):
                del self.conversations[parts[0]]
                return {"id": parts[0], "object": "conversation.deleted", "deleted": True}
            case "GET", "items":
                return _page(kept.items, asked, "desc")
            case "POST", "items":
                added = self._numbered(body["items"])
                kept.items += added
                return _page(added, {"limit": "100"}, "asc")
            case "GET", "items", id:
                return _item(kept.items, id)
            case "DELETE", "items", id:
                kept.items.remove(_item(kept.items, id))
                return kept.whole
        raise Missing("/".join(parts))

    def _completion(self, method: str, parts: Sequence[str], asked: Mapping[str, str], body: Json) -> Any:
        match method, *parts:
            case ("GET",):
                return _page([kept.whole for kept in self.completions.values()], asked, "asc")
            case "GET", id:
                return _found(self.completions, id).whole
            case "POST", id:
                _found(self.completions, id).whole["metadata"] = body["metadata"]
                return self.completions[id].whole
            case "DELETE", id:
                _found(self.completions, id)
                del self.completions[id]
                return {"id": id, "object": "chat.completion.deleted", "deleted": True}
            case "GET", id, "messages":
                return _page(_found(self.completions, id).messages, asked, "asc")
        raise Missing("/".join(parts))


def _found(kept: Mapping[str, Any], id: str) -> Any:
    if id not in kept:
        raise Missing(id)
    return kept[id]


def _item(items: Sequence[Json], id: str) -> Json:
    for item in items:
        if item["id"] == id:
            return item
    raise Missing(id)


def _page(members: Sequence[Json], asked: Mapping[str, str], order: str) -> Json:
    ordered = list(members if asked.get("order", order) == "asc" else reversed(members))
    if (after := asked.get("after")) is not None:
        ordered = ordered[ordered.index(_item(ordered, after)) + 1 :]
    limit = int(asked.get("limit", 20))
    ids = [member["id"] for member in ordered[:limit]]
    ends = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
    return {"object": "list", "data": ordered[:limit], **ends, "has_more": len(ordered) > limit}


def _streamed(frames: Sequence[bytes], asked: Mapping[str, str], pause_s: float) -> Reply:
    after = int(asked.get("starting_after", -1))
    return Reply(200, {"content-type": STREAM_TYPE}, tuple(frames[after + 1 :]), gap_s=pause_s)
