"""Frames that no renderer would write: hostile, broken or only odd. Nothing unjudged gets out of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.wire.codec import Caps, IncompleteTurn, MalformedTurn
from tests.wire.answers import DONE, HEAD, Read, body, call, calls, chunk, event, more, stream, whole, written
from tests.wire.clients import Failed, rebuilt

EVIL = call('{"cmd":"evil"}', "evil")
HALF = "\ud83d"


def spelled(frame: bytes, plain: bytes, other: bytes) -> bytes:
    assert plain in frame
    return frame.replace(plain, other)


def doubled(key: str, first: Any, second: Any, **extra: Any) -> bytes:
    """A choice whose delta names a key twice."""
    delta = f'{{"{key}": {json.dumps(first)}, "{key}": {json.dumps(second)}}}'
    head = json.dumps({**HEAD, **extra})[:-1]
    return event(f'{head}, "choices": [{{"index": 0, "delta": {delta}, "finish_reason": null}}]}}'.encode())


GOOD = chunk(calls(call()))
END = chunk(finish="tool_calls")

# Streams that have no safe reading: what is wrong, and the words of the fault.
NO_READING: dict[str, tuple[bytes, str]] = {
    "a call after the end of its choice": (stream(END, chunk(calls(EVIL))), "after its choice had finished"),
    "a legacy call after the end": (
        stream(END, chunk({"function_call": {"name": "evil", "arguments": "{}"}})),
        "after its choice had finished",
    ),
    "a call in the message of a chunk": (
        stream(event({**HEAD, "choices": [{"index": 0, "delta": {}, "message": calls(EVIL)}]}), END),
        "outside the place",
    ),
    "a legacy call in the message of a chunk": (
        stream(
            event({**HEAD, "choices": [{"index": 0, "message": {"function_call": {"name": "evil"}}}]}), END
        ),
        "outside the place",
    ),
    "tool_calls twice": (stream(doubled("tool_calls", [EVIL], [call()]), END), "names a key twice"),
    "tool_calls twice, the second null": (
        stream(doubled("tool_calls", [EVIL], None), END),
        "names a key twice",
    ),
    "tool_calls twice, once with an escape": (
        stream(
            spelled(
                doubled("tool_calls", [EVIL], None), b'"tool_calls": [', rb'"tool_c' + b"\\u0061" + b'lls": ['
            ),
            END,
        ),
        "names a key twice",
    ),
    "tool_calls twice, both with escapes": (
        stream(
            spelled(doubled("tool_calls", [EVIL], None), b"tool_calls", rb"tool_\u0063alls"),
            END,
        ),
        "names a key twice",
    ),
    "choices twice": (
        stream(
            event(
                json.dumps({"choices": [{"delta": calls(EVIL)}]}).encode()[:-1]
                + b', "choices": [{"index": 0, "delta": {"content": "x"}}]}'
            ),
            END,
        ),
        "names a key twice",
    ),
    "the arguments twice": (
        stream(spelled(GOOD, b'"arguments": "{}"', b'"arguments": "{}", "arguments": "{1}"'), END),
        "names a key twice",
    ),
    "tool_calls in another case": (
        stream(spelled(chunk(calls(EVIL)), b"tool_calls", b"Tool_Calls"), END),
        "only some clients read",
    ),
    "tool_calls beside tool_calls in another case": (
        stream(chunk({"Tool_calls": [EVIL], **calls(call())}), END),
        "only some clients read",
    ),
    "choices in another case": (
        stream(spelled(chunk(calls(EVIL)), b'"choices"', b'"Choices"'), END),
        "only some clients read",
    ),
    "a key that folds to tool_calls": (
        stream(spelled(chunk(calls(EVIL)), b"tool_calls", "tool_call\u017f".encode()), END),
        "only some clients read",
    ),
    "the name in another case": (
        stream(spelled(GOOD, b'"name": "f"', b'"name": "f", "Name": "evil"'), END),
        "only some clients read",
    ),
    "the function in another case": (
        stream(chunk(calls({**call(), "Function": {"name": "evil"}})), END),
        "only some clients read",
    ),
    "a legacy name in another case": (
        stream(chunk({"function_call": {"name": "f", "NAME": "evil", "arguments": "{}"}}), END),
        "only some clients read",
    ),
    "choices are an object": (stream(event({**HEAD, "choices": {"0": {}}})), "choices is not a list"),
    "choices are text": (stream(event({**HEAD, "choices": "x"})), "choices is not a list"),
    "a choice is null": (stream(event({**HEAD, "choices": [None]})), "a choice is not an object"),
    "a choice is a number": (stream(event({**HEAD, "choices": [1]})), "a choice is not an object"),
    "a delta is a list": (stream(chunk([EVIL])), "a delta is not an object"),
    "a delta is text": (stream(chunk("x")), "a delta is not an object"),
    "tool_calls is an object": (stream(chunk({"tool_calls": EVIL})), "tool_calls is not a list"),
    "tool_calls is text": (stream(chunk({"tool_calls": "x"})), "tool_calls is not a list"),
    "a call is text": (stream(chunk(calls("x"))), "a tool call is not an object"),
    "a function is a list": (stream(chunk(calls({"index": 0, "function": [1]}))), "body of a tool call"),
    "a legacy call is text": (stream(chunk({"function_call": "x"})), "function_call is not an object"),
    "a message is a list": (stream(event({"choices": [{"message": [1]}]})), "a message is not an object"),
    "the index of a choice is text": (stream(chunk({}, index="0")), "index of a choice"),
    "the index of a choice is true": (stream(chunk({}, index=True)), "index of a choice"),
    "the index of a choice is null": (stream(chunk({}, index=None)), "index of a choice"),
    "a finish reason is a list": (stream(chunk(finish=["stop"])), "finish reason"),
    "a finish reason is true": (stream(chunk(finish=True)), "finish reason"),
    "an event is a list": (stream(event([1])), "an event is not an object"),
    "an event is a number": (stream(event(b"1")), "an event is not an object"),
    "an event is cut-off JSON": (stream(GOOD[:-9] + b"\n\n", END), "not valid JSON"),
    "an event is NaN": (stream(event(b'{"a": NaN}')), "NaN"),
    "an event is nested too deeply": (stream(event(b'{"a":' + b"[" * 99_999)), "nested too deeply"),
    "an event with a call is nested too deeply": (
        stream(
            spelled(GOOD, b'"id": "call_1"', b'"id": "call_1", "x": ' + b"[" * 1010 + b"]" * 1010),
            END,
        ),
        "",
    ),
    "an event is not UTF-8": (stream(event(b'{"a": "\xff"}')), "not valid JSON"),
    "a call in UTF-16": (
        b"data: " + json.dumps({"choices": [{"delta": calls(EVIL)}]}).encode("utf-16-le") + b"\n\n",
        "not UTF-8",
    ),
    "half of a surrogate pair as bytes": (
        stream(spelled(GOOD, b'"f"', b'"f\xed\xa0\xbd"'), END),
        "not UTF-8",
    ),
    "an end mark with something after it": (b"data: [DONE] x\n\n", "not valid JSON"),
    "an event within a line of an event": (
        b'data: {"x":\ndata: '
        + json.dumps({"choices": [{"delta": calls(EVIL)}]}).encode()
        + b"\ndata: }\n\n",
        "an event by itself",
    ),
    "several events in one": (
        b"data: {}\ndata: " + json.dumps({"choices": [{"delta": calls(EVIL)}]}).encode() + b"\n\n",
        "not valid JSON",
    ),
}


@pytest.mark.parametrize(("data", "words"), NO_READING.values(), ids=NO_READING)
def test_what_has_no_safe_reading_releases_nothing(data: bytes, words: str) -> None:
    read = Read(data)
    assert type(read.fault) is MalformedTurn
    assert words in str(read.fault)
    assert read.failure is None
    assert b"evil" not in b"".join(passage.raw for passage in read.passages)
    bytewise = Read(data, cuts=range(len(data))) if len(data) < 5000 else read
    assert str(bytewise.fault) == str(read.fault)
    assert b"".join(p.raw for p in bytewise.passages) == b"".join(p.raw for p in read.passages)


# Bodies that have no safe reading.
BODIES: dict[str, tuple[bytes, str]] = {
    "a call in a delta": (
        json.dumps({"choices": [{"index": 0, "message": {}, "delta": calls(EVIL)}]}).encode(),
        "outside the place",
    ),
    "a delta is a list": (json.dumps({"choices": [{"delta": [EVIL]}]}).encode(), "a delta is not an object"),
    "two choices with one index": (
        json.dumps({"choices": [{"index": 0, "message": calls(EVIL)}, {"index": 0, "message": {}}]}).encode(),
        "two choices have the same index",
    ),
    "two choices without an index": (
        json.dumps({"choices": [{"message": {}}, {"message": calls(EVIL)}]}).encode(),
        "two choices have the same index",
    ),
    "two calls with one id": (body(calls(call(), call(name="evil"))), "two calls have the same id"),
    "tool_calls twice": (
        spelled(body(calls(call())), b'"tool_calls": [', b'"tool_calls": null, "tool_calls": ['),
        "names a key twice",
    ),
    "tool_calls in another case": (
        spelled(body(calls(EVIL)), b"tool_calls", b"TOOL_CALLS"),
        "only some clients read",
    ),
    "a message is text": (json.dumps({"choices": [{"message": "x"}]}).encode(), "a message is not an object"),
    "a call is null": (body({"tool_calls": [None]}), "a tool call is not an object"),
    "a list": (b"[]", "the answer is not an object"),
    "not JSON": (b"<html>", "the answer is not valid JSON"),
    "a finish reason is an object": (body({"content": "x"}, finish={}), "finish reason"),
    "UTF-16": (body(calls(EVIL)).decode().encode("utf-16-le"), "not UTF-8"),
}


@pytest.mark.parametrize(("data", "words"), BODIES.values(), ids=BODIES)
def test_a_body_without_a_safe_reading_releases_nothing(data: bytes, words: str) -> None:
    read = Read(data, stream=False)
    assert type(read.fault) is MalformedTurn
    assert words in str(read.fault)


@pytest.mark.parametrize("data", [b"", b"  \n"])
def test_an_empty_body_is_incomplete(data: bytes) -> None:
    assert isinstance(Read(data, stream=False).fault, IncompleteTurn)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        chunk({"content": "x"}),
        GOOD,
        stream(GOOD, done=False),
        chunk(calls(call()), finish="tool_calls") + chunk({"content": "x"}, index=1),
        event({**HEAD, "choices": [], "usage": {"prompt_tokens": 1}}),
        b": only a comment\n\n",
    ],
)
def test_a_stream_that_was_cut_is_incomplete(data: bytes) -> None:
    assert isinstance(Read(data).fault, IncompleteTurn)


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


# -- errors of the provider -----------------------------------------------------------------------

ERROR = {"error": {"message": "overloaded", "code": "x"}}
CHUNK_WITH_CALL = {**HEAD, "choices": [{"index": 0, "delta": calls(EVIL), "finish_reason": "tool_calls"}]}
FAILURES: dict[str, tuple[bytes, str, bool]] = {
    "as data": (event(ERROR), "overloaded", True),
    "as an event": (b"event: error\n" + event(ERROR), "overloaded", True),
    "as text": (event({"error": "overloaded"}), "overloaded", True),
    "as an event with a message": (b"event: error\n" + event({"message": "overloaded"}), "overloaded", True),
    "as an event without words": (b"event: error\n" + event({}), "reported an error", True),
    "beside a choice without a call (OpenRouter)": (
        event(
            {**HEAD, **ERROR, "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}
        ),
        "overloaded",
        True,
    ),
    "beside a call": (event({**ERROR, **CHUNK_WITH_CALL}), "overloaded", False),
    "beside a call, spelled with escapes": (
        spelled(event({**ERROR, **CHUNK_WITH_CALL}), b"tool_calls", b"tool_c\\u0061lls"),
        "overloaded",
        False,
    ),
    "beside a call, in another case": (
        spelled(event({**ERROR, **CHUNK_WITH_CALL}), b"tool_calls", b"Tool_Calls"),
        "overloaded",
        False,
    ),
    "a chunk with a call, named an error": (
        b"event: error\n" + event(CHUNK_WITH_CALL),
        "reported an error",
        False,
    ),
}


@pytest.mark.parametrize(("frame", "message", "verbatim"), FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("before", [b"", chunk({"content": "x"}), GOOD])
def test_an_error_in_mid_stream_ends_the_answer(
    frame: bytes, message: str, verbatim: bool, before: bytes
) -> None:
    read = Read(before + frame + chunk(calls(EVIL)) + END + DONE)
    assert read.failure is not None
    assert message in read.failure.message
    assert (read.failure.raw == frame) is verbatim
    assert b"evil" not in read.failure.raw
    assert b"".join(p.raw for p in read.passages) == (before if before != GOOD else b"")
    json.loads(read.failure.raw.split(b"data: ")[1])


@pytest.mark.parametrize("wire", [ERROR, {**ERROR, "choices": None}, {**ERROR, "choices": []}])
def test_a_body_may_be_an_error(wire: dict[str, Any]) -> None:
    data = json.dumps(wire).encode()
    read = Read(data, stream=False)
    assert read.failure is not None
    assert (read.failure.raw, read.failure.message) == (data, "overloaded")


def test_a_body_that_is_an_error_carries_no_call() -> None:
    data = json.dumps({**ERROR, "Choices": CHUNK_WITH_CALL["choices"]}).encode()
    read = Read(data, stream=False)
    assert read.failure is not None
    assert json.loads(read.failure.raw) == ERROR


def test_a_body_with_an_error_and_an_answer_is_an_answer() -> None:
    read = Read(body(calls(call()), error={"message": "partly"}), stream=False)
    assert [one.name for one in read.calls] == ["f"]


# -- caps -----------------------------------------------------------------------------------------


def test_calls_are_bounded() -> None:
    caps = Caps(max_calls=2)
    data = whole(*(call(id=f"c{n}", index=n) for n in range(3)))
    assert "more than 2 calls" in str(Read(data, caps=caps).fault)
    assert "more than 2 calls" in str(
        Read(body(calls(*(call(id=f"c{n}") for n in range(3)))), False, caps=caps).fault
    )
    assert Read(whole(call(id="a"), call(id="b", index=1)), caps=caps).calls
    legacy = stream(
        chunk(calls(call(id="a"), call(id="b", index=1))), chunk({"function_call": {"name": "f"}})
    )
    assert "more than 2 calls" in str(Read(legacy, caps=caps).fault)


def test_choices_are_bounded() -> None:
    data = stream(*(chunk({"content": "x"}, index=n) for n in range(3)))
    assert "more than 2 choices" in str(Read(data, caps=Caps(max_calls=2)).fault)


def test_what_is_held_is_bounded() -> None:
    data = whole(call('{"a":"'), *(more("x" * 50) for _ in range(20)), more('"}'))
    assert Read(data).calls
    assert "limits.max_held_bytes" in str(Read(data, caps=Caps(max_held_bytes=1000)).fault)


@pytest.mark.parametrize("step", [1, 64, 10_000])
def test_an_event_is_bounded(step: int) -> None:
    data = stream(chunk({"content": "before"}), chunk({"content": "x" * 2000}))
    read = Read(data, cuts=range(0, len(data), step), caps=Caps(max_event_bytes=1000))
    assert "limits.max_event_bytes" in str(read.fault)
    assert "".join(passage.text for passage in read.passages) == "before"


def test_an_event_beyond_the_cap_after_the_end_is_no_part_of_the_answer() -> None:
    data = stream(chunk({"content": "x"}, "stop")) + b"data: " + b"x" * 2000
    assert Read(data, caps=Caps(max_event_bytes=1000)).fault is None


@pytest.mark.parametrize("step", [1, 64, 10_000])
def test_a_stream_is_bounded(step: int) -> None:
    frame = chunk({"content": "x"})
    data = stream(*[frame] * 20)
    read = Read(data, cuts=range(0, len(data), step), caps=Caps(max_response_bytes=5 * len(frame)))
    assert "limits.max_response_bytes" in str(read.fault)
    assert b"".join(passage.raw for passage in read.passages) == frame * 5


@pytest.mark.parametrize("step", [64, 10_000])
def test_a_body_is_bounded(step: int) -> None:
    data = body({"content": "x" * 2000}, "stop")
    read = Read(data, stream=False, cuts=range(0, len(data), step), caps=Caps(max_response_bytes=1000))
    assert "limits.max_response_bytes" in str(read.fault)


def test_a_failed_client_is_told_apart() -> None:
    with pytest.raises(Failed):
        rebuilt(event(ERROR), stream=True)
    with pytest.raises(Failed):
        rebuilt(json.dumps(ERROR).encode(), stream=False, sdk=False)
