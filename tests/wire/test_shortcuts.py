"""What is read in a shorter way is read as it would be in the longer one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.model import Fault, Passage, Turn, has_duplicate_keys, loads_frame
from proxy.wire.chat import keys as chat_keys
from proxy.wire.chat.decoder import StreamDecoder
from proxy.wire.chat.stream import StreamEncoder
from proxy.wire.codec import Caps, MalformedTurn
from proxy.wire.messages import blocks as messages_blocks
from proxy.wire.responses import keys as responses_keys
from proxy.wire.writing import is_as_written

Json = dict[str, Any]


class Thorough(StreamDecoder):
    """Looks at every frame member by member."""

    def _take_text(self, data: bytes, wire: Json) -> str | None:
        return None


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}
MORE = {"index": 0, "function": {"arguments": "1}"}}
WORDS = [
    "Hello",
    "",
    "\n",
    '"',
    "é\u2028",
    "\ud83d",
    "\ude00",
    "a tool_call",
    "Function_Call",
    "\\u0074",
    "\0",
]
ODD: list[Any] = [None, True, False, 0, 1, -1, 0.0, "", "x", [], {}, [None], ["x"], {"a": 1}]

ODDITIES: st.SearchStrategy[Any] = st.sampled_from(ODD)
INDEXES: st.SearchStrategy[Any] = st.sampled_from([*[0] * 8, 1, 2, True, 0.0, 1.0, "0", None, -1])
TEXTS = st.sampled_from(WORDS)
CALLS: st.SearchStrategy[Any] = st.sampled_from(
    [None, [], {}, "x", [None], [CALL], [CALL], [MORE], [MORE, MORE]]
)
FUNCTION_CALLS: st.SearchStrategy[Any] = st.sampled_from(
    [None, {}, [], "x", {"name": "f", "arguments": "{"}, {"arguments": "}"}]
)
DELTAS = st.one_of(
    TEXTS.map(lambda text: {"content": text}),
    TEXTS.map(lambda text: {"content": text}),
    TEXTS.map(lambda text: {"role": "assistant", "content": text}),
    TEXTS.map(lambda text: {"reasoning_content": text}),
    st.fixed_dictionaries(
        {},
        optional={
            "content": TEXTS | st.sampled_from(ODD),
            "role": st.sampled_from(["assistant", "", None]),
            "tool_calls": CALLS,
            "function_call": FUNCTION_CALLS,
            "Tool_Calls": CALLS,
            "refusal": st.sampled_from(ODD),
        },
    ),
    st.sampled_from(ODD),
)
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "index": INDEXES,
        "delta": DELTAS,
        "message": st.sampled_from([None, {}, {"content": "x"}, {"tool_calls": [CALL]}, "x"]),
        "logprobs": st.none(),
        "finish_reason": st.sampled_from([None, None, None, "", "stop", "tool_calls", 7, []]),
        "Delta": st.just({"tool_calls": [CALL]}),
    },
)
PLAIN = DELTAS.map(
    lambda delta: {"id": "c1", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
)
USAGES: st.SearchStrategy[Any] = st.sampled_from([None, {"prompt_tokens": 1, "completion_tokens": True}, 7])


@st.composite
def nearly_plain(draw: st.DrawFn) -> Json:
    """A delta of text in which one thing is not as usual."""
    delta: Json = {"content": draw(TEXTS)}
    choice: Json = {"index": 0, "delta": delta, "finish_reason": None}
    wire: Json = {"id": "c1", "model": "later", "choices": [choice]}
    match draw(st.integers(0, 9)):
        case 0:
            choice["index"] = draw(INDEXES)
        case 1:
            choice["message"] = draw(st.sampled_from([None, {}, {"content": "x"}, "x", [1]]))
        case 2:
            choice["finish_reason"] = draw(st.sampled_from(["", "stop", "tool_calls", 7, []]))
        case 3:
            delta[draw(st.sampled_from(["role", "refusal", "reasoning", "function_call"]))] = draw(ODDITIES)
        case 4:
            wire["choices"].append(draw(CHOICES | st.just({**choice, "index": 1})))
        case 5:
            wire["usage"] = draw(USAGES)
        case 6:
            wire["error"] = draw(ODDITIES)
        case 7:
            delta["content"] = draw(ODDITIES)
        case 8:
            del choice["index"]
        case 9:
            holder = draw(st.sampled_from([wire, choice, delta]))
            holder[draw(st.sampled_from(["Choices", "DELTA", "Tool_Calls", "tool_call\u017f"]))] = draw(CALLS)
    return wire


FRAMES = st.one_of(
    PLAIN,
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.sampled_from(["c1", "", None, 7]),
            "model": st.sampled_from(["m", None]),
            "choices": st.lists(CHOICES, max_size=2) | CHOICES.map(lambda one: [one]) | st.sampled_from(ODD),
            "usage": USAGES,
            "error": st.sampled_from([None, {}, {"message": "no"}, "no"]),
            "obfuscation": st.text("ab", max_size=3),
        },
    ),
)


@st.composite
def an_event(draw: st.DrawFn) -> bytes:
    """A frame in one of the spellings that providers and the hostile have for it."""
    wire = draw(nearly_plain() if draw(st.integers(0, 3)) else FRAMES)
    compact = draw(st.booleans())
    text = json.dumps(wire, separators=(",", ":") if compact else None, ensure_ascii=draw(st.booleans()))
    data = text.encode("utf-8", "surrogatepass")
    members = [at for at in range(len(data)) if data.startswith(b'{"', at) or data.startswith(b',"', at)]
    if members and draw(st.integers(0, 7)) == 7:
        at = draw(st.sampled_from(members)) + 1
        twice = draw(st.sampled_from([b"choices", b"delta", b"content", b"tool_calls", b"index", b"a"]))
        data = data[:at] + b'"' + twice + b'":null,' + data[at:]
    if draw(st.integers(0, 19)) == 19:
        data = data.replace(b",", b",\ndata: ", 1)
    end = draw(st.sampled_from([*[b"\n"] * 5, b"\r\n"]))
    name = draw(
        st.sampled_from([b"", b"", b"", b": comment" + end, b"event: error" + end, b"event: x" + end])
    )
    return name + b"data: " + data.replace(b"\ndata", end + b"data") + end + end


# What stands where a frame like the last one has its text; much of it is more than a text.
INSIDES = [
    *["é😀".encode(), b"\\n", b'\\"', b"\\u00e9", b"\\ud83d\\ude00", b"a tool_call"],
    *[b"\\", b'"', b"\n", b"\r", b"\n\ndata: ", b"\0", b"\xff", b"\xed\xa0\xbd", b"\\ud83d", b"\\x"],
    b'","tool_calls":[{"index":0,"id":"e","function":{"name":"f"}}],"x":"',
    b'","content":"',
    b'\\","x":"',
    b'"},"delta":{"content":"',
    b'"},"finish_reason":"stop","x":{"content":"',
    b'"}}],"obfuscation":"',
    b'"}}],"obfuscation":"x","choices":[],"y":"',
]
PADDINGS = [b'"', b'","choices":[],"x":"', b"\\u0074ool_calls", b"\xff", b"tool_calls"]
TEMPLATES = [
    b'{"id":"c1","created":%d,"choices":[{"index":0,"delta":{"content":"%b"}}]}',
    b'{"id":"c1","created":%d,"choices":[{"index":1,"delta":{"role":"assistant","content":"%b"}}],"usage":null}',
    b'{"created":%d,"choices":[{"delta":{"content":"%b","refusal":null},"finish_reason":null}]}',
    b'{"choices":[],"created":%d,"choices":[{"delta":{"content":"%b"}}],"id":"c1"}',
    b'{"id":"c1","created":%d,"choices":[{"index":0,"delta":{"content":"%b","reasoning":"r"}}]}',
    b'{"id":"c1","created":%d,"usage":{"prompt_tokens":3},"choices":[{"index":0,"delta":{"content":"%b"}}]}',
    b'{"id":"c1","created":%d,"choices":[{"index":0,"delta":{"content":"%b"}}],"obfuscation":"%b"}',
    b'{"id":"c1","created":%d,"choices":[{"index":0,"delta":{"content":"%b","p":"%b"}}]}',
    b'{"id":"c1","created":%d,"p":"pp","choices":[{"index":0,"delta":{"content":"%b"}}]}',
    b'{"id":"c1","created":%d,"Choices":1,"choices":[{"index":0,"delta":{"content":"%b"}}]}',
    b'{"id":"c1","created":%d,"choices":[{"index":0,"delta":{"content":"%b"}}],"x":"\\"content\\":"}',
    b'{"id":"c1","created":%d,"x":{"content":"%b"},"choices":[{"index":0,"delta":{"content":"t"}}]}',
    b'{"id":"c1","created":%d,"choices":[{"index":0,"delta":{"content":"%b"}}],"x":{"obfuscation":"%b"}}',
]


@st.composite
def alike(draw: st.DrawFn) -> list[bytes]:
    """Frames of one template, mostly, one after the other."""
    template, other = draw(st.sampled_from(TEMPLATES)), draw(st.sampled_from(TEMPLATES))
    frames: list[bytes] = []
    for _ in range(draw(st.integers(2, 5))):
        chosen = template if draw(st.integers(0, 4)) else other
        usual = not frames or draw(st.integers(0, 2))
        inside = draw(st.sampled_from([b"Hi", b"", b" there"] if usual else INSIDES))
        padding = draw(st.sampled_from([b"", b"abc"] if usual or draw(st.booleans()) else PADDINGS))
        created = 8 if draw(st.integers(0, 7)) == 7 else 7
        data = chosen % (created, inside, padding)[: chosen.count(b"%")]
        if draw(st.integers(0, 15)) == 15:
            data = data.replace(b'""', b'"')
        name = b"event: error\n" if draw(st.integers(0, 15)) == 15 else b""
        frames.append(name + b"data: " + data + b"\n\n")
    return [b"".join(frames)] if draw(st.booleans()) else frames


def told(decoder: StreamDecoder, chunks: Sequence[bytes]) -> list[Any]:
    """Everything that a client, a guard or a record could learn of an answer."""
    encoder, later = StreamEncoder(), StreamEncoder()
    later.settle(SETTLED)
    out: list[Any] = []
    try:
        for chunk in chunks:
            for event in decoder.feed(chunk):
                frames = [(read.frame, read.object) for read in getattr(event, "frames", ())]
                out.append((type(event), event.raw, getattr(event, "text", None), frames))
                if isinstance(event, Passage):
                    out += [encoder.passage(event), later.passage(event)]
            out.append((decoder.holding, decoder.done))
        events, turn = decoder.close()
        out += [event.raw for event in events]
        out += [turn.id, turn.model, turn.text, turn.finish, turn.usage, turn.slots, turn.choices]
        out += [turn.wire.canonical, turn.wire.message()]
        out.append(encoder.release(turn, [call.arguments_json for call in turn.calls], {}))
        out.append(encoder.finish("Bye."))
    except MalformedTurn as exc:
        out.append((type(exc), str(exc)))
    return out


OPEN = b'data: {"id":"c1","model":"m","choices":[{"delta":{"content":""}},{"index":1,"delta":{}}]}\n\n'
DONE = b"data: [DONE]\n\n"
CLOSE = b'data: {"id":"c1","choices":[{"index":0,"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def settled() -> Turn:
    """A round that the client does not see."""
    decoder = StreamDecoder(Caps())
    decoder.feed(b'data: {"id":"c0","choices":[{"delta":{"tool_calls":[{"index":0,"id":"c"}]}}]}\n\n' + DONE)
    return decoder.close()[1]


SETTLED = settled()


@settings(max_examples=500, deadline=None)
@given(
    events=st.lists(an_event(), max_size=4),
    begin=st.sampled_from([OPEN, OPEN.replace(b'"model"', b'"object"')]),
    end=st.sampled_from([CLOSE, b""]),
    cuts=st.none() | st.lists(st.integers(0, 2**16), max_size=6),
)
@example(
    [b'data: {"usage":{"prompt_tokens":9},"choices":[{"delta":{"content":"x"}}]}\n\n'], OPEN, CLOSE, None
)
@example([b'data: {"choices":[{"index":true,"delta":{"content":"x"}}]}\n\n'], OPEN, CLOSE, None)
@example(
    [b'data: {"choices":[{"delta":{"content":"x"},"message":{"tool_calls":[{}]}}]}\n\n'], OPEN, CLOSE, None
)
def test_a_delta_of_text_is_taken_in_one_look_as_in_many(
    events: list[bytes], begin: bytes, end: bytes, cuts: list[int] | None
) -> None:
    frames = [begin, *events, end]
    whole = b"".join(frames)
    points = sorted({cut % (len(whole) + 1) for cut in cuts or ()} | {0, len(whole)})
    chunks = frames if cuts is None else [whole[a:b] for a, b in itertools.pairwise(points)]
    assert told(StreamDecoder(Caps()), chunks) == told(Thorough(Caps()), chunks)


@settings(max_examples=500, deadline=None)
@given(chunks=alike(), more=st.lists(an_event(), max_size=1), after=alike())
def test_a_frame_like_another_is_read_as_a_parser_reads_it(
    chunks: list[bytes], more: list[bytes], after: list[bytes]
) -> None:
    answer = [OPEN, *chunks, *more, *after, CLOSE]
    assert told(StreamDecoder(Caps()), answer) == told(Thorough(Caps()), answer)


def like(inside: bytes, template: int = 0, padding: bytes = b"", created: int = 7) -> bytes:
    chosen = TEMPLATES[template]
    return b"data: " + chosen % (created, inside, padding)[: chosen.count(b"%")] + b"\n\n"


COUNTED = b'data: {"choices":[],"usage":{"prompt_tokens":9}}\n\n'
NEARLY_ALIKE = {
    "the end of the head is the beginning of the tail": [like(b"Hi"), like(b"").replace(b'""', b'"')],
    "an error": [like(b"Hi"), b"event: error\n" + like(b"Hi")],
    "what follows an escaped quote": [like(b'a\\"b'), like(b'x"b')],
    "a padding that is more": [like(b"Hi", 6, b"abc"), like(b"Hi", 6, b'","choices":[],"x":"')],
    "a call's word beside an odd key": [like(b"Hi", 9), like(b"a tool_call", 9)],
    "a call's word beside a key that is there twice": [like(b"Hi", 3), like(b"a tool_call", 3)],
    "tokens that were counted otherwise in between": [like(b"Hi", 5), COUNTED, like(b"Hi", 5)],
    "a head that was told otherwise in between": [
        *(like(b"Hi", 2), like(b"Hi", 2).replace(b"7", b"8").replace(b'"content":"Hi"', b'"content":[]')),
        like(b"Hi", 2),
    ],
}


@pytest.mark.parametrize("frames", NEARLY_ALIKE.values(), ids=NEARLY_ALIKE)
def test_what_is_nearly_alike_is_read_as_a_parser_reads_it(frames: list[bytes]) -> None:
    nameless = [frame.replace(b'"id":"c1",', b"") for frame in (OPEN, *frames)]
    for answer in ([OPEN, *frames, CLOSE], [*nameless, DONE]):
        assert told(StreamDecoder(Caps()), answer) == told(Thorough(Caps()), answer)


@pytest.mark.parametrize("template", [0, 1, 6])
def test_frames_that_are_alike_are_not_parsed(monkeypatch: pytest.MonkeyPatch, template: int) -> None:
    """What the property above compares would otherwise be the same thing twice."""

    def never(self: StreamDecoder, data: bytes) -> Json:
        raise AssertionError("parsed")

    decoder = StreamDecoder(Caps())
    decoder.feed(OPEN + like(b"Hello", template, b"xy"))
    monkeypatch.setattr(StreamDecoder, "_read", never)
    (passage,) = decoder.feed(like(b", ", template) + like(b'\\"world\\".', template, b"abc"))
    assert passage.text == ', "world".'  # type: ignore[union-attr]
    assert [read.object["id"] for read in passage.frames] == ["c1", "c1"]  # type: ignore[union-attr]


def test_the_one_look_is_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the property above compares would otherwise be the same thing twice."""

    def never(self: StreamDecoder, data: bytes, wire: Json) -> str:
        raise AssertionError("looked at member by member")

    decoder = StreamDecoder(Caps())
    decoder.feed(OPEN)
    monkeypatch.setattr(StreamDecoder, "_take_choices", never)
    (passage,) = decoder.feed(b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n')
    assert passage.text == "Hi"  # type: ignore[union-attr]


PIECES = [
    "tool_call",
    "TOOL_CALL",
    "function_call",
    "_call",
    "call_id",
    "_request",
    "tool_use",
    "Partial_JSON",
]
PIECES += ["\\", "\\u00", "\\U00", "u00", "call", "_", "é", "\0", "x", '"', "İ"]


@pytest.mark.parametrize(
    ("shorter", "words"),
    [
        (chat_keys.may_hide_calls, ("tool_call", "function_call", "\\u00")),
        (responses_keys.may_hold_calls, ("_call", "call_id", "_request", "\\u00")),
        (messages_blocks.may_hide_calls, ("tool_use", "partial_json", "\\u00")),
    ],
)
@settings(max_examples=300)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=5))
def test_a_text_may_hold_calls_where_it_has_one_of_the_words(
    shorter: Callable[[bytes], bool], words: tuple[str, ...], pieces: list[str]
) -> None:
    data = "".join(pieces).encode()
    assert shorter(data) is any(word.encode() in data.lower() for word in words)


def test_the_usual_keys_are_spelled_as_no_other() -> None:
    assert all(key == key.casefold() for key in chat_keys._USUAL | responses_keys._USUAL)


SPELLINGS = [
    '{"a":1}',
    '{"a":1,"a":1}',
    '{"a":{"b":[],"b":[]}}',
    '{"a":"\\u0062"}',
    '{"\\u0061":1}',
    '{"a": 1}',
    "1.0",
]
SPELLINGS += [
    '{"a":"\ud83d"}',
    '{"a":9999999999999999999999}',
    "[1,2]",
    '"é"',
    '"\\ud83d"',
    "[" * 300 + "]" * 300,
]


@settings(max_examples=300)
@given(
    text=st.sampled_from(SPELLINGS),
    more=st.binary(max_size=2),
    encoding=st.sampled_from(["utf-8", "utf-16-le"]),
)
def test_what_is_as_written_is_unambiguous(text: str, more: bytes, encoding: str) -> None:
    data = text.encode(encoding, "surrogatepass") + more
    try:
        value = loads_frame(data)
    except Fault:
        return
    if is_as_written(data, value):
        assert not has_duplicate_keys(data)
        assert data.decode()
        assert b"\0" not in data
