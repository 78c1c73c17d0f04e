"""A request of few bytes and many values: it would take thirty times its size, and everybody's time."""

from __future__ import annotations

import gzip
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.bodies import Unreadable, few_enough
from tests.http.conftest import Serve
from tests.http.harness import RawAnswer, ask, http, talk

TEXT = st.text(st.sampled_from('a,[]{}:"\\/ü\n'), max_size=12)
JSON = st.recursive(
    TEXT | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXT, inner, max_size=6),
    max_leaves=60,
)


def held(value: Any, empty: int) -> int:
    """The values that a value holds; an empty list or object counts for ``empty`` more."""
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return sum(1 + held(each, empty) for each in inner) if value else empty


def is_refused(body: bytes, max_values: int) -> bool:
    try:
        return few_enough(body, max_values) is not body
    except Unreadable as exc:
        return (exc.status, exc.code) == (413, "request_too_large")


@given(JSON, st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_values_are_counted_and_marks_in_strings_are_not(
    value: Any, separators: tuple[str, str], ascii: bool
) -> None:
    body = json.dumps(value, separators=separators, ensure_ascii=ascii).encode()
    assert not is_refused(body, max(held(value, empty=1), 1))
    if (values := held(value, empty=0)) > 1:
        assert is_refused(body, values - 1)


MANY = 10_000
HOSTILE: dict[str, bytes] = {
    "lists": b"[" + b"[]," * MANY + b"[]]",
    "nested lists": b"[" * MANY + b"]" * MANY,
    "strings": b"[" + b'"",' * MANY + b'""]',
    "keys": b"{" + b'"":1,' * MANY + b'"":1}',
    "numbers": b"[" + b"1," * MANY + b"1]",
    "marks behind a string that holds quotes": b'["' + b'\\"' * 99 + b'",' + b"[]," * MANY + b"1]",
    "marks behind backslashes": b'["' + b"\\\\" * 99 + b'",' + b"[]," * MANY + b"1]",
}
HARMLESS: dict[str, bytes] = {
    "prose": b'["' + b"ten, or so, " * MANY + b'"]',
    "JSON in a string": orjson.dumps([orjson.dumps([[]] * MANY).decode()]),
}
# Not JSON, and over soon: the end of a string must not be looked for from each of its quotes.
ENDLESS: dict[str, bytes] = {
    "escaped quotes": b'"' + b'\\",' * 2**20,
    "a backslash at the end": b'"' + b'\\",' * 2**20 + b"\\",
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_many_values_are_refused(shape: str) -> None:
    assert is_refused(HOSTILE[shape], MANY // 2)


@pytest.mark.parametrize("shape", HARMLESS)
def test_long_texts_are_not(shape: str) -> None:
    assert not is_refused(HARMLESS[shape], MANY // 2)


@pytest.mark.parametrize("shape", ENDLESS)
def test_strings_without_an_end_take_no_longer(shape: str) -> None:
    assert not is_refused(ENDLESS[shape], MANY)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/embeddings",
        "/v1/responses/resp_1/cancel",
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
async def test_a_request_of_many_values(path: str, packed: bool, serve: Serve) -> None:
    callgate = await serve({"text": "Fine."}, limits={"max_request_values": 1000})
    body = orjson.dumps(ask(input="x", more=[[]] * 1000))
    request = (
        http("POST", path, gzip.compress(body), ("Content-Encoding: gzip", "Content-Type: application/json"))
        if packed
        else http("POST", path, body, ("Content-Type: application/json",))
    )
    answer = RawAnswer(await talk(callgate.port, request))
    assert answer.status == 413
    assert "limits.max_request_values" in answer.error["message"]
    assert callgate.provider.requests == []
