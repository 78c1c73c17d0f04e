"""What the log is told of a difference holds nothing that the record of the decision would not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engines.evaluating.compiling import MINIMAL_INPUT
from proxy.engines.trial.differing import MAX_TEXT_CHARS, MAX_TEXTS, _Veil, difference
from proxy.gates.comparing import PACKAGES, Stand, stand
from proxy.pipeline import Capture
from proxy.record import MASKED

CALL, _, _, RESULT = PACKAGES
INPUT = {
    **MINIMAL_INPUT,
    "principal": {"id": "ann", "roles": ["ops"], "tenant": "", "claims": {"email": "ann@claims.test"}},
    "conversation": {"id": "c", "query": "pay invoice 9981 now", "turn": 1},
    "call": {
        "id": "c1",
        "name": "pay",
        "arguments": {"card": "4111-1111", "pin": 42, "to": {"iban": "DE00"}},
    },
    "history": {"calls": [{"id": "h", "name": "read", "arguments": {"path": "/secret/place"}, "turn": 0}]},
    "result": {"call_id": "c0", "tool": "read", "content": {"body": "what was read"}},
}


def said(
    live: dict[str, Any], candidate: dict[str, Any], capture: Capture = "full", package: str = CALL
) -> dict[str, Any]:
    record = difference(
        package=package,
        input=INPUT,
        trace_id="t",
        change="altered",
        live=stand(package, live, INPUT),
        candidate=stand(package, candidate, INPUT),
        revision="r",
        candidate_revision="s",
        capture=capture,
    )
    fields = record.fields()
    assert (fields["kind"], fields["event"]) == ("policy", "differs")
    return fields


def of(*reasons: str, **obligations: Any) -> dict[str, Any]:
    return {"effect": "allow", "reasons": list(reasons), "obligations": obligations}


QUOTING = "card 4111-1111 with pin 42 (not 1425) to DE00 of ann@claims.test after /secret/place: 9981"


@pytest.mark.parametrize(
    ("live_mask", "candidate_mask", "shown"),
    [
        ([], [], QUOTING),
        (["/card"], [], QUOTING.replace("4111-1111", MASKED)),
        ([], ["/card", "/to"], QUOTING.replace("4111-1111", MASKED).replace("DE00", MASKED)),
        (["/pin"], [], QUOTING.replace(" 42 ", f" {MASKED} ")),
        (["/nowhere/0"], [], QUOTING),
        (
            [""],
            [],
            "card [masked] with [masked] [masked] (not 1425) [masked] [masked] of ann@claims.test after "
            "/secret/place: 9981",
        ),
    ],
)
def test_what_either_side_masks_is_quoted_by_neither(
    live_mask: list[str], candidate_mask: list[str], shown: str
) -> None:
    fields = said(of(mask=live_mask), of(QUOTING, mask=candidate_mask))
    expected = shown.replace("card [masked] with", "[masked] [masked] with") if live_mask == [""] else shown
    assert fields["candidate"]["reasons"] == [expected]


@pytest.mark.parametrize("capture", ["digest", "off"])
def test_what_is_not_captured_is_not_quoted(capture: Capture) -> None:
    fields = said(of(), of(QUOTING, arguments={"card": "4111-1111"}), capture)
    written = json.dumps(fields)
    for secret in ("4111-1111", "DE00", "ann@claims.test", "/secret/place", "what was read"):
        assert secret not in written
    assert fields["principal"] == {"id": "ann", "roles": ["ops"], "tenant": ""}


def test_arguments_that_would_be_rewritten_are_masked_as_the_record_s() -> None:
    rewritten = {"card": "4111-1111", "note": "paid with 4111-1111", "pin": 7}
    obligations = said(of(mask=["/card"]), of(arguments=rewritten))["candidate"]["obligations"]
    assert obligations == {"arguments": {"card": MASKED, "note": f"paid with {MASKED}", "pin": 7}}
    assert said(of(), of(arguments=rewritten), "off")["candidate"]["obligations"] == {"arguments": MASKED}
    digest = said(of(), of(arguments=rewritten), "digest")["candidate"]["obligations"]["arguments"]
    assert [*digest] == ["sha256"]


def test_nothing_of_a_result_is_quoted() -> None:
    replaced = {"effect": "replace", "content": "so it says: what was read"}
    fields = said({"effect": "allow"}, replaced | {"reasons": ["what was read"]}, package=RESULT)
    assert fields["candidate"]["obligations"]["content"] == MASKED
    assert fields["candidate"]["reasons"] == [MASKED]


def test_a_candidate_cannot_fill_the_log() -> None:
    fields = said(of(), of(*["x" * 10_000] * 1000, arguments={"a": "y" * 100_000}))
    assert len(fields["candidate"]["reasons"]) == MAX_TEXTS + 1
    assert len(json.dumps(fields)) < (MAX_TEXTS + 10) * MAX_TEXT_CHARS


texts = st.text(st.characters(codec="utf-8"), max_size=12)


@given(secrets=st.lists(texts.filter(lambda text: len(text) >= 4), min_size=1), parts=st.lists(texts))
def test_no_long_secret_is_left(secrets: list[str], parts: list[str]) -> None:
    text = "".join(part + secrets[at % len(secrets)] for at, part in enumerate([*parts, ""]))
    pieces = _Veil(secrets).over(text).split(MASKED)
    assert not any(secret in piece for secret in secrets for piece in pieces)


def test_a_secret_within_another_does_not_uncover_the_rest() -> None:
    assert _Veil(["4711", "4711-99", "11-9"]).over("card 4711-99, or 4711") == f"card {MASKED}, or {MASKED}"


@given(st.lists(texts, max_size=4), texts)
def test_without_a_secret_in_it_a_text_stays(secrets: list[str], text: str) -> None:
    if not any(secret and secret in text for secret in secrets):
        assert _Veil(secrets).over(text) == text


def test_more_than_can_be_looked_for_covers_everything() -> None:
    veil = _Veil([str(n) for n in range(5000)])
    assert veil.over({"effect": ["any text", 3]}) == {MASKED: [MASKED, MASKED]}


def test_a_stand_without_obligations_says_so() -> None:
    assert Stand("allow").obligations == {}
