"""The script format: what is read, what is refused, and that bodies and streams tell the same."""

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import loads_frame
from proxy.scripted import Script, ScriptError, chat, load_scripts
from proxy.scripted.dialect import Shape
from proxy.scripted.reply import compose
from proxy.scripted.script import Played

FILE = """
scripts:
  - model: demo-denied
    turns:
      - {calls: [{name: drop, arguments: {table: t}}]}
      - {text: "I may not."}
  - model: "*"
    order: arrival
    turns:
      - {text: hm, finish: null, usage: null, deviations: [crlf, no_done], fault: {status: 429}}
"""


def test_a_file_of_scripts(tmp_path):
    path = tmp_path / "scripts.yaml"
    path.write_text(FILE)
    denied, rest = load_scripts(path)
    assert denied == Script.of(
        "demo-denied",
        [{"calls": [{"name": "drop", "arguments": {"table": "t"}}]}, {"text": "I may not."}],
    )
    assert (rest.model, rest.order, rest.turns[0].usage) == ("*", "arrival", None)
    assert rest.turns[0].finish_or("stop") is None
    assert denied.turns[0].finish_or("stop") == "stop"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("scripts: [", ", line 1: not valid YAML"),
        ("scripts: []\nscripts: [{model: m}]", ", line 2: scripts: already on line 1"),
        ("scripts: []", "scripts: Tuple should have at least 1 item"),
        ("scripts: [{model: m, turns: []}]", r"scripts.0.turns: Tuple should have at least 1 item"),
        ("scripts: [{model: m, turns: [{txt: hm}]}]", r"scripts.0.turns.0.txt: Extra inputs"),
        ("[]", "valid dictionary"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path, content, fault):
    path = tmp_path / "scripts.yaml"
    path.write_text(content)
    with pytest.raises(ScriptError, match=fault) as raised:
        load_scripts(path)
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ScriptError, match="No such file"):
        load_scripts(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("turn", "fault"),
    [
        ({"calls": [{"name": "a", "input": "x"}]}, "a function call has no 'input'"),
        ({"calls": [{"name": "a", "kind": "custom", "arguments": {}}]}, "a custom call has no 'arguments'"),
        ({"text": "a", "choices": [{"text": "b"}]}, r"with 'choices', \['text'\] belong to each choice"),
        ({"deviations": ["cr", "crlf"]}, "lines end either in 'cr' or in 'crlf'"),
        ({"deviations": ["crfl"]}, "Input should be 'all_index_zero'"),
        ({"fault": "explode"}, "does not match any of the expected tags"),
        ({"fault": {"after_frames": 1}}, "Unable to extract tag"),
        ({"fault": {"status": 200}}, "greater than or equal to 400"),
        ({"fault": {"kind": "eof", "status": 500}}, "Extra inputs"),
        ({"chunk_chars": 0}, "greater than or equal to 1"),
    ],
)
def test_a_turn_that_makes_no_sense(turn, fault):
    with pytest.raises(ScriptError, match=fault):
        Script.of("m", [turn])


def test_ids_depend_on_script_turn_and_place_alone():
    calls = {"calls": [{"name": "a"}] * 2}

    def ids(model: str, number: int) -> list[str]:
        body = loads_frame(chat.body(Played(Script.of(model, [calls]), number), Shape(model, False)))
        return [body["id"], *(call["id"] for call in body["choices"][0]["message"]["tool_calls"])]

    assert ids("m", 0) == ids("m", 0)
    # A last turn that is played again makes calls of its own, as a model that loops would.
    assert len({*ids("m", 0), *ids("m", 1), *ids("n", 0)}) == 9


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
CALL = st.builds(
    lambda name, arguments: {"name": name, "arguments": arguments},
    st.text("abc_", min_size=1, max_size=8),
    st.one_of(TEXT, st.dictionaries(TEXT, st.one_of(TEXT, st.integers(-9, 9)), max_size=3)),
)
ARRANGED = st.sets(
    st.sampled_from(["interleaved", "whole_call_one_delta", "two_calls_one_delta", "role_with_first_call"])
    | st.sampled_from(["utf16_cuts", "finish_with_last_delta", "multiline_data", "comments", "crlf"])
)


@given(
    text=st.none() | TEXT,
    calls=st.lists(CALL, max_size=3),
    deviations=ARRANGED,
    chunk_chars=st.integers(1, 20),
    write_bytes=st.none() | st.integers(1, 50),
    encoding=st.sampled_from([None, "gzip", "deflate"]),
)
def test_a_stream_tells_what_the_body_tells(text, calls, deviations, chunk_chars, write_bytes, encoding):
    turn = {
        "text": text,
        "calls": calls,
        "deviations": deviations,
        "chunk_chars": chunk_chars,
        "write_bytes": write_bytes,
        "encoding": encoding,
    }
    played = Played(Script.of("m", [turn]), 0)
    body = chat.body(played, Shape("m", False))
    streamed = _unpacked(compose(chat, played, Shape("m", True)).pieces, encoding)
    message = loads_frame(body)["choices"][0]["message"]
    assert _told(streamed) == (
        message["content"] or "",
        [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", ())],
        "tool_calls" if calls else "stop",
    )


def _unpacked(pieces: tuple[bytes, ...], encoding: str | None) -> bytes:
    stream = b"".join(pieces)
    return zlib.decompress(stream, wbits=47) if encoding else stream


def _told(stream: bytes) -> tuple[str, list[Any], str]:
    text, calls, finish = "", {}, ""
    for event in stream.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = b"".join(line[6:] for line in event.split(b"\n") if line.startswith(b"data: "))
        if data in (b"", b"[DONE]"):
            continue
        choice = loads_frame(data)["choices"][0]
        text += choice["delta"].get("content") or ""
        finish += choice["finish_reason"] or ""
        for delta in choice["delta"].get("tool_calls", ()):
            call = calls.setdefault(delta["index"], ["", "", ""])
            call[0] += delta.get("id", "")
            call[1] += delta["function"].get("name", "")
            call[2] += delta["function"]["arguments"]
    joined = (part.encode("utf-16", "surrogatepass").decode("utf-16") for part in [text])
    heal = [
        tuple(p.encode("utf-16", "surrogatepass").decode("utf-16") for p in call) for call in calls.values()
    ]
    return next(joined), heal, finish
