"""Pages, cursors and queries by themselves: whatever is hidden, however the bytes come."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.http.stored.items import shown
from proxy.http.stored.lists import page
from proxy.http.stored.query import Query
from proxy.http.stored.reading import Answer, NotGiven
from proxy.http.stored.resuming import Resumed
from proxy.model import History, PastCall, ToolCall
from proxy.verdicts import Effect
from proxy.wire.chat import stored as chat_stored
from proxy.wire.codec import ALL, BadRequest, Caps, Remembered, mark
from proxy.wire.responses.events import event
from proxy.wire.responses.noting import own_words

Json = dict[str, Any]


class Listing:
    """A provider's list, in pages of its own, that is asked as a ``Reading`` asks it."""

    def __init__(self, hidden: Sequence[bool], size: int) -> None:
        self.members = [{"id": f"m_{n}", "hidden": is_hidden} for n, is_hidden in enumerate(hidden)]
        self.size = size

    @property
    def visible(self) -> list[str]:
        return [member["id"] for member in self.members if not member["hidden"]]

    async def fetch(self, method: str, route: str, model: str, query: str = "") -> Answer:
        asked = Query(query)
        assert asked.get("order") == "asc", "what is not ours goes on"
        after = asked.get("after")
        begin = 0 if after is None else [m["id"] for m in self.members].index(after) + 1
        members = self.members[begin : begin + self.size]
        more = begin + self.size < len(self.members)
        return Answer(200, (), orjson.dumps({"object": "list", "data": members, "has_more": more}))

    async def show(self, members: Sequence[Json]) -> Sequence[Json | None]:
        return [None if member["hidden"] else member for member in members]

    async def page(self, query: str) -> Json:
        reading: Any = self
        answer = await page(reading, "/list", "m", Query(query), self.show)
        found: Json = orjson.loads(answer.body)
        return found


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 40), st.integers(1, 7))
def test_pages_hold_all_that_is_visible_and_nothing_else(hidden: list[bool], limit: int, size: int) -> None:
    async def walk() -> None:
        listing = Listing(hidden, size)
        found: list[str] = []
        cursor = ""
        while True:
            got = await listing.page(f"order=asc&limit={limit}{cursor}")
            ids = [member["id"] for member in got["data"]]
            assert (got["first_id"], got["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
            assert len(ids) == limit or not got["has_more"]
            found += ids
            assert got["has_more"] == (len(found) < len(listing.visible))
            if not got["has_more"]:
                break
            cursor = f"&after={ids[-1]}"
        assert found == listing.visible
        for member in listing.members:
            if member["hidden"]:
                with pytest.raises(NotGiven):
                    await listing.page(f"order=asc&after={member['id']}")

    asyncio.run(walk())


@given(st.data(), st.integers(-1, 12))
def test_the_rest_of_a_stream_is_the_same_however_it_comes(data: st.DataObject, after: int) -> None:
    numbered = [event({"type": "x", "sequence_number": number}) for number in range(10)]
    whole = b": hi\n\n" + b"".join(numbered) + b"data: [DONE]\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    sent: list[bytes] = []

    async def send(piece: bytes) -> None:
        sent.append(piece)

    async def run() -> None:
        down = SimpleNamespace(holding=True, send=send)
        reading: Any = SimpleNamespace(
            core=SimpleNamespace(caps=Caps()), asked=SimpleNamespace(downstream=down)
        )
        resumed = Resumed(reading, after)
        for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
            await resumed.send(whole[begin:end])
        assert not down.holding

    asyncio.run(run())
    head = b": hi\n\n" if after < 0 else b""
    tail = b"data: [DONE]\n\n" if after < 10 else b""
    assert b"".join(sent) == head + b"".join(numbered[after + 1 :]) + tail


def test_an_event_without_a_number_follows_the_one_before() -> None:
    sent: list[bytes] = []

    async def send(piece: bytes) -> None:
        sent.append(piece)

    async def run() -> None:
        reading: Any = SimpleNamespace(
            core=SimpleNamespace(caps=Caps()),
            asked=SimpleNamespace(downstream=SimpleNamespace(send=send, holding=False)),
        )
        resumed = Resumed(reading, 1)
        for name in "abcd":
            await resumed.send(event({"type": name}))

    asyncio.run(run())
    assert b"".join(sent) == event({"type": "c"}) + event({"type": "d"})


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("", ""),
        ("stream=true", ""),
        ("a=1&stream=true&b=%20+", "a=1&b=%20+"),
        ("%73tream=true&a", "a"),
        ("include[]=x&stream=false&include[]=y", "include[]=x&include[]=y"),
    ],
)
def test_what_is_not_taken_out_of_a_query_stays_as_it_is(text: str, left: str) -> None:
    assert Query(text).without("stream").text == left


@pytest.mark.parametrize("text", ["limit=0", "limit=101", "limit=x", "limit=1&limit=2", "limit=", "before=a"])
def test_a_page_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        Query(text).page()


# -- items, whatever they are

GIVEN = ToolCall.parse("call_given", "get_user", '{"id":7}')
HIDDEN = ToolCall.parse("call_hidden", "drop_table", '{"id":7}')
KNOWN = Remembered(
    model="m",
    given=frozenset({mark(GIVEN), mark(HIDDEN)}),
    unseen=frozenset({mark(HIDDEN)}),
    hidden=frozenset({"call_hidden", own_words("Answer now.")}),
    history=History((PastCall("call_given", "get_user", '{"id":7}', None, 1),)),
)
IDS = st.sampled_from(["call_given", "call_hidden", "call_new", "", None, 7])
TYPES = st.sampled_from(
    [
        *("function_call", "custom_tool_call", "shell_call", "computer_call", "magic_call"),
        *("function_call_output", "local_shell_call_output", "mcp_approval_response"),
        *("mcp_approval_request", "message", "reasoning", 7),
    ]
)
ITEMS = st.fixed_dictionaries(
    {"id": st.sampled_from(["x_1", "call_given", "call_hidden"])},
    optional={
        "type": TYPES,
        "call_id": IDS,
        "approval_request_id": IDS,
        "name": st.sampled_from(["get_user", "drop_table", "parallel", "", None]),
        "namespace": st.sampled_from([None, "crm"]),
        "arguments": st.sampled_from(['{"id":7}', '{"id":8}', '{"id":7,"id":7}', "{", "", None, {"id": 7}]),
        "input": st.just("x"),
        "action": st.just({"command": ["rm"]}),
        "output": st.just("told"),
        "role": st.sampled_from(["user", "assistant", "developer", "system"]),
        "content": st.sampled_from(["Answer now.", [{"type": "input_text", "text": "Answer now."}], None]),
    },
)


class Denying:
    """A ``Reading`` whose pipeline allows nothing that is not known."""

    def situation(self, known: Remembered, body: Json) -> None:
        return None

    async def judge(self, calls: Sequence[ToolCall], known: Remembered, situation: None) -> Any:
        refused = SimpleNamespace(effect=Effect.SETTLE)
        return {at: refused for at, call in enumerate(calls) if known.arguments(call) is None}


def test_a_hidden_command_does_not_pass_for_one_that_the_provider_ran() -> None:
    """Its result, which would tell so, is the proxy's own."""
    call = {"id": "x_1", "type": "shell_call", "call_id": "call_hidden", "action": {"commands": ["rm"]}}
    call["environment"] = {"type": "container_reference"}
    result = {"id": "x_2", "type": "shell_call_output", "call_id": "call_hidden", "output": []}
    reading: Any = Denying()
    assert asyncio.run(shown(reading, KNOWN, [call, result])) == [None, None]
    new = [call | {"call_id": "call_new"}, result | {"call_id": "call_new"}]
    assert asyncio.run(shown(reading, KNOWN, new)) == new
    forgotten = dataclasses.replace(KNOWN, hidden=frozenset({ALL}))
    assert asyncio.run(shown(reading, forgotten, new)) == [None, None]


OWN_WORDS_ON_A_CALL: Json = {
    **{"id": "x_1", "type": "function_call", "role": "developer", "content": "Answer now."},
    **{"call_id": "call_given", "name": "get_user", "arguments": '{"id":7}'},
}


@settings(max_examples=300)
@example([OWN_WORDS_ON_A_CALL, {"id": "x_2", "type": "function_call"}])
@given(st.lists(ITEMS, max_size=6))
def test_no_item_gives_away_what_was_not_given(members: list[Json]) -> None:
    reading: Any = Denying()
    found = asyncio.run(shown(reading, KNOWN, members))
    assert len(found) == len(members)
    for member, item in zip(members, found, strict=True):
        if item is None:
            continue
        kind = item["type"]
        written = {"arguments": '{"id":7}'} if kind == "function_call" else {}
        assert item == {"type": kind, **member, **written}
        if kind == "function_call":
            said = (item.get("call_id"), item.get("name"), item.get("arguments"), item.get("namespace"))
            assert said == ("call_given", "get_user", '{"id":7}', None)
        elif kind == "magic_call":
            # What says neither whose it is nor what to run asks for nothing.
            assert [item.get(key) for key in ("call_id", "arguments", "input", "action")] == [None] * 4
        else:
            assert kind in ("message", "reasoning", "mcp_approval_response") or kind.endswith("_output")
        if kind == "mcp_approval_response":
            assert item["approval_request_id"] == "call_given"
        elif kind.endswith("_output"):
            assert "call_given" in (item.get("call_id"), item["id"])
            assert "call_hidden" not in (item.get("call_id"), item.get("call_id") or item["id"])
        if item.get("role") in ("developer", "system"):
            assert "Answer now." not in str(item.get("content"))


CALLS = st.fixed_dictionaries(
    {},
    optional={
        "id": IDS,
        "type": st.sampled_from(["function", "custom", 7]),
        "function": st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["get_user", "drop_table", None]),
                "arguments": st.sampled_from(['{"id":7}', '{"id":8}', None, {"id": 7}]),
            },
        ),
    },
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system", "developer", "function", None])},
    optional={
        "content": st.sampled_from(
            ["Answer now.", "Hello.", [{"type": "text", "text": "Answer now."}], None]
        ),
        "tool_call_id": IDS,
        "tool_calls": st.one_of(st.none(), st.lists(CALLS, max_size=3), st.just("x"), st.just([7])),
        "function_call": st.one_of(
            st.none(), st.just({"name": "drop_table", "arguments": "{}"}), st.just("x")
        ),
    },
)


@settings(max_examples=300)
@given(MESSAGES)
def test_no_message_gives_away_what_was_not_given(message: Json) -> None:
    found = chat_stored.shown(message, KNOWN)
    if found is None:
        return
    for call in found.get("tool_calls") or ():
        assert call["id"] == "call_given"
        assert call["function"] == {"name": "get_user", "arguments": '{"id":7}'}
    assert not found.get("function_call")
    if message["role"] == "tool":
        assert message.get("tool_call_id") != "call_hidden"
    if message["role"] in ("system", "developer"):
        assert "Answer now." not in str(message.get("content"))
