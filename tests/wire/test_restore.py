"""What the proxy did inside earlier answers is put back into later requests, and nothing of another's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from proxy.model import ToolResult
from tests.core.harness import Outcome, World, run
from tests.core.view import read
from tests.wire.answers import CODEC, Read, call, calls, chunk, stream, whole

Json = dict[str, Any]
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("drop", "go", "look")
]
POLICY = {"drop": {"effect": "deny", "reasons": ["Not for you."]}}
USER = {"role": "user", "content": "Do it."}
GO = {"name": "go", "arguments": {"a": 1, "b": "é"}, "id": "call_go"}
LOOK = {"name": "look", "arguments": {"at": 1}, "id": "call_look"}
DROP = {"name": "drop", "arguments": {"table": "t"}, "id": "call_drop"}
STREAM_OR_BODY = pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "body"])


def wire(given: Mapping[str, Any], arguments: str | None = None) -> Json:
    """A call as a client sends it back."""
    text = json.dumps(given["arguments"], ensure_ascii=False, separators=(",", ":"))
    return {
        "id": given["id"],
        "type": "function",
        "function": {"name": given["name"], "arguments": text if arguments is None else arguments},
    }


def result(given: Mapping[str, Any]) -> Json:
    return {"role": "tool", "tool_call_id": given["id"], "content": "done"}


def assistant(*given: Mapping[str, Any], content: str | None = None) -> Json:
    return {"role": "assistant", "content": content, "tool_calls": [wire(one) for one in given]}


class Conversation:
    """Requests of one world, one after the other."""

    def __init__(self, is_stream: bool = True) -> None:
        self.world, self.is_stream = World(), is_stream
        self.messages: list[Json] = [USER]

    async def ask(
        self, turns: Sequence[Json], messages: Sequence[Json] | None = None, principal: str = "ann"
    ) -> Outcome:
        body = {
            "model": "scripted",
            "messages": list(self.messages if messages is None else messages),
            "tools": TOOLS,
            "stream": self.is_stream,
        }
        case = {"policy": POLICY, "upstream": list(turns), "principal": {"id": principal}}
        return await run(case, self.is_stream, world=self.world, body=body)

    async def asked(self, messages: Sequence[Json], principal: str = "ann") -> list[Json]:
        """What the provider is asked with where a client sends these messages."""
        outcome = await self.ask([{"text": "Fine."}], messages, principal)
        self.restored = outcome.exchange.restored
        sent: list[Json] = json.loads(outcome.upstream.asks[0].body)["messages"]
        return sent

    async def mixed(self, *calls: Mapping[str, Any]) -> list[Json]:
        """A mixed turn, and the history with which a client comes back."""
        outcome = await self.ask([{"calls": [dict(one) for one in calls]}])
        found = read(outcome.client.data, self.is_stream).first
        assert [one["id"] for one in found.calls] == [one["id"] for one in calls if one["name"] != "drop"]
        going = [one for one in calls if one["name"] != "drop"]
        return [*self.messages, assistant(*going), *map(result, going)]


def ids(message: Json) -> list[str]:
    return [one["id"] for one in message.get("tool_calls", [])]


@STREAM_OR_BODY
async def test_a_settled_call_stands_beside_the_one_that_ran(is_stream: bool) -> None:
    talk = Conversation(is_stream)
    history = await talk.mixed(DROP, GO)
    user, turn, denied, done = await talk.asked(history)
    assert user == USER
    assert turn["tool_calls"] == [wire(DROP), wire(GO)]
    assert turn["content"] is None
    assert (denied["role"], denied["tool_call_id"]) == ("tool", "call_drop")
    assert "Not for you." in denied["content"]
    assert done == result(GO)
    assert talk.restored == 1


async def test_the_models_own_order_is_kept() -> None:
    talk = Conversation()
    history = await talk.mixed(GO, DROP, LOOK)
    _, turn, denied, *done = await talk.asked(history)
    assert ids(turn) == ["call_go", "call_drop", "call_look"]
    assert [one["tool_call_id"] for one in (denied, *done)] == ["call_drop", "call_go", "call_look"]


@STREAM_OR_BODY
async def test_hidden_rounds_before_a_forwarded_turn_are_put_back(is_stream: bool) -> None:
    talk = Conversation(is_stream)
    turns = [{"text": "First. ", "reasoning": "r", "calls": [DROP]}, {"text": "Second.", "calls": [GO]}]
    outcome = await talk.ask(turns)
    text = read(outcome.client.data, is_stream).first.text
    assert text == "First. Second."
    history = [USER, assistant(GO, content=text), result(GO)]
    _, hidden, denied, turn, done = await talk.asked(history)
    assert ids(hidden) == ["call_drop"]
    # The text of all rounds stands in the client's own message.
    assert (hidden["content"], hidden["reasoning_content"]) == (None, "r")
    assert denied["tool_call_id"] == "call_drop"
    assert (turn, done) == (history[1], history[2])


async def test_what_was_put_back_keeps_the_prefix_of_the_next_request() -> None:
    talk = Conversation()
    history = await talk.mixed(DROP, GO)
    first = await talk.asked(history)
    again = await talk.asked([*history, {"role": "assistant", "content": "Fine."}, USER])
    assert again[: len(first)] == first


async def test_a_client_that_dropped_a_forwarded_call() -> None:
    talk = Conversation()
    await talk.mixed(GO, DROP, LOOK)
    _, turn, denied, done = await talk.asked([USER, assistant(LOOK), result(LOOK)])
    assert ids(turn) == ["call_drop", "call_look"]
    assert (denied["tool_call_id"], done["tool_call_id"]) == ("call_drop", "call_look")


async def test_a_client_that_put_another_call_into_the_message() -> None:
    talk = Conversation()
    await talk.mixed(DROP, GO)
    other = {**LOOK, "id": "call_other"}
    _, turn, _, *done = await talk.asked([USER, assistant(GO, other), result(GO), result(other)])
    assert ids(turn) == ["call_drop", "call_go", "call_other"]
    assert [one["tool_call_id"] for one in done] == ["call_go", "call_other"]


@pytest.mark.parametrize("arguments", ['{"b": "\\u00e9", "a": 1}', '{ "a": 1,\n "b": "é" }', "not JSON"])
async def test_the_call_stands_as_the_client_wrote_it(arguments: str) -> None:
    talk = Conversation()
    await talk.mixed(DROP, GO)
    mine = {"role": "assistant", "content": "", "tool_calls": [wire(GO, arguments)], "name": "x"}
    _, turn, *_ = await talk.asked([USER, mine, result(GO)])
    assert turn == {**mine, "tool_calls": [wire(DROP), wire(GO, arguments)]}


LEFT_ALONE: dict[str, list[Json]] = {
    "another tool under the id": [assistant({**LOOK, "id": "call_go"}), result(GO)],
    "one of two names differs": [assistant(GO, {**GO, "id": "call_look"}), result(GO), result(LOOK)],
    "a call without a body": [
        {"role": "assistant", "tool_calls": [{"id": "call_go", "type": "function"}]},
        result(GO),
    ],
    "a body that is text": [
        {"role": "assistant", "tool_calls": [{"id": "call_go", "function": "go"}]},
        result(GO),
    ],
    "the id twice": [assistant(GO, GO), result(GO)],
    "two calls without an id beside it": [
        {"role": "assistant", "tool_calls": [wire(GO), {"function": {}}, {"function": {}}]},
        result(GO),
    ],
    "the settled call is there already": [assistant(DROP, GO), result(DROP), result(GO)],
    "ids that are no text": [
        {"role": "assistant", "tool_calls": [{"id": {"call_go": 1}}, {"id": ["call_go"]}]},
        result(GO),
    ],
    "only the result": [result(GO)],
    "an empty list": [{"role": "assistant", "tool_calls": []}, result(GO)],
}


@pytest.mark.parametrize("later", LEFT_ALONE.values(), ids=LEFT_ALONE)
async def test_where_the_messages_do_not_fit_they_are_left_alone(later: list[Json]) -> None:
    talk = Conversation()
    await talk.mixed(GO, DROP, LOOK)
    assert await talk.asked([USER, *later]) == [USER, *later]


@pytest.mark.parametrize("who", ["bob", "ANN", ""])
async def test_nothing_of_another_principal_is_put_back(who: str) -> None:
    talk = Conversation()
    history = await talk.mixed(DROP, GO)
    assert await talk.asked(history, principal=who) == history
    assert len(await talk.asked(history)) == len(history) + 1


async def test_nothing_of_another_conversation_is_put_back() -> None:
    talk = Conversation()
    _, *rest = await talk.mixed(DROP, GO)
    other = [{"role": "user", "content": "Something else."}, *rest]
    assert await talk.asked(other) == other


async def test_of_two_turns_with_the_same_ids_the_arguments_tell_which() -> None:
    talk = Conversation()
    history = await talk.mixed(DROP, GO)
    later = {**GO, "arguments": {"a": 2}}
    both = [*history, assistant(later), result(GO)]
    sent = await talk.asked(both)
    assert [ids(message) for message in sent if "tool_calls" in message] == [
        ["call_drop", "call_go"],
        ["call_go"],
    ]
    # The other way round: what was settled later does not go back to the earlier turn.
    talk = Conversation()
    earlier = [USER, assistant(later), result(GO)]
    talk.messages = earlier
    history = await talk.mixed({**DROP, "id": "call_2"}, GO)
    sent = await talk.asked(history)
    assert [ids(message) for message in sent if "tool_calls" in message] == [
        ["call_go"],
        ["call_2", "call_go"],
    ]


async def test_of_two_turns_that_are_alike_the_latest_is_meant() -> None:
    talk = Conversation()
    talk.messages = [USER, assistant(GO), result(GO)]
    sent = await talk.asked(await talk.mixed(DROP, GO))
    assert [ids(message) for message in sent if "tool_calls" in message] == [
        ["call_go"],
        ["call_drop", "call_go"],
    ]


async def test_where_two_turns_share_an_id_and_neither_has_the_arguments_none_is_meant() -> None:
    talk = Conversation()
    await talk.mixed(DROP, GO)
    other = [assistant({**GO, "arguments": {"a": n}}) for n in (5, 6)]
    history = [USER, other[0], result(GO), other[1], result(GO)]
    assert await talk.asked(history) == history


async def test_a_call_that_was_changed_on_its_way_still_finds_its_turn() -> None:
    talk = Conversation()
    case = {
        "policy": {**POLICY, "go": {"effect": "allow", "obligations": {"arguments": {"a": 9}}}},
        "upstream": [{"calls": [DROP, GO]}],
    }
    body = {"model": "scripted", "messages": [USER], "tools": TOOLS, "stream": True}
    outcome = await run(case, True, world=talk.world, body=body)
    (changed,) = read(outcome.client.data, True).first.calls
    assert changed["arguments"] == '{"a":9}'
    mine = assistant({**GO, "arguments": {"a": 9}})
    _, turn, *_ = await talk.asked([USER, mine, result(GO)])
    assert turn["tool_calls"] == [wire(DROP), mine["tool_calls"][0]]


async def test_a_custom_call_finds_its_turn() -> None:
    talk = Conversation()
    tools = [*TOOLS, {"type": "custom", "custom": {"name": "sql"}}]
    case = {
        "policy": POLICY,
        "upstream": [
            {"calls": [DROP, {"name": "sql", "kind": "custom", "input": "SELECT 1", "id": "call_sql"}]}
        ],
    }
    body = {"model": "scripted", "messages": [USER], "tools": tools, "stream": True}
    await run(case, True, world=talk.world, body=body)
    mine = {"id": "call_sql", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    done = {"role": "tool", "tool_call_id": "call_sql", "content": "1"}
    twice = [USER, {"role": "assistant", "tool_calls": [mine]}, done]
    _, turn, _, _ = await talk.asked(twice)
    assert turn["tool_calls"] == [wire(DROP), mine]
    twice += [
        {"role": "assistant", "tool_calls": [{**mine, "custom": {"name": "sql", "input": "SELECT 2"}}]},
        done,
    ]
    sent = await talk.asked(twice)
    assert [len(ids(message)) for message in sent if "tool_calls" in message] == [2, 1]


# -- at the codec ---------------------------------------------------------------------------------


def turn_of(data: bytes) -> Any:
    return Read(data).turn


def test_a_turn_without_anything_hidden_leaves_nothing_to_keep() -> None:
    request = CODEC.read(json.dumps({"model": "m", "messages": [USER]}).encode())
    turn = turn_of(whole(call()))
    assert CODEC.settlement(request, [], turn, []) is None
    text = turn_of(stream(chunk({"content": "x"}, "stop")))
    assert CODEC.settlement(request, [(turn, [ToolResult("call_1", "{}")])], text, []) is None
    assert CODEC.settlement(request, [], turn, [ToolResult("call_1", "{}")]) is None


def test_a_legacy_call_has_no_name_to_be_known_by() -> None:
    request = CODEC.read(json.dumps({"model": "m", "messages": [USER]}).encode())
    hidden = turn_of(whole(call()))
    data = stream(chunk({"function_call": {"name": "f", "arguments": "{}"}}), chunk(finish="function_call"))
    assert CODEC.settlement(request, [(hidden, [ToolResult("call_1", "{}")])], turn_of(data), []) is None


def test_lone_halves_do_not_keep_a_settlement_from_being_read_again() -> None:
    messages = [USER, assistant({**GO, "id": "call_2"}), result({"id": "call_2"})]
    request = CODEC.read(json.dumps({"model": "m", "messages": messages}).encode())
    data = stream(
        chunk({"reasoning_details": [{"text": "\ud83d"}], **calls(call('{"a":"\ud83d"}', "drop"))}),
        chunk(finish="tool_calls"),
    )
    last = turn_of(whole(call(wire(GO)["function"]["arguments"], "go", "call_2")))
    kept = CODEC.settlement(request, [(turn_of(data), [ToolResult("call_1", "no")])], last, [])
    assert kept is not None
    again = CODEC.restore(request, {"call_2": kept.kept})
    sent = json.loads(again.raw.decode())["messages"]
    assert sent[1]["reasoning_details"] == [{"text": "\ufffd"}]
    assert sent[1]["tool_calls"][0]["function"]["arguments"] == '{"a":"\ufffd"}'
    assert sent[-2:] == messages[-2:]


def test_two_settlements_of_one_request_each_find_their_turn() -> None:
    request = CODEC.read(json.dumps({"model": "m", "messages": [USER]}).encode())
    kept = {}
    messages = [USER]
    for n in (1, 2):
        going = {**GO, "id": f"go_{n}"}
        turn = turn_of(
            whole(
                call("{}", "drop", f"drop_{n}"),
                call(wire(going)["function"]["arguments"], "go", going["id"], 1),
            )
        )
        one = CODEC.settlement(request, [], turn, [ToolResult(f"drop_{n}", f"no {n}")])
        assert one is not None
        assert one.handles == (f"go_{n}",)
        kept[f"go_{n}"] = one.kept
        messages += [assistant(going), result(going)]
    later = CODEC.read(json.dumps({"model": "m", "messages": messages}).encode())
    assert list(later.handles) == ["go_1", "go_2"]
    restored = CODEC.restore(later, kept).body["messages"]
    assert [ids(m) or m.get("tool_call_id") for m in restored[1:]] == [
        ["drop_1", "go_1"],
        "drop_1",
        "go_1",
        ["drop_2", "go_2"],
        "drop_2",
        "go_2",
    ]
