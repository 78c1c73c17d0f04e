"""What is kept of an answer, and what becomes of the requests that follow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from proxy.model import Request, ToolResult, Turn, dumps, loads
from proxy.wire.codec import Settlement
from tests.wire.responses.answers import CODEC, Json, items_events, turn_of, written

USER: Json = {"role": "user", "content": "Go."}
DENIED = "Not for you."


def call(id: str, name: str = "f", **more: Any) -> Json:
    return {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": name, "arguments": "{}", **more}


def output(id: str, text: str = "fine") -> Json:
    return {"type": "function_call_output", "call_id": id, "output": text}


def thought(id: str) -> Json:
    return {"type": "reasoning", "id": id, "summary": [], "encrypted_content": f"of {id}"}


def said(id: str, text: str) -> Json:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": id, "role": "assistant", "status": "completed", "content": [part]}


def turn(id: str, *items: Json) -> Turn:
    wires = items_events(*items)
    for wire in wires:
        if "response" in wire:
            wire["response"]["id"] = id
    return turn_of(written(wires))


def read(**members: Any) -> Request:
    return CODEC.read(dumps({"model": "m", "input": [USER]} | members))


def keep(
    request: Request, turns: Sequence[Turn], denied: Sequence[str] = ()
) -> tuple[Settlement | None, dict[str, bytes]]:
    """Settle all turns but the last, of which only these calls are denied."""
    hidden = []
    for one in turns[:-1]:
        results = [ToolResult(c.id, DENIED) for c in one.calls]
        hidden.append((one, results))
        request = CODEC.extend(request, one, results, relax=False)
    settled = [ToolResult(c.id, DENIED) for c in turns[-1].calls if c.id in denied]
    settlement = CODEC.settlement(request, hidden, turns[-1], settled)
    return settlement, {handle: settlement.kept for handle in settlement.handles} if settlement else {}


def restored(kept: Mapping[str, bytes], **members: Any) -> Request:
    request = read(**members)
    return CODEC.restore(request, {h: kept[h] for h in request.handles if h in kept})


# -- by name --------------------------------------------------------------------------------------


def test_a_plain_answer_is_known_by_its_id() -> None:
    _, kept = keep(read(), [turn("r1", said("m", "Hi."))])
    after = restored(kept, previous_response_id="r1", input="And?")
    assert after.body["previous_response_id"] == "r1"
    assert after.body["input"] == "And?"
    assert (after.history.opening, after.history.query, after.history.turn) == ("Go.", "And?", 2)
    assert after.history.last_answer == "Hi."


def test_nothing_is_kept_of_what_the_provider_does_not_keep() -> None:
    settlement, _ = keep(read(store=False), [turn("r1", said("m", "Hi."), call("a"))])
    assert settlement is None


def test_the_id_of_the_first_round_leads_to_the_last_one() -> None:
    _, kept = keep(read(), [turn("r1", call("a")), turn("r2", call("b")), turn("r3", said("m", "No."))])
    assert "r2" not in kept
    after = restored(kept, previous_response_id="r1", input="And?")
    assert after.body["previous_response_id"] == "r3"
    assert [(c.id, c.result is None) for c in after.history.calls] == [("a", False), ("b", False)]


def test_calls_that_the_client_never_saw_are_answered() -> None:
    _, kept = keep(read(), [turn("r1", call("a", "drop"), call("b"))], denied=["a"])
    after = restored(kept, previous_response_id="r1", input=[output("b")])
    assert after.body["input"] == [output("a", DENIED), output("b")]
    assert [(c.id, c.name, c.result) for c in after.history.calls] == [
        ("a", "drop", DENIED),
        ("b", "f", "fine"),
    ]
    assert [(r.call_id, r.tool) for r in after.results] == [("a", "drop"), ("b", "f")]
    assert after.history.fresh == {"a", "b"}


def test_the_clients_own_answer_to_such_a_call_does_not_count() -> None:
    _, kept = keep(read(), [turn("r1", call("a", "drop"), call("b"))], denied=["a"])
    after = restored(kept, previous_response_id="r1", input=[output("a", "forged"), output("b")])
    assert after.body["input"] == [output("a", DENIED), output("b")]


@pytest.mark.parametrize("conversation", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_is_known_by_its_id(conversation: Any) -> None:
    request = read(conversation=conversation)
    _, kept = keep(request, [turn("r1", call("z")), turn("r2", call("a", "drop"), call("b"))], denied=["a"])
    after = restored(kept, conversation=conversation, input=[output("b")])
    assert after.body["input"] == [output("a", DENIED), output("b")]
    assert after.body["conversation"] == conversation
    assert [c.id for c in after.history.calls] == ["z", "a", "b"]
    assert after.history.query == "Go."
    # The next answer takes the place of this one.
    _, kept = keep(after, [turn("r3", said("m", "Done."))])
    again = restored(kept, conversation=conversation, input="More.")
    assert again.body["input"] == "More."


def test_histories_add_up_along_the_chain() -> None:
    kept: dict[str, bytes] = {}
    request = read()
    for number in range(1, 4):
        _, new = keep(request, [turn(f"r{number}", call(f"c{number}"))])
        kept |= new
        request = restored(kept, previous_response_id=f"r{number}", input=[output(f"c{number}")])
    assert [(c.id, c.result is None) for c in request.history.calls] == [(f"c{n}", False) for n in (1, 2, 3)]
    assert (request.history.opening, request.history.turn) == ("Go.", 1)


def test_what_is_kept_is_bounded() -> None:
    long = "x" * 100_000
    calls = [call(f"c{n}", arguments=dumps({"text": long}).decode()) for n in range(5)]
    settlement, _ = keep(read(input=long), [turn("r1", *calls)])
    assert settlement is not None
    assert len(settlement.kept) < 500_000
    assert len(loads(settlement.kept)["history"]["calls"]) == 2


# -- by what the input holds ----------------------------------------------------------------------


def test_hidden_calls_stand_beside_those_that_the_client_has() -> None:
    turns = [
        turn("r1", thought("rs_1"), call("a", "drop")),
        turn("r2", thought("rs_2"), call("b", "drop"), call("c")),
    ]
    _, kept = keep(read(store=False), turns, denied=["b"])
    blank = said("msg_blank", "")
    given = [USER, thought("rs_1"), blank, thought("rs_2"), call("c"), output("c")]
    after = restored(kept, store=False, input=given)
    assert after.body["input"] == [
        USER,
        thought("rs_1"),
        call("a", "drop"),
        output("a", DENIED),
        thought("rs_2"),
        call("b", "drop"),
        call("c"),
        output("b", DENIED),
        output("c"),
    ]
    # Once is enough.
    twice = CODEC.restore(after, {h: kept[h] for h in after.handles if h in kept})
    assert twice.body["input"] == after.body["input"]


def test_without_their_reasoning_hidden_calls_have_no_id() -> None:
    _, kept = keep(
        read(store=False), [turn("r1", thought("rs_1"), call("a", "drop"), call("c"))], denied=["a"]
    )
    after = restored(kept, store=False, input=[USER, call("c"), output("c")])
    bare = {key: value for key, value in call("a", "drop").items() if key != "id"}
    assert after.body["input"] == [USER, bare, call("c"), output("a", DENIED), output("c")]


def test_an_answer_without_calls_is_known_by_its_last_message() -> None:
    turns = [turn("r1", said("m1", "Well."), call("a")), turn("r2", said("m2", "No."))]
    _, kept = keep(read(), turns)
    given = [USER, said("m1", "Well."), said("m2", "No."), {"role": "user", "content": "Why?"}]
    after = restored(kept, input=given)
    assert [item.get("call_id", item.get("id")) for item in after.body["input"]] == [
        None,
        "m1",
        "a",
        "a",
        "m2",
        None,
    ]


def test_an_id_that_another_tool_has_now_means_another_call() -> None:
    _, kept = keep(read(), [turn("r1", call("a", "drop"), call("c", "f"))], denied=["a"])
    given = [USER, call("c", "other"), output("c")]
    assert restored(kept, input=given).body["input"] == given


def test_calls_that_are_only_referred_to_are_history() -> None:
    _, kept = keep(read(), [turn("r1", call("c", "get"))])
    given = [USER, {"type": "item_reference", "id": "fc_c"}, output("c")]
    after = restored(kept, input=given)
    assert after.body["input"] == given
    assert [(c.id, c.name, c.result) for c in after.history.calls] == [("c", "get", "fine")]
    assert after.history.turn == 1
    assert [result.tool for result in after.results] == ["get"]


def test_what_the_store_has_lost_changes_nothing() -> None:
    request = read(previous_response_id="r1")
    assert CODEC.restore(request, {}) is request


# -- held turns -----------------------------------------------------------------------------------


def test_a_released_turn_leads_back_to_what_the_provider_knows() -> None:
    held = turn("r1", call("a", "drop"))
    _, kept = keep(read(), [held], denied=["a"])
    asked = restored(kept, previous_response_id="r1", input="approve ABCDEF")
    again = turn_of(CODEC.replay(CODEC.hold(held), True))
    settlement, more = keep(asked, [again])
    assert settlement is not None
    assert settlement.handles == ("r1-held", "a")
    after = restored(more, previous_response_id="r1-held", input=[output("a")])
    assert (after.body["previous_response_id"], after.body["input"]) == ("r1", [output("a")])


def test_a_declined_turn_is_answered_in_place() -> None:
    held = turn("r1", call("a", "drop"))
    _, kept = keep(read(), [held], denied=["a"])
    asked = restored(kept, previous_response_id="r1", input="decline ABCDEF")
    again = turn_of(CODEC.replay(CODEC.hold(held), False), False)
    after = CODEC.extend(asked, again, [ToolResult("a", "Declined.")], relax=True)
    assert after.body["input"] == [
        output("a", "Declined."),
        {"role": "user", "content": "decline ABCDEF"},
    ]
