"""The strict reading of JSON, and the calls and text that are made of it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model import (
    Fault,
    History,
    PastCall,
    Principal,
    ToolCall,
    Usage,
    dumps,
    has_duplicate_keys,
    loads,
    loads_frame,
)
from proxy.wire.codec import MalformedTurn
from proxy.wire.writing import is_exact, is_unicode, is_whole, joined, write_json, write_request

HALF = "\ud83d"

FAULTS = [
    ('{"a": 1, "a": 2}', "duplicate key 'a'"),
    ('{"a":1,"a":1}', "duplicate key 'a'"),
    ('{"a": {"b": 1, "b": 1}}', "duplicate key 'b'"),
    ('{"a": 1, "\\u0061": 2}', "duplicate key 'a'"),
    ('{"a":NaN}', "NaN is not JSON"),
    ('{"a":Infinity}', "Infinity is not JSON"),
    ('{"a":-Infinity}', "-Infinity is not JSON"),
    ('{"a":1e999}', "out of range"),
    ('{"a":"\\ud83d"}', "lone surrogate"),
    ('{"\\ud83d":1}', "lone surrogate"),
    (f'{{"a":"{HALF}"}}', "lone surrogate"),
    (b'{"a":"\xff"}', "broken UTF-8"),
    ("{} x", "extra data at character 4"),
    ("{}{}", "extra data"),
    ("", "expecting value"),
    ("{'a': 1}", "property name"),
    ("[" * 5000, "nested too deeply"),
    ('{"a": ' + "1" * 5000 + "}", "too many digits"),
]


@pytest.mark.parametrize(("text", "words"), FAULTS)
def test_what_not_every_client_reads_alike_is_a_fault(text: str | bytes, words: str) -> None:
    with pytest.raises(Fault) as fault:
        loads(text)
    assert words in str(fault.value)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=VALUES, indent=st.sampled_from([None, 1]), ascii=st.booleans())
@settings(max_examples=150, deadline=None)
def test_what_is_unambiguous_is_read_exactly(value: Any, indent: int | None, ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    assert loads(text) == value
    assert loads(text.encode()) == value
    assert loads(dumps(value)) == value
    assert loads(write_json(value)) == value
    assert not has_duplicate_keys(text.encode())


@pytest.mark.parametrize("text", [text for text, _ in FAULTS if "duplicate" in _ or "deeply" in _])
def test_duplicate_keys_are_found(text: str) -> None:
    assert has_duplicate_keys(text.encode())


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'{"a":"\\ud83d"}', {"a": HALF}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}),
    ],
)
def test_a_frame_may_hold_half_of_a_pair(data: bytes, value: Any) -> None:
    assert loads_frame(data) == value


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "not valid JSON"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a":"\\ud83d","a":1}', "duplicate key"),
        (b"[" * 5000, "nested too deeply"),
    ],
)
def test_a_frame_without_a_reading_is_a_fault(data: bytes, words: str) -> None:
    with pytest.raises(Fault, match=words):
        loads_frame(data)


CALLS: list[tuple[str, dict[str, Any] | None, str]] = [
    ("", {}, ""),
    ("{}", {}, ""),
    (' {"a": [1, "é"]} ', {"a": [1, "é"]}, ""),
    ('{"a":9007199254740991}', {"a": 2**53 - 1}, ""),
    ('{"a":9007199254740993}', None, "beyond what every client reads alike"),
    ('{"a":[{"b":-9007199254740993}]}', None, "beyond what every client reads alike"),
    ("[]", None, "must be one JSON object"),
    ("null", None, "must be one JSON object"),
    ('"{}"', None, "must be one JSON object"),
    ("{", None, "not valid JSON"),
    ('{"a":1,"a":2}', None, "not readable: duplicate key"),
    ('{"a":NaN}', None, "not readable: NaN"),
]


@pytest.mark.parametrize(("text", "arguments", "words"), CALLS)
def test_a_calls_arguments(text: str, arguments: dict[str, Any] | None, words: str) -> None:
    call = ToolCall.parse("c", "f", text)
    assert call.arguments == arguments
    assert call.arguments_json == (text or "{}")
    assert words in (call.fault or "")
    assert (call.fault is None) is (arguments is not None)


def test_a_custom_calls_text() -> None:
    call = ToolCall.parse("c", "sh", "rm {", "custom")
    assert (call.arguments, call.fault, call.arguments_json) == ({"input": "rm {"}, None, "rm {")
    broken = ToolCall.parse("c", "sh", HALF, "custom")
    assert broken.arguments is None
    assert "Unicode" in str(broken.fault)


def test_a_call_with_other_arguments() -> None:
    call = ToolCall.parse("c", "f", '{ "a": 1 }').with_arguments({"a": 2, "b": "é"})
    assert call.arguments_json == '{"a":2,"b":"é"}'
    assert ToolCall.parse("c", "f", call.arguments_json).arguments == call.arguments


def test_usage_adds_up() -> None:
    assert Usage(1, 2) + Usage(3, 4) == Usage(4, 6)


def test_a_history_goes_on_from_one_before_it() -> None:
    before = History((PastCall("a", "f", "{}", "r", 1),), "One", 1, "One", "Yes.", frozenset({"a"}))
    after = History((PastCall("b", "f", "{}", None, 0), PastCall("c", "f", "{}", None, 1)), "", 1, "Two")
    both = after.after(before)
    assert [(c.id, c.turn) for c in both.calls] == [("a", 1), ("b", 1), ("c", 2)]
    assert (both.query, both.turn, both.opening, both.last_answer) == ("One", 2, "One", "Yes.")
    assert both.fresh == frozenset()


def test_principals_that_are_not_one_have_different_keys() -> None:
    keys = {Principal("a", tenant="b").key, Principal("b:a").key, Principal("a", tenant="b:").key}
    keys |= {Principal("a").key, Principal("a", kind="jwt").key}
    assert len(keys) == 5


# -- text in pieces -------------------------------------------------------------------------------


@given(text=st.text(st.characters(codec="utf-8")), cuts=st.lists(st.integers(0, 99), max_size=5))
def test_text_cut_by_utf16_units_is_put_together(text: str, cuts: list[int]) -> None:
    units = text.encode("utf-16-le", "surrogatepass")
    points = sorted({2 * cut for cut in cuts if 2 * cut < len(units)} | {0, len(units)})
    pieces = [units[a:b].decode("utf-16-le", "surrogatepass") for a, b in itertools.pairwise(points)]
    assert joined(pieces) == text
    assert is_whole(pieces)
    assert all(map(is_unicode, pieces)) is all(
        piece.isascii() or piece.encode("utf-8", "ignore").decode() == piece for piece in pieces
    )


def test_a_lone_half_is_replaced_in_text_and_requests_and_escaped_for_clients() -> None:
    assert joined(["a", HALF, "b"]) == "a\ufffdb"
    assert not is_whole(["a", HALF, "b"])
    assert not is_unicode(HALF)
    assert write_json({"a": HALF}) == b'{"a":"\\ud83d"}'
    assert write_request({"a": HALF, "b": 2**70}) == '{"a":"\ufffd","b":1180591620717411303424}'.encode()


def test_what_is_too_deep_to_be_written_has_no_reading() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(MalformedTurn, match="nested too deeply"):
        write_json(deep)


@pytest.mark.parametrize(
    ("value", "exact"),
    [
        (1.5, True),
        (2**60, True),
        ({"a": [1, {"b": "x"}]}, True),
        (float(2**53), False),
        ({"a": [1, {"b": -1e300}]}, False),
        (float("inf"), False),
    ],
)
def test_numbers_that_may_have_lost_digits(value: Any, exact: bool) -> None:
    assert is_exact(value) is exact
