"""Answers over several rounds: one message for the client, and what it comes back with made whole again."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from proxy.model import Turn
from proxy.wire.codec import Caps
from proxy.wire.messages import MessagesCodec
from tests.core.harness import Outcome, World, run
from tests.core.view_messages import read
from tests.wire.messages.playing import START, block, written

CODEC = MessagesCodec()
STREAM_OR_BODY = pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in ("get", "drop", "pay")]
POLICY = {"drop": {"effect": "deny", "reasons": ["Not for you."]}, "pay": {"effect": "confirm"}}
DROP = {"name": "drop", "id": "t_drop", "arguments": {"t": 1}}
GET = {"name": "get", "id": "t_get", "arguments": {"id": 1}}
PAY = {"name": "pay", "id": "t_pay", "arguments": {"eur": 5}}
USER = {"role": "user", "content": "go"}
FINE = {"text": "Fine."}

Json = dict[str, Any]


class Conversation:
    """Requests of one world, one after the other, and the history that a client keeps."""

    def __init__(self, stream: bool) -> None:
        self.world, self.stream = World(), stream
        self.messages: list[Json] = [USER]

    async def ask(self, *turns: Json, says: Any = None, principal: str = "ann") -> Outcome:
        """Ask with what the user says; the answer joins the history.

        The turn that is played is the one after those that the request holds, as it is sent on.
        """
        if says is not None:
            self.messages.append({"role": "user", "content": says})
        body = {"model": "scripted", "max_tokens": 9, "messages": self.messages, "tools": TOOLS}
        case = {"policy": POLICY, "upstream": list(turns)}
        case["principal"] = {"id": principal}
        outcome = await run(
            case, self.stream, world=self.world, body=body | {"stream": self.stream}, protocol="messages"
        )
        self.answer = read(outcome.client.data, self.stream)
        self.content = content_of(outcome.client.data, self.stream)
        self.messages.append({"role": "assistant", "content": self.content})
        return outcome

    async def asked(self, says: Any, principal: str = "ann") -> list[Json]:
        """What the provider is asked with when the client comes back."""
        outcome = await self.ask(FINE, says=says, principal=principal)
        sent: list[Json] = orjson.loads(outcome.upstream.asks[0].body)["messages"]
        return sent


def content_of(data: bytes, stream: bool) -> list[Json]:
    """The blocks of a message, as the SDK would send them back."""
    if not stream:
        content: list[Json] = orjson.loads(data)["content"]
        return content
    blocks: dict[int, Json] = {}
    for line in data.split(b"\n"):
        wire = orjson.loads(line[5:]) if line.startswith(b"data:") else {"type": ""}
        if wire["type"] == "content_block_start":
            blocks[wire["index"]] = wire["content_block"] | {"pieces": ""}
        if wire["type"] == "content_block_delta":
            built, delta = blocks[wire["index"]], wire["delta"]
            for key in ("text", "thinking"):
                built[key] = built.get(key, "") + delta[key] if key in delta else built.get(key)
            built["signature"] = delta.get("signature", built.get("signature"))
            built["pieces"] += delta.get("partial_json", "")
    return [_sent_back(built) for built in blocks.values()]


def _sent_back(built: Json) -> Json:
    pieces = built.pop("pieces")
    kept = {key: value for key, value in built.items() if value is not None}
    return kept | ({"input": orjson.loads(pieces)} if pieces else {})


def kinds(messages: list[Json]) -> list[tuple[str, Any]]:
    return [
        (m["role"], [b["type"] for b in m["content"]] if isinstance(m["content"], list) else m["content"])
        for m in messages
    ]


def result(id: str, content: str = "done") -> Json:
    return {"type": "tool_result", "tool_use_id": id, "content": content}


@STREAM_OR_BODY
async def test_hidden_rounds_are_put_back_before_the_turn_that_goes_on(stream: bool) -> None:
    talk = Conversation(stream)
    await talk.ask(
        {"reasoning": "One.", "text": "First. ", "calls": [DROP]},
        {"reasoning": "Two.", "text": "Then.", "calls": [DROP | {"id": "t_again"}, GET]},
    )
    assert [b["type"] for b in talk.content] == ["thinking", "text", "thinking", "text", "tool_use"]
    sent = await talk.asked([result("t_get"), {"type": "text", "text": "Well?"}])
    assert kinds(sent) == [
        ("user", "go"),
        ("assistant", ["thinking", "text", "tool_use"]),
        ("user", ["tool_result"]),
        ("assistant", ["thinking", "text", "tool_use", "tool_use"]),
        ("user", ["tool_result", "tool_result", "text"]),
    ]
    assert [b["tool_use_id"] for b in sent[4]["content"][:2]] == ["t_again", "t_get"]
    assert [b.get("id") for b in sent[3]["content"][2:]] == ["t_again", "t_get"]
    assert sent[1]["content"][0] == talk.messages[1]["content"][0], "what is signed is untouched"
    assert sent[2]["content"][0]["is_error"] is True


@STREAM_OR_BODY
async def test_an_answer_whose_thinking_is_signed_comes_back_as_it_happened(stream: bool) -> None:
    talk = Conversation(stream)
    await talk.ask({"reasoning": "One.", "calls": [DROP]}, {"reasoning": "Two.", "text": "No."})
    sent = await talk.asked("And now?")
    assert kinds(sent)[1:4] == [
        ("assistant", ["thinking", "tool_use"]),
        ("user", ["tool_result"]),
        ("assistant", ["thinking", "text"]),
    ]


@STREAM_OR_BODY
async def test_an_answer_without_thinking_stays_as_the_client_has_it(stream: bool) -> None:
    talk = Conversation(stream)
    await talk.ask({"text": "Hm. ", "calls": [DROP]}, {"text": "No."})
    assert kinds(await talk.asked("And now?"))[1] == ("assistant", ["text", "text"])


@STREAM_OR_BODY
async def test_texts_that_a_client_put_together_are_not_said_twice(stream: bool) -> None:
    talk = Conversation(stream)
    await talk.ask({"text": "First. ", "calls": [DROP]}, {"text": "Then.", "calls": [GET]})
    talk.messages[1]["content"] = [{"type": "text", "text": "First. Then."}, talk.content[-1]]
    sent = await talk.asked([result("t_get")])
    assert [b.get("text") for m in (sent[1], sent[3]) for b in m["content"] if b["type"] == "text"] == [
        "First. ",
        "Then.",
    ]


async def test_nothing_is_put_back_for_another() -> None:
    for other in ({"principal": "bob"}, {}):
        talk = Conversation(True)
        await talk.ask({"calls": [DROP, GET]})
        if not other:  # another conversation, in which a local server uses the same id
            talk.messages[0] = {"role": "user", "content": "something else"}
        sent = await talk.asked([result("t_get")], **other)
        assert kinds(sent)[1:] == [("assistant", ["tool_use"]), ("user", ["tool_result"])]


async def test_results_that_are_owed_follow_their_calls_even_where_no_message_does() -> None:
    talk = Conversation(True)
    await talk.ask({"calls": [DROP, GET]})
    sent = CODEC.restore(
        CODEC.read(orjson.dumps({"model": "m", "messages": talk.messages})), await _kept(talk)
    ).body["messages"]
    assert kinds(sent)[1:] == [("assistant", ["tool_use", "tool_use"]), ("user", ["tool_result"])]


async def _kept(talk: Conversation) -> dict[str, bytes]:
    (key,) = await talk.world.store.keys("settled:")
    value = await talk.world.store.get(key)
    assert value is not None
    return {"t_get": value}


# -- people


@STREAM_OR_BODY
async def test_a_held_turn_is_released_with_its_thinking(stream: bool) -> None:
    talk = Conversation(stream)
    await talk.ask({"reasoning": "Pay.", "text": "I would pay. ", "calls": [PAY]})
    assert talk.answer.first.calls == []
    assert "Confirmation needed" in talk.answer.first.text
    assert talk.answer.first.finish == "stop"
    outcome = await talk.ask(FINE, says="yes")
    assert not outcome.upstream.asks, "what was approved is released, not asked for again"
    assert [b["type"] for b in talk.content] == ["thinking", "tool_use"]
    assert talk.content[0] == talk.messages[1]["content"][0]
    (call,) = talk.answer.first.calls
    assert call == {"id": "t_pay", "name": "pay", "arguments": '{"eur":5}'}
    assert talk.answer.first.finish == "tool_calls"


@STREAM_OR_BODY
async def test_a_declined_turn_is_settled_and_the_model_goes_on(stream: bool) -> None:
    talk = Conversation(stream)
    await talk.ask({"reasoning": "Pay.", "calls": [PAY]})
    outcome = await talk.ask(FINE, {"text": "?"}, {"text": "As you like."}, says="no")
    sent = orjson.loads(outcome.upstream.asks[0].body)["messages"]
    assert kinds(sent)[-2:] == [("assistant", ["thinking", "tool_use"]), ("user", ["tool_result"])]
    assert "declined" in sent[-1]["content"][0]["content"]
    assert talk.answer.first.text == "As you like."


@STREAM_OR_BODY
async def test_a_held_turn_after_hidden_rounds_comes_back_once(stream: bool) -> None:
    talk = Conversation(stream)
    await talk.ask({"reasoning": "One.", "calls": [DROP]}, {"reasoning": "Two.", "calls": [PAY]})
    await talk.ask(FINE, says="yes")
    assert [call["id"] for call in talk.answer.first.calls] == ["t_pay"]
    sent = await talk.asked([result("t_pay", "paid")])
    calls = [b["id"] for m in sent if isinstance(m["content"], list) for b in m["content"] if "input" in b]
    assert calls.count("t_pay") == 1


# -- the encoder


def _turn(data: bytes, encoder: Any) -> tuple[bytes, Turn]:
    decoder = CODEC.decoder(True, Caps())
    said = b"".join(encoder.passage(passage) for passage in decoder.feed(data))
    return said, decoder.close()[1]


THINKING = block(
    0,
    {"type": "thinking", "thinking": "", "signature": ""},
    [{"type": "thinking_delta", "thinking": "Hm."}, {"type": "signature_delta", "signature": "Eq=="}],
)
CALL = {"call": {"index": 1, "id": "t1", "name": "pay", "deltas": ['{"eur":5}']}}


def test_thinking_that_the_client_has_is_not_said_again_when_the_turn_is_released_at_once() -> None:
    encoder = CODEC.encoder(True)
    held, turn = _turn(
        written(["start", *({"wire": w} for w in THINKING), CALL, {"end": "tool_use"}]), encoder
    )
    again, replayed = _turn(CODEC.replay(CODEC.hold(turn), True), encoder)
    data = held + again + encoder.release(replayed, ['{"eur":5}'], {})
    assert [b["type"] for b in content_of(data, True)] == ["thinking", "tool_use"]
    assert read(data, True).first.calls == [{"id": "t1", "name": "pay", "arguments": '{"eur":5}'}]


def test_the_proxys_own_line_is_a_block_of_its_own_and_moves_the_others_on() -> None:
    encoder = CODEC.encoder(True)
    assert encoder.status("Too early.") == b""
    said, turn = _turn(written(["start", {"text": [0, "Hi."]}, CALL, {"end": "tool_use"}]), encoder)
    data = said + encoder.status(" Paying.") + encoder.release(turn, ['{"eur":5}'], {})
    answer = read(data, True)
    assert answer.first.text == "Hi. Paying."
    assert [call["id"] for call in answer.first.calls] == ["t1"]


def test_the_proxys_own_line_goes_into_a_text_that_is_open() -> None:
    encoder = CODEC.encoder(True)
    open_text = written(["start", {"text": [0, "Hi."]}]).rpartition(b"event: content_block_stop")[0]
    said = b"".join(encoder.passage(p) for p in CODEC.decoder(True, Caps()).feed(open_text))
    stop = written([{"wire": {"type": "content_block_stop", "index": 0}}])
    assert said + encoder.status(" Soon.") + stop == open_text + encoder.status(" Soon.") + stop
    assert b'"text":" Soon."' in encoder.status(" Soon.")


def test_later_rounds_are_counted_at_the_end_where_alone_they_can_be() -> None:
    encoder = CODEC.encoder(True)
    first, turn = _turn(written(["start", CALL, {"end": "tool_use"}]), encoder)
    data = first + encoder.settle(turn)
    second, last = _turn(written(["start", {"text": [0, "No."]}, {"end": "end_turn"}]), encoder)
    answer = read(data + second + encoder.release(last, [], {}), True)
    assert answer.usage == {"input_tokens": 40, "cache_read_input_tokens": 10, "output_tokens": 18}
    assert answer.ids == {START["message"]["id"]}


def test_blocks_go_back_as_they_were_built() -> None:
    citation = {"type": "char_location", "start_char_index": 0}
    parts = [
        block(
            0,
            {"type": "text", "text": "", "citations": []},
            [
                {"type": "citations_delta", "citation": citation},
                *({"type": "text_delta", "text": piece} for piece in ("He", "y \ud83d", "\ude00")),
            ],
        ),
        block(
            1,
            {"type": "compaction", "content": None},
            [{"type": "compaction_delta", "content": "Sum", "encrypted_content": None}],
        ),
        block(
            2,
            {"type": "connector_text", "connector_text": ""},
            [{"type": "connector_text_delta", "connector_text": piece} for piece in "ab"],
        ),
        block(
            3,
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
            [{"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"q":', "1}")],
        ),
        block(4, {"type": "text", "text": ""}, []),
    ]
    data = b"".join(
        b"event: " + wire["type"].encode() + b"\ndata: " + json.dumps(wire).encode() + b"\n\n"
        for part in parts
        for wire in part
        if isinstance(wire, dict)
    )
    _, turn = _turn(written(["start"]) + data + written([{"end": "end_turn"}]), CODEC.encoder(True))
    assert turn.text == "Hey 😀"
    assert turn.wire.content() == [
        {"type": "text", "text": "Hey 😀", "citations": [citation]},
        {"type": "compaction", "content": "Sum", "encrypted_content": None},
        {"type": "connector_text", "connector_text": "ab"},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"q": 1}},
    ]


def test_a_body_that_is_written_anew_has_no_empty_text() -> None:
    decoder, encoder = CODEC.decoder(False, Caps()), CODEC.encoder(False)
    content = [{"type": "text", "text": ""}, {"type": "tool_use", "id": "t", "name": "drop", "input": {}}]
    decoder.feed(orjson.dumps(START["message"] | {"content": content, "stop_reason": "tool_use"}))
    data = encoder.release(decoder.close()[1], [None], {0: "Refused."})
    assert orjson.loads(data)["content"] == [{"type": "text", "text": "Refused."}]


def test_a_held_turn_is_bounded() -> None:
    decoder = CODEC.decoder(True, Caps(max_held_bytes=200))
    decoder.feed(written(["start", CALL, CALL, {"end": "tool_use"}]))
    with pytest.raises(ValueError, match="max_held_bytes"):
        decoder.close()


def test_calls_are_bounded() -> None:
    decoder = CODEC.decoder(True, Caps(max_calls=1))
    decoder.feed(written(["start", CALL, CALL, {"end": "tool_use"}]))
    with pytest.raises(ValueError, match="more than 1 calls"):
        decoder.close()
