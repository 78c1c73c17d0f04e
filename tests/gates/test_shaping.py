"""Raw errors in a sentence, and results of a length that a model can use."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.gates.shaping import MAX_MESSAGE_CHARS, shaped, shortened

ERRORS = yaml.safe_load((Path(__file__).parent / "errors.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", ERRORS, ids=[case["name"] for case in ERRORS])
def test_a_raw_error_is_put_in_a_sentence_and_nothing_else_is(case: dict[str, Any]) -> None:
    text = shaped(case["text"])
    if "message" not in case:
        assert text is None
    else:
        assert text is not None
        assert orjson.loads(text) == {
            "error": {
                "type": "tool_error",
                "message": case["message"],
                "retryable": case.get("retryable", False),
            }
        }
        assert shaped(text) is None, "what was shaped is left alone"


def test_a_long_message_is_clipped() -> None:
    text = shaped('Traceback (most recent call last):\n  File "a.py"\nValueError: ' + "x" * 900)
    assert text is not None
    assert len(orjson.loads(text)["error"]["message"]) == MAX_MESSAGE_CHARS


@given(text=st.text() | st.text(alphabet=' \n\tatError:.(){}"<html>title'))
def test_whatever_a_tool_says_is_read_without_harm(text: str) -> None:
    for lead in (
        "",
        "Traceback (most recent call last):",
        "panic: ",
        '{"error":',
        "<html>",
        "Error: x\n   at ",
    ):
        found = shaped(lead + text)
        assert found is None or orjson.loads(found)["error"]["type"] == "tool_error"


@pytest.mark.parametrize(
    "text",
    [
        "Error: " * 30_000,
        "A" * 200_000 + "\n  at x",
        "\n".join(["  at x"] * 30_000),
        "Traceback (most recent call last):\n" + "  \n" * 60_000,
        "Traceback (most recent call last):\n" + "x.y" * 60_000,
        "<html>" + "<title>" * 30_000,
        "<html" + " " * 200_000,
        '{"error": "' + "\\n" * 100_000 + '"}',
        "panic: " + "x" * 200_000,
        "a.b$" * 50_000 + "\n    at b",
    ],
    ids=lambda text: text[:12],
)
def test_hostile_text_takes_no_time(text: str) -> None:
    began = perf_counter()
    shaped(text)
    assert perf_counter() - began < 1


@given(text=st.text(max_size=2000), max_bytes=st.integers(256, 1000))
def test_a_short_text_stays_and_a_long_one_says_what_is_missing(text: str, max_bytes: int) -> None:
    size = len(text.encode())
    short = shortened(text, max_bytes)
    assert len(short.encode()) <= max_bytes
    assert shortened(short, max_bytes) == short, "it comes out the same in the next request"
    if size <= max_bytes:
        assert short == text
    else:
        head, _, rest = short.partition("\n[... ")
        number, _, tail = rest.partition(" bytes of this result were left out ...]\n")
        assert text.startswith(head)
        assert text.endswith(tail)
        assert int(number) == size - len(head.encode()) - len(tail.encode())
        assert len(short.encode()) > max_bytes - 16, "no more is cut than has to be"
