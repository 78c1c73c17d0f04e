"""Calls that clients would read differently: a fault, or written again in the one shape."""

from __future__ import annotations

import pytest

from tests.wire.answers import (
    END,
    EVIL,
    GOOD,
    HALF,
    HEAD,
    Read,
    body,
    call,
    calls,
    chunk,
    event,
    more,
    spelled,
    stream,
    whole,
    written,
)
from tests.wire.clients import rebuilt

# -- calls that no client may run -----------------------------------------------------------------

TWO_WAYS = "written in two ways"
FAULTS: dict[str, tuple[bytes, str]] = {
    "function and custom in one piece": (
        whole({**call("{}", "evil"), "custom": {"name": "f", "input": "x"}}),
        TWO_WAYS,
    ),
    "custom and function in one piece": (
        whole(
            {
                "index": 0,
                "id": "x",
                "type": "custom",
                "custom": {"name": "f", "input": "x"},
                "function": {"name": "evil", "arguments": "{}"},
            }
        ),
        TWO_WAYS,
    ),
    "a custom fragment of a function": (whole(call(), {"index": 0, "custom": {"input": " "}}), TWO_WAYS),
    "a function fragment of a custom call": (
        whole(
            {"index": 0, "id": "x", "type": "custom", "custom": {"name": "f", "input": "a"}},
            more("b"),
        ),
        TWO_WAYS,
    ),
    "a custom type with a function": (whole(call(type="custom")), "no name"),
    "a legacy call and a call": (
        stream(chunk({"function_call": {"name": "f", "arguments": "{}"}}), chunk(calls(call())), END),
        TWO_WAYS,
    ),
    "a call and a legacy call in one delta": (
        stream(chunk({"function_call": {"name": "f", "arguments": "{}"}, **calls(call())}), END),
        TWO_WAYS,
    ),
    "a piece without anything after a legacy call": (
        stream(chunk({"function_call": {"name": "f", "arguments": "{}"}}), chunk(calls(more("", None))), END),
        TWO_WAYS,
    ),
    "no name": (whole(call(name="")), "no name"),
    "a null name": (whole(call(name=None)), "no name"),
    "a name that is a number": (whole(call(name=7)), "not text"),
    "a name with half of a surrogate pair": (whole(call(name="f" + HALF)), "not valid Unicode"),
    "a name in pieces": (whole(call("", "get_"), call("{}", "weather", id="")), "two names"),
    "two different names": (whole(call("", "good"), call("{}", "evil", id="")), "two names"),
    "two different legacy names": (
        stream(
            chunk({"function_call": {"name": "good", "arguments": ""}}),
            chunk({"function_call": {"name": "evil", "arguments": "{}"}}),
            chunk(finish="function_call"),
        ),
        "two names",
    ),
    "one id at two indexes": (whole(call('{"a":1}'), call('{"b":2}', index=1)), "not valid JSON"),
    "duplicate keys": (whole(call('{"a":1,"a":2}')), "duplicate key"),
    "NaN": (whole(call('{"a":NaN}')), "NaN"),
    "not an object": (whole(call("[]")), "one JSON object"),
    "an integer that some clients round": (whole(call('{"a":9007199254740993}')), "every client reads alike"),
    "a lone half of a surrogate pair": (whole(call('{"a":"' + HALF + '"}')), "not valid Unicode"),
    "halves in the wrong order": (whole(call('{"a":"\ude00'), more('\ud83d"}')), "not valid Unicode"),
    "an escaped lone half": (whole(call('{"a":"\\ud83d"}')), "not valid Unicode"),
    "arguments nested too deeply": (whole(call('{"aaaaaaaaaaa":' + "[" * 1005 + "]" * 1005 + "}")), "nested"),
    "an object with a number that is out of range": (
        stream(spelled(chunk(calls(call(7))), b'"arguments": 7', b'"arguments": {"a": 1e999}'), END),
        "every client",
    ),
    "an object with a number beyond 64 bits": (
        stream(
            spelled(chunk(calls(call(7))), b'"arguments": 7', b'"arguments": {"a": [1, %d]}' % 2**70), END
        ),
        "every client",
    ),
    "an object with a lone half": (whole(call({"a": HALF})), "not valid Unicode"),
    "a number for arguments": (whole(call(7)), "one JSON object"),
}


@pytest.mark.parametrize(("data", "words"), FAULTS.values(), ids=FAULTS)
def test_a_call_that_clients_would_read_differently_is_a_fault(data: bytes, words: str) -> None:
    read = Read(data)
    assert read.calls
    for one in read.calls:
        assert one.arguments is None
        assert words in str(one.fault)
        one.arguments_json.encode()  # records and requests can carry it
    assert all(not found for found in rebuilt(written(read), stream=True).values())


def test_of_a_mixture_the_message_that_is_sent_back_has_every_call_once() -> None:
    message = {"function_call": {"name": "f", "arguments": "{}"}, **calls(call()), "content": "x"}
    for read in (Read(stream(chunk(message), END)), Read(body(message), stream=False)):
        assert read.turn is not None
        sent = read.turn.wire.message()
        assert "function_call" not in sent
        assert [one["id"] for one in sent["tool_calls"]] == [one.id for one in read.calls]
        assert all(one["id"] for one in sent["tool_calls"])


def test_a_given_id_is_never_one_that_the_provider_gave() -> None:
    (first,) = Read(whole(call(id=""))).calls
    read = Read(whole(call(id="", index=0), call(id=first.id, index=1)))
    assert [one.fault for one in read.calls] == [None, "Two calls have the same id."]


# -- oddities that have one reading ---------------------------------------------------------------

CUSTOM = {"index": 0, "id": "x", "type": "custom", "custom": {"name": "sh", "input": "l"}}
READ: dict[str, tuple[bytes, list[tuple[str, str, str]], bool]] = {
    "as OpenAI sends it": (
        whole(call(""), more('{"a"'), more(":1}")),
        [("call_1", "f", '{"a":1}')],
        True,
    ),
    "custom text": (whole(CUSTOM, {"index": 0, "custom": {"input": "s"}}), [("x", "sh", "ls")], True),
    "a custom call without a type": (
        whole({key: value for key, value in CUSTOM.items() if key != "type"}),
        [("x", "sh", "l")],
        False,
    ),
    "a custom call with a null function": (whole({**CUSTOM, "function": None}), [("x", "sh", "l")], True),
    "a type that nobody knows": (whole(call(type="builtin")), [("call_1", "f", "{}")], False),
    "arguments as an object": (whole(call({"a": [1, "é"]})), [("call_1", "f", '{"a":[1,"é"]}')], False),
    "an id that is a number": (whole(call(id=7)), [("7", "f", "{}")], False),
    "an id with half of a surrogate pair": (whole(call(id="a" + HALF)), [("a\ufffd", "f", "{}")], False),
    "an id that comes late": (
        whole(call("{", id=""), call("}", id="late")),
        [("late", "f", "{}")],
        False,
    ),
    "another id in every piece": (
        whole(call('{"a"'), {**more(":1"), "id": "call_2"}, {**more("}"), "id": "call_3"}),
        [("call_1", "f", '{"a":1}')],
        False,
    ),
    "a new id and a new name on a used index": (
        whole(call(), call('{"b":1}', "g", id="call_2")),
        [("call_1", "f", "{}"), ("call_2", "g", '{"b":1}')],
        False,
    ),
    "a name that grows": (
        whole(call("", "get"), call("{}", "get_user")),
        [("call_1", "get_user", "{}")],
        False,
    ),
    "a name of which later pieces repeat the beginning": (
        whole(call('{"a"', "get_user"), call(":1}", "get", id="")),
        [("call_1", "get_user", '{"a":1}')],
        False,
    ),
    "a repeated name and no more arguments, without an index": (
        whole(call('{"a":1}', index=None), call("", id="", index=None)),
        [("call_1", "f", '{"a":1}')],
        False,
    ),
    "events over several lines": (
        stream(
            GOOD.replace(b'{"id"', b'{\ndata: "id"', 1),
            chunk(calls(more(""))).replace(b'"tool_calls"', b'\ndata: "tool_calls"'),
            b'data: {"choices": [], "x":\ndata: {"tool_calls": 1}\ndata: }\n\n',
            END,
        ),
        [("call_1", "f", "{}")],
        False,
    ),
    "an index that is true": (whole(call(index=True)), [("call_1", "f", "{}")], False),
    "pieces without a body": (whole({**call(), "index": 0}, {"index": 0}), [("call_1", "f", "{}")], False),
    "halves of a pair in two pieces": (
        whole(call('{"a":"\ud83d'), more('\ude00"}')),
        [("call_1", "f", '{"a":"😀"}')],
        False,
    ),
    "two entries of one choice in a chunk": (
        stream(
            event(
                {
                    **HEAD,
                    "choices": [
                        {"index": 0, "delta": calls(call('{"a":'))},
                        {"index": 0, "delta": calls(more("1}"))},
                    ],
                }
            ),
            END,
        ),
        [("call_1", "f", '{"a":1}')],
        False,
    ),
    "the usage before everything else": (
        stream(event({**HEAD, "choices": [], "usage": {"prompt_tokens": 1}}), GOOD, END),
        [("call_1", "f", "{}")],
        True,
    ),
    "null choices after a call": (
        stream(GOOD, event({**HEAD, "choices": None, "x": 1}), END),
        [("call_1", "f", "{}")],
        False,
    ),
    "the end without its blank line": (
        stream(GOOD, END[:-2], done=False),
        [("call_1", "f", "{}")],
        False,
    ),
    "the end mark without its blank line": (stream(GOOD, END)[:-2], [("call_1", "f", "{}")], True),
    "comments and blank lines": (
        stream(b": a\n\n", GOOD, b": b\n\n\n", END),
        [("call_1", "f", "{}")],
        True,
    ),
    "events with empty data": (
        stream(GOOD, b"data:\n\n", b"data: \n\n", END),
        [("call_1", "f", "{}")],
        False,
    ),
    "an empty legacy call": (
        stream(chunk({"function_call": {}, **calls(call())}), END),
        [("call_1", "f", "{}")],
        False,
    ),
    "a call that also ends its choice, twice": (
        stream(chunk(calls(call()), "tool_calls"), chunk({"content": "x"}, "stop")),
        [("call_1", "f", "{}")],
        False,
    ),
    "no end, and an end mark": (stream(GOOD), [("call_1", "f", "{}")], False),
    "no end mark": (stream(GOOD, END, done=False), [("call_1", "f", "{}")], True),
    "an end mark and more": (stream(GOOD, END) + chunk(calls(EVIL)), [("call_1", "f", "{}")], True),
    "one choice, and it is not the first": (
        stream(chunk(calls(call()), index=1), chunk(finish="tool_calls", index=1)),
        [("call_1", "f", "{}")],
        True,
    ),
    "a signature beside the call, and one beside its name": (
        whole(
            {**call(), "index": 1, "extra_content": {"s": 1}}
            | {"function": {"name": "f", "arguments": "{}", "sig": 2}}
        ),
        [("call_1", "f", "{}")],
        False,
    ),
}


@pytest.mark.parametrize(("data", "expected", "canonical"), READ.values(), ids=READ)
def test_an_oddity_is_read_and_written_as_every_client_reads_it(
    data: bytes, expected: list[tuple[str, str, str]], canonical: bool
) -> None:
    read = Read(data)
    assert [(one.id, one.name, one.arguments_json) for one in read.calls] == expected
    assert not any(one.fault for one in read.calls)
    sent = written(read)
    assert (sent == data[: len(sent)]) is canonical
    custom = expected[0][1] == "sh"
    index = 1 if b'"index": 1, "delta"' in data else 0
    for client, found in rebuilt(sent, stream=True, sdk=not custom and index == 0).items():
        assert found == {index: expected}, client
    bytewise = Read(data, cuts=range(len(data)))
    assert written(bytewise) == sent


def test_what_stands_beside_a_call_goes_on_with_it() -> None:
    data = READ["a signature beside the call, and one beside its name"][0]
    read = Read(data)
    assert b'"extra_content":{"s":1}' in written(read)
    assert b'"sig":2' in written(read)
    assert read.turn is not None
    (sent,) = read.turn.wire.message()["tool_calls"]
    assert sent["extra_content"] == {"s": 1}
    assert sent["function"]["sig"] == 2
    assert "index" not in sent
