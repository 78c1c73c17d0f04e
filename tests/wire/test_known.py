"""Tools that came before: whatever is remembered of them, every request comes out as if nothing were."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model import Fault, HostedTool, OfferedTool, Request, loads
from proxy.wire.chat import ChatCodec
from proxy.wire.codec import BadRequest
from proxy.wire.known import KnownTools, ToolsMemo, left_of, worked_out
from proxy.wire.messages import MessagesCodec
from proxy.wire.redefining import Redefinition
from proxy.wire.responses import ResponsesCodec
from tests.core.protocols import PROTOCOLS, check_memo

Json = dict[str, Any]
EVERY_API = pytest.mark.parametrize("protocol", PROTOCOLS)
CODECS: dict[str, Callable[..., Any]] = {
    "chat": ChatCodec,
    "messages": MessagesCodec,
    "responses": lambda memo: ResponsesCodec(memo=memo),
}
NAMES = ("get_user", "drop", "send_a_message", "é")


def compact(value: Any) -> bytes:
    return orjson.dumps(value)


def tool(name: str = "get_user", note: str = "") -> Json:
    """Long enough to be looked for by its bytes."""
    said = f"A tool of the application's that is told apart from others by its bytes. {note}"
    return {"type": "function", "function": {"name": name, "description": said, "parameters": {}}}


# -- what is read --------------------------------------------------------------------------------

ARRAY = compact([tool()])
OTHER = compact([tool("drop")])
PIECES = (
    *(b'"tools":' + ARRAY, b'"tools":' + OTHER, b'"tools":null', b'"tools":[]', b'"tools":', ARRAY),
    *(b'"t\\u006fols":' + ARRAY, b'"\\"tools":' + ARRAY, b'"x":{"tools":' + ARRAY + b"}"),
    *(
        b'"x":"\\"tools\\":"',
        b'"x":' + compact(b'"tools":'.decode() + ARRAY.decode()),
        b'"x":[' + ARRAY + b"]",
    ),
    *(b'"a":1', b'"a":1.0', b'"a":1e2', b'"a":"\\u00e9"', b'"\xc3\xa9":18446744073709551616', b'"a":NaN'),
    *(b'"a":"\\ud83d"', b'"tools": ' + ARRAY, b'"tools":[' + ARRAY + b"]", b'"tools":' + ARRAY[:-1]),
)


@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=5), frame=st.sampled_from(["{%}", "[%]", "%", "{%}}"])
)
@settings(max_examples=600, deadline=None)
def test_what_is_read_with_known_tools_is_what_the_strict_reading_reads(
    pieces: list[bytes], frame: str
) -> None:
    memo = remembering([tool()], [tool("drop")])
    raw = frame.encode().replace(b"%", b",".join(pieces))
    found = memo.read(raw)
    if found is None:
        return
    assert compact(found) == compact(loads(raw)) == raw
    assert list(found) == list(loads(raw))


def test_requests_with_known_tools_are_read_with_them() -> None:
    """Without this the property above would hold of a memo that knows nothing."""
    memo = remembering([tool()])
    for raw in (b'{"tools":%b}', b'{"model":"m","tools":%b,"n":1}', b'{"x":{"tools":[]},"tools":%b}'):
        found = memo.read(raw % ARRAY)
        assert found is not None
        assert found["tools"] is next(iter(memo))
    for raw in (
        b'{"tools": %b}',
        b'{"tools":%b,"tools":1}',
        b'{"tools":1,"x":{"tools":%b}}',
        b'{"x":{"tools":%b}}',
    ):
        assert memo.read(raw % ARRAY) is None


def remembering(*arrays: list[Json]) -> ToolsMemo:
    memo = ToolsMemo()
    for array in arrays:
        memo.known(array)
    return memo


def test_what_cannot_be_written_exactly_is_not_known() -> None:
    memo = ToolsMemo()
    deep: list[Any] = []
    while is_written([{**tool(), "odd": [deep]}]):
        deep = [deep]
    for odd in (2**70, deep):
        tools = [{**tool(), "odd": odd}]
        assert is_written(tools) == (odd is deep)
        assert not is_written({"tools": tools})
        assert memo.known(tools) is tools
    assert len(memo) == 0


def is_written(value: Any) -> bool:
    try:
        return bool(compact(value))
    except TypeError:
        return False


# -- what comes of it ----------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
FUNCTION = st.fixed_dictionaries(
    {"name": st.sampled_from(NAMES) | st.integers(0, 1)},
    optional={
        **dict.fromkeys(("parameters", "input_schema"), JSON),
        "description": TEXT | st.just("Words " * 20),
        "strict": st.booleans(),
    },
)
KINDS = st.sampled_from(
    ["function", "custom", "web_search", "web_search_20250305", "mcp", "bash_20250124", "computer_toolset"]
)
ENTRY = st.one_of(
    FUNCTION,
    st.builds(lambda inner: {"type": "function", "function": inner}, FUNCTION),
    st.builds(lambda inner, kind: {"type": kind, **inner}, FUNCTION, KINDS),
    st.builds(lambda inner, kind: {"type": kind, kind: inner}, FUNCTION, KINDS),
    st.builds(lambda inner: {"type": "namespace", "name": "ns", "tools": [inner]}, FUNCTION),
    st.sampled_from(
        [{"type": "mcp", "server_label": "a"}, {"type": "mcp_toolset", "mcp_server_name": "a"}, {}]
    ),
)
MORE = st.fixed_dictionaries(
    {},
    optional={
        "tool_choice": st.sampled_from(
            [
                {"type": "tool", "name": "drop"},
                {"type": "function", "function": {"name": "drop"}},
                {"type": "allowed_tools", "tools": [{"type": "function", "name": "drop"}]},
            ]
        ),
        "functions": st.lists(FUNCTION, max_size=2),
        "mcp_servers": st.just([{"name": "a", "url": "https://example.com"}]),
        "web_search_options": st.just({}),
        "metadata": st.dictionaries(st.sampled_from(["tools", "x"]), JSON, max_size=2),
        "previous_response_id": st.just("resp_1"),
    },
)
CONVERSATIONS: list[list[Json]] = [
    [{"role": "user", "content": "Do it."}],
    [{"role": "user", "content": 'He said: {"tools":[]}'}, {"role": "assistant", "content": "Yes. é"}],
    [
        {"role": "user", "content": "Do it."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "drop", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "Gone."},
    ],
]
SPELLINGS: list[Callable[[Any], bytes]] = [
    lambda body: json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(),
    lambda body: json.dumps(body, separators=(",", ":")).encode(),
    lambda body: json.dumps(body).encode(),
]
SHARED = {name: ToolsMemo() for name in CODECS}


@given(
    protocol=st.sampled_from(sorted(CODECS)),
    tools=st.lists(ENTRY, max_size=4),
    more=MORE,
    conversation=st.sampled_from(CONVERSATIONS),
    hidden=st.sets(st.sampled_from(NAMES)),
    first=st.booleans(),
    spelled=st.sampled_from(SPELLINGS),
)
@settings(max_examples=400, deadline=None)
def test_every_request_comes_out_as_without_a_memo(
    protocol: str,
    tools: list[Json],
    more: Json,
    conversation: list[Json],
    hidden: set[str],
    first: bool,
    spelled: Callable[[Any], bytes],
) -> None:
    talk = {"input" if protocol == "responses" else "messages": conversation, "model": "m", **more}
    body = {"tools": tools, **talk} if first else {**talk, "tools": tools}
    raw = spelled(body)
    fresh = CODECS[protocol](memo=NoMemo())
    remembered = CODECS[protocol](memo=SHARED[protocol])
    expected = told(fresh, raw, hidden)
    assert told(remembered, raw, hidden) == expected
    # Once more: this time they are known.
    assert told(remembered, raw, hidden) == expected


def test_what_is_shared_is_as_it_was_read() -> None:
    """Comes after the test that had everything done with it."""
    for memo in SHARED.values():
        assert len(memo) > 0
        check_memo(memo)


class NoMemo(ToolsMemo):
    """Knows nothing, so that everything is worked out of the request itself."""

    def read(self, raw: bytes) -> None:
        return None

    def known(self, tools: Sequence[Json]) -> Sequence[Json]:
        return tools


def told(codec: Any, raw: bytes, hidden: Iterable[str]) -> list[Any]:
    """All that is known of a request, and all that can be made of it."""
    try:
        request = codec.read(raw)
    except BadRequest as exc:
        return [exc.message, exc.param]
    try:
        offered = [(name, shown(one)) for name, one in request.tools.items()]
    except TypeError as exc:  # a name that is no text in a place where it has to be one
        return [str(exc)]
    hosted = list(request.hosted)
    mine = [offered, hosted, list(request.body), request.raw == raw, *read_in(request)]
    unwanted = [one for one in hosted if one.type != "prompt"]
    taken = [
        partial(codec.without_tools, request, *gone)
        for gone in ((hidden, []), ([], unwanted), (hidden, unwanted))
    ]
    ours = Redefinition("Ours.", {"type": "object"})
    changes = (
        *taken,
        partial(codec.without_tools, request, request.tools, hosted),
        partial(codec.redefine, request, lambda tool: ours),
        partial(codec.forbid_tools, request, "No more."),
        partial(codec.with_model, request, "other"),
        partial(codec.with_results, request, {}),
    )
    mine += [outcome(change, codec) for change in changes]
    return mine


def shown(tool: OfferedTool) -> tuple[Any, ...]:
    return tool.name, tool.kind, tool.description, repr(tool.parameters), tool.more


def read_in(request: Request) -> list[Any]:
    return [
        request.history,
        list(request.results),
        list(request.handles),
        request.continued,
        request.resumable,
        request.scope,
    ]


def outcome(make: Callable[[], Request], codec: Any) -> Any:
    """What a change makes of a request; what is carried over from the old one is what would be read anew."""
    try:
        made = make()
    except (BadRequest, TypeError) as exc:
        return str(exc)
    again = type(codec)().read(made.raw)
    assert read_in(made) == read_in(again)
    assert list(made.hosted) == list(again.hosted)
    assert list(made.tools) == list(again.tools)
    return made.raw


# -- what is remembered --------------------------------------------------------------------------


@EVERY_API
def test_the_tools_of_two_requests_are_worked_out_once(protocol: str) -> None:
    spoken = PROTOCOLS[protocol]
    codec = CODECS[protocol](memo=ToolsMemo())
    a, b = (
        codec.read(compact(spoken.request({"tools": [tool()["function"]], "user": user}, False)))
        for user in ("a", "b")
    )
    assert a.tools is b.tools
    assert a.body["tools"] is b.body["tools"]
    one, other = codec.without_tools(a, {"get_user"}, ()), codec.without_tools(b, set(), ())
    assert (dict(one.tools), other) == ({}, b)
    assert "tools" not in one.body, "all of them are gone, not none"


def test_a_part_of_known_tools_is_known() -> None:
    known = ToolsMemo().known([tool(), tool("drop")])

    def leave(tools: Iterable[Json], names: frozenset[str], others: frozenset[Any]) -> list[Json]:
        return [one for one in tools if one["function"]["name"] not in names]

    left = left_of(known, leave, {"drop"})
    assert left is left_of(known, leave, ["drop"])
    assert isinstance(left, KnownTools)
    assert left == [tool()]
    assert left_of(known, leave, {"nobody"}) is known
    assert left_of(known, leave, {"get_user", "drop"}) == []
    huge = {"drop", "x" * 10_000}
    assert left_of(known, leave, huge) is not left_of(known, leave, huge), "clients' names are not kept"


def test_what_is_worked_out_is_bounded() -> None:
    known = ToolsMemo().known([tool()])

    def length(tools: Iterable[Json], number: int) -> int:
        return number

    for number in range(100):
        assert worked_out(known, length, number) == number
    assert isinstance(known, KnownTools)
    assert len(list(known.derived)) <= 12


def test_a_client_with_ever_new_tools_fills_no_memory_and_leaves_what_is_used() -> None:
    memo = ToolsMemo(max_bytes=4 * 2**20)
    mine = memo.known([tool("mine")])
    for number in range(300):
        memo.known([{"name": f"{number:08}" * 8, "description": "x" * 5000}])
        if number % 5 == 0:
            assert memo.read(b'{"tools":%b}' % compact(mine)) == {"tools": mine}
    assert 5 < len(memo) < 30
    assert memo.bytes <= 4 * 2**20
    assert next(found for found in memo if found == mine) is mine


def test_tools_that_begin_alike_are_bounded_too() -> None:
    memo = ToolsMemo()
    for number in range(100):
        memo.known([tool(note=str(number))])
    assert len(memo) == 16
    newest = compact([tool(note="99")])
    assert memo.read(b'{"tools":%b}' % newest) == {"tools": loads(newest)}


def test_one_array_does_not_take_all_the_room() -> None:
    memo = ToolsMemo(max_bytes=2**20)
    memo.known([tool()])
    big = memo.known([{"name": "x" * 10_000}])
    assert isinstance(big, KnownTools), "its own request has the use of it"
    assert [found[0]["function"]["name"] for found in memo] == ["get_user"]


def test_hosted_tools_are_told_in_the_order_of_the_request() -> None:
    codec = ChatCodec()
    body = {
        "model": "m",
        "messages": [],
        "tools": [{"type": "x"}, tool(), {"type": "code_interpreter"}],
        "web_search_options": {},
    }
    expected = [
        HostedTool("web_search", "web_search_options"),
        HostedTool("x"),
        HostedTool("code_interpreter"),
    ]
    for _ in range(2):
        assert list(codec.read(compact(body)).hosted) == expected


def test_a_request_that_cannot_be_read_has_the_strict_readings_fault() -> None:
    codec = ChatCodec()
    raw = compact({"model": "m", "messages": [], "tools": [tool()]})
    codec.read(raw)
    for wrong in (raw[:-1], raw[:-1] + b',"tools":[]}', raw.replace(b'"m"', b"NaN")):
        with pytest.raises(Fault):
            loads(wrong)
        with pytest.raises(BadRequest):
            codec.read(wrong)
