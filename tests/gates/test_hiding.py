"""What hides in a result: behind escapes, in text within JSON, at a cut."""

from __future__ import annotations

import itertools
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engines.patterns import LinearPatterns
from proxy.gates.redaction import REDACTED, Unreadable, without_named, without_pointers
from tests.gates.conftest import request_of, situation_of
from tests.gates.test_redaction import SECRETS
from tests.gates.test_results import Start, steps, texts

PATTERNS = LinearPatterns()
WHOLE = sorted(set(SECRETS) - {"private key", "private key, cut"})
BEFORE = [
    "\n",
    "\t",
    "\r\n",
    '"',
    "<",
    "é",
    "\\",
    "\x1b[31m",
    "\x1b[01;31m\x1b[K",
    "\0",
    "=",
    "%3D",
    "%22",
    "%0a",
]


def quoted(text: str, times: int, ascii_only: bool = True) -> str:
    for _ in range(times):
        text = json.dumps(text, ensure_ascii=ascii_only)
    return text


@pytest.mark.parametrize("times", [0, 1, 2, 3])
@pytest.mark.parametrize("before", BEFORE)
def test_a_secret_behind_an_escape_is_taken_out(before: str, times: int) -> None:
    for kind, after in itertools.product(WHOLE, ("\n", "密")):
        left = without_named(quoted(f"a{before}{SECRETS[kind]}{after}", times), ["secrets"], PATTERNS)
        assert SECRETS[kind] not in left, kind
        assert REDACTED in left
        if times:
            json.loads(left)


@pytest.mark.parametrize(
    "escape", [r"\u0022", r"\u003E", r"\u0026", r"\x3d", r"\u001b[31m", r"\033[31m", r"\e[1;31m"]
)
def test_a_secret_behind_an_escape_that_need_not_be_one_is_taken_out(escape: str) -> None:
    for kind in WHOLE:
        assert SECRETS[kind] not in without_named(f"a{escape}{SECRETS[kind]}", ["secrets"], PATTERNS), kind


@pytest.mark.parametrize("escape", ["\\/", "\\u002B", "\\u002b", "\\u003d", "\\\\u002F"])
def test_a_bearer_token_does_not_end_at_an_escape(escape: str) -> None:
    text = f'{{"sent":"Bearer {"abc" * 6}{escape}restofit="}}'
    assert without_named(text, ["secrets"], PATTERNS) == f'{{"sent":"{REDACTED}"}}'


@given(st.text('\n\t"\\nu0022<é x', max_size=8), st.sampled_from(WHOLE), st.integers(1, 3), st.booleans())
def test_what_is_left_is_json_as_it_was(before: str, kind: str, times: int, ascii_only: bool) -> None:
    left = without_named(quoted(before + SECRETS[kind] + before, times, ascii_only), ["secrets"], PATTERNS)
    assert isinstance(json.loads(left), str)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_pointers_lead_into_json_that_was_quoted(times: int) -> None:
    left = without_pointers(quoted('{"ssn":1,"b":[2]}', times), ["/ssn"])
    for _ in range(times):
        left = json.loads(left)
    assert json.loads(left) == {"ssn": REDACTED, "b": [2]}


@pytest.mark.parametrize(
    ("pointer", "content", "left"),
    [
        ("/user/ssn", {"user": '{"ssn":1,"id":2}'}, {"user": '{"ssn":"[redacted]","id":2}'}),
        ("/0/text/ssn", [{"text": ' {"ssn": 1}'}], [{"text": '{"ssn":"[redacted]"}'}]),
        ("/*/a", ['[{"a":1}]', '{"a":1}'], ['[{"a":1}]', '{"a":"[redacted]"}']),
        ("/user/ssn", {"user": '{"ssn":1,"ssn":2}'}, {"user": REDACTED}),
        ("/user/ssn", {"user": '{"ssn":1} and more'}, {"user": REDACTED}),
    ],
)
def test_pointers_lead_into_json_within_json(pointer: str, content: Any, left: Any) -> None:
    assert orjson.loads(without_pointers(orjson.dumps(content).decode(), [pointer])) == left


@pytest.mark.parametrize("content", [{"user": "likes {x}"}, {"user": '{"id": 1}'}, '{"id": 1}', "plain"])
def test_text_within_json_to_which_no_pointer_leads_stays(content: Any) -> None:
    text = orjson.dumps(content).decode()
    assert without_pointers(text, ["/user/ssn"]) == text


@pytest.mark.parametrize("text", ['{"ssn":1,"ssn":2}', 'It is {"ssn":1}.', '"{'])
def test_quoted_json_that_has_no_one_reading_is_not_read(text: str) -> None:
    for times in (0, 1, 2):
        with pytest.raises(Unreadable):
            without_pointers(quoted(text, times), ["/ssn"])


async def test_no_half_of_a_secret_is_left_of_an_error(results: Start) -> None:
    gate, _, _ = results(redact=["secrets"], patterns=["ACME-[0-9]{9}"])
    secret, own = SECRETS["GitHub"], "ACME-123456789"
    for lead in range(200, 320, 3):
        for hidden in (secret, own):
            trace = f'Traceback (most recent call last):\n  File "x"\nKeyError: {"." * lead} {hidden} end'
            request = request_of(steps(trace))
            (shown,) = texts(await gate.admit(request, situation_of(request)))
            assert '"type":"tool_error"' in shown
            assert "aaaa" not in shown
            assert "ACME-1" not in shown


async def test_an_error_that_is_all_secret_is_taken_out_as_one(results: Start) -> None:
    gate, _, _ = results(patterns=["(?s)Traceback.*"])
    request = request_of(steps('Traceback (most recent call last):\n  File "x"\nKeyError: 1'))
    assert texts(await gate.admit(request, situation_of(request))) == [REDACTED]
